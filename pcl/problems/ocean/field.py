"""Encoders of a window of a velocity field and of the drifters in it: one trunk on what is known at every grid point.

Both see, at every time and grid point, an eastward and a northward velocity and how much is known of them: the water
mask for a field, the weight of the measurements for drifters. Land and places without drifters hold zeros that the
mask tells from calm water.

Shapes: B pairs, T times, H x W grid points, D drifters, P positions, E embedding.
"""

__all__ = ["DrifterSet", "Field"]

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from pcl.encoders.convnet import ResidualBlock, group_norm
from pcl.errors import BadInputError
from pcl.problems.ocean.contract import DrifterFacts, read_facts
from pcl.problems.ocean.tracks import DrifterRaster

VELOCITY_SCALE_M_S = 0.5  # drifter velocities over this are of order one in boundary currents
POOLED = 4  # rows and columns that reach the last layer: an average over all places would forget where things are


def _trunk(channels: int, grid: Sequence[int], embedding_dim: int, width: int, depth: int) -> nn.Sequential:
    """Return a network from (B, channels, H, W) to (B, E): stages that halve the grid and double the channels."""
    if width < 1 or depth < 0 or 2**depth > min(grid):
        raise BadInputError(
            f"model.field_network: width={width} and depth={depth} on a grid of {grid[0]} x {grid[1]} points: the "
            "width must be at least 1, the depth at least 0, and each stage halves the grid, choose fewer"
        )
    layers: list[nn.Module] = [nn.Conv2d(channels, width, 3, padding=1)]
    for stage in range(depth):
        inner = width * 2**stage
        layers += [ResidualBlock(inner), nn.Conv2d(inner, 2 * inner, 3, stride=2, padding=1)]
    last = width * 2**depth
    layers += [ResidualBlock(last), group_norm(last), nn.SiLU(), nn.AdaptiveAvgPool2d(POOLED), nn.Flatten()]
    return nn.Sequential(*layers, nn.Linear(last * POOLED**2, embedding_dim))


class Field(nn.Module):
    """Encoder of a velocity window: a residual network over the grid, with the times as channels.

    Args:
        shape: of an item, (2, T, H, W): eastward and northward velocity, standardised; NaN where there is no water or
            no value.
        embedding_dim: E.
        width: channels of the first stage.
        depth: stages; each halves the grid and doubles the channels.

    Raises:
        BadInputError: the shape is not that of a window of velocities.

    Example:
        >>> Field((2, 3, 16, 16), 8, width=4, depth=2)(torch.full((5, 2, 3, 16, 16), torch.nan)).shape
        torch.Size([5, 8])
    """

    may_be_missing = True

    def __init__(self, shape: Sequence[int], embedding_dim: int, *, width: int, depth: int) -> None:
        super().__init__()
        if len(shape) != 4 or shape[0] != 2:
            raise BadInputError(
                f"the field encoder takes velocity windows of shape (2, times, rows, columns), not {tuple(shape)}: "
                "choose another encoder"
            )
        self.trunk = _trunk(3 * shape[1], shape[2:], embedding_dim, width, depth)

    def forward(self, u: Tensor) -> Tensor:
        """Map (B, 2, T, H, W) to (B, E)."""
        wet = torch.isfinite(u).all(1, keepdim=True)
        known = torch.cat([torch.where(wet, u, 0.0), wet.to(u.dtype)], 1)
        embedding: Tensor = self.trunk(known.flatten(1, 2))
        return embedding


class DrifterSet(nn.Module):
    """Encoder of drifters as a set: the raster of their velocities, a sum over drifters, then the network of a field.

    Args:
        shape: of an item, (D, P, 4): degrees east and north of the tile's centre, latitude, aground flag; NaN where
            a drifter is missing.
        embedding_dim: E.
        width: channels of the first stage.
        depth: stages; each halves the grid and doubles the channels.
        drifters: ``DrifterFacts``, as the manifest holds them.

    Raises:
        BadInputError: the shape is not that of drifters, or there is no piece of a track.
        DamagedDataError: a fact is missing or impossible.

    Example:
        >>> about = {"record_s": 3600.0, "window_time_s": [0.0, 86400.0], "cell_degrees": [0.25, 0.25],
        ...     "height": 16, "width": 16}
        >>> DrifterSet((5, 25, 4), 8, width=4, depth=2, drifters=about)(torch.zeros(3, 5, 25, 4)).shape
        torch.Size([3, 8])
    """

    may_be_missing = True

    def __init__(
        self, shape: Sequence[int], embedding_dim: int, *, width: int, depth: int, drifters: Mapping[str, Any]
    ) -> None:
        super().__init__()
        if len(shape) != 3 or shape[2] != 4 or shape[1] < 2:
            raise BadInputError(
                "the drifter_set encoder takes tracks of shape (drifters, two positions or more, 4), not "
                f"{tuple(shape)}: choose another encoder"
            )
        self.raster = DrifterRaster(read_facts(drifters, DrifterFacts), shape[1])
        self.trunk = _trunk(3 * self.raster.shape[0], self.raster.shape[1:], embedding_dim, width, depth)

    def forward(self, v: Tensor) -> Tensor:
        """Map (B, D, P, 4) to (B, E)."""
        known = self.raster(v)
        scaled = torch.cat([known[:, :2] / VELOCITY_SCALE_M_S, known[:, 2:]], 1)
        embedding: Tensor = self.trunk(scaled.flatten(1, 2))
        return embedding
