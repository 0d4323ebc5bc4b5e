r"""Experiments on two numbers: u and v of covariance C = [[1.5, 1], [1, 1.5]], where whole densities can be drawn.

With cosine tilting linear encoders of a number see only its sign: :math:`g_u(u)/|g_u(u)| = \pm e`, so

.. math::
    s(u, v) = a \operatorname{sign}(u v), \qquad a = \langle e_u, e_v \rangle / \tau, \qquad
    \tanh a^\star = \frac{2}{\pi} \arcsin\rho

at the optimum, by the arcsine law of the signs, and what remains of the divergence is what the signs do not tell.
"""

__all__ = [
    "PLANE",
    "best_cosine_strength",
    "cosine_conditional",
    "cosine_joint",
    "normal_density",
    "pair_density",
    "planar_model",
    "run_cosine",
]

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from pcl.gaussian import AffineMap, GaussianPair, model_conditional, model_joint
from pcl.theory.cells import Cell, fit_model

PLANE = GaussianPair(torch.tensor([[1.5]]), torch.tensor([[1.0]]), torch.tensor([[1.5]]))


def normal_density(x: Tensor, mean: float, variance: float) -> Tensor:
    """Return the density of N(mean, variance)."""
    return torch.exp(-((x - mean) ** 2) / (2 * variance)) / math.sqrt(2 * math.pi * variance)


def pair_density(pair: GaussianPair, x: Tensor) -> Tensor:
    """Return the density of a pair of numbers on a grid, shape (len(x), len(x)): rows are u, columns v."""
    precision = torch.linalg.inv(pair.covariance)
    u, v = torch.meshgrid(x, x, indexing="ij")
    exponent = precision[0, 0] * u**2 + 2 * precision[0, 1] * u * v + precision[1, 1] * v**2
    density: Tensor = torch.exp(-exponent / 2) * torch.linalg.det(precision).sqrt() / (2 * math.pi)
    return density


class PlanarModel(NamedTuple):
    """What a model of two numbers says: E[u | v = 1], Var[u | v], and the covariances of its joint law."""

    mean: float
    variance: float
    joint: GaussianPair

    @property
    def marginal_variance(self) -> float:
        """Variance of u under the joint law."""
        return self.joint.c_uu.item()


def planar_model(encoders: Sequence[Sequence[Sequence[float]]], tilting: str) -> PlanarModel:
    """Return the model that encoders G and H (1, 1) make of the pair ``PLANE``."""
    g, h = (torch.tensor(matrix, dtype=torch.float64) for matrix in encoders)
    zero = torch.zeros(1, dtype=torch.float64)
    mean, variance = model_conditional(AffineMap(g, zero), AffineMap(h, zero), PLANE.c_uu, tilting)
    return PlanarModel(mean.matrix.item(), variance.item(), model_joint(PLANE, g, h, tilting))


def best_cosine_strength(pair: GaussianPair) -> float:
    """Return a* = artanh(2/pi arcsin rho), how strongly signs agree at the optimum."""
    return math.atanh(2 / math.pi * math.asin(pair.cross.item()))


def cosine_joint(pair: GaussianPair, strength: float, x: Tensor) -> Tensor:
    """Return the density of the marginals tilted by signs, shape (len(x), len(x))."""
    signs = torch.sign(x)[:, None] * torch.sign(x)
    marginals = normal_density(x, 0, pair.c_uu.item())[:, None] * normal_density(x, 0, pair.c_vv.item())
    return torch.exp(strength * signs) / math.cosh(strength) * marginals


def cosine_conditional(pair: GaussianPair, strength: float, x: Tensor, given: float) -> Tensor:
    """Return the density of u given a value of v."""
    tilting = torch.exp(strength * torch.sign(x) * math.copysign(1, given)) / math.cosh(strength)
    return tilting * normal_density(x, 0, pair.c_uu.item())


def _divergence(pair: GaussianPair, strength: float) -> float:
    r"""Return KL(mu || nu) of a strength: :math:`I(u, v) - a (2p - 1) + \log\cosh a` with p = P(same sign)."""
    agreement = 2 / math.pi * math.asin(pair.cross.item())
    return pair.mutual_information() - strength * agreement + math.log(math.cosh(strength))


def run_cosine(pair: GaussianPair, cell: Cell) -> dict[str, Any]:
    """Train normalised encoders and the temperature, and compare the strength and divergence with the best ones.

    Args:
        pair: of two numbers.
        cell: its loss and how to train.

    Returns:
        ``learned_`` and ``best_`` ``strength`` and ``loss``.
    """
    u, v = pair.sample(cell.num_pairs, torch.Generator().manual_seed(cell.seed))
    one = torch.ones(1, 1)
    learned = fit_model(cell, u, v).log_tilting(one, one).item()
    best = best_cosine_strength(pair)
    return {
        "learned_strength": learned,
        "best_strength": best,
        "learned_loss": _divergence(pair, learned),
        "best_loss": _divergence(pair, best),
    }
