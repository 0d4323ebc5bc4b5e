"""What an evaluation says where v are labels: label given u, u given label, and pictures of both.

Shapes: N items, K labels, F features.
"""

__all__ = ["add_labels", "label_log_probabilities", "labels_figure"]

from collections.abc import Callable
from typing import Any

import torch
from matplotlib.figure import Figure
from torch import Tensor

from pcl.conditional import Conditional
from pcl.data.manifest import Manifest
from pcl.evaluation.baselines import Baselines
from pcl.evaluation.classification import (
    classification_intervals,
    classification_metrics,
    reliability,
    wilson_interval,
)
from pcl.evaluation.comparison import is_behind, sentence
from pcl.evaluation.drawing import Drawing
from pcl.evaluation.given_labels import add_given_labels
from pcl.evaluation.result import Evaluation
from pcl.evaluation.splits import Splits
from pcl.model import PairModel

SEED = 0  # of the noise in intervals
MOST_ROWS, MOST_SHOWN = 10, 12  # labels whose best items are shown, and items


def add_labels(
    result: Evaluation,
    model: PairModel,
    splits: Splits,
    drawings: Callable[[Splits], tuple[Drawing, Drawing]],
    known: Baselines | None,
) -> None:
    """Score the label conditional and what it says of u given a label, and draw both.

    Args:
        result: to add to.
        model: with its encoders.
        splits: the pairs that are judged; v are labels.
        drawings: how u and v are drawn.
        known: what needs no learning.
    """
    labels, drawing = splits.arrays["v"].long(), drawings(splits)[0]
    conditional = _label_conditional(model, splits.manifest)
    log_probabilities = conditional.log_weights(splits.features[0])
    table = [["label given u", "accuracy", "95 %", "negative log-likelihood", "95 %", "calibration error", "95 %"]]
    metrics = _scored(result, "learned conditional", "label", log_probabilities, labels, table)
    if known is not None and known.labels is not None:
        prior = _log_prior(splits.manifest)
        of_linear = (known.features["linear"][0] @ known.labels.T + prior).log_softmax(1)
        found = _scored(result, "linear discriminant", "linear_label", of_linear, labels, table)
        hits, others = (scores.argmax(1) == labels for scores in (log_probabilities, of_linear))
        if is_behind(hits, others, torch.arange(len(labels))):
            what = "the accuracy of labels given u"
            result.notes.append(sentence(what, "linear discriminant", metrics["accuracy"], found["accuracy"]))
    result.tables.append(table)
    scores: Tensor = splits.features[0] @ conditional.features.T
    result.figures["labels.png"] = labels_figure(drawing, labels, scores, log_probabilities)
    add_given_labels(result, model, splits, drawing)


def _scored(
    result: Evaluation, title: str, name: str, log_probabilities: Tensor, labels: Tensor, table: list[list[str]]
) -> dict[str, float]:
    """Add the metrics of label probabilities, with intervals, and their row; return those without."""
    metrics = classification_metrics(log_probabilities, labels)
    intervals = classification_intervals(log_probabilities, labels, torch.Generator().manual_seed(SEED))
    row = [title]
    for key, value in metrics.items():
        low, high = intervals[key]
        result.metrics |= {f"{name}_{key}": value, f"{name}_{key}_low": low, f"{name}_{key}_high": high}
        row += [f"{value:.4f}", f"{low:.4f} - {high:.4f}"]
    table.append(row)
    return metrics


def label_log_probabilities(model: PairModel, manifest: Manifest, features_u: Tensor) -> Tensor:
    """Return the logarithms of the probabilities of labels, whose prior is their frequency in training, (N, K).

    Args:
        model: with its encoders.
        manifest: of the shards; v are labels.
        features_u: feature maps of the items, shape (N, F).
    """
    found: Tensor = _label_conditional(model, manifest).log_weights(features_u)
    return found


def _label_conditional(model: PairModel, manifest: Manifest) -> Conditional:
    prior = _log_prior(manifest)
    return model.conditional("v_given_u", torch.arange(len(prior)), prior)


def _log_prior(manifest: Manifest) -> Tensor:
    return torch.tensor(manifest.statistics["v"]["counts"], dtype=torch.float64).log()


def labels_figure(drawing: Drawing, labels: Tensor, scores: Tensor, log_probabilities: Tensor) -> Figure:
    """Draw the items retrieved for labels, wrong ones framed, and the reliability diagram.

    Args:
        drawing: of the items.
        labels: true labels, shape (N,).
        scores: log tilting of every item and label, shape (N, K).
        log_probabilities: of the labels given the items, shape (N, K).
    """
    shown = torch.linspace(0, scores.shape[1] - 1, min(MOST_ROWS, scores.shape[1])).round().long().tolist()
    num_shown = min(MOST_SHOWN, len(scores))
    figure = Figure(figsize=(11, 5), layout="constrained")
    left, right = figure.subfigures(1, 2, width_ratios=(1.35, 1), squeeze=False)[0]
    grid = left.subplots(len(shown), num_shown, squeeze=False)
    left.suptitle(f"the {num_shown} items with the largest score for each label (wrong ones in red)", fontsize=9)
    for axes, label in zip(grid, shown, strict=True):
        best = scores[:, label].topk(num_shown).indices
        for axis, i in zip(axes, best.tolist(), strict=True):
            axis.set(xticks=[], yticks=[])
            axis.spines[:].set(visible=int(labels[i]) != label, color="red", linewidth=2)
        drawing.draw(axes, best)
        axes[0].set_ylabel(str(label), rotation=0, labelpad=8, va="center")
    _draw_reliability(right.subplots(), log_probabilities, labels)
    return figure


def _draw_reliability(axis: Any, log_probabilities: Tensor, labels: Tensor) -> None:
    """Draw the share of correct predictions over their confidence, with 95 % intervals and the counts of the bins."""
    share, confidence, accuracy = (part.double() for part in reliability(log_probabilities, labels))
    counts = (share * len(labels)).round()
    filled = counts > 0
    x, y, n = confidence[filled], accuracy[filled], counts[filled]
    low, high = wilson_interval((y * n).round(), n)
    axis.plot([0, 1], [0, 1], "k:", lw=1, label="perfectly calibrated")
    reach = torch.stack([y - low, high - y]).clamp(min=0)
    axis.errorbar(x, y, reach, fmt="o", ms=4, capsize=2, lw=1, label="95 % interval, beside it the number of items")
    for place, (one, share_right, number) in enumerate(zip(x.tolist(), y.tolist(), n.tolist(), strict=True)):
        offset = (5, -9) if place % 2 else (5, 4)
        axis.annotate(f"{number:,.0f}", (one, share_right), offset, textcoords="offset points", fontsize=6)
    axis.set(xlabel="probability of the predicted label", ylabel="share of correct predictions", xlim=(0, 1.08))
    axis.set(ylim=(-0.05, 1.05), title=f"reliability over {len(labels):,} items")
    axis.legend(fontsize=8, loc="upper center", bbox_to_anchor=(0.5, -0.11), ncols=2, frameon=False)
