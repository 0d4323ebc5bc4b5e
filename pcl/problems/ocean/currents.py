"""Gridded ocean currents, read lazily: a window of time steps, rows and columns at a time."""

__all__ = ["NUM_READERS", "Currents", "Run", "Survey", "as_slices"]

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import xarray as xr

from pcl.errors import BadInputError
from pcl.problems.ocean.reading.grid import is_periodic
from pcl.problems.ocean.reading.layouts import SAID, damaged
from pcl.problems.ocean.reading.time import EPOCH

LARGEST_SPEED = 10.0  # m s-1: no current is that fast, but one in cm s-1 that is called m s-1 is
NUM_READERS = 2  # threads of a task: there are as many tasks as CPUs, and every thread holds chunks of its own


class Run(NamedTuple):
    """Consecutive time steps of a component in one file: the index of the first, lazy values (T, Y, X) in m s-1."""

    path: str
    first: int
    values: Any


@dataclass(frozen=True, eq=False)
class Survey:
    """What a look at every time step has found.

    Attributes:
        left_out: file and time of every step that holds no current anywhere, seconds since 1970-01-01.
        gaps: share of the values in water that are missing at the other steps.
        fastest_m_s: largest speed in every row, shape (Y,), and the time step where it occurs.
        fastest_step: see there.
        components_m_s: largest absolute velocity to the east and to the north in every row, shape (2, Y).
    """

    left_out: tuple[tuple[str, float], ...]
    gaps: float
    fastest_m_s: np.ndarray
    fastest_step: np.ndarray
    components_m_s: np.ndarray


