"""Values that are missing for a moment, bridged in time."""

__all__ = ["bridge"]

import numpy as np


def bridge(field: np.ndarray, time_s: np.ndarray, water: np.ndarray, longest_s: float) -> np.ndarray:
    r"""Return a field whose gaps in water are filled by linear interpolation in time, where they are short.

    .. math:: u(t) = u(t_0) + \frac{t - t_0}{t_1 - t_0} \bigl( u(t_1) - u(t_0) \bigr), \qquad t_1 - t_0 \le \Delta

    between the last value before a gap and the first after it.

    Args:
        field: shape (C, T, Y, X), NaN in all components where one is missing.
        time_s: increasing, seconds, shape (T,).
        water: where there is water, bool, shape (Y, X).
        longest_s: Delta, seconds from the last value to the next.

    Example:
        >>> field = np.array([1.0, np.nan, 2.0, np.nan, np.nan, 5.0]).reshape(1, 6, 1, 1)
        >>> bridge(field, np.arange(6.0), np.ones((1, 1), bool), 2.0).ravel()
        array([1. , 1.5, 2. , nan, nan, 5. ])
    """
    known = np.isfinite(field[0])
    rows, columns = np.nonzero(water & ~known.all(0) & known.any(0))
    if not len(rows):
        return field
    values, there = field[:, :, rows, columns].astype(np.float64), known[:, rows, columns]
    steps = np.arange(len(time_s))[:, None]
    before = np.maximum.accumulate(np.where(there, steps, -1), axis=0)
    after = np.minimum.accumulate(np.where(there, steps, len(time_s))[::-1], axis=0)[::-1]
    inside = ~there & (before >= 0) & (after < len(time_s))
    before, after = np.where(inside, before, 0), np.where(inside, after, 0)
    length_s = time_s[after] - time_s[before]
    short = inside & (length_s <= longest_s)
    share = (time_s[:, None] - time_s[before]) / np.where(short, length_s, 1.0)
    first, last = (np.take_along_axis(values, index[None], axis=1) for index in (before, after))
    filled = field.copy()
    filled[:, :, rows, columns] = np.where(short, first + share * (last - first), values).astype(field.dtype)
    return filled
