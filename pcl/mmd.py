r"""MMD losses: the squared maximum mean discrepancy between the model and the data, up to a constant.

Both losses are a quadratic and a linear form of the densities :math:`a_{ij} = e^{s_{ij} - n_{ij}}` that the model gives
the pairs (u_i, v_j) of a batch, with the self-normalisers n over v (``v_given_u``), over u (``u_given_v``) or over all
pairs (joint):

.. math:: c_1 \langle a, K_L\, a\, K_R \rangle - c_2 \langle a, K_L K_R \rangle

where :math:`K_L` is the kernel matrix of u or the identity, :math:`K_R` that of v or the identity, and the constants
count the terms. The V-statistic has them all: it is the squared MMD between the data and the weighted empirical measure
of the model, so it is bounded below. The U-statistic leaves out the terms in which an item meets itself (zero
diagonals); with self-normalised weights the conditional one rewards their collapse onto one neighbour, since then its
quadratic form vanishes.

Shapes: b pairs on this worker, B = W b pairs in the global batch, F features.
"""

__all__ = ["STATISTICS", "conditional_mmd_loss", "joint_mmd_loss"]

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from pcl.kernels import Kernel
from pcl.losses import Diagnostics, Pairs, check_weights, checked
from pcl.precision import differentiable_gradients, in_full_precision
from pcl.scores import Atoms, choose_mode, negative_log_sum_exps, tiles
from pcl.workers import Workers

STATISTICS = ("v", "u")
BLOCK_ELEMENTS = {"cpu": 1 << 22, "cuda": 1 << 26}  # rows x B: memory grows with B, not with its square

Values = tuple[Tensor, Tensor]
Kernels = tuple[Kernel, Kernel]


@dataclass(frozen=True)
class _Gram:
    """The kernel matrix of all items of a modality, without its diagonal in a U-statistic, a block at a time."""

    kernel: Kernel
    items: Tensor
    dtype: torch.dtype
    statistic: str

    def __call__(self, rows: slice, columns: slice) -> Tensor:
        block = self.kernel(self.items[rows], self.items[columns]).to(self.dtype)
        if self.statistic == "u":
            block.diagonal(rows.start - columns.start).zero_()
        return block


def _normaliser_of(normalisers: Tensor, rows: slice) -> Tensor:
    return normalisers[rows] if len(normalisers) > 1 else normalisers


@dataclass(frozen=True)
class _Forms:
    """The two forms, with all that is constant in them.

    Attributes:
        left: K_L, the identity when None.
        right: K_R, likewise.
        quadratic: c_1.
        linear: c_2.
        exclude_positive: whether a_ii = 0.
        queries: features of u of all workers over the temperature, shape (B, F).
        candidates: features of v of all workers, shape (B, F).
        normalisers: n of all workers, shape (B, 1), (1, B) or (1, 1).
    """

    left: _Gram | None
    right: _Gram | None
    quadratic: float
    linear: float
    exclude_positive: bool
    queries: Tensor
    candidates: Tensor
    normalisers: Tensor

    def densities(self, rows: slice) -> Tensor:
        """Return the rows of a, shape (rows, B)."""
        scores = self.queries[rows] @ self.candidates.T - _normaliser_of(self.normalisers, rows)
        if self.exclude_positive:
            positive = torch.zeros_like(scores, dtype=torch.bool)
            positive.diagonal(rows.start).fill_(True)
            scores = scores.masked_fill(positive, -math.inf)
        return scores.exp()

    def products(self, densities: Tensor, rows: slice, blocks: list[slice]) -> tuple[Tensor, Tensor]:
        """Return the rows of K_L a K_R and of K_L K_R, shape (rows, B) each."""
        every = slice(0, len(self.queries))
        if self.left is None:
            assert self.right is not None
            return self._times_right(densities, blocks), self.right(rows, every)
        product = torch.zeros_like(densities)
        for block in blocks:
            product = product + self.left(rows, block) @ self.densities(block)
        if self.right is None:
            return product, self.left(rows, every)
        return self._times_right(product, blocks), self._times_right(self.left(rows, every), blocks)

    def _times_right(self, matrix: Tensor, blocks: list[slice]) -> Tensor:
        assert self.right is not None
        every = slice(0, len(self.candidates))
        return torch.cat([matrix @ self.right(every, block) for block in blocks], 1)

    def total(self) -> Tensor:
        """Return both forms over the whole batch, the matrices held whole."""
        every = slice(0, len(self.queries))
        densities = self.densities(every)
        product, cross = self.products(densities, every, [every])
        return (densities * (self.quadratic * product - self.linear * cross)).sum()


