"""Pictures of the covariance that a prior of currents has learned: curves of correlation and its start, and maps."""

__all__ = ["add_prior", "prior_figure"]

from typing import Any

import torch
from matplotlib.figure import Figure
from torch import Tensor

from pcl.evaluation.result import Evaluation
from pcl.problems.ocean.evaluation.point_law import NORMAL
from pcl.problems.ocean.prior.kernel import CurrentKernel, Points
from pcl.problems.ocean.prior.model import Covariance, CurrentPrior

LEARNED, FIRST = "#1f5f8b", "#b0552c"
REACH = 3.0  # of curves and maps, in units of the longest length and time
STEPS = 121


def correlation(kernel: Covariance, place: Tensor) -> Tensor:
    """Return the correlations of currents here and now with those at places (n, 3), shape (2, 2, n).

    Args:
        kernel: of the currents.
        place: km east, km north and days.

    Example:
        >>> correlation(CurrentKernel(), torch.zeros(1, 3, dtype=torch.float64))[..., 0].round()
        tensor([[1., 0.],
                [0., 1.]], dtype=torch.float64)
    """
    with torch.no_grad():
        one = torch.ones(len(place), dtype=torch.float64)
        here, there = Points(torch.zeros(1, 3, dtype=torch.float64), one[:1]), Points(place, one)
        deviation = kernel.variance(here)[:, 0].sqrt()
        found: Tensor = kernel(here, there)[:, 0] / (deviation[:, None, None] * deviation[:, None])
    return found


def prior_figure(prior: CurrentPrior) -> Figure:
    """Draw correlations along distance and time, as learned and as learning began, and maps of the learned ones."""
    kernel, first = prior.covariance(), prior.kernel.as_at_first()
    far = REACH * kernel.reach[:2].max().item()
    figure = Figure(figsize=(12.4, 7.4), layout="constrained")
    curves, maps = figure.subplots(2, 3)
    _draw_curves(curves, kernel, first, far)
    _draw_maps(figure, maps, kernel, far)
    figure.suptitle("\n".join(_lines(prior)), fontsize=9, x=0.01, ha="left", family="monospace")
    return figure


def _draw_curves(axes: Any, kernel: Covariance, first: CurrentKernel, far: float) -> None:
    line = torch.linspace(0, 1, STEPS, dtype=torch.float64)
    late = REACH * kernel.reach[2].item()
    panels = (("along the current, km", far, (0, 1)), ("across it, km", far, (1, 0)), ("later, days", late, (2, 2)))
    for axis, (title, end, (of_east, of_north)) in zip(axes, panels, strict=True):
        for number, coordinate in enumerate((of_east, of_north)):
            place = torch.zeros(STEPS, 3, dtype=torch.float64)
            place[:, coordinate] = end * line
            for one, colour, name in ((first, FIRST, "at first"), (kernel, LEARNED, "learned")):
                label = f"{('eastward', 'northward')[number]}, {name}"
                style = "--" if number else "-"
                axis.plot(end * line, correlation(one, place)[number, number], style, color=colour, label=label)
        axis.axhline(0, color="0.6", linewidth=0.8)
        axis.set(xlabel=title, xlim=(0, end), ylim=(-0.6, 1.05))
    axes[0].set_ylabel("correlation of a current with itself")
    axes[0].legend(frameon=False, fontsize=8)


def _draw_maps(figure: Figure, axes: Any, kernel: Covariance, far: float) -> None:
    side = torch.linspace(-far, far, STEPS, dtype=torch.float64)
    north, east = torch.meshgrid(side, side, indexing="ij")
    place = torch.stack([east.flatten(), north.flatten(), torch.zeros(STEPS**2, dtype=torch.float64)], 1)
    found = correlation(kernel, place).reshape(2, 2, STEPS, STEPS)
    names = ("eastward", "northward")
    for axis, (one, other) in zip(axes, ((0, 0), (0, 1), (1, 1)), strict=True):
        image = axis.pcolormesh(side, side, found[one, other], cmap="RdBu_r", vmin=-1, vmax=1, shading="nearest")
        axis.set(title=f"{names[one]} here, {names[other]} there", xlabel="km east", aspect="equal")
        axis.title.set_fontsize(10)
    axes[0].set_ylabel("km north")
    figure.colorbar(image, ax=list(axes), label="correlation", shrink=0.9)


def _lines(prior: CurrentPrior) -> list[str]:
    """Return what was learned in words, a line for each component and one for the rest."""
    kernel = prior.kernel
    with torch.no_grad():
        shares, lengths, days, drifts = (
            (2 * kernel.log_scales).exp().tolist(),
            kernel.lengths_km.tolist(),
            kernel.days.tolist(),
            kernel.drifts_km_day.tolist(),
        )
        noise, spread = float((2 * kernel.log_noise).exp()), prior.spread
    lines = [
        f"{kind:14s} {length[0]:6.1f} km east, {length[1]:6.1f} km north, {time:6.3g} days, variance {share:5.3f}, "
        f"drift {drift[0]:5.1f} km/day east, {drift[1]:5.1f} north"
        for kind, share, length, time, drift in zip(kernel.kinds, shares, lengths, days, drifts, strict=True)
    ]
    share = float(prior.log_share.detach().exp())
    pooled = [f"{share:.3g} of the covariance that all tiles show"] if prior.pooled.any() else []
    return [
        *lines,
        *pooled,
        f"variances over s\N{SUPERSCRIPT TWO}, s = s0 (local deviation / s0)^{float(kernel.exponent.detach()):.2f}, "
        f"s0 = {float(kernel.level):.3g} m/s; error of a measurement {noise:.3g}",
        f"spread times {float(spread.inflation.sqrt()):.3g}; degrees of freedom: {float(spread.freedom):.0f} of the "
        f"energy, {float(spread.degrees):.3g} of a point, whose own variance is {float(spread.unresolved):.2g}",
    ]


def add_prior(result: Evaluation, prior: CurrentPrior) -> None:
    """Add the picture of a prior and the numbers that it has learned.

    Args:
        result: to add to.
        prior: that was learned.
    """
    kernel = prior.kernel
    result.figures["prior.png"] = prior_figure(prior)
    result.captions["prior.png"] = (
        "Correlation of currents under the prior, along distance and time as it was learned and as learning began, and "
        "of the current at a point with that around it."
    )
    with torch.no_grad():
        for number, kind in enumerate(kernel.kinds):
            name = f"prior_{kind}_{number + 1}"
            for axis, length in zip(("east", "north"), kernel.lengths_km[number].tolist(), strict=True):
                result.metrics[f"{name}_length_{axis}_km"] = length
            result.metrics[f"{name}_days"] = float(kernel.days[number])
            result.metrics[f"{name}_variance"] = float((2 * kernel.log_scales[number]).exp())
        result.metrics["prior_noise_variance"] = float((2 * kernel.log_noise).exp())
        result.metrics["prior_exponent"] = float(kernel.exponent)
        spread = prior.spread
        result.metrics["prior_degrees_of_freedom"] = float(spread.freedom)
        result.metrics["prior_inflation"] = float(spread.inflation)
        result.metrics["prior_unresolved_variance"] = float(spread.unresolved)
        result.metrics["prior_point_degrees_of_freedom"] = min(float(spread.degrees), NORMAL)
