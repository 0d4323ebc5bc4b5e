"""Pairs of an ocean model or of altimetry: the currents of a tile over a window of time, and drifters released in it.

Pairs are numbered window by window, in a window tile by tile, in a tile release by release, so that consecutive pairs
share a slab of the archive, which is read once. What a pair holds depends on its number and the settings only: not on
the slab, the task or the memory.

Values that are missing in water for a moment are interpolated in time; where they are missing for longer, the current
is NaN and drifters are lost. On a periodic grid tiles lie across its seam, and drifters cross it.

Shapes: D drifters, P recorded positions, T times, H x W points of a tile (H = W), Y x X points of the grid.
"""

__all__ = ["OceanSource", "ocean_source"]

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any

import dask
import numpy as np
import torch

from pcl.data.manifest import SPLITS, ArrayInfo
from pcl.data.source import Arrays
from pcl.errors import BadInputError
from pcl.problems.ocean.archive import list_files, product_of
from pcl.problems.ocean.checks import check_regular, check_speeds
from pcl.problems.ocean.currents import NUM_READERS, Currents, Survey, as_slices
from pcl.problems.ocean.drifters import advect, count_steps, release
from pcl.problems.ocean.gaps import bridge
from pcl.problems.ocean.reanalysis import chunk_advice, open_currents
from pcl.problems.ocean.sphere import METRES_PER_DEGREE
from pcl.problems.ocean.summary import describe_archive, describe_use
from pcl.problems.ocean.survey import Progress, silently
from pcl.problems.ocean.tiles import DAY_S, HOUR_S, cut_tiles, cut_windows, regular_interval, union_box

# of a slab, for each point and time, at the worst moment: what is read, a copy, a table of the interpolation
BYTES_PER_POINT = 64
BYTES_PER_CHUNK_POINT = 32  # of a chunk while it is read: packed, as float64, as float32
GAP_INTERVALS = 3  # of the fields: the longest gap that is bridged unless told otherwise, two missing steps
MEGABYTE = 1e6
READING = ("eastward", "northward", "units", "mask", "depth_m", "group")


def ocean_source(
    ocean: Mapping[str, Any],
    drifters: Mapping[str, Any],
    seed: int,
    memory_mb: float = 512.0,
    progress: Progress = silently,
) -> "OceanSource":
    """Open the files that settings name, look through them, and return where their pairs come from.

    Args:
        ocean: the section ``data.ocean`` of a configuration.
        drifters: the section ``data.drifters``.
        seed: of releases and noise.
        memory_mb: of fields that are held at a time, MB.
        progress: shows how far the look has come.

    Raises:
        BadInputError: files, grid, times and settings do not fit together.
        DamagedDataError: a file cannot be read.
    """
    reading = {name: ocean[name] for name in READING if name in ocean}
    currents = open_currents(ocean["paths"], **reading, every_step=True, memory_mb=memory_mb, progress=progress)
    names = {field.name for field in fields(OceanSource)}
    settings = {name: value for name, value in {**ocean, **drifters}.items() if name in names}
    return OceanSource(currents, seed=seed, memory_mb=memory_mb, **settings)


