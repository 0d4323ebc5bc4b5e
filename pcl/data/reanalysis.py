"""Gridded ocean currents, opened lazily from the files of reanalyses, models and altimetry."""

__all__ = ["Currents", "chunk_advice", "open_currents"]

import math
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any, TypeAlias

import numpy as np
import xarray as xr

from pcl.data.ocean_files import EPOCH, OceanFile, damaged, find_files, open_file
from pcl.errors import BadInputError

LARGEST_SPEED = 10.0  # m s-1: no current is that fast, but one in cm s-1 that is called m s-1 is
SAMPLED_STEPS = 8
CHEAP_MB = 8.0  # read in some ten milliseconds
Window: TypeAlias = tuple[Any, Any]  # eastward and northward, Dask arrays


@dataclass(frozen=True, eq=False)
class Currents:
    """Currents at one depth on a rectilinear grid.

    Attributes:
        eastward: lazy float32, dims (time, latitude, longitude), m s-1, NaN where there is no water.
        northward: likewise.
        time_s: seconds since 1970-01-01 in the calendar of the files, strictly increasing, shape (T,).
        calendar: ``standard``, ``noleap``, ``all_leap``, ``360_day`` or ``julian``.
        latitude: ascending, degrees, shape (Y,).
        longitude: ascending without a jump, the first in [-180, 180), the last less than 360 further, degrees,
            shape (X,).
        wet: True where there is water at one of up to 8 sampled time steps, shape (Y, X).
        files: every file with the index of its first time step, in the order of time.
        parts: both components of every file: to read a window, Dask need not look at the graph of them all.
    """

    eastward: xr.DataArray
    northward: xr.DataArray
    time_s: np.ndarray
    calendar: str
    latitude: np.ndarray
    longitude: np.ndarray
    wet: np.ndarray
    files: tuple[tuple[str, int], ...]
    parts: tuple[tuple[xr.DataArray, xr.DataArray], ...] = field(repr=False)

    def file_of(self, time_index: int) -> str:
        """Return the path of the file that holds a time step."""
        return self.files[bisect_right([first for _, first in self.files], time_index) - 1][0]

    def load(self, times: slice, rows: slice, columns: slice) -> np.ndarray:
        """Read a window of both components with Dask threads.

        Args:
            times: contiguous range of time steps.
            rows: contiguous range of latitudes.
            columns: contiguous range of longitudes.

        Returns:
            Eastward and northward, float32, m s-1, shape (2, T, y, x); NaN in both where one is missing.

        Raises:
            BadInputError: a speed is over 10 m s-1.
            DamagedDataError: a file cannot be read.
        """
        first, stop, _ = times.indices(len(self.time_s))
        pieces = self._pieces(first, max(first, stop), rows, columns)
        try:
            values = _read([piece for _, piece in pieces])
        except MemoryError:
            raise
        except Exception:
            _find_damage(pieces)
            raise
        values[:, np.isnan(values).any(axis=0)] = np.nan
        self._check_speed(values, first)
        return values

    def _pieces(self, first: int, stop: int, rows: slice, columns: slice) -> list[tuple[str, Window]]:
        """Return the lazy parts of a window, of the first file at least, and the file of each."""
        starts = [start for _, start in self.files]
        touched = range(bisect_right(starts, first) - 1, max(bisect_left(starts, stop), bisect_right(starts, first)))
        pieces = []
        for index in touched:
            steps = slice(max(first - starts[index], 0), stop - starts[index])
            u, v = (component.data[steps, rows, columns] for component in self.parts[index])
            pieces.append((self.files[index][0], (u, v)))
        return pieces

    def _check_speed(self, values: np.ndarray, first: int) -> None:
        """Refuse what is no current."""
        fastest = np.nanmax(np.hypot(*values), axis=(1, 2), initial=0.0)
        if np.any(fastest > LARGEST_SPEED):
            step = int(np.argmax(fastest > LARGEST_SPEED))
            raise BadInputError(
                f"{self.file_of(first + step)}: {fastest[step]:.3g} m s-1 at time step {first + step}: a current is "
                f"below {LARGEST_SPEED:g} m s-1, correct the units or the fill value that the file states"
            )


