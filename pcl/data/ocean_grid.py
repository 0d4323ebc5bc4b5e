"""Latitudes and longitudes of a rectilinear grid: without the noise of single precision, in one convention."""

__all__ = ["arrange_longitude", "tidy_degrees"]

import numpy as np

NOISE_DEGREES = 5e-5  # HYCOM writes 145.04003906 for 145.04
LARGEST_DENOMINATOR = 1000


def tidy_degrees(values: np.ndarray) -> np.ndarray:
    """Return coordinates as the closest multiples of 1/q degree, q the smallest for which all are within the noise.

    The 1/12 degree of GLORYS comes as 9.0833435, 9.08333302 or 9.083344: all become the double next to 109/12.
    Coordinates that are no such multiples, as on a Mercator grid, keep seven digits.

    Args:
        values: coordinates, degrees, shape (N,).

    Example:
        >>> tidy_degrees(np.array([-13.74999046, -13.66665077])) * 12
        array([-165., -164.])
    """
    values = np.asarray(values, np.float64)
    spacing = float(np.min(np.abs(np.diff(values)), initial=1.0))
    noise = min(NOISE_DEGREES, spacing / 100)
    for denominator in range(1, LARGEST_DENOMINATOR + 1):
        multiples = np.round(values * denominator)
        if np.all(np.abs(values - multiples / denominator) <= noise):
            return multiples / denominator
    single = values.astype(np.float32).astype(np.float64)
    return single if np.all(np.abs(single - values) <= noise) else values


def arrange_longitude(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the order of columns that makes longitudes ascend without a jump, and the longitudes in that order.

    The first lies in [-180, 180) and the last less than 360 degrees east of it. Columns are cut at the largest gap, so
    a window across the dateline stays in one piece; a global grid has none and keeps its first column. A column
    that is repeated 360 degrees further is left out.

    Args:
        values: longitudes in any convention, degrees, shape (X,).

    Example:
        >>> arrange_longitude(np.array([178.0, 179.0, -180.0, -179.0]))[1]
        array([178., 179., 180., 181.])
        >>> arrange_longitude(np.array([350.0, 351.0]))[1]
        array([-10.,  -9.])
    """
    values = tidy_degrees(values)
    around, order = np.unique(tidy_degrees(values % 360) % 360, return_index=True)
    gaps = np.diff(around, append=around[0] + 360)  # after each column
    is_global = gaps.max() < 1.5 * np.median(gaps)
    first = int(np.argmin(order)) if is_global else (int(np.argmax(gaps)) + 1) % len(around)
    east = np.roll(around, -first)
    east[len(around) - first :] += 360 if first else 0
    east -= 360 if east[0] >= 180 else 0
    return np.roll(order, -first), tidy_degrees(east)
