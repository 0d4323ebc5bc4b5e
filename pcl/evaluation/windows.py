"""Windows of ocean velocity and the drifters in them, read from shards, with the geometry of their tiles.

Shapes: N windows, T times, H x W grid points, D drifters, P positions.
"""

__all__ = ["Geometry", "Windows", "read_windows"]

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pcl.data.loader import iterate_split
from pcl.data.manifest import Manifest

RELEASE_S, LONGITUDE, LATITUDE, ROW, COLUMN, _ = range(6)  # the components of an origin


@dataclass(frozen=True)
class Windows:
    """Windows of tiles.

    Attributes:
        u: velocity in m/s, NaN where there is no water, float32, shape (N, 2, T, H, W).
        v: degrees east and north of the tile's centre, latitude, aground flag, float32, shape (N, D, P, 4).
        wet: boolean, shape (N, T, H, W).
        origin: release time in s, centre in degrees, first row, first column, first step, float64, shape (N, 6).
    """

    u: Tensor
    v: Tensor
    wet: Tensor
    origin: Tensor

    def __len__(self) -> int:
        return len(self.u)

    def __getitem__(self, index: Tensor | slice) -> "Windows":
        return Windows(self.u[index], self.v[index], self.wet[index], self.origin[index])

    @property
    def tiles(self) -> Tensor:
        """Number the tiles, shape (N,): equal numbers are the same row and column of the grid."""
        row, column = self.origin[:, ROW].long(), self.origin[:, COLUMN].long()
        return row * 1_000_000 + column  # a grid has fewer columns

    @property
    def tile_numbers(self) -> list[int]:
        """The numbers of the tiles that occur, increasing."""
        return sorted(set(self.tiles.tolist()))


def read_windows(root: Path, manifest: Manifest, split: str, *, unique: bool = False, max_pairs: int = 0) -> Windows:
    """Read a split into memory.

    Args:
        root: folder of the shards.
        manifest: its manifest.
        split: which split.
        unique: keep the first pair of every tile and time only: releases share their field.
        max_pairs: stop after so many pairs; 0: read all.

    Raises:
        DamagedDataError: a shard differs from its manifest.
    """
    parts: list[tuple[Tensor, ...]] = []
    seen: set[tuple[float, ...]] = set()
    for record in iterate_split(root, manifest, split, ("u", "v", "wet", "origin")):
        keys = [tuple(origin[ROW:].tolist()) for origin in record[3]]
        kept = [not (unique and (key in seen or key in keys[:i])) for i, key in enumerate(keys)]
        seen.update(keys)
        parts.append(tuple(array[torch.tensor(kept)] for array in record))
        if max_pairs and sum(len(part[0]) for part in parts) >= max_pairs:
            break
    u, v, wet, origin = (torch.cat(arrays) for arrays in zip(*parts, strict=True))
    windows = Windows(u, v, wet.bool(), origin)
    return windows[:max_pairs] if max_pairs else windows


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
    def of(cls, source: dict[str, Any]) -> "Geometry":
        """Read the geometry from what a manifest says of its source."""
        grid, drifters = source["grid"], source["drifters"]
        return cls(
            torch.tensor(grid["latitude"], dtype=torch.float64),
            torch.tensor(grid["longitude"], dtype=torch.float64),
            int(drifters["height"]),
            int(drifters["width"]),
            torch.tensor(drifters["window_time_s"], dtype=torch.float64),
            (float(drifters["cell_degrees"][0]), float(drifters["cell_degrees"][1])),
            float(drifters["record_s"]),
            str(source["calendar"]),
        )

    def axes(self, origin: Tensor) -> tuple[Tensor, Tensor]:
        """Return the latitudes (H,) and longitudes (W,) of a window's points, in degrees."""
        row, column = int(origin[ROW]), int(origin[COLUMN])
        return self.latitude[row : row + self.height], self.longitude[column : column + self.width]

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
