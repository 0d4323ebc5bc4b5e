"""Drawn windows of currents, or sets of drifters, as a dataset: each with its own place and time.

Shapes: n draws, T times, H x W grid points, D drifters, P positions.
"""

__all__ = ["drawn_dataset", "of_one_tile"]

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from pcl.evaluation.splits import Splits
from pcl.problems.ocean.contract import Origin, Position
from pcl.problems.ocean.evaluation.windows import Geometry
from pcl.problems.ocean.tracks import within_half_turn

SECONDS = "seconds since 1970-01-01 00:00:00"
VELOCITIES = (("u", "eastward_sea_water_velocity"), ("v", "northward_sea_water_velocity"))
DEGREES = {"latitude": "degrees_north", "longitude": "degrees_east"}


def of_one_tile(origins: Tensor, origin: Tensor) -> Tensor:
    """Return which windows are of the tile of another one: its currents alone may stand for that one's.

    Args:
        origins: of windows, shape (N, 6).
        origin: of the other, shape (1, 6).
    """
    own, other = Origin.of(origins), Origin.of(origin)
    return (own.row == other.row) & (own.column == other.column)


def drawn_dataset(splits: Splits, name: str, row: Tensor, weights: Tensor) -> xr.Dataset:
    """Return drawn currents in m/s, or drawn drifters in degrees, with their weights, after the CF conventions.

    Args:
        splits: the pairs that hold the drawn items.
        name: ``u`` or ``v``, what was drawn.
        row: of every draw among those pairs, shape (n,).
        weights: of the draws, shape (n,).
    """
    geometry = Geometry.of(splits.source, splits.root / "manifest.json")
    items, origins = splits.arrays[name][row], splits.arrays["origin"][row]
    found = xr.Dataset(
        {"weight": ("draw", weights.numpy(), {"long_name": "weight of the window", "units": "1"})},
        attrs={"Conventions": "CF-1.11"},
    )
    found = _drifters(found, items, origins, geometry) if name == "v" else _currents(found, items, origins, geometry)
    found["time"].attrs = {"standard_name": "time", "units": SECONDS, "calendar": geometry.calendar}
    return found


def _currents(found: xr.Dataset, items: Tensor, origins: Tensor, geometry: Geometry) -> xr.Dataset:
    axes = [geometry.axes(origin) for origin in origins]
    for place, (name, standard_name) in enumerate(VELOCITIES):
        about = {"standard_name": standard_name, "units": "m s-1", "coordinates": "time latitude longitude"}
        found[name] = (("draw", "step", "y", "x"), items[:, place].numpy(), about)
    for place, (name, units) in enumerate(DEGREES.items()):
        values = torch.stack([pair[place] for pair in axes]).numpy()
        found[name] = (("draw", "yx"[place]), values, {"standard_name": name, "units": units})
    release = Origin.of(origins).release_s[:, None]
    found["time"] = (("draw", "step"), (release + geometry.time_s).numpy())
    return found


def _drifters(found: xr.Dataset, items: Tensor, origins: Tensor, geometry: Geometry) -> xr.Dataset:
    positions, origin = Position.of(items.double()), Origin.of(origins)
    east = within_half_turn(positions.east) + origin.longitude[:, None, None]
    for (name, units), values in zip(DEGREES.items(), (positions.latitude, east), strict=True):
        about = {"standard_name": name, "units": units}
        found[name] = (("draw", "drifter", "position"), values.numpy(), about)
    records = np.arange(items.shape[2]) * geometry.record_s
    found["time"] = (("draw", "position"), origin.release_s[:, None].numpy() + records)
    return found