def _read(pieces: list[Window]) -> np.ndarray:
    """Compute lazy parts of a window together, joined in time."""
    both: Any = np.stack([np.concatenate(component) for component in zip(*pieces, strict=True)])  # lazy like its parts
    return np.array(both.compute(scheduler="threads"))  # our own to write to


def _find_damage(pieces: list[tuple[str, Window]]) -> None:
    """Read a window file by file and raise for the one that cannot be read."""
    for path, piece in pieces:
        try:
            _read([piece])
        except Exception as error:
            raise damaged(path, error) from error


def open_currents(
    paths: Sequence[str],
    *,
    eastward: str = "",
    northward: str = "",
    units: str = "",
    mask: str = "",
    depth_m: float | None = None,
) -> Currents:
    """Open currents lazily: files in the order of time, one grid, m s-1, NaN on land.

    Land is what a mask says. Without one it is what is missing, or exactly 0 in both components, at all of up to 8
    evenly spread time steps (2 at least for the zeros).

    Args:
        paths: NetCDF files, globs, folders and Zarr stores.
        eastward: name of the eastward velocity; empty: by standard name, then by the usual names.
        northward: of the northward velocity, likewise.
        units: of both, where the files state none: m s-1 or cm s-1.
        mask: name of a variable that is 1 in water; empty: one with standard name sea_binary_mask or
            land_binary_mask, if there is one.
        depth_m: depth to read, m; None: the shallowest.

    Raises:
        BadInputError: files, a component, its units, its grid or its times are missing, of an unknown kind, or differ
            between files.
        DamagedDataError: a file cannot be read.

    Example:
        >>> open_currents(["nowhere/*.nc"])
        Traceback (most recent call last):
        pcl.errors.BadInputError: nowhere/*.nc: no such file...
    """
    files = [open_file(path, eastward, northward, units, mask, depth_m) for path in find_files(paths)]
    files.sort(key=lambda file: float(file.time_s[0]))
    _check_alike(files)
    masks = [file.mask for file in files if file.mask is not None]
    currents = _join(files, masks[0] if masks else None)
    return _add_water(currents, files, has_mask=bool(masks))


def _check_alike(files: list[OceanFile]) -> None:
    """Refuse files of different calendars or grids, and files that overlap in time."""
    for file, following in pairwise(files):
        if following.calendar != file.calendar:
            raise BadInputError(
                f"{following.path} has the calendar {following.calendar}, {file.path} {file.calendar}: all files must "
                "have one, leave out the others"
            )
        if following.time_s[0] <= file.time_s[-1]:
            raise BadInputError(
                f"{following.path} begins before {file.path} ends: files must not overlap in time, leave one out"
            )
        if file.mask is not None and following.mask is not None and not np.array_equal(file.mask, following.mask):
            raise BadInputError(
                f"{following.path} has another mask than {file.path}: all files must have the same, leave one out"
            )
        for axis in ("latitude", "longitude"):
            here, there = getattr(file, axis), getattr(following, axis)
            if here.shape != there.shape or not np.allclose(here, there, rtol=0, atol=1e-4):
                raise BadInputError(
                    f"{following.path} has another {axis} ({_span(there)}) than {file.path} ({_span(here)}): "
                    "all files must have one grid, leave it out or interpolate it first"
                )


def _span(degrees: np.ndarray) -> str:
    return f"{len(degrees)} points from {degrees[0]:.4f} to {degrees[-1]:.4f}"


