r"""Log-sum-exps of negatives by fused attention, where no score leaves the chip.

A pass over tiles reads and writes each of them about 33 times, which is what bounds it on a GPU. The forward pass of
softmax attention forms scores, their log-sum-exp and the mean of values under their softmax in one kernel. With
:math:`L_i` and :math:`C_j` the log-sum-exps of rows and columns, :math:`g` and :math:`h` the gradients by them, and

.. math::
    w_{ij} = g_i e^{s_{ij} - L_i} + h_j e^{s_{ij} - C_j} = e^{s_{ij} + \log(e^{\log g_i - L_i} + e^{\log h_j - C_j})}

the gradient by query i is :math:`\sum_j w_{ij} c_j` and that by candidate j is :math:`\sum_i w_{ij} q_i`: each is a
mean under a softmax, times the exponential of its log-sum-exp. So no backward pass of attention is needed, nor weights
that are kept: 14 b B F flops in all, 2 of each log-sum-exp and 4 of each gradient.

Shapes: b queries on this worker, B = W b candidates, F features.
"""

__all__ = ["gradients", "has_kernel", "is_quicker", "log_sum_exps"]

import math
import warnings
from collections.abc import Callable
from functools import cache, partial

import torch
from torch import Tensor
from torch.nn.functional import pad

LEAST_SCORES = 1 << 26  # 8,192 pairs: what is saved of a step is 3 ms at most, and compiling takes some seconds
LEAST_FEATURES = 16  # that a kernel takes: zeros change no score
MOST_FEATURES = 64  # up to which flops should cost less than the traffic of tiles: reckoned in docs/scaling.md
MOST_FEATURES_TF32 = 256
PROBE = 192, 320  # queries and candidates, more than the 127 that kernels for few queries take
MOST_KERNELS = 64  # of one function: it is compiled for each number of features and precision of products
TOLERANCE = 5e-3  # of the probe: that of TF32; a kernel that is wrong is so by far more

Sums = tuple[Tensor, Tensor, Tensor]


def is_quicker(queries: Tensor, candidates: Tensor) -> bool:
    """Whether fused attention should be quicker than tiles: by device, dtype, the number of scores and of features.

    Args:
        queries: shape (b, F).
        candidates: shape (B, F).

    Example:
        >>> is_quicker(torch.zeros(8192, 8), torch.zeros(8192, 8))  # on a CPU it would hold all scores
        False
    """
    if queries.device.type != "cuda" or queries.dtype != torch.float32:
        return False
    most = MOST_FEATURES if torch.get_float32_matmul_precision() == "highest" else MOST_FEATURES_TF32
    return queries.shape[1] <= most and len(queries) * len(candidates) >= LEAST_SCORES


def has_kernel(queries: Tensor) -> bool:
    """Whether a kernel for queries like these can be compiled here, and gives right numbers; tried once a process."""
    return _is_tried(queries.device, queries.dtype, queries.shape[1], torch.get_float32_matmul_precision())


@cache
def _is_tried(device: torch.device, dtype: torch.dtype, num_features: int, precision: str) -> bool:
    generator = torch.Generator().manual_seed(0)
    queries, candidates = (torch.randn(n, num_features, generator=generator).to(device, dtype) for n in PROBE)
    queries /= math.sqrt(num_features)
    first = PROBE[1] - PROBE[0]
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")
            sums = log_sum_exps(queries, candidates, first)[:2]
            shares = queries.new_full(PROBE[:1], 2.0), candidates.new_ones(PROBE[1])
            found = *sums, *gradients(queries, candidates, first, sums, shares)
        expected = _by_formula(queries.double(), candidates.double(), first)
        return all(_is_near(part, truth) for part, truth in zip(found, expected, strict=True))
    except Exception:  # whatever forbids it, tiles give the same: no compiler, a feature that this version lacks
        return False


def _by_formula(queries: Tensor, candidates: Tensor, first: int) -> tuple[Tensor, ...]:
    """Return what the probe should find: both log-sum-exps, and the gradients of twice one and once the other."""
    scores = queries @ candidates.T
    scores.diagonal(first).fill_(-math.inf)
    weights = 2 * torch.softmax(scores, 1) + torch.softmax(scores, 0)
    return torch.logsumexp(scores, 1), torch.logsumexp(scores, 0), weights @ candidates, weights.T @ queries


def _is_near(found: Tensor, expected: Tensor) -> bool:
    return bool((found - expected).abs().max() < TOLERANCE * expected.abs().max())


