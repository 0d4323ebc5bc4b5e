"""A look at all values: what is missing, what is infinite, labels, and the statistics of the training split.

Values are taken in units of a fixed number of rows, so that what is found depends on the values alone: not on how a
file is cut into chunks, nor on the memory.

Shapes: n rows, one a pair; an item has ``shape``.
"""

__all__ = ["Found", "Missing", "count_labels", "look_for_missing", "measure"]

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from pcl.data.source import Progress
from pcl.errors import BadInputError
from pcl.problems.arrays.forms import Items

UNIT_BYTES = 1_000_000  # of a unit in float64
MOST_LABELS = 1 << 20  # counts that a manifest holds


@dataclass(frozen=True)
class Found:
    """What is known of the values of the training split.

    Attributes:
        statistics: as the manifest holds them.
        constant: components that never vary.
    """

    statistics: dict[str, Any]
    constant: tuple[int, ...] = ()


def _units(items: Items, progress: Progress) -> Iterator[range]:
    """Yield ranges of rows, and show how far they are."""
    rows = max(1, UNIT_BYTES // (8 * items.num_components))
    for start in progress(range(0, len(items), rows), "block"):
        yield range(start, min(start + rows, len(items)))


@dataclass(frozen=True)
class Missing:
    """Where values are NaN.

    Attributes:
        rows: of which a value is NaN, True there, shape (n,).
        always: components that are NaN in every row.
    """

    rows: np.ndarray
    always: tuple[int, ...] = ()


def look_for_missing(items: Items, progress: Progress) -> Missing:
    """Find the values that are NaN.

    Args:
        items: of one modality.
        progress: shows how far it is.

    Raises:
        BadInputError: a value is infinite.
    """
    rows, always = np.zeros(len(items), bool), np.ones(items.num_components if len(items) else 0, bool)
    if items.dtype.kind != "f":
        return Missing(rows)
    for unit in _units(items, progress):
        values = items.read(unit.start, unit.stop).reshape(len(unit), -1)
        is_finite = np.isfinite(values)
        if is_finite.all():
            always[:] = False
            continue
        is_infinite = np.isinf(values).any(1)
        if is_infinite.any():
            row = unit.start + int(np.argmax(is_infinite))
            raise BadInputError(f"{items.stored.label} is infinite in row {row:,}: give finite numbers")
        rows[unit.start : unit.stop] = ~is_finite.all(1)
        always &= ~is_finite.any(0)
    return Missing(rows, tuple(np.flatnonzero(always).tolist()))


def measure(items: Items, is_train: np.ndarray, progress: Progress) -> Found:
    """Mean and standard deviation over the training split, in float64 (Chan, Golub, LeVeque 1979).

    Args:
        items: of one modality, which keep moments.
        is_train: the rows of the training split, shape (n,).
        progress: shows how far it is.
    """
    shape = items.shape if items.statistics == "component" else ()
    count, mean, squares = 0, np.zeros(shape), np.zeros(shape)
    low, high = np.full(shape, np.inf), np.full(shape, -np.inf)
    for unit in _units(items, progress):
        rows = unit.start + np.flatnonzero(is_train[unit.start : unit.stop])
        if not len(rows):
            continue
        values = items.take(rows).astype(np.float64) * items.scale_factor
        values = values.reshape(-1, *shape)
        low, high = np.minimum(low, values.min(0)), np.maximum(high, values.max(0))
        of_unit = values.mean(0)
        total, shift = count + len(values), of_unit - mean
        squares += np.square(values - of_unit).sum(0) + np.square(shift) * (count * len(values) / total)
        mean, count = mean + shift * (len(values) / total), total
    is_constant = low == high  # exactly: what rounding leaves of a deviation would blow them up
    mean, std = np.where(is_constant, low, mean), np.where(is_constant, 0.0, np.sqrt(squares / count))
    return Found({"mean": mean.tolist(), "std": std.tolist()}, tuple(np.flatnonzero(is_constant).tolist()))


def count_labels(items: Items, is_train: np.ndarray, is_used: np.ndarray, progress: Progress) -> Found:
    """Frequencies of the labels 0 .. K-1 in the training split.

    Args:
        items: labels.
        is_train: the rows of the training split, shape (n,).
        is_used: the rows of any split, shape (n,).
        progress: shows how far it is.

    Raises:
        BadInputError: a label is negative, one below the largest never occurs, or one is missing from the training.
    """
    label, remedy = items.stored.label, "number them from 0, such as np.unique(x, return_inverse=True)[1]"
    most = min(len(items), MOST_LABELS)
    counts = np.zeros((2, most), np.int64)
    for unit in _units(items, progress):
        values = items.read(unit.start, unit.stop)
        where = slice(unit.start, unit.stop)
        low, high = int(values.min()), int(values.max())
        if low < 0 or high >= most:
            raise BadInputError(
                f"{label} holds the label {low if low < 0 else high}: labels are 0 .. K-1, of {most} at most; {remedy}"
            )
        for row, kept in enumerate((is_train, is_used)):
            counts[row] += np.bincount(values[kept[where]].astype(np.int64), minlength=most)
    num_labels = int(np.flatnonzero(counts[1])[-1]) + 1
    train, used = counts[:, :num_labels]
    if not used.all():
        raise BadInputError(
            f"{label} holds the labels 0 .. {num_labels - 1}, of which {int(np.argmin(used))} never occurs: {remedy}"
        )
    if not train.all():
        lacking = int(np.argmin(train))
        raise BadInputError(
            f"{label} holds the label {lacking} in the test split only ({used[lacking]} pairs): choose another split "
            "or seed, or leave these pairs out"
        )
    return Found({"counts": train.tolist()}, (0,) if num_labels == 1 else ())
