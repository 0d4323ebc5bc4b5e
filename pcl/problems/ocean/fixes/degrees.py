"""Latitudes and longitudes as people write them, in decimal degrees."""

__all__ = ["in_degrees", "to_degrees", "to_unit"]

import re
from typing import TYPE_CHECKING, Any

import numpy as np

from pcl.problems.ocean.fixes.names import WORDS, plain, words

if TYPE_CHECKING:
    import pandas as pd

PARTS = re.compile(
    r"(?P<sign>[-+]?)(?P<degrees>\d+(?:\.\d+)?)(?:[^\d.]+(?P<minutes>\d+(?:\.\d+)?))?"
    r"(?:[^\d.]+(?P<seconds>\d+(?:\.\d+)?))?[^\d.]*"
)
LETTERS = {"N": 1, "S": -1, "E": 1, "W": -1, "O": 1}  # O: east in German


MINUTES = {"min", "mins", "minute", "minutes"}
POINTS = {"latitude": {"N", "S"}, "longitude": {"E", "W"}}


def in_degrees(table: "pd.DataFrame", name: str, role: str) -> np.ndarray:
    """Return degrees north or east of a column, with the minutes and the letters that columns of their own hold.

    Args:
        table: of fixes.
        name: of the column of degrees.
        role: ``latitude`` or ``longitude``.

    Example:
        >>> import pandas as pd
        >>> table = pd.DataFrame({"lat_deg": [33], "lat_min": [30.0], "N/S": ["S"]})
        >>> in_degrees(table, "lat_deg", "latitude").tolist()
        [-33.5]
    """
    import pandas as pd

    found = to_degrees(table[name])
    for other in table.columns:
        said = words(str(other))
        if other != name and WORDS[role] & said and MINUTES & said and bool((found[np.isfinite(found)] % 1 == 0).all()):
            minutes = pd.to_numeric(table[other], errors="coerce").to_numpy(np.float64)
            found = found + np.copysign(minutes, found) / 60
    follows = [*table.columns[list(table.columns).index(name) + 1 :]][:2]  # the letter stands beside its number
    for other in follows:
        letters = table[other].astype("string").str.strip().str.upper()
        if letters.notna().any() and {*letters.dropna()} <= POINTS[role]:
            return np.where(letters.isin(["S", "W"]).to_numpy(bool, na_value=False), -np.abs(found), found)
    return found


def to_degrees(values: Any) -> np.ndarray:
    """Return degrees north or east, NaN where there are none: of numbers, or texts with minutes, seconds and letters.

    Args:
        values: a column, in any type.

    Example:
        >>> to_degrees(["54.5", "33° 30' S", "10 30 36 W", "nan", ""]).round(4).tolist()
        [54.5, -33.5, -10.51, nan, nan]
    """
    import pandas as pd

    series = pd.Series(values)
    found: np.ndarray = pd.to_numeric(series, errors="coerce").to_numpy(np.float64, na_value=np.nan).copy()
    if pd.api.types.is_numeric_dtype(series):
        return found
    unread = np.flatnonzero(np.isnan(found) & series.notna().to_numpy())
    texts = series.iloc[unread].astype(str)
    found[unread] = [_degrees(text) for text in texts]
    return found


def to_unit(values: np.ndarray, unit: str) -> np.ndarray:
    """Return degrees north or east of numbers in a unit: radians, or degrees that may be counted west or south.

    Args:
        values: as stored.
        unit: as files and columns write it.

    Example:
        >>> to_unit(np.array([10.5]), "degrees_west"), to_unit(np.array([np.pi]), "rad")
        (array([-10.5]), array([180.]))
    """
    said = plain(unit)
    if said in ("rad", "radian", "radians"):
        found: np.ndarray = np.rad2deg(values)
        return found
    is_back = re.fullmatch(r"(?:degrees?|deg)?(?:w|west|s|south)", said) is not None
    return -values if is_back else values


def _degrees(text: str) -> float:
    """Return the degrees that a text says, NaN if it says none."""
    text = text.strip().upper().replace(",", ".")
    letters = re.findall(r"[A-Z]+", text)
    if len(letters) > 1 or (letters and letters[0] not in LETTERS):
        return np.nan
    found = PARTS.fullmatch(re.sub(r"[A-Z]", " ", text).strip())
    if found is None:
        return np.nan
    minutes, seconds = (float(found[part] or 0) for part in ("minutes", "seconds"))
    size = float(found["degrees"]) + minutes / 60 + seconds / 3600
    sign = -1 if found["sign"] == "-" else 1
    return size * sign * (LETTERS[letters[0]] if letters else 1)
