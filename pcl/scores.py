r"""Log-sum-exps over a score matrix that is never held whole.

The forward pass forms a tile of rows at a time; the backward pass forms it again instead of keeping it, so memory is
one tile and not b x B (8 b B F flops instead of 6 b B F, THEORY 7).

Shapes: b queries, B candidates, F features.
"""

__all__ = ["relative_log_sum_exp"]

from typing import Any

import torch
from torch import Tensor

TILE_ELEMENTS = {"cpu": 1 << 18, "cuda": 1 << 26}  # a tile that stays in the cache of a core; one that fills a GPU


def _tiles(queries: Tensor, candidates: Tensor) -> list[slice]:
    elements = TILE_ELEMENTS.get(queries.device.type, TILE_ELEMENTS["cpu"])
    rows = max(1, elements // max(1, len(candidates)))
    return [slice(start, start + rows) for start in range(0, len(queries), rows)]


class _RelativeLogSumExp(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, queries: Tensor, candidates: Tensor, columns: Tensor) -> tuple[Tensor, Tensor]:
        result, effective = queries.new_empty(len(queries)), queries.new_empty(len(queries))
        transposed = candidates.T.contiguous()
        for rows in _tiles(queries, candidates):
            scores = queries[rows] @ transposed
            scores -= scores.gather(1, columns[rows, None])
            scores.scatter_(1, columns[rows, None], -torch.inf)
            largest = scores.amax(1, keepdim=True).clamp_(min=torch.finfo(scores.dtype).min)
            weights = scores.sub_(largest).exp_()
            total, squares = weights.sum(1), torch.linalg.vecdot(weights, weights)
            # log(e^0 + sum over negatives): exact where the positive, whose relative score is 0, dominates
            result[rows] = torch.logaddexp(total.log() + largest[:, 0], largest.new_zeros(()))
            effective[rows] = total.square() / squares.clamp(min=1)
        ctx.save_for_backward(queries, candidates, columns, result)
        ctx.mark_non_differentiable(effective)
        return result, effective

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, None]:
        queries, candidates, columns, result = ctx.saved_tensors
        transposed = candidates.T.contiguous()  # long rows: several times faster where F is small
        grad_queries, grad_transposed = torch.empty_like(queries), torch.zeros_like(transposed)
        for rows in _tiles(queries, candidates):
            scores = queries[rows] @ transposed
            scores -= scores.gather(1, columns[rows, None])
            slopes = scores.sub_(result[rows, None]).exp_()
            # d/ds of log sum exp(s - s_c) at the column c itself: w_c - 1, without cancellation
            slopes.scatter_(1, columns[rows, None], torch.expm1(-result[rows, None]))
            slopes *= gradients[0][rows, None]
            grad_queries[rows] = slopes @ transposed.T
            grad_transposed.addmm_(queries[rows].T, slopes)
        return grad_queries, grad_transposed.T, None


def relative_log_sum_exp(queries: Tensor, candidates: Tensor, columns: Tensor) -> tuple[Tensor, Tensor]:
    r"""Return, for every query, the log-sum-exp of its scores relative to the score of one candidate, its positive.

    .. math:: r_i = \log \sum_j e^{s_{ij} - s_{i c(i)}}, \qquad s = \text{queries}\,\text{candidates}^T

    The positive is subtracted before the exponential: when it dominates, r is small and exact.

    Args:
        queries: shape (b, F).
        candidates: shape (B, F).
        columns: c(i), the index of the positive of every query, shape (b,).

    Returns:
        r of shape (b,), differentiable in queries and candidates; and the effective number of negatives
        :math:`(\sum_{j \ne c} w_j)^2 / \sum_{j \ne c} w_j^2` with :math:`w_j = e^{s_{ij}}`, shape (b,), detached.

    Example:
        >>> r, effective = relative_log_sum_exp(torch.zeros(1, 2), torch.ones(4, 2), torch.tensor([0]))
        >>> round(r.exp().item(), 4), effective.item()
        (4.0, 3.0)
    """
    result: tuple[Tensor, Tensor] = _RelativeLogSumExp.apply(queries, candidates, columns)  # type: ignore[no-untyped-call]
    return result
