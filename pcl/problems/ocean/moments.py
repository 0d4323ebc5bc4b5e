"""Mean and standard deviation of currents, of however many fields at a time."""

__all__ = ["moments"]

import math
from collections.abc import Iterable

import numpy as np


def moments(fields: Iterable[np.ndarray]) -> tuple[np.ndarray, np.ndarray] | None:
    """Return the mean and the standard deviation of both components over all that is known, in float64.

    Every field is summed by itself and the sums are added exactly, so the result does not depend on how many fields
    are read at a time.

    Args:
        fields: each of shape (2, n), m/s, NaN where a component is missing.

    Returns:
        Shapes (2,); None if nothing is known.

    Example:
        >>> moments([np.array([[1.0, 3.0], [0.0, 0.0]]), np.array([[np.nan], [5.0]])])
        (array([2., 0.]), array([1., 0.]))
    """
    sums = [_sums(field) for field in fields]
    count, *rest = (math.fsum(column) for column in zip(*sums, strict=True))
    if count == 0:
        return None
    mean, square = np.array(rest[:2]) / count, np.array(rest[2:]) / count
    return mean, np.sqrt(np.maximum(square - mean**2, 0))


def _sums(field: np.ndarray) -> list[float]:
    """Return the number of known points, the sums of both components, and of their squares."""
    values = field[:, np.isfinite(field).all(0)].astype(np.float64)
    return [values.shape[1], *values.sum(1).tolist(), *np.square(values).sum(1).tolist()]
