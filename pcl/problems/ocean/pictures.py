"""How ocean pairs are drawn: currents as arrows over their speed, drifters as tracks.

Shapes: N items, n of them drawn, T times, H x W grid points, D drifters, P positions.
"""

__all__ = ["currents", "tracks"]

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pcl.evaluation.drawing import Drawing, draw_tracks
from pcl.problems.ocean.contract import Position
from pcl.problems.ocean.evaluation.background import paint
from pcl.problems.ocean.tracks import within_half_turn


def currents(items: Tensor, wet: Tensor) -> Drawing:
    """Windows of velocity as the speed in their middle, with arrows of its direction over it; land is painted.

    Args:
        items: m/s, NaN where there is no value, shape (N, 2, T, H, W).
        wet: where there is water, boolean, shape (N, T, H, W).
    """
    middle = items.shape[2] // 2
    velocity, water = items[:, :, middle], wet[:, middle]
    captions = ["arrows and colour: direction and speed in the middle of the window"]
    captions += ["brown: land"] * (not bool(water.all()))
    captions += ["hatched: water without a value"] * bool((velocity.isnan().any(1) & water).any())
    return Drawing(lambda axes, shown: _draw_currents(axes, velocity[shown], water[shown]), tuple(captions))


def tracks(items: Tensor) -> Drawing:
    """Drifters as their tracks in degrees from the centre of the tile, with a point where each was released.

    Args:
        items: as stored, shape (N, D, P, 4).
    """

    def draw(axes: Sequence[Any], shown: Tensor) -> None:
        drifters = Position.of(items[shown])
        draw_tracks(axes, torch.stack([within_half_turn(drifters.east), drifters.north], -1))

    return Drawing(draw, ("dot: where a drifter was released", "grey behind tracks: {first}"))


def _draw_currents(axes: Sequence[Any], velocity: Tensor, water: Tensor) -> None:
    """Draw velocities (n, 2, H, W) on one scale; land where there is no water, shape (n, H, W)."""
    speed = velocity.norm(dim=1)
    fast = float(speed.nan_to_num(0).max()) or 1.0
    step = max(1, round(velocity.shape[-1] / 7))
    y, x = (np.arange(size)[step // 2 :: step] for size in velocity.shape[-2:])
    for axis, field, values, wet in zip(axes, velocity, speed, water, strict=True):
        paint(axis, wet)
        axis.imshow(values, origin="lower", cmap="viridis", vmin=0, vmax=fast, zorder=1)
        east, north = field[:, step // 2 :: step, step // 2 :: step].numpy()
        axis.quiver(x, y, east, north, color="white", scale=9 * fast, width=0.012, pivot="mid", alpha=0.9, zorder=3)
