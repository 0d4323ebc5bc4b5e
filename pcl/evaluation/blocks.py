"""Walks through many windows in blocks of bounded memory: an archive is held once, what is made of it never whole.

Shapes: N windows, F features.
"""

__all__ = ["BLOCK_BYTES", "ENCODED_BYTES", "Items", "encoded", "num_at_once", "room", "walk"]

import math
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from pcl.errors import BadInputError

BLOCK_BYTES = 4_000_000  # of a block, in which a product of matrices is fast
HELD_BYTES = 1 << 30  # of a tensor: of a larger one the system keeps in memory what there is room for
ENCODED_BYTES = 3_000_000  # of fields that a network reads at a time: its layers hold many times as much


class Items(Protocol):
    """Items in a tensor, or elsewhere: how many there are, and tensors of some of them."""

    def __len__(self) -> int: ...

    def __getitem__(self, chosen: Any, /) -> Tensor: ...

    @property
    def shape(self) -> Any:
        """That of all items together."""


def num_at_once(item_bytes: int, limit_bytes: int = BLOCK_BYTES) -> int:
    """Return how many items a block holds, at least one.

    Example:
        >>> num_at_once(1_000_000), num_at_once(1_000_000_000)
        (4, 1)
    """
    return max(1, limit_bytes // max(1, item_bytes))


def walk(windows: Items, chosen: Tensor | None = None, item_bytes: int = 0) -> Iterator[tuple[slice, Tensor]]:
    """Yield windows in blocks, each with its place among those chosen.

    Args:
        windows: shape (N, ...).
        chosen: distinct increasing indices of the windows to walk through; None: all, which copies nothing.
        item_bytes: that are made of a window, where they are more than its own.

    Example:
        >>> [(place.start, block.tolist()) for place, block in walk(torch.tensor([1, 2, 3]), torch.tensor([0, 2]))]
        [(0, [1, 3])]
    """
    if chosen is not None and len(chosen) == len(windows):
        chosen = None
    number = len(windows) if chosen is None else len(chosen)
    step = num_at_once(max(windows[:1].nbytes, item_bytes))
    for start in range(0, number, step):
        place = slice(start, min(start + step, number))
        yield place, windows[place] if chosen is None else windows[chosen[place]]


def room(shape: Sequence[int], dtype: torch.dtype) -> Tensor:
    """Return a tensor that is to be filled: in memory, or, where it is large, mapped from a file without a name.

    Args:
        shape: of it.
        dtype: of it.

    Raises:
        BadInputError: the disk has no room for the file.
    """
    empty = torch.empty(0, dtype=dtype)
    size = math.prod(shape) * empty.itemsize
    if size <= HELD_BYTES:
        return empty.new_empty(*shape)
    with tempfile.TemporaryFile() as file:
        try:
            os.posix_fallocate(file.fileno(), 0, size)  # a full disk is met here, not at a write to memory
        except OSError as error:
            raise BadInputError(
                f"{tempfile.gettempdir()} has no room for {size / 1e9:.1f} GB of what is evaluated ({error.strerror}): "
                "set TMPDIR to a folder of a larger disk, or choose fewer pairs, evaluation.max_pairs"
            ) from error
        return torch.from_numpy(np.memmap(file, empty.numpy().dtype, "r+", shape=tuple(shape)))


def encoded(encode: Callable[[Tensor], Tensor], items: Tensor, block_pairs: int, pair_bytes: int) -> Tensor:
    """Return what an encoder makes of items, shape (N, F), a few at a time.

    Args:
        encode: from (n, ...) to (n, F).
        items: shape (N, ...).
        block_pairs: most items at a time.
        pair_bytes: of the larger item of a pair: the smaller may be brought to its size.
    """
    at_once = min(block_pairs, num_at_once(pair_bytes, ENCODED_BYTES))
    return torch.cat([encode(block) for block in torch.split(items, at_once)])
