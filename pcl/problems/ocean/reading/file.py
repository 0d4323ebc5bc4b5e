"""One file of currents: found, opened lazily, and brought to metres per second on an ascending grid."""

__all__ = ["OceanFile", "Reading", "open_file"]

from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from functools import partial

import dask
import numpy as np
import xarray as xr

from pcl.errors import BadInputError
from pcl.problems.ocean.reading.container import groups_of, one_line, open_dataset
from pcl.problems.ocean.reading.depth import Level, choose_level
from pcl.problems.ocean.reading.grid import arrange_longitude, tidy_degrees
from pcl.problems.ocean.reading.layouts import (
    Grid,
    read_coordinate,
    refuse_along_grid,
    refuse_tracks,
    shared_grid,
)
from pcl.problems.ocean.reading.masks import is_water
from pcl.problems.ocean.reading.names import (
    Velocity,
    find_mask,
    find_time,
    find_velocity,
    text,
    units_per_metre_per_second,
)
from pcl.problems.ocean.reading.time import EPOCH, read_times
from pcl.problems.ocean.reading.values import (
    Valid,
    conform,
    netcdf_fill,
    take_zarr_fill,
    to_metres_per_second,
    zarr_fill,
)
from pcl.storage.inputs import Input, input_at

CHUNK_SIZE = "16MiB"  # of a file that has no chunks of its own
ANOMALY = "_velocity_assuming_"  # ... sea level for geoid: of standard names


@dataclass(frozen=True)
class Reading:
    """How files are read: the keys of ``data.ocean`` of the same names.

    Attributes:
        eastward: name of the eastward velocity; empty: by standard name, then by the usual names.
        northward: of the northward velocity, likewise.
        units: of both, where the files state none: m s-1 or cm s-1.
        mask: name of a variable that is 1 in water, where its flags and its standard name do not say else; empty: one
            with standard name sea_binary_mask or land_binary_mask, if there is one.
        depth_m: depth to read, metres below the surface; None: the shallowest.
        group: of the variables in a NetCDF file or Zarr store; empty: the root.
    """

    eastward: str = ""
    northward: str = ""
    units: str = ""
    mask: str = ""
    depth_m: float | None = None
    group: str = ""


@dataclass(frozen=True, eq=False)
class OceanFile:
    """The currents of one file.

    Attributes:
        path: of the file.
        components: ``eastward``, ``northward`` or both: lazy float32, dims (time, latitude, longitude), m s-1, NaN
            where missing.
        kinds: their standard names.
        lack: what to say if the component that the file lacks is in no other.
        time_s: seconds since 1970-01-01 in the calendar, not decreasing, shape (T,).
        calendar: ``standard``, ``noleap``, ``all_leap``, ``360_day`` or ``julian``.
        latitude: ascending, degrees, shape (Y,).
        longitude: ascending, degrees, shape (X,).
        mask: True in water, shape (Y, X); None where the file has no mask.
        depth_m: of the level; None where the file does not say.
        precision_s: how exact the times are, seconds.
        notes: what the file says and reading does not follow.
    """

    path: Input
    components: Mapping[str, xr.DataArray]
    kinds: Mapping[str, str]
    lack: str
    time_s: np.ndarray
    calendar: str
    latitude: np.ndarray
    longitude: np.ndarray
    mask: np.ndarray | None
    depth_m: float | None
    precision_s: float
    notes: tuple[str, ...] = ()


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


def _flatten(
    dataset: xr.Dataset, path: str, name: str, dims: tuple[str, str], level: Mapping[str, int]
) -> xr.DataArray:
    """Return a variable at one level, lazy, with dims (time,) latitude, longitude, whatever the file calls them."""
    names = dict(zip(dims, ("latitude", "longitude"), strict=True))
    time = find_time(dataset, name)
    if time is not None and dataset.variables[time].ndim:
        names[str(dataset.variables[time].dims[0])] = "time"
    array = (
        dataset[name].reset_coords(drop=True).isel({dim: i for dim, i in level.items() if dim in dataset[name].dims})
    )
    others = [dim for dim in array.dims if dim not in names]
    for dim in others:
        if array.sizes[dim] != 1:
            raise BadInputError(
                f"{path}: {name} has {array.sizes[dim]} entries along {dim}: beside time, depth, latitude and "
                "longitude a dimension must have one, select it first"
            )
    array = _chunked(array.isel(dict.fromkeys(others, 0)).drop_vars(list(array.coords)))
    array = array.rename({dim: names[str(dim)] for dim in array.dims})
    return array.transpose("time", "latitude", "longitude", missing_dims="ignore")


