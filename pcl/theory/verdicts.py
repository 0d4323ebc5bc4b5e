"""What the theory expects of the results, what was measured, and the verdicts.

Tolerances of trained encoders are about twice the largest deviation that was seen; those of closed forms are rounding.
"""

__all__ = ["Check", "Results", "judge", "loss_title", "pick", "title"]

import math
from collections.abc import Iterator, Sequence
from statistics import fmean
from typing import NamedTuple

import torch
from torch import Tensor

from pcl.gaussian import DIRECTIONS, GaussianPair, GaussianProcessPair
from pcl.theory.cells import Cell, population_value
from pcl.theory.plan import Result, Task
from pcl.theory.plane import PLANE, planar_model
from pcl.theory.ranks import exact_directions

Results = Sequence[tuple[Task, Result]]

# how far above the optimum training may end, as a share of the loss of encoders that are zero
SHARES = {
    ("joint", "inner_product"): 0.03,
    ("joint", "potentials"): 0.2,  # the mean of the true density ratio over pairs is 83: its batches vary much
    ("conditional_mmd", ""): 0.015,
    ("joint_mmd", ""): 0.12,
}
P_VALUE = "ranks_calibration_p_value"
SYMBOLS = {"global_batch": "B", "num_pairs": "N"}
RECIPES = {"ours": "our recipe", "paper": "the paper's recipe"}


class Check(NamedTuple):
    """One comparison: it passes if low <= measured <= high.

    Attributes:
        experiment: of ``pcl.theory.plan``.
        name: what was measured, in words; unique within an experiment.
        expected: what theory says, in words.
        measured: the number.
        low: smallest value that passes.
        high: largest value that passes.

    Example:
        >>> Check("minimum", "excess", "nothing is below", 0.5, low=-1e-6, high=1e-10).passed
        False
    """

    experiment: str
    name: str
    expected: str
    measured: float
    low: float
    high: float

    @property
    def passed(self) -> bool:
        """Whether the number is where it should be; nan is nowhere."""
        return self.low <= self.measured <= self.high


def loss_title(cell: Cell) -> str:
    """Name a cell's loss and weights.

    Example:
        >>> loss_title(Cell(weights=(2.0, 0.0)))
        'conditional (2, 0)'
    """
    weights = f" ({cell.weights[0]:g}, {cell.weights[1]:g})" if cell.loss.startswith("conditional") else ""
    return cell.loss.replace("_mmd", " MMD") + weights


def title(cell: Cell) -> str:
    """Name a cell's loss, weights, tilting and rank.

    Example:
        >>> title(Cell(weights=(2.0, 0.0), tilting="squared_distance", embedding_dim=3))
        'conditional (2, 0), squared distance, rank 3'
    """
    return f"{loss_title(cell)}, {cell.tilting.replace('_', ' ')}, rank {cell.embedding_dim}"


def pick(results: Results, experiment: str, series: str | None = None) -> list[tuple[Cell, Result]]:
    """Return the cells and results of an experiment, or of one of its curves, in order of size."""
    chosen = [(t.cell, r) for t, r in results if t.experiment == experiment and series in (None, t.series)]
    return sorted(chosen, key=lambda found: (found[0].embedding_dim, found[0].global_batch, found[0].num_pairs))


def judge(law: GaussianPair, results: Results) -> list[Check]:
    """Compare every result with theory.

    Args:
        law: of the Gaussian process that the results are about.
        results: tasks with what they returned.
    """
    return [check for function in CHECKS for check in function(law, results)]


def remaining_divergence(sigma: Tensor, cell: Cell) -> float | None:
    r"""Return what the best encoders of a rank leave of the divergence, as a sum over canonical correlations.

    A pair that is left out costs :math:`-\tfrac12\log(1 - \sigma^2)`. One that is kept costs

    .. math::
        \text{inner product, conditional: } -\tfrac12\log(1 - \sigma^2) - \tfrac{\sigma^2}{2}, \qquad
        \text{inner product, joint: } -\tfrac12\log(1 - \sigma^2) - h\sigma - \tfrac12\log(1 - h^2), \qquad
        \text{squared distance, joint: } \tfrac12(\sigma - \log(1 + \sigma))

    and nothing with potentials, nor under the squared distance with one direction. None: no formula (conditional
    weights sum to 2).
    """
    information = -torch.log1p(-sigma.square()) / 2
    sigma, known = sigma[: cell.embedding_dim], information[: cell.embedding_dim]
    if cell.tilting == "potentials":
        kept = torch.zeros_like(sigma)
    elif cell.loss == "joint" and cell.tilting == "squared_distance":
        kept = (sigma - torch.log1p(sigma)) / 2
    elif cell.loss == "joint":
        h = ((1 + 4 * sigma**2).sqrt() - 1) / (2 * sigma)
        kept = known - h * sigma - torch.log1p(-h.square()) / 2
    elif cell.tilting == "inner_product":
        kept = known - sigma**2 / 2
    elif 0 in cell.weights:
        kept = torch.zeros_like(sigma)
    else:
        return None
    return float(kept.sum() + information[len(sigma) :].sum())