def _join(files: list[OceanFile], wet: np.ndarray | None) -> Currents:
    """Return the currents of all files, missing outside the water if it is known."""
    firsts = np.cumsum([0, *(len(file.time_s) for file in files)])
    latitude, longitude = files[0].latitude, files[0].longitude
    parts = [(file.eastward, file.northward) for file in files]
    if wet is not None:
        water = xr.DataArray(wet, dims=("latitude", "longitude")).chunk()  # one task, whatever the number of files
        parts = [(_where(water, u), _where(water, v)) for u, v in parts]
    time_s = np.concatenate([file.time_s for file in files])
    coordinates = {
        "time": ("time", time_s, {"units": EPOCH, "calendar": files[0].calendar, "standard_name": "time"}),
        "latitude": ("latitude", latitude, {"units": "degrees_north", "standard_name": "latitude"}),
        "longitude": ("longitude", longitude, {"units": "degrees_east", "standard_name": "longitude"}),
    }

    def join(component: Sequence[xr.DataArray]) -> xr.DataArray:
        data = np.concatenate([part.data for part in component])  # of Dask arrays: a lazy Dask array
        return xr.DataArray(data, coordinates, component[0].dims, component[0].name, component[0].attrs)

    return Currents(
        join([u for u, _ in parts]),
        join([v for _, v in parts]),
        time_s,
        files[0].calendar,
        latitude,
        longitude,
        np.ones((len(latitude), len(longitude)), bool) if wet is None else wet,
        tuple((file.path, int(first)) for file, first in zip(files, firsts, strict=False)),
        tuple(parts),
    )


def _where(water: xr.DataArray, component: xr.DataArray) -> xr.DataArray:
    """Return a component that is missing outside the water."""
    return component.copy(data=np.where(water.data, component.data, np.float32(np.nan)))


def _add_water(currents: Currents, files: list[OceanFile], has_mask: bool) -> Currents:
    """Find the water at a few time steps, read one at a time."""
    num_times = len(currents.time_s)
    steps = np.unique(np.linspace(0, num_times - 1, min(SAMPLED_STEPS, num_times)).round().astype(int))
    wet, moving = (np.zeros(currents.wet.shape, bool) for _ in range(2))
    for step in steps:
        u, v = currents.load(slice(step, step + 1), slice(None), slice(None))[:, 0]
        wet |= ~np.isnan(u)
        moving |= (np.nan_to_num(u) != 0) | (np.nan_to_num(v) != 0)
    still = wet & ~moving if len(steps) > 1 and not has_mask else np.zeros_like(wet)
    water = wet & currents.wet & ~still
    if not water.any():
        raise BadInputError(f"{files[0].path} holds no water: choose another mask, depth or region")
    return replace(_join(files, ~still) if still.any() else currents, wet=water)


def chunk_advice(currents: Currents, window_steps: int, tile_points: int) -> str:
    """Say whether the chunks of the files suit reading windows of time in tiles, and how to rechunk them.

    Args:
        currents: what is to be read.
        window_steps: time steps of a window.
        tile_points: points of a tile in latitude and in longitude.
    """
    wanted = (window_steps, tile_points, tile_points)
    chunk = [max(sizes) for sizes in currents.eastward.chunks or ()]
    used_mb, read_mb = (
        2 * 4e-6 * math.prod(sizes)
        for sizes in (wanted, [-(-want // size) * size for want, size in zip(wanted, chunk, strict=True)])
    )
    shape = " x ".join(map(str, chunk))
    found = (
        f"A window of {window_steps} steps in a tile of {tile_points} x {tile_points} points uses {used_mb:.2g} MB and "
        f"reads {read_mb:.2g} MB, in chunks of {shape} (time x latitude x longitude)"
    )
    if read_mb <= max(CHEAP_MB, 4 * used_mb):
        return f"{found}: the chunks suit."
    points = tile_points * max(1, math.isqrt(int(CHEAP_MB / 2 / used_mb)))
    return (
        f"{found}: read all tiles of a window together, or rechunk once. In Python: c = open_currents(...); "
        "xarray.Dataset({'uo': c.eastward, 'vo': c.northward})"
        f".chunk(time={window_steps}, latitude={points}, longitude={points}).to_zarr('currents.zarr')"
    )
