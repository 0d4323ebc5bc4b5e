r"""The Gaussian process pairs of the experiments: noisy point values against leading coefficients.

.. math::
    w = \sum_{j=1}^{J} \sqrt{\lambda_j}\, \xi_j \psi_j, \quad
    \lambda_j = (j^2 \pi^2 + \tau^2)^{-\alpha}, \quad \psi_j(x) = \sqrt2 \cos(j \pi x), \quad \xi_j \sim N(0, 1)

on (0, 1); u = w at n uniform points plus noise, v = the first m coefficients (arXiv:2505.24134, section 6.1).
"""

__all__ = ["GaussianProcessPair"]

import math
from dataclasses import dataclass

import numpy as np
import torch

from pcl.gaussian.pair import GaussianPair


@dataclass(frozen=True)
class GaussianProcessPair:
    """Law of (u, v) = (noisy values at points, leading coefficients) of one Gaussian process; no units.

    Attributes:
        num_points: n, observed at x = (i + 1/2) / n.
        num_coefficients: m.
        noise_std: standard deviation of the observation noise.
        inverse_length: tau.
        smoothness: alpha.
        num_modes: J.

    Raises:
        ValueError: a count is not positive, m > J, or the noise is negative.

    Example:
        >>> pair = GaussianProcessPair().law()
        >>> tuple(pair.c_uu.shape), tuple(pair.c_vv.shape)
        ((12, 12), (5, 5))
    """

    num_points: int = 12
    num_coefficients: int = 5
    noise_std: float = 0.05
    inverse_length: float = 3.0
    smoothness: float = 2.0
    num_modes: int = 1000

    def __post_init__(self) -> None:
        numbers = (self.noise_std, self.inverse_length, self.smoothness)
        counts = self.num_points >= 1 and 1 <= self.num_coefficients <= self.num_modes
        if not counts or not all(map(math.isfinite, numbers)) or self.noise_std < 0:
            raise ValueError(
                f"{self.num_points} points, {self.num_coefficients} of {self.num_modes} coefficients, noise "
                f"{self.noise_std}: needed are num_points >= 1, 1 <= num_coefficients <= num_modes, noise_std >= 0, "
                "and finite inverse_length and smoothness"
            )

    @property
    def points(self) -> np.ndarray:
        """The points x of the unit interval, shape (n,)."""
        return (np.arange(self.num_points) + 0.5) / self.num_points

    def modes(self) -> np.ndarray:
        r"""Return :math:`\sqrt{\lambda_j}\,\psi_j(x)`, shape (J, n)."""
        j = np.arange(1, self.num_modes + 1)[:, None]
        root_eigenvalue = (j**2 * np.pi**2 + self.inverse_length**2) ** (-self.smoothness / 2)
        return np.asarray(root_eigenvalue * np.sqrt(2) * np.cos(j * np.pi * self.points))

    def law(self) -> GaussianPair:
        """Return the exact joint law of (u, v)."""
        modes = torch.from_numpy(self.modes())
        noise = self.noise_std**2 * torch.eye(self.num_points, dtype=torch.float64)
        return GaussianPair(
            modes.T @ modes + noise,
            modes[: self.num_coefficients].T,
            torch.eye(self.num_coefficients, dtype=torch.float64),
        )

    def sample(self, num_pairs: int, generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Draw pairs from the process itself: u (num_pairs, n) and v (num_pairs, m), float64."""
        coefficients = generator.standard_normal((num_pairs, self.num_modes))
        noise = generator.standard_normal((num_pairs, self.num_points))
        values = coefficients @ self.modes() + self.noise_std * noise
        return values, coefficients[:, : self.num_coefficients]