def _minimum(law: GaussianPair, results: Results) -> Iterator[Check]:
    sigma = law.canonical_correlations()
    for cell, found in pick(results, "minimum"):
        excess = found["best_loss"] - found["minimised_loss"]
        yield Check("minimum", title(cell), "three descents find nothing below the closed form", excess, -1e-6, 1e-10)
        formula = remaining_divergence(sigma, cell)
        if formula is not None:
            expected = f"{formula:.6f}, summed over canonical correlations"
            name = f"{title(cell)}: remaining divergence"
            yield Check("minimum", name, expected, found["best_loss"], formula - 1e-9, formula + 1e-9)


def _optima(law: GaussianPair, results: Results) -> Iterator[Check]:
    for cell, found in pick(results, "optima"):
        nothing = [torch.zeros(1, len(part), dtype=torch.float64) for part in (law.c_uu, law.c_vv)]
        whole = population_value(law, nothing * (2 if cell.tilting == "potentials" else 1), cell).item()
        share = SHARES.get((cell.loss, cell.tilting), SHARES.get((cell.loss, ""), 0.004))
        expected = f"at most {share:.1%} of {whole:.4f} above the optimum {found['best_loss']:.4f}, never below"
        yield Check("optima", title(cell), expected, found["learned_loss"] - found["best_loss"], -1e-9, share * whole)


def _recipe(law: GaussianPair, results: Results) -> Iterator[Check]:
    found = [result for _, result in pick(results, "recipe")]
    if not found:
        return
    for direction in DIRECTIONS:
        learned, plug_in = (fmean(r[f"{name}_error_{direction}"] for r in found) for name in ("learned", "plug_in"))
        name = f"error of {direction} over that of the plug-in, means of {len(found)} samples of 10,000 pairs"
        yield Check("recipe", name, "at most 2", learned / plug_in, 0, 2)
    yield Check("recipe", "seconds, slowest", "at most 60 on one core", max(r["seconds"] for r in found), 0, 60)


def _embedding_dim(law: GaussianPair, results: Results) -> Iterator[Check]:
    for cell, found in pick(results, "embedding_dim", "ours"):
        for direction in DIRECTIONS:
            best, learned = (found[f"{name}_error_{direction}"] for name in ("best", "learned"))
            name, expected = f"error of {direction}, E = {cell.embedding_dim}", f"{best:.4f}, within .01"
            yield Check("embedding_dim", name, expected, learned, best - 0.01, best + 0.01)


def _trend(results: Results, field: str, series: str, expected: str, *, falls: bool = True) -> Iterator[Check]:
    """Expect that the excess loss falls, or rises, from the smallest to the largest value of a field."""
    curve = pick(results, field, series)
    if len(curve) > 1:
        (first, small), (last, large) = curve[0], curve[-1]
        ratio = (large["learned_loss"] - large["best_loss"]) / (small["learned_loss"] - small["best_loss"])
        what = f"excess loss at {SYMBOLS[field]} = {getattr(last, field):,} over that at {getattr(first, field):,}"
        yield Check(field, f"{RECIPES[series]}: {what}", expected, ratio, *((0, 1) if falls else (1, math.inf)))


def _global_batch(law: GaussianPair, results: Results) -> Iterator[Check]:
    yield from _trend(results, "global_batch", "ours", "falls: as many steps, more negatives")
    fewer = "rises: as many epochs, so fewer steps"
    yield from _trend(results, "global_batch", "paper", fewer, falls=False)


def _num_pairs(law: GaussianPair, results: Results) -> Iterator[Check]:
    for series in RECIPES:
        yield from _trend(results, "num_pairs", series, "falls")


