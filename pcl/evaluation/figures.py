"""Pictures of an evaluation."""

__all__ = ["conditional_means_figure", "labels_figure"]

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

from pcl.evaluation.classification import reliability
from pcl.problems.gaussian_process.theory_gap import ConditionalMeans


def conditional_means_figure(means: dict[str, ConditionalMeans], u: Tensor, v: Tensor, points: np.ndarray) -> Figure:
    """Draw E[u|v] of three pairs over the points of the process, and all of E[v|u] against the exact answer.

    Args:
        means: conditional means by name; ``exact`` is the reference.
        u: test values, shape (N, n).
        v: test coefficients, shape (N, m).
        points: positions of the components of u, shape (n,).
    """
    figure = Figure(figsize=(12, 3.4), layout="constrained")
    axes = figure.subplots(1, 4)
    styles = {"exact": ("k-", 1.5, 4), "learned": ("C0o", 1.0, 6), "plug-in": ("C1x", 1.0, 6)}
    for i, axis in enumerate(axes[: min(3, len(u))]):
        axis.plot(points, u[i], color="0.75", marker=".", lw=1, label="observed u")
        for name, (style, width, size) in styles.items():
            axis.plot(points, means[name]["u_given_v"](v[i : i + 1].double())[0], style, lw=width, ms=size, label=name)
        axis.set(title=f"E[u | v], test pair {i}", xlabel="x")
    axes[0].legend(fontsize=8)
    exact = means["exact"]["v_given_u"](u[:500].double()).flatten()
    for name, colour, marker in (("plug-in", "C1", "x"), ("learned", "C0", ".")):
        error = means[name]["v_given_u"](u[:500].double()).flatten() - exact
        axes[3].plot(exact, error, colour + marker, ms=3, alpha=0.5, label=name)
    axes[3].axhline(0, color="k", lw=1)
    axes[3].set(title="E[v | u]: estimate - exact", xlabel="exact")
    axes[3].legend(fontsize=8)
    return figure


def labels_figure(images: Tensor, labels: Tensor, scores: Tensor, log_probabilities: Tensor) -> Figure:
    """Draw the images retrieved for every label, wrong ones framed, and the reliability diagram.

    Args:
        images: stored images, shape (N, height, width).
        labels: true labels, shape (N,).
        scores: log tilting of every image and label, shape (N, K).
        log_probabilities: of the labels given the images, shape (N, K).
    """
    num_labels, num_shown = scores.shape[1], min(12, len(images))
    figure = Figure(figsize=(11, 5), layout="constrained")
    left, right = figure.subfigures(1, 2, width_ratios=(1.35, 1), squeeze=False)[0]
    grid = left.subplots(num_labels, num_shown, squeeze=False)
    left.suptitle(f"the {num_shown} images with the largest score for each label (wrong ones in red)", fontsize=9)
    for label in range(num_labels):
        for axis, i in zip(grid[label], scores[:, label].topk(num_shown).indices.tolist(), strict=True):
            axis.imshow(images[i], cmap="gray_r")
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
    axis.set(ylim=(-0.05, 1.05), title="reliability (area: share of images)")
    axis.legend(fontsize=8, loc="lower right")
    return figure