@dataclass(frozen=True, eq=False)
class Currents:
    """Currents at one depth on a rectilinear grid.

    Attributes:
        runs: the time steps of the eastward and of the northward velocity, one after another, file by file.
        attributes: standard name, units, ... of both.
        time_s: seconds since 1970-01-01 in the calendar of the files, strictly increasing, shape (T,).
        calendar: ``standard``, ``noleap``, ``all_leap``, ``360_day`` or ``julian``.
        latitude: ascending, degrees, shape (Y,).
        longitude: ascending without a jump, the first in [-180, 180), the last less than 360 further, degrees,
            shape (X,).
        wet: True where water has been seen, shape (Y, X).
        land: True where values do not count: outside a mask, or zeros that stand for land, shape (Y, X).
        depth_m: metres below the surface; None where the files do not say.
        paths: every file, in the order of time.
        aside: what lies in the folders of the files and is none of them.
        precision_s: how exact the times are, seconds.
        notes: what files say and reading does not follow, with the first file that says so.
        survey: what a look at every step has found; None after a look at a few.
    """

    runs: tuple[tuple[Run, ...], tuple[Run, ...]] = field(repr=False)
    attributes: tuple[dict[str, Any], dict[str, Any]]
    time_s: np.ndarray
    calendar: str
    latitude: np.ndarray
    longitude: np.ndarray
    wet: np.ndarray
    land: np.ndarray
    depth_m: float | None
    paths: tuple[str, ...]
    aside: tuple[str, ...] = ()
    precision_s: float = 0.0
    notes: tuple[str, ...] = ()
    survey: Survey | None = None

    @property
    def files(self) -> tuple[tuple[str, int], ...]:
        """Every run of the eastward velocity: its file, and the index of its first time step."""
        return tuple((run.path, run.first) for run in self.runs[0])

    def file_of(self, time_index: int) -> str:
        """Return the path of the file that holds a time step."""
        return self.files[bisect_right([first for _, first in self.files], time_index) - 1][0]

    @cached_property
    def is_periodic(self) -> bool:
        """Whether the first column is the eastern neighbour of the last."""
        return is_periodic(self.longitude)

    def longitudes(self, columns: slice) -> np.ndarray:
        """Return the longitudes of columns, degrees, ascending; on a periodic grid also before the first and on."""
        if not self.is_periodic:
            return self.longitude[columns]
        index = np.arange(columns.start, columns.stop)
        turned: np.ndarray = self.longitude[index % len(self.longitude)] + 360.0 * (index // len(self.longitude))
        return turned

    @property
    def eastward(self) -> xr.DataArray:
        """Lazy float32, dims (time, latitude, longitude), m s-1, NaN where there is no water."""
        return self._component(0)

    @property
    def northward(self) -> xr.DataArray:
        """Likewise."""
        return self._component(1)

    def _component(self, number: int) -> xr.DataArray:
        coordinates = {
            "time": ("time", self.time_s, {"units": EPOCH, "calendar": self.calendar, "standard_name": "time"}),
            "latitude": ("latitude", self.latitude, {"units": "degrees_north", "standard_name": "latitude"}),
            "longitude": ("longitude", self.longitude, {"units": "degrees_east", "standard_name": "longitude"}),
        }
        land = xr.DataArray(self.land).chunk().data  # one task, whatever the number of files
        # of Dask arrays: lazy
        values: Any = np.concatenate([np.where(land, np.float32(np.nan), run.values) for run in self.runs[number]])
        name = ("eastward", "northward")[number]
        return xr.DataArray(values, coordinates, ("time", "latitude", "longitude"), name, self.attributes[number])

    @property
    def chunk_shape(self) -> tuple[int, int, int]:
        """The largest time steps, rows and columns of a chunk of the files."""
        chunks = [run.values.chunks for runs in self.runs for run in runs]
        times, rows, columns = (max(max(sizes[axis]) for sizes in chunks) for axis in range(3))
        return times, rows, columns

    def load(self, times: slice, rows: slice, columns: slice) -> np.ndarray:
        """Read a window of both components with Dask threads.

        Args:
            times: contiguous range of time steps.
            rows: contiguous range of latitudes.
            columns: contiguous range of longitudes; on a periodic grid it may begin before the first or go on.

        Returns:
            Eastward and northward, float32, m s-1, shape (2, T, y, x); NaN in both where one is missing.

        Raises:
            BadInputError: a speed is over 10 m s-1.
            DamagedDataError: a file cannot be read.
        """
        values = self.read(times, rows, columns)
        fastest = np.nanmax(np.hypot(*values), axis=(1, 2), initial=0.0)
        if np.any(fastest > LARGEST_SPEED):
            step = int(np.argmax(fastest > LARGEST_SPEED))
            self.refuse_speed(float(fastest[step]), step + times.indices(len(self.time_s))[0])
        return values

    def refuse_speed(self, speed_m_s: float, time_index: int) -> None:
        """Refuse what is no current.

        Raises:
            BadInputError: always.
        """
        raise BadInputError(
            f"{self.file_of(time_index)}: {speed_m_s:.3g} m s-1 at time step {time_index}: a current is below "
            f"{LARGEST_SPEED:g} m s-1, correct the units or the fill value that the file states"
        )

    def read(self, times: slice, rows: slice, columns: slice) -> np.ndarray:
        """Do what ``load`` does, without a look at speeds."""
        first, stop, _ = times.indices(len(self.time_s))
        blocks = as_slices(columns, len(self.longitude), self.is_periodic)
        pieces = [_pieces(runs, first, max(first, stop), rows, blocks) for runs in self.runs]
        try:
            values = _compute(pieces)
        except SAID:
            raise
        except Exception:
            _find_damage(pieces)
            raise
        missing = np.isnan(values).any(axis=0)
        if self.land.any():
            missing |= np.concatenate([self.land[rows, block] for block in blocks], axis=1)
        values[:, missing] = np.nan
        return values


def as_slices(columns: slice, num_columns: int, periodic: bool) -> list[slice]:
    """Return columns as slices of a grid: of a periodic one, those before the first are the last, and so on.

    Example:
        >>> as_slices(slice(-2, 3), 10, periodic=True)
        [slice(8, 10, None), slice(0, 3, None)]
    """
    if not periodic or columns == slice(None):
        return [columns]
    edges = [columns.start, *range((columns.start // num_columns + 1) * num_columns, columns.stop, num_columns)]
    turns = [edge // num_columns * num_columns for edge in edges]
    stops = [*edges[1:], columns.stop]
    return [slice(edge - turn, stop - turn) for edge, stop, turn in zip(edges, stops, turns, strict=True)]


def _pieces(runs: Sequence[Run], first: int, stop: int, rows: slice, blocks: Sequence[slice]) -> list[tuple[str, Any]]:
    """Return the lazy parts of a window, of one run at least, and the file of each."""
    starts = [run.first for run in runs]
    begin = bisect_right(starts, first) - 1
    pieces = []
    for run in runs[begin : max(bisect_left(starts, stop), begin + 1)]:
        steps = slice(max(first - run.first, 0), stop - run.first)
        parts = [run.values[steps, rows, block] for block in blocks]
        pieces.append((run.path, parts[0] if len(parts) == 1 else np.concatenate(parts, axis=2)))
    return pieces


def _compute(pieces: Sequence[Sequence[tuple[str, Any]]]) -> np.ndarray:
    """Compute the lazy parts of both components together, joined in time."""
    both: Any = np.stack([np.concatenate([piece for _, piece in component]) for component in pieces])  # lazy
    return np.array(both.compute(scheduler="threads"))  # our own to write to


def _find_damage(pieces: Sequence[Sequence[tuple[str, Any]]]) -> None:
    """Read a window file by file and raise for the one that cannot be read."""
    for component in pieces:
        for path, piece in component:
            try:
                piece.compute(scheduler="threads")
            except SAID:
                raise
            except Exception as error:
                raise damaged(path, error) from error