class _ShareOfForms(torch.autograd.Function):
    """This worker's rows of both forms, a block at a time; their gradient is formed in the same pass.

    Each row of a meets the rows of all workers in the quadratic form, whose matrix is symmetric: the derivative by a
    worker's own rows, :math:`2 c_1 K_L a K_R - c_2 K_L K_R`, is that of the total, and no other worker holds it.
    """

    @staticmethod
    def forward(
        ctx: Any, queries: Tensor, candidates: Tensor, normalisers: Tensor, forms: _Forms, first: int, block: int
    ) -> Tensor:
        value = queries.new_zeros(())
        grad_queries, grad_candidates = torch.empty_like(queries), torch.zeros_like(candidates)
        grad_normalisers = torch.zeros_like(normalisers)
        blocks = tiles(len(candidates), block)
        for own in tiles(len(queries), block):
            rows = slice(first + own.start, first + own.stop)
            densities = forms.densities(rows)
            product, cross = forms.products(densities, rows, blocks)
            value += (densities * (forms.quadratic * product - forms.linear * cross)).sum()
            slopes = product.mul_(2 * forms.quadratic).sub_(cross, alpha=forms.linear).mul_(densities)
            grad_queries[own] = slopes @ candidates
            grad_candidates.addmm_(slopes.T, queries[own])
            grad_normalisers_of = _normaliser_of(grad_normalisers, own)
            grad_normalisers_of -= slopes.sum_to_size(grad_normalisers_of.shape)
        ctx.save_for_backward(queries, candidates, normalisers, grad_queries, grad_candidates, grad_normalisers)
        ctx.forms = forms
        return value

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        given, found = ctx.saved_tensors[:3], ctx.saved_tensors[3:]
        if torch.is_grad_enabled():  # a second derivative is asked for: that of the matrices held whole
            if len(given[0]) != len(given[1]):
                raise NotImplementedError(
                    "second derivatives of an MMD loss over several workers: tiles know no other worker's; choose "
                    "mode='plain'"
                )

            def total(queries: Tensor, candidates: Tensor, normalisers: Tensor) -> tuple[Tensor]:
                forms = replace(ctx.forms, queries=queries, candidates=candidates, normalisers=normalisers)
                return (forms.total(),)

            return *differentiable_gradients(total, given, gradients), None, None, None
        return *(gradients[0] * part for part in found), None, None, None


