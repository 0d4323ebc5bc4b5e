"""A few queries with their true partner and what they retrieve, each drawn as its kind of pairs says.

Shapes: N pairs, F features.
"""

__all__ = ["retrieved_figure"]

import re
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

from pcl.evaluation.drawing import FIRST, PLAIN, Drawing
from pcl.evaluation.retrieval import identity_of

NUM_RETRIEVED = 5
RIGHT = "#1a9850"
ROW_INCHES, TITLE_INCHES, LINE_INCHES = 1.75, 0.3, 0.17  # of a row of pictures, of a title, of each of its lines
CHARACTERS_PER_INCH = 13  # of a title


def retrieved_figure(
    items: tuple[Tensor, Tensor],
    features: tuple[Tensor, Tensor],
    num_examples: int,
    drawings: tuple[Drawing, Drawing],
    meanings: Sequence[str] = ("", ""),
) -> Figure:
    """Draw, for queries of both directions, the query, its partner with its rank, and the best candidates in order.

    Equal candidates are shown once; those that occur as a partner of the query are framed.

    Args:
        items: stored u and v, shape (N, ...) each; item i of one is the partner of item i of the other.
        features: feature maps of both, shape (N, F) each.
        num_examples: queries of each direction, evenly spread over the distinct ones.
        drawings: how u and v are drawn.
        meanings: of u and of v, whose first clauses are in the titles.
    """
    found = _Retrieval(tuple(map(identity_of, items)), features)
    counts = [min(num_examples, len(part)) for part in found.distinct]
    columns = 2 + min(NUM_RETRIEVED, *map(len, found.distinct))
    width = 1.6 * columns
    titles = [_wrap(title, width) for title in _titles(meanings, [len(part) for part in found.distinct])]
    chosen = [found.spread(query, count) for query, count in enumerate(counts)]
    is_framed = any(found.of(query, i, columns - 2)[1].any() for query in (0, 1) for i in chosen[query])
    captions = dict.fromkeys(text.replace(FIRST, "the partner") for one in drawings for text in one.captions)
    caption = _wrap("; ".join(["framed: a partner of the query"] * is_framed + [*captions]), width)
    heights = [
        ROW_INCHES * count + TITLE_INCHES + LINE_INCHES * title.count("\n")
        for count, title in zip(counts, titles, strict=True)
    ]
    figure = Figure(figsize=(width, sum(heights) + LINE_INCHES * (2 + caption.count("\n"))), layout="constrained")
    blocks = figure.subfigures(2, 1, height_ratios=heights, squeeze=False)[:, 0]
    for block, query, count, title in zip(blocks, (0, 1), counts, titles, strict=True):
        block.suptitle(title, fontsize=9)
        grid = block.subplots(count, columns, squeeze=False)
        for axes, i in zip(grid, chosen[query], strict=True):
            _draw_row(axes, found, query, i, drawings)
    figure.supxlabel(caption, fontsize=8)
    return figure


def _titles(meanings: Sequence[str], numbers: Sequence[int]) -> list[str]:
    """Return the name of each direction, of how many distinct candidates the best are shown, and for what."""
    clauses = (re.split("[;:] ", text)[0] for text in meanings)
    what = [f"{name} ({clause})" if clause else name for name, clause in zip("uv", clauses, strict=True)]
    return [
        f"{'vu'[query]} given {'uv'[query]}: the best of {numbers[1 - query]:,} {what[1 - query]} for a {what[query]}"
        for query in range(2)
    ]


@dataclass(frozen=True)
class _Retrieval:
    """What is retrieved among distinct candidates.

    Attributes:
        ids: numbers of u and of v, equal for equal items, shape (N,) each.
        features: feature maps of both, shape (N, F) each.
    """

    ids: tuple[Tensor, ...]
    features: tuple[Tensor, Tensor]

    @cached_property
    def distinct(self) -> list[Tensor]:
        """The first item of every number, of u and of v."""
        return [_first_of_each(part) for part in self.ids]

    def spread(self, query: int, number: int) -> list[int]:
        """Return so many of the distinct queries, evenly spread."""
        part = self.distinct[query]
        found: list[int] = part[torch.linspace(0, len(part) - 1, number).round().long()].tolist()
        return found

    def of(self, query: int, item: int, most: int) -> tuple[Tensor, Tensor, int]:
        """Return the best candidates of a query, which of them are partners, and the rank of the best partner."""
        ids, candidates = self.ids[1 - query], self.distinct[1 - query]
        partners = ids[self.ids[query] == self.ids[query][item]]
        scores = self.features[1 - query][candidates] @ self.features[query][item]
        right = torch.isin(ids[candidates], partners)
        rank = 1 + int((~(scores < scores[right].max()) & ~right).sum())
        best = scores.argsort(descending=True, stable=True)[:most]
        return candidates[best], right[best], rank


def _draw_row(axes: Sequence[Any], found: _Retrieval, query: int, item: int, drawings: tuple[Drawing, Drawing]) -> None:
    """Draw a query, its partner, and what it retrieves."""
    best, right, rank = found.of(query, item, len(axes) - 2)
    for axis in axes:
        axis.set(xticks=[], yticks=[])
        axis.spines[:].set(color=PLAIN, linewidth=0.8)
    shown = torch.cat([torch.tensor([item]), best])
    drawings[query].draw(axes[:1], shown[:1])
    drawings[1 - query].draw(axes[1:], shown)
    axes[0].set_title("query", fontsize=8)
    axes[1].set_title(f"partner: rank {rank:,}", fontsize=8)
    for place, (axis, is_right) in enumerate(zip(axes[2:], right.tolist(), strict=True), 1):
        axis.set_title(str(place), fontsize=8, color=RIGHT if is_right else "0.3")
        axis.spines[:].set(color=RIGHT if is_right else PLAIN, linewidth=3 if is_right else 0.8)


def _wrap(text: str, inches: float) -> str:
    return textwrap.fill(text, int(CHARACTERS_PER_INCH * inches))


def _first_of_each(ids: Tensor) -> Tensor:
    """Return the index of the first item of every number."""
    return torch.from_numpy(np.unique(ids.numpy(), return_index=True)[1]).sort().values
