r"""Scores of estimated fields and ensembles.

Every point carries the weight of its area, :math:`\cos\varphi`; dry points carry none. Shapes: Q windows, K members,
C = 2 components, T times, H x W grid points, B bins; a truth is NaN where there is no water.
"""

__all__ = [
    "DriftScores",
    "drift_scores",
    "effective_resolution",
    "fair_crps",
    "gaussian_crps",
    "mean_scores",
    "rank_histogram",
    "weighted_mean",
    "zonal_spectra",
]

import math
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from pcl.sphere import METRES_PER_DEGREE


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
    error = estimate - truth
    rmse = weighted_mean(error.square(), area).sqrt()
    return {
        "rmse_m_s": float(rmse),
        "nrmse_score": float(1 - rmse / weighted_mean(truth.square(), area).sqrt()),
        "explained_variance": float(1 - _variance(error, area) / _variance(truth, area)),
    }


def _variance(values: Tensor, area: Tensor) -> Tensor:
    parts = []
    for component in range(values.shape[1]):
        part = values[:, component : component + 1]
        parts.append(weighted_mean((part - weighted_mean(part, area)).square(), area))
    return torch.stack(parts).sum()


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
    power, _ = zonal_spectra(truth)
    error, _ = zonal_spectra(torch.where(torch.isfinite(truth), estimate - truth, torch.nan))
    score: list[float] = (1 - error / power).tolist()
    length_km = truth.shape[-1] * spacing_km
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
    known = torch.isfinite(truth)
    below = (members < truth).sum(0)[known]
    ties = (members == truth).sum(0)[known]
    rank = below + (torch.rand(below.shape, generator=generator) * (ties + 1)).long()
    return torch.bincount(rank, minlength=len(members) + 1)


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
    latitude = true_paths[..., 2:]
    metre = torch.cat([torch.cos(torch.deg2rad(latitude)), torch.ones_like(latitude)], -1) * METRES_PER_DEGREE
    separation = ((paths - true_paths[..., :2]) * metre).norm(dim=-1)
    pieces = (true_paths[..., 1:, :2] - true_paths[..., :-1, :2]) * (metre[..., 1:, :] + metre[..., :-1, :]) / 2
    length = pieces.norm(dim=-1).cumsum(-1)
    counts = torch.isfinite(separation)
    mean = torch.where(counts, separation, 0).flatten(0, -2).sum(0) / counts.flatten(0, -2).sum(0)
    later = counts[..., 1:] & torch.isfinite(length)
    apart = torch.where(later, separation[..., 1:], 0).sum(-1)
    gone = torch.where(later, length, 0).sum(-1)
    skill = (1 - apart / gone).clamp(min=0)[gone > 0]
    return DriftScores(mean / 1000, float(skill.mean()))
