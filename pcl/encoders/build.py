"""Models built from plain numbers and strings, as checkpoints hold them."""

__all__ = ["ModelSpec", "build_model"]

from typing import Any, NotRequired, TypedDict

import torch
from torch import nn

from pcl.encoders.registry import make_encoder, with_entrance
from pcl.errors import BadInputError
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
    share: NotRequired[bool]  # encoder_v has the very network of encoder_u
    bias: NotRequired[bool]  # the loss learns a bias of the scores


OF_AN_ENTRANCE = ("dtype", "scale_factor", "mean", "std")  # in which encoders that share their network may differ


def build_model(spec: ModelSpec, seed: int = 0) -> PairModel:
    """Build a model in its dtype with weights drawn from a seed; the global generator is left as it was.

    Raises:
        BadInputError: an encoder is not known or does not fit, or two that share their network differ.

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
            temperature = Temperature(**spec["temperature"])
            return PairModel(*_encoders(spec), spec["tilting"], temperature, spec.get("bias", False))
        finally:
            torch.set_default_dtype(default)


def _encoders(spec: ModelSpec) -> tuple[nn.Module, nn.Module]:
    u, v = spec["encoder_u"], spec["encoder_v"]
    if spec["tilting"] == "potentials":
        u, v = ({"potential": "learned"} | side for side in (u, v))
    encoder_u = make_encoder(embedding_dim=spec["embedding_dim"], **u)
    if not spec.get("share"):
        return encoder_u, make_encoder(embedding_dim=spec["embedding_dim"], **v)
    if differing := [key for key in {**u, **v} if key not in OF_AN_ENTRANCE and u.get(key) != v.get(key)]:
        one, other = (f"{side.get(differing[0])}"[:100] for side in (u, v))
        raise BadInputError(
            f"model.share=true and the {differing[0]} of encoder_u is {one}, that of encoder_v {other}: one network "
            "takes items of one shape and has one kind and the same settings; make them equal, or leave share out"
        )
    entrance = {key: v[key] for key in OF_AN_ENTRANCE if key in v}
    return encoder_u, with_entrance(encoder_u[-1], v["shape"], **entrance)
