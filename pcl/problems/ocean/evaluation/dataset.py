"""Estimates of currents as datasets after the CF conventions.

Shapes: K members, T times, H x W grid points.
"""

__all__ = ["to_dataset"]

import math
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from pcl.problems.ocean.contract import Origin
from pcl.problems.ocean.evaluation.fields import Estimate
from pcl.problems.ocean.evaluation.point_law import how_to_read
from pcl.problems.ocean.evaluation.windows import Geometry

VELOCITIES = (("u", "eastward_sea_water_velocity", "eastward"), ("v", "northward_sea_water_velocity", "northward"))
FILL = np.float32(1e20)
_Variable = tuple[str | Sequence[str], np.ndarray, dict[str, Any]]  # dimensions, values, attributes


def to_dataset(
    estimate: Estimate, origin: Tensor, wet: Tensor, geometry: Geometry, about: Mapping[str, Any]
) -> xr.Dataset:
    """Return an estimate as a CF dataset: members first along ``realization``, mean, spread, water mask.

    Args:
        estimate: with members and standard deviation.
        origin: of the window, shape (6,).
        wet: where there is water, shape (T, H, W); values that the truth lacks there are estimated all the same.
        geometry: of the tiles.
        about: global attributes: source, experiment hash, checkpoint, seeds.

    Raises:
        ValueError: the estimate has no members or no standard deviation.

    References:
        CF conventions 1.11, https://cfconventions.org.
    """
    if estimate.members is None or estimate.std is None:
        raise ValueError("the estimate has no members or no standard deviation: only ensembles are written")
    grid = ("time", "latitude", "longitude")
    data: dict[str, _Variable] = {
        "wet_mask": (
            grid,
            wet.numpy().astype(np.int8),
            {
                "standard_name": "sea_binary_mask",
                "long_name": "1 in water, 0 on land",
                "units": "1",
                "flag_values": np.array([0, 1], np.int8),
                "flag_meanings": "land water",
            },
        )
    }
    for component, (name, standard_name, direction) in enumerate(VELOCITIES):
        attributes = {"standard_name": standard_name, "units": "m s-1"}
        for key, dimensions, values, meaning in (
            (name, ("realization", *grid), estimate.members[:, component], "member of the posterior ensemble"),
            (f"{name}_mean", grid, estimate.mean[component], "posterior mean"),
            (f"{name}_std", grid, estimate.std[component], "posterior standard deviation"),
        ):
            label = f"{direction} sea water velocity, {meaning} given drifters"
            stored = torch.where(wet, values, torch.nan).numpy().astype(np.float32)
            own = attributes | _cell_method(key) | {"long_name": label}
            if key.endswith("_std") and estimate.degrees is not None:
                own["comment"] = how_to_read(estimate.degrees)
                if math.isfinite(estimate.degrees):
                    del own["cell_methods"]  # members are narrower
            data[key] = (dimensions, stored, own)
    dataset = xr.Dataset(data, _coordinates(len(estimate.members), origin, geometry), _global(estimate, about))
    for variable in (*dataset.data_vars.values(), *dataset.coords.values()):
        missing = variable.dtype == np.float32  # the velocities: coordinates and the mask have no missing values
        variable.encoding = {"_FillValue": FILL if missing else None}
    return dataset


def _cell_method(key: str) -> dict[str, str]:
    kind = {"mean": "mean", "std": "standard_deviation"}.get(key.partition("_")[2])
    return {"cell_methods": f"realization: {kind}"} if kind else {}


def _coordinates(num_members: int, origin: Tensor, geometry: Geometry) -> dict[str, _Variable]:
    latitude, longitude = geometry.axes(origin)
    time = float(Origin.of(origin).release_s) + geometry.time_s.numpy()
    return {
        "realization": (
            "realization",
            np.arange(num_members, dtype=np.int32),
            {"standard_name": "realization", "long_name": "member of the ensemble", "units": "1", "axis": "E"},
        ),
        "time": (
            "time",
            time,
            {
                "standard_name": "time",
                "long_name": "time",
                "units": "seconds since 1970-01-01 00:00:00",
                "calendar": geometry.calendar,
                "axis": "T",
            },
        ),
        "latitude": (
            "latitude",
            latitude.numpy(),
            {"standard_name": "latitude", "long_name": "latitude", "units": "degrees_north", "axis": "Y"},
        ),
        "longitude": (
            "longitude",
            longitude.numpy(),
            {"standard_name": "longitude", "long_name": "longitude", "units": "degrees_east", "axis": "X"},
        ),
    }


def _global(estimate: Estimate, about: Mapping[str, Any]) -> dict[str, Any]:
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    size = {} if estimate.effective_sample_size is None else {"effective_sample_size": estimate.effective_sample_size}
    return {
        "Conventions": "CF-1.11",
        "title": "surface currents given drifters: posterior ensemble of a learned conditional",
        "history": f"{now}: written by pcl",
        **size,
        **about,
    }
