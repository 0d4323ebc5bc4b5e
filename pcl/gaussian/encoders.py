r"""The optimal linear encoders of a Gaussian pair, for every population loss, tilting and rank.

In white coordinates let :math:`M = \hat G \hat G^T`, :math:`N = \hat H \hat H^T` (both E x E), and let s_i be the
singular values of :math:`N^{1/2} M^{1/2}` and R the cross-covariance of the data. Every loss rewards the encoders by
:math:`\operatorname{tr}(\hat G R \hat H^T) \le \sum_i \sigma_i s_i` (von Neumann), with equality if they act on
matching canonical pairs, and what it charges is bounded by a sum over pairs that is attained there too:

- conditional loss, in the singular basis of :math:`N^{1/2} M^{1/2}`, by Jensen's inequality for
  :math:`\operatorname{tr}((I + M)^{-1} M^{1/2} N M^{1/2})` and Hadamard's for :math:`\det(I + M)`;
- joint loss, squared distance, by :math:`s_i(M^{1/2} N^{1/2}) \le \lambda_i(M + N) / 2`;
- inner product, because the charge is a function of the singular values s_i alone.

So the problem splits into one scalar problem for each canonical pair. Its minimum falls with sigma (its slope is
minus a positive multiple of s), so the best E pairs are the first.

With potentials another argument is shorter, and holds for all encoders of dimension E and all laws: u given v depends
on v through g_v alone, so E KL(mu_{u|v} || nu_{u|v}) is at least I(u; v) - I(u; g_v(v)), and for a Gaussian law
I(u; g_v) is at most the mutual information of the first E canonical pairs. The joint divergence is no less (chain
rule). Quadratic potentials attain the bound in every loss at once.

Shapes: n = dim u, m = dim v, E embedding.
"""

__all__ = ["optimal_encoders"]

from collections.abc import Sequence
from itertools import cycle

import torch
from torch import Tensor

from pcl.gaussian.arguments import LOSSES, TILTINGS, check_choice, check_weights
from pcl.gaussian.pair import GaussianPair


def optimal_encoders(
    pair: GaussianPair,
    embedding_dim: int,
    loss: str = "conditional",
    tilting: str = "inner_product",
    weights: Sequence[float] = (1.0, 1.0),
) -> tuple[Tensor, ...]:
    r"""Return encoders G, H that minimise the population loss among all of rank E.

    .. math::
        G = \operatorname{diag}(\gamma)\, U_r^T C_{uu}^{-1/2}, \qquad
        H = \operatorname{diag}(\eta)\, V_r^T C_{vv}^{-1/2}, \qquad
        C_{uu}^{-1/2} C_{uv} C_{vv}^{-1/2} = U \operatorname{diag}(\sigma) V^T

    - inner product, conditional loss, any weights: :math:`\gamma\eta = \sigma`;
    - inner product, joint loss: :math:`\gamma\eta = (\sqrt{1 + 4\sigma^2} - 1) / (2\sigma)`;
    - squared distance, joint loss: :math:`\gamma^2 = \eta^2 = \sigma / (2 (1 - \sigma))`;
    - squared distance, conditional loss, equal weights: :math:`\gamma^2 = \eta^2 = p - 1`,
      :math:`p = (1 + \sqrt{1 + 8(1 - \sigma)}) / (4 (1 - \sigma))`;
    - squared distance, u_given_v alone: :math:`\gamma = \sigma/\sqrt{1 - \sigma^2}`,
      :math:`\eta = 1/\sqrt{1 - \sigma^2}`, exchanged for v_given_u alone: at rank E the remaining loss is the mutual
      information :math:`-\tfrac12 \sum_{i > E} \log(1 - \sigma_i^2)` of the pairs left out;
    - squared distance, conditional loss, unequal weights: a scalar root, found to machine precision;
    - potentials, every loss: :math:`\gamma = \eta = \sqrt{\sigma / (1 - \sigma^2)}`, and
      :math:`Q = \operatorname{diag}(\beta) U_r^T C_{uu}^{-1/2}` with :math:`\beta = \sigma / \sqrt{1 - \sigma^2}`, R
      likewise: what remains is the mutual information of the pairs left out (times :math:`(\lambda_u + \lambda_v) / 2`
      for the conditional loss). The potential that a one-sided loss does not see is zero.

    Args:
        pair: the law, canonical correlations sigma.
        embedding_dim: E, from 1 to min(n, m).
        loss: ``conditional`` or ``joint``.
        tilting: ``inner_product``, ``squared_distance`` or ``potentials``.
        weights: (lambda_u, lambda_v) of the conditional loss; the joint loss has none.

    Returns:
        G of shape (E, n) and H of shape (E, m), float64, and with potentials Q (E, n) and R (E, m) after them. G and H
        are unique only up to an invertible (inner product, potentials) or orthogonal (squared distance) change of basis
        of the embedding.

    Raises:
        ValueError: the loss or tilting is not known, a weight is impossible, or E is not a rank of the pair.

    References:
        arXiv:2505.24134, Theorems 5.1, 5.3 (u_given_v alone, full rank) and 5.6; the module derives the others.

    Example:
        >>> pair = GaussianPair(torch.eye(2), 0.5 * torch.eye(2), torch.eye(2))
        >>> g, h = optimal_encoders(pair, 2)
        >>> torch.allclose(g.T @ h, 0.5 * torch.eye(2, dtype=torch.float64))
        True
    """
    check_choice("loss", loss, LOSSES)
    check_choice("tilting", tilting, TILTINGS)
    directions_u, sigma, directions_v = pair.canonical_pairs()
    if not 1 <= embedding_dim <= len(sigma):
        raise ValueError(
            f"embedding_dim {embedding_dim}: {len(pair.c_uu)} components of u and {len(pair.c_vv)} of v have "
            f"{len(sigma)} canonical pairs, so encoders have a rank from 1 to {len(sigma)}; take the smaller number"
        )
    gains = _gains(sigma[:embedding_dim], loss, tilting, weights)
    directions = directions_u[:embedding_dim], directions_v[:embedding_dim]
    return tuple(gain[:, None] * part for gain, part in zip(gains, cycle(directions), strict=False))


