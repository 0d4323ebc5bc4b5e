r"""Normalisers of a score matrix that is never held whole.

The scores are :math:`S = \Phi_u \Phi_v^T` of a global batch, with the positives on the diagonal. Losses need the
log-sum-exp of the *negatives* of every row and of every column. Both come from one pass over tiles, which the
backward pass repeats instead of keeping the scores: 8 b B F flops instead of the 6 b B F of a matrix that is kept, and
the memory of one tile. On a GPU fused attention does the same where that is quicker (``pcl.fused``). The positive joins
afterwards, exactly: :math:`\log(e^{s_{ii}} + e^{L_i}) - s_{ii} =
\text{softplus}(L_i - s_{ii})` keeps all digits when the positive dominates.

Shapes: b queries on this worker, B = W b candidates, F features, K atoms.
"""

__all__ = [
    "MODES",
    "Atoms",
    "choose_mode",
    "negative_log_sum_exps",
    "normalisers",
    "row_normalisers",
    "tiles",
]

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from pcl.fused import gradients, has_kernel, is_quicker, log_sum_exps
from pcl.precision import differentiable_gradients, in_full_precision
from pcl.workers import Workers

MODES = ("auto", "plain", "tiled", "one_sided")
TILE_ROWS = {"cpu": 512, "cuda": 4096}  # a tile that stays in the cache of a core; one that fills a GPU
PLAIN_ELEMENTS = 1 << 18  # scores of a worker up to which holding them is as fast and small

Pass = tuple[Tensor, Tensor, Tensor]
Shares = tuple[Tensor | None, Tensor | None]


def tiles(length: int, tile: int) -> list[slice]:
    """Cut a range into slices; the last may be shorter.

    Example:
        >>> tiles(5, 2)
        [slice(0, 2, None), slice(2, 4, None), slice(4, 5, None)]
    """
    return [slice(start, min(start + tile, length)) for start in range(0, length, tile)]


class _NegativeLogSumExps(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, queries: Tensor, candidates: Tensor, first: int, tile: int, with_columns: bool, is_fused: bool
    ) -> Pass:
        if is_fused:
            rows, columns, effective = log_sum_exps(queries, candidates, first, with_columns=with_columns)
        else:
            rows, columns, effective = _tiled_log_sum_exps(queries, candidates, first, tile, with_columns)
        ctx.save_for_backward(queries, candidates, rows, columns)
        ctx.first, ctx.tile, ctx.is_fused = first, tile, is_fused
        ctx.mark_non_differentiable(effective)
        ctx.set_materialize_grads(False)
        return rows, columns, effective

    @staticmethod
    def backward(ctx: Any, *given: Tensor | None) -> tuple[Tensor | None, ...]:
        queries, candidates, rows, columns = ctx.saved_tensors
        found, shares = (rows, columns), (given[0], given[1] if len(columns) else None)
        if torch.is_grad_enabled():  # a second derivative is asked for: that of the scores held whole
            whole = partial(_held_whole, first=ctx.first, with_columns=len(columns) > 0)
            return *differentiable_gradients(whole, (queries, candidates), given[:2]), None, None, None, None
        if ctx.is_fused and not any(share is not None and bool((share < 0).any()) for share in shares):
            return *gradients(queries, candidates, ctx.first, found, shares), None, None, None, None
        return *_tiled_gradients(queries, candidates, ctx.first, ctx.tile, found, shares), None, None, None, None


def _tiled_log_sum_exps(queries: Tensor, candidates: Tensor, first: int, tile: int, with_columns: bool) -> Pass:
    lowest = torch.finfo(queries.dtype).min
    rows, squares = (queries.new_full((len(queries),), lowest) for _ in range(2))
    columns = queries.new_full((len(candidates) if with_columns else 0,), lowest)
    first_work, second_work = (queries.new_empty(tile * tile) for _ in range(2))
    for r in tiles(len(queries), tile):
        for c in tiles(len(candidates), tile):
            scores = _scores(queries[r], candidates[c], first_work)
            scores.diagonal(first + r.start - c.start).fill_(lowest)
            largest = scores.amax(1)
            weights = torch.sub(scores, largest[:, None], out=second_work[: scores.numel()].view_as(scores)).exp_()
            rows[r] = torch.logaddexp(rows[r], weights.sum(1).log_() + largest)
            squares[r] = torch.logaddexp(squares[r], torch.linalg.vecdot(weights, weights).log_() + 2 * largest)
            if not with_columns:
                continue
            largest = scores.amax(0)
            weights = scores.sub_(largest).exp_()
            columns[c] = torch.logaddexp(columns[c], weights.sum(0).log_() + largest)
    return rows, columns, (2 * rows - squares).exp_()  # 0 where there is no negative


