"""One file of currents: found, opened lazily, and brought to metres per second on an ascending grid."""

__all__ = ["OceanFile", "damaged", "find_files", "open_file"]

import glob
import os
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import cftime  # type: ignore[import-untyped]
import dask
import numpy as np
import xarray as xr

from pcl.data.classic_netcdf import missing_bytes
from pcl.data.ocean_grid import arrange_longitude, tidy_degrees
from pcl.data.ocean_names import find_axis, find_mask, find_time, find_velocity, units_per_metre_per_second
from pcl.errors import BadInputError, DamagedDataError

SUFFIXES = (".nc", ".nc4", ".zarr")
ZARR_METADATA = ("zarr.json", ".zgroup", ".zmetadata")
LARGEST_VALUE = 1e10  # beyond it lie the fill values of every product: 1e20, 1.27e30, 9.97e36, -9.99e33
# HYCOM's fill -30000 after its scale 0.001, and without it, where a file forgot to declare it, m s-1
FILLS = (-30.0, -30000.0)
CHUNK_SIZE = "16MiB"  # of a file that has no chunks of its own
CALENDARS = {"gregorian": "standard", "proleptic_gregorian": "standard", "365_day": "noleap", "366_day": "all_leap"}
EPOCH = "seconds since 1970-01-01"


@dataclass(frozen=True, eq=False)
class OceanFile:
    """The currents of one file.

    Attributes:
        path: of the file.
        eastward: lazy float32, dims (time, latitude, longitude), m s-1, NaN where missing.
        northward: likewise.
        time_s: seconds since 1970-01-01 in the calendar, strictly increasing, shape (T,).
        calendar: ``standard``, ``noleap``, ``all_leap``, ``360_day`` or ``julian``.
        latitude: ascending, degrees, shape (Y,).
        longitude: ascending, degrees, shape (X,).
        mask: True in water, shape (Y, X); None where the file has no mask.
    """

    path: str
    eastward: xr.DataArray
    northward: xr.DataArray
    time_s: np.ndarray
    calendar: str
    latitude: np.ndarray
    longitude: np.ndarray
    mask: np.ndarray | None


def _is_store(path: str) -> bool:
    return path.endswith(".zarr") or any(os.path.exists(os.path.join(path, name)) for name in ZARR_METADATA)


def _expand(path: str) -> list[str]:
    """Return the files behind a path, a glob or a folder."""
    path = os.path.expanduser(path).rstrip("/") or "/"
    if os.path.isdir(path) and not _is_store(path):
        return sorted(os.path.join(path, name) for name in os.listdir(path) if name.endswith(SUFFIXES))
    return [path] if os.path.exists(path) else sorted(glob.glob(path, recursive=True))


def find_files(paths: Sequence[str]) -> list[str]:
    """Return every file once: those of the paths, of globs, of folders (*.nc, *.nc4, *.zarr) and Zarr stores.

    Args:
        paths: what to look for.

    Raises:
        BadInputError: a path leads to no file.

    Example:
        >>> find_files(["nowhere/*.nc"])
        Traceback (most recent call last):
        pcl.errors.BadInputError: nowhere/*.nc: no such file, and no .nc, .nc4 or .zarr in such a folder: ...
    """
    found: dict[str, str] = {}
    for path in paths:
        files = _expand(str(path))
        if not files:
            raise BadInputError(
                f"{path}: no such file, and no .nc, .nc4 or .zarr in such a folder: data.ocean.paths must lead to files"
            )
        found |= {os.path.realpath(file): file for file in files if os.path.realpath(file) not in found}
    if not found:
        raise BadInputError("no paths: data.ocean.paths must list NetCDF files, globs, folders or Zarr stores")
    return list(found.values())


def _open(path: str) -> xr.Dataset:
    """Open a file with its values unpacked but unread, and its times as they are stored."""
    engine = "zarr" if os.path.isdir(path) else "netcdf4"  # netcdf4 also reads the classic format
    try:
        if engine == "netcdf4" and (num_missing := missing_bytes(path)):
            raise ValueError(f"{num_missing} bytes are missing at its end")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # several fill values, no consolidated metadata: neither is an obstacle
            return xr.open_dataset(path, engine=engine, decode_times=False, cache=False)
    except Exception as error:
        raise damaged(path, error) from error


