"""A learned model beside what needs no learning: chance, and whether a difference is more than noise.

Shapes: N queries.
"""

__all__ = ["chance_metrics", "is_behind", "sentence"]

import math
from collections.abc import Sequence

import torch
from torch import Tensor

NOISE = 2.0  # standard errors


def chance_metrics(query_ids: Tensor, candidate_ids: Tensor, recall_at: Sequence[int]) -> dict[str, float]:
    r"""Return R@K and the median rank of candidates in random order, exactly.

    A query with r relevant ones among N candidates has its first relevant one behind at least m others with probability

    .. math:: P(\text{rank} > m) = \binom{N - m}{r} \Big/ \binom{N}{r}

    Args:
        query_ids: ``identity_of`` the queries, shape (N,).
        candidate_ids: ``identity_of`` their partners, shape (N,).
        recall_at: K of R@K.

    Example:
        >>> chance_metrics(torch.arange(10), torch.arange(10), [1, 5])
        {'recall@1': 0.1, 'recall@5': 0.5, 'median_rank': 5.0}
    """
    number, num_ids = len(query_ids), int(candidate_ids.max()) + 1
    pairs = torch.unique(query_ids * num_ids + candidate_ids)
    copies = torch.bincount(candidate_ids)[pairs % num_ids]
    of_each = torch.zeros(int(query_ids.max()) + 1, dtype=torch.long).index_add_(0, pairs // num_ids, copies)
    relevant, counts = torch.unique(of_each[query_ids], return_counts=True)

    def share(most: int) -> float:
        """Return the share of the queries whose rank is at most so much."""
        left = torch.tensor(max(0.0, number - most), dtype=torch.float64)
        missed = torch.where(left >= relevant, (_log_ways(left, relevant) - _log_ways(number, relevant)).exp(), 0.0)
        return 1 - float((missed * counts).sum()) / number

    low, high = 0, number  # the median lies above one and not above the other
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if share(middle) >= 0.5 - 1e-12 else (middle, high)
    return {f"recall@{k}": round(share(k), 12) for k in recall_at} | {"median_rank": float(high)}


def _log_ways(number: Tensor | int, chosen: Tensor) -> Tensor:
    """Return the logarithm of a binomial coefficient."""
    total, part = torch.as_tensor(number, dtype=torch.float64), chosen.double()
    return torch.lgamma(total + 1) - torch.lgamma(part + 1) - torch.lgamma((total - part).clamp(min=0) + 1)


def is_behind(learned: Tensor, other: Tensor, query_ids: Tensor) -> bool:
    """Whether what is learned finds less than another way, by more than two standard errors of the difference.

    Equal queries get equal answers, so they count as one observation each.

    Args:
        learned: hits, one for each query, 0 or 1, shape (N,).
        other: hits of the other way, shape (N,).
        query_ids: equal for equal queries, shape (N,).

    Example:
        >>> hits = torch.arange(100) % 2
        >>> is_behind(torch.zeros(100), hits, torch.arange(100)), is_behind(torch.zeros(100), hits, hits)
        (True, False)
    """
    difference = other.double() - learned.double()
    mean, (_, groups) = difference.mean(), torch.unique(query_ids, return_inverse=True)
    num_groups = int(groups.max()) + 1
    if num_groups < 2:
        return False
    sums = torch.zeros(num_groups, dtype=torch.float64).index_add_(0, groups, difference - mean)
    error = math.sqrt(float(sums.square().sum()) * num_groups / (num_groups - 1)) / len(difference)
    return bool(mean > NOISE * error) and bool(mean > 0)


def sentence(what: str, by: str, learned: float, other: float) -> str:
    """Say that learning loses.

    Example:
        >>> sentence("R@1 of v given u", "linear optimum", 0.25, 0.5)
        'Learning loses: R@1 of v given u is 0.2500, and 0.5000 by what needs no learning (linear optimum).'
    """
    return f"Learning loses: {what} is {learned:.4f}, and {other:.4f} by what needs no learning ({by})."
