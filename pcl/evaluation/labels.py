"""Pictures of an evaluation."""

__all__ = ["labels_figure"]

import torch
from matplotlib.figure import Figure
from torch import Tensor

from pcl.evaluation.classification import reliability
from pcl.evaluation.drawing import Drawing


def labels_figure(drawing: Drawing, labels: Tensor, scores: Tensor, log_probabilities: Tensor) -> Figure:
    """Draw the items retrieved for every label, wrong ones framed, and the reliability diagram.

    Args:
        drawing: of the items.
        labels: true labels, shape (N,).
        scores: log tilting of every item and label, shape (N, K).
        log_probabilities: of the labels given the items, shape (N, K).
    """
    num_labels, num_shown = scores.shape[1], min(12, len(scores))
    figure = Figure(figsize=(11, 5), layout="constrained")
    left, right = figure.subfigures(1, 2, width_ratios=(1.35, 1), squeeze=False)[0]
    grid = left.subplots(num_labels, num_shown, squeeze=False)
    left.suptitle(f"the {num_shown} items with the largest score for each label (wrong ones in red)", fontsize=9)
    for label in range(num_labels):
        best = scores[:, label].topk(num_shown).indices
        drawing.draw(grid[label], best)
        for axis, i in zip(grid[label], best.tolist(), strict=True):
            axis.set(xticks=[], yticks=[])
            wrong = int(labels[i]) != label
            for spine in axis.spines.values():
                spine.set(visible=wrong, color="red", linewidth=2)
        grid[label, 0].set_ylabel(str(label), rotation=0, labelpad=8, va="center")
    axis = right.subplots()
    share, confidence, accuracy = reliability(log_probabilities, labels)
    filled = share > 0
    axis.plot([0, 1], [0, 1], "k:", lw=1, label="perfectly calibrated")
    axis.scatter(confidence[filled], accuracy[filled], s=12 + 300 * torch.sqrt(share[filled]), alpha=0.6)
    axis.set(xlabel="probability of the predicted label", ylabel="share of correct predictions", xlim=(0, 1.05))
    axis.set(ylim=(-0.05, 1.05), title="reliability (area: share of items)")
    axis.legend(fontsize=8, loc="lower right")
    return figure
