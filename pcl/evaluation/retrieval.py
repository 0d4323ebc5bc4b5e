r"""Retrieval ranks of pairs, by blocks: never a matrix of all scores.

A candidate is *relevant* to a query when the two values occur as a pair: equal candidates (ten labels among 10,000
pairs) are the same answer, not each other's negatives. The rank of a query is that of its best relevant candidate,
and **ties count against the model**:

.. math:: \text{rank}_i = 1 + \#\{j \text{ irrelevant}: s_{ij} \ge \max_{k \text{ relevant}} s_{ik}\}

Shapes: N pairs, F features.
"""

__all__ = ["RETRIEVALS", "head_of", "identity_of", "retrieval_metrics", "retrieval_ranks", "row_of"]

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence

import torch
from torch import Tensor

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


def _relevance(query_ids: Tensor, candidate_ids: Tensor) -> Callable[[slice, slice], Tensor]:
    """Return what tells, for a block of queries and candidates, which values occur as a pair."""

    def equal(rows: slice, columns: slice) -> Tensor:
        same_query = query_ids[rows, None] == query_ids[None, columns]
        return same_query | (candidate_ids[rows, None] == candidate_ids[None, columns])

    if any(len(torch.unique(ids)) == len(ids) for ids in (query_ids, candidate_ids)):
        return equal  # enough, and cheaper, where one side has no duplicates
    num_ids = int(candidate_ids.max()) + 1
    pairs = torch.unique(query_ids * num_ids + candidate_ids)

    def listed(rows: slice, columns: slice) -> Tensor:
        wanted = query_ids[rows, None] * num_ids + candidate_ids[None, columns]
        nearest: Tensor = pairs[torch.searchsorted(pairs, wanted).clamp(max=len(pairs) - 1)]
        return nearest == wanted

    return listed


def retrieval_ranks(
    queries: Tensor, candidates: Tensor, query_ids: Tensor, candidate_ids: Tensor, block_pairs: int = 2048
) -> Tensor:
    """Return the rank of every query's best relevant candidate, from 1; query i and candidate i are a pair.

    Args:
        queries: feature maps, shape (N, F).
        candidates: feature maps of their partners, shape (N, F).
        query_ids: ``identity_of`` the queries, shape (N,).
        candidate_ids: ``identity_of`` the candidates, shape (N,).
        block_pairs: queries and candidates scored at a time.

    Returns:
        Integers of shape (N,).

    Raises:
        ValueError: the lengths differ.

    References:
        arXiv:2505.24134, algorithm 1.

    Example:
        >>> e, i = torch.eye(3), torch.arange(3)
        >>> retrieval_ranks(e, e, i, i), retrieval_ranks(e, torch.ones(3, 3), i, i)
        (tensor([1, 1, 1]), tensor([3, 3, 3]))
    """
    if not len(queries) == len(candidates) == len(query_ids) == len(candidate_ids):
        raise ValueError(
            f"{len(queries)} queries, {len(candidates)} candidates, {len(query_ids)} and {len(candidate_ids)} ids: "
            "query i and candidate i are a pair, so the counts must be equal"
        )

    relevance = _relevance(query_ids, candidate_ids)

    def blocks(rows: slice) -> Iterator[tuple[Tensor, Tensor]]:
        for start in range(0, len(candidates), block_pairs):
            columns = slice(start, start + block_pairs)
            yield queries[rows] @ candidates[columns].T, relevance(rows, columns)

    ranks = []
    for start in range(0, len(queries), block_pairs):
        rows = slice(start, start + block_pairs)
        best = torch.stack([s.masked_fill(~relevant, -torch.inf).amax(1) for s, relevant in blocks(rows)]).amax(0)
        ahead = torch.stack([(~(s < best[:, None]) & ~relevant).sum(1) for s, relevant in blocks(rows)]).sum(0)
        ranks.append(1 + ahead)
    return torch.cat(ranks)


def retrieval_metrics(ranks: Tensor, recall_at: Sequence[int]) -> dict[str, float]:
    """Return R@K for every K (a share of the queries) and the median rank.

    Example:
        >>> retrieval_metrics(torch.tensor([1, 2, 7, 1]), [1, 5])
        {'recall@1': 0.5, 'recall@5': 0.75, 'median_rank': 1.5}
    """
    recalls = {f"recall@{k}": (ranks <= k).double().mean().item() for k in recall_at}
    return recalls | {"median_rank": ranks.double().quantile(0.5).item()}
