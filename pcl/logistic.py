r"""Logistic loss: pairs told from independent draws of their marginals, one score at a time.

A score is compared with no other, so there is no normaliser to wait for: the slope of a term is known with its value,
and one pass over tiles gives the sum and its gradient, in 6 b B F flops. Since the sum is over all pairs, one modality
is gathered, whatever the mode.

Shapes: b pairs on this worker, B = W b pairs in the global batch, F features.
"""

__all__ = ["LogisticSettings", "logistic_loss"]

import math
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import softplus

from pcl.losses import Diagnostics, Pairs, checked
from pcl.precision import differentiable_gradients, in_full_precision
from pcl.scores import TILE_ROWS, Atoms, choose_mode, tiles
from pcl.settings import setting
from pcl.workers import Workers

EXACT = 40  # beyond it softplus is the identity to all digits of float64

Sums = tuple[Tensor, Tensor]


@dataclass
class LogisticSettings:
    """Settings of the logistic loss."""

    num_negatives: float = setting(
        "nu, weight of all negatives per positive; 0: B - 1, that of a batch", 0.0, at_least=0
    )


class _SumOverNegatives(torch.autograd.Function):
    """The sum of softplus over the negatives of a block of logits, and its gradient in the same pass."""

    @staticmethod
    def forward(
        ctx: Any, queries: Tensor, candidates: Tensor, shift: Tensor, first: int, tile: int, with_gradients: bool
    ) -> Sums:
        total, rows, squares = shift.new_zeros(()), *queries.new_zeros(2, len(queries)).unbind()
        gradients = [torch.zeros_like(part) for part in (queries, candidates)] if with_gradients else []
        first_work, second_work = (queries.new_empty(tile * tile) for _ in range(2))
        for r in tiles(len(queries), tile):
            for c in tiles(len(candidates), tile):
                shape = r.stop - r.start, c.stop - c.start
                logits, slopes = (work[: math.prod(shape)].view(shape) for work in (first_work, second_work))
                torch.addmm(shift, queries[r], candidates[c].T, out=logits)
                logits.diagonal(first + r.start - c.start).fill_(torch.finfo(logits.dtype).min)
                torch.sigmoid(logits, out=slopes)
                rows[r] += slopes.sum(1)
                squares[r] += torch.linalg.vecdot(slopes, slopes)
                if with_gradients:
                    gradients[0][r].addmm_(slopes, candidates[c])
                    gradients[1][c].addmm_(slopes.T, queries[r])
                total += torch.abs(logits, out=slopes).neg_().exp_().log1p_().sum() + logits.clamp_min_(0).sum()
        ctx.save_for_backward(queries, candidates, shift, *gradients, rows.sum())
        ctx.first = first
        effective = (rows.square() / squares).nan_to_num_()
        ctx.mark_non_differentiable(effective)
        return total, effective

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        given, found = ctx.saved_tensors[:3], ctx.saved_tensors[3:]
        if torch.is_grad_enabled():  # a second derivative is asked for: that of the logits held whole
            whole = partial(_held_whole, first=ctx.first)
            return *differentiable_gradients(whole, given, gradients[:1]), None, None, None
        return *(gradients[0] * part for part in found), None, None, None


def _held_whole(queries: Tensor, candidates: Tensor, shift: Tensor, first: int) -> Sums:
    """Do the same on the whole matrix, which autograd keeps."""
    logits = queries @ candidates.T + shift
    positive = torch.zeros_like(logits, dtype=torch.bool)
    positive.diagonal(first).fill_(True)
    logits = logits.masked_fill(positive, torch.finfo(logits.dtype).min)
    slopes = logits.detach().sigmoid()
    return softplus(logits, threshold=EXACT).sum(), (slopes.sum(1).square() / slopes.square().sum(1)).nan_to_num_()


def _tiled(queries: Tensor, candidates: Tensor, shift: Tensor, first: int) -> Sums:
    tile = min(TILE_ROWS.get(queries.device.type, TILE_ROWS["cpu"]), max(len(queries), len(candidates)))
    needs_gradient = any(part.requires_grad for part in (queries, candidates, shift))
    result: Sums = _SumOverNegatives.apply(  # type: ignore[no-untyped-call]
        queries, candidates, shift, first, tile, torch.is_grad_enabled() and needs_gradient
    )
    return result


