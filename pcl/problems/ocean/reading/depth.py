"""The level that is read of a file: a depth in metres below the surface, or none that can be told."""

__all__ = ["Level", "choose_level"]

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr

from pcl.errors import BadInputError
from pcl.problems.ocean.reading.names import find_axis, text

LENGTHS = (
    (1.0, re.compile(r"m|met(er|re)s?( below.*)?")),
    (0.01, re.compile(r"cm|centimet(er|re)s?")),
    (1000.0, re.compile(r"km|kilomet(er|re)s?")),
)
KINDS = re.compile(r"depth.*|height.*|altitude.*|")  # standard names of what is measured in metres
FROM_FLOOR = re.compile(r".*(sea_?floor|bottom|sea_?bed).*")  # names of what is measured from the other end
NAMES = re.compile(r"depth.*|.*_?depth|z_t")  # of an axis without units that is one in metres
LOOSE_NAMES = re.compile(r"lev(el)?|z|st_ocean")  # of one that is, unless it counts layers or is a sigma
SINGLE_M, SINGLE_SHARE = 1.0, 0.2  # how far from the depth asked for a single level may lie
STATED = ("depth", "depth_m", "level_depth")  # attributes that give the depth of a file without an axis


@dataclass(frozen=True)
class Level:
    """One level of a variable.

    Attributes:
        index: of the entry of a dimension to read, empty if the variable has no levels.
        depth_m: metres below the surface; None where the file does not say.
    """

    index: dict[str, int]
    depth_m: float | None


def choose_level(dataset: xr.Dataset, where: str, name: str, depth_m: float | None) -> Level:
    """Choose the level to read: the shallowest, or the one at a depth.

    Args:
        dataset: content of a file.
        where: the file, for messages.
        name: of the velocity.
        depth_m: asked for, metres below the surface; None: the shallowest.

    Raises:
        BadInputError: the levels are no depths in metres, or none lies at the depth asked for: further from it than
            half the distance to the next level, or, of a single level, than 1 m and 20 %.

    Example:
        >>> levels = {"depth": ("depth", [0.0, -10.0, -50.0], {"units": "m", "positive": "up"})}
        >>> grid = xr.Dataset({"u": (("depth", "y", "x"), np.zeros((3, 1, 1)))}, levels)
        >>> choose_level(grid, "a.nc", "u", 48.0)
        Level(index={'depth': 2}, depth_m=50.0)
    """
    if depth_m is not None and not 0 <= depth_m < np.inf:
        raise BadInputError(
            f"data.ocean.depth_m={depth_m:g}: it must be metres below the surface, such as {abs(depth_m):g}, whatever "
            "the sign in the files"
        )
    axis = find_axis(dataset, name, "depth")
    if axis is None:
        return Level({}, _check_single(_stated_depth(dataset, name), where, name, depth_m))
    values = dataset.variables[axis]
    depths = _metres(values, axis, where)
    if depths is None:
        if depth_m is None and values.size == 1:
            return Level({str(dim): 0 for dim in values.dims}, None)
        raise BadInputError(
            f"{where}: {name} has {values.size} entries along {axis}, {_what(values)}, no depth in metres: "
            "interpolate to depths, or give it the units 'm' if it is one"
        )
    index = int(np.argmin(np.abs(depths - (depth_m or 0.0))))
    chosen = float(depths[index])
    if len(depths) == 1:
        _check_single(chosen, where, name, depth_m)
    elif depth_m is not None:
        following = np.sort(np.abs(depths - chosen))[1]
        if abs(chosen - depth_m) > following / 2:
            listed = ", ".join(f"{depth:g}" for depth in np.sort(depths))
            raise BadInputError(
                f"{where}: {axis} has no level at data.ocean.depth_m={depth_m:g}, the nearest is at {chosen:g} m: "
                f"choose one of {listed} m"
            )
    return Level({str(dim): index for dim in values.dims}, chosen)


