"""Draws from a learned conditional in pictures: what they are given, each with its weight, repeats framed.

Shapes: n draws, N references.
"""

__all__ = ["REPEATED", "Cell", "Drawn", "Row", "draws_figure", "row_of_draws"]

import math
import textwrap
from collections import Counter
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from matplotlib.figure import Figure
from torch import Tensor

from pcl.evaluation.drawing import FIRST, PLAIN, Drawing

REPEATED, WRONG = "#d6604d", "#b2182b"
COLUMNS = 8
CELL_INCHES, TEXT_INCHES, TITLE_INCHES, LINE_INCHES = 1.2, 0.3, 0.3, 0.17  # of a picture, of what stands around it
CHARACTERS_PER_INCH = 13


class Drawn(NamedTuple):
    """Draws from one conditional.

    Attributes:
        indices: of references, in the order of the draws, shape (n,).
        weights: of these, shape (n,).
        effective_sample_size: of all weights.
    """

    indices: Tensor
    weights: Tensor
    effective_sample_size: float

    @property
    def is_repeated(self) -> list[bool]:
        """Whether each came before, n of them."""
        found = self.indices.tolist()
        return [index in found[:place] for place, index in enumerate(found)]

    @property
    def num_distinct(self) -> int:
        """The number of different ones."""
        return len(set(self.indices.tolist()))


class Cell(NamedTuple):
    """A picture of a sheet.

    Attributes:
        drawing: of the items.
        item: its index.
        above: a word on it.
        below: likewise.
        frame: its colour.
        is_wrong: whether the word above it says so.
    """

    drawing: Drawing
    item: int
    above: str = ""
    below: str = ""
    frame: str = PLAIN
    is_wrong: bool = False


class Row(NamedTuple):
    """Pictures that belong together, and what they are."""

    title: str
    cells: Sequence[Cell]


def row_of_draws(
    title: str, drawing: Drawing, drawn: Drawn, labels: Tensor | None = None, label: int | None = None
) -> Row:
    """Return draws with their weights: those that came before are framed, another label than the right one is named.

    Args:
        title: whose draws they are.
        drawing: of the references.
        drawn: the draws.
        labels: of the references, shape (N,).
        label: that is right.
    """
    cells = []
    pairs = zip(drawn.indices.tolist(), drawn.weights.tolist(), drawn.is_repeated, strict=True)
    for index, weight, is_repeated in pairs:
        is_wrong = labels is not None and label is not None and int(labels[index]) != label
        above = f"label {int(labels[index])}" if is_wrong and labels is not None else ""
        frame = REPEATED if is_repeated else PLAIN
        cells.append(Cell(drawing, index, above, f"w = {weight:.2g}", frame, is_wrong))
    number, size = len(cells), drawn.effective_sample_size
    summary = f"{drawn.num_distinct} of {number} distinct, effective sample size {size:,.1f}"
    return Row(f"{title}: {summary}" if title else summary, cells)


def draws_figure(
    rows: Sequence[Row], title: str, captions: Sequence[str] = (), first: str = "the first draw"
) -> Figure:
    """Draw rows of pictures, eight in a line, those of one drawing on one scale over all rows.

    Args:
        rows: each with its pictures.
        title: of all.
        captions: what is to be known, phrases.
        first: what the first item of a drawing is, with which drawings compare the others.
    """
    counts = Counter(cell.drawing for row in rows for cell in row.cells)
    own = [text for drawing, number in counts.items() for text in drawing.captions if number > 1 or FIRST not in text]
    captions = [*captions, *dict.fromkeys(text.replace(FIRST, first) for text in own)]
    if any(cell.frame == REPEATED for row in rows for cell in row.cells):
        captions = ["framed: drawn before", *captions]
    columns = min(COLUMNS, max(len(row.cells) for row in rows))
    width = max(4.0, CELL_INCHES * columns)
    lines = [math.ceil(len(row.cells) / columns) for row in rows]
    titles = [_wrapped(row.title, width) for row in rows]
    heights = [
        (CELL_INCHES + TEXT_INCHES) * num + TITLE_INCHES + LINE_INCHES * text.count("\n")
        for num, text in zip(lines, titles, strict=True)
    ]
    about, below = _wrapped(title, width), _wrapped("; ".join(captions), width)
    text_inches = LINE_INCHES * (3 + about.count("\n") + below.count("\n"))
    figure = Figure(figsize=(width, sum(heights) + text_inches), layout="constrained")
    figure.suptitle(about, fontsize=9)
    axes = dict[Drawing, list[tuple[Any, Cell]]]()
    blocks = figure.subfigures(len(rows), 1, height_ratios=heights, squeeze=False)[:, 0]
    for block, row, num, text in zip(blocks, rows, lines, titles, strict=True):
        block.suptitle(text, fontsize=8, x=0.01, ha="left")
        grid = list(block.subplots(num, columns, squeeze=False).flat)
        for axis in grid[len(row.cells) :]:
            axis.set_axis_off()
        for axis, cell in zip(grid, row.cells, strict=False):
            axes.setdefault(cell.drawing, []).append((axis, cell))
    for drawing, shown in axes.items():
        _draw(drawing, shown)
    figure.supxlabel(below, fontsize=7)
    return figure


def _draw(drawing: Drawing, shown: Sequence[tuple[Any, Cell]]) -> None:
    """Draw the pictures of one drawing, with what stands around them."""
    for axis, cell in shown:
        axis.set(xticks=[], yticks=[])
        axis.set_title(cell.above, fontsize=7, color=WRONG if cell.is_wrong else "0.2")
        axis.set_xlabel(cell.below, fontsize=7, labelpad=2)
        axis.spines[:].set(color=cell.frame, linewidth=0.8 if cell.frame == PLAIN else 2.5)
    drawing.draw([axis for axis, _ in shown], torch.tensor([cell.item for _, cell in shown]))


def _wrapped(text: str, inches: float) -> str:
    return textwrap.fill(text, int(CHARACTERS_PER_INCH * inches))