def _units_per(dataset: xr.Dataset, path: str, name: str, units: str) -> float:
    """Return how many units of a variable make 1 m s-1: the units of the file, else those given."""
    stated = text(dataset.variables[name].attrs, "units") or units
    if not stated:
        raise BadInputError(f"{path}: {name} has no units: state them, data.ocean.units='m s-1' or 'cm s-1'")
    per = units_per_metre_per_second(stated)
    if per is None:
        raise BadInputError(f"{path}: {name} is in '{stated}': currents must be in m s-1 or cm s-1, convert it first")
    return per


def _in_metres_per_second(
    array: xr.DataArray, attributes: Mapping[str, object], towards: str, units_per: float, valid: Valid
) -> xr.DataArray:
    """Return one component in m s-1 with dims (time, latitude, longitude), in the order of the file."""
    convert = partial(to_metres_per_second, units_per=units_per, valid=valid)
    data = array.data.map_blocks(convert, dtype=np.float32, meta=np.empty((0,) * array.ndim, np.float32))
    stated = {"standard_name": f"{towards}_sea_water_velocity", **attributes, "units": "m s-1"}
    kept = {key: stated[key] for key in ("standard_name", "long_name", "units") if key in stated}
    result = xr.DataArray(data, dims=array.dims, attrs=kept, name=towards)
    return result if "time" in result.dims else result.expand_dims("time")


def _is_constant(array: xr.DataArray) -> bool:
    """Return whether all steps of an array are the same."""
    numbers = array.data.astype(np.float64)
    same = (numbers == numbers[:1]) | (np.isnan(numbers) & np.isnan(numbers[:1]))
    return bool(same.all().compute(scheduler="threads"))


def _water(
    dataset: xr.Dataset, path: str, name: str, grid: Grid, level: Mapping[str, int], valid: Mapping[str, Valid]
) -> np.ndarray | None:
    """Return True in water, from the named mask or, without a name, from one that its standard name gives away."""
    mask = name or find_mask(dataset)
    if mask is None:
        return None
    if mask not in dataset.variables:
        known = ", ".join(map(str, dataset.variables))
        raise BadInputError(f"{path} has no variable {mask}, but {known}: data.ocean.mask must name one of them")
    shape = (len(grid.latitude), len(grid.longitude))
    if not set(grid.dims) <= set(dataset.variables[mask].dims):
        found = tuple(dataset.variables[mask].shape)
        raise BadInputError(f"{path}: {mask} has shape {found}, the velocities {shape}: a mask must lie on their grid")
    array = _flatten(dataset, path, mask, grid.dims, level)
    if array.sizes.get("time", 1) > 1 and not _is_constant(array):
        if not name:
            return None  # ice or tides: the velocities are missing there as well
        raise BadInputError(f"{path}: {mask} changes in time: data.ocean.mask must name one that does not, or be empty")
    single = array.isel(time=0, missing_dims="ignore").to_dataset(name=mask)
    values = read_coordinate(single, path, mask).astype(np.float64)
    values[(values < valid[mask].low) | (values > valid[mask].high)] = np.nan
    return is_water(values, dataset.variables[mask].attrs, f"{path}: {mask}")


def open_file(path: str, reading: Reading = Reading()) -> OceanFile:
    """Open a file without reading its fields.

    Args:
        path: a NetCDF file or a Zarr store, on this machine or in object storage.
        reading: how.

    Raises:
        BadInputError: both components, or the units, grid, depth or times of one are missing or of an unknown kind.
        DamagedDataError: the file cannot be opened.

    Example:
        >>> open_file("/dev/null")
        Traceback (most recent call last):
        pcl.errors.DamagedDataError: /dev/null cannot be read (...): it is cut off, damaged or no NetCDF or Zarr; ...
    """
    path = input_at(path)
    dataset = open_dataset(path, reading.group)
    with one_line(path):
        refuse_tracks(dataset, path)
        velocities, lack = _velocities(dataset, path, reading)
        names = [velocity.name for velocity in velocities.values()]
        _refuse_without_numbers(dataset, path, names)
        dataset, valid = _decode(dataset, path, velocities, reading)
        grid = shared_grid(dataset, path, names)
        refuse_along_grid(dataset, path, velocities)
        time = _shared_time(dataset, path, names)
        time_s, calendar, precision_s = read_times(
            read_coordinate(dataset, path, time), dataset.variables[time].attrs, f"{path}: {time}"
        )
        _check_order(time_s, f"{path}: {time}")
        levels = {name: choose_level(dataset, path, name, reading.depth_m) for name in names}
        depth_m = _shared_depth(levels, path)
        rows = np.argsort(grid.latitude)
        columns, longitude = arrange_longitude(grid.longitude)
        components = {}
        for towards, velocity in velocities.items():
            array = _flatten(dataset, path, velocity.name, grid.dims, levels[velocity.name].index)
            per, attributes = _units_per(dataset, path, velocity.name, reading.units), dataset[velocity.name].attrs
            component = _in_metres_per_second(array, attributes, towards, per, valid[velocity.name])
            components[towards] = _ordered(component, rows, columns)
        water = _water(dataset, path, reading.mask, grid, levels[names[0]].index, valid)
    return OceanFile(
        path,
        components,
        {towards: velocity.kind for towards, velocity in velocities.items()},
        lack,
        time_s,
        calendar,
        tidy_degrees(grid.latitude[rows]),
        longitude,
        None if water is None else water[np.ix_(rows, columns)],
        depth_m,
        precision_s,
        _notes(dataset, valid, names, water),
    )


