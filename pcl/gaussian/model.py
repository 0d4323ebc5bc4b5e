r"""The Gaussian law that a pair of linear encoders implies: its conditionals and its joint law.

With :math:`g_u = G u + g_0`, :math:`g_v = H v + h_0` (tau absorbed), :math:`A = G^T H`, :math:`B = G^T G`,
:math:`D = H^T H`. White coordinates x, y and the cross-covariance R of the data there are those of ``GaussianPair``.

Shapes: n = dim u, m = dim v, E embedding.
"""

__all__ = ["ImproperModelError", "model_conditional", "model_covariance", "model_joint", "white_precision"]

import torch
from torch import Tensor

from pcl.gaussian.arguments import TILTINGS, check_choice, check_encoders
from pcl.gaussian.pair import AffineMap, GaussianPair


class ImproperModelError(ValueError):
    """The tilted product of the marginals has infinite mass, so it is no law."""


def white_precision(pair: GaussianPair, g: Tensor, h: Tensor, tilting: str) -> Tensor:
    r"""Return the model's precision in white coordinates, where :math:`\hat G = G L_u` and :math:`\hat H = H L_v`.

    .. math::
        \text{inner product: } \begin{pmatrix} I & -\hat G^T \hat H \\ -\hat H^T \hat G & I \end{pmatrix}, \qquad
        \text{squared distance: } I + (\hat G, -\hat H)^T (\hat G, -\hat H)

    The second is positive definite whatever the encoders: a squared distance always makes a law.

    Args:
        pair: the law whose marginals are tilted.
        g: G, shape (E, n).
        h: H, shape (E, m).
        tilting: ``inner_product`` or ``squared_distance``.

    Returns:
        Shape (n + m, n + m), differentiable in g and h, positive definite or not.

    Raises:
        ValueError: the tilting has no Gaussian form, or the encoders do not act on the pair.

    References:
        arXiv:2505.24134, equations 40 and 47.

    Example:
        >>> pair = GaussianPair(4 * torch.eye(1), torch.ones(1, 1), torch.eye(1))
        >>> white_precision(pair, 0.25 * torch.eye(1), torch.eye(1), "inner_product").tolist()
        [[1.0, -0.5], [-0.5, 1.0]]
    """
    check_choice("tilting", tilting, TILTINGS)
    g, h = check_encoders(pair, g, h)
    white_g, white_h = g @ pair.root_u, h @ pair.root_v
    if tilting == "squared_distance":
        both = torch.cat([white_g, -white_h], 1)
        return torch.eye(both.shape[1], dtype=torch.float64) + both.T @ both
    mixed = -white_g.T @ white_h
    identities = [torch.eye(size, dtype=torch.float64) for size in mixed.shape]
    return torch.cat([torch.cat([identities[0], mixed], 1), torch.cat([mixed.T, identities[1]], 1)])


def model_covariance(pair: GaussianPair, g: Tensor, h: Tensor, tilting: str) -> Tensor:
    """Return the covariance of ``model_joint``, shape (n + m, n + m), differentiable in g and h."""
    precision = white_precision(pair, g, h, tilting)
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


def model_joint(pair: GaussianPair, g: Tensor, h: Tensor, tilting: str) -> GaussianPair:
    r"""Return the model law nu, the product of the marginals tilted by the encoders, from its precision.

    .. math::
        \text{inner product: } \begin{pmatrix} C_{uu}^{-1} & -A \\ -A^T & C_{vv}^{-1} \end{pmatrix}, \qquad
        \text{squared distance: }
        \begin{pmatrix} C_{uu}^{-1} + B & -A \\ -A^T & C_{vv}^{-1} + D \end{pmatrix}

    Args:
        pair: the law whose marginals are tilted.
        g: G, shape (E, n).
        h: H, shape (E, m).
        tilting: ``inner_product`` or ``squared_distance``.

    Returns:
        The law nu of (u, v), detached; its marginals differ from those of the data in general.

    Raises:
        ValueError: the tilting has no Gaussian form, or the encoders do not act on the pair.
        ImproperModelError: a ValueError too; the precision is not positive definite (inner product only).

    References:
        arXiv:2505.24134, equations 40 and 47.

    Example:
        >>> pair = GaussianPair(torch.eye(1), 0.5 * torch.eye(1), torch.eye(1))
        >>> round(model_joint(pair, torch.eye(1), 0.5 * torch.eye(1), "inner_product").c_uu.item(), 12)  # 1 / (1 - 1/4)
        1.333333333333
    """
    n = len(pair.c_uu)
    covariance = model_covariance(pair, g, h, tilting)
    return GaussianPair(covariance[:n, :n], covariance[:n, n:], covariance[n:, n:])


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
    if tilting == "inner_product":
        matrix, offset, covariance = g.T @ h, g.T @ encoder_v.offset, prior
    else:
        matrix, offset = g.T @ h, g.T @ (encoder_v.offset - encoder_u.offset)
        root = torch.linalg.cholesky(prior)
        white_precision_u = torch.eye(len(prior), dtype=prior.dtype) + root.T @ g.T @ g @ root
        half = torch.linalg.solve_triangular(torch.linalg.cholesky(white_precision_u), root.T, upper=False)
        covariance = half.T @ half
    return AffineMap(covariance @ matrix, covariance @ offset), covariance
