r"""The population MMD losses of linear encoders with Gaussian kernels, as Gaussian integrals.

For :math:`k(x, x') = \exp(-|x - x'|^2 / (2 h^2))` and a centred Gaussian difference x - x' of covariance S,

.. math:: E\, k(x, x') = \phi(S) = \det(I + S / h^2)^{-1/2}.

Shapes: n = dim u, m = dim v, E embedding.
"""

__all__ = ["population_mmd"]

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from pcl.gaussian.arguments import MMD_LOSSES, check_choice, check_weights
from pcl.gaussian.model import model_covariance, white_precision
from pcl.gaussian.pair import GaussianPair


def population_mmd(
    pair: GaussianPair,
    g: Tensor,
    h: Tensor,
    loss: str = "conditional_mmd",
    tilting: str = "inner_product",
    weights: Sequence[float] = (1.0, 1.0),
    bandwidths: Sequence[float] = (1.0, 1.0),
    potentials: Sequence[Tensor] = (),
) -> Tensor:
    r"""Return an MMD loss on infinitely many pairs, completed to squared discrepancies so that 0 is perfect.

    .. math::
        \text{conditional: } \tfrac{\lambda_u}{2} \cdot \tfrac12 E_v \mathrm{MMD}^2(\mu_{u|v}, \nu_{u|v})
        + \tfrac{\lambda_v}{2} \cdot \tfrac12 E_u \mathrm{MMD}^2(\mu_{v|u}, \nu_{v|u}), \qquad
        \text{joint: } \mathrm{MMD}^2(\mu, \nu), \; k = k_u k_v

    A direction of the training loss is :math:`\tfrac12 E\, k(x, x') - E\, k(x, y)` with x, x' of the model and y of
    the data given the same v; what is added here is :math:`\tfrac12 E\, k(y, y')`, which no encoder changes. The
    difference x - y given v is Gaussian with mean :math:`\Delta v`, so over v as well it is centred Gaussian:

    .. math::
        E_v \mathrm{MMD}^2 = \phi(2 S) - 2 \phi(S + C_{u|v} + \Delta C_{vv} \Delta^T) + \phi(2 C_{u|v})

    with S the model's conditional covariance and :math:`\Delta` the error of its mean map. Under the inner product
    S = C_uu is fixed and the middle term is largest at :math:`\Delta = 0`: exact means are optimal where the rank
    allows them, as for the divergence.

    Args:
        pair: the law mu.
        g: G, shape (E, n), the square root of the temperature divided out.
        h: H, shape (E, m), likewise.
        loss: ``conditional_mmd`` or ``joint_mmd``.
        tilting: ``inner_product``, ``squared_distance`` or ``potentials``.
        weights: (lambda_u, lambda_v) of the conditional loss; the joint loss has none.
        bandwidths: of the kernels on U and on V, in the units of u and of v.
        potentials: Q and R of the tilting ``potentials``; none of the others.

    Returns:
        The loss, a scalar without unit, differentiable in what is given.

    Raises:
        ValueError: the loss or tilting is not known, a weight or bandwidth is impossible, or the encoders or
            potentials do not act on the pair.
        ImproperModelError: a ValueError too; the joint loss of a model that is no law.

    References:
        arXiv:2505.24134, 3.11 and appendix B.

    Example:
        >>> pair = GaussianPair(torch.eye(1), torch.zeros(1, 1), torch.eye(1))
        >>> nothing = torch.zeros(1, 1)
        >>> abs(population_mmd(pair, nothing, nothing).item()) < 1e-15
        True
    """
    check_choice("loss", loss, MMD_LOSSES)
    widths = [float(width) for width in bandwidths]
    if len(widths) != 2 or not all(math.isfinite(width) and width > 0 for width in widths):
        raise ValueError(f"bandwidths {tuple(widths)}: two finite numbers are needed, both > 0")
    n, m = pair.cross.shape
    if loss == "joint_mmd":
        scale = torch.tensor([widths[0]] * n + [widths[1]] * m, dtype=torch.float64)
        covariance = model_covariance(pair, g, h, tilting, potentials)
        model, truth = (c / scale / scale[:, None] for c in (covariance, pair.covariance))
        return _discrepancy(model, truth, torch.zeros_like(truth))
    lambda_u, lambda_v = check_weights(weights)
    precision = white_precision(pair, g, h, tilting, potentials)
    u_given_v = _conditional_discrepancy(precision[:n, :n], precision[:n, n:], pair.cross, pair.root_u / widths[0])
    v_given_u = _conditional_discrepancy(precision[n:, n:], precision[n:, :n], pair.cross.T, pair.root_v / widths[1])
    return lambda_u / 4 * u_given_v + lambda_v / 4 * v_given_u


def _conditional_discrepancy(own: Tensor, mixed: Tensor, cross: Tensor, root: Tensor) -> Tensor:
    """Return the mean squared MMD of one direction, from white coordinates that ``root`` takes to bandwidths."""
    model = torch.linalg.inv(own)
    truth = torch.eye(len(cross), dtype=torch.float64) - cross @ cross.T
    shift = root @ (model @ mixed + cross)
    return _discrepancy(root @ model @ root.T, root @ truth @ root.T, shift @ shift.T)


def _discrepancy(model: Tensor, truth: Tensor, shift: Tensor) -> Tensor:
    """Return phi(2 model) - 2 phi(model + truth + shift) + phi(2 truth), covariances in units of the bandwidths."""
    return _mean_kernel(2 * model) - 2 * _mean_kernel(model + truth + shift) + _mean_kernel(2 * truth)


def _mean_kernel(covariance: Tensor) -> Tensor:
    """Return phi."""
    root = torch.linalg.cholesky(torch.eye(len(covariance), dtype=torch.float64) + covariance)
    value: Tensor = root.diagonal().log().sum().neg().exp()
    return value
