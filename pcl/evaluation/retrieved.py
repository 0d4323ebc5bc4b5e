"""A few queries with their true partner and what they retrieve, drawn by the kind of their arrays.

Shapes: N pairs, F features.
"""

__all__ = ["retrieved_figure"]

import re
import textwrap
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

from pcl.evaluation.retrieval import identity_of
from pcl.problems.ocean.evaluation.background import paint
from pcl.problems.ocean.tracks import within_half_turn

NUM_RETRIEVED = 5
RIGHT, PLAIN, GHOST, LINE = "#1a9850", "0.75", "0.72", "#2b5c8a"
ROW_INCHES, TITLE_INCHES, LINE_INCHES = 1.75, 0.3, 0.17  # of a row of pictures, of a title, of each of its lines
CHARACTERS_PER_INCH = 13  # of a title
CAPTIONS = {  # what else is to be known of a kind of array
    "currents": "arrows and colour: direction and speed in the middle of the window",
    "tracks": "dot: where a drifter was released; grey behind tracks: the partner",
    "path": "dot: where the path begins; grey behind it: the partner",
    "vector": "grey behind lines: the partner",
}


def retrieved_figure(
    items: tuple[Tensor, Tensor],
    features: tuple[Tensor, Tensor],
    num_examples: int,
    meanings: Sequence[str] = ("", ""),
    wet: Tensor | None = None,
) -> Figure:
    """Draw, for queries of both directions, the query, its partner with its rank, and the best candidates in order.

    Equal candidates are shown once; those that occur as a partner of the query are framed.

    Args:
        items: stored u and v, shape (N, ...) each; item i of one is the partner of item i of the other.
        features: feature maps of both, shape (N, F) each.
        num_examples: queries of each direction, evenly spread over the distinct ones.
        meanings: of u and of v, whose first clauses are in the titles.
        wet: of currents, where there is water, shape (N, T, H, W).
    """
    ids = (identity_of(items[0]), identity_of(items[1]))
    distinct = [_first_of_each(part) for part in ids]
    counts = [min(num_examples, len(part)) for part in distinct]
    columns = 2 + min(NUM_RETRIEVED, *map(len, distinct))
    names = [": ".join(filter(None, (x, re.split("[;:]", text)[0]))) for x, text in zip("uv", meanings, strict=True)]
    width = 1.6 * columns
    titles = [
        _wrap(
            f"{names[query]}  \N{RIGHTWARDS ARROW}  {names[1 - query]} ({len(distinct[1 - query]):,} candidates)", width
        )
        for query in range(2)
    ]
    caption = _wrap("; ".join(["framed: a partner of the query", *_captions(items, wet)]), width)
    heights = [
        ROW_INCHES * count + TITLE_INCHES + LINE_INCHES * title.count("\n")
        for count, title in zip(counts, titles, strict=True)
    ]
    figure = Figure(figsize=(width, sum(heights) + LINE_INCHES * (2 + caption.count("\n"))), layout="constrained")
    blocks = figure.subfigures(2, 1, height_ratios=heights, squeeze=False)[:, 0]
    for block, query, candidate, count, title in zip(blocks, (0, 1), (1, 0), counts, titles, strict=True):
        known = distinct[candidate]
        block.suptitle(title, fontsize=9)
        grid = block.subplots(count, columns, squeeze=False)
        chosen = distinct[query][torch.linspace(0, len(distinct[query]) - 1, count).round().long()]
        for axes, i in zip(grid, chosen.tolist(), strict=True):
            partners = ids[candidate][ids[query] == ids[query][i]]
            scores = features[candidate][known] @ features[query][i]
            right = torch.isin(ids[candidate][known], partners)
            rank = 1 + int((~(scores < scores[right].max()) & ~right).sum())
            best = scores.argsort(descending=True, stable=True)[: columns - 2]
            shown = torch.cat([torch.tensor([i]), known[best]])
            _draw(axes[:1], items[query], shown[:1], wet)
            _draw(axes[1:], items[candidate], shown, wet)
            axes[0].set_title("query", fontsize=8)
            axes[1].set_title(f"partner: rank {rank:,}", fontsize=8)
            for place, (axis, is_right) in enumerate(zip(axes[2:], right[best].tolist(), strict=True), 1):
                axis.set_title(str(place), fontsize=8, color=RIGHT if is_right else "0.3")
                axis.spines[:].set(color=RIGHT if is_right else PLAIN, linewidth=3 if is_right else 0.8)
    figure.supxlabel(caption, fontsize=8)
    return figure


