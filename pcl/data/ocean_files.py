"""One file of currents: found, opened lazily, and brought to metres per second on an ascending grid."""

__all__ = ["OceanFile", "Reading", "damaged", "find_files", "open_file"]

import glob
import os
import warnings
from collections.abc import Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

import dask
import netCDF4
import numpy as np
import xarray as xr
import zarr

from pcl.data.classic_netcdf import missing_bytes
from pcl.data.ocean_depth import choose_level
from pcl.data.ocean_grid import arrange_longitude, check_axis, disagreement, rectilinear_axes, tidy_degrees
from pcl.data.ocean_names import (
    Velocity,
    find_axis,
    find_mask,
    find_time,
    find_velocity,
    horizontal_kind,
    text,
    units_per_metre_per_second,
)
from pcl.data.ocean_time import EPOCH, read_times
from pcl.data.ocean_values import LARGEST_VALUE, Valid, conform, default_fill_of, take_zarr_fill, to_metres_per_second
from pcl.errors import BadInputError, DamagedDataError

SUFFIXES = (".nc", ".nc3", ".nc4", ".cdf", ".netcdf", ".zarr")  # in capitals as well
ZARR_METADATA = ("zarr.json", ".zgroup", ".zmetadata")
CHUNK_SIZE = "16MiB"  # of a file that has no chunks of its own
GEOGRAPHIC = ("latitude_longitude", "mercator")  # grid mappings whose lines run east and north
BETWEEN = 0.05  # of a cell: how far 2-D coordinates may lie from the axes of the grid that they repeat


@dataclass(frozen=True)
class Reading:
    """How files are read: the keys of ``data.ocean`` of the same names.

    Attributes:
        eastward: name of the eastward velocity; empty: by standard name, then by the usual names.
        northward: of the northward velocity, likewise.
        units: of both, where the files state none: m s-1 or cm s-1.
        mask: name of a variable that is 1 in water; empty: one with standard name sea_binary_mask or
            land_binary_mask, if there is one.
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
    """

    path: str
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


def _is_store(path: str) -> bool:
    return path.lower().endswith(".zarr") or any(os.path.exists(os.path.join(path, name)) for name in ZARR_METADATA)


def _expand(path: str) -> tuple[list[str], list[str]]:
    """Return the files behind a path, a glob or a folder, and what a folder holds beside them."""
    path = os.path.expanduser(path).rstrip("/") or "/"
    if not os.path.exists(path):
        expanded = [_expand(found) for found in sorted(glob.glob(path, recursive=True)) if found != path]
        return [file for files, _ in expanded for file in files], [other for _, others in expanded for other in others]
    if not os.path.isdir(path) or _is_store(path):
        return [path], []
    entries = [os.path.join(path, name) for name in sorted(os.listdir(path))]
    files = [entry for entry in entries if entry.lower().endswith(SUFFIXES) or _is_store(entry)]
    return files, [entry for entry in entries if entry not in files]


