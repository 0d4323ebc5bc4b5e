r"""Scores of estimated fields and ensembles.

Every point carries the weight of its area, :math:`\cos\varphi`; dry points carry none. Shapes: Q windows, K members,
C = 2 components, T times, H x W grid points, B bins; a truth is NaN where there is no water.
"""

__all__ = [
    "DriftScores",
    "DriftTally",
    "FieldTally",
    "MeanSpectrum",
    "drift_scores",
    "effective_resolution",
    "fair_crps",
    "gaussian_crps",
    "mean_scores",
    "places_in_law",
    "rank_histogram",
    "resolved_km",
    "weighted_mean",
    "zonal_spectra",
]

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from pcl.evaluation.blocks import num_at_once
from pcl.problems.ocean.evaluation.running import RunningMean
from pcl.problems.ocean.sphere import METRES_PER_DEGREE


def weighted_mean(values: Tensor, weights: Tensor) -> Tensor:
    """Average over all that is not missing, a scalar.

    Args:
        values: NaN where missing.
        weights: of a shape that broadcasts to that of the values.

    Example:
        >>> weighted_mean(torch.tensor([1.0, 4.0, torch.nan]), torch.tensor([2.0, 1.0, 7.0]))
        tensor(2.)
    """
    known = torch.isfinite(values) * weights
    return (known * values.nan_to_num()).sum() / known.sum()


def mean_scores(estimate: Tensor, truth: Tensor, area: Tensor) -> dict[str, float]:
    r"""Score a point estimate.

    .. math::
        \text{RMSE} = \langle |\hat u - u|^2 / C \rangle^{1/2}, \quad
        \text{NRMSE score} = 1 - \text{RMSE} / \langle |u|^2 / C \rangle^{1/2}, \quad
        \text{explained variance} = 1 - \text{Var}(\hat u - u) / \text{Var}(u)

    The variance is that of each component over all windows, times and places, added over components.

    Args:
        estimate: m/s, shape (Q, C, T, H, W).
        truth: likewise.
        area: shape (Q, 1, 1, H, 1).

    Example:
        >>> truth = torch.tensor([1.0, -1.0, 2.0, -2.0]).reshape(1, 2, 1, 1, 2)
        >>> mean_scores(truth / 2, truth, torch.ones(1, 1, 1, 1, 1))
        {'rmse_m_s': 0.79..., 'nrmse_score': 0.5, 'explained_variance': 0.75}
    """
    tally = FieldTally()
    tally.add(estimate, truth, area)
    return tally.scores()


class FieldTally:
    """The scores of ``mean_scores``, of windows that come in blocks."""

    def __init__(self) -> None:
        self.wrong, self.true = RunningMean(), RunningMean()
        self.by_component = [(RunningMean(), RunningMean()) for _ in range(2)]

    def add(self, estimate: Tensor, truth: Tensor, area: Tensor) -> None:
        """Add windows, shapes (Q, C, T, H, W) and (Q, 1, 1, H, 1)."""
        error = estimate - truth
        self.wrong.add(error.square(), area)
        self.true.add(truth.square(), area)
        for component, (wrong, true) in enumerate(self.by_component):
            wrong.add(error[:, component : component + 1], area)
            true.add(truth[:, component : component + 1], area)

    def join(self, later: "FieldTally") -> None:
        """Add the windows of another."""
        self.wrong.join(later.wrong)
        self.true.join(later.true)
        for ours, theirs in zip(self.by_component, later.by_component, strict=True):
            for mean, other in zip(ours, theirs, strict=True):
                mean.join(other)

    def scores(self) -> dict[str, float]:
        """Return the scores of all windows so far."""
        rmse = math.sqrt(self.wrong.mean)
        left, all_of_it = (sum(pair[i].variance for pair in self.by_component) for i in range(2))
        return {
            "rmse_m_s": rmse,
            "nrmse_score": 1 - _ratio(rmse, math.sqrt(self.true.mean)),
            "explained_variance": 1 - _ratio(left, all_of_it),
        }


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole else math.nan


