r"""Velocities along drifter tracks, and the raster of them.

A displacement between two recorded positions is a velocity, by the metre of a degree that moved the drifter:

.. math:: u = R \cos\bar\varphi\, \Delta\lambda / \Delta t, \qquad v = R\, \Delta\varphi / \Delta t

Longitudes are known up to whole turns: tracks in 0..360 and an archive in -180..180, or a track that jumps at the
dateline, mean the same places. What is east of a tile's centre is brought to -180..180 here, and nowhere else.

Shapes: B pairs, D drifters, P positions, S = (P - 1) // stride segments, T times, H x W grid points.
"""

__all__ = ["DrifterRaster", "Pieces", "Segments", "track_pieces", "track_segments", "within_half_turn"]

import itertools
from typing import NamedTuple

import torch
from torch import Tensor, nn

from pcl.problems.ocean.contract import DrifterFacts, Position
from pcl.problems.ocean.sphere import METRES_PER_DEGREE
from pcl.problems.ocean.tiles import DAY_S


class Segments(NamedTuple):
    """Pieces of tracks: velocity (..., S, 2) in m/s, middle (..., S, 2) in degrees east and north, valid (..., S)."""

    velocity: Tensor
    middle: Tensor
    valid: Tensor


class Pieces(NamedTuple):
    """Pieces of tracks as ``Segments``, with their middle in time (..., S) and their duration (..., S), in seconds."""

    velocity: Tensor
    middle: Tensor
    valid: Tensor
    time_s: Tensor
    duration_s: Tensor


def within_half_turn(degrees: Tensor) -> Tensor:
    """Return degrees of longitude in -180..180; those that lie there are the same to the bit, NaN stays.

    Args:
        degrees: of any shape and floating dtype.

    Example:
        >>> within_half_turn(torch.tensor([-180.0, 0.3, 180.0, 190.0, -359.5, 720.25]))
        tensor([-180.0000,    0.3000,  180.0000, -170.0000,    0.5000,    0.2500])
    """
    return torch.where(degrees.abs() > 180, torch.remainder(degrees + 180, 360) - 180, degrees)


def track_segments(drifters: Tensor, record_s: float, stride: int = 1) -> Segments:
    """Return the mean velocities between recorded positions, where they were measured, and which are measurements.

    A piece with a missing end, or with an end aground, is none: its velocity and place are zero. Longitudes count up
    to whole turns.

    Args:
        drifters: degrees east and north of the tile's centre, latitude, aground flag, shape (..., P, 4).
        record_s: seconds between two positions.
        stride: positions in a piece.

    Example:
        >>> track = torch.tensor([[0.0, 0.0, 60.0, 0.0], [0.02, 0.0, 60.0, 0.0], [0.02, 0.0, 60.0, 1.0]])
        >>> pieces = track_segments(track, record_s=1111.2)
        >>> pieces.velocity, pieces.valid
        (tensor([[1.0000, 0.0000], [0.0000, 0.0000]]), tensor([ True, False]))
    """
    track = drifters[..., ::stride, :]
    return _between(track[..., :-1, :], track[..., 1:, :], stride * record_s)


def track_pieces(drifters: Tensor, record_s: float, stride: int = 1, longest: int | None = None) -> Pieces:
    """Return the mean velocities between recorded positions of tracks in which positions are missing.

    A piece goes from a known position to the first known one that lies far enough behind; there the next one starts.
    Where none is missing, pieces are those of ``track_segments``.

    Args:
        drifters: as for ``track_segments``, shape (..., P, 4).
        record_s: seconds between two positions.
        stride: positions that a piece goes on, at least.
        longest: at most: a longer one is a gap, over which a mean says little; None: any.

    Returns:
        Pieces by their end, S = P - 1.

    Example:
        >>> track = torch.tensor([[0.0, 0.0, 60.0, 0.0], [torch.nan] * 4, [0.04, 0.0, 60.0, 0.0]])
        >>> pieces = track_pieces(track, record_s=1111.2)
        >>> pieces.velocity, pieces.valid, pieces.duration_s[1]
        (tensor([[0.0000, 0.0000],
                [1.0000, 0.0000]]), tensor([False,  True]), tensor(2222.4000, dtype=torch.float64))
    """
    known = torch.isfinite(drifters).all(-1)
    num_positions = known.shape[-1]
    longest = num_positions if longest is None else longest
    nowhere = torch.full_like(known[..., 0], -1, dtype=torch.long)
    start, last, starts = nowhere, nowhere, []
    for end in range(num_positions):
        gap = known[..., end] & (end - last > longest)
        long_enough = known[..., end] & ~gap & (start >= 0) & (end - start >= stride)
        starts.append(torch.where(long_enough & (end - start <= longest), start, -1))
        start = torch.where(gap | long_enough | (known[..., end] & (start < 0)), end, start)
        last = torch.where(known[..., end], end, last)
    first = torch.stack(starts[1:], -1)
    steps = (torch.arange(1, num_positions, device=first.device) - first).double()
    index = first.clamp(min=0)[..., None].expand(*first.shape, drifters.shape[-1])
    found = _between(drifters.gather(-2, index), drifters[..., 1:, :], (steps * record_s).to(drifters))
    valid = found.valid & (first >= 0)
    velocity, middle = (torch.where(valid[..., None], part, 0.0) for part in (found.velocity, found.middle))
    return Pieces(velocity, middle, valid, (first + steps / 2) * record_s, steps * record_s)


