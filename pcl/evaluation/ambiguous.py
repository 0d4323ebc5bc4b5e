"""Items whose label is in doubt, and what several models say of them (arXiv:2505.24134, figure 11).

Shapes: N items, K labels, n items that are shown.
"""

__all__ = ["ambiguous_figure", "most_ambiguous"]

from collections.abc import Mapping, Sequence

import torch
from matplotlib.figure import Figure
from torch import Tensor

from pcl.evaluation.drawing import Drawing
from pcl.evaluation.legend import colours, legend_above

MOST_LABELS = 10  # whose probabilities are shown
ROW_INCHES, PICTURE_INCHES, BARS_INCHES = 1.35, 1.2, 3.6


def most_ambiguous(log_probabilities: Sequence[Tensor], num_items: int) -> Tensor:
    r"""Return the items whose label is most in doubt, the most ambiguous first: a rule that prefers no model.

    Those with the smallest margin between the two most probable labels, as a mean over the models,

    .. math:: \frac{1}{R} \sum_r p_r^{(1)} - p_r^{(2)}

    Args:
        log_probabilities: of labels given items, of every model, shape (N, K) each; K at least 2.
        num_items: n, or all if there are fewer.

    Example:
        >>> certain, doubtful = [0.98, 0.01, 0.01], [0.4, 0.35, 0.25]
        >>> most_ambiguous([torch.tensor([certain, doubtful]).log()], 1)
        tensor([1])
    """
    margins = [-part.double().exp().topk(2, 1).values.diff(dim=1)[:, 0] for part in log_probabilities]
    order: Tensor = torch.stack(margins).mean(0).argsort(stable=True)
    return order[:num_items]


def ambiguous_figure(
    drawing: Drawing, items: Tensor, labels: Tensor, log_probabilities: Mapping[str, Tensor]
) -> Figure:
    """Draw items, and beside each the probabilities that every model gives to labels.

    Args:
        drawing: of the items.
        items: indices of those that are shown, shape (n,).
        labels: true labels, shape (N,).
        log_probabilities: of labels given items, of every model by name, shape (N, K) each.
    """
    probabilities = {name: part[items].double().exp() for name, part in log_probabilities.items()}
    largest = torch.stack([*probabilities.values()]).amax((0, 1))
    shown = largest.topk(min(MOST_LABELS, len(largest))).indices.sort().values
    columns = 1 if len(items) < 4 else 2
    num_rows = -(-len(items) // columns)
    figure = Figure(
        figsize=(columns * (PICTURE_INCHES + BARS_INCHES), 0.7 + ROW_INCHES * num_rows), layout="constrained"
    )
    grid = figure.subplots(num_rows, 2 * columns, squeeze=False, width_ratios=[PICTURE_INCHES, BARS_INCHES] * columns)
    pictures, bars = list(grid[:, ::2].flat), list(grid[:, 1::2].flat)
    for axis in (*pictures[len(items) :], *bars[len(items) :]):
        axis.set_axis_off()
    for axis in pictures[: len(items)]:
        axis.set(xticks=[], yticks=[])
    drawing.draw(pictures[: len(items)], items)
    width, palette = 0.8 / len(probabilities), colours(len(probabilities))
    for number, (axis, item) in enumerate(zip(bars, items.tolist(), strict=False)):
        for place, ((name, values), colour) in enumerate(zip(probabilities.items(), palette, strict=True)):
            middle = torch.arange(len(shown)) + (place - (len(probabilities) - 1) / 2) * width
            axis.bar(middle, values[number, shown], width, label=name, color=colour)
        axis.set(ylim=(0, 1.05), xticks=range(len(shown)), yticks=[0, 0.5, 1])
        axis.tick_params(labelsize=7)
        axis.set_xticklabels([*map(str, shown.tolist())])
        for tick, label in zip(axis.get_xticklabels(), shown.tolist(), strict=True):
            tick.set(weight="bold" if label == int(labels[item]) else "normal")
    legend_above(figure, bars[0])
    figure.supxlabel("label; its bar: probability; bold: the true one", fontsize=8)
    return figure
