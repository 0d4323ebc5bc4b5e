r"""Retrieval ranks of pairs, by blocks: never a matrix of all scores.

A candidate is *relevant* to a query when the two values occur as a pair: equal candidates (ten labels among 10,000
pairs) are the same answer, not each other's negatives. The rank of a query is that of its best relevant candidate,
and **ties count against the model**:

.. math:: \text{rank}_i = 1 + \#\{j \text{ irrelevant}: s_{ij} \ge \max_{k \text{ relevant}} s_{ik}\}

Shapes: N pairs, F features.
"""

__all__ = ["RETRIEVALS", "both_ranks", "head_of", "identity_of", "retrieval_metrics", "retrieval_ranks", "row_of"]

import hashlib
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from pcl.evaluation.parts import HERE, Parts
from pcl.evaluation.stripes import Distinct, Scores, num_behind

MOST_PAIRS = 8192
RETRIEVALS = {"v_given_u": (0, 1), "u_given_v": (1, 0)}
"""The places of the query and of the candidates in (u, v), by direction."""


def head_of(title: str, recall_at: Sequence[int]) -> list[str]:
    """Return the head of a table of retrieval."""
    return [title, *(f"R@{k}" for k in recall_at), "median rank"]


def row_of(name: str, metrics: Mapping[str, float], recall_at: Sequence[int]) -> list[str]:
    """Return the row of a table of retrieval, of what ``retrieval_metrics`` gives.

    Example:
        >>> row_of("v_given_u", {"recall@1": 0.5, "median_rank": 1.5}, [1])
        ['v given u', '0.5000', '1.5']
    """
    recalls = [f"{metrics[f'recall@{k}']:.4f}" for k in recall_at]
    return [name.replace("_given_", " given "), *recalls, f"{metrics['median_rank']:g}"]


def identity_of(items: Tensor) -> Tensor:
    """Number the distinct items: equal items, bit for bit, get equal numbers.

    Args:
        items: shape (N, ...).

    Returns:
        Integers of shape (N,).

    Example:
        >>> identity_of(torch.tensor([[1, 2], [3, 4], [1, 2]]))
        tensor([0, 1, 0])
    """
    numbers: dict[bytes, int] = {}  # of digests: the items themselves would be held a second time
    rows = items.reshape(len(items), -1).contiguous().numpy()
    digests = (hashlib.blake2b(row.tobytes(), digest_size=20).digest() for row in rows)
    return torch.tensor([numbers.setdefault(digest, len(numbers)) for digest in digests])


def both_ranks(
    features_u: Tensor,
    features_v: Tensor,
    ids_u: Tensor,
    ids_v: Tensor,
    block_pairs: int = MOST_PAIRS,
    parts: Parts = HERE,
) -> tuple[Tensor, Tensor]:
    """Return the rank of every query's best relevant candidate, from 1: of v given u, and of u given v.

    One pass over the scores of distinct items gives both. Blocks that hold pairs are formed once more before, alike,
    so that what a score is compared with is the very number that stands among them.

    Args:
        features_u: feature maps of u, shape (N, F).
        features_v: feature maps of their partners v, shape (N, F).
        ids_u: ``identity_of`` u, shape (N,): equal items have equal feature maps.
        ids_v: ``identity_of`` v, shape (N,).
        block_pairs: distinct items of each that are scored at a time, at most.
        parts: where stripes of the scores are computed.

    Returns:
        Integers of shape (N,) each.

    Raises:
        ValueError: the lengths differ.

    References:
        arXiv:2505.24134, algorithm 1.

    Example:
        >>> e, i = torch.eye(3), torch.arange(3)
        >>> both_ranks(e, e, i, i), both_ranks(e, torch.ones(3, 3), i, i)[0]
        ((tensor([1, 1, 1]), tensor([1, 1, 1])), tensor([3, 3, 3]))
    """
    if not len(features_u) == len(features_v) == len(ids_u) == len(ids_v):
        raise ValueError(
            f"{len(features_u)} u, {len(features_v)} v, {len(ids_u)} and {len(ids_v)} ids: u and v of the same row are "
            "a pair, so the counts must be equal"
        )
    u, v = Distinct.of(features_u, ids_u), Distinct.of(features_v, ids_v)
    scores = Scores.of(u, v, block_pairs, parts.device)
    behind = num_behind(scores, (u.number, v.number), parts)
    ranks = [
        (1 + len(ids_u) - relevant - found).long()
        for relevant, found in zip(_num_relevant(scores, u, v), behind, strict=True)
    ]
    return ranks[0][u.place], ranks[1][v.place]


def _num_relevant(scores: Scores, u: Distinct, v: Distinct) -> tuple[Tensor, Tensor]:
    """Return how many candidates are relevant, of every distinct u and of every distinct v."""
    rows, columns = torch.from_numpy(scores.rows), torch.from_numpy(scores.columns)
    of_u = torch.zeros_like(u.number).index_add_(0, rows, v.number[columns])
    return of_u, torch.zeros_like(v.number).index_add_(0, columns, u.number[rows])


def retrieval_ranks(
    queries: Tensor, candidates: Tensor, query_ids: Tensor, candidate_ids: Tensor, block_pairs: int = MOST_PAIRS
) -> Tensor:
    """Return the ranks of one direction alone, see ``both_ranks``."""
    return both_ranks(queries, candidates, query_ids, candidate_ids, block_pairs)[0]


def retrieval_metrics(ranks: Tensor, recall_at: Sequence[int]) -> dict[str, float]:
    """Return R@K for every K (a share of the queries) and the median rank.

    Example:
        >>> retrieval_metrics(torch.tensor([1, 2, 7, 1]), [1, 5])
        {'recall@1': 0.5, 'recall@5': 0.75, 'median_rank': 1.5}
    """
    recalls = {f"recall@{k}": (ranks <= k).double().mean().item() for k in recall_at}
    return recalls | {"median_rank": ranks.double().quantile(0.5).item()}
