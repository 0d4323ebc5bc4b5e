"""Models built from plain numbers and strings, as checkpoints hold them."""

__all__ = ["ModelSpec", "build_model"]

from typing import Any, TypedDict

import torch

from pcl.encoders.registry import make_encoder
from pcl.model import PairModel
from pcl.tilting import Temperature


class ModelSpec(TypedDict):
    """Everything needed to build a model again: plain numbers and strings, saved in every checkpoint."""

    embedding_dim: int
    encoder_u: dict[str, Any]
    encoder_v: dict[str, Any]
    tilting: str
    temperature: dict[str, Any]
    dtype: str


def build_model(spec: ModelSpec, seed: int = 0) -> PairModel:
    """Build a model in its dtype with weights drawn from a seed; the global generator is left as it was.

    Example:
        >>> linear = {"kind": "linear", "shape": [3]}
        >>> tau = {"initial": 1.0, "learned": False, "minimum": 0.1, "maximum": 10.0}
        >>> model = build_model({"embedding_dim": 2, "encoder_u": linear, "encoder_v": linear,
        ...     "tilting": "cosine", "temperature": tau, "dtype": "float64"})
        >>> model.log_tilting(torch.ones(1, 3), torch.ones(4, 3)).shape
        torch.Size([1, 4])
    """
    default = torch.get_default_dtype()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        torch.set_default_dtype(getattr(torch, spec["dtype"]))
        try:
            return PairModel(
                make_encoder(embedding_dim=spec["embedding_dim"], **spec["encoder_u"]),
                make_encoder(embedding_dim=spec["embedding_dim"], **spec["encoder_v"]),
                spec["tilting"],
                Temperature(**spec["temperature"]),
            )
        finally:
            torch.set_default_dtype(default)
