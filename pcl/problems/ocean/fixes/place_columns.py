"""Degrees of a column, with what other columns and its own name say: minutes, seconds, letters, west or south."""

__all__ = ["in_degrees", "turned"]

import re
from collections.abc import Collection
from typing import TYPE_CHECKING, Any

import numpy as np

from pcl.errors import BadInputError, printable
from pcl.problems.ocean.fixes.degrees import DIRECTIONS, signed, to_degrees, to_unit
from pcl.problems.ocean.fixes.names import BRACKETS, part_of, plain, words

if TYPE_CHECKING:
    import pandas as pd

POINTS = {"latitude": {"N", "S"}, "longitude": {"E", "W", "O"}}
OF_LETTERS = re.compile(  # plain names of columns of letters
    r"(?:gps)?(?P<role>lat|latitude|latitud|lon|long|lng|longitude|longitud)?"
    r"(?P<both>ns|ew|we|sn|northsouth|eastwest|nsind|ewind|hem|hemi|hemisphere)?"
    r"(?:dir|direction|ref|ind|indicator|letter)?"
)
BLANK = ("", "-", "--", "?", "NA", "N/A", "NAN", "NONE", "NULL")
BESIDE = 2  # columns after its number in which a letter stands
MOST = 0.5  # of the values of a column of letters are some
WAYS = {"latitude": {"south": "S", "north": "N"}, "longitude": {"west": "W", "east": "E"}}
SIGN = {"negative", "neg", "positive", "pos", "plus", "minus"}  # which way has which sign
AFTER = re.compile(  # what follows a place and degrees in a plain name; an s of degrees is none of it
    r"(?:gps)?(?>latitude|latitud|lat|longitude|longitud|long|lng|lon|)(?>degrees|degree|degs|deg|)([a-z]+)"
)
MANY = re.compile(r"(?:lat|latitude|lon|longitude)s$")
# of heads that say in which language O is a letter
OST = {"breite", "breitengrad", "laenge", "länge", "laengengrad", "längengrad", "lnge", "zeit", "uhrzeit", "boje"}
OESTE = {"latitud", "longitud", "fecha", "hora", "boya", "heure", "bouée", "bouee", "ora"}


def in_degrees(
    table: "pd.DataFrame", name: str, role: str, where: str = "the table", unit: str = "", taken: Collection[str] = ()
) -> np.ndarray:
    """Return degrees north or east of a column, with the minutes and the letters that columns of their own hold.

    Args:
        table: of fixes.
        name: of the column of degrees.
        role: ``latitude`` or ``longitude``.
        where: the file, for messages.
        unit: of the column; empty: what its name says in brackets.
        taken: names of columns that are something else.

    Raises:
        BadInputError: what columns say contradicts itself, or can be read in two ways.

    Example:
        >>> import pandas as pd
        >>> table = pd.DataFrame({"lat_deg": [33], "lat_min": [30.0], "N/S": ["S"]})
        >>> in_degrees(table, "lat_deg", "latitude").tolist()
        [-33.5]
    """
    said = f"{where}: the column {name}"
    found = _with_parts(table, name, role, where, to_degrees(table[name], role, said, _east(table)))
    letters = _letters(table, name, role, taken)
    if letters is not None:
        letter = signed(letters, role, f"{where}: the column {letters.name}", _east(table)).to_numpy(object)
        found = np.where(np.isin(letter, ["S", "W"]), -np.abs(found), found)
        is_lacking = letters.isna() if letters.notna().mean() > MOST else letters.isna() & False
        return np.where(is_lacking.to_numpy() & (found > 0), np.nan, found)  # which way is not known
    in_name = BRACKETS.search(name)
    return turned(found, name, role, unit or (in_name[1] if in_name else ""), said)


def turned(found: np.ndarray, name: str, role: str, unit: str, where: str) -> np.ndarray:
    """Return degrees north or east of numbers that their unit or their name counts west or south, or in radians.

    Args:
        found: degrees.
        name: of the column or variable, such as ``lon_W``.
        role: ``latitude`` or ``longitude``.
        unit: of it, empty where there is none.
        where: file and column, for messages.

    Raises:
        BadInputError: the name says one way, and the unit the other.

    Example:
        >>> turned(np.array([10.5]), "lon_W", "longitude", "", "a.csv")
        array([-10.5])
    """
    if {"rad", "radian", "radians"} & words(name):
        return to_unit(found, "rad")
    if (found < 0).any():  # numbers with a sign say themselves which way they are counted
        return to_unit(found, unit) if "rad" in unit.lower() else found
    by_unit = to_unit(found, unit)
    unit_said = _way(unit.strip().strip("[]()"), role)
    if not (by_name := _way(name, role)) or by_name == unit_said:
        return by_unit
    if unit_said:
        raise BadInputError(
            printable(f"{where} counts {by_name} by its name and {unit_said} by its units, {unit[:30]!r}: repair one")
        )
    return -by_unit if by_name in ("west", "south") else by_unit