def _between(before: Tensor, after: Tensor, duration_s: float | Tensor) -> Segments:
    """Return the pieces from some positions to others, (..., S, 4) each, that take some seconds, (..., S)."""
    moved, middle = after - before, Position.of((after + before) / 2)
    start = within_half_turn(Position.of(before).east)
    end = _nearest_turn(start, within_half_turn(Position.of(after).east))
    cosine = torch.cos(torch.deg2rad(middle.latitude))
    metres = torch.stack([(end - start) * cosine, Position.of(moved).north], -1) * METRES_PER_DEGREE
    place = torch.stack([(end + start) / 2, middle.north], -1)
    valid = torch.isfinite(moved).all(-1) & (middle.aground == 0)
    speed = metres / (duration_s[..., None] if isinstance(duration_s, Tensor) else duration_s)
    return Segments(torch.where(valid[..., None], speed, 0.0), torch.where(valid[..., None], place, 0.0), valid)


def _nearest_turn(start: Tensor, end: Tensor) -> Tensor:
    """Return the longitudes at the end, as near to the start as whole turns allow."""
    step = end - start
    return torch.where(step.abs() > 180, start + within_half_turn(step), end)


class DrifterRaster(nn.Module):
    r"""Scatter drifter velocities on the grid of their window: the mean velocity of every grid point, and its weight.

    .. math:: m_g = \sum_j w_{gj} u_j / \sum_j w_{gj}, \qquad n_g = \sum_j w_{gj} \Delta t / \tau

    The weights w are those of linear interpolation in time, latitude and longitude, so the scatter is the adjoint of
    sampling the field. The grid has a margin around the tile; what was measured beyond it is left out. Pieces go on
    over positions that are missing, for a day at most and a seventh of shorter windows.

    Args:
        drifters: how they were released, and the size of the tile.
        num_positions: P.
        margin: points of the grid around the tile.

    Example:
        >>> facts = DrifterFacts(3600.0, (0.0, 86400.0), cell_degrees=(0.25, 0.25), height=16, width=16)
        >>> DrifterRaster(facts, 25)(torch.zeros(2, 5, 25, 4)).shape
        torch.Size([2, 3, 2, 24, 24])
    """

    half_index: Tensor

    def __init__(self, drifters: DrifterFacts, num_positions: int, margin: int = 4) -> None:
        super().__init__()
        self.record_s, self.cell_degrees = drifters.record_s, drifters.cell_degrees
        times = torch.tensor(drifters.window_time_s, dtype=torch.float64)
        self.shape = (len(times), drifters.height + 2 * margin, drifters.width + 2 * margin)
        halves = torch.arange(2 * num_positions - 1, dtype=torch.float64) / 2 * self.record_s
        index = _fractional_index(times, halves).to(torch.get_default_dtype())
        self.register_buffer("half_index", index, persistent=False)  # of positions, and of the middles between two
        length_s = drifters.window_time_s[-1] - drifters.window_time_s[0]
        self.longest = max(1, int(min(DAY_S, length_s / 7) / self.record_s))
        self.share = self.record_s * (len(times) - 1) / length_s if len(times) > 1 else 1.0

    def forward(self, drifters: Tensor) -> Tensor:
        """Map tracks (B, D, P, 4) to mean eastward and northward velocity (m/s) and weight, shape (B, 3, T, H', W')."""
        pieces = track_pieces(drifters, self.record_s, longest=self.longest)
        centre = pieces.middle.new_tensor([(size - 1) / 2 for size in self.shape[1:]])
        cells = pieces.middle.new_tensor(self.cell_degrees)
        place = pieces.middle.flip(-1) / cells + centre  # rows follow latitude, columns longitude
        halves = (2 * pieces.time_s / self.record_s).round().long().clamp(min=0)
        index = torch.cat([self.half_index[halves].to(place)[..., None], place], -1)
        records = torch.where(pieces.valid, pieces.duration_s / self.record_s, 0.0).round().to(place)[..., None]
        values = torch.cat([pieces.velocity, torch.ones_like(records)], -1) * records
        sums = _scatter(index.flatten(1, 2), values.flatten(1, 2), self.shape)
        weight = sums[..., 2:]
        mean = sums[..., :2] / torch.where(weight > 0, weight, 1.0)
        return torch.cat([mean, weight * self.share], -1).movedim(-1, 1)


def _fractional_index(grid: Tensor, values: Tensor) -> Tensor:
    """Return where values lie among increasing grid values, in units of the index; beyond the ends, the ends."""
    if len(grid) == 1:
        return torch.zeros_like(values)
    left = (torch.searchsorted(grid, values, right=True) - 1).clamp(0, len(grid) - 2)
    return left + ((values - grid[left]) / (grid[left + 1] - grid[left])).clamp(0, 1)


def _scatter(index: Tensor, values: Tensor, shape: tuple[int, int, int]) -> Tensor:
    """Add values (B, n, C) to the eight grid points around fractional indices (B, n, 3); shape (B, T, H, W, C)."""
    num_items, num_channels = values.shape[0], values.shape[-1]  # len() would tie an exported program to a batch
    total = values.new_zeros(num_items * shape[0] * shape[1] * shape[2], num_channels)
    lower = index.floor()
    upper_share = index - lower
    sizes = torch.tensor(shape, device=values.device)
    item = torch.arange(num_items, device=values.device)[:, None] * (shape[0] * shape[1] * shape[2])
    for corner in itertools.product((0, 1), repeat=3):
        above = torch.tensor(corner, device=values.device)
        share = torch.where(above.bool(), upper_share, 1 - upper_share).prod(-1)
        point = lower.long() + above
        share = share * ((point >= 0) & (point < sizes)).all(-1)
        point = point.clamp(torch.zeros_like(sizes), sizes - 1)
        flat = item + (point[..., 0] * shape[1] + point[..., 1]) * shape[2] + point[..., 2]
        total.index_add_(0, flat.flatten(), (values * share[..., None]).flatten(0, 1))
    return total.reshape(num_items, *shape, num_channels)
