"""Windows of ocean velocity and the drifters in them, read from shards, with the geometry of their tiles.

Shapes: N windows, T times, H x W grid points, D drifters, P positions, X columns of the grid.
"""

__all__ = ["Archive", "Geometry", "Windows", "read_archive"]

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pcl.data.manifest import Manifest
from pcl.evaluation.blocks import Items
from pcl.evaluation.splits import Splits, read_arrays
from pcl.problems.ocean.contract import ArchiveFacts, Origin, read_facts
from pcl.problems.ocean.evaluation.stored import StoredItems
from pcl.problems.ocean.tiles import DAY_S
from pcl.storage.place import Place


class _InTiles:
    """Windows that lie in tiles: ``origin`` says where, float64, shape (N, 6)."""

    origin: Tensor

    @property
    def tiles(self) -> Tensor:
        """Number the tiles, shape (N,): equal numbers are the same row and column of the grid."""
        place = Origin.of(self.origin)
        return place.row.long() * 1_000_000 + place.column.long()  # a grid has fewer columns

    @property
    def tile_numbers(self) -> list[int]:
        """The numbers of the tiles that occur, increasing."""
        return sorted(set(self.tiles.tolist()))


@dataclass(frozen=True)
class Windows(_InTiles):
    """Windows of tiles.

    Attributes:
        u: velocity in m/s, NaN on land and where water has no value, float32, shape (N, 2, T, H, W).
        v: degrees east and north of the tile's centre, latitude, aground flag, float32, shape (N, D, P, 4).
        wet: water, the same at all times, boolean, shape (N, T, H, W).
        origin: ``pcl.problems.ocean.contract.Origin``, float64, shape (N, 6).
    """

    u: Tensor
    v: Tensor
    wet: Tensor
    origin: Tensor

    @classmethod
    def of(cls, splits: Splits) -> "Windows":
        """Take the pairs that are judged."""
        arrays = splits.arrays
        return cls(arrays["u"], arrays["v"], arrays["wet"].bool(), arrays["origin"])

    def __len__(self) -> int:
        return len(self.u)

    def __getitem__(self, index: Tensor | slice) -> "Windows":
        return Windows(self.u[index], self.v[index], self.wet[index], self.origin[index])


@dataclass(frozen=True)
class Archive(_InTiles):
    """The fields of the past, each once, and the drifters in a few of them.

    Attributes:
        u: as in ``Windows``, shape (N, 2, T, H, W): held, or read from the shards where they are asked for.
        origin: likewise, shape (N, 6).
        examples: indices of the windows whose drifters are kept, shape (n,).
        v: drifters in these, shape (n, D, P, 4).
    """

    u: Items
    origin: Tensor
    examples: Tensor
    v: Tensor

    def __len__(self) -> int:
        return len(self.u)


def _each_once(root: Place, manifest: Manifest, split: str) -> Tensor:
    """Return the index of the first pair of every tile and time: releases share their field."""
    pairs = torch.arange(manifest.num_pairs(split))
    origin = Origin.of(read_arrays(root, manifest, split, {"origin": pairs})["origin"])
    windows = torch.stack([origin.row, origin.column, origin.first_step], 1).numpy()
    return torch.from_numpy(np.sort(np.unique(windows, axis=0, return_index=True)[1]))


def read_archive(root: Place, manifest: Manifest, num_examples: int) -> Archive:
    """Find the fields of the training split, each once, and read the drifters in a few of them.

    Args:
        root: folder of the shards.
        manifest: its manifest.
        num_examples: windows, evenly spread, whose drifters are kept.

    Raises:
        DamagedDataError: a shard differs from its manifest.
    """
    kept = _each_once(root, manifest, "train")
    examples = torch.linspace(0, len(kept) - 1, min(num_examples, len(kept))).long()
    found = read_arrays(root, manifest, "train", {"origin": kept, "v": kept[examples]})
    return Archive(StoredItems(root, manifest, "train", "u", kept), **found, examples=examples)


@dataclass(frozen=True)
class Geometry:
    """Where the points of a tile lie, in space and in time.

    Attributes:
        latitude: of the whole grid, degrees north, shape (rows,).
        longitude: of the whole grid, degrees east, shape (columns,).
        height: points of a tile in latitude.
        width: points of a tile in longitude.
        time_s: of the fields of a window, seconds after the release, shape (T,).
        cell_degrees: spacing of the grid in latitude and in longitude, degrees.
        record_s: seconds between two positions of a drifter.
        calendar: of the times, as in CF.
    """

    latitude: Tensor
    longitude: Tensor
    height: int
    width: int
    time_s: Tensor
    cell_degrees: tuple[float, float]
    record_s: float
    calendar: str

    @classmethod
    def of(cls, source: Mapping[str, Any], path: Place = Path("manifest.json")) -> "Geometry":
        """Read the geometry from what a manifest says of its source.

        Args:
            source: see above.
            path: of the manifest, for the message.

        Raises:
            DamagedDataError: a fact is missing or impossible.
        """
        facts = read_facts(source, ArchiveFacts, path)
        drifters = facts.drifters
        return cls(
            torch.tensor(facts.grid.latitude, dtype=torch.float64),
            torch.tensor(facts.grid.longitude, dtype=torch.float64),
            drifters.height,
            drifters.width,
            torch.tensor(drifters.window_time_s, dtype=torch.float64),
            drifters.cell_degrees,
            drifters.record_s,
            facts.calendar,
        )

    @property
    def interval_s(self) -> float:
        """Seconds between two fields, the shortest."""
        return float(self.time_s.diff().min()) if len(self.time_s) > 1 else DAY_S

    @property
    def duration_s(self) -> float:
        """Seconds from the first field of a window to the last."""
        return float(self.time_s[-1] - self.time_s[0])

    @property
    def scale_s(self) -> float:
        """A time in which currents of a window change little: a day, and a seventh of windows of some hours."""
        return min(DAY_S, max(self.interval_s, self.duration_s / 7))

    def axes(self, origin: Tensor) -> tuple[Tensor, Tensor]:
        r"""Return the latitudes (H,) and longitudes (W,) of a window's points, in degrees, both increasing.

        Those of a grid around the globe go on after its last column with the first, a turn further:
        :math:`\lambda_{i \bmod X} + 360 \lfloor i / X \rfloor`. Tiles of other grids end before.
        """
        place = Origin.of(origin)
        row, column = int(place.row), int(place.column)
        columns, size = torch.arange(column, column + self.width), len(self.longitude)
        return self.latitude[row : row + self.height], self.longitude[columns % size] + 360.0 * (columns // size)

    def area(self, origins: Tensor) -> Tensor:
        r"""Return weights in proportion to the area of the points, :math:`\cos\varphi`, shape (N, 1, 1, H, 1)."""
        latitude = torch.stack([self.axes(origin)[0] for origin in origins])
        return torch.cos(torch.deg2rad(latitude))[:, None, None, :, None]

    def index(self, time_s: Tensor, east: Tensor, north: Tensor) -> Tensor:
        """Return fractional indices (..., 3) of time, row and column of places in degrees from the tile's centre."""
        rows, columns = self.cell_degrees
        right = torch.searchsorted(self.time_s, time_s.contiguous(), right=True).clamp(1, max(len(self.time_s) - 1, 1))
        if len(self.time_s) == 1:
            time = torch.zeros_like(time_s)
        else:
            before, after = self.time_s[right - 1], self.time_s[right]
            time = right - 1 + (time_s - before) / (after - before)
        return torch.stack(
            [time.expand_as(east), north / rows + (self.height - 1) / 2, east / columns + (self.width - 1) / 2], -1
        )