def _tiled_gradients(
    queries: Tensor, candidates: Tensor, first: int, tile: int, found: tuple[Tensor, Tensor], given: Shares
) -> tuple[Tensor, Tensor]:
    (rows, columns), (of_rows, of_columns) = found, given
    grad_queries, grad_candidates = torch.zeros_like(queries), torch.zeros_like(candidates)
    first_work, second_work = (queries.new_empty(tile * tile) for _ in range(2))
    for r in tiles(len(queries), tile):
        for c in tiles(len(candidates), tile):
            scores = _scores(queries[r], candidates[c], first_work)
            slopes = second_work[: scores.numel()].view_as(scores).zero_()
            if of_rows is not None:
                torch.sub(scores, rows[r, None], out=slopes).exp_().mul_(of_rows[r, None])
            if of_columns is not None:
                slopes.add_(scores.sub_(columns[c]).exp_().mul_(of_columns[c]))
            slopes.diagonal(first + r.start - c.start).zero_()
            grad_queries[r].addmm_(slopes, candidates[c])
            grad_candidates[c].addmm_(slopes.T, queries[r])
    return grad_queries, grad_candidates


def _scores(queries: Tensor, candidates: Tensor, work: Tensor) -> Tensor:
    """Form a tile in memory that is used again: new memory for every tile costs page faults."""
    shape = len(queries), len(candidates)
    return torch.mm(queries, candidates.T, out=work[: shape[0] * shape[1]].view(shape))


def _held_whole(queries: Tensor, candidates: Tensor, first: int, *, with_columns: bool = True) -> Pass:
    """Do the same on the whole matrix, which autograd keeps."""
    scores = queries @ candidates.T
    positive = torch.zeros_like(scores, dtype=torch.bool)
    positive.diagonal(first).fill_(True)
    scores = scores.masked_fill(positive, torch.finfo(scores.dtype).min)
    rows = torch.logsumexp(scores, 1)
    with torch.no_grad():
        inverse = torch.exp(2 * (scores - rows[:, None])).masked_fill(positive, 0).sum(1)
    columns = torch.logsumexp(scores, 0) if with_columns else rows.new_empty(0)
    return rows, columns, inverse.reciprocal().nan_to_num(posinf=0)


@in_full_precision
def negative_log_sum_exps(
    queries: Tensor,
    candidates: Tensor,
    first: int = 0,
    *,
    tile: int | None = None,
    with_columns: bool = True,
    fused: bool | None = None,
) -> Pass:
    r"""Return the log-sum-exps over the negatives of every row and every column of a block of the score matrix.

    .. math::
        L_i = \log \sum_{j \ne f + i} e^{s_{ij}}, \qquad C_j = \log \sum_{i \ne j - f} e^{s_{ij}}, \qquad
        s = \text{queries}\,\text{candidates}^T

    Where there is no negative they are the lowest finite number. No score is held outside its tile.

    Args:
        queries: shape (b, F).
        candidates: shape (B, F).
        first: f, the candidate that is the positive of query 0; candidate f + i is that of query i.
        tile: rows and columns of a tile, which need not divide b and B; by the device when None.
        with_columns: whether C is needed; it is empty otherwise.
        fused: whether fused attention takes the place of tiles (``pcl.fused``); where it should be quicker and can be
            compiled when None.

    Returns:
        L of shape (b,) and C of shape (B,), differentiable in queries and candidates; and the effective number of
        negatives :math:`(\sum_j e^{s_{ij}})^2 / \sum_j e^{2 s_{ij}}` of every query, shape (b,), detached.

    Raises:
        ValueError: the tile has no rows.

    Example:
        >>> rows, columns, effective = negative_log_sum_exps(torch.zeros(1, 2), torch.ones(4, 2))
        >>> round(rows.exp().item(), 4), effective.item(), columns[1:].tolist()
        (3.0, 3.0, [0.0, 0.0, 0.0])
    """
    if tile is None:
        tile = TILE_ROWS.get(queries.device.type, TILE_ROWS["cpu"])
    if tile < 1:
        raise ValueError(f"tile {tile}: a tile has at least one row")
    tile = min(tile, max(len(queries), len(candidates)))
    if fused is None:
        fused = is_quicker(queries, candidates) and has_kernel(queries)
    result: Pass = _NegativeLogSumExps.apply(queries, candidates, first, tile, with_columns, fused)  # type: ignore[no-untyped-call]
    return result


def choose_mode(mode: str, local_batch: int, num_workers: int) -> str:
    """Return how scores are formed: as asked, or by their number.

    - ``plain``: every worker gathers both modalities and holds its scores: the least work for few scores.
    - ``tiled``: the same in tiles.
    - ``one_sided``: in tiles, one modality gathered: half the traffic and flops of ``tiled`` on several workers.

    Raises:
        ValueError: the mode is not one of ``MODES``.

    Example:
        >>> choose_mode("auto", 64, 2), choose_mode("auto", 4096, 2), choose_mode("auto", 4096, 1)
        ('plain', 'one_sided', 'tiled')
    """
    if mode not in MODES:
        raise ValueError(f"mode {mode!r} is not known; choose one of {', '.join(MODES)}")
    if mode != "auto":
        return mode
    if local_batch * local_batch * num_workers <= PLAIN_ELEMENTS:
        return "plain"
    return "one_sided" if num_workers > 1 else "tiled"