@in_full_precision
def logistic_loss(
    features_u: Tensor,
    features_v: Tensor,
    temperature: float | Tensor = 1.0,
    *,
    bias: float | Tensor = 0.0,
    num_negatives: float = 0.0,
    workers: Workers | None = None,
    atoms_u: Atoms | None = None,
    atoms_v: Atoms | None = None,
    mode: str = "auto",
) -> tuple[Tensor, Diagnostics]:
    r"""Pairwise logistic loss: that of telling pairs from independent draws; ``num_negatives=0`` is that of SigLIP.

    .. math::
        L = \tfrac1B \sum_i \log(1 + e^{-l_{ii}}) + \tfrac{\nu}{B (B - 1)} \sum_{i \ne j} \log(1 + e^{l_{ij}}), \qquad
        l_{ij} = s_{ij} + \beta - \log \nu

    Whatever :math:`\nu` is, the tilting that is best over all functions has :math:`s + \beta` equal to the log density
    of the pairs with respect to the product of their marginals: it is known, where the losses with a normaliser know
    it up to a constant. :math:`\nu = 1` is NRE-A, and :math:`\nu = B - 1` SigLIP's loss with :math:`\beta - \log \nu`
    for its bias.

    Args:
        features_u: feature maps of this worker's u, shape (b, F).
        features_v: feature maps of their partners v, shape (b, F).
        temperature: tau > 0 that divides every score.
        bias: beta, a scalar.
        num_negatives: nu, the weight of the negatives beside that of the positives; 0: B - 1.
        workers: of the training; one when None.
        atoms_u: all values of a finite u, whose exact marginal replaces that of the batch in the second sum.
        atoms_v: all values of a finite v, likewise.
        mode: how scores are formed, see ``pcl.scores.choose_mode``; it changes no value. v alone is gathered in every
            mode, so ``tiled`` and ``one_sided`` are the same.

    Returns:
        This worker's share L_r (the loss is the mean over workers), and detached diagnostics: the mean positive score,
        the effective number of negatives :math:`(\sum w)^2 / \sum w^2` of each u with the slopes :math:`w` of their
        terms, the temperature and the bias.

    Raises:
        ValueError: the temperature is not positive; shapes differ; scores are NaN; there is no negative;
            ``num_negatives`` is negative or not finite.

    References:
        arXiv:2303.15343, equation 1; arXiv:1903.04057 (NRE-A).

    Example:
        >>> loss, diagnostics = logistic_loss(torch.zeros(4, 2), torch.zeros(4, 2), num_negatives=1.0)
        >>> round(loss.item(), 4), round(2 * math.log(2), 4)  # nothing is known: two coins
        (1.3863, 1.3863)
    """
    pairs = Pairs.of(features_u, features_v, temperature, workers, least=2)
    if not 0 <= num_negatives < math.inf:
        raise ValueError(f"num_negatives {num_negatives:g}: give a positive number, or 0 for all of the batch")
    weight = num_negatives or pairs.size - 1.0
    beta = torch.as_tensor(bias, dtype=pairs.queries.dtype, device=pairs.queries.device)
    shift = beta - math.log(weight)
    form = _held_whole if choose_mode(mode, len(pairs.queries), pairs.workers.num_workers) == "plain" else _tiled
    first, is_exact = pairs.workers.worker_rank * len(pairs.queries), atoms_u is not None or atoms_v is not None
    with torch.set_grad_enabled(torch.is_grad_enabled() and not is_exact):
        total, effective = form(pairs.queries, pairs.workers.gather(pairs.candidates), shift, first)
    in_batch = total / (len(pairs.queries) * (pairs.size - 1))
    of_negatives = _over_atoms(pairs, shift, atoms_u, atoms_v) if is_exact else in_batch
    of_positives = softplus(-(pairs.positives + shift), threshold=EXACT).mean()
    loss = checked(of_positives + weight * of_negatives, pairs.temperature)
    return loss, {"loss": loss.detach(), **pairs.diagnostics(effective), "bias": beta.detach()}


def _over_atoms(pairs: Pairs, shift: Tensor, atoms_u: Atoms | None, atoms_v: Atoms | None) -> Tensor:
    """Return the mean of softplus under the product of the marginals, of which one is exact, or both are."""
    u, v = pairs.queries, pairs.candidates
    weights_u, weights_v = (part.new_full((len(part),), 1 / len(part)) for part in (u, v))
    if atoms_u is not None:
        u, weights_u = atoms_u.features / pairs.temperature, atoms_u.log_probabilities.exp().to(u)
    if atoms_v is not None:
        v, weights_v = atoms_v.features, atoms_v.log_probabilities.exp().to(v)
    return weights_u @ softplus(u @ v.T + shift, threshold=EXACT) @ weights_v
