"""Encoders by name, open to those of a kind of pairs, and how one is built from plain numbers and strings."""

__all__ = ["ENCODERS", "EncoderKind", "make_encoder", "network_of", "register_encoder", "with_entrance"]

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from pcl.encoders.basic import Identity, Linear, OneHot, Standardise
from pcl.encoders.convnet import ConvNet, ConvNetSettings
from pcl.encoders.frozen import Frozen, FrozenSettings, pinned_program
from pcl.encoders.mlp import MLP, MLPSettings
from pcl.encoders.potential import POTENTIALS, ZeroPotential
from pcl.encoders.text import TextSettings, text
from pcl.entrance import Items
from pcl.errors import BadInputError
from pcl.settings import is_again

GREY_LEVEL = 1 / 255  # per stored unit: only integers are stored so


@dataclass(frozen=True)
class EncoderKind:
    """A kind of encoder.

    Attributes:
        build: makes the network of ``(shape, embedding_dim, **settings, **facts)``.
        settings: a dataclass of its settings (``pcl.settings``), or None.
        section: of the configuration that holds them, ``model.<section>``; kinds that share it share the settings.
        facts: names of what it must know of the data, in the source of the manifest.
        takes_missing_values: whether items may hold NaN.
        pinned: returns, of the settings of whoever trains, what else a record holds so that it means the same later.
        begin: takes from the training split what a network keeps of it, in place, once, before the first step of a
            training that is not resumed: the network, where the shards lie (a ``pcl.storage.place.Place``), their
            ``pcl.data.manifest.Manifest``.
        is_affine: whether embeddings are affine in what is stored, so that a Gaussian stays one.
        has_potential: whether ``build`` takes ``potential=True`` and adds a potential of its own; the potential of
            others is one more component of their embedding.
    """

    build: Callable[..., nn.Module]
    settings: type | None = None
    section: str = ""
    facts: tuple[str, ...] = ()
    takes_missing_values: bool = False
    pinned: Callable[[Mapping[str, Any]], dict[str, Any]] = lambda settings: {}
    begin: Callable[[nn.Module, Any, Any], None] | None = None
    is_affine: bool = False
    has_potential: bool = False

    def network(self, shape: Sequence[int], embedding_dim: int, *, potential: bool, **options: Any) -> nn.Module:
        """Build the network, which maps items to (B, E), or to (B, E + 1) with a potential that is learned."""
        if potential and self.has_potential:
            return self.build(shape, embedding_dim, potential=True, **options)
        return self.build(shape, embedding_dim + potential, **options)


ENCODERS: dict[str, EncoderKind] = {
    "linear": EncoderKind(Linear, is_affine=True, has_potential=True),
    "one_hot": EncoderKind(OneHot, has_potential=True),
    "identity": EncoderKind(Identity, is_affine=True, has_potential=True),
    "mlp": EncoderKind(MLP, MLPSettings),
    "convnet": EncoderKind(ConvNet, ConvNetSettings),
    "text": EncoderKind(text, TextSettings),
    "frozen": EncoderKind(Frozen, FrozenSettings, pinned=pinned_program),
}
"""Kinds of encoders by name."""


def register_encoder(name: str, kind: EncoderKind) -> None:
    """Register a kind of encoder, so that a configuration can name it.

    Raises:
        BadInputError: another kind has the name.
    """
    if name in ENCODERS and not is_again(ENCODERS[name].build, kind.build):
        raise BadInputError(f"two kinds of encoders are named {name!r}: give one another name")
    ENCODERS[name] = kind


def make_encoder(
    kind: str,
    shape: Sequence[int],
    embedding_dim: int,
    *,
    dtype: str | None = None,
    scale_factor: float = 1.0,
    mean: float | Sequence[float] = 0.0,
    std: float | Sequence[float] = 1.0,
    potential: str | None = None,
    **options: Any,
) -> nn.Sequential:
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
        potential: that follows the embedding, ``learned`` or ``zero``; None: no potential.
        options: of this kind of network.

    Raises:
        BadInputError: the kind or the potential is not known, or the kind does not fit the shape.

    Example:
        >>> import torch
        >>> make_encoder("linear", (12,), 5)(torch.zeros(2, 12)).shape
        torch.Size([2, 5])
    """
    if kind not in ENCODERS:
        raise BadInputError(f"encoder {kind!r} is not known; choose one of {', '.join(ENCODERS)}")
    if potential not in (None, *POTENTIALS):
        raise BadInputError(f"the potential {potential!r} is not known; choose one of {', '.join(POTENTIALS)}")
    network = ENCODERS[kind].network(shape, embedding_dim, potential=potential == "learned", **options)
    encoder = with_entrance(network, shape, dtype=dtype, scale_factor=scale_factor, mean=mean, std=std)
    return encoder.append(ZeroPotential()) if potential == "zero" else encoder


def network_of(encoder: nn.Module) -> nn.Module:
    """Return the network of an encoder, without what stands before it and a potential that is zero.

    Example:
        >>> network_of(make_encoder("linear", (12,), 5, potential="zero"))
        Linear(
          (map): Linear(in_features=12, out_features=5, bias=False)
        )
    """
    parts = [part for part in encoder.children() if not isinstance(part, ZeroPotential)]
    return parts[-1]


def with_entrance(
    network: nn.Module,
    shape: Sequence[int],
    *,
    dtype: str | None = None,
    scale_factor: float = 1.0,
    mean: float | Sequence[float] = 0.0,
    std: float | Sequence[float] = 1.0,
) -> nn.Sequential:
    """Return an encoder whose last part is a network: see ``make_encoder``, which makes the network too."""
    takes_integers = getattr(network, "integer_input", False)
    encoder: Any = nn.Sequential(*([] if takes_integers else [Standardise(scale_factor, mean, std)]), network)
    encoder.items = Items(
        tuple(shape),
        "uint8" if dtype is None and scale_factor == GREY_LEVEL else dtype,
        scale_factor,
        num_labels=getattr(network, "num_labels", None),
        may_be_missing=getattr(network, "may_be_missing", False),
    )
    module: nn.Sequential = encoder
    return module
