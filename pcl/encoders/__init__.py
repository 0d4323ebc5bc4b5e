"""Encoders: from one modality's stored arrays to embeddings."""

from pcl.encoders.basic import Identity, LeNet, Linear, OneHot, Standardise
from pcl.encoders.field import DrifterSet, Field
from pcl.encoders.registry import ENCODERS, make_encoder

__all__ = ["ENCODERS", "DrifterSet", "Field", "Identity", "LeNet", "Linear", "OneHot", "Standardise", "make_encoder"]
