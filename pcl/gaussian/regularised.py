r"""The plug-in Gaussian of few pairs or many components: canonical pairs that need no learning, whatever the pairs.

To the empirical covariances of u and of v a ridge is added,

.. math:: S_{uu} + \rho_u I, \qquad \rho_u = \operatorname{tr}(S_{uu}) / N,

as much as a covariance of N pairs errs in every direction: it does not change with components that never vary or are
told twice, it vanishes as N grows, and it has nothing to be tuned. The joint covariance stays positive definite, so all
canonical correlations are below 1, however few the pairs.

Shapes: N pairs, n = dim u, m = dim v, E embedding, r <= E canonical pairs.
"""

__all__ = ["LinearOptimum", "Moments", "principal_basis", "regularised_plug_in"]

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import cycle

import torch
from torch import Tensor

from pcl.gaussian.encoders import optimal_encoders
from pcl.gaussian.pair import AffineMap, GaussianPair

NEGLIGIBLE = 1e-10  # of the largest variance: a direction in which nothing varies


@dataclass(frozen=True)
class Moments:
    """Means and covariances of pairs, to which those of further pairs are added: no more than a block need be held.

    Attributes:
        num_pairs: N.
        means: of u, shape (n,), and of v, shape (m,), float64.
        c_uu: covariance of u, shape (n, n).
        c_uv: cross-covariance, shape (n, m).
        c_vv: covariance of v, shape (m, m).

    Example:
        >>> pairs = torch.tensor([[1.0], [2.0], [6.0]])
        >>> both = Moments.of(pairs[:1], pairs[:1]) + Moments.of(pairs[1:], pairs[1:])
        >>> both.means[0].item(), round(both.c_uv.item(), 4)
        (3.0, 4.6667)
    """

    num_pairs: int
    means: tuple[Tensor, Tensor]
    c_uu: Tensor
    c_uv: Tensor
    c_vv: Tensor

    @classmethod
    def of(cls, u: Tensor, v: Tensor) -> "Moments":
        """Return the moments of u (N, n) and v (N, m).

        Raises:
            ValueError: the counts differ, or there are none.
        """
        if len(u) != len(v) or not len(u):
            raise ValueError(f"{len(u)} u and {len(v)} v: pairs need as many of each, and at least one")
        u, v = u.double(), v.double()
        means = u.mean(0), v.mean(0)
        u, v = u - means[0], v - means[1]
        return cls(len(u), means, u.T @ u / len(u), u.T @ v / len(u), v.T @ v / len(u))

    def __add__(self, other: "Moments") -> "Moments":
        """Return the moments of both sets of pairs."""
        num = self.num_pairs + other.num_pairs
        share = other.num_pairs / num
        steps = [after - before for before, after in zip(self.means, other.means, strict=True)]

        def mixed(mine: Tensor, others: Tensor, first: Tensor, second: Tensor) -> Tensor:
            return (1 - share) * (mine + share * torch.outer(first, second)) + share * others

        return Moments(
            num,
            (self.means[0] + share * steps[0], self.means[1] + share * steps[1]),
            mixed(self.c_uu, other.c_uu, steps[0], steps[0]),
            mixed(self.c_uv, other.c_uv, steps[0], steps[1]),
            mixed(self.c_vv, other.c_vv, steps[1], steps[1]),
        )


def principal_basis(items: Tensor, most_components: int | None = None) -> Tensor:
    """Return the directions in which items vary most, from a matrix of the smaller of their number and dimension.

    Canonical pairs of as many items lie in the span of them all, so nothing is lost in these coordinates.

    Args:
        items: shape (N, n).
        most_components: that are kept; None: all in which the items vary.

    Returns:
        Orthonormal columns, the most important first, shape (n, k), float64.

    Example:
        >>> principal_basis(torch.tensor([[0.0, 0.0, 0.0], [0.0, 2.0, 0.0]])).abs().round().flatten()
        tensor([0., 1., 0.], dtype=torch.float64)
    """
    items = items.double()
    items = items - items.mean(0)
    if items.shape[1] <= len(items):
        return _eigenpairs(items.T @ items, most_components)[1]
    variances, weights = _eigenpairs(items @ items.T, most_components)
    return items.T @ weights / variances.sqrt()


def _eigenpairs(matrix: Tensor, most: int | None = None, ridge: float = 0.0) -> tuple[Tensor, Tensor]:
    """Return the largest eigenvalues and their vectors, without those that are zero up to rounding and the ridge."""
    values, vectors = torch.linalg.eigh(matrix)
    kept = slice(0, most)
    values, vectors = values.flip(0)[kept], vectors.flip(1)[:, kept]
    varies = values + ridge > NEGLIGIBLE * values[:1].clamp(min=torch.finfo(values.dtype).tiny)
    return values[varies].clamp(min=0), vectors[:, varies]


