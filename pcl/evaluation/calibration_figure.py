"""Pictures of calibration: rank histograms and ECDF differences, several conditionals side by side."""

__all__ = ["calibration_figure"]

import math
from collections.abc import Mapping, Sequence

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from pcl.evaluation.calibration import Calibration

NUM_BINS = 20
NUM_CURVES = 4  # more in one picture cannot be told apart


def _binomial_band(num_trials: int, probability: float, level: float = 0.99) -> Tensor:
    """Return the two counts between which a binomial count lies with a probability, shape (2,)."""
    counts = torch.arange(num_trials + 1, dtype=torch.float64)
    log_ways = torch.lgamma(counts[-1] + 1) - torch.lgamma(counts + 1) - torch.lgamma(counts.flip(0) + 1)
    log_mass = log_ways + counts * math.log(probability) + counts.flip(0) * math.log1p(-probability)
    tails = torch.tensor([(1 - level) / 2, (1 + level) / 2], dtype=torch.float64)
    return torch.searchsorted(log_mass.exp().cumsum(0), tails).clamp(max=num_trials)


def _histogram(axis: Axes, calibration: Calibration, component: int) -> None:
    """Draw the density of one component's ranks over the uniform one, and where a uniform bin lies 99 times in 100."""
    num_pairs, num_ranks = len(calibration.ranks), calibration.num_draws + 1
    num_bins = min(NUM_BINS, num_ranks)
    edges = torch.arange(num_bins + 1) * num_ranks // num_bins  # in whole ranks: bins differ by one where they must
    expected = num_pairs * edges.diff().double() / num_ranks
    band = torch.stack([_binomial_band(num_pairs, mean / num_pairs) for mean in expected.tolist()], 1) / expected
    bins = torch.bucketize(calibration.ranks[:, component].contiguous(), edges[1:], right=True)
    density = torch.bincount(bins, minlength=num_bins) / expected
    positions, low, high = (edges / num_ranks).numpy(), *band.numpy()
    axis.stairs(density.numpy(), positions, fill=True, color="C0", alpha=0.7)
    axis.stairs(high, positions, baseline=low, fill=True, color="k", alpha=0.2)
    axis.axhline(1, color="k", lw=0.8)


def _ecdf_difference(axis: Axes, calibration: Calibration, components: Mapping[int, int]) -> None:
    """Draw how far the distribution function of the ranks is from the uniform one."""
    difference = torch.cat([torch.zeros(1, calibration.ranks.shape[1]), calibration.ecdf_difference])
    positions, band = torch.linspace(0, 1, len(difference)), calibration.band()
    for i, number in components.items():
        axis.plot(positions, difference[:, i], lw=1.3, label=f"component {number}, p = {calibration.p_values[i]:.2g}")
    axis.axhspan(-band, band, color="k", alpha=0.2, lw=0, label="99% band of uniform ranks")
    axis.axhline(0, color="k", lw=0.8)
    axis.set(xlim=(0, 1), xlabel="rank of the truth / number of draws")
    axis.legend(fontsize=8, loc="upper center", bbox_to_anchor=(0.5, -0.2))


def calibration_figure(results: dict[str, Calibration], components: Sequence[Sequence[int]] = ()) -> Figure:
    """Draw rank histograms and ECDF differences, a column for each conditional.

    The histogram is that of the component of the smallest p-value, with the 99% band of each bin; the curves are those
    of the smallest p-values, with the band that all components keep to together 99 times in 100. A hill, and a curve
    that falls first, tell of too wide a conditional; a valley, and a curve that rises first, of too narrow a one.

    Args:
        results: calibrations by the name that their column gets.
        components: for each of them, the numbers of its components where they are some of many.

    Raises:
        ValueError: there is no result.

    References:
        Säilynoja, Bürkner, Vehtari (2022), arXiv:2103.10522.

    Example:
        >>> calibration = Calibration(torch.arange(100)[:, None], num_draws=99)
        >>> len(calibration_figure({"u given v": calibration}).axes)
        2
    """
    if not results:
        raise ValueError("no calibration to draw: give at least one result")
    figure = Figure(figsize=(1 + 3.6 * len(results), 6.4), layout="constrained")
    axes = figure.subplots(2, len(results), sharex=True, sharey="row", squeeze=False)
    known_by = components or [range(one.ranks.shape[1]) for one in results.values()]
    for (top, bottom), (name, calibration), known in zip(axes.T, results.items(), known_by, strict=True):
        shown = calibration.p_values.argsort(stable=True)[:NUM_CURVES].tolist()
        _histogram(top, calibration, shown[0])
        _ecdf_difference(bottom, calibration, {i: known[i] for i in shown})
        coverage, dispersion = calibration.coverage([0.9])[0].mean().item(), calibration.dispersion.mean().item()
        numbers = f"p = {calibration.p_value:.2g}, dispersion {dispersion:.2f}\n90% intervals cover {coverage:.1%}"
        top.set_title(f"{name}\n{numbers}", fontsize=10)
    axes[0, 0].set_ylabel("relative density of ranks")
    axes[1, 0].set_ylabel("ECDF of ranks - uniform")
    return figure
