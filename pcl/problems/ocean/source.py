"""Pairs of an ocean model or of altimetry: the currents of a tile over a window of time, and drifters released in it.

Pairs are numbered window by window, in a window tile by tile, in a tile release by release, so that consecutive pairs
share a slab of the archive, which is read once. What a pair holds depends on its number and the settings only: not on
the slab, the task or the memory.

Where values are missing for longer than is bridged, the current is NaN and drifters are lost. On a periodic grid
drifters cross the seam.

Shapes: D drifters, P recorded positions, T times, H x W points of a tile (H = W), Y x X points of a slab.
"""

__all__ = ["OceanSource", "ocean_source"]

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pcl.data.manifest import SPLITS, ArrayInfo
from pcl.data.source import Arrays, Source, SourceContext
from pcl.errors import BadInputError
from pcl.problems.ocean.archive import list_files, product_of
from pcl.problems.ocean.contract import (
    ArchiveFacts,
    DrifterFacts,
    GridFacts,
    Origin,
    Position,
    TimeFacts,
    arrays_of_pairs,
    written,
)
from pcl.problems.ocean.currents import Currents
from pcl.problems.ocean.cutting import BYTES_PER_POINT, Box, Cutting
from pcl.problems.ocean.drifters import advect, count_steps, release
from pcl.problems.ocean.moments import moments
from pcl.problems.ocean.reading.file import Reading
from pcl.problems.ocean.real_tracks import received, slips
from pcl.problems.ocean.reanalysis import chunk_advice, open_currents
from pcl.problems.ocean.settings import DriftersSettings, OceanSettings
from pcl.problems.ocean.sphere import METRES_PER_DEGREE
from pcl.problems.ocean.suitability import check_regular, check_speeds
from pcl.problems.ocean.summary import describe_archive, describe_use
from pcl.problems.ocean.tiles import DAY_S

MEGABYTE = 1e6
SLIP, RECEPTION = 1, 2  # streams of random numbers of a pair, beside that of its releases and noise


def ocean_source(settings: OceanSettings, context: SourceContext) -> "OceanSource":
    """Open the files that settings name, look through them, and return where their pairs come from.

    Args:
        settings: of the archive, its tiles and windows, and the drifters.
        context: with the seed of releases and noise, and the memory for fields.

    Raises:
        BadInputError: files, grid, times and settings do not fit together.
        DamagedDataError: a file cannot be read.
    """
    currents = open_currents(
        settings.paths,
        **{part.name: getattr(settings, part.name) for part in fields(Reading)},
        every_step=True,
        memory_mb=context.memory_mb,
        progress=context.progress,
        copies=context.copies,
    )
    return OceanSource(currents, settings, context.seed, context.memory_mb)