class _Batch:
    """A global batch with its normalisers; ``share`` gives this worker's share of two forms."""

    def __init__(
        self, pairs: Pairs, values: Values, kernels: Kernels, statistic: str, exclude_positive: bool, mode: str
    ) -> None:
        workers, dtype = pairs.workers, pairs.queries.dtype
        self.pairs, self.exclude_positive = pairs, exclude_positive
        self.first = workers.worker_rank * len(pairs.queries)
        self.whole = choose_mode(mode, len(pairs.queries), workers.num_workers) == "plain"
        self.queries = workers.gather(pairs.queries if self.whole else pairs.queries.detach())
        self.candidates = workers.gather(pairs.candidates)
        self.u, self.v = (
            _Gram(kernel, workers.gather(items.detach()), dtype, statistic)
            for kernel, items in zip(kernels, values, strict=True)
        )
        self.rows, self.columns, self.effective = negative_log_sum_exps(pairs.queries, self.candidates, self.first)

    def over_v(self) -> Tensor:
        """Return the log normalisers of ``v_given_u`` of this worker's rows, shape (b, 1)."""
        return self._log_mean(self.rows, self.pairs.positives)[:, None]

    def over_u(self) -> Tensor:
        """Return the log normalisers of ``u_given_v``, shape (1, B)."""
        workers = self.pairs.workers
        return self._log_mean(workers.log_sum_exp(self.columns), workers.gather(self.pairs.positives))[None]

    def over_both(self) -> Tensor:
        """Return the log normaliser of the joint, shape (1, 1)."""
        own = torch.logsumexp(self.over_v(), 0, keepdim=True)
        return self.pairs.workers.log_sum_exp(own) - math.log(self.pairs.size)

    def _log_mean(self, negatives: Tensor, positives: Tensor) -> Tensor:
        if self.exclude_positive:
            return negatives - math.log(self.pairs.size - 1)
        return torch.logaddexp(negatives, positives) - math.log(self.pairs.size)

    def share(
        self, normalisers: Tensor, left: _Gram | None, right: _Gram | None, quadratic: float, linear: float
    ) -> Tensor:
        """Return this worker's L_r of the forms with coefficients c_1 and c_2."""
        workers = self.pairs.workers
        every = normalisers
        if normalisers.shape[1] == 1 and len(normalisers) == len(self.rows):
            every = workers.gather(normalisers if self.whole else normalisers.detach())
        if self.whole:
            forms = _Forms(left, right, quadratic, linear, self.exclude_positive, self.queries, self.candidates, every)
            return forms.total()
        forms = _Forms(
            left,
            right,
            quadratic * workers.num_workers,
            linear * workers.num_workers,
            self.exclude_positive,
            self.queries,
            self.candidates.detach(),
            every.detach(),
        )
        block = max(1, BLOCK_ELEMENTS.get(self.queries.device.type, BLOCK_ELEMENTS["cpu"]) // len(self.queries))
        share: Tensor = _ShareOfForms.apply(  # type: ignore[no-untyped-call]
            self.pairs.queries, self.candidates, normalisers, forms, self.first, block
        )
        return share


def _least_pairs(statistic: str, exclude_positive: bool) -> int:
    """Return the number of pairs from which on every mean of a loss has terms."""
    if statistic not in STATISTICS:
        raise ValueError(f"statistic {statistic!r} is not known; choose one of {', '.join(STATISTICS)}")
    return 1 + exclude_positive + (statistic == "u")


def _over_atoms(given: Tensor, own: Tensor, atoms: Atoms, kernel: Kernel) -> Tensor:
    """Return the conditional loss of one direction under the exact marginal of a finite modality."""
    if atoms.values is None:
        raise ValueError("atoms without values: an MMD loss needs what its kernel acts on, Atoms(..., values=...)")
    weights = torch.softmax(atoms.log_weights(given), 1)
    inner, cross = (kernel(x, atoms.values).to(weights) for x in (atoms.values, own))
    return (weights * (weights @ inner / 2 - cross)).sum(1).mean()


@in_full_precision
def conditional_mmd_loss(
    features_u: Tensor,
    features_v: Tensor,
    temperature: float | Tensor = 1.0,
    *,
    values: Values,
    kernels: Kernels,
    weights: Sequence[float] = (1.0, 1.0),
    workers: Workers | None = None,
    statistic: str = "v",
    exclude_positive: bool = False,
    atoms_u: Atoms | None = None,
    atoms_v: Atoms | None = None,
    mode: str = "auto",
) -> tuple[Tensor, Diagnostics]:
    r"""Weighted conditional MMD loss: half the squared MMD of each conditional, up to a constant.

    .. math::
        L = \tfrac{\lambda_u}{2} L_{u|v} + \tfrac{\lambda_v}{2} L_{v|u}, \quad
        L_{u|v} = \tfrac12\, E_v E_{u, u'} k_u(u, u') \rho(u|v) \rho(u'|v) - E_{(u, v)} E_{u'} k_u(u, u') \rho(u'|v)

    with :math:`u, u'` independent draws of the marginal, and the densities :math:`\rho` normalised on the batch. As a
    V-statistic this is :math:`\tfrac12 \mathrm{MMD}^2 - \tfrac12 k_u(u, u)` between each datum u and the weighted
    empirical measure of the model given its v, the mean over the batch. The U-statistic has no such bound: it rewards
    weights that collapse onto the nearest neighbour, where its quadratic form vanishes.

    Args:
        features_u: feature maps of this worker's u, shape (b, F).
        features_v: feature maps of their partners v, shape (b, F).
        temperature: tau > 0 that divides every score.
        values: this worker's u and v, or fixed features of them, for the kernels, (b, ...) each.
        kernels: k_u and k_v, see ``pcl.kernels``.
        weights: (lambda_u, lambda_v), the weights of ``u_given_v`` and ``v_given_u``.
        workers: of the training; one when None.
        statistic: ``v``, or ``u``, whose means leave out the terms in which an item meets itself in the kernel.
        exclude_positive: leave the partner of what is given out of its reference, in normalisers and means alike.
        atoms_u: all values of a finite u, whose exact marginal replaces the batch's in ``u_given_v``.
        atoms_v: all values of a finite v, for ``v_given_u``.
        mode: how matrices are formed, see ``pcl.scores.choose_mode``. Kernels need the data of all workers, so
            ``tiled`` and ``one_sided`` are the same: v is gathered with its gradient, u without.

    Returns:
        This worker's share L_r (the gradient of the mean over workers is that of the loss), and detached diagnostics.

    Raises:
        ValueError: as for ``conditional_loss``; or the statistic is not known, there are too few pairs, or atoms
            without values.

    References:
        arXiv:2505.24134, section 3.11 and appendix B.

    Example:
        >>> from pcl.kernels import gaussian_kernel
        >>> u = torch.linspace(-2, 2, 9)[:, None]
        >>> kernels = gaussian_kernel(1.0), gaussian_kernel(1.0)
        >>> losses = [conditional_mmd_loss(a * u, u, values=(u, u), kernels=kernels)[0] for a in (0.0, 3.0)]
        >>> bool(losses[1] < losses[0])  # pairs of equal values: a tilting towards them is better than none
        True
    """
    check_weights(weights)
    least = _least_pairs(statistic, exclude_positive)
    pairs = Pairs.of(features_u, features_v, temperature, workers, least)
    batch = _Batch(pairs, values, kernels, statistic, exclude_positive, mode)
    num = pairs.size
    reference = num - 1 if exclude_positive else num
    if statistic == "v":
        quadratic, linear = 0.5 / (num * reference**2), 1 / (num * reference)
    else:
        quadratic, linear = 0.5 / (num * reference * (reference - 1)), 1 / (num * (num - 1))
    shares = {}
    if weights[0] > 0 and atoms_u is not None:
        shares["loss_u_given_v"] = _over_atoms(features_v / pairs.temperature, values[0], atoms_u, kernels[0])
    elif weights[0] > 0:
        shares["loss_u_given_v"] = batch.share(batch.over_u(), batch.u, None, quadratic, linear)
    if weights[1] > 0 and atoms_v is not None:
        shares["loss_v_given_u"] = _over_atoms(pairs.queries, values[1], atoms_v, kernels[1])
    elif weights[1] > 0:
        shares["loss_v_given_u"] = batch.share(batch.over_v(), None, batch.v, quadratic, linear)
    used = [weight / 2 for weight in weights if weight > 0]
    terms = [weight * share for weight, share in zip(used, shares.values(), strict=True)]
    loss = checked(torch.stack(terms).sum(), pairs.temperature)
    directions = {name: share.detach() for name, share in shares.items()}
    return loss, {"loss": loss.detach(), **directions, **pairs.diagnostics(batch.effective)}


@in_full_precision
def joint_mmd_loss(
    features_u: Tensor,
    features_v: Tensor,
    temperature: float | Tensor = 1.0,
    *,
    values: Values,
    kernels: Kernels,
    workers: Workers | None = None,
    statistic: str = "v",
    exclude_positive: bool = False,
    mode: str = "auto",
) -> tuple[Tensor, Diagnostics]:
    r"""Joint MMD loss: the squared MMD between model and data, up to a constant, with the kernel :math:`k_u k_v`.

    .. math:: L = E_{y, y' \sim \nu}\, k(y, y') - 2\, E_{x \sim \mu, y \sim \nu}\, k(x, y)

    As a V-statistic this is the squared MMD between the empirical measure of the pairs and the weighted one of the
    model, less a constant; the U-statistic has no such bound.

    Args:
        features_u: feature maps of this worker's u, shape (b, F).
        features_v: feature maps of their partners v, shape (b, F).
        temperature: tau > 0 that divides every score.
        values: this worker's u and v, or fixed features of them, for the kernels, (b, ...) each.
        kernels: k_u and k_v, see ``pcl.kernels``.
        workers: of the training; one when None.
        statistic: as in ``conditional_mmd_loss``.
        exclude_positive: draw y from pairs of different indices only, in the normaliser and in the means.
        mode: as in ``conditional_mmd_loss``.

    Returns:
        This worker's share L_r (the gradient of the mean over workers is that of the loss), and detached diagnostics.

    Raises:
        ValueError: as for ``conditional_mmd_loss``.

    References:
        arXiv:2505.24134, section 3.11 and appendix B.

    Example:
        >>> from pcl.kernels import gaussian_kernel
        >>> u = torch.linspace(-2, 2, 9)[:, None]
        >>> kernels = gaussian_kernel(1.0), gaussian_kernel(1.0)
        >>> losses = [joint_mmd_loss(a * u, u, values=(u, u), kernels=kernels)[0] for a in (0.0, 1.0)]
        >>> bool(losses[1] < losses[0])
        True
    """
    least = _least_pairs(statistic, exclude_positive)
    pairs = Pairs.of(features_u, features_v, temperature, workers, least)
    batch = _Batch(pairs, values, kernels, statistic, exclude_positive, mode)
    num = pairs.size
    count = num * (num - 1 if exclude_positive else num)
    if statistic == "v":
        quadratic, linear = 1 / count**2, 2 / (count * num)
    else:  # y and x: three different indices, or two that may coincide; y and y': both modalities differ
        linear = 2 / (num * (num - 1) * (num - 2 if exclude_positive else num - 1))
        quadratic = 1 / (count * (num**2 - 3 * num + 3 if exclude_positive else (num - 1) ** 2))
    share = batch.share(batch.over_both(), batch.u, batch.v, quadratic, linear)
    loss = checked(share, pairs.temperature)
    return loss, {"loss": loss.detach(), **pairs.diagnostics(batch.effective)}
