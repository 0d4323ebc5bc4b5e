"""Feature maps of the pairs of a split, piece by piece: pieces are encoded apart, each on one core or on a GPU.

Shapes: N pairs, F features.
"""

__all__ = ["features_of"]

import copy
from dataclasses import dataclass

from torch import Tensor

from pcl.evaluation.blocks import ENCODED_BYTES, encoded, num_at_once, room
from pcl.evaluation.parts import Lazily, Parts
from pcl.model import PairModel

BLOCKS = 8  # of a piece


@dataclass(frozen=True)
class _Encoders:
    """What a piece is encoded with: a model, and as many pairs of a size at a time as it takes."""

    model: PairModel
    block_pairs: int
    pair_bytes: int
    device: str


def features_of(
    model: PairModel, items: tuple[Tensor, Tensor], block_pairs: int, parts: Parts
) -> tuple[Tensor, Tensor]:
    """Return feature maps of u and of v, shape (N, F) each, in float32 as the model gives them.

    A piece holds whole blocks, so where pieces end changes nothing.

    Args:
        model: with its encoders.
        items: stored u and v, shape (N, ...) each.
        block_pairs: most items encoded at a time.
        parts: where pieces are encoded.
    """
    pair_bytes = items[0][:1].nbytes
    length = BLOCKS * min(block_pairs, num_at_once(pair_bytes, ENCODED_BYTES))
    places = [(name, slice(start, start + length)) for name in "uv" for start in range(0, len(items[0]), length)]

    def piece(number: int) -> tuple[str, Tensor]:
        name, place = places[number]
        return name, items["uv".index(name)][place].clone()  # what travels is the piece alone

    on_gpu = parts.device != "cpu"
    encoders = _Encoders(copy.deepcopy(model) if on_gpu else model, block_pairs, pair_bytes, parts.device)
    found: dict[str, Tensor] = {}
    for number, features in parts.each(_encoded, encoders, Lazily(piece, len(places)), "pieces of embeddings"):
        name, place = places[number]
        if name not in found:
            found[name] = room((len(items[0]), features.shape[1]), features.dtype)
        found[name][place] = features
    return found["u"], found["v"]


def _encoded(encoders: _Encoders, piece: tuple[str, Tensor]) -> Tensor:
    """Return the feature maps of a piece."""
    name, items = piece
    model = encoders.model.to(encoders.device)
    encode = model.features_u if name == "u" else model.features_v
    return encoded(encode, items.to(encoders.device), encoders.block_pairs, encoders.pair_bytes).cpu()
