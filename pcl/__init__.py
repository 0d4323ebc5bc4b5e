"""Probabilistic contrastive learning: encoders of two modalities that tilt the product of their marginals."""

import pcl.problems.registry  # noqa: F401  whoever imports a part of pcl knows the kinds of pairs that come with it
from pcl.train.runs import load

__all__ = ["load"]
