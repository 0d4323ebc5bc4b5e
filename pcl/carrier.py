r"""Conditionals of a model whose u enters linearly, carried by a Gaussian marginal: no archive limits them.

With :math:`z = G u`, the score :math:`s(u, v) = \langle z, h \rangle - \tfrac12 z^T W z + b` of a query (h, W, b) and
:math:`\mu_u = N(m, C)` the conditional is Gaussian, and its normaliser exact:

.. math::
    \nu_{u|v} = N(m_v, C_v), \qquad m_v = m + C G^T w, \qquad C_v = C - C G^T (I + W S)^{-1} W G C, \\
    \log E_{\mu_u} e^{s} = b + \mu^T h - \tfrac12 \mu^T W \mu - \tfrac12 \log\det(I + W S) + \tfrac12 r^T S w,

where :math:`S = G C G^T`, :math:`\mu = G m`, :math:`r = h - W \mu` and :math:`w = (I + W S)^{-1} r`. The inner product
is W = 0 and the squared distance W = I; measurements :math:`y = H u + e`, e of covariance R, are G = H,
:math:`h = R^{-1} y`, :math:`W = R^{-1}`: then the conditional is optimal interpolation (docs/theory.md, 9).

Shapes: Q queries, n = dim u, E embedding, N items.
"""

__all__ = ["CarriedFeatures", "GaussianCarrier", "TiltedGaussian", "log_normaliser"]

from dataclasses import dataclass

import torch
from torch import Tensor

from pcl.entrance import as_generator
from pcl.precision import in_full_precision
from pcl.tilting import embeddings_of


