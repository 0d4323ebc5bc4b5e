"""Maps and the tracks that they are made of, as one dataset after the CF conventions."""

__all__ = ["maps_dataset"]

import math
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor

from pcl.problems.ocean.evaluation.point_law import how_to_read
from pcl.problems.ocean.reconstruct.estimate import Maps
from pcl.problems.ocean.reconstruct.tracks import Tracks

if TYPE_CHECKING:
    import xarray as xr

FILL = np.float32(1e20)
SECONDS = "seconds since 1970-01-01 00:00:00"
VELOCITIES = (("u", "eastward_sea_water_velocity", "eastward"), ("v", "northward_sea_water_velocity", "northward"))
STATISTICS = (("mean", "posterior mean", "mean"), ("std", "posterior standard deviation", "standard_deviation"))
PLACES = (("latitude", "degrees_north"), ("longitude", "degrees_east"))
GRID = ("time", "latitude", "longitude")
_Variable = tuple[str | Sequence[str], np.ndarray, dict[str, Any]]  # dimensions, values, attributes


def maps_dataset(maps: Maps, tracks: Tracks, used: Tensor, about: Mapping[str, str | float | int]) -> "xr.Dataset":
    """Return maps, the velocities that were measured and the fixes that were kept.

    Args:
        maps: of currents.
        tracks: that they are made of.
        used: which pieces of tracks counted, shape (n,).
        about: global attributes.

    References:
        CF conventions 1.11, https://cfconventions.org.
    """
    import xarray as xr

    data = _fields(maps) | _measurements(tracks, used) | _trajectories(tracks)
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    attributes = {
        "Conventions": "CF-1.11",
        "title": "surface currents reconstructed from drifters",
        "source": "pcl reconstruct: Gaussian posterior of currents given velocities of drifters",
        "history": f"{now}: written by pcl reconstruct",
        **about,
    }
    dataset = xr.Dataset(data, _coordinates(maps), attributes)
    for variable in (*dataset.data_vars.values(), *dataset.coords.values()):
        packed = {"zlib": True, "complevel": 4} if variable.dtype.kind in "fi" and variable.ndim else {}
        variable.encoding = {"_FillValue": FILL if variable.dtype == np.float32 else None, **packed}
    return dataset


def _fields(maps: Maps) -> dict[str, _Variable]:
    data: dict[str, _Variable] = {}
    for component, (name, standard, direction) in enumerate(VELOCITIES):
        about = {"standard_name": standard, "units": "m s-1"}
        label = f"{direction} sea water velocity, {{}} given drifters"
        members = maps.members[:, component].numpy().astype(np.float32)
        data[name] = (("realization", *GRID), members, about | {"long_name": label.format("member of the posterior")})
        for (key, meaning, method), values in zip(STATISTICS, (maps.mean, maps.std), strict=True):
            own = about | {"long_name": label.format(meaning), "cell_methods": f"realization: {method}"}
            if key == "std":
                own["comment"] = how_to_read(maps.degrees)
                if math.isfinite(maps.degrees):
                    del own["cell_methods"]  # members are narrower
            data[f"{name}_{key}"] = (GRID, values[component].numpy().astype(np.float32), own)
    told = {"long_name": "share of the variance of the prior that measurements explain", "units": "1"}
    data["explained_variance"] = (GRID, maps.explained.numpy().astype(np.float32), told)
    mask = {"standard_name": "sea_binary_mask", "long_name": "1 in water or not known, 0 on land", "units": "1"}
    flags = {"flag_values": np.array([0, 1], np.int8), "flag_meanings": "land water"}
    data["wet_mask"] = (GRID[1:], maps.wet.numpy().astype(np.int8), mask | flags)
    return data


def _coordinates(maps: Maps) -> dict[str, _Variable]:
    found: dict[str, _Variable] = {
        "realization": (
            "realization",
            np.arange(len(maps.members), dtype=np.int32),
            {"standard_name": "realization", "long_name": "member of the ensemble", "units": "1", "axis": "E"},
        ),
        "time": ("time", maps.grid.time_s, _time("time") | {"axis": "T"}),
    }
    for (name, units), axis in zip(PLACES, "YX", strict=True):
        values = getattr(maps.grid, name)
        found[name] = (name, values, {"standard_name": name, "long_name": name, "units": units, "axis": axis})
    return found


def _time(name: str) -> dict[str, str]:
    return {"standard_name": "time", "long_name": name, "units": SECONDS, "calendar": "standard"}


def _measurements(tracks: Tracks, used: Tensor) -> dict[str, _Variable]:
    """Return the mean velocity of every piece of a track, with the place and time of its middle."""
    pieces, by = tracks.pieces, "measurement"
    coordinates = {"coordinates": "measurement_time measurement_latitude measurement_longitude"}
    data: dict[str, _Variable] = {
        "measurement_time": (by, pieces.time_s, _time("middle of the piece of a track")),
        "measurement_duration": (by, pieces.duration_s, {"long_name": "duration of the piece", "units": "s"}),
        "measurement_drifter": (by, pieces.name.astype(str), {"long_name": "name of the drifter"}),
        "measurement_used": (
            by,
            used.numpy().astype(np.int8),
            {
                "long_name": "whether it counted: 0 where the prior knows no currents",
                "flag_values": np.array([0, 1], np.int8),
                "flag_meanings": "unused used",
            },
        ),
    }
    for name, units in PLACES:
        values = getattr(pieces, name)
        values = (values + 180) % 360 - 180 if name == "longitude" else values
        data[f"measurement_{name}"] = (by, values, {"standard_name": name, "units": units})
    for component, (name, standard, direction) in enumerate(VELOCITIES):
        label = {"long_name": f"{direction} velocity of the drifter along the piece", "units": "m s-1"}
        data[f"measurement_{name}"] = (
            by,
            pieces.velocity[:, component],
            {"standard_name": standard} | label | coordinates,
        )
    return data


def _trajectories(tracks: Tracks) -> dict[str, _Variable]:
    """Return the fixes that were kept, as a contiguous ragged array."""
    fixes = tracks.fixes
    names, counts = np.unique(fixes.name, return_counts=True)
    data: dict[str, _Variable] = {
        "drifter": (
            "drifter_number",
            names.astype(str),
            {"cf_role": "trajectory_id", "long_name": "name of the drifter"},
        ),
        "row_size": (
            "drifter_number",
            counts.astype(np.int32),
            {"long_name": "fixes of the drifter", "sample_dimension": "fix", "units": "1"},
        ),
        "fix_time": ("fix", fixes.time_s, _time("time of the fix")),
    }
    for name, units in PLACES:
        data[f"fix_{name}"] = ("fix", getattr(fixes, name), {"standard_name": name, "units": units})
    return data
