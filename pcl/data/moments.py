"""Statistics of the training split, merged of those of its shards."""

__all__ = ["merged", "moments_of"]

from collections.abc import Sequence
from typing import Any

import numpy as np

from pcl.data.manifest import ArrayInfo


def moments_of(array: np.ndarray, info: ArrayInfo) -> dict[str, Any]:
    """Return an array's share of the statistics: count, mean and sum of squared deviations, or counts of labels.

    Args:
        array: stored items, (n, *shape).
        info: of the array.
    """
    if info.statistics == "counts":
        return {"counts": np.bincount(array.reshape(-1).astype(np.int64))}
    physical = array.astype(np.float64) * info.scale_factor
    if info.statistics == "scalar":
        physical = physical.reshape(-1)
    mean = physical.mean(0)
    return {"count": len(physical), "mean": mean, "squares": np.square(physical - mean).sum(0)}


def merged(parts: Sequence[dict[str, Any]], info: ArrayInfo) -> dict[str, Any]:
    """Return the statistics of many arrays, whose moments are merged in their order (Chan, Golub, LeVeque 1979).

    Args:
        parts: see ``moments_of``.
        info: of the arrays.
    """
    if info.statistics == "none":
        return {}
    if info.statistics == "counts":
        counts = np.zeros(max(len(part["counts"]) for part in parts), np.int64)
        for part in parts:
            counts[: len(part["counts"])] += part["counts"]
        return {"counts": counts.tolist()}
    count, mean, squares = 0, 0.0, 0.0
    for part in parts:
        total = count + part["count"]
        shift = part["mean"] - mean
        squares = squares + part["squares"] + np.square(shift) * count * part["count"] / total
        mean = mean + shift * part["count"] / total
        count = total
    return {"mean": np.asarray(mean).tolist(), "std": np.sqrt(np.asarray(squares) / count).tolist()}
