"""Drawings of items: how a picture shows them, several on one scale, the first to compare with.

Shapes: N items.
"""

__all__ = ["PLAIN", "Drawing", "draw_tracks", "images", "numbers", "paths", "vectors"]

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor

PLAIN, GHOST, LINE = "0.75", "0.72", "#2b5c8a"


@dataclass(frozen=True)
class Drawing:
    """How the items of one modality are drawn.

    Attributes:
        draw: called with matplotlib axes and as many indices of items, shape (n,); the first item is the one that the
            others are compared with.
        captions: what is to be known of such a picture, phrases.
        small: makes small pictures, called with indices of items and a height and width: grey levels from 0 (white) to
            1, shape (n, height, width); None: there are none.
        shape: height and width of the items, if they are pictures themselves.
    """

    draw: Callable[[Sequence[Any], Tensor], None]
    captions: tuple[str, ...] = ()
    small: Callable[[Tensor, tuple[int, int]], Tensor] | None = None
    shape: tuple[int, int] | None = None


def numbers(items: Tensor) -> Drawing:
    """Items (N,) as the numbers that they are."""

    def draw(axes: Sequence[Any], shown: Tensor) -> None:
        for axis, item in zip(axes, items[shown], strict=True):
            axis.text(0.5, 0.5, f"{item.item():g}", ha="center", va="center", fontsize=26, transform=axis.transAxes)
            axis.set_box_aspect(1)

    def small(shown: Tensor, shape: tuple[int, int]) -> Tensor:
        return torch.stack([_written(f"{item.item():g}", *shape) for item in items[shown]])

    return Drawing(draw, small=small)


def _written(text: str, height: int, width: int) -> Tensor:
    picture = Image.new("L", (width, height), 60)
    ImageDraw.Draw(picture).text((width / 2, height / 2), text, fill=255, anchor="mm", font_size=0.8 * height)
    return torch.from_numpy(np.asarray(picture, np.float32) / 255)


def images(items: Tensor) -> Drawing:
    """Items (N, H, W) as grey images, on one scale."""

    def draw(axes: Sequence[Any], shown: Tensor) -> None:
        chosen = items[shown]
        for axis, item in zip(axes, chosen, strict=True):
            axis.imshow(item, cmap="gray_r", vmin=chosen.min(), vmax=chosen.max())

    def small(shown: Tensor, shape: tuple[int, int]) -> Tensor:
        return items[shown] / (float(items[shown].max()) or 1.0)

    return Drawing(draw, small=small, shape=(items.shape[1], items.shape[2]))


def vectors(items: Tensor) -> Drawing:
    """Items of any shape as lines over their components."""

    def draw(axes: Sequence[Any], shown: Tensor) -> None:
        chosen = items[shown].flatten(1)
        margin = 0.08 * float(chosen.max() - chosen.min()) or 1.0
        for number, (axis, item) in enumerate(zip(axes, chosen, strict=True)):
            style = {"marker": ".", "ms": 4} if len(item) <= 40 else {"lw": 0.8}
            if number:
                axis.plot(chosen[0], color=GHOST, lw=2.5)
            axis.plot(item, color=LINE, **style)
            axis.set_ylim(float(chosen.min()) - margin, float(chosen.max()) + margin)
            axis.set_box_aspect(1)

    return Drawing(draw, ("grey behind lines: the partner",))


def paths(items: Tensor) -> Drawing:
    """Items (N, P, 2) as paths in the plane."""
    captions = ("dot: where the path begins; grey behind it: the partner",)
    return Drawing(lambda axes, shown: draw_tracks(axes, items[shown][:, None]), captions)


def draw_tracks(axes: Sequence[Any], items: Tensor) -> None:
    """Draw sets of paths (n, D, P, 2), one set an axis, with a point where each path begins."""
    flat = items.reshape(-1, 2).numpy()
    low, high = np.nanmin(flat, 0), np.nanmax(flat, 0)
    centre, reach = (low + high) / 2, 0.55 * float((high - low).max()) or 1.0
    for number, (axis, item) in enumerate(zip(axes, items.numpy(), strict=True)):
        for ghost in items[0].numpy() if number else ():
            axis.plot(*ghost.T, color=GHOST, lw=2.5, solid_capstyle="round")
        for i, track in enumerate(item):
            colour = LINE if len(item) == 1 else f"C{i % 10}"
            axis.plot(*track.T, color=colour, lw=1.2)
            axis.plot(*track[0], "o", color=colour, ms=3)
        axis.set(xlim=(centre[0] - reach, centre[0] + reach), ylim=(centre[1] - reach, centre[1] + reach))
        axis.set_box_aspect(1)
