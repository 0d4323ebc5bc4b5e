"""Latitudes and longitudes as people write them, in decimal degrees."""

__all__ = ["DIRECTIONS", "signed", "to_degrees", "to_unit"]

import re
from typing import TYPE_CHECKING, Any

import numpy as np

from pcl.errors import BadInputError, printable
from pcl.problems.ocean.fixes.names import plain, words

if TYPE_CHECKING:
    import pandas as pd

PARTS = re.compile(
    r"(?P<sign>[-+]?)(?P<degrees>\d+(?:\.\d+)?)(?:[^\d.]+(?P<minutes>\d+(?:\.\d+)?))?"
    r"(?:[^\d.]+(?P<seconds>\d+(?:\.\d+)?))?(?P<end>[^\d.]*)"
)
NAMED = {
    "N": "N NORTH NORD NORTE NOORD",
    "S": "S SOUTH SÜD SUED SUD SUR SUL ZUID",
    "E": "E EAST EST ESTE OST LESTE OOST",
    "W": "W WEST OUEST OESTE OVEST",
    "O": "O",  # east in German, west in Spanish, French, Italian and Portuguese
}
DIRECTIONS = {word: letter for letter, names in NAMED.items() for word in names.split()}
"""Where a letter or a word points, in capitals."""
POINTS = {"latitude": "NS", "longitude": "EWO"}
OTHER = {"latitude": "longitude", "longitude": "latitude"}
BACK, OF_DEGREES = {"w", "west", "s", "south"}, {"deg", "degs", "degree", "degrees"}
WORD = r"([^\W\d_]+)"
DASHES = str.maketrans(dict.fromkeys("\u2212\u2013\u2012", "-"))  # a minus, and what stands for one
MOST = {"latitude": 90, "longitude": 720}
GLUED = {  # degrees and minutes without anything between them, as receivers write them
    "latitude": r"\d{4}(?:\.\d*)?",
    "longitude": r"\d{5}(?:\.\d*)?",
}


def to_degrees(values: Any, role: str = "", where: str = "", east: str = "") -> np.ndarray:
    """Return degrees north or east, NaN where there are none: of numbers, or texts with minutes, seconds and letters.

    Args:
        values: a column, in any type.
        role: ``latitude`` or ``longitude``; empty: either.
        where: file and column, for messages.
        east: the letter that O is, E or W; empty: what the other letters leave.

    Raises:
        BadInputError: letters say that they are not of this role, or O may be east or west.

    Example:
        >>> to_degrees(["54.5", "33° 30' S", "10 30 36 W", "nan", ""]).round(4).tolist()
        [54.5, -33.5, -10.51, nan, nan]
    """
    import pandas as pd

    series = pd.Series(values)
    found: np.ndarray = pd.to_numeric(series, errors="coerce").to_numpy(np.float64, na_value=np.nan).copy()
    if pd.api.types.is_numeric_dtype(series):
        return found
    texts = series.astype("string").str.strip().str.upper().str.translate(DASHES).str.replace(",", ".")
    # a minus before zero counts, of which an integer knows nothing
    found = np.where(texts.str.startswith("-").fillna(False).to_numpy(bool), -np.abs(found), found)
    unread = np.flatnonzero(np.isnan(found) & texts.notna().to_numpy())
    letters = signed(texts.iloc[unread].str.extract(WORD, expand=False).map(DIRECTIONS), role, where, east)
    found[unread] = [_degrees(*one) for one in zip(texts.iloc[unread], letters, strict=True)]
    return _parted(texts, found, role, where)


def signed(letters: "pd.Series[Any]", role: str, where: str, east: str = "") -> "pd.Series[Any]":
    """Return letters N, S, E and W, of which O is one.

    Args:
        letters: of ``DIRECTIONS``, missing where there is none.
        role: ``latitude`` or ``longitude``; empty: either.
        where: file and column, for messages.
        east: the letter that O is; empty: what the other letters leave.

    Raises:
        BadInputError: they are those of the other role, or O may be east or west.
    """
    some = {*letters.dropna()}
    if role and some & {*POINTS[OTHER[role]]}:
        raise BadInputError(
            printable(
                f"{where} has the letter {min(some & {*POINTS[OTHER[role]]})}, which no {role} has: name the columns "
                f"right, tracks.{role}=NAME and tracks.{OTHER[role]}=NAME"
            )
        )
    if "O" not in some:
        return letters
    left = {"E", "W"} - some
    if not east and len(left) != 1:
        raise BadInputError(
            printable(f"{where} has the letter O, which is east in German and west in Spanish or French: write E or W")
        )
    return letters.replace("O", east or min(left))


def to_unit(values: np.ndarray, unit: str) -> np.ndarray:
    """Return degrees north or east of numbers in a unit: radians, or degrees that may be counted west or south.

    Args:
        values: as stored.
        unit: as files and columns write it.

    Example:
        >>> to_unit(np.array([10.5]), "degrees_west"), to_unit(np.array([10.5]), "degrees")
        (array([-10.5]), array([10.5]))
    """
    bare = unit.strip().strip("[]()")
    said = plain(bare)
    if said in ("rad", "radian", "radians"):
        found: np.ndarray = np.rad2deg(values)
        return found
    is_glued = re.fullmatch(r"(?>degrees|degree|degs|deg|)(?:w|west|s|south)", said)  # the s of degrees is no south
    parted = words(bare)
    is_back = is_glued is not None or (bool(parted & BACK) and parted <= BACK | OF_DEGREES)
    return -values if is_back else values


def _degrees(text: str, letter: Any) -> float:
    """Return the degrees that a text in capitals says, NaN if it says none; a letter S or W counts as a minus."""
    said = re.findall(WORD, text)
    if len(said) > 1 or (said and said[0] not in DIRECTIONS):
        return np.nan
    found = PARTS.fullmatch(re.sub(WORD, " ", text).strip())
    if found is None:
        return np.nan
    minutes, seconds = (float(found[part] or 0) for part in ("minutes", "seconds"))
    ends = found["end"].strip() == "-"  # as some accounts have it: 54.5-
    if minutes >= 60 or seconds >= 60 or (ends and (found["sign"] or found["minutes"] or said)):
        return np.nan
    size = float(found["degrees"]) + minutes / 60 + seconds / 3600
    return -size if found["sign"] == "-" or ends or letter in ("S", "W") else size


def _parted(texts: "pd.Series[Any]", found: np.ndarray, role: str, where: str) -> np.ndarray:
    """Return degrees of texts such as 0030.50N, which are degrees and minutes if all are written so."""
    if role not in GLUED or not np.isfinite(found).any():
        return found
    digits = texts.str.extract(r"^[A-Z]*\s*[+-]?\s*(\d+(?:\.\d*)?)\s*[A-Z]*$", expand=False)
    known = np.isfinite(found)
    glued = digits.str.fullmatch(GLUED[role]).fillna(False).to_numpy(bool) & known
    begin = digits.str.startswith("0").fillna(False).to_numpy(bool)
    if not (glued & begin).any() and not (glued & (np.abs(found) > MOST[role]))[known].all():
        return found
    minutes = np.abs(found) % 100
    if not glued[known].all() or (minutes[known] >= 60).any():
        raise BadInputError(
            printable(
                f"{where} has {texts[glued].iloc[0]!r}, which may be degrees and minutes, and others that are not: "
                "write decimal degrees"
            )
        )
    return np.where(glued, np.copysign(np.abs(found) // 100 + minutes / 60, found), found)
