"""Encoders: from one modality's stored arrays to embeddings."""

from pcl.encoders.basic import Identity, LeNet, Linear, OneHot, Standardise
from pcl.encoders.registry import ENCODERS, make_encoder
from pcl.problems.ocean.field import DrifterSet, Field
from pcl.problems.streamfunction.linear_inverse import LinearInverse, oracle
from pcl.problems.streamfunction.transformer import Transformer

__all__ = [
    "ENCODERS",
    "DrifterSet",
    "Field",
    "Identity",
    "LeNet",
    "Linear",
    "LinearInverse",
    "OneHot",
    "Standardise",
    "Transformer",
    "make_encoder",
    "oracle",
]
