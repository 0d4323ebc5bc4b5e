"""The encoders by name, and how one is built from plain numbers and strings."""

__all__ = ["ENCODERS", "make_encoder"]

from collections.abc import Callable, Sequence
from typing import Any

from torch import nn

from pcl.encoders.basic import Identity, LeNet, Linear, OneHot, Standardise
from pcl.encoders.field import DrifterSet, Field
from pcl.encoders.linear_inverse import LinearInverse
from pcl.encoders.trajectory import Transformer
from pcl.errors import BadInputError

ENCODERS: dict[str, Callable[..., nn.Module]] = {
    "linear": Linear,
    "lenet": LeNet,
    "one_hot": OneHot,
    "identity": Identity,
    "field": Field,
    "drifter_set": DrifterSet,
    "transformer": Transformer,
    "linear_inverse": LinearInverse,
}


def make_encoder(
    kind: str,
    shape: Sequence[int],
    embedding_dim: int,
    *,
    scale_factor: float = 1.0,
    mean: float | Sequence[float] = 0.0,
    std: float | Sequence[float] = 1.0,
    **options: Any,
) -> nn.Module:
    """Return an encoder of stored arrays: standardisation, then the network; labels go in as they are.

    Args:
        kind: one of ``ENCODERS``.
        shape: shape of one item.
        embedding_dim: E.
        scale_factor: physical units per stored unit.
        mean: subtracted, in physical units.
        std: divided by, in physical units.
        options: of this kind of network.

    Raises:
        BadInputError: the kind is not known or does not fit the shape.

    Example:
        >>> import torch
        >>> make_encoder("linear", (12,), 5)(torch.zeros(2, 12)).shape
        torch.Size([2, 5])
    """
    if kind not in ENCODERS:
        raise BadInputError(f"encoder {kind!r} is not known; choose one of {', '.join(ENCODERS)}")
    network = ENCODERS[kind](shape, embedding_dim, **options)
    if getattr(network, "integer_input", False):
        return network
    return nn.Sequential(Standardise(scale_factor, mean, std), network)
