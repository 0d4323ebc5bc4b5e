"""Gaussian pairs, where the exact answer is known (float64 throughout)."""

from pcl.gaussian.encoders import model_conditional, optimal_encoders
from pcl.gaussian.pair import AffineMap, GaussianPair, plug_in, relative_error
from pcl.gaussian.process import GaussianProcessPair

__all__ = [
    "AffineMap",
    "GaussianPair",
    "GaussianProcessPair",
    "model_conditional",
    "optimal_encoders",
    "plug_in",
    "relative_error",
]