def _way(said: str, role: str) -> str:
    """Return the way that a name or a unit says, empty if none or both: west of ``lon_W``, ``lonW``, ``degrees_W``."""
    glued = AFTER.fullmatch(plain(said))
    some = words(said) | ({glued[1]} if glued and not MANY.search(plain(said)) else set())
    pointed = {DIRECTIONS.get(one.upper()) for one in some}
    found = [way for way, letter in WAYS[role].items() if letter in pointed]
    return found[0] if len(found) == 1 and not SIGN & some else ""


def _with_parts(table: "pd.DataFrame", name: str, role: str, where: str, degrees: np.ndarray) -> np.ndarray:
    """Return degrees with the minutes and seconds of columns of their own, if the degrees are whole."""
    known = degrees[np.isfinite(degrees)]
    parts = {part_of(str(other)): str(other) for other in reversed(table.columns) if str(other) != name}
    kind = part_of(name)
    family = kind[2] if kind else ""
    is_apart = not (kind and kind[1] == "degrees") and (role, "degrees", "long") in parts
    if is_apart or not (known % 1 == 0).all():
        return degrees
    minutes = _part(table, parts, role, "minutes", family, where)
    if minutes is None:
        return degrees
    seconds = _part(table, parts, role, "seconds", family, where)
    size = np.abs(minutes) / 60 + (0 if seconds is None else np.abs(seconds) / 3600)
    is_back = np.signbit(degrees) | ((degrees == 0) & np.signbit(minutes))
    whole: np.ndarray = np.where(is_back, -1, 1) * (np.abs(degrees) + size)
    return whole


def _part(
    table: "pd.DataFrame", parts: dict[Any, str], role: str, part: str, family: str, where: str
) -> np.ndarray | None:
    """Return the minutes or seconds of a place, None if there are none."""
    kinds = [(role, part, how) for how in ("long", family or "double")]
    name = next((parts[kind] for kind in kinds if kind in parts), None)
    if name is None:
        return None
    found = to_degrees(table[name])
    if not np.isfinite(found).any():
        return None
    if (np.abs(found) >= 60).any():
        raise BadInputError(
            printable(
                f"{where}: the column {name} holds {np.nanmax(np.abs(found)):g} beside whole degrees, and {part} are "
                "below 60: write decimal degrees, or give the column another name"
            )
        )
    return found


def _letters(table: "pd.DataFrame", name: str, role: str, taken: Collection[str]) -> "pd.Series[Any] | None":
    """Return the letters of a column of their own: by its name, or it stands beside its number, or has a pair."""
    columns = [str(other) for other in table.columns]
    place = columns.index(name)
    named: list[pd.Series[Any]] = []
    beside: list[pd.Series[Any]] = []
    others: list[pd.Series[Any]] = []
    for i, other in enumerate(columns):
        if other == name or other in taken or (found := _as_letters(table[other], other)) is None:
            continue
        kind = OF_LETTERS.fullmatch(plain(other))
        of = kind["role"] if kind else None
        if of and of[:3] in (role[:3], "lng" if role == "longitude" else ""):
            named.insert(0, found)  # even if its letters are of the other role, which is told
        elif of or not {*found.dropna()} <= POINTS[role]:
            continue
        elif kind and kind["both"]:
            named.append(found)
        else:
            (beside if 0 < i - place <= BESIDE else others).append(found)
    if not named and not beside and len(others) == 1 and len(_pairs(table, role, taken)) == 1:
        return others[0]
    return next(iter([*named, *beside]), None)


def _pairs(table: "pd.DataFrame", role: str, taken: Collection[str]) -> list[str]:
    """Return the columns of letters of the other role."""
    points = POINTS["longitude" if role == "latitude" else "latitude"]
    found = {str(name): _as_letters(table[name], str(name)) for name in table.columns if str(name) not in taken}
    return [name for name, letters in found.items() if letters is not None and {*letters.dropna()} <= points]


def _as_letters(column: "pd.Series[Any]", name: str) -> "pd.Series[Any] | None":
    """Return a column as letters of directions, missing where it has none; None if it is no such column."""
    import pandas as pd

    if pd.api.types.is_numeric_dtype(column) or pd.api.types.is_datetime64_any_dtype(column):
        return None
    texts = column.astype("string").str.strip().str.upper()
    some = texts[~texts.isin(BLANK) & texts.notna()]
    if not len(some) or (some.iloc[0] not in DIRECTIONS and len({*some.head(50)} & DIRECTIONS.keys()) == 0):
        return None
    letters = texts.map(DIRECTIONS)
    share = letters.notna().sum() / len(some)
    is_named = OF_LETTERS.fullmatch(plain(name)) is not None and plain(name) != ""
    return letters.rename(name) if share == 1 or (is_named and share > MOST) else None


def _east(table: "pd.DataFrame") -> str:
    """Return what the letter O is in the language of the names of columns: E, W, or empty if they do not tell."""
    said = {word for name in table.columns for word in re.findall(r"[^\W\d_]+", str(name).lower())}
    return {(True, False): "E", (False, True): "W"}.get((bool(said & OST), bool(said & OESTE)), "")
