"""Gridded ocean currents, opened lazily from the files of reanalyses, models and altimetry."""

__all__ = ["Currents", "chunk_advice", "open_currents"]

import math
from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from pcl.data.source import Progress, silently
from pcl.errors import BadInputError
from pcl.problems.ocean.currents import Currents, Run
from pcl.problems.ocean.reading.file import OceanFile, Reading, open_file
from pcl.problems.ocean.reading.layouts import SAID, damaged
from pcl.problems.ocean.reading.paths import find_files
from pcl.problems.ocean.reading.time import date
from pcl.problems.ocean.survey import survey
from pcl.storage.copies import Copies

CHEAP_MB = 8.0  # read in some ten milliseconds
SAME_M_S = 1e-3  # records that differ by less are the same: files pack with scales of their own, to 6e-4
SAME_DEPTH_M, SAME_DEPTH_SHARE = 0.01, 1e-3
SAME_DEGREES = 1e-4
TOWARDS = ("eastward", "northward")


def open_currents(
    paths: Sequence[str],
    *,
    eastward: str = "",
    northward: str = "",
    units: str = "",
    mask: str = "",
    depth_m: float | None = None,
    group: str = "",
    every_step: bool = False,
    memory_mb: float = 512.0,
    progress: Progress = silently,
    copies: Copies | None = None,
) -> Currents:
    """Open currents lazily: files in the order of time, one grid, one depth, m s-1, NaN on land.

    Both components may lie in files of their own. A record that two files share is kept once. Land is what a mask
    says. Without one it is what is missing, or exactly 0 in both components, at all time steps looked at (2 at least
    for the zeros).

    Args:
        paths: NetCDF files, globs, folders and Zarr stores, on this machine or in object storage.
        eastward: name of the eastward velocity; empty: by standard name, then by the usual names.
        northward: of the northward velocity, likewise.
        units: of both, where the files state none: m s-1 or cm s-1.
        mask: name of a variable that is 1 in water; empty: one with standard name sea_binary_mask or
            land_binary_mask, if there is one.
        depth_m: depth to read, metres below the surface; None: the shallowest.
        group: of the variables in a NetCDF file or Zarr store; empty: the root.
        every_step: look at every time step: the currents are without the steps that hold nothing, and have a survey.
            Otherwise at up to 8 that are evenly spread.
        memory_mb: of values held at a time by that look, MB.
        progress: shows how far it has come.
        copies: of NetCDF files in object storage, on this machine; None: in the usual folder.

    Raises:
        BadInputError: files, a component, its units, its grid, its depth or its times are missing, of an unknown kind,
            or differ between files.
        DamagedDataError: a file cannot be read.

    Example:
        >>> open_currents(["nowhere/*.nc"])
        Traceback (most recent call last):
        pcl.errors.BadInputError: nowhere/*.nc: no such file...
    """
    reading = Reading(eastward, northward, units, mask, depth_m, group)
    found, aside = find_files(paths, copies)
    opened = (open_file(path, reading) for path in progress(found, "file"))
    files = sorted(opened, key=lambda file: (float(file.time_s[0]), file.path))
    _check_alike(files)
    masks = [file.mask for file in files if file.mask is not None]
    currents = _join(files, masks[0] if masks else None, aside)
    return survey(currents, bool(masks), every_step=every_step, memory_mb=memory_mb, progress=progress)


def _check_alike(files: Sequence[OceanFile]) -> None:
    """Refuse files of different calendars, grids, depths, quantities or masks."""
    for towards in TOWARDS:
        having = [file for file in files if towards in file.kinds]
        for file in having[1:]:
            if file.kinds[towards] != having[0].kinds[towards]:
                raise BadInputError(
                    f"{file.path} holds {file.kinds[towards]}, {having[0].path} {having[0].kinds[towards]}: all files "
                    "must hold the same quantity, leave out the others"
                )
    first = files[0]
    for file in files[1:]:
        if file.calendar != first.calendar:
            raise BadInputError(
                f"{file.path} has the calendar {file.calendar}, {first.path} {first.calendar}: all files must "
                "have one, leave out the others"
            )
        _check_grid(file, first)
        if not _same_depth(file.depth_m, first.depth_m):
            raise BadInputError(
                f"{file.path} is at {_metres(file.depth_m)}, {first.path} at {_metres(first.depth_m)}: all files must "
                "be of one depth, leave out the others"
            )
    masked = [file for file in files if file.mask is not None]
    for file in masked[1:]:
        if not np.array_equal(file.mask, masked[0].mask):  # type: ignore[arg-type]
            raise BadInputError(
                f"{file.path} has another mask than {masked[0].path}: all files must have the same, leave one out"
            )


def _check_grid(file: OceanFile, first: OceanFile) -> None:
    for axis in ("latitude", "longitude"):
        here, there = getattr(first, axis), getattr(file, axis)
        if here.shape != there.shape or not np.allclose(here, there, rtol=0, atol=SAME_DEGREES):
            between = (
                here.shape == there.shape
                and np.ptp(there - here) < SAME_DEGREES
                and set(file.kinds) != set(first.kinds)
            )
            staggered = "they are of a staggered grid (Arakawa C), " if between else ""
            raise BadInputError(
                f"{file.path} has another {axis} ({_span(there)}) than {first.path} ({_span(here)}): {staggered}"
                "all files must have one grid, leave it out or interpolate it first"
            )


