"""Latitudes and longitudes of a rectilinear grid: checked, without the noise of single precision, in one convention."""

__all__ = ["arrange_longitude", "check_axis", "disagreement", "is_periodic", "rectilinear_axes", "tidy_degrees"]

import re

import numpy as np

from pcl.errors import BadInputError

NOISE_DEGREES = 5e-5  # HYCOM writes 145.04003906 for 145.04
LARGEST_DENOMINATOR = 1000
CONSTANT = 0.01  # of a cell: how far 2-D coordinates of a rectilinear grid may vary along a row
LIMITS = {"latitude": (-90.0, 90.0), "longitude": (-360.0, 720.0)}  # RTOFS goes to 434 degrees east
DEGREES = {
    "latitude": re.compile(r"((decimal|arc)?[ _]?deg(ree)?s?|°)?[ _]?(north|n)?", re.IGNORECASE),
    "longitude": re.compile(r"((decimal|arc)?[ _]?deg(ree)?s?|°)?[ _]?(east|e)?", re.IGNORECASE),
}


def check_axis(values: np.ndarray, axis: str, units: str, where: str) -> None:
    """Refuse a latitude or longitude that is missing somewhere, out of range, not in degrees, or twice the same.

    Args:
        values: of any shape.
        axis: ``latitude`` or ``longitude``.
        units: as the file states them, empty if it does not.
        where: file and variable, for messages.

    Raises:
        BadInputError: see above.

    Example:
        >>> check_axis(np.array([0.1, 0.2]), "latitude", "radians", "a.nc: lat")
        Traceback (most recent call last):
        pcl.errors.BadInputError: a.nc: lat is in 'radians': latitude must be in degrees, convert it first
    """
    if not DEGREES[axis].fullmatch(units):
        raise BadInputError(f"{where} is in '{units}': {axis} must be in degrees, convert it first")
    if not np.isfinite(values).all():
        raise BadInputError(
            f"{where} is missing at {np.count_nonzero(~np.isfinite(values))} of {values.size} points: every point must "
            f"have a {axis}, repair the file"
        )
    low, high = LIMITS[axis]
    if values.size and not (low - NOISE_DEGREES <= values.min() and values.max() <= high + NOISE_DEGREES):
        raise BadInputError(
            f"{where} goes from {values.min():.6g} to {values.max():.6g}: {axis} must lie between {low:g} and "
            f"{high:g} degrees, repair the file"
        )
    if values.ndim == 1 and len(np.unique(values)) < len(values):
        ordered = np.sort(values)
        raise BadInputError(
            f"{where} holds {ordered[:-1][np.diff(ordered) == 0][0]:.6g} twice: every {axis} must occur once, leave "
            "one out"
        )


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


def is_periodic(longitude: np.ndarray) -> bool:
    """Return whether the first column of a grid is the eastern neighbour of its last: span plus one cell are 360.

    Args:
        longitude: ascending, degrees, shape (X,).

    Example:
        >>> is_periodic(np.arange(20.0, 380.0, 2.0)), is_periodic(np.arange(0.0, 350.0, 2.0))
        (True, False)
    """
    if len(longitude) < 3:
        return False
    cell = float(np.median(np.diff(longitude)))
    return bool(abs(longitude[-1] - longitude[0] + cell - 360) < 0.05 * cell)


def rectilinear_axes(latitude: np.ndarray, longitude: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
    """Return the 1-D axes of 2-D coordinates whose rows and columns are constant, None for a curvilinear grid.

    Args:
        latitude: degrees, NaN where it is missing, as on land, shape (Y, X).
        longitude: likewise.

    Example:
        >>> y, x = np.meshgrid([10.0, 11.0], [20.0, 21.0, 22.0], indexing="ij")
        >>> rectilinear_axes(y, x)
        (array([10., 11.]), array([20., 21., 22.]))
    """
    known = _known(latitude, longitude)
    if not (known.any(0).all() and known.any(1).all()):
        return None
    row, column = known.argmax(1), known.argmax(0)
    rows, columns = latitude[np.arange(len(latitude)), row], longitude[column, np.arange(longitude.shape[1])]
    away = disagreement(rows, columns, latitude, longitude)
    cells = [float(np.min(np.abs(np.diff(axis)), initial=360.0)) for axis in (rows, columns)]
    return (rows, columns) if away <= CONSTANT * min(cells) else None


def disagreement(rows: np.ndarray, columns: np.ndarray, latitude: np.ndarray, longitude: np.ndarray) -> float:
    """Return how far 1-D axes lie from 2-D coordinates, degrees: the largest difference where those are known.

    Args:
        rows: latitudes, shape (Y,).
        columns: longitudes in any convention, shape (X,).
        latitude: shape (Y, X), NaN where it is missing.
        longitude: likewise.
    """
    known = _known(latitude, longitude)
    north, east = (latitude - rows[:, None])[known], ((longitude - columns + 180) % 360 - 180)[known]
    return float(np.abs([north, east]).max(initial=0.0))


def _known(latitude: np.ndarray, longitude: np.ndarray) -> np.ndarray:
    """Return where 2-D coordinates are given: models write zeros for parts of a grid that they leave out."""
    known: np.ndarray = np.isfinite(latitude) & np.isfinite(longitude) & ((latitude != 0) | (longitude != 0))
    return known