def damaged(path: str, error: Exception) -> DamagedDataError:
    """Return the one line that says that a file cannot be read, and why."""
    reason = " ".join(str(error).split())[:120] or type(error).__name__
    return DamagedDataError(
        f"{path} cannot be read ({reason}): it is cut off, damaged or no NetCDF or Zarr; replace it"
    )


def _values(dataset: xr.Dataset, path: str, name: str) -> np.ndarray:
    """Read a coordinate."""
    try:
        return np.asarray(dataset.variables[name].values, np.float64)
    except Exception as error:
        raise damaged(path, error) from error


def _seconds(dataset: xr.Dataset, path: str, name: str) -> tuple[np.ndarray, str]:
    """Return the times of a file in seconds since 1970, and their calendar."""
    values = np.atleast_1d(_values(dataset, path, name))
    attributes = dataset.variables[name].attrs
    units, calendar = attributes["units"], str(attributes.get("calendar", "standard")).lower()
    if not np.all(np.isfinite(values)):
        raise BadInputError(
            f"{path}: {name} is missing at some steps: every step must have a time, repair or leave out"
        )
    try:
        dates = cftime.num2date(values, units, calendar, only_use_cftime_datetimes=True)
        # a millisecond hides the rounding of days and hours
        seconds = np.round(np.asarray(cftime.date2num(dates, EPOCH, calendar), np.float64), 3)
    except (ValueError, OverflowError) as error:
        reason = " ".join(str(error).split())[:120]
        raise BadInputError(
            f"{path}: {name} in '{units}', calendar {calendar}, is no time ({reason}): repair its units"
        ) from error
    if not np.all(np.diff(seconds) > 0):
        step = int(np.argmax(np.diff(seconds) <= 0))
        raise BadInputError(
            f"{path}: {name} does not increase from step {step} to {step + 1}: times must increase, sort the file"
        )
    return seconds, CALENDARS.get(calendar, calendar)


def _horizontal(dataset: xr.Dataset, path: str, name: str) -> tuple[str, str]:
    """Return the names of the latitude and the longitude of a variable, which must be 1-D."""
    found = {axis: find_axis(dataset, name, axis) for axis in ("latitude", "longitude")}
    for axis, coordinate in found.items():
        if coordinate is None or dataset.variables[coordinate].ndim == 0:
            raise BadInputError(
                f"{path}: {name} has no {axis}: along one of its dimensions must lie a variable with that standard_name"
            )
        if dataset.variables[coordinate].ndim > 1:
            raise BadInputError(
                f"{path}: {coordinate} has dimensions {dataset.variables[coordinate].dims}, a curvilinear grid: "
                f"{axis} must have one, interpolate to a rectilinear grid first"
            )
    latitude, longitude = str(found["latitude"]), str(found["longitude"])
    (along,) = dataset.variables[latitude].dims
    if dataset.variables[longitude].dims == (along,):
        raise BadInputError(
            f"{path}: {latitude} and {longitude} both lie along {along}, an unstructured grid: "
            "each must have a dimension of its own, interpolate to a rectilinear grid first"
        )
    return latitude, longitude


def _level(dataset: xr.Dataset, path: str, name: str, depth_m: float | None) -> dict[str, int]:
    """Return the index of the level to read: the shallowest, or the nearest to a depth."""
    coordinate = find_axis(dataset, name, "depth")
    if coordinate is None or dataset.variables[coordinate].ndim != 1:
        return {}
    values = np.abs(_values(dataset, path, coordinate))
    values /= 100.0 if str(dataset.variables[coordinate].attrs.get("units", "")).lower().startswith("c") else 1.0
    return {str(dataset.variables[coordinate].dims[0]): int(np.argmin(np.abs(values - (depth_m or 0.0))))}


