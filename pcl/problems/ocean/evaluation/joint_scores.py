r"""Scores of ensembles as wholes: what is wrong between points shows here, and nowhere in a score of single points.

Shapes: K members, C = 2 components, T times, H x W grid points; a truth is NaN where there is no water.
"""

__all__ = ["energy_score", "variogram_score"]

from collections.abc import Iterator

import torch
from torch import Tensor

from pcl.problems.ocean.evaluation.field_scores import weighted_mean

LAGS = (1, 2, 4)  # points apart


def energy_score(members: Tensor, truth: Tensor, area: Tensor) -> float:
    r"""Return the fair energy score of an ensemble of windows, m/s.

    .. math:: \frac1K \sum_i \|x_i - y\| - \frac{1}{2 K (K - 1)} \sum_{i, j} \|x_i - x_j\|, \qquad
        \|x\|^2 = \sum_g a_g x_g^2 \Big/ \sum_g a_g

    over the points with a truth: that of a point is the score of single points.

    Args:
        members: shape (K, C, T, H, W).
        truth: shape (C, T, H, W).
        area: of a shape that broadcasts to that of the truth.

    References:
        Gneiting and Raftery (2007), doi:10.1198/016214506000001437.

    Example:
        >>> members = torch.tensor([0.0, 2.0]).reshape(2, 1, 1, 1, 1)
        >>> energy_score(members, torch.ones(1, 1, 1, 1), torch.ones(1))
        0.0
    """
    known = torch.isfinite(truth)
    weight = (area.double() * known)[known]
    root = (weight / weight.sum()).sqrt()
    apart = (members[:, known] - truth[known]).double() * root
    number = len(members)
    score = apart.norm(dim=1).mean()
    if number > 1:
        score = score - torch.cdist(apart, apart).sum() / (2 * number * (number - 1))
    return float(score)


def variogram_score(members: Tensor, truth: Tensor, area: Tensor) -> float:
    r"""Return the variogram score of order one half of an ensemble of windows, m/s.

    .. math:: \Big\langle \Big( |y_g - y_h|^{1/2} - \frac1K \sum_i |x_{i g} - x_{i h}|^{1/2} \Big)^2 \Big\rangle

    over pairs of points that lie one, two or four apart in time, in latitude or in longitude.

    Args:
        members: shape (K, C, T, H, W).
        truth: shape (C, T, H, W).
        area: of a shape that broadcasts to that of the truth.

    References:
        Scheuerer and Hamill (2015), doi:10.1175/MWR-D-14-00269.1.
    """
    weights = area.double().expand(truth.shape)
    squares = [
        (
            ((y1 - y2).abs().sqrt() - (x1 - x2).abs().sqrt().mean(0)).double().square().flatten(),
            ((w1 + w2) / 2).flatten(),
        )
        for (y1, y2), (x1, x2), (w1, w2) in zip(_lagged(truth), _lagged(members), _lagged(weights), strict=True)
    ]
    return float(weighted_mean(*map(torch.cat, zip(*squares, strict=True))))


def _lagged(fields: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield fields beside themselves, moved by every lag along each of the last three axes."""
    for axis in (-3, -2, -1):
        for lag in LAGS:
            if (length := fields.shape[axis] - lag) > 0:
                yield fields.narrow(axis, 0, length), fields.narrow(axis, lag, length)