def _wrap(text: str, inches: float) -> str:
    return textwrap.fill(text, int(CHARACTERS_PER_INCH * inches))


def _kind(items: Tensor) -> str:
    """Return how items (N, ...) are drawn."""
    if items.ndim == 1:
        return "number"
    if items.ndim == 5:
        return "currents"
    if items.ndim == 4:
        return "tracks"
    if items.ndim == 3:
        return "path" if items.shape[-1] == 2 else "image"
    return "vector"


def _captions(items: tuple[Tensor, Tensor], wet: Tensor | None) -> list[str]:
    found = [CAPTIONS[kind] for kind in map(_kind, items) if kind in CAPTIONS]
    if _kind(items[0]) == "currents":
        missing = items[0][:, :, items[0].shape[2] // 2].isnan().any(1)
        water = torch.ones_like(missing) if wet is None else wet[:, wet.shape[1] // 2]
        found += ["brown: land"] * (not bool(water.all()))
        found += [f"hatched: {'no value' if wet is None else 'water without a value'}"] * bool((missing & water).any())
    return list(dict.fromkeys(found))


def _first_of_each(ids: Tensor) -> Tensor:
    """Return the index of the first item of every number."""
    return torch.from_numpy(np.unique(ids.numpy(), return_index=True)[1]).sort().values


def _draw(axes: Sequence[Any], items: Tensor, shown: Tensor, wet: Tensor | None) -> None:
    """Draw some of the items on one scale, one an axis; lines have the first behind them, to compare."""
    for axis in axes:
        axis.set(xticks=[], yticks=[])
        axis.spines[:].set(color=PLAIN, linewidth=0.8)
    kind, chosen = _kind(items), items[shown]
    if kind == "number":
        for axis, item in zip(axes, chosen, strict=True):
            axis.text(0.5, 0.5, f"{item.item():g}", ha="center", va="center", fontsize=26, transform=axis.transAxes)
            axis.set_box_aspect(1)
    elif kind == "image":
        for axis, item in zip(axes, chosen, strict=True):
            axis.imshow(item, cmap="gray_r", vmin=chosen.min(), vmax=chosen.max())
    elif kind == "currents":
        _draw_currents(axes, chosen, None if wet is None else wet[shown])
    elif kind == "tracks":  # degrees from the centre of a tile, then what else is recorded
        east = within_half_turn(chosen[..., :1]) if chosen.shape[-1] > 2 else chosen[..., :1]
        _draw_tracks(axes, torch.cat([east, chosen[..., 1:2]], -1))
    elif kind == "path":
        _draw_tracks(axes, chosen[:, None])
    else:
        _draw_vectors(axes, chosen.flatten(1))


def _draw_vectors(axes: Sequence[Any], items: Tensor) -> None:
    margin = 0.08 * float(items.max() - items.min()) or 1.0
    for number, (axis, item) in enumerate(zip(axes, items, strict=True)):
        style = {"marker": ".", "ms": 4} if len(item) <= 40 else {"lw": 0.8}
        if number:
            axis.plot(items[0], color=GHOST, lw=2.5)
        axis.plot(item, color=LINE, **style)
        axis.set_ylim(float(items.min()) - margin, float(items.max()) + margin)
        axis.set_box_aspect(1)


def _draw_tracks(axes: Sequence[Any], items: Tensor) -> None:
    """Draw paths (n, D, P, 2), with a point where each begins."""
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


def _draw_currents(axes: Sequence[Any], items: Tensor, wet: Tensor | None) -> None:
    """Draw the middle of velocity windows (n, 2, T, H, W): speed, and arrows of its direction; land where known."""
    middle = items.shape[2] // 2
    velocity = items[:, :, middle]
    speed = velocity.norm(dim=1)
    fast = float(speed.nan_to_num(0).max()) or 1.0
    step = max(1, round(velocity.shape[-1] / 7))
    y, x = (np.arange(size)[step // 2 :: step] for size in velocity.shape[-2:])
    for number, (axis, field, values) in enumerate(zip(axes, velocity, speed, strict=True)):
        paint(axis, None if wet is None else wet[number, middle])
        axis.imshow(values, origin="lower", cmap="viridis", vmin=0, vmax=fast, zorder=1)
        east, north = field[:, step // 2 :: step, step // 2 :: step].numpy()
        axis.quiver(x, y, east, north, color="white", scale=9 * fast, width=0.012, pivot="mid", alpha=0.9, zorder=3)