def _paper(law: GaussianPair, results: Results) -> Iterator[Check]:
    """Expect where the paper's recipe ends at its standard setting, on its own process."""
    if not torch.equal(law.covariance, GaussianProcessPair().law().covariance):
        return
    for cell, found in pick(results, "num_pairs", "paper"):
        if (cell.num_pairs, cell.embedding_dim) == (10_000, 5):
            for direction, error in zip(DIRECTIONS, (0.030, 0.143), strict=True):
                name, measured = f"{RECIPES['paper']}: error of {direction}", found[f"learned_error_{direction}"]
                expected = f"about {error:.3f} at N = 10,000, B = 512, E = 5"
                yield Check("num_pairs", name, expected, measured, error / 2, error * 2)


def _negatives(law: GaussianPair, results: Results) -> Iterator[Check]:
    own, gathered = (
        {cell.global_batch: r["learned_loss"] - r["best_loss"] for cell, r in pick(results, "negatives", series)}
        for series in ("own", "gathered")
    )
    for batch, bias in own.items():
        two = f"excess loss of two workers with their own {batch // 2} pairs each"
        ratio, expected = bias / gathered[batch], "about 2: a bias that falls as one over the negatives"
        yield Check("negatives", f"{two}, over that with {batch} gathered", expected, ratio, 1.4, 2.8)
        if batch // 2 in gathered:
            ratio = bias / gathered[batch // 2]
            yield Check("negatives", f"{two}, over that of one worker with as many", "about 1", ratio, 0.7, 1.4)


def _calibration(law: GaussianPair, results: Results) -> Iterator[Check]:
    for cell, found in pick(results, "calibration"):
        for name in ("best", "learned") if cell.tilting != "cosine" else ():  # of which nothing is known
            for direction in DIRECTIONS:
                what, metrics = f"{title(cell)}, {name} encoders, {direction}", found[f"{name}_{direction}"]
                is_reached = name == "best" or cell.loss != "joint"  # training leaves some of the joint loss: SHARES
                if direction in exact_directions(cell) and is_reached:
                    yield from _exact(what, metrics)
                elif cell.tilting == "inner_product":
                    expected, p_value = "covariance at the prior: visibly not uniform", metrics[P_VALUE]
                    yield Check("calibration", f"{what}: p-value of uniform ranks", expected, p_value, 0, 1e-6)


def _exact(what: str, metrics: Result) -> Iterator[Check]:
    """Expect the ranks and coverage of a conditional that is the true one."""
    expected = "conditional exact: uniform"
    yield Check("calibration", f"{what}: p-value of uniform ranks", expected, metrics[P_VALUE], 1e-3, 1)
    for level in (0.5, 0.9):
        name, covered = f"{what}: coverage at {level:.0%}", metrics[f"ranks_coverage_{100 * level:.0f}"]
        yield Check("calibration", name, f"{level} within .02", covered, level - 0.02, level + 0.02)


def _plane(law: GaussianPair, results: Results) -> Iterator[Check]:
    spread = {}
    for cell, found in pick(results, "plane"):
        best, learned = (planar_model(found[f"{name}_encoders"], cell.tilting) for name in ("best", "learned"))
        for field, what, tolerance in (
            ("mean", "mean of u given v = 1", 0.03),
            ("variance", "variance of u given v", 0.05),
            ("marginal_variance", "variance of u", 0.15),
        ):
            expected, measured = getattr(best, field), getattr(learned, field)
            low, high = expected - tolerance, expected + tolerance
            yield Check("plane", f"{title(cell)}: {what}", f"{expected:.4f} within {tolerance}", measured, low, high)
        if cell.tilting == "inner_product":
            spread[cell.loss] = learned.marginal_variance - PLANE.c_uu.item()
    if len(spread) == 2:
        name = "excess variance of the marginal of u, joint loss over conditional loss"
        yield Check("plane", name, "below 1 (Corollary 5.7)", spread["joint"] / spread["conditional"], 0, 1)


def _cosine(law: GaussianPair, results: Results) -> Iterator[Check]:
    for _, found in pick(results, "cosine"):
        best, excess = found["best_strength"], found["learned_loss"] - found["best_loss"]
        expected = f"{best:.4f} = artanh(2/pi arcsin rho), within .03"
        yield Check(
            "cosine", "strength a of the tilting", expected, found["learned_strength"], best - 0.03, best + 0.03
        )
        yield Check("cosine", "divergence above the best", "at most .001, never below", excess, -1e-9, 1e-3)


CHECKS = (
    _minimum,
    _optima,
    _recipe,
    _embedding_dim,
    _global_batch,
    _num_pairs,
    _paper,
    _negatives,
    _calibration,
    _plane,
    _cosine,
)
