r"""Contrastive losses as densities: their normalisers are log *mean* exp, so values compare across batch sizes.

Every loss sees the rows of one worker. What worker r returns is L_r with L = (1/W) sum_r L_r; since collectives sum
over workers in their backward pass, the mean of the workers' gradients is the gradient of L on the global batch.

Losses leave autocast, in both passes, and half precision is computed in single precision: the gradients come back in
the dtype of the features. Second derivatives exist in every mode; they hold the scores whole.

Shapes: b pairs on this worker, B = W b pairs in the global batch, F features.
"""

__all__ = ["Diagnostics", "NotFiniteError", "Pairs", "check_weights", "checked", "conditional_loss", "joint_loss"]

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor
from torch.nn.functional import softplus

from pcl.precision import in_full_precision
from pcl.scores import Atoms, normalisers, row_normalisers
from pcl.workers import Workers, given_or_alone

Diagnostics = dict[str, Tensor]


class Marginal(Protocol):
    """A modality whose marginal is known, so that normalisers over it are exact."""

    def log_normaliser(self, queries: Tensor) -> Tensor:
        """Return the log of the mean of exp s for features of the other modality over the temperature, (Q, F)."""
        ...


class NotFiniteError(ValueError):
    """A loss is NaN or infinite."""


@dataclass(frozen=True)
class Pairs:
    """The pairs of a global batch as one worker sees them.

    Attributes:
        queries: features of u over the temperature, shape (b, F).
        candidates: features of v, shape (b, F).
        positives: their scores, shape (b,).
        temperature: tau, a scalar.
        size: B.
        workers: of the training.
    """

    queries: Tensor
    candidates: Tensor
    positives: Tensor
    temperature: Tensor
    size: int
    workers: Workers

    @classmethod
    def of(
        cls,
        features_u: Tensor,
        features_v: Tensor,
        temperature: float | Tensor,
        workers: Workers | None,
        least: int = 1,
    ) -> "Pairs":
        """Check the inputs of a loss and score the positives.

        Raises:
            ValueError: shapes or dtypes differ, on one worker or between workers, or the global batch has fewer than
                ``least`` pairs.
        """
        workers = given_or_alone(workers)
        size = workers.num_rows(features_u)
        if features_u.shape != features_v.shape or features_u.ndim != 2:
            raise ValueError(
                f"features of u have shape {tuple(features_u.shape)} and those of v {tuple(features_v.shape)}: "
                "pairs need as many of each, (b, F)"
            )
        if features_u.dtype != features_v.dtype or not features_u.is_floating_point():
            raise ValueError(
                f"features of u have dtype {features_u.dtype} and those of v {features_v.dtype}: they need one "
                "floating-point dtype; convert them with .to"
            )
        if size < least:
            raise ValueError(f"a batch of {size} pairs: this loss needs at least {least}")
        tau = torch.as_tensor(temperature, dtype=features_u.dtype, device=features_u.device)
        queries = features_u * tau.reciprocal()  # the gradient of a quotient takes two more copies of the features
        positives = torch.einsum("bf,bf->b", queries, features_v)  # holds no product of the size of the features
        return cls(queries, features_v, positives, tau, size, workers)

    def log_mean(self, negatives: Tensor, exclude_positive: bool) -> Tensor:
        r"""Return the log-mean-exp of each normaliser relative to the positive score, shape (b,).

        .. math:: \log \frac1B \Big( e^{s_{ii}} + \sum_{j \ne i} e^{s_{ij}} \Big) - s_{ii}

        Args:
            negatives: log-sum-exps over the negatives, shape (b,).
            exclude_positive: leave the positive out, and divide by B - 1.
        """
        relative = negatives - self.positives
        if exclude_positive:
            return relative - math.log(self.size - 1)
        # beyond its threshold softplus is the identity: 20, the default, errs by 2e-9, 40 by less than float64 resolves
        return softplus(relative, threshold=40) - math.log(self.size)

    def diagnostics(self, effective: Tensor) -> Diagnostics:
        """Return what every loss reports: the mean positive score, the effective negatives, the temperature."""
        return {
            "positive_score": self.positives.mean().detach(),
            "effective_negatives": effective.mean(),
            "temperature": self.temperature.detach(),
        }


def check_weights(weights: Sequence[float]) -> None:
    """Refuse weights that do not make a loss.

    Raises:
        ValueError: a weight is negative or not finite, or both are zero.
    """
    if not (min(weights) >= 0 and 0 < sum(weights) < math.inf):
        raise ValueError(f"loss weights {tuple(weights)}: both must be >= 0 and finite, and one > 0")


def checked(loss: Tensor, temperature: Tensor) -> Tensor:
    """Return a loss that is finite, with a positive temperature.

    Raises:
        NotFiniteError: the loss is NaN or infinite.
        ValueError: the temperature is not positive.
    """
    if not bool(torch.isfinite(loss) & (temperature > 0)):
        if not temperature > 0:
            raise ValueError(f"temperature {temperature.item():g}: it divides the scores and must be positive")
        raise NotFiniteError(
            f"the loss is {loss.item()}: scores hold NaN or infinite values; look for them in the data and the "
            "embeddings, clip gradients or lower the learning rate"
        )
    return loss