def _notes(
    dataset: xr.Dataset, valid: Mapping[str, Valid], names: list[str], water: np.ndarray | None
) -> tuple[str, ...]:
    """Return what a file says and reading does not follow."""
    notes = [
        f"the valid range of {name}, {valid[name].low:.7g} to {valid[name].high:.7g}, looks like extremes of some "
        "data: currents up to 3 m s-1 count"
        for name in names
        if valid[name].is_measured
    ]
    mask = find_mask(dataset)
    if water is None and mask is not None:
        notes.append(f"{mask} changes in time and is not used: land is what is always missing")
    if anomalies := [name for name in names if ANOMALY in text(dataset[name].attrs, "standard_name")]:
        notes.append(
            f"{' and '.join(anomalies)} are anomalies of the sea level's currents: the mean current is not in them"
        )
    return tuple(notes)


def _velocities(dataset: xr.Dataset, path: Input, reading: Reading) -> tuple[dict[str, Velocity], str]:
    """Find the components; where there are none, name the groups in which they could be."""
    try:
        return find_velocity(dataset, path, reading.eastward, reading.northward)
    except BadInputError as error:
        groups = groups_of(path)
        if reading.group or not groups:
            raise
        raise BadInputError(
            f"{path} has no currents outside its groups {', '.join(groups)}: name the group that holds them in "
            "data.ocean.group"
        ) from error


def _refuse_without_numbers(dataset: xr.Dataset, path: str, names: list[str]) -> None:
    for name in names:
        values = dataset.variables[name]
        if values.dtype.kind not in "iuf" or values.size == 0:
            what = f"is of type {values.dtype}" if values.size else f"has the shape {values.shape}"
            raise BadInputError(f"{path}: {name} {what}: a velocity must hold numbers, leave the file out")


def _decode(
    dataset: xr.Dataset, path: Input, velocities: Mapping[str, Velocity], reading: Reading
) -> tuple[xr.Dataset, dict[str, Valid]]:
    """Unpack a file lazily, with what it says of missing values put in the way in which xarray reads it."""
    names = [velocity.name for velocity in velocities.values()] + [reading.mask or find_mask(dataset)]
    valid: dict[str, Valid] = {}
    conforming: dict[Hashable, xr.Variable] = {}
    for name, variable in dataset.variables.items():
        if name in names:
            fill_of = zarr_fill if path.is_folder else netcdf_fill
            unwritten = partial(fill_of, path, reading.group, str(name), variable)
            conforming[name], valid[str(name)] = conform(variable, f"{path}: {name}", unwritten)
        else:
            conforming[name] = variable.copy(deep=False)
            take_zarr_fill(conforming[name].attrs, variable.encoding)
    return xr.decode_cf(xr.Dataset(conforming, attrs=dataset.attrs), decode_times=False), valid


def _shared_time(dataset: xr.Dataset, path: str, names: list[str]) -> str:
    """Return the time of all components."""
    times = {find_time(dataset, name) for name in names}
    if len(times) > 1 or None in times:
        raise BadInputError(
            f"{path} has no time of {'both velocities' if len(names) > 1 else names[0]}: it needs one, a dimension's "
            f"or a scalar, in units like '{EPOCH}'"
        )
    return str(times.pop())


def _shared_depth(levels: Mapping[str, Level], path: str) -> float | None:
    """Return the depth of all components."""
    (name, level), *others = levels.items()
    for other, found in others:
        if found.depth_m != level.depth_m:
            raise BadInputError(
                f"{path}: {name} is at {level.depth_m} m and {other} at {found.depth_m} m: both must be at one depth"
            )
    return level.depth_m


def _check_order(time_s: np.ndarray, where: str) -> None:
    if np.any(np.diff(time_s) < 0):
        step = int(np.argmax(np.diff(time_s) < 0))
        raise BadInputError(
            f"{where} does not increase from step {step} to {step + 1}: times must increase, sort the file"
        )


def _ordered(array: xr.DataArray, rows: np.ndarray, columns: np.ndarray) -> xr.DataArray:
    """Return an array with its rows and columns in another order."""
    for dim, index in (("latitude", rows), ("longitude", columns)):
        if np.array_equal(index[::-1], np.arange(array.sizes[dim])):
            array = array.isel({dim: slice(None, None, -1)})  # keeps the chunks whole
        elif not np.array_equal(index, np.arange(array.sizes[dim])):
            array = array.isel({dim: index})
    return array