def _information(mean_z: Tensor, covariance_z: Tensor, h: Tensor, w: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return r = h - W mu, the weights (I + W S)^-1 r, and I + W S, of every query."""
    matrix = torch.eye(len(mean_z), dtype=h.dtype, device=h.device) + w @ covariance_z
    residual = h - w @ mean_z
    if matrix.ndim == 2:  # of all queries: factored once
        return residual, torch.linalg.solve(matrix, residual.T).T, matrix
    return residual, torch.linalg.solve(matrix, residual[..., None])[..., 0], matrix


@in_full_precision
def log_normaliser(mean_z: Tensor, covariance_z: Tensor, h: Tensor, w: Tensor, b: Tensor | float = 0.0) -> Tensor:
    r"""Return the exact log normaliser of every query: :math:`\log E\, e^{\langle z, h \rangle - z^T W z / 2 + b}`.

    Args:
        mean_z: mu, the mean of z = G u, shape (E,).
        covariance_z: S, its covariance, shape (E, E), of any rank.
        h: of the queries, shape (Q, E).
        w: W, symmetric and not negative, shape (E, E) of all queries or (Q, E, E).
        b: shape (Q,), or one number.

    Returns:
        Shape (Q,), differentiable in everything.

    Example:
        >>> log_normaliser(torch.zeros(1), torch.eye(1), torch.tensor([[2.0]]), torch.zeros(1, 1))  # E exp(2 z)
        tensor([2.])
    """
    residual, weights, matrix = _information(mean_z, covariance_z, h, w)
    quadratic = (w @ mean_z * mean_z).sum(-1)
    gained = torch.einsum("qe,ef,qf->q", residual, covariance_z, weights)
    total: Tensor = b + h @ mean_z - quadratic / 2 - torch.linalg.slogdet(matrix).logabsdet / 2 + gained / 2
    return total


@dataclass(frozen=True)
class CarriedFeatures:
    """A modality that a Gaussian carries, in feature maps: normalisers over it are exact, as over ``pcl.scores.Atoms``.

    Attributes:
        mean_z: mu, the mean of its embeddings, shape (E,).
        covariance_z: S, their covariance, shape (E, E), of any rank.
        of_u: whether it is u.
        tilting: ``inner_product``, ``squared_distance``, or ``potentials`` of which its own is zero.

    Example:
        >>> carried = CarriedFeatures(torch.zeros(1), torch.eye(1), True, "inner_product")
        >>> carried.log_normaliser(torch.tensor([[2.0]]))  # E exp(2 z)
        tensor([2.])
    """

    mean_z: Tensor
    covariance_z: Tensor
    of_u: bool
    tilting: str

    def log_normaliser(self, queries: Tensor) -> Tensor:
        """Return the log of the mean of exp s under the Gaussian, shape (Q,).

        Args:
            queries: feature maps of the other modality over the temperature, shape (Q, F).
        """
        h, rest = embeddings_of(queries, self.tilting), queries[:, len(self.mean_z) :]
        w, b = torch.zeros_like(self.covariance_z), torch.zeros_like(queries[:, 0])
        if self.tilting != "inner_product":
            one, b = (rest if self.of_u else rest.flip(1)).unbind(1)
            if self.tilting == "squared_distance":
                w = torch.eye(len(w)).to(w) * one[0]  # one over the temperature, of every query
        return log_normaliser(self.mean_z, self.covariance_z, h, w, b)


@dataclass(frozen=True)
class GaussianCarrier:
    """A Gaussian marginal N(m, C) of u, which carries conditionals.

    Attributes:
        mean: m, shape (n,).
        covariance: C, shape (n, n).

    Example:
        >>> carrier = GaussianCarrier(torch.zeros(1), torch.eye(1))
        >>> measured = carrier.tilted(torch.eye(1), torch.tensor([[4.0]]), 4 * torch.eye(1))  # y = 1, variance 1 / 4
        >>> measured.mean(), measured.variance()
        (tensor([[0.8000]]), tensor([[0.2000]]))
    """

    mean: Tensor
    covariance: Tensor

    def __post_init__(self) -> None:
        n = len(self.mean)
        if self.mean.ndim != 1 or self.covariance.shape != (n, n):
            raise ValueError(
                f"a mean of shape {tuple(self.mean.shape)} and a covariance of shape {tuple(self.covariance.shape)}: "
                "(n,) and (n, n) are needed"
            )

    def tilted(self, encoder: Tensor, h: Tensor, w: Tensor, b: Tensor | float = 0.0) -> "TiltedGaussian":
        """Return the conditionals of queries.

        Args:
            encoder: G, shape (E, n).
            h: of the queries, shape (Q, E).
            w: W, symmetric and not negative, shape (E, E) of all queries or (Q, E, E).
            b: shape (Q,), or one number.

        Raises:
            ValueError: shapes do not fit.
        """
        if encoder.ndim != 2 or encoder.shape[1] != len(self.mean) or h.shape[1:] != encoder.shape[:1]:
            raise ValueError(
                f"an encoder of shape {tuple(encoder.shape)} and queries of shape {tuple(h.shape)}: (E, "
                f"{len(self.mean)}) and (Q, E) are needed"
            )
        return TiltedGaussian(self, encoder, h, w, b)


@dataclass(frozen=True)
class TiltedGaussian:
    """The Gaussian conditionals of queries: mean, covariance, mode, coherent draws, log-density, exact normaliser.

    Attributes:
        carrier: N(m, C).
        encoder: G, shape (E, n).
        h: shape (Q, E).
        w: W, shape (E, E) or (Q, E, E).
        b: shape (Q,), or one number.
    """

    carrier: GaussianCarrier
    encoder: Tensor
    h: Tensor
    w: Tensor
    b: Tensor | float = 0.0

    @property
    def _cross(self) -> Tensor:
        """C G', shape (n, E)."""
        return self.carrier.covariance @ self.encoder.T

    @property
    def _mean_z(self) -> Tensor:
        return self.encoder @ self.carrier.mean

    def _gain(self) -> Tensor:
        """Return (I + W S)^-1 W G C, shape (Q or 1, E, n)."""
        *_, matrix = _information(self._mean_z, self.encoder @ self._cross, self.h, self.w)
        gain: Tensor = torch.linalg.solve(matrix, self.w @ self._cross.T)
        return gain if gain.ndim == 3 else gain[None]

    def log_normaliser(self) -> Tensor:
        """Return the log of the mean of exp s under the carrier, shape (Q,)."""
        return log_normaliser(self._mean_z, self.encoder @ self._cross, self.h, self.w, self.b)

    def mean(self) -> Tensor:
        """Return the mean, which is the mode, of every query, shape (Q, n)."""
        _, weights, _ = _information(self._mean_z, self.encoder @ self._cross, self.h, self.w)
        return self.carrier.mean + weights @ self._cross.T

    def covariance(self) -> Tensor:
        """Return the covariance of every query, shape (Q, n, n)."""
        covariance = self.carrier.covariance - self._cross @ self._gain()
        return covariance.expand(len(self.h), -1, -1)

    def variance(self) -> Tensor:
        """Return the diagonal of the covariance of every query, shape (Q, n), without the rest of it."""
        lost = torch.einsum("ne,qen->qn", self._cross, self._gain())
        return (self.carrier.covariance.diagonal() - lost).clamp(min=0).expand(len(self.h), -1)

    def log_density(self, u: Tensor) -> Tensor:
        r"""Return the log-density of items with respect to the carrier, :math:`\log\rho(u|v)`, shape (Q, N).

        Args:
            u: items, shape (N, n).
        """
        z = u @ self.encoder.T
        quadratic = torch.einsum("ie,...ef,if->...i", z, self.w, z)
        scores = self.h @ z.T - quadratic / 2
        offset = torch.as_tensor(self.b, dtype=scores.dtype, device=scores.device) - self.log_normaliser()
        return scores + offset[:, None]

    def sample(self, num_samples: int, generator: torch.Generator | int) -> Tensor:
        """Draw coherent items by Matheron's rule: draws of the carrier, each corrected by what the query says.

        Args:
            num_samples: of each query.
            generator: on the CPU, or a seed.

        Returns:
            Shape (Q, num_samples, n).
        """
        generator = as_generator(generator)
        prior = self._normal(_root(self.carrier.covariance), num_samples, generator) + self.carrier.mean
        noise = self._normal(_root(self.w), num_samples, generator)
        *_, matrix = _information(self._mean_z, self.encoder @ self._cross, self.h, self.w)
        z = prior @ self.encoder.T
        residual = self.h[:, None] - z @ self.w - noise
        weights = torch.linalg.solve(matrix, residual.mT).mT
        drawn: Tensor = prior + weights @ self._cross.T
        return drawn

    def _normal(self, root: Tensor, num_samples: int, generator: torch.Generator) -> Tensor:
        """Draw from N(0, F F') of a root F, shape (Q, num_samples, ...)."""
        shape = (len(self.h), num_samples, root.shape[-1])
        drawn = torch.randn(shape, generator=generator, dtype=root.dtype).to(root.device)
        scaled: Tensor = drawn @ root.mT
        return scaled


def _root(covariance: Tensor) -> Tensor:
    """Return F with F F' a covariance of any rank."""
    values, vectors = torch.linalg.eigh(covariance)
    root: Tensor = vectors * values.clamp(min=0).sqrt()[..., None, :]
    return root