def log_sum_exps(queries: Tensor, candidates: Tensor, first: int, *, with_columns: bool = True) -> Sums:
    """Return what ``pcl.scores.negative_log_sum_exps`` returns, without a gradient."""
    lowest = torch.finfo(queries.dtype).min
    rows, squares = (_log_sum_exp(scaled, candidates, first).clamp_min(lowest) for scaled in (queries, 2 * queries))
    columns = _log_sum_exp(candidates, queries, -first).clamp_min(lowest) if with_columns else rows.new_empty(0)
    return rows, columns, torch.where(rows > lowest, 2 * rows - squares, -math.inf).exp()


def gradients(
    queries: Tensor,
    candidates: Tensor,
    first: int,
    found: tuple[Tensor, Tensor],
    given: tuple[Tensor | None, Tensor | None],
) -> tuple[Tensor, Tensor]:
    """Return the gradients by queries and candidates.

    Args:
        queries: shape (b, F).
        candidates: shape (B, F).
        first: the candidate that is the positive of query 0.
        found: log-sum-exps of rows (b,) and of columns (B,).
        given: the gradients by them, nowhere negative, since logs are taken of them; None where there is none.
    """
    rows, columns = (
        _log_shares(gradient, sums, part)
        for gradient, sums, part in zip(given, found, (queries, candidates), strict=True)
    )
    return (
        _weighted_sum(queries, candidates, first, rows, columns),
        _weighted_sum(candidates, queries, -first, columns, rows),
    )


def _log_shares(gradient: Tensor | None, sums: Tensor, rows: Tensor) -> Tensor:
    """Return log g - L, or a number whose exponential is zero, and that differs from itself by zero, not NaN."""
    floor = torch.finfo(rows.dtype).min / 4
    return rows.new_full((len(rows),), floor) if gradient is None else (gradient.log() - sums).clamp_min(floor)


def _log_sum_exp(queries: Tensor, keys: Tensor, first: int) -> Tensor:
    return _form(_sums, queries)(*_padded(queries, keys), torch.tensor(first, device=queries.device))


def _weighted_sum(queries: Tensor, keys: Tensor, first: int, of_queries: Tensor, of_keys: Tensor) -> Tensor:
    offset = torch.tensor(first, device=queries.device)
    sums = _form(_weighted, queries)(*_padded(queries, keys), offset, of_queries, of_keys)
    return sums[:, : queries.shape[1]]


def _padded(*parts: Tensor) -> list[Tensor]:
    missing = max(0, LEAST_FEATURES - parts[0].shape[1])
    return [pad(part.detach(), (0, missing)).contiguous() for part in parts]  # attention on CPUs refuses a gradient


def _form(function: Callable[..., Tensor], queries: Tensor) -> Callable[..., Tensor]:
    """Return the function, compiled for any number of rows on a GPU; elsewhere it holds all scores."""
    return _compiled(function) if queries.is_cuda else function


@cache
def _compiled(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    torch._dynamo.config.recompile_limit = max(MOST_KERNELS, torch._dynamo.config.recompile_limit)
    return torch.compile(function, dynamic=True, fullgraph=True)


def _sums(queries: Tensor, keys: Tensor, first: Tensor) -> Tensor:
    """Return the log-sum-exp of every query over the keys but its own."""
    return _attention(queries, keys, keys.new_zeros(len(keys), LEAST_FEATURES), partial(_without_positive, first))[1]


def _weighted(queries: Tensor, keys: Tensor, first: Tensor, of_queries: Tensor, of_keys: Tensor) -> Tensor:
    """Return for every query the sum of the keys but its own, each with its weight w."""

    def modified(score: Tensor, batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        x, y = of_queries[query], of_keys[key]
        weighted = score + torch.maximum(x, y) + torch.log1p(torch.exp(-torch.abs(x - y)))
        return _without_positive(first, weighted, batch, head, query, key)

    mean, sums = _attention(queries, keys, keys, modified)
    return mean * sums.exp()[:, None]


def _without_positive(first: Tensor, score: Tensor, batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
    return torch.where(query + first == key, -math.inf, score)


def _attention(queries: Tensor, keys: Tensor, values: Tensor, modify: Callable[..., Tensor]) -> tuple[Tensor, Tensor]:
    """Return the mean of the values of every query under the softmax of its scores, and their log-sum-exp."""
    from torch.nn.attention.flex_attention import AuxRequest, flex_attention  # a prototype, which may lack this

    query, key, value = (part[None, None] for part in (queries, keys, values))  # one batch, one head
    mean, further = flex_attention(query, key, value, modify, scale=1.0, return_aux=AuxRequest(lse=True))
    assert further.lse is not None
    return mean[0, 0], further.lse[0, 0]