def _span(degrees: np.ndarray) -> str:
    return f"{len(degrees)} points from {degrees[0]:.4f} to {degrees[-1]:.4f}"


def _metres(depth_m: float | None) -> str:
    return "a depth that it does not state" if depth_m is None else f"{depth_m:g} m"


def _same_depth(one: float | None, other: float | None) -> bool:
    if one is None or other is None:
        return one is other
    return abs(one - other) <= SAME_DEPTH_M + SAME_DEPTH_SHARE * max(one, other)


def _join(files: Sequence[OceanFile], wet: np.ndarray | None, aside: Sequence[str]) -> Currents:
    """Return the currents of all files."""
    (east, time_s), (north, other_s) = (_in_order(files, towards) for towards in TOWARDS)
    _check_partners(files, time_s, other_s)
    first = files[0]
    water = np.ones((len(first.latitude), len(first.longitude)), bool) if wet is None else wet
    attributes = [next(file.components[t].attrs for file in files if t in file.components) for t in TOWARDS]
    return Currents(
        (east, north),
        (attributes[0], attributes[1]),
        time_s,
        first.calendar,
        first.latitude,
        first.longitude,
        water,
        ~water,
        first.depth_m,
        tuple(file.path for file in files),
        tuple(aside),
        max(file.precision_s for file in files),
        _notes(files),
    )


def _notes(files: Sequence[OceanFile]) -> tuple[str, ...]:
    """Return every note once, with the first file that it is of."""
    first: dict[str, str] = {}
    for file in files:
        for note in file.notes:
            first.setdefault(note, file.path)
    return tuple(f"{path}: {note}" for note, path in first.items())


def _in_order(files: Sequence[OceanFile], towards: str) -> tuple[tuple[Run, ...], np.ndarray]:
    """Return the runs of a component in the order of time, each step once, and its times."""
    having = [file for file in files if towards in file.components]
    if not having:
        raise BadInputError(files[0].lack)
    time_s = np.concatenate([file.time_s for file in having])
    number = np.repeat(np.arange(len(having)), [len(file.time_s) for file in having])
    step = np.concatenate([np.arange(len(file.time_s)) for file in having])
    order = np.lexsort((step, number, time_s))
    index = _each_once(having, towards, time_s[order], number[order], step[order])
    time_s, number, step = time_s[order][index], number[order][index], step[order][index]
    follows = (np.diff(number) == 0) & (np.diff(step) == 1)
    edges = [0, *(np.flatnonzero(~follows) + 1).tolist(), len(step)]
    runs = []
    for first, stop in pairwise(edges):
        file, begin = having[number[first]], int(step[first])
        runs.append(Run(file.path, first, file.components[towards].data[begin : begin + stop - first]))
    return tuple(runs), time_s


def _each_once(
    files: Sequence[OceanFile], towards: str, time_s: np.ndarray, number: np.ndarray, step: np.ndarray
) -> list[int]:
    """Return the index of every record, but of records of one time only the first; they must be equal."""
    precision_s = np.array([file.precision_s for file in files])[number]
    repeats = np.flatnonzero(np.diff(time_s) <= np.maximum(precision_s[1:], precision_s[:-1])) + 1
    kept = np.ones(len(time_s), bool)
    for i in repeats.tolist():
        before = int(np.flatnonzero(kept[:i])[-1])
        one, other = ((files[number[j]], int(step[j])) for j in (before, i))
        _check_equal(one, other, towards)
        kept[i] = False
    index: list[int] = np.flatnonzero(kept).tolist()
    return index


def _check_equal(one: tuple[OceanFile, int], other: tuple[OceanFile, int], towards: str) -> None:
    """Refuse two records of one time that differ."""
    if not np.allclose(_record(*one, towards), _record(*other, towards), rtol=0, atol=SAME_M_S, equal_nan=True):
        (file, step), (second, _) = one, other
        twice = f"{file.path} holds it twice" if file is second else f"{file.path} and {second.path} both hold it"
        raise BadInputError(
            f"{second.path}: {date(float(file.time_s[step]), file.calendar)} is there with two different {towards} "
            f"velocities, {twice}: every time must have one, leave one out"
        )


def _record(file: OceanFile, step: int, towards: str) -> np.ndarray:
    try:
        return np.asarray(file.components[towards].data[step].compute(scheduler="threads"))
    except SAID:
        raise
    except Exception as error:
        raise damaged(file.path, error) from error


def _check_partners(files: Sequence[OceanFile], east_s: np.ndarray, north_s: np.ndarray) -> None:
    """Refuse times that only one component has."""
    alone = [np.setdiff1d(east_s, north_s), np.setdiff1d(north_s, east_s)]
    for towards, other, times in zip(TOWARDS, TOWARDS[::-1], alone, strict=True):
        if len(times):
            file = next(file for file in files if towards in file.components and times[0] in file.time_s)
            raise BadInputError(
                f"{file.path}: {len(times)} times, the first {date(float(times[0]), file.calendar)}, have {towards} "
                f"but no {other} velocity in any file: add the files that hold it, or leave this one out"
            )


def chunk_advice(currents: Currents, window_steps: int, tile_points: int) -> str:
    """Say whether the chunks of the files suit reading windows of time in tiles, and how to rechunk them.

    Args:
        currents: what is to be read.
        window_steps: time steps of a window.
        tile_points: points of a tile in latitude and in longitude.
    """
    wanted = (window_steps, tile_points, tile_points)
    chunk = currents.chunk_shape
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