def zonal_spectra(fields: Tensor) -> tuple[Tensor, int]:
    r"""Return the mean power spectrum along rows that are wet throughout.

    Rows lose their linear trend and are tapered by a Hann window: tiles are small and not periodic.

    Args:
        fields: shape (..., W), NaN where there is no value.

    Returns:
        Power at the wavenumbers 1 .. W // 2, NaN without such a row, and the number of rows averaged.

    Example:
        >>> power, rows = zonal_spectra(torch.cos(torch.arange(16) * 2 * torch.pi * 4 / 16)[None])
        >>> int(power.argmax()) + 1, rows
        (4, 1)
    """
    rows = fields.reshape(-1, fields.shape[-1])
    rows = rows[torch.isfinite(rows).all(-1)].double()
    width = rows.shape[1]
    if len(rows) == 0:
        return torch.full((width // 2,), torch.nan, dtype=torch.float64), 0
    design = torch.stack([torch.ones(width), torch.linspace(-1, 1, width)], 1).double()
    rows = rows - rows @ design @ torch.linalg.inv(design.T @ design) @ design.T
    power = torch.fft.rfft(rows * torch.hann_window(width, periodic=False, dtype=torch.float64)).abs().square()
    return power[:, 1:].mean(0), len(rows)


def effective_resolution(estimate: Tensor, truth: Tensor, spacing_km: float) -> float:
    r"""Return the wavelength in km down to which an estimate resolves the truth, NaN where it never does.

    .. math:: 1 - \text{PSD}(\hat u - u)(k) / \text{PSD}(u)(k) = \tfrac12

    From the longest wavelength down, the first crossing, by linear interpolation in the wavenumber; an estimate above
    one half throughout resolves the shortest wavelength of the grid.

    Args:
        estimate: shape (Q, C, T, H, W).
        truth: likewise, NaN where there is no water.
        spacing_km: of the grid in longitude.

    References:
        Ballarotta et al. (2019), doi:10.5194/os-15-1091-2019.
    """
    power, wrong = MeanSpectrum(), MeanSpectrum()
    power.add(truth)
    wrong.add(torch.where(torch.isfinite(truth), estimate - truth, torch.nan))
    return resolved_km(power, wrong, truth.shape[-1] * spacing_km)


class MeanSpectrum:
    """The mean of ``zonal_spectra`` over fields that come in blocks."""

    def __init__(self) -> None:
        self.total, self.rows = torch.zeros(1, dtype=torch.float64), 0

    def add(self, fields: Tensor) -> None:
        """Add fields of shape (..., W)."""
        power, rows = zonal_spectra(fields)
        if rows:
            self.total = self.total + rows * power
        self.rows += rows

    def join(self, later: "MeanSpectrum") -> None:
        """Add the fields of another."""
        self.total, self.rows = self.total + later.total, self.rows + later.rows

    @property
    def power(self) -> Tensor:
        """At the wavenumbers from 1; NaN without a row."""
        return self.total / self.rows


def resolved_km(truth: MeanSpectrum, error: MeanSpectrum, length_km: float) -> float:
    """Return the wavelength of ``effective_resolution`` from the spectra along rows of a length."""
    score: list[float] = (1 - error.power / truth.power).tolist()
    if not score[0] >= 0.5:
        return math.nan
    for number, (before, after) in enumerate(pairwise(score), start=1):
        if not after >= 0.5:
            return length_km / (number + (before - 0.5) / (before - after))
    return length_km / len(score)


def fair_crps(members: Tensor, truth: Tensor) -> Tensor:
    r"""Return the fair continuous ranked probability score of every point.

    .. math:: \frac1K \sum_i |x_i - y| - \frac{1}{2 K (K - 1)} \sum_{i, j} |x_i - x_j|

    One member has no second term: its score is the absolute error.

    Args:
        members: shape (K, ...).
        truth: shape (...).

    References:
        Ferro (2014), doi:10.1002/qj.2270.

    Example:
        >>> fair_crps(torch.tensor([0.0, 2.0]), torch.tensor(1.0))
        tensor(0.)
    """
    dtype = torch.promote_types(members.dtype, truth.dtype)
    parts = _point_blocks(members, truth)
    return torch.cat([_fair_crps(part.to(dtype), true) for part, true in parts]).reshape(truth.shape)


def _point_blocks(members: Tensor, truth: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield members (K, n) and truth (n,) of some points at a time: what is made of many members is large."""
    at_once = num_at_once(len(members) * truth.itemsize)
    parts = torch.split(members.reshape(len(members), -1), at_once, 1)
    return zip(parts, torch.split(truth.flatten(), at_once), strict=True)


def _fair_crps(members: Tensor, truth: Tensor) -> Tensor:
    number = len(members)
    score = (members - truth).abs().mean(0)
    if number > 1:
        ordered = members.sort(0).values
        factor = 2 * torch.arange(1, number + 1, dtype=members.dtype) - number - 1
        score = score - torch.tensordot(factor, ordered, 1) / (number * (number - 1))
    return score


def gaussian_crps(mean: Tensor, std: Tensor, truth: Tensor) -> Tensor:
    r"""Return the continuous ranked probability score of a normal law at every point.

    .. math:: \sigma \left( z (2 \Phi(z) - 1) + 2 \varphi(z) - \pi^{-1/2} \right), \qquad z = (y - \mu) / \sigma

    References:
        Gneiting et al. (2005), doi:10.1175/MWR2904.1.

    Example:
        >>> gaussian_crps(torch.tensor(0.0), torch.tensor(1.0), torch.tensor(0.0))
        tensor(0.2337)
    """
    z = (truth - mean) / std
    density = torch.exp(-z.square() / 2) / math.sqrt(2 * math.pi)
    return std * (z * torch.erf(z / math.sqrt(2)) + 2 * density - 1 / math.sqrt(math.pi))


def places_in_law(members: Tensor, truth: Tensor, generator: torch.Generator) -> Tensor:
    r"""Return the place of the truth among the members of every point, 0 to 1: uniform if it is of their law.

    .. math:: \frac{r + U}{K + 1}

    with its rank r from 0 to K, ties broken at random, and U uniform.

    Args:
        members: shape (K, ...).
        truth: shape (...), NaN where it does not count.
        generator: of U and of the broken ties.

    Returns:
        Shape (...), float64; NaN where the truth is.
    """
    parts = _point_blocks(members, truth)
    counts = [torch.stack([(part < true).sum(0), (part == true).sum(0)]) for part, true in parts]
    below, ties = torch.cat(counts, 1).double().reshape(2, *truth.shape)
    place = below + torch.rand(truth.shape, generator=generator, dtype=torch.float64) * (ties + 1)
    placed: Tensor = (place / (len(members) + 1)).where(torch.isfinite(truth), torch.nan)
    return placed


def rank_histogram(members: Tensor, truth: Tensor, generator: torch.Generator) -> Tensor:
    """Return how often the truth has each rank among the members, from 0 to K; ties are broken at random.

    Args:
        members: shape (K, ...).
        truth: shape (...), NaN where it does not count.
        generator: of the broken ties.

    Returns:
        Counts of shape (K + 1,).

    Example:
        >>> rank_histogram(torch.tensor([[1.0, 5.0], [2.0, 6.0]]), torch.tensor([3.0, 0.0]), torch.Generator())
        tensor([1, 0, 1])
    """
    places = places_in_law(members, truth, generator)
    number = len(members) + 1
    return torch.bincount((places[torch.isfinite(truth)] * number).long(), minlength=number)


@dataclass(frozen=True)
class DriftScores:
    """How drifters in an estimate leave those in the truth.

    Attributes:
        separation_km: mean distance at every record, shape (P,).
        skill: Liu-Weisberg skill, mean over drifters, 0 to 1.
    """

    separation_km: Tensor
    skill: float


def drift_scores(paths: Tensor, true_paths: Tensor) -> DriftScores:
    r"""Compare paths with the true ones.

    .. math:: \text{skill} = \max\Bigl(0, 1 - \frac{\sum_i d_i}{\sum_i l_i}\Bigr)

    with the separation d and the length l of the true path so far, over the records after the start.

    Args:
        paths: degrees east and north, shape (..., P, 2).
        true_paths: likewise, with the latitude in a third component, shape (..., P, 3); NaN from where a drifter
            no longer counts.

    References:
        Liu and Weisberg (2011), doi:10.1029/2010JC006837, with tolerance 1.
    """
    tally = DriftTally()
    tally.add(paths, true_paths)
    return tally.scores()


class DriftTally:
    """The scores of ``drift_scores``, of drifters that come in blocks."""

    def __init__(self) -> None:
        self.total_m, self.counts = torch.zeros(1, dtype=torch.float64), torch.zeros(1, dtype=torch.int64)
        self.skill = RunningMean()

    def add(self, paths: Tensor, true_paths: Tensor) -> None:
        """Add drifters, shapes (..., P, 2) and (..., P, 3)."""
        latitude = true_paths[..., 2:]
        metre = torch.cat([torch.cos(torch.deg2rad(latitude)), torch.ones_like(latitude)], -1) * METRES_PER_DEGREE
        separation = ((paths - true_paths[..., :2]) * metre).norm(dim=-1)
        pieces = (true_paths[..., 1:, :2] - true_paths[..., :-1, :2]) * (metre[..., 1:, :] + metre[..., :-1, :]) / 2
        length = pieces.norm(dim=-1).cumsum(-1)
        counts = torch.isfinite(separation)
        self.total_m = self.total_m + torch.where(counts, separation, 0).flatten(0, -2).sum(0)
        self.counts = self.counts + counts.flatten(0, -2).sum(0)
        later = counts[..., 1:] & torch.isfinite(length)
        apart = torch.where(later, separation[..., 1:], 0).sum(-1)
        gone = torch.where(later, length, 0).sum(-1)
        skill = (1 - apart / gone).clamp(min=0)[gone > 0]
        self.skill.add(skill, torch.ones_like(skill))

    def join(self, later: "DriftTally") -> None:
        """Add the drifters of another."""
        self.total_m, self.counts = self.total_m + later.total_m, self.counts + later.counts
        self.skill.join(later.skill)

    def scores(self) -> DriftScores:
        """Return the scores of all drifters so far."""
        return DriftScores(self.total_m / self.counts / 1000, self.skill.mean)
