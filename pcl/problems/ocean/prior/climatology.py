r"""Climatology on the grid of an archive, and that of a training window without the time around it.

The mean and the standard deviation of currents at every grid point, from sums by blocks of time: without some of the
blocks they are those of the rest. A prior that is learned around a climatology that knows the very window forgets how
wrong a climatology is.

Shapes: B blocks of time, R x X points of the grid, n places, T x H x W points of a window.
"""

__all__ = ["ClimatologySums", "GridClimatology"]

from dataclasses import dataclass

import torch
from torch import Tensor

from pcl.data.loader import iterate_split
from pcl.data.manifest import Manifest
from pcl.problems.ocean.contract import ArchiveFacts, Origin, read_facts
from pcl.problems.ocean.prior.averages import Averages
from pcl.problems.ocean.tiles import DAY_S
from pcl.storage.place import Place

BLOCKS, BLOCKS_A_WINDOW = 64, 4  # of time: at most, and in the length of a window
SUMS_BYTES = 250_000_000  # at most, of all blocks: fewer where the grid is large
SUMS = 5  # of a point: how many, two components, and their squares


@dataclass(frozen=True, eq=False)
class GridClimatology:
    """Mean and standard deviation of currents on a grid.

    Attributes:
        latitude: increasing, degrees north, shape (R,).
        longitude: increasing, degrees east, shape (X,).
        mean: m/s, eastward and northward, NaN where nothing is known, shape (2, R, X).
        std: likewise.
        spans_s: begin and end of the time over which they were taken, seconds since 1970-01-01, shape (P, 2); None:
            that is not known.
        whole_s: length of the period that this time is part of, s.

    Example:
        >>> grid = torch.tensor([[0.0, 1.0], [0.0, 1.0]], dtype=torch.float64).expand(2, 2, 2)
        >>> axes = torch.tensor([30.0, 31.0]), torch.tensor([359.0, 360.0])
        >>> GridClimatology(*axes, grid, grid).at(torch.tensor([30.5, 33.0]), torch.tensor([-0.25, 0.0]))
        (tensor([[0.7500,    nan],
                [0.7500,    nan]], dtype=torch.float64), tensor([0.8660,    nan], dtype=torch.float64))
    """

    latitude: Tensor
    longitude: Tensor
    mean: Tensor
    std: Tensor
    spans_s: Tensor | None = None
    whole_s: float = 0.0

    def averages(self, time_s: float) -> Averages | None:
        """Return the time over which the mean was taken, in days from another; None: that is not known."""
        if self.spans_s is None:
            return None
        return Averages((self.spans_s - time_s) / DAY_S, self.whole_s / DAY_S / 2)

    def at(self, latitude: Tensor, longitude: Tensor) -> tuple[Tensor, Tensor]:
        """Return the mean, m/s, shape (2, n), and the amplitude at places, interpolated linearly.

        The amplitude is the root of the mean variance of the two components, m/s, shape (n,). Points without a value
        are left out; half a cell beyond the grid its edge goes on, and further away nothing is known: NaN.

        Args:
            latitude: degrees north, shape (n,).
            longitude: degrees east, by whole turns as one likes, shape (n,).
        """
        rows, columns, weights = self._corners(latitude.double(), longitude.double())
        values = torch.cat([self.mean, self.std.square().mean(0, keepdim=True)])[:, rows, columns]  # (3, 4, n)
        weights = torch.where(torch.isfinite(values).all(0), weights, 0.0)
        found = (values.nan_to_num() * weights).sum(1) / weights.sum(0)
        return found[:2], found[2].sqrt()

    def _corners(self, latitude: Tensor, longitude: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return rows, columns and weights of the four points around places, shape (4, n) each."""
        axis, size = self.longitude.double(), len(self.longitude)
        cell = axis.diff().median() if size > 1 else torch.tensor(1.0)
        around = size > 1 and bool((axis[-1] - axis[0] + cell - 360).abs() < cell / 2)
        if around:
            axis = torch.cat([axis, axis[:1] + 360])
        middle = (axis[0] + axis[-1]) / 2
        longitude = longitude + 360 * torch.round((middle - longitude) / 360)
        row, up, of_row = _between(self.latitude.double(), latitude)
        column, right, of_column = _between(axis, longitude)
        rows = torch.stack([row, row, row + of_row, row + of_row])
        columns = torch.stack([column, column + of_column, column, column + of_column]) % size
        weights = torch.stack([(1 - up) * (1 - right), (1 - up) * right, up * (1 - right), up * right])
        return rows, columns, weights.nan_to_num()


def _between(axis: Tensor, values: Tensor) -> tuple[Tensor, Tensor, int]:
    """Return the index below values, their share of the way to the next, NaN beyond the axis, and the step to it."""
    if len(axis) == 1:
        near = (values - axis[0]).abs() <= 0.5
        return torch.zeros(len(values), dtype=torch.long), torch.where(near, 0.0, torch.nan), 0
    below = (torch.searchsorted(axis, values.contiguous(), right=True) - 1).clamp(0, len(axis) - 2)
    share = (values - axis[below]) / (axis[below + 1] - axis[below])
    return below, torch.where((share >= -0.5) & (share <= 1.5), share.clamp(0, 1), torch.nan), 1


@dataclass(frozen=True, eq=False)
class ClimatologySums:
    """Sums of currents at every grid point by blocks of time.

    Attributes:
        latitude: degrees north, shape (R,).
        longitude: degrees east, shape (X,).
        first_s: time at which the first block begins, seconds since 1970-01-01.
        block_s: length of a block, s.
        sums: number of values, sums of both components, and of their squares, shape (B, 5, R, X).
    """

    latitude: Tensor
    longitude: Tensor
    first_s: float
    block_s: float
    sums: Tensor

    @classmethod
    def of(cls, root: Place, manifest: Manifest, split: str = "train") -> "ClimatologySums":
        """Read the sums of a split from its shards, record by record.

        Args:
            root: folder of the shards.
            manifest: its manifest.
            split: which split.

        Raises:
            DamagedDataError: a shard differs from its manifest.
        """
        facts = read_facts(manifest.source, ArchiveFacts, root / "manifest.json")
        time_s = torch.tensor(facts.drifters.window_time_s, dtype=torch.float64)
        latitude, longitude = (torch.tensor(axis).double() for axis in (facts.grid.latitude, facts.grid.longitude))
        releases = [Origin.of(o).release_s for (o,) in iterate_split(root, manifest, split, ("origin",))]
        release_s = torch.cat(releases)
        first_s, last_s = float(release_s.min() + time_s[0]), float(release_s.max() + time_s[-1])
        points = len(latitude) * len(longitude)
        most = min(BLOCKS, max(2, SUMS_BYTES // (SUMS * 8 * points)))
        length_s = max(float(time_s[-1] - time_s[0]), 1.0)
        number = min(most, max(2, round(BLOCKS_A_WINDOW * (last_s - first_s) / length_s)))
        block_s = max((last_s - first_s) / number, 1.0)
        sums = torch.zeros(number * SUMS * points, dtype=torch.float64)
        found = cls(latitude, longitude, first_s, block_s, sums.reshape(number, SUMS, len(latitude), len(longitude)))
        for u, origin in iterate_split(root, manifest, split, ("u", "origin")):
            found._add(u, origin, time_s)
        return found

    def _add(self, u: Tensor, origin: Tensor, time_s: Tensor) -> None:
        """Add windows (N, 2, T, H, W)."""
        place = Origin.of(origin)
        num_rows, num_columns = u.shape[3:]
        block = self._block(place.release_s[:, None] + time_s)[:, :, None, None]
        row = (place.row.long()[:, None] + torch.arange(num_rows))[:, None, :, None]
        column = (place.column.long()[:, None] + torch.arange(num_columns))[:, None, None, :] % len(self.longitude)
        size_rows, size_columns = self.sums.shape[2:]
        index = block * SUMS * size_rows * size_columns + row * size_columns + column
        known = torch.isfinite(u).all(1)
        values = u.double()
        flat = self.sums.view(-1)
        parts = (torch.ones_like(values[:, 0]), *values.unbind(1), *values.square().unbind(1))
        for number, part in enumerate(parts):
            flat.index_add_(0, index[known] + number * size_rows * size_columns, part[known])

    def _block(self, time_s: Tensor) -> Tensor:
        return ((time_s - self.first_s) / self.block_s).long().clamp(0, len(self.sums) - 1)

    def whole(self) -> GridClimatology:
        """Return the climatology of all blocks."""
        return self._of(torch.ones(len(self.sums), dtype=torch.bool))

    def without(self, first_s: float, last_s: float, gap_s: float) -> GridClimatology:
        """Return the climatology without the time around a window, though half of all blocks stay.

        Args:
            first_s: time of the window's first field, seconds since 1970-01-01.
            last_s: of its last field.
            gap_s: time before and after that is left out too, s.
        """
        starts = self.first_s + self.block_s * torch.arange(len(self.sums), dtype=torch.float64)
        apart = torch.maximum(starts - last_s, first_s - (starts + self.block_s)).clamp(min=0)
        kept = torch.ones(len(self.sums), dtype=torch.bool)
        nearest = apart.argsort(stable=True)[: len(self.sums) // 2]
        kept[nearest[apart[nearest] <= gap_s]] = False
        return self._of(kept)

    def _of(self, kept: Tensor) -> GridClimatology:
        number, *rest = self.sums[kept].sum(0)
        number = number.where(number > 0, torch.nan)
        mean, square = torch.stack(rest[:2]) / number, torch.stack(rest[2:]) / number
        std = (square - mean.square()).clamp(min=0).sqrt()
        return GridClimatology(self.latitude, self.longitude, mean, std, self._spans(kept), self.block_s * len(kept))

    def _spans(self, kept: Tensor) -> Tensor:
        """Return begin and end of the runs of blocks that are kept, seconds since 1970-01-01, shape (P, 2)."""
        change = torch.nn.functional.pad(kept.long(), (1, 1)).diff()
        edges = torch.stack([(change == 1).nonzero()[:, 0], (change == -1).nonzero()[:, 0]], 1)
        return self.first_s + self.block_s * edges.double()
