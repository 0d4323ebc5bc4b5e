r"""The joint law of a Gaussian pair, its conditionals, and the plug-in estimator.

:math:`(u, v) \sim N(0, C)` with blocks :math:`C_{uu}, C_{uv}, C_{vv}`.

Shapes: n = dim u, m = dim v, N pairs.
"""

__all__ = ["DIRECTIONS", "AffineMap", "GaussianPair", "plug_in", "relative_error"]

from dataclasses import dataclass

import torch
from torch import Tensor

from pcl.entrance import as_generator

DIRECTIONS = ("u_given_v", "v_given_u")


@dataclass(frozen=True)
class AffineMap:
    """The map y -> matrix @ y + offset, such as a conditional mean.

    Attributes:
        matrix: shape (n, m).
        offset: shape (n,).

    Example:
        >>> AffineMap.linear(2 * torch.eye(1))(torch.tensor([[3.0]]))
        tensor([[6.]])
    """

    matrix: Tensor
    offset: Tensor

    @classmethod
    def linear(cls, matrix: Tensor) -> "AffineMap":
        """Return the map without an offset."""
        return cls(matrix, torch.zeros(len(matrix), dtype=matrix.dtype))

    def __call__(self, y: Tensor) -> Tensor:
        """Map (N, m) to (N, n)."""
        return y @ self.matrix.T + self.offset


def _check_covariance(name: str, matrix: Tensor) -> None:
    if not torch.isfinite(matrix).all():
        raise ValueError(f"{name} holds values that are not finite")
    asymmetry = (matrix - matrix.T).abs().max().item()
    if asymmetry > 1e-10 * matrix.abs().max().item():
        raise ValueError(f"{name} is not symmetric: it differs from its transpose by {asymmetry:.1e}")
    scale = matrix.diagonal().clamp(min=torch.finfo(matrix.dtype).tiny).sqrt()
    smallest = torch.linalg.eigvalsh(matrix / scale / scale[:, None])[0].item()
    if smallest <= len(matrix) * torch.finfo(matrix.dtype).eps:
        raise ValueError(
            f"{name} is not positive definite: the smallest eigenvalue of its correlation matrix is {smallest:.1e}"
        )


class GaussianPair:
    r"""A centred Gaussian law of pairs (u, v).

    In white coordinates x, y with u = L_u x, v = L_v y, Cholesky factors of C_uu and C_vv, both marginals are
    standard and the cross-covariance is :math:`R = L_u^{-1} C_{uv} L_v^{-T}`.

    Args:
        c_uu: covariance of u, shape (n, n).
        c_uv: cross-covariance, shape (n, m).
        c_vv: covariance of v, shape (m, m).

    Attributes:
        root_u: L_u, shape (n, n).
        root_v: L_v, shape (m, m).
        cross: R, shape (n, m).

    Raises:
        ValueError: shapes do not fit, the joint covariance is not symmetric positive definite, or a component of u
            is one of v up to rounding.

    References:
        arXiv:2505.24134, section 5.

    Example:
        >>> pair = GaussianPair(torch.tensor([[1.5]]), torch.tensor([[1.0]]), torch.tensor([[1.5]]))
        >>> mean, covariance = pair.conditional("u_given_v")
        >>> round(mean.matrix.item(), 4), round(covariance.item(), 4)
        (0.6667, 0.8333)
    """

    def __init__(self, c_uu: Tensor, c_uv: Tensor, c_vv: Tensor) -> None:
        self.c_uu, self.c_uv, self.c_vv = (c.detach().to("cpu", torch.float64) for c in (c_uu, c_uv, c_vv))
        for name, matrix in (("c_uu", self.c_uu), ("c_vv", self.c_vv)):
            if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1]:
                raise ValueError(f"{name} has shape {tuple(matrix.shape)}: a covariance is square")
        if self.c_uv.shape != (len(self.c_uu), len(self.c_vv)):
            raise ValueError(
                f"c_uv has shape {tuple(self.c_uv.shape)}: with {len(self.c_uu)} components of u and "
                f"{len(self.c_vv)} of v it must be {(len(self.c_uu), len(self.c_vv))}"
            )
        _check_covariance("the joint covariance", self.covariance)
        self.root_u, self.root_v = torch.linalg.cholesky(self.c_uu), torch.linalg.cholesky(self.c_vv)
        half = torch.linalg.solve_triangular(self.root_u, self.c_uv, upper=False)
        self.cross = torch.linalg.solve_triangular(self.root_v.T, half, upper=True, left=False)
        largest = self.canonical_correlations()[0].item()
        if 1 - largest <= len(self.covariance) * torch.finfo(torch.float64).eps:
            raise ValueError(
                f"the first canonical correlation is {largest!r}, 1 up to rounding: u and v share a component; it must "
                "be below 1, so remove that component or add noise to it"
            )

    @property
    def covariance(self) -> Tensor:
        """The joint covariance C, shape (n + m, n + m)."""
        top = torch.cat([self.c_uu, self.c_uv], 1)
        return torch.cat([top, torch.cat([self.c_uv.T, self.c_vv], 1)])

    @property
    def swapped(self) -> "GaussianPair":
        """The law of (v, u)."""
        return GaussianPair(self.c_vv, self.c_uv.T, self.c_uu)

    def sample(self, num_pairs: int, generator: torch.Generator | int) -> tuple[Tensor, Tensor]:
        """Draw pairs: u of shape (num_pairs, n) and v of shape (num_pairs, m), float64."""
        noise = torch.randn(num_pairs, len(self.covariance), generator=as_generator(generator), dtype=torch.float64)
        pairs = noise @ torch.linalg.cholesky(self.covariance).T
        return pairs[:, : len(self.c_uu)], pairs[:, len(self.c_uu) :]

    def conditional(self, direction: str) -> tuple[AffineMap, Tensor]:
        r"""Return the mean map and the covariance of a conditional.

        .. math:: u|v \sim N(C_{uv} C_{vv}^{-1} v,\; C_{uu} - C_{uv} C_{vv}^{-1} C_{vu})

        Args:
            direction: ``u_given_v`` or ``v_given_u``.

        Raises:
            ValueError: the direction is neither.

        References:
            arXiv:2505.24134, equation 37.
        """
        if direction not in DIRECTIONS:
            raise ValueError(f"direction {direction!r} is not known; choose one of {', '.join(DIRECTIONS)}")
        if direction == "v_given_u":
            return self.swapped.conditional("u_given_v")
        matrix = torch.linalg.solve(self.c_vv, self.c_uv.T).T
        return AffineMap(matrix, torch.zeros(len(self.c_uu), dtype=torch.float64)), self.c_uu - matrix @ self.c_uv.T

    def canonical_pairs(self) -> tuple[Tensor, Tensor, Tensor]:
        r"""Return the canonical directions of u, the canonical correlations, and the canonical directions of v.

        .. math::
            W_u = U^T L_u^{-1}, \quad W_v = V^T L_v^{-1}, \qquad R = U \operatorname{diag}(\sigma) V^T

        so that W_u u and W_v v are standard, and correlated with sigma_i pair by pair. Another whitening, such as
        :math:`C_{uu}^{-1/2}`, turns U with it and leaves W_u, W_v as they are.

        Returns:
            W_u of shape (k, n), sigma of shape (k,), W_v of shape (k, m), k = min(n, m).

        References:
            arXiv:2505.24134, Theorem 5.1.
        """
        left, sigma, right = torch.linalg.svd(self.cross, full_matrices=False)
        directions_u = torch.linalg.solve_triangular(self.root_u, left.T, upper=False, left=False)
        return directions_u, sigma, torch.linalg.solve_triangular(self.root_v, right, upper=False, left=False)

    def canonical_correlations(self) -> Tensor:
        """Return sigma_1 >= sigma_2 >= ... in [0, 1), shape (min(n, m),)."""
        sigma: Tensor = torch.linalg.svdvals(self.cross)
        return sigma

    def mutual_information(self) -> float:
        r"""Return :math:`-\tfrac12 \sum_i \log(1 - \sigma_i^2)` in nats."""
        return float(-0.5 * torch.log1p(-self.canonical_correlations().square()).sum())


