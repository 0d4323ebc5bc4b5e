"""A few queries with their true partner and what they retrieve, drawn by the kind of their arrays.

Shapes: N pairs, F features.
"""

__all__ = ["retrieved_figure"]

import textwrap
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

from pcl.evaluation.retrieval import identity_of

NUM_RETRIEVED = 5
RIGHT, PLAIN, GHOST, LINE, LAND = "#1a9850", "0.75", "0.72", "#2b5c8a", "#d9d4c7"


def retrieved_figure(
    items: tuple[Tensor, Tensor], features: tuple[Tensor, Tensor], num_examples: int, meanings: Sequence[str] = ("", "")
) -> Figure:
    """Draw, for queries of both directions, the query, its partner with its rank, and the best candidates in order.

    Equal candidates are shown once; those that occur as a partner of the query are framed.

    Args:
        items: stored u and v, shape (N, ...) each; item i of one is the partner of item i of the other.
        features: feature maps of both, shape (N, F) each.
        num_examples: queries of each direction, evenly spread over the distinct ones.
        meanings: of u and of v, for the titles.
    """
    ids = (identity_of(items[0]), identity_of(items[1]))
    distinct = [_first_of_each(part) for part in ids]
    counts = [min(num_examples, len(part)) for part in distinct]
    columns = 2 + min(NUM_RETRIEVED, *map(len, distinct))
    figure = Figure(figsize=(1.6 * columns, 0.8 + 1.75 * sum(counts)), layout="constrained")
    blocks = figure.subfigures(2, 1, height_ratios=[count + 0.25 for count in counts], squeeze=False)[:, 0]
    for block, query, candidate, count in zip(blocks, (0, 1), (1, 0), counts, strict=True):
        known = distinct[candidate]
        names = [textwrap.shorten(f"{'uv'[i]} {meanings[i]}", 60, placeholder=" ...") for i in (query, candidate)]
        block.suptitle(f"{names[0]}  \N{RIGHTWARDS ARROW}  {names[1]} ({len(known):,} candidates)", fontsize=9)
        grid = block.subplots(count, columns, squeeze=False)
        chosen = distinct[query][torch.linspace(0, len(distinct[query]) - 1, count).round().long()]
        for axes, i in zip(grid, chosen.tolist(), strict=True):
            partners = ids[candidate][ids[query] == ids[query][i]]
            scores = features[candidate][known] @ features[query][i]
            right = torch.isin(ids[candidate][known], partners)
            rank = 1 + int((~(scores < scores[right].max()) & ~right).sum())
            best = scores.argsort(descending=True, stable=True)[: columns - 2]
            shown = torch.stack([items[candidate][i], *items[candidate][known[best]]])
            _draw(axes[:1], items[query][i : i + 1])
            _draw(axes[1:], shown)
            axes[0].set_title("query", fontsize=8)
            axes[1].set_title(f"partner: rank {rank:,}", fontsize=8)
            for place, (axis, is_right) in enumerate(zip(axes[2:], right[best].tolist(), strict=True), 1):
                axis.set_title(str(place), fontsize=8, color=RIGHT if is_right else "0.3")
                axis.spines[:].set(color=RIGHT if is_right else PLAIN, linewidth=3 if is_right else 0.8)
    figure.supxlabel("framed: a partner of the query; grey behind lines: its partner", fontsize=8)
    return figure


def _first_of_each(ids: Tensor) -> Tensor:
    """Return the index of the first item of every number."""
    return torch.from_numpy(np.unique(ids.numpy(), return_index=True)[1]).sort().values


def _draw(axes: Sequence[Any], items: Tensor) -> None:
    """Draw items on one scale, one an axis; lines have the first item behind them, to compare."""
    for axis in axes:
        axis.set(xticks=[], yticks=[])
        axis.spines[:].set(color=PLAIN, linewidth=0.8)
    if items.ndim == 1:
        for axis, item in zip(axes, items, strict=True):
            axis.text(0.5, 0.5, f"{item.item():g}", ha="center", va="center", fontsize=26, transform=axis.transAxes)
            axis.set_box_aspect(1)
    elif items.ndim == 3 and items.shape[-1] != 2:
        for axis, item in zip(axes, items, strict=True):
            axis.imshow(item, cmap="gray_r", vmin=items.min(), vmax=items.max())
    elif items.ndim == 5:
        _draw_currents(axes, items)
    elif items.ndim in (3, 4):
        paths = items[..., :2]
        _draw_tracks(axes, paths if paths.ndim == 4 else paths[:, None])
    else:
        _draw_vectors(axes, items.flatten(1))


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


def _draw_currents(axes: Sequence[Any], items: Tensor) -> None:
    """Draw the middle of velocity windows (n, 2, T, H, W): speed, and arrows of its direction."""
    velocity = items[:, :, items.shape[2] // 2]
    speed = velocity.norm(dim=1)
    fast = float(speed.nan_to_num(0).max()) or 1.0
    step = max(1, round(velocity.shape[-1] / 7))
    y, x = (np.arange(size)[step // 2 :: step] for size in velocity.shape[-2:])
    for axis, field, values in zip(axes, velocity, speed, strict=True):
        axis.set_facecolor(LAND)
        axis.imshow(values, origin="lower", cmap="viridis", vmin=0, vmax=fast)
        east, north = field[:, step // 2 :: step, step // 2 :: step].numpy()
        axis.quiver(x, y, east, north, color="white", scale=9 * fast, width=0.012, pivot="mid", alpha=0.9)
