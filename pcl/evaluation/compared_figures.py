"""Figures of a comparison: curves over each other, and numbers beside each other."""

__all__ = ["curves_figure", "metrics_figure"]

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from pcl.evaluation.compared import Group
from pcl.evaluation.legend import colours, legend_above
from pcl.evaluation.meanings import meaning_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure

CURVES = (  # in this order, where all runs have them
    "train/loss",
    "validation/loss",
    "train/loss_u_given_v",
    "train/loss_v_given_u",
    "train/gradient_norm",
    "train/temperature",
)
COLUMNS = 3


def curves_figure(groups: Sequence[Group]) -> "Figure | None":
    """Draw the curves of all trainings over each other, a colour a group and a line a seed; None where none is common.

    Args:
        groups: of runs.
    """
    from matplotlib.figure import Figure

    runs = [run for group in groups for run in group.runs]
    common = [tag for tag in CURVES if all(tag in run.curves for run in runs)]
    tags = [tag for tag in common if len({value for run in runs for value in run.curves[tag].values}) > 1]
    if not tags:
        return None
    figure = Figure(figsize=(11, 3.2 * math.ceil(len(tags) / COLUMNS)), layout="constrained")
    axes = list(figure.subplots(math.ceil(len(tags) / COLUMNS), min(COLUMNS, len(tags)), squeeze=False).flat)
    for tag, axis in zip(tags, axes, strict=False):
        for group, colour in zip(groups, colours(len(groups)), strict=True):
            for run in group.runs:
                label = group.label if run is group.runs[0] else None
                curve = run.curves[tag]
                marker = "o" if len(curve.steps) == 1 else ""  # a line of one point is none
                axis.plot(curve.steps, curve.values, marker=marker, color=colour, lw=1, alpha=0.8, label=label)
        axis.set(xlabel="step", title=tag)
    for axis in axes[len(tags) :]:
        axis.set_axis_off()
    legend_above(figure, axes[0])
    return figure


def metrics_figure(groups: Sequence[Group], metrics: Sequence[str]) -> "Figure":
    """Draw every run's metrics as dots, a panel a metric and a row a group; a bar marks the mean.

    Args:
        groups: of runs.
        metrics: that all runs have.
    """
    from matplotlib.figure import Figure

    rows = math.ceil(len(metrics) / COLUMNS)
    figure = Figure(figsize=(11, rows * (0.9 + 0.28 * len(groups))), layout="constrained")
    axes = list(figure.subplots(rows, COLUMNS, squeeze=False, sharey=True).flat)
    for metric, axis in zip(metrics, axes, strict=False):
        for number, (group, colour) in enumerate(zip(groups, colours(len(groups)), strict=True)):
            values = [run.metrics[metric] for run in group.runs]
            axis.plot(values, [number] * len(values), "o", color=colour, alpha=0.6, ms=5)
            axis.plot(group.spread(metric).mean, number, "|", color=colour, ms=14)
        axis.set_title(meaning_of(metric).title, fontsize=9)
        axis.tick_params(labelsize=8)
        axis.locator_params(axis="x", nbins=4)
        axis.set(
            yticks=range(len(groups)), yticklabels=[group.label for group in groups], ylim=(-0.6, len(groups) - 0.4)
        )
    axes[0].invert_yaxis()
    for axis in axes[len(metrics) :]:
        axis.set_axis_off()
    return figure