@dataclass(frozen=True, eq=False)
class OceanSource(Source):
    """Tiles and windows of gridded currents, with drifters.

    Attributes:
        currents: the archive.
        settings: how tiles, windows and drifters are chosen in it.
        seed: of releases and noise; every pair has a generator of its own.
        memory_mb: of fields that are held at a time, MB; the pairs do not depend on it.

    Raises:
        BadInputError: grid, times and settings do not fit together.
    """

    currents: Currents
    settings: OceanSettings
    seed: int
    memory_mb: float

    def __post_init__(self) -> None:
        cut, drifters = self.cut, self.drifters
        try:
            _ = cut.windows, self.num_positions  # they raise what does not fit
            check_regular(*cut.axes(cut.box(cut.tiles)))
            cut.check_gap()
            needed = max(cut.slab_bytes(tile[None]) for tile in cut.tiles) / MEGABYTE
            if needed > self.memory_mb:
                raise BadInputError(
                    f"build.memory_mb={self.memory_mb:g} and a tile with its halo needs {needed:.2g} MB, of which "
                    f"{cut.chunk_bytes / MEGABYTE:.2g} MB are chunks of the files: give at least that, choose "
                    "smaller tiles, windows or halo_degrees, or rechunk the files"
                )
        except BadInputError as error:
            raise BadInputError(f"{_some(self.currents.paths)}: {error}") from error
        rows, _ = cut.box_with_halo(cut.tiles)
        check_speeds(self.currents, rows, drifters.step_s, drifters.record_s)
        if cut.has_gaps:
            self.statistics()  # it raises where tiles have no current in the training period

    @cached_property
    def cut(self) -> Cutting:
        """Where tiles and windows lie."""
        return Cutting(self.currents, self.settings)

    @property
    def drifters(self) -> DriftersSettings:
        """How drifters are released and followed."""
        return self.settings.drifters

    @property
    def num_positions(self) -> int:
        """P, recorded positions of a drifter."""
        cut, drifters = self.cut, self.drifters
        return 1 + count_steps(cut.duration_s, cut.interval_s, drifters.record_s, drifters.step_s)[0]

    @property
    def arrays(self) -> dict[str, ArrayInfo]:
        """The arrays of a pair."""
        return arrays_of_pairs(
            self.drifters.num_drifters,
            self.num_positions,
            self.settings.window_steps,
            self.settings.tile_points,
            self.cut.has_gaps,
        )

    @property
    def split_rule(self) -> str:
        """How training and test are kept apart."""
        time_s, windows, chosen = self.currents.time_s, self.cut.windows, self.settings
        gap = (time_s[windows["test"][0]] - time_s[windows["train"][-1] + chosen.window_steps - 1]) / DAY_S
        return (
            f"by time: training windows end {gap:g} days (at least {chosen.gap_days:g}) before the first test window; "
            f"test windows lie in the last {chosen.test_fraction:g} of the time axis and do not overlap"
        )

    def provenance(self) -> dict[str, Any]:
        """Return files (names and bytes, not folders), product, licence, times, grid, and what encoders need."""
        paths = self.currents.paths
        product = product_of(paths[0])
        of_files = {"files": list_files(paths), "product": product, "licence": product.pop("licence")}
        return {"name": "ocean"} | of_files | written(self._facts)

    @property
    def _facts(self) -> ArchiveFacts:
        currents, cut, chosen, drifters = self.currents, self.cut, self.settings, self.drifters
        latitude, longitude, time_s = (
            axis.tolist() for axis in (currents.latitude, currents.longitude, currents.time_s)
        )
        cell = float(np.median(np.diff(latitude))), float(np.median(np.diff(longitude)))
        return ArchiveFacts(
            calendar=currents.calendar,
            time=TimeFacts(time_s[0], time_s[-1], len(time_s), cut.interval_s),
            grid=GridFacts(tuple(latitude), tuple(longitude), cell, currents.is_periodic),
            drifters=DrifterFacts(
                num_drifters=drifters.num_drifters,
                record_s=drifters.record_s,
                step_s=drifters.step_s,
                duration_s=cut.duration_s,
                window_time_s=tuple(step * cut.interval_s for step in range(chosen.window_steps)),
                cell_degrees=cell,
                height=chosen.tile_points,
                width=chosen.tile_points,
                metres_per_degree=METRES_PER_DEGREE,
                land=drifters.land,
                noise_m=drifters.noise_m,
            ),
        )

    @property
    def pairs_per_window(self) -> int:
        """Pairs of all tiles and releases of a window."""
        return len(self.cut.tiles) * self.drifters.num_releases

    def num_pairs(self, split: str) -> int:
        """Return the number of pairs of a split."""
        return len(self.cut.windows[split]) * self.pairs_per_window

    def pairs(self, split: str, start: int, stop: int) -> Arrays:
        """Read the slabs that a range of pairs needs, one after another, and release its drifters."""
        parts = [self._of_slab(split, numbers) for numbers in self._slabs(start, stop)]
        return {name: np.concatenate([part[name] for part in parts]) for name in self.arrays}

    def _tiles_of(self, numbers: np.ndarray) -> np.ndarray:
        tiles: np.ndarray = self.cut.tiles[numbers % self.pairs_per_window // self.drifters.num_releases]
        return tiles

    def _slabs(self, start: int, stop: int) -> Iterator[np.ndarray]:
        """Cut a range of pairs where the window changes, and where the slab of its tiles would outgrow the memory."""
        first = start
        for number in range(start + 1, stop):
            together = np.arange(first, number + 1)
            too_large = self.cut.slab_bytes(self._tiles_of(together)) > self.memory_mb * MEGABYTE
            if number % self.pairs_per_window == 0 or too_large:
                yield together[:-1]
                first = number
        yield np.arange(first, stop)

    def _of_slab(self, split: str, numbers: np.ndarray) -> Arrays:
        """Return pairs of one window."""
        cut, tiles = self.cut, self._tiles_of(numbers)
        first = int(cut.windows[split][numbers[0] // self.pairs_per_window])
        box = cut.box_with_halo(tiles)
        water = cut.water(box)
        field = cut.bridged(first, box, water)
        known = np.isfinite(field).all(0)
        field[:, ~known] = np.nan  # one NaN of the many, and both components
        generators = self._generators(split, numbers)
        corner = np.array([box[0].start, box[1].start])
        inside = [cut.box(tile[None] - corner) for tile in tiles]
        axes = [cut.axes(cut.box(tile[None])) for tile in tiles]
        starts = [
            release(generator, known[0, *where], *of_tile, self.drifters.num_drifters)
            for generator, of_tile, where in zip(generators, axes, inside, strict=True)
        ]
        slip = self._slips(split, numbers)
        paths, aground = self._follow(field, water, box, tiles, np.stack(starts), slip)
        paths = np.where(self._received(split, numbers)[..., None], paths, np.nan)
        north, east = np.array([[axis[[0, -1]].mean() for axis in of_tile] for of_tile in axes]).T
        release_s, step = np.full(len(tiles), self.currents.time_s[first]), np.full(len(tiles), first)
        origin = Origin(release_s, east, north, tiles[:, 0], tiles[:, 1], step)
        wet = [np.stack([water[where]] * self.settings.window_steps) for where in inside]
        return {
            "u": np.stack([field[:, :, *where] for where in inside]),
            "wet": np.stack(wet).astype(np.uint8),
            "v": self._observe(generators, paths, aground, np.stack([east, north], -1)),
            "origin": np.column_stack(origin).astype(np.float64),
        }

    def _generators(self, split: str, numbers: np.ndarray, *stream: int) -> list[np.random.Generator]:
        """Return a generator of every pair, which depends on its number only."""
        return [np.random.default_rng([self.seed, SPLITS.index(split), n, *stream]) for n in numbers.tolist()]

    def _slips(self, split: str, numbers: np.ndarray) -> Tensor | None:
        """Return velocities through the water, shape (pairs * D, S, 2), None where drifters go with it."""
        num_steps = round(self.cut.duration_s / self.drifters.step_s)
        drawn = [slips(generator, self.drifters, num_steps) for generator in self._generators(split, numbers, SLIP)]
        found = [one for one in drawn if one is not None]
        return torch.from_numpy(np.concatenate(found)) if found else None

    def _received(self, split: str, numbers: np.ndarray) -> np.ndarray:
        """Return which positions are received, shape (pairs, D, P)."""
        generators = self._generators(split, numbers, RECEPTION)
        return np.stack([received(generator, self.drifters, self.num_positions) for generator in generators])

    def _follow(
        self,
        field: np.ndarray,
        water: np.ndarray,
        box: Box,
        tiles: np.ndarray,
        starts: np.ndarray,
        slip: Tensor | None,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return positions, shape (pairs, D, P, 2), and whether they are aground, shape (pairs, D, P)."""
        halos = [self.cut.axes(self.cut.box_with_halo(tile[None])) for tile in tiles]
        num_drifters = self.drifters.num_drifters
        edges = [[(east[end], north[end]) for north, east in halos] for end in (0, -1)]
        lower, upper = (torch.tensor(edge).repeat_interleave(num_drifters, 0) for edge in edges)
        latitude, longitude = map(torch.tensor, self.cut.axes(box))
        paths, aground = advect(
            torch.from_numpy(field),
            self.cut.interval_s * torch.arange(self.settings.window_steps, dtype=torch.float64),
            latitude,
            longitude,
            torch.from_numpy(starts.reshape(-1, 2)),
            step_s=self.drifters.step_s,
            record_s=self.drifters.record_s,
            land=self.drifters.land,
            bounds=(lower, upper),
            water=torch.from_numpy(water),
            slip=slip,
        )
        shape = (len(tiles), num_drifters, self.num_positions)
        return paths.numpy().reshape(*shape, 2), aground.numpy().reshape(shape)

    def _observe(
        self, generators: list[np.random.Generator], paths: np.ndarray, aground: np.ndarray, centres: np.ndarray
    ) -> np.ndarray:
        """Return the array v: positions with noise, relative to the centres of the tiles, latitude, aground."""
        if self.drifters.noise_m > 0:
            noise = np.stack([generator.normal(size=paths.shape[1:]) for generator in generators])
            parallel = np.cos(np.radians(paths[..., 1:]))
            metres = np.concatenate([parallel, np.ones_like(parallel)], -1) * METRES_PER_DEGREE
            paths = paths + noise / (metres / self.drifters.noise_m)
        flag = np.where(np.isnan(paths[..., 0]), np.nan, aground)
        east, north = np.moveaxis(paths - centres[:, None, None], -1, 0)
        return np.stack(Position(east, north, paths[..., 1], flag), -1).astype(np.float32)

    def statistics(self) -> dict[str, dict[str, Any]]:
        """Return mean and standard deviation of u over the water of all tiles in the training period, in float64."""
        cut = self.cut
        box, used = cut.used()
        stop = int(cut.windows["train"][-1]) + self.settings.window_steps
        at_once = max(1, int((self.memory_mb * MEGABYTE - cut.chunk_bytes) / (BYTES_PER_POINT * used.size)))
        blocks = (cut.load(slice(first, min(first + at_once, stop)), box) for first in range(0, stop, at_once))
        found = moments(field[:, used] for block in blocks for field in block.swapaxes(0, 1))
        if found is None:
            raise BadInputError(
                f"{_some(self.currents.paths)}: no tile has a current in the training period: give more fields, or "
                "choose other tiles or another test_fraction"
            )
        mean, std = (part.reshape(2, 1, 1, 1).tolist() for part in found)
        return {"u": {"mean": mean, "std": std}}

    def notes(self, record_pairs: int) -> list[str]:
        """Return the memory of a task, whether the chunks of the files suit, and what the archive is, as lines."""
        fields_mb = self.memory_of_task(record_pairs) / MEGABYTE
        return [
            f"memory of a task beside that: {fields_mb:.1f} MB of fields (at most build.memory_mb={self.memory_mb:g})",
            chunk_advice(self.currents, self.settings.window_steps, self.settings.tile_points),
            *describe_archive(self.currents, self.cut.longest_gap_s),
            describe_use(self.currents, {split: self.cut.steps_of(split) for split in SPLITS}),
        ]

    def memory_of_task(self, record_pairs: int) -> float:
        """Return the bytes of fields that writing records of so many pairs holds at a time."""
        last = self.pairs_per_window
        ranges = [(start, min(start + record_pairs, last)) for start in range(0, last, record_pairs)]
        return max(self.cut.slab_bytes(self._tiles_of(numbers)) for pair in ranges for numbers in self._slabs(*pair))


def _some(names: Sequence[str]) -> str:
    return f"{names[0]} and {len(names) - 1} more" if len(names) > 1 else names[0]
