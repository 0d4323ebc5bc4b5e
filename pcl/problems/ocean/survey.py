"""A look through an archive: where there is water, which steps hold nothing, how fast the currents are."""

__all__ = ["survey"]

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import TypeAlias

import dask
import numpy as np

from pcl.data.source import Progress, silently
from pcl.errors import BadInputError
from pcl.problems.ocean.currents import NUM_READERS, Currents, Run, Survey

FEW_STEPS = 8
BYTES_PER_POINT = 64  # of a block while it is looked at
MEGABYTE = 1e6
Block: TypeAlias = tuple[slice, slice, slice]


def survey(
    currents: Currents,
    has_mask: bool,
    *,
    every_step: bool,
    memory_mb: float = 512.0,
    progress: Progress = silently,
) -> Currents:
    """Find the water of an archive, and with a look at every step also the steps that hold nothing.

    Land is what a mask says. Without one it is what is missing, or exactly 0 in both components, at all steps looked
    at (2 at least for the zeros). A step that holds no current anywhere is left out of the archive: it breaks the time
    axis as a hole does.

    Args:
        currents: with the water of the mask, or water everywhere.
        has_mask: whether the water is that of a mask.
        every_step: look at every step, not at up to 8 that are evenly spread.
        memory_mb: of values held at a time, MB.
        progress: shows how far the look has come.

    Raises:
        BadInputError: there is no water.
        DamagedDataError: a file cannot be read.
    """
    blocks = list(_blocks(currents, memory_mb)) if every_step else _few_steps(len(currents.time_s))
    tally = _Tally(currents, has_mask or len(currents.time_s) == 1)
    with dask.config.set(num_workers=NUM_READERS):
        for block in progress(blocks, "block"):
            tally.add(*block)
    water = tally.water & currents.wet
    if not water.any():
        raise BadInputError(f"{currents.paths[0]} holds no water: choose another mask, depth or region")
    if not every_step:  # what a few steps lack others may have
        return replace(currents, wet=water, land=currents.land | tally.still)
    kept = tally.alive
    found = Survey(
        tuple((currents.file_of(step), float(currents.time_s[step])) for step in np.flatnonzero(~kept).tolist()),
        1 - float(tally.known[water].mean()) / int(kept.sum()),
        tally.fastest_m_s,
        (np.cumsum(kept) - 1)[tally.fastest_step],
        tally.components_m_s,
    )
    east, north = (_without(runs, kept) for runs in currents.runs)
    return replace(currents, wet=water, land=~water, runs=(east, north), time_s=currents.time_s[kept], survey=found)


class _Tally:
    """What has been seen so far, point by point, step by step and row by row."""

    def __init__(self, currents: Currents, still_water: bool) -> None:
        self.currents, self.still_water = currents, still_water
        shape = currents.wet.shape
        self.known, self.moves = np.zeros(shape, np.int32), np.zeros(shape, bool)
        self.alive = np.zeros(len(currents.time_s), bool)
        self.fastest_m_s, self.fastest_step = np.zeros(shape[0], np.float32), np.zeros(shape[0], int)
        self.components_m_s = np.zeros((2, shape[0]), np.float32)

    def add(self, times: slice, rows: slice, columns: slice) -> None:
        values = self.currents.read(times, rows, columns)
        finite = np.isfinite(values[0])
        moves = finite & (values != 0).any(0)
        alive = (finite if len(self.alive) == 1 else moves).any((1, 2))
        self.alive[times] |= alive
        # a step of zeros only holds nothing; blocks span the grid or see some of it move
        self.known[rows, columns] += finite[alive].sum(0, dtype=np.int32)
        self.moves[rows, columns] |= moves.any(0)
        speed = np.where(finite, np.hypot(*values), 0).max(2, initial=0)
        step, row = speed.argmax(0), np.arange(values.shape[2])
        faster = speed[step, row] > self.fastest_m_s[rows]
        self.fastest_step[rows] = np.where(faster, times.start + step, self.fastest_step[rows])
        self.fastest_m_s[rows] = np.maximum(speed[step, row], self.fastest_m_s[rows])
        components = np.where(finite, np.abs(values), 0).max((1, 3), initial=0)
        self.components_m_s[:, rows] = np.maximum(components, self.components_m_s[:, rows])

    @property
    def water(self) -> np.ndarray:
        water: np.ndarray = (self.known > 0) & ~self.still
        return water

    @property
    def still(self) -> np.ndarray:
        """Zeros that stand for land."""
        still: np.ndarray = (self.known > 0) & ~self.moves
        return still & (not self.still_water)


def _few_steps(num_times: int) -> list[Block]:
    steps = np.unique(np.linspace(0, num_times - 1, min(FEW_STEPS, num_times)).round().astype(int)).tolist()
    return [(slice(step, step + 1), slice(None), slice(None)) for step in steps]


def _blocks(currents: Currents, memory_mb: float) -> Iterator[Block]:
    """Cut an archive along the chunks of its files into blocks that fit in memory, so that every chunk is read once."""
    points = int(memory_mb * MEGABYTE / BYTES_PER_POINT)
    num_rows, num_columns = currents.wet.shape
    times, chunk_rows, chunk_columns = currents.chunk_shape
    columns = _whole(points // (times * chunk_rows), chunk_columns, num_columns)
    rows = _whole(points // (times * columns), chunk_rows, num_rows) if columns == num_columns else chunk_rows
    edges = _time_edges(currents, points // (rows * columns))
    for first, stop in pairwise(edges):
        for row in range(0, num_rows, rows):
            for column in range(0, num_columns, columns):
                yield (
                    slice(first, stop),
                    slice(row, min(row + rows, num_rows)),
                    slice(column, min(column + columns, num_columns)),
                )


def _whole(affordable: int, chunk: int, size: int) -> int:
    """Return the largest multiple of a chunk that can be afforded, one at least, the size at most."""
    return min(max(affordable // chunk, 1) * chunk, size)


def _time_edges(currents: Currents, affordable: int) -> list[int]:
    """Return where blocks begin and end in time: at edges of chunks, as far apart as can be afforded."""
    ends: set[int] = set()
    for runs in currents.runs:
        for run in runs:
            ends |= set((run.first + np.cumsum(run.values.chunks[0])).tolist())
    edges = [0]
    for end, following in zip(sorted(ends), [*sorted(ends)[1:], np.inf], strict=True):
        if following - edges[-1] > affordable:
            edges.append(end)
    return edges


def _without(runs: Sequence[Run], kept: np.ndarray) -> tuple[Run, ...]:
    """Return runs without some steps: those around a step that is left out become two."""
    index = np.concatenate([[0], np.cumsum(kept)])
    found = []
    for run in runs:
        inside = kept[run.first : run.first + run.values.shape[0]]
        edges = np.flatnonzero(np.diff(np.concatenate([[0], inside.astype(np.int8), [0]])))
        for first, stop in edges.reshape(-1, 2).tolist():
            found.append(Run(run.path, int(index[run.first + first]), run.values[first:stop]))
    return tuple(found)
