"""How the points of a file lie: on a rectilinear grid of latitudes and longitudes, or refused by their own name."""

__all__ = ["SAID", "Grid", "damaged", "read_coordinate", "refuse_along_grid", "refuse_tracks", "shared_grid"]

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import xarray as xr

from pcl.errors import BadInputError, DamagedDataError, RunFailedError
from pcl.problems.ocean.reading.grid import check_axis, disagreement, rectilinear_axes
from pcl.problems.ocean.reading.names import Velocity, find_axis, horizontal_kind, text

GEOGRAPHIC = ("latitude_longitude", "mercator")  # grid mappings whose lines run east and north
SAID = (BadInputError, DamagedDataError, RunFailedError, MemoryError)  # errors that say what is wrong themselves
BETWEEN = 0.05  # of a cell: how far 2-D coordinates may lie from the axes of the grid that they repeat


def damaged(path: str, error: Exception) -> DamagedDataError:
    """Return the one line that says that a file cannot be read, and why."""
    reason = " ".join(str(error).split())[:120] or type(error).__name__
    return DamagedDataError(
        f"{path} cannot be read ({reason}): it is cut off, damaged or no NetCDF or Zarr; replace it"
    )


def read_coordinate(dataset: xr.Dataset, path: str, name: str) -> np.ndarray:
    """Read a coordinate."""
    try:
        return np.asarray(dataset.variables[name].values)
    except SAID:
        raise
    except Exception as error:
        raise damaged(path, error) from error


def refuse_tracks(dataset: xr.Dataset, path: str) -> None:
    """Refuse drifter tracks, which have positions but no grid."""
    along_tracks = any(
        text(values.attrs, "cf_role") == "trajectory_id" or str(name).lower() in ("traj", "trajectory")
        for name, values in dataset.variables.items()
    )
    feature = text(dataset.attrs, "featureType") or text(dataset.attrs, "cdm_data_type")
    if along_tracks or feature.lower().startswith("trajectory"):
        raise BadInputError(f"{path} holds tracks, not fields: data.ocean.paths must lead to gridded currents")


@dataclass(frozen=True, eq=False)
class Grid:
    """The horizontal grid of a variable: its dimensions, and the coordinate along each."""

    dims: tuple[str, str]
    latitude: np.ndarray
    longitude: np.ndarray


def _grid(dataset: xr.Dataset, path: str, name: str) -> Grid:
    """Return the rectilinear grid of a variable, and refuse any other by its name."""
    coordinates = [find_axis(dataset, name, axis) for axis in ("latitude", "longitude")]
    if None in coordinates:
        _refuse_rotated_axes(dataset, path, name)
    for axis, coordinate in zip(("latitude", "longitude"), coordinates, strict=True):
        if coordinate is None or dataset.variables[coordinate].ndim == 0:
            raise BadInputError(
                f"{path}: {name} has no {axis}: along one of its dimensions must lie a variable with that standard_name"
            )
    _refuse_projections(dataset, path, name)
    y, x = (dataset.variables[str(coordinate)] for coordinate in coordinates)
    names = f"{coordinates[0]} and {coordinates[1]}"
    if y.ndim == 1 and y.dims == x.dims:
        raise BadInputError(
            f"{path}: {names} both lie along {y.dims[0]}, an unstructured grid: each must have a dimension of its own, "
            "interpolate to a rectilinear grid first"
        )
    read = [
        xr.Variable(values.dims, read_coordinate(dataset, path, str(coordinate)).astype(np.float64))
        for values, coordinate in zip((y, x), coordinates, strict=True)
    ]
    if y.ndim == x.ndim == 1:
        grid = Grid((str(y.dims[0]), str(x.dims[0])), read[0].values, read[1].values)
        _refuse_nominal_axes(dataset, path, names, grid)
    else:
        found = _rectilinear(*read)
        if found is None:
            raise BadInputError(
                f"{path}: {coordinates[0]} has dimensions {y.dims}, {_kind_of_grid(str(coordinates[0]))}: latitude and "
                "longitude must have one dimension each, interpolate to a rectilinear grid first"
            )
        grid = found
    for axis, coordinate in zip(("latitude", "longitude"), coordinates, strict=True):
        units = text(dataset.variables[str(coordinate)].attrs, "units")
        check_axis(getattr(grid, axis), axis, units, f"{path}: {coordinate}")
    return grid