@dataclass(frozen=True, eq=False)
class OceanSource:
    """Tiles and windows of gridded currents, with drifters.

    Attributes:
        currents: the archive.
        seed: of releases and noise; every pair has a generator of its own.
        memory_mb: of fields that are held at a time, MB; the pairs do not depend on it.
        tile_points: H = W, rows and columns of a tile.
        tile_stride: points from one tile to the next.
        minimum_wet: smallest share of water of a tile.
        window_steps: T, times of a window; drifters move from the first to the last.
        window_stride: times from one training window to the next.
        test_fraction: last part of the time axis, for testing.
        gap_days: smallest time between training and test, days.
        max_gap_hours: longest time from one known current to the next that is bridged, hours; None: three intervals of
            the fields.
        num_drifters: D, released in a tile at uniformly random places in water.
        num_releases: pairs of every tile and window.
        record_s: seconds between two recorded positions.
        step_s: seconds of a step of the integrator.
        land: ``freeze`` or ``drop``, see :func:`pcl.problems.ocean.drifters.advect`.
        halo_degrees: how far from its tile a drifter is followed, within the grid.
        noise_m: standard deviation of the noise of recorded positions, m.

    Raises:
        BadInputError: grid, times and settings do not fit together.
    """

    currents: Currents
    seed: int
    memory_mb: float
    tile_points: int
    tile_stride: int
    minimum_wet: float
    window_steps: int
    window_stride: int
    test_fraction: float
    gap_days: float
    num_drifters: int
    num_releases: int
    record_s: float
    step_s: float
    land: str
    halo_degrees: float
    noise_m: float
    max_gap_hours: float | None = None

    def __post_init__(self) -> None:
        try:
            _ = self.windows, self.num_records  # they raise what does not fit
            rows, columns = union_box(self.tiles, self.tile_points)
            check_regular(self.currents.latitude[rows], self.currents.longitudes(columns))
            self._check_gap()
            needed = max(self._slab_bytes(tile[None]) for tile in self.tiles) / MEGABYTE
            if needed > self.memory_mb:
                raise BadInputError(
                    f"build.memory_mb={self.memory_mb:g} and a tile with its halo needs {needed:.2g} MB, of which "
                    f"{self._chunk_bytes / MEGABYTE:.2g} MB are chunks of the files: give at least that, choose "
                    "smaller tiles, windows or halo_degrees, or rechunk the files"
                )
        except BadInputError as error:
            raise BadInputError(f"{_some(self.currents.paths)}: {error}") from error
        rows, _ = self._with_halo(rows, columns)
        check_speeds(self.currents, rows, self.step_s, self.record_s)
        if self._survey.gaps > 0:
            self.statistics()  # it raises where tiles have no current in the training period

    def _check_gap(self) -> None:
        if self.max_gap_hours is not None and self.max_gap_hours * HOUR_S > self.gap_days * DAY_S:
            raise BadInputError(
                f"data.ocean.max_gap_hours={self.max_gap_hours:g} is longer than data.ocean.gap_days="
                f"{self.gap_days:g}: bridges must not reach from training to test, choose fewer hours"
            )

    @property
    def _survey(self) -> Survey:
        assert self.currents.survey is not None, "pairs are cut from currents of which every step has been looked at"
        return self.currents.survey

    @cached_property
    def tiles(self) -> np.ndarray:
        """First row and column of every tile, shape (tiles, 2)."""
        currents = self.currents
        return cut_tiles(currents.wet, self.tile_points, self.tile_stride, self.minimum_wet, currents.is_periodic)

    @cached_property
    def windows(self) -> dict[str, np.ndarray]:
        """First time index of every window of each split."""
        return cut_windows(
            self.currents.time_s,
            self.window_steps,
            self.window_stride,
            self.test_fraction,
            self.gap_days,
            self.currents.precision_s,
        )

    @property
    def _longest_gap_s(self) -> float:
        if self.max_gap_hours is None:
            return min(GAP_INTERVALS * self.interval_s, self.gap_days * DAY_S)
        return self.max_gap_hours * HOUR_S

    @property
    def _margin(self) -> int:
        """Time steps beyond a window that may hold an end of a gap."""
        return math.ceil(self._longest_gap_s / self.interval_s) - 1 if self._survey.gaps > 0 else 0

    @property
    def interval_s(self) -> float:
        """Seconds between two fields."""
        return regular_interval(self.currents.time_s)

    @property
    def duration_s(self) -> float:
        """Seconds of a window, from its first field to its last."""
        return (self.window_steps - 1) * self.interval_s

    @property
    def num_records(self) -> int:
        """P, recorded positions of a drifter."""
        return 1 + count_steps(self.duration_s, self.interval_s, self.record_s, self.step_s)[0]

    @property
    def arrays(self) -> dict[str, ArrayInfo]:
        """The arrays of a pair."""
        window = (self.window_steps, self.tile_points, self.tile_points)
        missing = "water or no value" if self._survey.gaps > 0 else "water"
        return {
            "u": ArrayInfo(
                "float32",
                (2, *window),
                "m s-1",
                "eastward_sea_water_velocity and northward_sea_water_velocity at (time, latitude, longitude), both "
                f"ascending; NaN where there is no {missing}",
                statistics="channel",
            ),
            "wet": ArrayInfo("uint8", window, "1", "1 where there is water", statistics="none"),
            "v": ArrayInfo(
                "float32",
                (self.num_drifters, self.num_records, 4),
                "degree",
                "drifters: degrees east of the centre of the tile, degrees north of it, latitude, and 1 once aground; "
                "NaN where a drifter is missing",
                statistics="none",
            ),
            "origin": ArrayInfo(
                "float64",
                (6,),
                "1",
                "time of release (s since 1970-01-01), longitude and latitude of the centre of the tile (degrees), row "
                "and column of its first point and time index of the window in the archive",
                statistics="none",
            ),
        }

    @property
    def split_rule(self) -> str:
        """How training and test are kept apart."""
        ends = self.currents.time_s[self.windows["train"][-1] + self.window_steps - 1]
        gap = (self.currents.time_s[self.windows["test"][0]] - ends) / DAY_S
        return (
            f"by time: training windows end {gap:g} days (at least {self.gap_days:g}) before the first test window; "
            f"test windows lie in the last {self.test_fraction:g} of the time axis and do not overlap"
        )

    def provenance(self) -> dict[str, Any]:
        """Return files (names and bytes, not folders), product, licence, times, grid, and what encoders need."""
        latitude, longitude = self.currents.latitude, self.currents.longitude
        cell = [float(np.median(np.diff(latitude))), float(np.median(np.diff(longitude)))]
        paths = self.currents.paths
        product = product_of(paths[0])
        return {
            "name": "ocean",
            "files": list_files(paths),
            "product": product,
            "licence": product.pop("licence"),
            "calendar": self.currents.calendar,
            "time": {
                "first_s": float(self.currents.time_s[0]),
                "last_s": float(self.currents.time_s[-1]),
                "steps": len(self.currents.time_s),
                "interval_s": self.interval_s,
            },
            "grid": {"latitude": latitude.tolist(), "longitude": longitude.tolist(), "cell_degrees": cell}
            | ({"periodic": True} if self.currents.is_periodic else {}),
            "drifters": {
                "num_drifters": self.num_drifters,
                "record_s": self.record_s,
                "step_s": self.step_s,
                "duration_s": self.duration_s,
                "window_time_s": [step * self.interval_s for step in range(self.window_steps)],
                "cell_degrees": cell,
                "height": self.tile_points,
                "width": self.tile_points,
                "metres_per_degree": METRES_PER_DEGREE,
                "land": self.land,
                "noise_m": self.noise_m,
            },
        }

    @property
    def _pairs_per_window(self) -> int:
        return len(self.tiles) * self.num_releases

    def num_pairs(self, split: str) -> int:
        """Return the number of pairs of a split."""
        return len(self.windows[split]) * self._pairs_per_window

    def pairs(self, split: str, start: int, stop: int) -> Arrays:
        """Read the slabs that a range of pairs needs, one after another, and release its drifters."""
        parts = [self._of_slab(split, numbers) for numbers in self._slabs(start, stop)]
        return {name: np.concatenate([part[name] for part in parts]) for name in self.arrays}

    def _tiles_of(self, numbers: np.ndarray) -> np.ndarray:
        tiles: np.ndarray = self.tiles[numbers % self._pairs_per_window // self.num_releases]
        return tiles

    def _slabs(self, start: int, stop: int) -> Iterator[np.ndarray]:
        """Cut a range of pairs where the window changes, and where the slab of its tiles would outgrow the memory."""
        first = start
        for number in range(start + 1, stop):
            together = np.arange(first, number + 1)
            if number % self._pairs_per_window == 0 or self._slab_bytes(self._tiles_of(together)) > self._memory:
                yield together[:-1]
                first = number
        yield np.arange(first, stop)

    @property
    def _memory(self) -> float:
        return self.memory_mb * MEGABYTE

    def _slab_bytes(self, tiles: np.ndarray) -> int:
        rows, columns = self._with_halo(*union_box(tiles, self.tile_points))
        times = self.window_steps + 2 * max(self._margin, 0)
        slab = times * (rows.stop - rows.start) * (columns.stop - columns.start)
        return int(BYTES_PER_POINT * slab + self._chunk_bytes)

    @cached_property
    def _chunk_bytes(self) -> int:
        """Bytes of the chunks of the files that the readers hold at a time."""
        return NUM_READERS * BYTES_PER_CHUNK_POINT * math.prod(self.currents.chunk_shape)

    def _with_halo(self, rows: slice, columns: slice) -> tuple[slice, slice]:
        """Return the rows and columns within the halo around a box."""
        halo = self.halo_degrees + 1e-9  # grids carry rounding
        boxes = [self._along(self.currents.latitude, rows, halo)]
        if self.currents.is_periodic:
            cells = int(halo / np.median(np.diff(self.currents.longitude)))
            boxes.append(slice(columns.start - cells, columns.stop + cells))
        else:
            boxes.append(self._along(self.currents.longitude, columns, halo))
        return boxes[0], boxes[1]

    @staticmethod
    def _along(axis: np.ndarray, box: slice, halo: float) -> slice:
        """Return the range of an ascending axis within the halo around a box."""
        low, high = axis[box.start] - halo, axis[box.stop - 1] + halo
        return slice(int(np.searchsorted(axis, low)), int(np.searchsorted(axis, high, "right")))

    def _load(self, times: slice, rows: slice, columns: slice) -> np.ndarray:
        with dask.config.set(num_workers=NUM_READERS):
            return self.currents.load(times, rows, columns)

    def _bridged(self, first: int, rows: slice, columns: slice, water: np.ndarray) -> np.ndarray:
        """Return the fields of a window with what is missing for a moment interpolated in time."""
        before = min(self._margin, first)
        times = slice(first - before, min(first + self.window_steps + self._margin, len(self.currents.time_s)))
        field = self._load(times, rows, columns)
        if self._survey.gaps > 0:
            field = bridge(field, self.currents.time_s[times], water, self._longest_gap_s)
        return field[:, before : before + self.window_steps]

    def _of_slab(self, split: str, numbers: np.ndarray) -> Arrays:
        """Return pairs of one window."""
        first = int(self.windows[split][numbers[0] // self._pairs_per_window])
        tiles = self._tiles_of(numbers)
        rows, columns = self._with_halo(*union_box(tiles, self.tile_points))
        water = self._water(rows, columns)
        field = self._bridged(first, rows, columns, water)
        known = np.isfinite(field).all(0)
        field[:, ~known] = np.nan  # one NaN of the many, and both components
        generators = [np.random.default_rng([self.seed, SPLITS.index(split), number]) for number in numbers.tolist()]
        corner = np.array([rows.start, columns.start])
        inside = [union_box(tile[None] - corner, self.tile_points) for tile in tiles]
        starts = [
            release(generator, known[0, *box], *self._axes(tile), self.num_drifters)
            for generator, tile, box in zip(generators, tiles.tolist(), inside, strict=True)
        ]
        paths, aground = self._follow(field, water, rows, columns, tiles, np.stack(starts))
        centres = np.stack([self._centre(tile) for tile in tiles.tolist()])
        return {
            "u": np.stack([field[:, :, *box] for box in inside]),
            "wet": np.stack([np.stack([water[box]] * self.window_steps) for box in inside]).astype(np.uint8),
            "v": self._observe(generators, paths, aground, centres),
            "origin": np.column_stack(
                [np.full(len(tiles), self.currents.time_s[first]), centres, tiles, np.full(len(tiles), first)]
            ).astype(np.float64),
        }

    def _centre(self, tile: tuple[int, int]) -> np.ndarray:
        """Return the longitude and latitude of the centre of a tile."""
        latitude, longitude = self._axes(tile)
        return np.array([longitude[[0, -1]].mean(), latitude[[0, -1]].mean()])

    def _axes(self, tile: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
        """Return the latitudes and longitudes of a tile, degrees."""
        row, column = tile
        return (
            self.currents.latitude[row : row + self.tile_points],
            self.currents.longitudes(slice(column, column + self.tile_points)),
        )

    def _water(self, rows: slice, columns: slice) -> np.ndarray:
        """Return the water mask of a box."""
        wet = self.currents.wet[rows]
        blocks = as_slices(columns, wet.shape[1], self.currents.is_periodic)
        return np.concatenate([wet[:, block] for block in blocks], axis=1)

    def _follow(
        self,
        field: np.ndarray,
        water: np.ndarray,
        rows: slice,
        columns: slice,
        tiles: np.ndarray,
        starts: np.ndarray,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return positions, shape (pairs, D, P, 2), and whether they are aground, shape (pairs, D, P)."""
        halos = [self._with_halo(*union_box(tile[None], self.tile_points)) for tile in tiles]
        edges = [
            [(self.currents.longitudes(box[1])[end], self.currents.latitude[box[0]][end]) for box in halos]
            for end in (0, -1)
        ]
        lower, upper = (torch.tensor(edge).repeat_interleave(self.num_drifters, 0) for edge in edges)
        paths, aground = advect(
            torch.from_numpy(field),
            self.interval_s * torch.arange(self.window_steps, dtype=torch.float64),
            torch.tensor(self.currents.latitude[rows]),
            torch.tensor(self.currents.longitudes(columns)),
            torch.from_numpy(starts.reshape(-1, 2)),
            step_s=self.step_s,
            record_s=self.record_s,
            land=self.land,
            bounds=(lower, upper),
            water=torch.from_numpy(water),
        )
        shape = (len(tiles), self.num_drifters, self.num_records)
        return paths.numpy().reshape(*shape, 2), aground.numpy().reshape(shape)

    def _observe(
        self, generators: list[np.random.Generator], paths: np.ndarray, aground: np.ndarray, centres: np.ndarray
    ) -> np.ndarray:
        """Return the array v: positions with noise, relative to the centres of the tiles, latitude, aground."""
        if self.noise_m > 0:
            noise = np.stack([generator.normal(size=paths.shape[1:]) for generator in generators])
            parallel = np.cos(np.radians(paths[..., 1:]))
            scale = np.concatenate([parallel, np.ones_like(parallel)], -1) * METRES_PER_DEGREE / self.noise_m
            paths = paths + noise / scale
        flag = np.where(np.isnan(paths[..., :1]), np.nan, aground[..., None])
        return np.concatenate([paths - centres[:, None, None], paths[..., 1:], flag], -1).astype(np.float32)

    def statistics(self) -> dict[str, dict[str, Any]]:
        """Return mean and standard deviation of u over the water of all tiles in the training period, in float64.

        Every field is summed by itself and the sums are added exactly, so the result does not depend on how many
        fields are read at a time.
        """
        rows, columns = union_box(self.tiles, self.tile_points)
        used = np.zeros((rows.stop - rows.start, columns.stop - columns.start), bool)
        for tile in self.tiles - [rows.start, columns.start]:
            used[union_box(tile[None], self.tile_points)] = True
        if self.currents.is_periodic:  # beyond the seam are columns that have been counted
            num_columns = len(self.currents.longitude)
            over = used[:, num_columns:]
            used[:, : over.shape[1]] |= over
            used, columns = used[:, :num_columns], slice(columns.start, columns.start + min(num_columns, used.shape[1]))
        stop = int(self.windows["train"][-1]) + self.window_steps
        at_once = max(1, int((self._memory - self._chunk_bytes) / (BYTES_PER_POINT * used.size)))
        sums = []
        for first in range(0, stop, at_once):
            fields = self._load(slice(first, min(first + at_once, stop)), rows, columns)
            sums += [_sums(field[:, used]) for field in fields.swapaxes(0, 1)]
        count, *rest = (math.fsum(column) for column in zip(*sums, strict=True))
        if count == 0:
            raise BadInputError(
                f"{_some(self.currents.paths)}: no tile has a current in the training period: give more fields, or "
                "choose other tiles or another test_fraction"
            )
        mean, square = np.array(rest[:2]) / count, np.array(rest[2:]) / count
        std = np.sqrt(np.maximum(square - mean**2, 0))
        return {"u": {"mean": mean.reshape(2, 1, 1, 1).tolist(), "std": std.reshape(2, 1, 1, 1).tolist()}}

    def memory_of_task(self, record_pairs: int) -> float:
        """Return the bytes of fields that writing records of so many pairs holds at a time."""
        last = self._pairs_per_window
        ranges = [(start, min(start + record_pairs, last)) for start in range(0, last, record_pairs)]
        return max(self._slab_bytes(self._tiles_of(numbers)) for pair in ranges for numbers in self._slabs(*pair))

    def describe(self) -> list[str]:
        """Return what the archive is, what of it is left out or missing, and which of its time is used, as lines."""
        steps = {
            split: np.unique(first[:, None] + np.arange(self.window_steps)) for split, first in self.windows.items()
        }
        return [*describe_archive(self.currents, self._longest_gap_s), describe_use(self.currents, steps)]

    def chunk_advice(self) -> str:
        """Return whether the chunks of the files suit tiles and windows."""
        return chunk_advice(self.currents, self.window_steps, self.tile_points)


def _sums(field: np.ndarray) -> list[float]:
    """Return the number of points in water, the sums of both components, and of their squares."""
    values = field[:, np.isfinite(field).all(0)].astype(np.float64)
    return [values.shape[1], *values.sum(1).tolist(), *np.square(values).sum(1).tolist()]


def _some(names: Sequence[str]) -> str:
    return f"{names[0]} and {len(names) - 1} more" if len(names) > 1 else names[0]
