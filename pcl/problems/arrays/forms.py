"""Forms of items: how numbers, images, labels and texts are stored, and what is refused.

Shapes: n rows, one a pair.
"""

__all__ = ["Items", "items_of", "refuse_dtype"]

import math
from dataclasses import dataclass, field, fields, replace
from typing import Any

import numpy as np

from pcl.errors import BadInputError
from pcl.problems.arrays.reading.stored import Stored, damaged

MOST_COMPONENTS = 100_000  # of an item with a mean and a standard deviation each; beyond, all share one
CHANNELS = (1, 2, 3, 4)
REMEDIES = {
    "c": "complex numbers: give np.stack([x.real, x.imag], -1)",
    "O": "Python objects: give an array of numbers, such as np.array(items, dtype=np.float32)",
    "U": "texts: give np.char.encode(x, 'utf-8') as form text, or np.unique(x, return_inverse=True)[1] as form labels",
    "S": "texts: choose form text, or give np.unique(x, return_inverse=True)[1] as form labels",
    "M": "dates: give numbers, such as x.astype('datetime64[s]').astype(np.int64)",
    "m": "durations: give numbers, such as x / np.timedelta64(1, 's')",
    "V": "records: give one array of numbers, such as np.stack([x[name] for name in x.dtype.names], -1)",
}


def refuse_dtype(label: str, dtype: np.dtype[Any]) -> None:
    """Refuse what are no numbers of at most 64 bits.

    Raises:
        BadInputError: with the remedy.
    """
    if dtype.kind in REMEDIES:
        raise BadInputError(f"{label} holds {REMEDIES[dtype.kind]}")
    if dtype.kind not in "biuf" or dtype.itemsize > 8:
        raise BadInputError(f"{label} holds {dtype}: give numbers of at most 64 bits, such as x.astype(np.float64)")


@dataclass(frozen=True)
class Items:
    """Items of one modality, read a block at a time; the last block is kept.

    Attributes:
        stored: where they lie.
        form: what they are, see ``ArraysSettings``.
        dtype: of an item in the shards.
        shape: of an item in the shards.
        statistics: that are kept of them, see ``ArrayInfo``.
        scale_factor: physical units per stored unit.
    """

    stored: Stored
    form: str
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    statistics: str
    scale_factor: float = 1.0
    last: dict[int, np.ndarray] = field(default_factory=dict, compare=False, repr=False)

    def __len__(self) -> int:
        """Return n."""
        return self.stored.shape[0]

    @property
    def num_components(self) -> int:
        """Numbers in an item."""
        return math.prod(self.shape)

    def take(self, rows: np.ndarray) -> np.ndarray:
        """Return items of ascending rows as they are in shards, shape (len(rows), *shape): each block is read once."""
        found = np.empty((len(rows), *self.shape), self.dtype)
        edges = self.stored.edges
        if len(rows):
            first, last = np.searchsorted(edges, [rows[0], rows[-1]], "right").tolist()
            for number in range(first - 1, last):
                low, high = np.searchsorted(rows, edges[number : number + 2]).tolist()
                if low < high:
                    found[low:high] = self._block(number)[rows[low:high] - edges[number]]
        return found

    def read(self, start: int, stop: int) -> np.ndarray:
        """Return items start .. stop - 1 as they are in shards, shape (stop - start, *shape)."""
        return self.take(np.arange(start, stop))

    def with_dtype(self, dtype: Any) -> "Items":
        """Return the items as another type."""
        return replace(self, dtype=np.dtype(dtype), last={})

    def _block(self, number: int) -> np.ndarray:
        if number not in self.last:
            self.last.clear()
            with damaged(self.stored.label):
                start, stop = self.stored.edges[number : number + 2].tolist()
                loaded = self.stored.load(start, stop)
                if loaded.dtype.kind == "S":
                    loaded = np.ascontiguousarray(loaded).view(np.uint8)
                self.last[number] = loaded.reshape(stop - start, *self.shape)
        return self.last[number]

    def __getstate__(self) -> dict[str, Any]:
        """Leave the last block to this process."""
        return {part.name: getattr(self, part.name) for part in fields(self)} | {"last": {}}


def items_of(stored: Stored, form: str) -> Items:
    """Items of a stored array in one form.

    Args:
        stored: the array.
        form: what they are.

    Raises:
        BadInputError: they cannot be of that form, or are no numbers.
    """
    label, dtype, shape = stored.label, stored.dtype, stored.shape
    if not shape:
        hint = ", such as np.load of that file" if dtype.kind in "US" else ""
        raise BadInputError(f"{label} is a single value: give an array whose first axis is that of the pairs{hint}")
    if 0 in shape[1:]:
        raise BadInputError(f"{label} has shape {shape}: an item must hold at least one number")
    if form == "text" and dtype.kind == "S" and len(shape) == 1:
        return Items(stored, form, np.dtype(np.uint8), (dtype.itemsize,), "none")
    refuse_dtype(label, dtype)
    return MAKE[form](stored, dtype.newbyteorder("="), shape[1:])


def _numbers(stored: Stored, dtype: np.dtype[Any], shape: tuple[int, ...]) -> Items:
    statistics = "component" if math.prod(shape) <= MOST_COMPONENTS else "scalar"
    return Items(stored, "numbers", dtype, shape, statistics)


def _image(stored: Stored, dtype: np.dtype[Any], shape: tuple[int, ...]) -> Items:
    if dtype != np.uint8 and dtype.kind != "f":
        raise BadInputError(
            f"{stored.label} holds {dtype}: an image is uint8 from 0 to 255 or of floats, give x.astype(np.float32)"
        )
    if len(shape) not in (2, 3):
        raise BadInputError(f"{stored.label} has items of shape {shape}: an image is (H, W) or (C, H, W)")
    if len(shape) == 3 and shape[0] not in CHANNELS and shape[2] in CHANNELS:
        raise BadInputError(
            f"{stored.label} has images of shape {shape}, channels last: give np.moveaxis(x, -1, 1), which has shape "
            f"{(shape[2], *shape[:2])}"
        )
    return Items(stored, "image", dtype, shape, "scalar", 1 / 255 if dtype == np.uint8 else 1.0)


def _labels(stored: Stored, dtype: np.dtype[Any], shape: tuple[int, ...]) -> Items:
    if shape:
        raise BadInputError(
            f"{stored.label} has items of shape {shape}: a label is one integer, give an array of shape (n,)"
        )
    if dtype.kind == "f":
        raise BadInputError(f"{stored.label} holds {dtype}: labels are integers, give x.astype(np.int64)")
    return Items(stored, "labels", np.dtype(np.uint8) if dtype.kind == "b" else dtype, shape, "counts")


def _text(stored: Stored, dtype: np.dtype[Any], shape: tuple[int, ...]) -> Items:
    if dtype not in (np.uint8, np.int32) or len(shape) != 1:
        raise BadInputError(
            f"{stored.label} has items of {dtype} and shape {shape}: a text is T bytes of UTF-8 (uint8) or T tokens "
            "(int32), 0 after its end; np.char.encode(texts, 'utf-8') gives such bytes"
        )
    return Items(stored, "text", dtype, shape, "none")


MAKE = {"numbers": _numbers, "image": _image, "labels": _labels, "text": _text}