def _rectilinear(latitude: xr.Variable, longitude: xr.Variable) -> Grid | None:
    """Return the grid of coordinates in two dimensions whose rows and columns are constant."""
    y, x = xr.broadcast(xr.DataArray(latitude), xr.DataArray(longitude))
    for dims in (y.dims, y.dims[::-1]) if y.ndim == 2 else ():
        axes = rectilinear_axes(y.transpose(*dims).values, x.transpose(*dims).values)
        if axes is not None:
            return Grid((str(dims[0]), str(dims[1])), *axes)
    return None


def _kind_of_grid(latitude: str) -> str:
    staggered = latitude.lower().endswith(("_u", "_v", "latu", "latv", "phiu", "phiv"))
    return "a staggered grid (Arakawa C)" if staggered else "a curvilinear grid"


def _refuse_projections(dataset: xr.Dataset, path: str, name: str) -> None:
    mapping = _grid_mapping(dataset, name)
    if mapping and mapping not in GEOGRAPHIC:
        raise BadInputError(
            f"{path}: {name} lies on a {mapping} grid: its lines must run east and north, interpolate to latitudes and "
            "longitudes and rotate the velocities first"
        )


def _refuse_rotated_axes(dataset: xr.Dataset, path: str, name: str) -> None:
    for dim in dataset.variables[name].dims:
        kind = text(dataset.variables[dim].attrs, "standard_name") if dim in dataset.variables else ""
        if kind.startswith(("grid_", "projection_")):
            raise BadInputError(
                f"{path}: {name} lies along {dim}, which is {kind}, a rotated or projected grid: interpolate to "
                "latitudes and longitudes and rotate the velocities first"
            )


def _grid_mapping(dataset: xr.Dataset, name: str) -> str:
    values = dataset.variables[name]
    pointer = text(values.attrs, "grid_mapping") or text(values.encoding, "grid_mapping")
    return text(dataset.variables[pointer].attrs, "grid_mapping_name") if pointer in dataset.variables else ""


def _refuse_nominal_axes(dataset: xr.Dataset, path: str, names: str, grid: Grid) -> None:
    """Refuse 1-D axes beside 2-D coordinates of the same points that say otherwise, as tripolar grids have."""
    true = {
        horizontal_kind(values, str(name).lower()): str(name)
        for name, values in dataset.variables.items()
        if set(values.dims) == set(grid.dims) and values.ndim == 2
    }
    if not {"latitude", "longitude"} <= set(true):
        return
    y, x = (
        dataset.variables[true[axis]].transpose(*grid.dims).astype(np.float64).values
        for axis in ("latitude", "longitude")
    )
    axes = grid.latitude, grid.longitude
    cell = min(float(np.min(np.abs(np.diff(axis)), initial=360.0)) for axis in axes)
    away = disagreement(*axes, y, x)
    if away > BETWEEN * cell:
        raise BadInputError(
            f"{path}: {true['latitude']} and {true['longitude']} lie up to {away:.3g} degrees from {names}, a "
            "curvilinear grid whose axes are nominal: interpolate to a rectilinear grid and rotate the velocities first"
        )


def shared_grid(dataset: xr.Dataset, path: str, names: Sequence[str]) -> Grid:
    """Return the grid of all components."""
    axes, *others = [[find_axis(dataset, name, axis) for axis in ("latitude", "longitude")] for name in names]
    for name, other in zip(names[1:], others, strict=True):
        if other != axes and None not in (*axes, *other):
            raise BadInputError(
                f"{path}: {names[0]} lies on {' x '.join(map(str, axes))}, {name} on {' x '.join(map(str, other))}, a "
                "staggered grid (Arakawa C): both must lie on one grid, interpolate first"
            )
    grid, *_ = [_grid(dataset, path, name) for name in names]
    return grid


def refuse_along_grid(dataset: xr.Dataset, path: str, velocities: Mapping[str, Velocity]) -> None:
    """Refuse velocities along the lines of a grid, unless the file says that those run east and north."""
    for towards, velocity in velocities.items():
        if velocity.is_along_grid and _grid_mapping(dataset, velocity.name) not in GEOGRAPHIC:
            raise BadInputError(
                f"{path}: {velocity.name} is {velocity.kind}, along the lines of the model's grid: rotate it to east "
                f"and north first; if it does point {towards}, say so, data.ocean.{towards}={velocity.name}"
            )
