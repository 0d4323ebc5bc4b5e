"""Probabilistic contrastive learning: encoders of two modalities that tilt the product of their marginals."""

from pcl.runs import load

__all__ = ["load"]
