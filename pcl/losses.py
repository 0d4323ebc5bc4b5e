r"""Contrastive losses as densities: their normalisers are log *mean* exp, so values compare across batch sizes.

Every loss sees the rows of one worker and a ``gather`` that concatenates the rows of all workers. What worker r
returns is L_r with L = (1/W) sum_r L_r; when the backward of the gather sums over workers, the mean of the workers'
gradients is the gradient of L on the global batch (tests: equal to one process to 1e-12).

Shapes: b pairs on this worker, B = W b pairs in the global batch, F features.
"""

__all__ = ["LOSSES", "Diagnostics", "Gather", "OneWorker", "conditional_loss", "joint_loss", "make_loss"]

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Protocol

import torch
from torch import Tensor

from pcl.scores import relative_log_sum_exp

LOSSES = ("conditional", "joint")

Diagnostics = dict[str, Tensor]
Loss = Callable[..., tuple[Tensor, Diagnostics]]


class Gather(Protocol):
    """Concatenates the rows of all workers in the order of their ranks; its backward sums over workers."""

    worker_rank: int
    num_workers: int

    def __call__(self, rows: Tensor) -> Tensor:
        """Return shape (B, ...) from every worker's (b, ...)."""
        ...


class OneWorker:
    """The gather of a single process: the identity.

    Example:
        >>> OneWorker()(torch.ones(2, 3)).shape
        torch.Size([2, 3])
    """

    worker_rank = 0
    num_workers = 1

    def __call__(self, rows: Tensor) -> Tensor:
        """Return the rows as they are."""
        return rows


def _direction(queries: Tensor, candidates: Tensor, gather: Gather, *, needs_grad: bool) -> tuple[Tensor, Tensor]:
    """Return -log rho(positive|query) of every query up to log B, (b,), and its effective number of negatives, (b,)."""
    with torch.set_grad_enabled(needs_grad and torch.is_grad_enabled()):
        first = gather.worker_rank * len(queries)
        columns = torch.arange(first, first + len(queries), device=queries.device)
        return relative_log_sum_exp(queries, gather(candidates), columns)


def conditional_loss(
    features_u: Tensor,
    features_v: Tensor,
    temperature: float | Tensor = 1.0,
    *,
    weights: Sequence[float] = (1.0, 1.0),
    gather: Gather | None = None,
) -> tuple[Tensor, Diagnostics]:
    r"""Weighted conditional loss; ``weights=(1, 1)`` is the CLIP loss minus log B.

    .. math::
        L = \tfrac{\lambda_u}{2} L_{u|v} + \tfrac{\lambda_v}{2} L_{v|u}, \qquad
        L_{u|v} = \tfrac1B \sum_i \Big[ \log \tfrac1B \sum_j e^{s_{ji}} - s_{ii} \Big], \quad
        L_{v|u} = \tfrac1B \sum_i \Big[ \log \tfrac1B \sum_j e^{s_{ij}} - s_{ii} \Big].

    Args:
        features_u: feature maps of this worker's u, shape (b, F).
        features_v: feature maps of their partners v, shape (b, F).
        temperature: tau > 0 that divides every score.
        weights: (lambda_u, lambda_v), the weights of ``u_given_v`` and ``v_given_u``.
        gather: concatenates all workers' rows; one worker when None.

    Returns:
        This worker's share L_r (the loss is the mean over workers), and detached diagnostics: each direction,
        the mean positive score, the effective number of negatives :math:`(\sum w)^2 / \sum w^2`, the temperature.

    Raises:
        ValueError: a weight is negative, or both are zero.

    References:
        arXiv:2505.24134, section 3.13 and Theorem 2.8.

    Example:
        >>> identity = torch.eye(4)
        >>> loss, diagnostics = conditional_loss(identity, identity, 0.01)
        >>> round(loss.item(), 4), round(math.log(4), 4)  # perfect pairs among 4: -log 4
        (-1.3863, 1.3863)
    """
    gather = gather or OneWorker()
    lambda_u, lambda_v = weights
    if min(weights) < 0 or max(weights) <= 0:
        raise ValueError(f"loss weights {tuple(weights)}: both must be >= 0 and one > 0")
    tau = torch.as_tensor(temperature, dtype=features_u.dtype, device=features_u.device)
    log_batch = math.log(len(features_u) * gather.num_workers)
    relative_u, effective_u = _direction(features_v / tau, features_u, gather, needs_grad=lambda_u > 0)
    relative_v, effective_v = _direction(features_u / tau, features_v, gather, needs_grad=lambda_v > 0)
    u_given_v, v_given_u = relative_u.mean() - log_batch, relative_v.mean() - log_batch
    loss = lambda_u / 2 * u_given_v + lambda_v / 2 * v_given_u
    return loss, {
        "loss": loss.detach(),
        "loss_u_given_v": u_given_v.detach(),
        "loss_v_given_u": v_given_u.detach(),
        "positive_score": (features_u * features_v).sum(-1).mean().detach() / tau.detach(),
        "effective_negatives": (effective_u + effective_v).mean() / 2,
        "temperature": tau.detach(),
    }


def joint_loss(
    features_u: Tensor,
    features_v: Tensor,
    temperature: float | Tensor = 1.0,
    *,
    gather: Gather | None = None,
) -> tuple[Tensor, Diagnostics]:
    r"""Joint loss: one normaliser over all scores of the global batch.

    .. math:: L = -\tfrac1B \sum_i s_{ii} + \log \tfrac1{B^2} \sum_{ij} e^{s_{ij}}

    Each worker sums the exponentials of its b rows; the W partial log-sum-exps are gathered like features are.

    Args:
        features_u: feature maps of this worker's u, shape (b, F).
        features_v: feature maps of their partners v, shape (b, F).
        temperature: tau > 0 that divides every score.
        gather: concatenates all workers' rows; one worker when None.

    Returns:
        This worker's share L_r (the loss is the mean over workers), and detached diagnostics.

    References:
        arXiv:2505.24134, equation 52.

    Example:
        >>> u, v = torch.randn(8, 3, generator=torch.manual_seed(0)), torch.randn(8, 3)
        >>> bool(conditional_loss(u, v)[0] <= joint_loss(u, v)[0])  # Theorem 3.10
        True
    """
    gather = gather or OneWorker()
    tau = torch.as_tensor(temperature, dtype=features_u.dtype, device=features_u.device)
    log_batch = math.log(len(features_u) * gather.num_workers)
    relative, effective = _direction(features_u / tau, features_v, gather, needs_grad=True)
    positives = (features_u * features_v).sum(-1) / tau
    log_total = torch.logsumexp(gather(torch.logsumexp(relative + positives, 0)[None]), 0)
    loss = log_total - 2 * log_batch - positives.mean()
    return loss, {
        "loss": loss.detach(),
        "positive_score": positives.mean().detach(),
        "effective_negatives": effective.mean(),
        "temperature": tau.detach(),
    }


def make_loss(kind: str, weights: Sequence[float] = (1.0, 1.0)) -> Loss:
    """Return ``conditional_loss`` with its weights, or ``joint_loss``.

    Raises:
        ValueError: the kind is not one of ``LOSSES``.

    Example:
        >>> loss, _ = make_loss("joint")(torch.zeros(2, 3), torch.zeros(2, 3))
        >>> abs(loss.item()) < 1e-6
        True
    """
    if kind == "conditional":
        return partial(conditional_loss, weights=tuple(weights))
    if kind == "joint":
        return joint_loss
    raise ValueError(f"loss {kind!r} is not known; choose one of {', '.join(LOSSES)}")
