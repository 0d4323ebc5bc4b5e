"""Encoders: from one modality's stored arrays to embeddings."""

from pcl.encoders.basic import Identity, Linear, OneHot, Standardise
from pcl.encoders.registry import ENCODERS, EncoderKind, make_encoder, register_encoder

__all__ = ["ENCODERS", "EncoderKind", "Identity", "Linear", "OneHot", "Standardise", "make_encoder", "register_encoder"]
