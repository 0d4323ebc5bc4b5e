r"""The Gaussian law that a pair of linear encoders implies: its conditionals and its joint law.

With :math:`g_u = G u + g_0`, :math:`g_v = H v + h_0` (tau absorbed) every tilting here is

.. math:: s(u, v) = \langle g_u, g_v \rangle - |Q u + q_0|^2 / 2 - |R v + r_0|^2 / 2

with potentials that are zero (inner product), tied to the encoders, Q = G and R = H (squared distance), or free
(potentials). White coordinates x, y and the cross-covariance of the data there are those of ``GaussianPair``.

Shapes: n = dim u, m = dim v, E embedding; Q and R have any number of rows.
"""

__all__ = [
    "ImproperModelError",
    "model_conditional",
    "model_conditionals",
    "model_covariance",
    "model_joint",
    "white_precision",
]

from collections.abc import Sequence

import torch
from torch import Tensor

from pcl.gaussian.arguments import TILTINGS, check_choice, check_encoders, check_potentials
from pcl.gaussian.pair import AffineMap, GaussianPair


class ImproperModelError(ValueError):
    """The tilted product of the marginals has infinite mass, so it is no law."""


def white_precision(
    pair: GaussianPair, g: Tensor, h: Tensor, tilting: str, potentials: Sequence[Tensor] = ()
) -> Tensor:
    r"""Return the model's precision in white coordinates, where :math:`\hat G = G L_u` and :math:`\hat H = H L_v`.

    .. math::
        \begin{pmatrix} I + \hat Q^T \hat Q & -\hat G^T \hat H \\ -\hat H^T \hat G & I + \hat R^T \hat R \end{pmatrix}

    With Q = G and R = H it is :math:`I + (\hat G, -\hat H)^T (\hat G, -\hat H)`, positive definite whatever the
    encoders: a squared distance always makes a law.

    Args:
        pair: the law whose marginals are tilted.
        g: G, shape (E, n).
        h: H, shape (E, m).
        tilting: ``inner_product``, ``squared_distance`` or ``potentials``.
        potentials: Q and R of the tilting ``potentials``; none of the others.

    Returns:
        Shape (n + m, n + m), differentiable in what is given, positive definite or not.

    Raises:
        ValueError: the tilting has no Gaussian form, or the encoders or potentials do not act on the pair.

    References:
        arXiv:2505.24134, equations 40 and 47.

    Example:
        >>> pair = GaussianPair(4 * torch.eye(1), torch.ones(1, 1), torch.eye(1))
        >>> white_precision(pair, 0.25 * torch.eye(1), torch.eye(1), "inner_product").tolist()
        [[1.0, -0.5], [-0.5, 1.0]]
    """
    check_choice("tilting", tilting, TILTINGS)
    g, h = check_encoders(pair, g, h)
    q, r = check_potentials(pair, g, h, tilting, potentials)
    white_g, white_h, white_q, white_r = (
        part @ root for part, root in zip((g, h, q, r), (pair.root_u, pair.root_v) * 2, strict=True)
    )
    if tilting == "squared_distance":  # one product is positive semidefinite in spite of rounding
        both = torch.cat([white_g, -white_h], 1)
        return torch.eye(both.shape[1], dtype=torch.float64) + both.T @ both
    mixed = -white_g.T @ white_h
    blocks = torch.cat([torch.cat([white_q.T @ white_q, mixed], 1), torch.cat([mixed.T, white_r.T @ white_r], 1)])
    return torch.eye(len(blocks), dtype=torch.float64) + blocks


def model_covariance(
    pair: GaussianPair, g: Tensor, h: Tensor, tilting: str, potentials: Sequence[Tensor] = ()
) -> Tensor:
    """Return the covariance of ``model_joint``, shape (n + m, n + m), differentiable in what is given."""
    precision = white_precision(pair, g, h, tilting, potentials)
    smallest = torch.linalg.eigvalsh(precision.detach())[0].item()
    if smallest <= len(precision) * torch.finfo(torch.float64).eps:
        raise ImproperModelError(
            f"the model is improper: where both marginals are white, the smallest eigenvalue of its precision is "
            f"{smallest:.2e}, and a law needs it positive; shrink the encoders (or raise the temperature) until "
            "the largest singular value of C_uu^1/2 G'H C_vv^1/2 is below 1"
        )
    identity = torch.eye(len(precision), dtype=torch.float64)
    white = torch.linalg.solve_triangular(torch.linalg.cholesky(precision), identity, upper=False)
    n = len(pair.c_uu)
    half = torch.cat([white[:, :n] @ pair.root_u.T, white[:, n:] @ pair.root_v.T], 1)
    return half.T @ half


