r"""Whether two methods differ by more than chance: their difference over blocks of time, by the jackknife.

Pairs of one time share the weather, so each time is one block of all its pairs. With the score S of all blocks and
:math:`S_{-b}` without block b, the pseudo-values :math:`p_b = B S - (B - 1) S_{-b}` have the mean of the score, and

.. math:: \operatorname{var} S = \frac{\gamma_0 + 2 \max(\gamma_1, 0)}{B}

with their variance :math:`\gamma_0` and their covariance :math:`\gamma_1` from a block to the next: weather lasts. The
interval of 95 % is that of Student's law with B - 1 degrees of freedom.

Shapes: N pairs, B blocks of time.
"""

__all__ = ["Difference", "blocks_of_time", "difference", "student_quantile"]

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

NORMAL_QUANTILE = 1.959963984540054  # of 97.5 %
LEAST_BLOCKS = 3
Score = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Difference:
    """Score of a method less that of another one.

    Attributes:
        value: less than nothing where the first has the smaller score.
        low: end of the interval of 95 %; NaN where there are fewer than three blocks.
        high: likewise.
        num_blocks: B.
    """

    value: float
    low: float
    high: float
    num_blocks: int

    @property
    def is_less(self) -> bool:
        """Whether the first method has the smaller score, by more than chance."""
        return self.high < 0

    @property
    def is_more(self) -> bool:
        """Whether it has the larger one, by more than chance."""
        return self.low > 0


def blocks_of_time(start_s: Tensor) -> Tensor:
    """Return the block of each pair, 0 .. B - 1 in the order of time, shape (N,).

    Args:
        start_s: when the windows begin, shape (N,): held-out windows begin at the same time or do not overlap.
    """
    blocks: Tensor = torch.unique(start_s, return_inverse=True)[1]
    return blocks


def difference(first: Tensor, second: Tensor, blocks: Tensor, score: Score = torch.as_tensor) -> Difference:
    """Compare two methods on the same pairs.

    Args:
        first: sums of one method's errors by pair, and of their weights, shape (N, 2).
        second: of the other, likewise.
        blocks: of the pairs, shape (N,).
        score: of a mean error: ``torch.sqrt`` of a mean square; itself unless given.

    Example:
        >>> weights, blocks = torch.ones(4), torch.arange(4)
        >>> worse = torch.stack([torch.tensor([2.0, 2.1, 2.0, 1.9]), weights], 1)
        >>> found = difference(torch.stack([weights, weights], 1), worse, blocks)
        >>> round(found.value, 6), found.is_less
        (-1.0, True)
    """
    number = int(blocks.max()) + 1
    shape = number, 2
    sums = [torch.zeros(shape, dtype=torch.float64).index_add_(0, blocks, part.double()) for part in (first, second)]
    value = _apart([part.sum(0) for part in sums], score)
    if number < LEAST_BLOCKS:
        return Difference(float(value), math.nan, math.nan, number)
    left_out = _apart([part.sum(0) - part for part in sums], score)
    apart = (number - 1) * (left_out.mean() - left_out)  # pseudo-values less their mean
    variance, next_to = apart.square().sum() / (number - 1), (apart[1:] * apart[:-1]).sum() / (number - 1)
    error = math.sqrt(float(variance + 2 * next_to.clamp(min=0)) / number)
    reach = student_quantile(number - 1) * error
    return Difference(float(value), float(value) - reach, float(value) + reach, number)


def _apart(sums: list[Tensor], score: Score) -> Tensor:
    first, second = (score(part[..., 0] / part[..., 1]) for part in sums)
    apart: Tensor = first - second
    return apart


def student_quantile(degrees: int) -> float:
    """Return the quantile of 97.5 % of Student's law, within a few parts in a thousand from three degrees on.

    References:
        Abramowitz and Stegun (1964), equation 26.7.5.

    Example:
        >>> round(student_quantile(8), 3)
        2.306
    """
    x = NORMAL_QUANTILE
    terms: tuple[float, ...] = (
        (x**3 + x) / 4,
        (5 * x**5 + 16 * x**3 + 3 * x) / 96,
        (3 * x**7 + 19 * x**5 + 17 * x**3 - 15 * x) / 384,
        (79 * x**9 + 776 * x**7 + 1482 * x**5 - 1920 * x**3 - 945 * x) / 92160,
    )
    return x + math.fsum(term / float(degrees) ** power for power, term in enumerate(terms, start=1))