@in_full_precision
def normalisers(
    queries: Tensor, candidates: Tensor, workers: Workers, mode: str = "auto", needed: tuple[bool, bool] = (True, True)
) -> Pass:
    r"""Return the log-sum-exp of the negatives of this worker's pairs in the global batch, in both directions.

    .. math::
        U_i = \log \sum_{j \ne i} e^{s_{ji}} \text{ (over u, for u given v)}, \qquad
        V_i = \log \sum_{j \ne i} e^{s_{ij}} \text{ (over v, for v given u)}

    Args:
        queries: this worker's features of u over the temperature, shape (b, F).
        candidates: this worker's features of v, shape (b, F).
        workers: of the training.
        mode: one of ``MODES``, see ``choose_mode``.
        needed: whether the gradients of U and of V are needed.

    Returns:
        U and V of shape (b,); and the effective number of negatives of v given u, shape (b,), detached.

    Raises:
        ValueError: the mode is not known.
    """
    mode = choose_mode(mode, len(queries), workers.num_workers)
    if mode == "one_sided" or workers.num_workers == 1:
        rows, columns, effective = _form(mode)(queries, workers.gather(candidates), _first(queries, workers))
        own = slice(_first(queries, workers), _first(queries, workers) + len(queries))
        return workers.log_sum_exp(columns)[own], rows, effective
    enabled = torch.is_grad_enabled()
    with torch.set_grad_enabled(enabled and needed[0]):
        over_u, _ = row_normalisers(candidates, queries, workers, mode)
    with torch.set_grad_enabled(enabled and needed[1]):
        over_v, effective = row_normalisers(queries, candidates, workers, mode)
    return over_u, over_v, effective


@in_full_precision
def row_normalisers(queries: Tensor, candidates: Tensor, workers: Workers, mode: str = "auto") -> tuple[Tensor, Tensor]:
    """Return the log-sum-exp over the negatives of every query, and their effective number, (b,) each.

    Args:
        queries: this worker's features of one modality, shape (b, F).
        candidates: this worker's features of the other, shape (b, F); they are gathered.
        workers: of the training.
        mode: one of ``MODES``, see ``choose_mode``.

    Raises:
        ValueError: the mode is not known.
    """
    form = _form(choose_mode(mode, len(queries), workers.num_workers))
    rows, _, effective = form(queries, workers.gather(candidates), _first(queries, workers), with_columns=False)
    return rows, effective


def _form(mode: str) -> Callable[..., Pass]:
    return _held_whole if mode == "plain" else negative_log_sum_exps


def _first(queries: Tensor, workers: Workers) -> int:
    """Return the index in the global batch of this worker's first pair."""
    return workers.worker_rank * len(queries)


@dataclass(frozen=True)
class Atoms:
    r"""A finite modality whose marginal is known, so that normalisers over it are exact.

    .. math:: \log \sum_k \pi_k e^{s(x, y_k)}

    Attributes:
        features: feature maps of the atoms, shape (K, F).
        log_prior: log weights of the atoms up to a constant, shape (K,).
        values: what kernels act on, shape (K, ...); only MMD losses need it.

    Raises:
        ValueError: the prior has another length, or is nowhere positive.

    Example:
        >>> atoms = Atoms(torch.eye(2), torch.tensor([0.5, 0.5]).log())
        >>> atoms.log_normaliser(torch.zeros(1, 2))
        tensor([0.])
    """

    features: Tensor
    log_prior: Tensor
    values: Tensor | None = None

    def __post_init__(self) -> None:
        if self.log_prior.shape != self.features.shape[:1] or not torch.isfinite(self.log_prior.logsumexp(0)):
            raise ValueError(
                f"log_prior of shape {tuple(self.log_prior.shape)} for {len(self.features)} atoms: every atom needs "
                "the log of its weight, and one weight must be positive"
            )

    @property
    def log_probabilities(self) -> Tensor:
        """The log of pi, shape (K,)."""
        return torch.log_softmax(self.log_prior, 0)

    @in_full_precision
    def log_weights(self, queries: Tensor) -> Tensor:
        """Return s + log pi of each query's features (Q, F), shape (Q, K)."""
        return queries @ self.features.T + self.log_probabilities.to(queries)

    def log_normaliser(self, queries: Tensor) -> Tensor:
        """Return the exact log normaliser of each query's features (Q, F), shape (Q,)."""
        return torch.logsumexp(self.log_weights(queries), -1)