@dataclass(frozen=True)
class LinearOptimum:
    r"""Canonical pairs of a plug-in Gaussian, and the best linear encoders and the densities that follow from them.

    Attributes:
        variates: the maps of u and of v to canonical variates, shapes (r, n) and (r, m): of variance 1 (with the ridge)
            and correlated with sigma_i pair by pair.
        correlations: sigma_1 >= sigma_2 >= ... in [0, 1), shape (r,).
    """

    variates: tuple[AffineMap, AffineMap]
    correlations: Tensor

    def encoders(
        self, loss: str = "conditional", tilting: str = "inner_product", weights: Sequence[float] = (1.0, 1.0)
    ) -> tuple[Tensor, ...]:
        """Return G (r, n) and H (r, m), which minimise the population loss of the plug-in Gaussian at rank r.

        They act on centred u and v, as Q (r, n) and R (r, m) do, the potentials: see ``optimal_encoders``.
        """
        identity = torch.eye(len(self.correlations), dtype=torch.float64)
        white = GaussianPair(identity, self.correlations.diag(), identity)
        found = optimal_encoders(white, len(identity), loss, tilting, weights)
        return tuple(part @ variate.matrix for part, variate in zip(found, cycle(self.variates), strict=False))

    def features_u(self, u: Tensor) -> Tensor:
        r"""Return feature maps of u, shape (N, r + 2), whose products with those of v are log density ratios.

        .. math::
            \log \frac{\mu(u, v)}{\mu_u(u) \mu_v(v)} = \sum_{i \le r}
            \frac{\sigma_i x_i y_i - \sigma_i^2 (x_i^2 + y_i^2) / 2}{1 - \sigma_i^2} - \tfrac12 \log(1 - \sigma_i^2)

        of the canonical variates x and y: no score retrieves better from a Gaussian law, and with labels as unit
        vectors it is that of the linear discriminant.
        """
        product, potential = self._terms(self.variates[0](u.double()))
        return torch.cat([product, potential, torch.ones_like(potential)], 1)

    def features_v(self, v: Tensor) -> Tensor:
        """Return feature maps of v, shape (N, r + 2): see ``features_u``."""
        product, potential = self._terms(self.variates[1](v.double()))
        constant = -torch.log1p(-self.correlations.square()).sum() / 2
        return torch.cat([product, torch.ones_like(potential), potential + constant], 1)

    def _terms(self, variates: Tensor) -> tuple[Tensor, Tensor]:
        sigma = self.correlations
        free = (1 - sigma) * (1 + sigma)
        return variates * (sigma / free).sqrt(), -(variates.square() @ (sigma.square() / free))[:, None] / 2


def regularised_plug_in(
    moments: Moments,
    rank: int,
    ridges: tuple[float, float] | None = None,
    bases: tuple[Tensor | None, Tensor | None] = (None, None),
    most_components: int | None = None,
) -> LinearOptimum:
    """Return the canonical pairs of the plug-in Gaussian with a ridge: canonical correlation analysis in closed form.

    Args:
        moments: of N pairs, in the coordinates of the bases where there are any.
        rank: E; fewer canonical pairs are returned where there are no more.
        ridges: variances that are added to every component of u and of v; None: tr(S) / N of each.
        bases: orthonormal columns (``principal_basis``) that the moments are in, shapes (n, k) and (m, k).
        most_components: principal components of each that are kept; None: all.

    Raises:
        ValueError: u or v never varies, or without a ridge one of its components follows from the other modality.

    Example:
        >>> pair = GaussianPair(torch.eye(2), 0.5 * torch.eye(2), torch.eye(2))
        >>> u, v = pair.sample(100_000, torch.Generator().manual_seed(0))
        >>> regularised_plug_in(Moments.of(u, v), 2).correlations.round(decimals=1)
        tensor([0.5000, 0.5000], dtype=torch.float64)
    """
    if ridges is None:
        traces = [float(covariance.trace()) / moments.num_pairs for covariance in (moments.c_uu, moments.c_vv)]
        ridges = traces[0], traces[1]
    whitenings = []
    for name, covariance, ridge in zip("uv", (moments.c_uu, moments.c_vv), ridges, strict=True):
        values, vectors = _eigenpairs(covariance, most_components, ridge)
        if not len(values) or not values[0] > 0:
            raise ValueError(f"{name} never varies: nothing can be predicted from it")
        whitenings.append(vectors * (values + ridge).rsqrt())
    left, sigma, right = torch.linalg.svd(whitenings[0].T @ moments.c_uv @ whitenings[1], full_matrices=False)
    sigma = sigma[:rank]
    if 1 - float(sigma[0]) <= sum(map(len, whitenings)) * torch.finfo(torch.float64).eps:
        raise ValueError(f"the first canonical correlation is {float(sigma[0])!r}, 1 up to rounding: give a ridge")
    maps = []
    parts = (whitenings[0] @ left[:, :rank], whitenings[1] @ right[:rank].T)
    for directions, mean, basis in zip(parts, moments.means, bases, strict=True):
        maps.append(AffineMap((directions if basis is None else basis @ directions).T, -mean @ directions))
    return LinearOptimum((maps[0], maps[1]), sigma)