def _chunked(array: xr.DataArray) -> xr.DataArray:
    """Return a lazy Dask array with the chunks of the file, or whole shards of a Zarr store.

    A file without chunks is read in runs along its first dimension, as its bytes lie.
    """
    encoding = array.encoding
    sizes = dict(encoding.get("preferred_chunks") or {})
    if encoding.get("shards"):
        sizes = dict(zip(sizes, encoding["shards"], strict=True))
    if sizes:
        return array.chunk({dim: sizes[dim] for dim in array.dims})
    first, *others = array.dims
    with dask.config.set({"array.chunk-size": CHUNK_SIZE}):
        return array.chunk({first: "auto", **dict.fromkeys(others, -1)})


def _flatten(dataset: xr.Dataset, path: str, name: str, depth_m: float | None) -> xr.DataArray:
    """Return a variable at one level, lazy, with dims (time,) latitude, longitude, whatever the file calls them."""
    latitude, longitude = _horizontal(dataset, path, name)
    names = {dataset.variables[latitude].dims[0]: "latitude", dataset.variables[longitude].dims[0]: "longitude"}
    time = find_time(dataset, name)
    if time is not None and dataset.variables[time].ndim:
        names[dataset.variables[time].dims[0]] = "time"
    array = dataset[name].reset_coords(drop=True).isel(_level(dataset, path, name, depth_m))
    others = [dim for dim in array.dims if dim not in names]
    for dim in others:
        if array.sizes[dim] != 1:
            raise BadInputError(
                f"{path}: {name} has {array.sizes[dim]} entries along {dim}: beside time, depth, latitude and "
                "longitude a dimension must have one, select it first"
            )
    array = _chunked(array.isel(dict.fromkeys(others, 0)).drop_vars(list(array.coords)))
    array = array.rename({dim: names[dim] for dim in array.dims})
    return array.transpose("time", "latitude", "longitude", missing_dims="ignore")


def _to_metres_per_second(values: np.ndarray, units_per: float) -> np.ndarray:
    """Return float32 m s-1, NaN where a value is missing; the division is in double, so cm s-1 round only once."""
    values = np.asarray(values, np.float64)
    values = np.where(np.abs(values) <= LARGEST_VALUE, values, np.nan) / units_per
    for fill in FILLS:
        values[np.abs(values - fill) < 1e-4] = np.nan
    return values.astype(np.float32)


def _units_per(dataset: xr.Dataset, path: str, name: str, units: str) -> float:
    """Return how many units of a variable make 1 m s-1: the units of the file, else those given."""
    stated = str(dataset.variables[name].attrs.get("units", "")).strip() or units
    if not stated:
        raise BadInputError(f"{path}: {name} has no units: state them, data.ocean.units='m s-1' or 'cm s-1'")
    per = units_per_metre_per_second(stated)
    if per is None:
        raise BadInputError(f"{path}: {name} is in '{stated}': currents must be in m s-1 or cm s-1, convert it first")
    return per


def _component(
    dataset: xr.Dataset, path: str, name: str, towards: str, units: str, depth_m: float | None
) -> xr.DataArray:
    """Return one component in m s-1 with dims (time, latitude, longitude), in the order of the file."""
    array = _flatten(dataset, path, name, depth_m)
    convert = partial(_to_metres_per_second, units_per=_units_per(dataset, path, name, units))
    data = array.data.map_blocks(convert, dtype=np.float32, meta=np.empty((0,) * array.ndim, np.float32))
    attributes = {"standard_name": f"{towards}_sea_water_velocity", **dataset.variables[name].attrs, "units": "m s-1"}
    kept = {key: attributes[key] for key in ("standard_name", "long_name", "units") if key in attributes}
    result = xr.DataArray(data, dims=array.dims, attrs=kept, name=towards)
    return result if "time" in result.dims else result.expand_dims("time")