def model_joint(
    pair: GaussianPair, g: Tensor, h: Tensor, tilting: str, potentials: Sequence[Tensor] = ()
) -> GaussianPair:
    r"""Return the model law nu, the product of the marginals tilted by the encoders, from its precision.

    .. math::
        \begin{pmatrix} C_{uu}^{-1} + Q^T Q & -G^T H \\ -H^T G & C_{vv}^{-1} + R^T R \end{pmatrix}

    with Q = R = 0 for the inner product and Q = G, R = H for the squared distance.

    Args:
        pair: the law whose marginals are tilted.
        g: G, shape (E, n).
        h: H, shape (E, m).
        tilting: ``inner_product``, ``squared_distance`` or ``potentials``.
        potentials: Q and R of the tilting ``potentials``; none of the others.

    Returns:
        The law nu of (u, v), detached; its marginals differ from those of the data in general.

    Raises:
        ValueError: the tilting has no Gaussian form, or the encoders or potentials do not act on the pair.
        ImproperModelError: a ValueError too; the precision is not positive definite (never for squared distances).

    References:
        arXiv:2505.24134, equations 40 and 47.

    Example:
        >>> pair = GaussianPair(torch.eye(1), 0.5 * torch.eye(1), torch.eye(1))
        >>> round(model_joint(pair, torch.eye(1), 0.5 * torch.eye(1), "inner_product").c_uu.item(), 12)  # 1 / (1 - 1/4)
        1.333333333333
    """
    n = len(pair.c_uu)
    covariance = model_covariance(pair, g, h, tilting, potentials)
    return GaussianPair(covariance[:n, :n], covariance[:n, n:], covariance[n:, n:])


def model_conditional(
    encoder_u: AffineMap, encoder_v: AffineMap, prior: Tensor, tilting: str, potential: AffineMap | None = None
) -> tuple[AffineMap, Tensor]:
    r"""Return the conditional mean map and covariance of u given v under a tilted Gaussian marginal N(0, C_uu).

    .. math:: u|v \sim N\big(S (G^T (H v + h_0) - Q^T q_0),\; S\big), \qquad S = (C_{uu}^{-1} + Q^T Q)^{-1}

    with Q = 0 for the inner product and Q = G, q_0 = g_0 for the squared distance. For v given u exchange the encoders
    and give C_vv.

    Args:
        encoder_u: G (E, n) and g_0 (E,), the square root of the temperature divided out.
        encoder_v: H (E, m) and h_0 (E,), likewise.
        prior: C_uu, shape (n, n).
        tilting: ``inner_product``, ``squared_distance`` or ``potentials``.
        potential: Q (., n) and q_0 of u, of the tilting ``potentials``; None: zero.

    Returns:
        The mean map, matrix (n, m) and offset (n,), and the covariance (n, n), the same for every v.

    Raises:
        ValueError: the tilting has no Gaussian form.

    References:
        arXiv:2505.24134, equations 41 and 48.

    Example:
        >>> identity = AffineMap(torch.eye(1).double(), torch.zeros(1).double())
        >>> mean, covariance = model_conditional(identity, identity, torch.eye(1).double(), "squared_distance")
        >>> round(mean.matrix.item(), 12), round(covariance.item(), 12)
        (0.5, 0.5)
    """
    check_choice("tilting", tilting, TILTINGS)
    g, h = encoder_u.matrix, encoder_v.matrix
    matrix, offset, covariance = g.T @ h, g.T @ encoder_v.offset, prior
    own = encoder_u if tilting == "squared_distance" else potential if tilting == "potentials" else None
    if own is not None:
        q = own.matrix
        root = torch.linalg.cholesky(prior)
        white_precision_u = torch.eye(len(prior), dtype=prior.dtype) + root.T @ q.T @ q @ root
        half = torch.linalg.solve_triangular(torch.linalg.cholesky(white_precision_u), root.T, upper=False)
        offset, covariance = offset - q.T @ own.offset, half.T @ half
    return AffineMap(covariance @ matrix, covariance @ offset), covariance


def model_conditionals(
    pair: GaussianPair, encoders: Sequence[AffineMap], tilting: str
) -> dict[str, tuple[AffineMap, Tensor]]:
    """Return the conditional mean map and covariance of both directions.

    Args:
        pair: the law whose marginals are tilted.
        encoders: G and H, and Q and R of the tilting ``potentials``, as ``model_conditional`` takes them.
        tilting: ``inner_product``, ``squared_distance`` or ``potentials``.

    Example:
        >>> pair = GaussianPair(torch.eye(1), 0.5 * torch.eye(1), torch.eye(1))
        >>> one = AffineMap.linear(torch.eye(1, dtype=torch.float64))
        >>> round(model_conditionals(pair, (one, one), "squared_distance")["v_given_u"][1].item(), 12)
        0.5
    """
    g, h, *potentials = encoders
    q, r = potentials or (None, None)
    return {
        "u_given_v": model_conditional(g, h, pair.c_uu, tilting, q),
        "v_given_u": model_conditional(h, g, pair.c_vv, tilting, r),
    }
