"""Tiles and windows of an archive, and the fields in them.

Values that are missing in water for a moment are interpolated in time. On a periodic grid tiles lie across its seam.

Shapes: T times of a window, H x W points of a tile (H = W), Y x X points of the grid.
"""

__all__ = ["BYTES_PER_POINT", "Box", "Cutting"]

import math
from dataclasses import dataclass
from functools import cached_property
from typing import TypeAlias

import dask
import numpy as np

from pcl.errors import BadInputError
from pcl.problems.ocean.currents import NUM_READERS, Currents, Survey, as_slices
from pcl.problems.ocean.gaps import bridge
from pcl.problems.ocean.settings import OceanSettings
from pcl.problems.ocean.tiles import DAY_S, HOUR_S, cut_tiles, cut_windows, regular_interval, union_box

# of a slab, for each point and time, at the worst moment: what is read, a copy, a table of the interpolation
BYTES_PER_POINT = 64
BYTES_PER_CHUNK_POINT = 32  # of a chunk while it is read: packed, as float64, as float32
GAP_INTERVALS = 3  # of the fields: the longest gap that is bridged unless told otherwise, two missing steps
Box: TypeAlias = tuple[slice, slice]  # rows and columns


@dataclass(frozen=True, eq=False)
class Cutting:
    """How an archive is cut.

    Attributes:
        currents: the archive, of which every step has been looked at.
        settings: of tiles and windows, and the halo of drifters.
    """

    currents: Currents
    settings: OceanSettings

    @property
    def survey(self) -> Survey:
        """What a look at every step has found."""
        assert self.currents.survey is not None, "pairs are cut from currents of which every step has been looked at"
        return self.currents.survey

    @property
    def has_gaps(self) -> bool:
        """Whether values are missing in water."""
        return self.survey.gaps > 0

    @cached_property
    def tiles(self) -> np.ndarray:
        """First row and column of every tile, shape (tiles, 2)."""
        chosen, currents = self.settings, self.currents
        return cut_tiles(currents.wet, chosen.tile_points, chosen.tile_stride, chosen.minimum_wet, currents.is_periodic)

    @cached_property
    def windows(self) -> dict[str, np.ndarray]:
        """First time index of every window of each split."""
        chosen, currents = self.settings, self.currents
        return cut_windows(
            currents.time_s,
            chosen.window_steps,
            chosen.window_stride,
            chosen.test_fraction,
            chosen.gap_days,
            currents.precision_s,
        )

    @property
    def interval_s(self) -> float:
        """Seconds between two fields."""
        return regular_interval(self.currents.time_s)

    @property
    def duration_s(self) -> float:
        """Seconds of a window, from its first field to its last."""
        return (self.settings.window_steps - 1) * self.interval_s

    @property
    def longest_gap_s(self) -> float:
        """Seconds from one known current to the next that are bridged."""
        if self.settings.max_gap_hours is None:
            return min(GAP_INTERVALS * self.interval_s, self.settings.gap_days * DAY_S)
        return self.settings.max_gap_hours * HOUR_S

    @property
    def margin(self) -> int:
        """Time steps beyond a window that may hold an end of a gap."""
        return math.ceil(self.longest_gap_s / self.interval_s) - 1 if self.has_gaps else 0

    def check_gap(self) -> None:
        """Refuse bridges that would reach from training to test.

        Raises:
            BadInputError: see above.
        """
        hours, days = self.settings.max_gap_hours, self.settings.gap_days
        if hours is not None and hours * HOUR_S > days * DAY_S:
            raise BadInputError(
                f"data.ocean.max_gap_hours={hours:g} is longer than data.ocean.gap_days="
                f"{days:g}: bridges must not reach from training to test, choose fewer hours"
            )

    def steps_of(self, split: str) -> np.ndarray:
        """Return the time steps in windows of a split, increasing."""
        return np.unique(self.windows[split][:, None] + np.arange(self.settings.window_steps))

    def box(self, tiles: np.ndarray) -> Box:
        """Return the rows and columns of the smallest box around tiles, shape (tiles, 2)."""
        return union_box(tiles, self.settings.tile_points)

    def box_with_halo(self, tiles: np.ndarray) -> Box:
        """Return the rows and columns of the box around tiles, with the halo in which drifters are followed."""
        rows, columns = self.box(tiles)
        halo = self.settings.drifters.halo_degrees + 1e-9  # grids carry rounding
        if not self.currents.is_periodic:
            return _along(self.currents.latitude, rows, halo), _along(self.currents.longitude, columns, halo)
        cells = int(halo / np.median(np.diff(self.currents.longitude)))
        return _along(self.currents.latitude, rows, halo), slice(columns.start - cells, columns.stop + cells)

    def axes(self, box: Box) -> tuple[np.ndarray, np.ndarray]:
        """Return the latitudes and longitudes of a box, degrees, both ascending."""
        return self.currents.latitude[box[0]], self.currents.longitudes(box[1])

    def used(self) -> tuple[Box, np.ndarray]:
        """Return a box around all tiles, and which of its points lie in one, each once."""
        rows, columns = self.box(self.tiles)
        used = np.zeros((rows.stop - rows.start, columns.stop - columns.start), bool)
        for tile in self.tiles - [rows.start, columns.start]:
            used[self.box(tile[None])] = True
        if self.currents.is_periodic:  # beyond the seam are columns that have been counted
            num_columns = len(self.currents.longitude)
            over = used[:, num_columns:]
            used[:, : over.shape[1]] |= over
            used, columns = used[:, :num_columns], slice(columns.start, columns.start + min(num_columns, used.shape[1]))
        return (rows, columns), used

    def slab_bytes(self, tiles: np.ndarray) -> int:
        """Return the bytes that reading a window of tiles takes, and following drifters in it."""
        rows, columns = self.box_with_halo(tiles)
        times = self.settings.window_steps + 2 * max(self.margin, 0)
        slab = times * (rows.stop - rows.start) * (columns.stop - columns.start)
        return int(BYTES_PER_POINT * slab + self.chunk_bytes)

    @cached_property
    def chunk_bytes(self) -> int:
        """Bytes of the chunks of the files that the readers hold at a time."""
        return NUM_READERS * BYTES_PER_CHUNK_POINT * math.prod(self.currents.chunk_shape)

    def load(self, times: slice, box: Box) -> np.ndarray:
        """Return the currents at some times in a box, shape (2, T, Y, X)."""
        with dask.config.set(num_workers=NUM_READERS):
            return self.currents.load(times, *box)

    def water(self, box: Box) -> np.ndarray:
        """Return the water mask of a box, bool, shape (Y, X)."""
        wet = self.currents.wet[box[0]]
        blocks = as_slices(box[1], wet.shape[1], self.currents.is_periodic)
        return np.concatenate([wet[:, block] for block in blocks], axis=1)

    def bridged(self, first: int, box: Box, water: np.ndarray) -> np.ndarray:
        """Return the fields of a window with what is missing for a moment interpolated in time.

        Args:
            first: time index of the window.
            box: of the fields.
            water: its mask.
        """
        before, steps = min(self.margin, first), self.settings.window_steps
        times = slice(first - before, min(first + steps + self.margin, len(self.currents.time_s)))
        field = self.load(times, box)
        if self.has_gaps:
            field = bridge(field, self.currents.time_s[times], water, self.longest_gap_s)
        return field[:, before : before + steps]


def _along(axis: np.ndarray, box: slice, halo: float) -> slice:
    """Return the range of an ascending axis within the halo around a box."""
    low, high = axis[box.start] - halo, axis[box.stop - 1] + halo
    return slice(int(np.searchsorted(axis, low)), int(np.searchsorted(axis, high, "right")))