def plug_in(u: Tensor, v: Tensor) -> GaussianPair:
    """Estimate the law by the empirical covariance of N pairs: the statistical yardstick of any training run.

    The closed forms of ``optimal_encoders`` for this law are the best guess from N pairs that are known to be Gaussian,
    which no training on the same pairs is told.

    Args:
        u: shape (N, n).
        v: shape (N, m).

    Raises:
        ValueError: the counts differ, or there are too few pairs for a positive definite covariance.

    Example:
        >>> truth = GaussianPair(torch.eye(2), 0.5 * torch.eye(2), torch.eye(2))
        >>> estimate = plug_in(*truth.sample(100_000, torch.Generator().manual_seed(0)))
        >>> bool((estimate.covariance - truth.covariance).abs().max() < 0.02)
        True
    """
    if len(u) != len(v):
        raise ValueError(f"{len(u)} u and {len(v)} v: pairs need as many of each")
    num_components = u.shape[1] + v.shape[1]
    if len(u) <= num_components:
        raise ValueError(f"{len(u)} pairs: a covariance of {num_components} components needs more pairs than that")
    both = torch.cat([u, v], 1).double()
    covariance = torch.cov(both.T)
    n = u.shape[1]
    return GaussianPair(covariance[:n, :n], covariance[:n, n:], covariance[n:, n:])


def relative_error(estimate: AffineMap, pair: GaussianPair, direction: str) -> float:
    r"""Return the relative squared error of a conditional mean, exactly averaged over the conditioning variable.

    .. math::
        \frac{E_v |\hat m(v) - m(v)|^2}{E_v |m(v)|^2}
        = \frac{\operatorname{tr}(\Delta C_{vv} \Delta^T) + |\hat o|^2}{\operatorname{tr}(M C_{vv} M^T)},
        \qquad \Delta = \hat M - M

    Args:
        estimate: the estimated mean map, matrix (n, m) and offset (n,).
        pair: the true law.
        direction: ``u_given_v`` or ``v_given_u``.

    References:
        arXiv:2505.24134, section 6.1, whose error is the numerator by Monte Carlo.

    Example:
        >>> pair = GaussianPair(torch.eye(2), 0.5 * torch.eye(2), torch.eye(2))
        >>> truth, _ = pair.conditional("u_given_v")
        >>> relative_error(AffineMap(1.1 * truth.matrix, truth.offset), pair, "u_given_v")
        0.01...
    """
    truth, _ = pair.conditional(direction)
    conditioning = pair.c_vv if direction == "u_given_v" else pair.c_uu
    difference = estimate.matrix - truth.matrix
    error = torch.trace(difference @ conditioning @ difference.T) + estimate.offset.square().sum()
    return float(error / torch.trace(truth.matrix @ conditioning @ truth.matrix.T))
