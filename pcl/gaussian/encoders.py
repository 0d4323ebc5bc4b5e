r"""Linear encoders of Gaussian pairs: the optimum in closed form, and the conditionals a pair of encoders implies.

With :math:`g_u = G u + g_0`, :math:`g_v = H v + h_0` (tau absorbed), :math:`A = G^T H`, :math:`B = G^T G`.

Shapes: n = dim u, m = dim v, E embedding.
"""

__all__ = ["model_conditional", "optimal_encoders"]

from collections.abc import Sequence

import torch
from torch import Tensor

from pcl.gaussian.pair import AffineMap, GaussianPair


def optimal_encoders(
    pair: GaussianPair,
    embedding_dim: int,
    loss: str = "conditional",
    tilting: str = "inner_product",
    weights: Sequence[float] = (1.0, 1.0),
) -> tuple[Tensor, Tensor]:
    r"""Return encoders G, H that minimise the population loss among all of rank E.

    .. math::
        G = \operatorname{diag}(\gamma)\, U_r^T C_{uu}^{-1/2}, \qquad
        H = \operatorname{diag}(\eta)\, V_r^T C_{vv}^{-1/2}

    - inner product, conditional loss, any weights: :math:`\gamma\eta = \sigma`;
    - inner product, joint loss: :math:`\gamma\eta = (\sqrt{1 + 4\sigma^2} - 1) / (2\sigma)`;
    - squared distance, conditional loss, equal weights: :math:`\gamma^2 = \eta^2 = p - 1`,
      :math:`p = (1 + \sqrt{1 + 8(1 - \sigma)}) / (4 (1 - \sigma))`;
    - squared distance, u_given_v alone: :math:`\gamma = \sigma/\sqrt{1 - \sigma^2}`,
      :math:`\eta = 1/\sqrt{1 - \sigma^2}`; exchanged for v_given_u alone;
    - squared distance, joint loss: :math:`\gamma^2 = \eta^2 = \sigma / (2 (1 - \sigma))`.

    Args:
        pair: the law, canonical correlations sigma.
        embedding_dim: E, at most min(n, m) of them can be used; further rows are zero.
        loss: ``conditional`` or ``joint``.
        tilting: ``inner_product`` or ``squared_distance``.
        weights: (lambda_u, lambda_v) of the conditional loss.

    Returns:
        G of shape (E, n) and H of shape (E, m), float64.

    Raises:
        ValueError: E < 1, or no closed form is known for the loss, tilting and weights.

    References:
        arXiv:2505.24134, Theorems 5.1 and 5.6; THEORY 5.1, 5.3.

    Example:
        >>> pair = GaussianPair(torch.eye(2), 0.5 * torch.eye(2), torch.eye(2))
        >>> g, h = optimal_encoders(pair, 2)
        >>> torch.allclose(g.T @ h, 0.5 * torch.eye(2, dtype=torch.float64))
        True
    """
    if embedding_dim < 1:
        raise ValueError(f"embedding_dim {embedding_dim}: at least 1 is needed")
    left, sigma, right, root_u, root_v = pair.whitened()
    gamma, eta = _gains(sigma, loss, tilting, weights)
    matrix_rank = min(embedding_dim, len(sigma))
    g = torch.zeros(embedding_dim, len(pair.c_uu), dtype=torch.float64)
    h = torch.zeros(embedding_dim, len(pair.c_vv), dtype=torch.float64)
    g[:matrix_rank] = gamma[:matrix_rank, None] * left[:, :matrix_rank].T @ root_u
    h[:matrix_rank] = eta[:matrix_rank, None] * right[:, :matrix_rank].T @ root_v
    return g, h


def _gains(sigma: Tensor, loss: str, tilting: str, weights: Sequence[float]) -> tuple[Tensor, Tensor]:
    """Return gamma and eta of every canonical pair."""
    lambda_u, lambda_v = weights
    one_sided = loss == "conditional" and tilting == "squared_distance" and 0 in (lambda_u, lambda_v)
    if one_sided and max(weights) > 0:
        large = (1 - sigma**2).rsqrt()
        return (sigma * large, large) if lambda_v == 0 else (large, sigma * large)
    squares = {
        ("conditional", "inner_product"): sigma,
        ("joint", "inner_product"): 2 * sigma / (1 + (1 + 4 * sigma**2).sqrt()),
        ("conditional", "squared_distance"): (1 + (1 + 8 * (1 - sigma)).sqrt()) / (4 * (1 - sigma)) - 1,
        ("joint", "squared_distance"): sigma / (2 * (1 - sigma)),
    }
    unequal = loss == "conditional" and tilting == "squared_distance" and lambda_u != lambda_v
    if (loss, tilting) not in squares or unequal:
        raise ValueError(f"no closed form for the {loss!r} loss with the {tilting!r} tilting and weights {weights}")
    gain = squares[loss, tilting].clamp(min=0).sqrt()
    return gain, gain


def model_conditional(
    encoder_u: AffineMap, encoder_v: AffineMap, prior: Tensor, tilting: str
) -> tuple[AffineMap, Tensor]:
    r"""Return the conditional mean map and covariance of u given v under a tilted Gaussian marginal N(0, C_uu).

    .. math::
        \text{inner product: } u|v \sim N(C_{uu} G^T (H v + h_0),\; C_{uu}), \qquad
        \text{squared distance: } u|v \sim N(S G^T (H v + h_0 - g_0),\; S),\; S = (B + C_{uu}^{-1})^{-1}

    For v given u exchange the encoders and give C_vv.

    Args:
        encoder_u: G (E, n) and g_0 (E,), the square root of the temperature divided out.
        encoder_v: H (E, m) and h_0 (E,), likewise.
        prior: C_uu, shape (n, n).
        tilting: ``inner_product`` or ``squared_distance``.

    Raises:
        ValueError: the tilting has no Gaussian conditional.

    References:
        arXiv:2505.24134, equations 40 and 47.

    Example:
        >>> identity = AffineMap(torch.eye(1).double(), torch.zeros(1).double())
        >>> mean, covariance = model_conditional(identity, identity, torch.eye(1).double(), "squared_distance")
        >>> mean.matrix.item(), covariance.item()
        (0.5, 0.5)
    """
    g, h = encoder_u.matrix, encoder_v.matrix
    if tilting == "inner_product":
        matrix, offset, covariance = g.T @ h, g.T @ encoder_v.offset, prior
    elif tilting == "squared_distance":
        matrix, offset = g.T @ h, g.T @ (encoder_v.offset - encoder_u.offset)
        covariance = torch.linalg.inv(g.T @ g + torch.linalg.inv(prior))
    else:
        raise ValueError(f"the {tilting!r} tilting of a Gaussian has no Gaussian conditional")
    return AffineMap(covariance @ matrix, covariance @ offset), covariance