def _gains(sigma: Tensor, loss: str, tilting: str, weights: Sequence[float]) -> tuple[Tensor, ...]:
    """Return gamma and eta of every canonical pair, and with potentials beta of u and of v."""
    if tilting == "potentials":
        free = ((1 - sigma) * (1 + sigma)).rsqrt()
        seen = (True, True) if loss == "joint" else (weight > 0 for weight in check_weights(weights))
        return sigma.sqrt() * free, sigma.sqrt() * free, *(sigma * free * is_seen for is_seen in seen)
    if loss == "joint":
        product = 2 * sigma / (1 + (1 + 4 * sigma**2).sqrt())
        gain = (product if tilting == "inner_product" else sigma / (2 * (1 - sigma))).sqrt()
        return gain, gain
    lambda_u, lambda_v = check_weights(weights)
    if tilting == "inner_product":
        return sigma.sqrt(), sigma.sqrt()
    if lambda_u == lambda_v:
        gain = _equal_weights(sigma).sqrt()
        return gain, gain
    if 0 in (lambda_u, lambda_v):
        large = ((1 - sigma) * (1 + sigma)).rsqrt()
        return (sigma * large, large) if lambda_v == 0 else (large, sigma * large)
    return _unequal_weights(sigma, lambda_u / (lambda_u + lambda_v), lambda_v / (lambda_u + lambda_v))


def _equal_weights(sigma: Tensor) -> Tensor:
    """Return p - 1, written so that no digits cancel where it vanishes with sigma."""
    root = (1 + 8 * (1 - sigma)).sqrt()
    return sigma * (root + 1) / ((root + 3) * (1 - sigma))


def _unequal_weights(sigma: Tensor, weight_u: float, weight_v: float) -> tuple[Tensor, Tensor]:
    r"""Return gamma and eta of the squared distance with the conditional loss of weights p + q = 1, both positive.

    With :math:`b = \gamma^2, c = \eta^2` one canonical pair costs, up to a factor and a constant of the data,

    .. math::
        p \Big[ b - \log(1 + b) + \frac{bc}{1 + b} \Big] + q \Big[ c - \log(1 + c) + \frac{bc}{1 + c} \Big]
        - 2 \sigma \sqrt{bc}.

    Write s^2 for bc: the cost is convex in (b, c, s), and so is the set s^2 <= bc, in which no point with s^2 < bc is
    optimal (lower b or c). So there is one stationary point with b, c > 0, the minimum. Stationary in b, it has

    .. math::
        \sigma = p \Big[ \sqrt{\tfrac bc} \frac{b}{1 + b} + \frac{\sqrt{bc}}{(1 + b)^2} \Big]
        + q \frac{\sqrt{bc}}{1 + c}

    and the difference to the same in c is, with d = c - b,

    .. math:: p \Big(\frac{b}{1 + b}\Big)^2 (1 - d) = q \Big(\frac{c}{1 + c}\Big)^2 (1 + d).

    Hence d runs from 0 to p - q as sigma runs from 0 to 1. With the odds o of d / (p - q), P = 1 + 2po and
    Q = 1 + 2qo, the curve is explicit without a difference of near numbers, even as q vanishes:

    .. math:: b \Big(b + \frac{P}{1 + o}\Big) = \frac{o}{1 + o} \sqrt{qP} \, \big(\sqrt{qP} + \sqrt{pQ}\big)

    and the same for c with p and q exchanged; sigma increases in o, which is bisected on a logarithmic scale.
    """
    low, high = torch.full_like(sigma, -600.0), torch.full_like(sigma, 600.0)
    for _ in range(80):  # 1200 / 2^80 is below the spacing of the numbers
        middle = (low + high) / 2
        b, c = _stationary_curve(middle.exp(), weight_u, weight_v)
        mean = (b * c).sqrt()
        reached = weight_u * ((b / c).sqrt() * b / (1 + b) + mean / (1 + b) ** 2) + weight_v * mean / (1 + c)
        low, high = torch.where(reached < sigma, middle, low), torch.where(reached < sigma, high, middle)
    b, c = _stationary_curve(high.exp(), weight_u, weight_v)
    return b.sqrt(), c.sqrt()


def _stationary_curve(odds: Tensor, weight_u: float, weight_v: float) -> tuple[Tensor, Tensor]:
    large_u, large_v = 1 + 2 * weight_u * odds, 1 + 2 * weight_v * odds
    root_b, root_c = (weight_v * large_u).sqrt(), (weight_u * large_v).sqrt()
    squares = []
    for own, root in ((large_u, root_b), (large_v, root_c)):
        linear, constant = own / (1 + odds), odds / (1 + odds) * root * (root_b + root_c)
        squares.append(2 * constant / (linear + (linear**2 + 4 * constant).sqrt()))
    return squares[0], squares[1]
