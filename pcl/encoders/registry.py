"""The encoders by name, and how one is built from plain numbers and strings."""

__all__ = ["ENCODERS", "make_encoder"]

from collections.abc import Callable, Sequence
from typing import Any

from torch import nn

from pcl.encoders.basic import Identity, LeNet, Linear, OneHot, Standardise
from pcl.entrance import Items
from pcl.errors import BadInputError
from pcl.problems.ocean.field import DrifterSet, Field
from pcl.problems.streamfunction.linear_inverse import LinearInverse
from pcl.problems.streamfunction.transformer import Transformer

GREY_LEVEL = 1 / 255  # per stored unit: only integers are stored so

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
    dtype: str | None = None,
    scale_factor: float = 1.0,
    mean: float | Sequence[float] = 0.0,
    std: float | Sequence[float] = 1.0,
    **options: Any,
) -> nn.Module:
    """Return an encoder of stored arrays: standardisation, then the network; labels go in as they are.

    Its attribute ``items`` says what it takes, for the entrance of a model.

    Args:
        kind: one of ``ENCODERS``.
        shape: shape of one item.
        embedding_dim: E.
        dtype: of what is stored; None: not known, as in checkpoints that were written without it.
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
    takes_integers = getattr(network, "integer_input", False)
    encoder: Any = network if takes_integers else nn.Sequential(Standardise(scale_factor, mean, std), network)
    encoder.items = Items(
        tuple(shape),
        "uint8" if dtype is None and scale_factor == GREY_LEVEL else dtype,
        scale_factor,
        num_labels=getattr(network, "num_labels", None),
        may_be_missing=getattr(network, "may_be_missing", False),
    )
    module: nn.Module = encoder
    return module
