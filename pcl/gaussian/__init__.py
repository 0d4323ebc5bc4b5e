"""Gaussian pairs, where the exact answer is known (float64 throughout)."""

from pcl.gaussian.encoders import optimal_encoders
from pcl.gaussian.losses import population_loss
from pcl.gaussian.minimise import minimise_encoders
from pcl.gaussian.mmd import population_mmd
from pcl.gaussian.model import ImproperModelError, model_conditional, model_conditionals, model_joint
from pcl.gaussian.pair import DIRECTIONS, AffineMap, GaussianPair, plug_in, relative_error
from pcl.gaussian.process import GaussianProcessPair

__all__ = [
    "DIRECTIONS",
    "AffineMap",
    "GaussianPair",
    "GaussianProcessPair",
    "ImproperModelError",
    "minimise_encoders",
    "model_conditional",
    "model_conditionals",
    "model_joint",
    "optimal_encoders",
    "plug_in",
    "population_loss",
    "population_mmd",
    "relative_error",
]
