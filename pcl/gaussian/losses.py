r"""The population losses of linear encoders as Kullback-Leibler divergences from the data to the model.

Each KL is taken between centred Gaussians in white coordinates (``GaussianPair``), through Cholesky factors
only: with :math:`T = F F^T` the true covariance and :math:`Q = L L^T` the model's precision,

.. math:: 2 \, \mathrm{KL} = |L^T F|^2 - n - 2 \log\det L - 2 \log\det F.

Shapes: n = dim u, m = dim v, E embedding.
"""

__all__ = ["population_loss"]

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from pcl.gaussian.arguments import LOSSES, check_choice, check_weights
from pcl.gaussian.model import white_precision
from pcl.gaussian.pair import GaussianPair


def population_loss(
    pair: GaussianPair,
    g: Tensor,
    h: Tensor,
    loss: str = "conditional",
    tilting: str = "inner_product",
    weights: Sequence[float] = (1.0, 1.0),
    potentials: Sequence[Tensor] = (),
) -> Tensor:
    r"""Return a contrastive loss on infinitely many pairs, written as a divergence so that 0 is perfect.

    .. math::
        \text{conditional: } \tfrac{\lambda_u}{2}\, E_v \mathrm{KL}(\mu_{u|v} \| \nu_{u|v})
        + \tfrac{\lambda_v}{2}\, E_u \mathrm{KL}(\mu_{v|u} \| \nu_{v|u}), \qquad
        \text{joint: } \mathrm{KL}(\mu \| \nu)

    It is the training loss plus a constant of the data: the mutual information I for the joint loss, and
    (lambda_u + lambda_v) I / 2 for the conditional one, because E log(d mu_{u|v} / d mu_u) = I. By the chain rule
    of the divergence KL(mu || nu) = E KL(mu_{u|v} || nu_{u|v}) + KL(mu_v || nu_v), so the joint loss exceeds the
    conditional one of weights (1, 1) by half of what both marginals of the model are wrong.

    Args:
        pair: the law mu.
        g: G, shape (E, n), the square root of the temperature divided out.
        h: H, shape (E, m), likewise.
        loss: ``conditional`` or ``joint``.
        tilting: ``inner_product``, ``squared_distance`` or ``potentials``.
        weights: (lambda_u, lambda_v) of the conditional loss; the joint loss has none.
        potentials: Q and R of the tilting ``potentials``; none of the others.

    Returns:
        The loss in nats, a scalar, differentiable in what is given. The joint loss is +inf, without gradient, where the
        model's precision is not positive definite: there its normaliser diverges (the conditional ones do not).

    Raises:
        ValueError: the loss or tilting is not known, a weight is impossible, or the encoders or potentials do not act
            on the pair.

    References:
        arXiv:2505.24134, Theorems 3.2, 3.10 and equation 52.

    Example:
        >>> pair = GaussianPair(torch.eye(2), 0.5 * torch.eye(2), torch.eye(2))
        >>> nothing = torch.zeros(1, 2)
        >>> round(population_loss(pair, nothing, nothing).item() / pair.mutual_information(), 12)
        1.0
        >>> population_loss(pair, 2 * torch.eye(2), torch.eye(2), "joint").item()
        inf
    """
    check_choice("loss", loss, LOSSES)
    precision = white_precision(pair, g, h, tilting, potentials)
    if loss == "joint":
        return _joint_divergence(precision, pair.cross)
    lambda_u, lambda_v = check_weights(weights)
    n = len(pair.c_uu)
    u_given_v = _conditional_divergence(precision[:n, :n], precision[:n, n:], pair.cross)
    v_given_u = _conditional_divergence(precision[n:, n:], precision[n:, :n], pair.cross.T)
    total: Tensor = lambda_u / 2 * u_given_v + lambda_v / 2 * v_given_u
    return total


def _conditional_divergence(own: Tensor, mixed: Tensor, cross: Tensor) -> Tensor:
    r"""Return :math:`E_y \mathrm{KL}(N(R y, I - R R^T) \| N(-Q_{xx}^{-1} Q_{xy} y, Q_{xx}^{-1}))`, y standard."""
    truth = torch.linalg.cholesky(torch.eye(len(cross), dtype=torch.float64) - cross @ cross.T)
    root = torch.linalg.cholesky(own)
    shift = torch.linalg.solve_triangular(root, mixed, upper=False) + root.T @ cross
    mean: Tensor = shift.square().sum() / 2
    return mean + _divergence(root, truth)


def _joint_divergence(precision: Tensor, cross: Tensor) -> Tensor:
    root, failed = torch.linalg.cholesky_ex(precision)
    if failed:
        return torch.tensor(math.inf, dtype=torch.float64)
    n, m = cross.shape
    truth = torch.eye(n + m, dtype=torch.float64)
    truth[:n, n:], truth[n:, :n] = cross, cross.T
    return _divergence(root, torch.linalg.cholesky(truth))


def _divergence(root: Tensor, truth: Tensor) -> Tensor:
    """Return KL(N(0, F F') || N(0, (L L')^-1)) for L = root and F = truth, both lower triangular."""
    log_volume = root.diagonal().log().sum() + truth.diagonal().log().sum()
    divergence: Tensor = ((root.T @ truth).square().sum() - len(root)) / 2 - log_volume
    return divergence