def _metres(values: xr.Variable, axis: str, where: str) -> np.ndarray | None:
    """Return depths in metres, positive downwards; None if an axis holds something else."""
    units, kind = text(values.attrs, "units").lower(), text(values.attrs, "standard_name")
    if FROM_FLOOR.fullmatch(kind or axis.lower()):
        raise BadInputError(
            f"{where}: {axis} is a height above the sea floor ({kind or 'by its name'}), no depth below the surface: "
            "interpolate to depths"
        )
    per = next((metres for metres, spelling in LENGTHS if spelling.fullmatch(units)), None)
    stored = np.atleast_1d(np.asarray(values.values, np.float64)) * (per or 1.0)
    loose = LOOSE_NAMES.fullmatch(axis.lower()) is not None and not _counts_layers(stored)
    unnamed = not units and (kind == "depth" or NAMES.fullmatch(axis.lower()) is not None or loose)
    if not KINDS.fullmatch(kind) or (per is None and not unnamed):
        return None
    if stored.size == 1 and not np.isfinite(stored).all():
        return None
    if not np.isfinite(stored).all():
        raise BadInputError(
            f"{where}: {axis} is missing at some levels: every level must have a depth, repair the file"
        )
    if (stored >= 0).all() or (stored <= 0).all():  # files disagree on what is up, but levels lie in the water
        return np.abs(stored)
    positive = text(values.attrs, "positive").lower()
    if positive not in ("up", "down"):
        raise BadInputError(
            f"{where}: {axis} goes from {stored.min():g} to {stored.max():g} m and does not say what is up: give it "
            "the attribute positive, 'up' or 'down'"
        )
    return -stored if positive == "up" else stored


def _counts_layers(stored: np.ndarray) -> bool:
    """Return whether levels without units are numbers of layers, or shares of the depth."""
    return bool(np.all(np.abs(np.diff(stored)) == 1) or np.abs(stored).max() <= 1)


def _what(values: xr.Variable) -> str:
    attributes = (text(values.attrs, key) for key in ("standard_name", "units", "long_name"))
    found = next(filter(None, attributes), "")
    return f"which is '{found}'" if found else "which has no units"


def _stated_depth(dataset: xr.Dataset, name: str) -> float | None:
    """Return the depth of a file without an axis of depth, from its attributes or the standard name."""
    attributes: list[Mapping[Any, Any]] = [dataset.variables[name].attrs, dataset.attrs]
    for stated in attributes:
        for key in STATED:
            found = re.fullmatch(r"([-+]?[\d.]+(?:e[-+]?\d+)?)\s*([a-z]*)", text(stated, key).lower())
            if found:
                per = next((metres for metres, spelling in LENGTHS if spelling.fullmatch(found[2] or "m")), None)
                return None if per is None else abs(float(found[1])) * per
    bounds = [text(dataset.attrs, f"geospatial_vertical_{end}") for end in ("min", "max")]
    if bounds[0] == bounds[1] and re.fullmatch(r"[-+]?[\d.]+", bounds[0]):
        return abs(float(bounds[0]))
    return 0.0 if text(dataset.variables[name].attrs, "standard_name").startswith("surface_") else None


def _check_single(depth: float | None, where: str, name: str, depth_m: float | None) -> float | None:
    """Refuse a single level that is not the one asked for."""
    if depth_m is None:
        return depth
    if depth is None:
        raise BadInputError(
            f"{where}: {name} has no depth to compare data.ocean.depth_m={depth_m:g} with: leave depth_m empty (null) "
            "if the file is at that depth"
        )
    if abs(depth - depth_m) > max(SINGLE_M, SINGLE_SHARE * depth):
        raise BadInputError(
            f"{where}: {name} is at {depth:g} m only, and data.ocean.depth_m={depth_m:g}: choose {depth:g}, or give "
            "files of that depth"
        )
    return depth