def find_files(paths: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return every file once: those of the paths, of globs, of folders (*.nc, *.cdf, ...) and Zarr stores.

    Args:
        paths: what to look for.

    Returns:
        The files, and what lies in the folders beside them.

    Raises:
        BadInputError: a path leads to no file.

    Example:
        >>> find_files(["nowhere/*.nc"])
        Traceback (most recent call last):
        pcl.errors.BadInputError: nowhere/*.nc: no such file, and no .nc, .nc4, .cdf or .zarr in such a folder: ...
    """
    found: dict[str, str] = {}
    aside: dict[str, str] = {}
    for path in paths:
        files, others = _expand(str(path))
        if not files:
            beside = f" (it holds {', '.join(map(os.path.basename, others[:5]))})" if others else ""
            raise BadInputError(
                f"{path}: no such file, and no .nc, .nc4, .cdf or .zarr in such a folder{beside}: data.ocean.paths "
                "must lead to files"
            )
        for known, entries in ((found, files), (aside, others)):
            for entry in entries:
                known.setdefault(os.path.realpath(entry), entry)
    if not found:
        raise BadInputError("no paths: data.ocean.paths must list NetCDF files, globs, folders or Zarr stores")
    return list(found.values()), [entry for real, entry in aside.items() if real not in found]


@contextmanager
def _one_line(path: str) -> Iterator[None]:
    """Turn whatever a library raises on the content of a file into one line that names it."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # several fill values, no consolidated metadata: neither is an obstacle
            yield
    except (BadInputError, DamagedDataError, MemoryError):
        raise
    except Exception as error:
        reason = f"{type(error).__name__}: {' '.join(str(error).split())[:120]}"
        raise BadInputError(
            f"{path} cannot be understood ({reason}): repair the attributes of its variables, or leave it out"
        ) from error


def damaged(path: str, error: Exception) -> DamagedDataError:
    """Return the one line that says that a file cannot be read, and why."""
    reason = " ".join(str(error).split())[:120] or type(error).__name__
    return DamagedDataError(
        f"{path} cannot be read ({reason}): it is cut off, damaged or no NetCDF or Zarr; replace it"
    )


def _refuse_other_formats(path: str) -> None:
    """Refuse what is no field at all by its own name: tables of text, GRIB."""
    if os.path.isdir(path):
        return
    with open(path, "rb") as file:
        head = file.read(2048)
    if head[:4] == b"GRIB":
        raise BadInputError(f"{path} is GRIB: convert it to NetCDF first")
    lines = head.decode("latin-1").splitlines()
    separated = [line for line in lines if any(line.count(separator) >= 2 for separator in ",;\t")]
    if len(separated) >= 2 and all(byte >= 32 or byte in b"\r\n\t" for byte in head):
        raise BadInputError(
            f"{path} is a table of text, such as tracks of drifters: data.ocean.paths must lead to gridded currents, "
            "NetCDF or Zarr"
        )


def _engine(path: str) -> str:
    return "zarr" if os.path.isdir(path) else "netcdf4"  # netcdf4 also reads the classic format


def _open(path: str, group: str) -> xr.Dataset:
    """Open a group of a file with everything as it is stored; what it lacks comes from the groups around it."""
    try:
        if _engine(path) == "netcdf4" and (num_missing := missing_bytes(path)):
            raise ValueError(f"{num_missing} bytes are missing at its end")
        root = _open_group(path, "")
        groups = _groups(path) if group else []
    except Exception as error:
        with _one_line(path):
            _refuse_other_formats(path)
        raise damaged(path, error) from error
    names = [name for name in group.split("/") if name]
    if names and "/".join(names) not in groups:
        raise BadInputError(
            f"{path} has no group {group}, but {', '.join(groups) or 'no groups'}: data.ocean.group must name one of "
            "them, or be empty"
        )
    dataset = root
    with _one_line(path):
        for level in range(len(names)):
            inner = _open_group(path, "/".join(names[: level + 1]))
            around = {
                name: values
                for name, values in dataset.variables.items()
                if all(inner.sizes.get(dim) == size for dim, size in values.sizes.items())
            }
            dataset = xr.Dataset({**around, **inner.variables}, attrs={**dataset.attrs, **inner.attrs})
    return dataset


def _open_group(path: str, group: str) -> xr.Dataset:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return xr.open_dataset(
            path, engine=_engine(path), group=group or None, decode_times=False, mask_and_scale=False, cache=False
        )


def _groups(path: str) -> list[str]:
    """Return the groups of a file that hold variables, with the groups around them."""
    if _engine(path) == "zarr":
        members = zarr.open_group(path, mode="r").members(max_depth=None)
        return sorted({name.rpartition("/")[0] for name, member in members if isinstance(member, zarr.Array)} - {""})

    def below(parent: netCDF4.Dataset) -> Iterator[str]:
        for inner in parent.groups.values():
            if inner.variables:
                yield inner.path.strip("/")
            yield from below(inner)

    with netCDF4.Dataset(path) as file:
        return sorted(below(file))


def _refuse_tracks(dataset: xr.Dataset, path: str) -> None:
    """Refuse drifter tracks, which have positions but no grid."""
    along_tracks = any(
        text(values.attrs, "cf_role") == "trajectory_id" or str(name).lower() in ("traj", "trajectory")
        for name, values in dataset.variables.items()
    )
    feature = text(dataset.attrs, "featureType") or text(dataset.attrs, "cdm_data_type")
    if along_tracks or feature.lower().startswith("trajectory"):
        raise BadInputError(f"{path} holds tracks, not fields: data.ocean.paths must lead to gridded currents")


def _values(dataset: xr.Dataset, path: str, name: str) -> np.ndarray:
    """Read a coordinate."""
    try:
        return np.asarray(dataset.variables[name].values)
    except Exception as error:
        raise damaged(path, error) from error


@dataclass(frozen=True, eq=False)
class _Grid:
    """The horizontal grid of a variable: its dimensions, and the coordinate along each."""

    dims: tuple[str, str]
    latitude: np.ndarray
    longitude: np.ndarray


def _grid(dataset: xr.Dataset, path: str, name: str) -> _Grid:
    """Return the rectilinear grid of a variable, and refuse any other by its name."""
    coordinates = [find_axis(dataset, name, axis) for axis in ("latitude", "longitude")]
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
        xr.Variable(values.dims, _values(dataset, path, str(coordinate)).astype(np.float64))
        for values, coordinate in zip((y, x), coordinates, strict=True)
    ]
    if y.ndim == x.ndim == 1:
        grid = _Grid((str(y.dims[0]), str(x.dims[0])), read[0].values, read[1].values)
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


def _rectilinear(latitude: xr.Variable, longitude: xr.Variable) -> _Grid | None:
    """Return the grid of coordinates in two dimensions whose rows and columns are constant."""
    y, x = xr.broadcast(xr.DataArray(latitude), xr.DataArray(longitude))
    for dims in (y.dims, y.dims[::-1]) if y.ndim == 2 else ():
        axes = rectilinear_axes(y.transpose(*dims).values, x.transpose(*dims).values)
        if axes is not None:
            return _Grid((str(dims[0]), str(dims[1])), *axes)
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


def _grid_mapping(dataset: xr.Dataset, name: str) -> str:
    values = dataset.variables[name]
    pointer = text(values.attrs, "grid_mapping") or text(values.encoding, "grid_mapping")
    return text(dataset.variables[pointer].attrs, "grid_mapping_name") if pointer in dataset.variables else ""


def _refuse_nominal_axes(dataset: xr.Dataset, path: str, names: str, grid: _Grid) -> None:
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


def _water(dataset: xr.Dataset, path: str, name: str, grid: _Grid, level: Mapping[str, int]) -> np.ndarray | None:
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
    if array.sizes.get("time", 1) > 1:
        if not name:
            return None  # ice or tides: the velocities are missing there as well
        raise BadInputError(f"{path}: {mask} changes in time: data.ocean.mask must name one that does not, or be empty")
    single = array.isel(time=0, missing_dims="ignore").to_dataset(name=mask)
    values = _values(single, path, mask).astype(np.float64)
    land = text(dataset.variables[mask].attrs, "standard_name") == "land_binary_mask"
    return values < 0.5 if land else (values > 0.5) & (values <= LARGEST_VALUE)


def open_file(path: str, reading: Reading = Reading()) -> OceanFile:
    """Open a file without reading its fields.

    Args:
        path: a NetCDF file or a Zarr store.
        reading: how.

    Raises:
        BadInputError: both components, or the units, grid, depth or times of one are missing or of an unknown kind.
        DamagedDataError: the file cannot be opened.

    Example:
        >>> open_file("/dev/null")
        Traceback (most recent call last):
        pcl.errors.DamagedDataError: /dev/null cannot be read (...): it is cut off, damaged or no NetCDF or Zarr; ...
    """
    dataset = _open(path, reading.group)
    with _one_line(path):
        _refuse_tracks(dataset, path)
        velocities, lack = _velocities(dataset, path, reading)
        dataset, valid = _decode(dataset, path, velocities, reading)
        names = [velocity.name for velocity in velocities.values()]
        grid = _shared_grid(dataset, path, names)
        _refuse_along_grid(dataset, path, velocities)
        time = _shared_time(dataset, path, names)
        time_s, calendar, precision_s = read_times(
            _values(dataset, path, time), dataset.variables[time].attrs, f"{path}: {time}"
        )
        _check_order(time_s, f"{path}: {time}")
        levels = [choose_level(dataset, path, name, reading.depth_m) for name in names]
        if levels[0] != levels[-1]:
            raise BadInputError(
                f"{path}: {names[0]} is at {levels[0].depth_m} m and {names[-1]} at {levels[-1].depth_m} m: both must "
                "be at one depth"
            )
        rows = np.argsort(grid.latitude)
        columns, longitude = arrange_longitude(grid.longitude)
        components = {}
        for towards, velocity in velocities.items():
            array = _flatten(dataset, path, velocity.name, grid.dims, levels[0].index)
            per, attributes = _units_per(dataset, path, velocity.name, reading.units), dataset[velocity.name].attrs
            component = _in_metres_per_second(array, attributes, towards, per, valid[velocity.name])
            components[towards] = _ordered(component, rows, columns)
        if all(valid[name].zero_is_missing for name in names):
            components = _where_any_moves(components)
        water = _water(dataset, path, reading.mask, grid, levels[0].index)
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
        levels[0].depth_m,
        precision_s,
    )


def _velocities(dataset: xr.Dataset, path: str, reading: Reading) -> tuple[dict[str, Velocity], str]:
    """Find the components; where there are none, name the groups in which they could be."""
    try:
        return find_velocity(dataset, path, reading.eastward, reading.northward)
    except BadInputError as error:
        groups = _groups(path)
        if reading.group or not groups:
            raise
        raise BadInputError(
            f"{path} has no currents outside its groups {', '.join(groups)}: name the group that holds them in "
            "data.ocean.group"
        ) from error


def _decode(
    dataset: xr.Dataset, path: str, velocities: Mapping[str, Velocity], reading: Reading
) -> tuple[xr.Dataset, dict[str, Valid]]:
    """Unpack a file lazily, with what it says of missing values put in the way in which xarray reads it."""
    names = [velocity.name for velocity in velocities.values()] + [reading.mask or find_mask(dataset)]
    valid: dict[str, Valid] = {}
    conforming: dict[Hashable, xr.Variable] = {}
    for name, variable in dataset.variables.items():
        if name in names:
            by_default = partial(default_fill_of, path, reading.group, str(name))
            fill = by_default if _engine(path) == "netcdf4" else lambda: None
            conforming[name], valid[str(name)] = conform(variable, f"{path}: {name}", fill)
        else:
            conforming[name] = variable.copy(deep=False)
            take_zarr_fill(conforming[name].attrs, variable.encoding)
    return xr.decode_cf(xr.Dataset(conforming, attrs=dataset.attrs), decode_times=False), valid


def _shared_grid(dataset: xr.Dataset, path: str, names: Sequence[str]) -> _Grid:
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


def _refuse_along_grid(dataset: xr.Dataset, path: str, velocities: Mapping[str, Velocity]) -> None:
    """Refuse velocities along the lines of a grid, unless the file says that those run east and north."""
    for towards, velocity in velocities.items():
        if velocity.is_along_grid and _grid_mapping(dataset, velocity.name) not in GEOGRAPHIC:
            raise BadInputError(
                f"{path}: {velocity.name} is {velocity.kind}, along the lines of the model's grid: rotate it to east "
                f"and north first; if it does point {towards}, say so, data.ocean.{towards}={velocity.name}"
            )


def _shared_time(dataset: xr.Dataset, path: str, names: Sequence[str]) -> str:
    """Return the time of all components."""
    times = {find_time(dataset, name) for name in names}
    if len(times) > 1 or None in times:
        raise BadInputError(
            f"{path} has no time of {'both velocities' if len(names) > 1 else names[0]}: it needs one, a dimension's "
            f"or a scalar, in units like '{EPOCH}'"
        )
    return str(times.pop())


def _check_order(time_s: np.ndarray, where: str) -> None:
    if np.any(np.diff(time_s) < 0):
        step = int(np.argmax(np.diff(time_s) < 0))
        raise BadInputError(
            f"{where} does not increase from step {step} to {step + 1}: times must increase, sort the file"
        )


def _where_any_moves(components: dict[str, xr.DataArray]) -> dict[str, xr.DataArray]:
    """Return components that are missing where both are 0: there a Zarr store holds nothing, and its fill is 0."""
    still = np.logical_and.reduce([component.data == 0 for component in components.values()])
    return {
        towards: component.copy(data=np.where(still, np.float32(np.nan), component.data))
        for towards, component in components.items()
    }


def _ordered(array: xr.DataArray, rows: np.ndarray, columns: np.ndarray) -> xr.DataArray:
    """Return an array with its rows and columns in another order."""
    for dim, index in (("latitude", rows), ("longitude", columns)):
        if np.array_equal(index[::-1], np.arange(array.sizes[dim])):
            array = array.isel({dim: slice(None, None, -1)})  # keeps the chunks whole
        elif not np.array_equal(index, np.arange(array.sizes[dim])):
            array = array.isel({dim: index})
    return array