def _water(
    dataset: xr.Dataset, path: str, name: str, depth_m: float | None, shape: tuple[int, ...]
) -> np.ndarray | None:
    """Return True in water, from the named mask or, without a name, from one that its standard name gives away."""
    mask = name or find_mask(dataset)
    if mask is None:
        return None
    if mask not in dataset.variables:
        known = ", ".join(map(str, dataset.variables))
        raise BadInputError(f"{path} has no variable {mask}, but {known}: data.ocean.mask must name one of them")
    array = _flatten(dataset, path, mask, depth_m)
    if array.sizes.get("time", 1) > 1:
        if not name:
            return None  # ice or tides: the velocities are missing there as well
        raise BadInputError(f"{path}: {mask} changes in time: data.ocean.mask must name one that does not, or be empty")
    values = _values(array.isel(time=0, missing_dims="ignore").to_dataset(name=mask), path, mask)
    if values.shape != shape:
        raise BadInputError(
            f"{path}: {mask} has shape {values.shape}, the velocities {shape}: a mask must lie on their grid"
        )
    land = dataset.variables[mask].attrs.get("standard_name") == "land_binary_mask"
    return values < 0.5 if land else (values > 0.5) & (values <= LARGEST_VALUE)


def open_file(
    path: str,
    eastward: str = "",
    northward: str = "",
    units: str = "",
    mask: str = "",
    depth_m: float | None = None,
) -> OceanFile:
    """Open a file without reading its fields.

    Args:
        path: a NetCDF file or a Zarr store.
        eastward: name of the eastward velocity; empty: by standard name, then by the usual names.
        northward: of the northward velocity, likewise.
        units: of both, where the file states none.
        mask: name of a variable that is 1 in water; empty: one with the standard name of a mask, if there is one.
        depth_m: depth to read, m; None: the shallowest.

    Raises:
        BadInputError: a component, its units, its grid or its times are missing or of an unknown kind.
        DamagedDataError: the file cannot be opened.

    Example:
        >>> open_file("/dev/null")
        Traceback (most recent call last):
        pcl.errors.DamagedDataError: /dev/null cannot be read (...): it is cut off, damaged or no NetCDF or Zarr; ...
    """
    dataset = _open(path)
    names = find_velocity(dataset, path, eastward, northward)
    axes, time = _shared_axes(dataset, path, names)
    time_s, calendar = _seconds(dataset, path, time)
    y, x = (_values(dataset, path, axis) for axis in axes)
    rows = np.argsort(y)
    columns, longitude = arrange_longitude(x)
    u, v = (
        _ordered(_component(dataset, path, name, towards, units, depth_m), rows, columns)
        for name, towards in zip(names, ("eastward", "northward"), strict=True)
    )
    water = _water(dataset, path, mask, depth_m, (len(y), len(x)))
    water = None if water is None else water[np.ix_(rows, columns)]
    return OceanFile(path, u, v, time_s, calendar, tidy_degrees(y[rows]), longitude, water)


def _shared_axes(dataset: xr.Dataset, path: str, names: tuple[str, str]) -> tuple[tuple[str, str], str]:
    """Return the latitude and longitude, and the time, of both components."""
    axes, other = (_horizontal(dataset, path, name) for name in names)
    if axes != other:
        raise BadInputError(
            f"{path}: {names[0]} lies on {' x '.join(axes)}, {names[1]} on {' x '.join(other)}: "
            "both must lie on one grid, interpolate first"
        )
    time = find_time(dataset, names[0])
    if time is None or time != find_time(dataset, names[1]):
        raise BadInputError(
            f"{path} has no time of both velocities: it needs one, a dimension's or a scalar, in units like '{EPOCH}'"
        )
    return axes, time


def _ordered(array: xr.DataArray, rows: np.ndarray, columns: np.ndarray) -> xr.DataArray:
    """Return an array with its rows and columns in another order."""
    for dim, index in (("latitude", rows), ("longitude", columns)):
        if np.array_equal(index[::-1], np.arange(array.sizes[dim])):
            array = array.isel({dim: slice(None, None, -1)})  # keeps the chunks whole
        elif not np.array_equal(index, np.arange(array.sizes[dim])):
            array = array.isel({dim: index})
    return array
