"""Probabilistic contrastive learning: encoders of two modalities that tilt the product of their marginals."""

from pcl.train.runs import load

__all__ = ["load"]
