"""Settings of the Gaussian process pairs."""

__all__ = ["GaussianProcessSettings"]

from dataclasses import dataclass

from pcl.settings import setting


@dataclass
class GaussianProcessSettings:
    """``data.gaussian_process``."""

    num_train: int = setting("training pairs", 10000, at_most=10**10)
    num_test: int = setting("test pairs", 10000, at_most=10**10)
    num_points: int = setting("components of u", 12, at_most=10**4)
    num_coefficients: int = setting("components of v", 5, at_most=10**4)
    noise_std: float = setting("standard deviation of the noise in u", 0.05)
    inverse_length: float = setting("tau of the eigenvalues (j^2 pi^2 + tau^2)^-alpha", 3.0)
    smoothness: float = setting("alpha", 2.0)
    num_modes: int = setting("modes of the process", 1000, at_most=10**5)
