r"""Means and variances of what comes in blocks, without keeping it.

Blocks are joined by the update of Chan, Golub and LeVeque (1983), doi:10.1080/00031305.1983.10483115:

.. math::
    \bar x = \bar x_a + \frac{w_b}{w_a + w_b} (\bar x_b - \bar x_a), \qquad
    S = S_a + S_b + \frac{w_a w_b}{w_a + w_b} (\bar x_b - \bar x_a)^2
"""

__all__ = ["RunningMean"]

import math

import torch
from torch import Tensor


class RunningMean:
    """The weighted mean and variance of all values so far, in float64; what is missing has no weight.

    Example:
        >>> running = RunningMean()
        >>> running.add(torch.tensor([1.0, 4.0, torch.nan]), torch.tensor([2.0, 1.0, 7.0]))
        >>> running.add(torch.tensor([5.0]), torch.tensor([1.0]))
        >>> running.mean, running.variance
        (2.75, 3.1875)
    """

    def __init__(self) -> None:
        self.weight, self._mean, self._squares = 0.0, 0.0, 0.0

    def add(self, values: Tensor, weights: Tensor) -> None:
        """Add values, NaN where missing, with weights of a shape that broadcasts to theirs."""
        known = torch.isfinite(values) * weights.double()
        weight = float(known.sum())
        if weight == 0:
            return
        filled = values.double().nan_to_num()
        mean = float((known * filled).sum()) / weight
        squares = float((known * (filled - mean).square()).sum())
        self._add(weight, mean, squares)

    def join(self, later: "RunningMean") -> None:
        """Add all values that another has taken."""
        if later.weight:
            self._add(later.weight, later._mean, later._squares)

    def _add(self, weight: float, mean: float, squares: float) -> None:
        total, apart = self.weight + weight, mean - self._mean
        self._squares += squares + self.weight * weight / total * apart**2
        self._mean += weight / total * apart
        self.weight = total

    @property
    def mean(self) -> float:
        """NaN without a value."""
        return self._mean if self.weight else math.nan

    @property
    def variance(self) -> float:
        """NaN without a value."""
        return self._squares / self.weight if self.weight else math.nan