@in_full_precision
def conditional_loss(
    features_u: Tensor,
    features_v: Tensor,
    temperature: float | Tensor = 1.0,
    *,
    weights: Sequence[float] = (1.0, 1.0),
    workers: Workers | None = None,
    exclude_positive: bool = False,
    atoms_u: Marginal | None = None,
    atoms_v: Marginal | None = None,
    mode: str = "auto",
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
        workers: of the training; one when None.
        exclude_positive: leave the positive out of the normaliser, whose mean is then over B - 1 scores.
        atoms_u: all values of a finite u (``pcl.scores.Atoms``), or a Gaussian that carries it
            (``pcl.carrier.CarriedFeatures``): the normaliser of ``u_given_v`` is exact, not the batch's.
        atoms_v: likewise of v, for ``v_given_u``.
        mode: how scores are formed, see ``pcl.scores.choose_mode``; it changes no value.

    Returns:
        This worker's share L_r (the loss is the mean over workers), and detached diagnostics: each direction,
        the mean positive score, the effective number of negatives :math:`(\sum w)^2 / \sum w^2` of ``v_given_u``,
        the temperature.

    Raises:
        ValueError: a weight is negative, or both are zero; the temperature is not positive; shapes differ; scores are
            NaN; there is no negative and the positive is excluded.

    References:
        arXiv:2505.24134, section 3.13 and Theorem 2.8.

    Example:
        >>> identity = torch.eye(4)
        >>> loss, diagnostics = conditional_loss(identity, identity, 0.01)
        >>> round(loss.item(), 4), round(math.log(4), 4)  # perfect pairs among 4: -log 4
        (-1.3863, 1.3863)
    """
    check_weights(weights)
    pairs = Pairs.of(features_u, features_v, temperature, workers, least=2 if exclude_positive else 1)
    needed = weights[0] > 0 and atoms_u is None, weights[1] > 0 and atoms_v is None
    over_u, over_v, effective = normalisers(pairs.queries, pairs.candidates, pairs.workers, mode, needed)
    directions = []
    for atoms, negatives, given in ((atoms_u, over_u, features_v), (atoms_v, over_v, features_u)):
        exact = None if atoms is None else atoms.log_normaliser(given / pairs.temperature) - pairs.positives
        directions.append((pairs.log_mean(negatives, exclude_positive) if exact is None else exact).mean())
    terms = [weight / 2 * direction for weight, direction in zip(weights, directions, strict=True) if weight > 0]
    loss = checked(torch.stack(terms).sum(), pairs.temperature)
    return loss, {
        "loss": loss.detach(),
        "loss_u_given_v": directions[0].detach(),
        "loss_v_given_u": directions[1].detach(),
        **pairs.diagnostics(effective),
    }


@in_full_precision
def joint_loss(
    features_u: Tensor,
    features_v: Tensor,
    temperature: float | Tensor = 1.0,
    *,
    workers: Workers | None = None,
    exclude_positive: bool = False,
    atoms_u: Atoms | None = None,
    atoms_v: Atoms | None = None,
    mode: str = "auto",
) -> tuple[Tensor, Diagnostics]:
    r"""Joint loss: one normaliser over all scores of the global batch.

    .. math:: L = -\tfrac1B \sum_i s_{ii} + \log \tfrac1{B^2} \sum_{ij} e^{s_{ij}}

    Args:
        features_u: feature maps of this worker's u, shape (b, F).
        features_v: feature maps of their partners v, shape (b, F).
        temperature: tau > 0 that divides every score.
        workers: of the training; one when None.
        exclude_positive: leave the B positives out of the normaliser, whose mean is then over B (B - 1) scores.
        atoms_u: all values of a finite u: the normaliser takes its exact marginal, not the batch's.
        atoms_v: all values of a finite v, likewise.
        mode: how scores are formed, see ``pcl.scores.choose_mode``; it changes no value.

    Returns:
        This worker's share L_r (the loss is the mean over workers), and detached diagnostics.

    Raises:
        ValueError: as for ``conditional_loss``.

    References:
        arXiv:2505.24134, equation 52.

    Example:
        >>> u, v = torch.randn(8, 3, generator=torch.Generator().manual_seed(0)), torch.ones(8, 3)
        >>> bool(conditional_loss(u, v)[0] <= joint_loss(u, v)[0])  # Theorem 3.10
        True
    """
    pairs = Pairs.of(features_u, features_v, temperature, workers, least=2 if exclude_positive else 1)
    over_v, effective = row_normalisers(pairs.queries, pairs.candidates, pairs.workers, mode)
    if atoms_u is not None and atoms_v is not None:
        over_atoms = atoms_v.log_normaliser(atoms_u.features / pairs.temperature)
        log_normaliser = torch.logsumexp(over_atoms + atoms_u.log_probabilities.to(over_atoms), 0)
    elif (atoms := atoms_v or atoms_u) is not None:
        over_atoms = atoms.log_normaliser(pairs.queries if atoms_u is None else features_v / pairs.temperature)
        log_normaliser = _log_total(over_atoms, pairs.workers) - math.log(pairs.size)
    else:
        scores = over_v if exclude_positive else torch.cat([over_v, pairs.positives])
        count = pairs.size * (pairs.size - 1 if exclude_positive else pairs.size)
        log_normaliser = _log_total(scores, pairs.workers) - math.log(count)
    loss = checked(log_normaliser - pairs.positives.mean(), pairs.temperature)
    return loss, {"loss": loss.detach(), **pairs.diagnostics(effective)}


def _log_total(values: Tensor, workers: Workers) -> Tensor:
    """Return the log-sum-exp of the values of all workers, a scalar."""
    return workers.log_sum_exp(torch.logsumexp(values, 0))
