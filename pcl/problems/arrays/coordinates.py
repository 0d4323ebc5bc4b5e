"""Coordinates of the pairs: where arrays say which pair a row is, they must say the same, and be in order of time.

Shapes: n rows, one a pair.
"""

__all__ = ["check_aligned", "check_in_order", "of_memory"]

import itertools
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np

from pcl.errors import BadInputError, printable
from pcl.problems.arrays.reading.stored import Coordinate

NUMBERS = "biuf"


def of_memory(label: str, given: Any) -> Coordinate | None:
    """Coordinate of the rows of a table of pandas or an array of xarray, None of all else.

    Args:
        label: what the array is called in messages.
        given: what a person gives.

    Example:
        >>> import pandas as pd
        >>> of_memory("u", pd.Series([1.0, 2.0], [7, 5])).values
        array([7, 5])
    """
    pandas = sys.modules.get("pandas")  # who has a table has imported it
    dims = getattr(given, "dims", ())
    index = getattr(given, "indexes", {}).get(dims[0]) if dims else getattr(given, "index", None)
    if pandas is None or not isinstance(index, pandas.Index):
        return None
    return Coordinate(label, str(index.name or ""), index.to_numpy(), is_of_table=not dims)


def check_aligned(found: Sequence[Coordinate], unless: str) -> None:
    """Refuse arrays whose rows are not the same pairs, by their coordinates of one name.

    Rows of a table that are numbered from 0 on are compared with whole numbers alone: those of one that was sorted or
    filtered, while dates and texts tell of other things.

    Args:
        found: of the arrays that have one.
        unless: how they are paired by position all the same.

    Raises:
        BadInputError: where they differ first, and in how many rows.
    """
    for one, other in itertools.combinations(found, 2):
        is_same = one.name == other.name or not (one.name and other.name)
        is_mute = one.is_numbering != other.is_numbering and not _are_whole(one, other)
        if not is_same or is_mute or one.values.shape != other.values.shape:
            continue
        differs = _differs(one.values, other.values)
        if differs.any():
            row = int(np.argmax(differs))
            raise BadInputError(
                f"{one.label} and {other.label} differ in their coordinate {_name(one, other)} in "
                f"{int(differs.sum()):,} of {len(differs):,} rows, first in row {row:,}: {_shown(one.values[row])} "
                f"and {_shown(other.values[row])}; row i of both is a pair, so align them, such as {one.aligned}, or "
                f"{unless}"
            )


def check_in_order(found: Sequence[Coordinate], unless: str) -> None:
    """Refuse rows that are not in order of their coordinate, of which the last ones would be held out.

    Args:
        found: of the arrays that have one.
        unless: how their order is taken all the same.

    Raises:
        BadInputError: where the order breaks.
    """
    for one in found:
        is_text = one.values.dtype.kind not in "OM" + NUMBERS or any(isinstance(value, str) for value in one.values[:1])
        falls = np.zeros(0, bool) if is_text else np.asarray(one.values[1:] < one.values[:-1], bool)
        if falls.any():
            row = int(np.argmax(falls))
            raise BadInputError(
                f"split=order and the coordinate {_name(one)} of {one.label} goes back after row {row:,}: from "
                f"{_shown(one.values[row])} to {_shown(one.values[row + 1])}; the last pairs are held out, so sort the "
                f"rows, such as {one.in_order}, or {unless}"
            )


def _are_whole(*coordinates: Coordinate) -> bool:
    return all(one.values.dtype.kind in "iu" for one in coordinates)


def _differs(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Return where values differ; floats are compared in the precision of the less precise."""
    kinds = one.dtype.kind + other.dtype.kind
    if kinds == "ff":
        least = min(one.dtype, other.dtype, key=lambda dtype: dtype.itemsize)
        one, other = one.astype(least), other.astype(least)
    elif kinds != "MM" and not set(kinds) <= set(NUMBERS):
        one, other = one.astype(object), other.astype(object)
    both_missing = (one != one) & (other != other)
    return np.asarray((one != other) & ~both_missing, bool)


def _name(*coordinates: Coordinate) -> str:
    return next((printable(one.name)[:50] for one in coordinates if one.name), "index")


def _shown(value: Any) -> str:
    text = np.datetime_as_string(value, "auto") if isinstance(value, np.datetime64) else value
    return printable(str(text))[:40]
