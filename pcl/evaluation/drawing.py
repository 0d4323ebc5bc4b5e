"""Drawings of items: how a picture shows them, several on one scale, the first to compare with.

Shapes: N items, C channels of height H and width W, texts of T bytes.
"""

__all__ = ["FIRST", "PLAIN", "Drawing", "by_form", "draw_tracks", "images", "numbers", "paths", "texts", "vectors"]

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor

from pcl.evaluation.written import drawn_text, fitted_text, text_of

PLAIN, GHOST, LINE = "0.75", "0.72", "#2b5c8a"
FIRST = "{first}"  # in a caption: what the item is that is drawn first, and the others are compared with
LEAST_CHANNELS = 3  # of an image in colour: red, green, blue


@dataclass(frozen=True)
class Drawing:
    """How the items of one modality are drawn.

    Attributes:
        draw: called with matplotlib axes and as many indices of items, shape (n,); the first item is the one that the
            others are compared with.
        captions: what is to be known of such a picture, phrases; see ``FIRST``.
        small: makes small pictures, called with indices of items and a height and width: grey levels from 0 (white) to
            1, shape (n, height, width), or (n, 3, height, width) of red, green and blue; None: there are none.
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


def images(items: Tensor, *, ink: bool = True) -> Drawing:
    """Items (N, H, W) or (N, C, H, W) as images, on one scale: three channels or more are red, green and blue first.

    Args:
        items: integers of 8 bits from black to full light, or numbers on a scale of their own.
        ink: whether grey levels are ink, 0 is white; else they are light, 0 is black.
    """
    *_, height, width = items.shape
    if items.ndim == 3 and ink:
        return Drawing(
            lambda axes, shown: _draw_grey(axes, items[shown]),
            small=lambda shown, shape: _resized(items[shown] / (float(items[shown].max()) or 1.0), shape),
            shape=(height, width),
        )

    def draw(axes: Sequence[Any], shown: Tensor) -> None:
        for axis, item in zip(axes, _light(items[shown]), strict=True):
            axis.imshow(item.movedim(0, -1).expand(-1, -1, LEAST_CHANNELS))

    def small(shown: Tensor, shape: tuple[int, int]) -> Tensor:
        dark = 1 - _light(items[shown])
        return _resized(dark if dark.shape[1] == LEAST_CHANNELS else dark[:, 0], shape)

    return Drawing(draw, small=small, shape=(height, width))


def _draw_grey(axes: Sequence[Any], chosen: Tensor) -> None:
    low, high = _range(chosen)
    for axis, item in zip(axes, chosen, strict=True):
        axis.imshow(item, cmap="gray_r", vmin=low, vmax=high)


def _light(items: Tensor) -> Tensor:
    """Return images from 0 (black) to 1 of one channel or three, shape (n, 1 or 3, H, W); what is missing is black."""
    items = items[:, None] if items.ndim == 3 else items
    items = items[:, :LEAST_CHANNELS] if items.shape[1] >= LEAST_CHANNELS else items[:, :1]
    low, high = (0.0, 255.0) if items.dtype == torch.uint8 else _range(items)
    return ((items.float() - low) / ((high - low) or 1.0)).nan_to_num(0, 0, 0).clamp(0, 1)


def _resized(pictures: Tensor, shape: tuple[int, int]) -> Tensor:
    """Return pictures (n, ..., H, W) in another height and width."""
    if tuple(pictures.shape[-2:]) == shape:
        return pictures
    with_channels = pictures[:, None] if pictures.ndim == 3 else pictures
    found = torch.nn.functional.interpolate(with_channels.float(), shape, mode="bilinear", antialias=True)
    return found.view(*pictures.shape[:-2], *shape).clamp(0, 1)


def _range(items: Tensor) -> tuple[float, float]:
    """Return the least and the largest of the values that are finite, 0 and 0 where there are none."""
    values = items[items.isfinite()]
    return (float(values.min()), float(values.max())) if len(values) else (0.0, 0.0)


def texts(items: Tensor) -> Drawing:
    """Items (N, T) as the texts that they are: bytes of UTF-8 that end in zeros, or numbers of tokens."""

    def draw(axes: Sequence[Any], shown: Tensor) -> None:
        for axis, item in zip(axes, items[shown], strict=True):
            text, size = fitted_text(text_of(item))
            style = {"ha": "center", "va": "center", "fontsize": size, "parse_math": False}
            axis.text(0.5, 0.5, text, transform=axis.transAxes, **style)
            axis.set_box_aspect(1)

    def small(shown: Tensor, shape: tuple[int, int]) -> Tensor:
        return torch.stack([drawn_text(text_of(item), *shape) for item in items[shown]])

    return Drawing(draw, small=small)


def vectors(items: Tensor) -> Drawing:
    """Items of any shape as lines over their components."""

    def draw(axes: Sequence[Any], shown: Tensor) -> None:
        chosen = items[shown].flatten(1)
        low, high = _range(chosen)
        margin = 0.08 * (high - low) or 1.0
        for number, (axis, item) in enumerate(zip(axes, chosen, strict=True)):
            style = {"marker": ".", "ms": 4} if len(item) <= 40 else {"lw": 0.8}
            if number:
                axis.plot(chosen[0], color=GHOST, lw=2.5, marker="o" if chosen.shape[1] == 1 else "")
            axis.plot(item, color=LINE, **style)
            axis.set_ylim(low - margin, high + margin)
            axis.set_box_aspect(1)
            _draw_axes(axis, chosen.shape[1], low, high, with_values=number == 0)

    what = "value" if items.flatten(1).shape[1] == 1 else "line"
    return Drawing(draw, (f"{what}s over the number of the component", f"grey behind a {what}: {FIRST}"))


def _draw_axes(axis: Any, num_components: int, low: float, high: float, *, with_values: bool) -> None:
    """Give a picture of a vector the numbers of its first and last component, and the first one a scale of values."""
    axis.set_xticks(sorted({0, num_components - 1}))
    axis.tick_params(labelsize=6, length=2, pad=1)
    if with_values:
        axis.set_yticks(sorted({low, high}), [f"{value:.3g}" for value in sorted({low, high})])


def by_form(form: str, items: Tensor) -> Drawing:
    """Items of a form, ``numbers``, ``image``, ``labels`` or ``text``, as one draws those.

    Args:
        form: of the modality; an image of another shape than (H, W) or (C, H, W) is drawn as numbers.
        items: as stored, shape (N, ...).

    Example:
        >>> by_form("image", torch.zeros(2, 3, 32, 48, dtype=torch.uint8)).shape
        (32, 48)
    """
    if items.ndim == 1:
        return numbers(items)
    if form == "image" and items.ndim in (3, 4):
        return images(items, ink=False)
    return texts(items) if form == "text" and items.ndim == 2 else vectors(items)


def paths(items: Tensor) -> Drawing:
    """Items (N, P, 2) as paths in the plane."""
    captions = ("dot: where a path begins", f"grey behind a path: {FIRST}")
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
