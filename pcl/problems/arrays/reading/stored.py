"""Arrays as they are stored: known by shape and type, loaded in blocks of rows.

Shapes: n rows, one a pair; an item is what a row holds.
"""

__all__ = ["BLOCK_BYTES", "Coordinate", "Held", "Stored", "block_edges", "damaged", "merged_edges"]

import itertools
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields
from typing import Any, ClassVar

import numpy as np

from pcl.errors import BadInputError, DamagedDataError, RunFailedError, printable

BLOCK_BYTES = 2_000_000  # of a block, unless a chunk of the file is larger


def block_edges(num_rows: int, item_bytes: int, chunk_rows: int = 1) -> np.ndarray:
    """Rows at which blocks of a file begin, and n: whole chunks, and no more than some megabytes of them.

    Args:
        num_rows: n.
        item_bytes: of a row.
        chunk_rows: rows that can only be read together.

    Example:
        >>> block_edges(10, 1_000_000, chunk_rows=3)
        array([ 0,  3,  6,  9, 10])
    """
    rows = chunk_rows * max(1, BLOCK_BYTES // max(1, item_bytes) // chunk_rows)
    return np.append(np.arange(0, num_rows, rows), num_rows)


def merged_edges(edges: np.ndarray, item_bytes: int) -> np.ndarray:
    """Edges of chunks of any length as those of blocks of several, no more than some megabytes of them.

    Example:
        >>> merged_edges(np.array([0, 1, 2, 3, 9]), 1_000_000)
        array([0, 2, 3, 9])
    """
    kept = [0]
    for before, edge in itertools.pairwise(edges[1:].tolist()):
        if (edge - kept[-1]) * item_bytes > BLOCK_BYTES:
            kept.append(before)
    return np.array([*kept, int(edges[-1])])


@contextmanager
def damaged(label: str) -> Iterator[None]:
    """Turn whatever a library raises on the content of a file into one line that names it."""
    try:
        yield
    except (BadInputError, DamagedDataError, RunFailedError, MemoryError):
        raise
    except Exception as error:  # libraries raise anything on what somebody else wrote
        reason = f"{type(error).__name__}: {' '.join(str(error).split())[:120]}"
        raise DamagedDataError(
            f"{label} cannot be read ({reason}): it is cut off, damaged or of another kind"
        ) from error


@dataclass(frozen=True)
class Coordinate:
    """What says which pair a row of an array is.

    Attributes:
        label: of the array, in messages.
        name: of the coordinate, empty where it has none.
        values: shape (n,).
        is_of_table: whether it is the index of a table of pandas, not a coordinate of xarray.
    """

    label: str
    name: str
    values: np.ndarray
    is_of_table: bool = False

    @property
    def is_numbering(self) -> bool:
        """Whether it is what tables have that nobody gave an index: the numbers of the rows."""
        is_bare = self.is_of_table and not self.name and self.values.dtype.kind in "iu"
        return is_bare and np.array_equal(self.values, np.arange(len(self.values)))

    @property
    def aligned(self) -> str:
        """How arrays with such coordinates are aligned."""
        return "u, v = u.align(v, 'inner', axis=0)" if self.is_of_table else "u, v = xarray.align(u, v, join='inner')"

    @property
    def in_order(self) -> str:
        """How rows are sorted by it."""
        return "x.sort_index()" if self.is_of_table else f"x.sortby('{printable(self.name)[:50]}')"


@dataclass(frozen=True, kw_only=True)
class Stored:
    """An array whose rows are the items of one modality.

    Its ``copies`` are what reading a block takes, in blocks.

    Attributes:
        label: what it is called in messages.
        shape: (n, *item).
        dtype: as stored, of any order of bytes.
        edges: rows at which its blocks begin, and n.
        names: of the components of an item, where the file has some.
        units: of its values, as the file says.
        meaning: likewise, a phrase.
    """

    label: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    edges: np.ndarray
    names: tuple[str, ...] = ()
    units: str = "1"
    meaning: str = ""
    copies: ClassVar[int] = 3

    @property
    def item_bytes(self) -> int:
        """Bytes of an item."""
        return self.dtype.itemsize * math.prod(self.shape[1:])

    @property
    def bytes_at_once(self) -> int:
        """Most bytes that reading its rows holds: blocks as they are read, decoded and kept."""
        return self.copies * int(np.diff(self.edges).max(initial=0)) * self.item_bytes

    def load(self, start: int, stop: int) -> np.ndarray:
        """Return rows start .. stop - 1, between two edges."""
        raise NotImplementedError

    def coordinate(self) -> Coordinate | None:
        """Return what the file says of which pair a row is, None where it says nothing."""
        return None

    def whole(self) -> np.ndarray:
        """Return all rows.

        Raises:
            DamagedDataError: the file cannot be read.
        """
        with damaged(self.label):
            parts = [self.load(start, stop) for start, stop in itertools.pairwise(self.edges.tolist())]
            return np.concatenate(parts) if parts else np.zeros(0)

    def __getstate__(self) -> dict[str, Any]:
        """Leave files that are open, which are found again by their paths, to this process."""
        return {part.name: getattr(self, part.name) for part in fields(self)}


@dataclass(frozen=True, kw_only=True)
class Held(Stored):
    """An array in memory.

    Attributes:
        values: shape (n, *item).
    """

    values: np.ndarray

    @classmethod
    def of(cls, label: str, values: np.ndarray, names: tuple[str, ...] = ()) -> "Held":
        """Hold an array."""
        item_bytes = values.dtype.itemsize * math.prod(values.shape[1:])
        edges = block_edges(len(values) if values.ndim else 0, item_bytes)
        return cls(label=label, shape=values.shape, dtype=values.dtype, edges=edges, names=names, values=values)

    @property
    def bytes_at_once(self) -> int:
        """Bytes of the array."""
        return self.values.nbytes

    def load(self, start: int, stop: int) -> np.ndarray:
        """Return rows start .. stop - 1."""
        return self.values[start:stop]
