"""Tables of text: any separator, decimal commas, comments before the head, or no head where the columns are known."""

__all__ = ["read_text_table"]

import csv
import gzip
import io
import itertools
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pcl.errors import BadInputError, DamagedDataError, printable
from pcl.problems.ocean.fixes.names import ROLES, WORDS, name_places, plain, words
from pcl.problems.ocean.fixes.time_columns import CLOCKS, DATES, PARTS

if TYPE_CHECKING:
    import pandas as pd

SEPARATORS = (",", ";", "\t", "|")
BLANKS = r"\s+"
NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)(e[-+]?\d+)?|nan", re.IGNORECASE)
GDP = (
    *("id", "month", "day", "year", "latitude", "longitude", "temperature"),
    *("ve", "vn", "speed", "var_lat", "var_lon", "var_temperature"),
)
MOST_COMMENTS = 1000
MOST_SHORT = 0.5  # of the rows lack a value at most: then which one is not known of these alone
SIGNS = re.compile(r"(?<![\d.])(?:-0+(?![\d.])|0\d{3,4}\.\d)")  # digits that numbers lose: -0, and 0030.5 of a receiver
OF_TIMES = {*DATES, *CLOCKS, *itertools.chain(*PARTS.values())}
COMMENT = "#%/ \t"


def read_text_table(path: Path, columns: Mapping[str, str] | None = None) -> "pd.DataFrame":
    """Read a table of text, compressed by gzip or not; names of drifters stay texts.

    Args:
        path: of the file.
        columns: names of columns by role, where they have no usual name.

    Raises:
        BadInputError: it has no line that names its columns, and is not a 6-hourly file of the Global Drifter Program,
            or its rows have more columns than are named.
        DamagedDataError: it is no table.
    """
    import pandas as pd

    content, columns = _content(path), columns or {}
    head, number = _head(content, path, columns)
    follows = next((line for line in _lines(content, number + 1) if line.strip()), "")
    separator = _separator(head, follows)
    row = _fields(head, separator)
    if is_headless := all(NUMBER.fullmatch(field) for field in row):
        number, follows = number - 1, head
    names = _known_columns(row, path) if is_headless else _each_once(row)
    decimal = "," if separator != "," and re.search(r"\d,\d", follows) and "." not in follows else "."
    _check_width(follows, separator, names, path)
    content = _content_of_whole_rows(content, number, names, path) if separator == BLANKS else content
    exact = bool(SIGNS.search(content))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", pd.errors.ParserWarning)  # of separators at the end of rows
            return pd.read_csv(
                io.StringIO(content),
                sep=separator,
                names=names,
                header=None,
                index_col=False,
                skiprows=number + 1,
                decimal=decimal,
                dtype={name: str for name in names if _is_text(name, columns, exact)},
                low_memory=False,
                skipinitialspace=True,
            )
    except (pd.errors.ParserError, pd.errors.EmptyDataError, ValueError) as error:
        raise DamagedDataError(printable(f"{path} is no table: {' '.join(str(error).split())[:120]}")) from error


def _is_text(name: str, columns: Mapping[str, str], exact: bool) -> bool:
    """Return whether a column is read as text: names of drifters, and places whose digits say more than a number."""
    is_place = name in (columns.get("latitude"), columns.get("longitude")) or bool(
        words(name) & (WORDS["latitude"] | WORDS["longitude"])
    )
    is_drifter = plain(name) in ROLES["drifter"] or bool(words(name) & WORDS["drifter"])
    is_place = is_place or plain(name) in (*ROLES["latitude"], *ROLES["longitude"])
    return (exact and is_place) or (is_drifter and not is_place) or name == columns.get("drifter")


def _content_of_whole_rows(content: str, head: int, names: Sequence[str], path: Path) -> str:
    """Return a text whose values are parted by blanks, with rows that lack one empty: which one is not known.

    Raises:
        BadInputError: most rows lack one.
    """
    places = [i for i, name in enumerate(names) if plain(name) in (*ROLES["latitude"], *ROLES["longitude"])]
    first = names[: max(places, default=-1) + 1]
    usual = {*itertools.chain(*ROLES.values()), *OF_TIMES}
    # what is missing can only stand behind the places if all before them is what every row has
    needed = len(first) if first and all(plain(name) in usual for name in first) else len(names)
    lines = content.split("\n")
    rows = [i for i in range(head + 1, len(lines)) if lines[i].strip()]
    short = [i for i in rows if len(_fields(lines[i], BLANKS)) < needed]
    if len(short) > MOST_SHORT * len(rows):
        raise BadInputError(
            printable(
                f"{path} parts columns by blanks, and most rows, such as {lines[short[0]].strip()[:60]!r}, have fewer "
                f"values than the {len(names)} of its head: write something, such as nan, where a value is missing"
            )
        )
    for i in short:
        lines[i] = " ".join(["nan"] * len(names))
    return "\n".join(lines)


def _content(path: Path) -> str:
    try:
        stored = path.read_bytes()
        stored = gzip.decompress(stored) if stored[:2] == b"\x1f\x8b" else stored
    except (OSError, EOFError) as error:
        raise DamagedDataError(f"{path} cannot be read: {error}") from error
    if stored[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return _with_one_end(stored.decode("utf-16", "replace"))
    if b"\0" in stored[:4096]:
        raise DamagedDataError(f"{path} is no table: it holds bytes that are no text")
    return _with_one_end(stored.decode("utf-8-sig", "replace"))


def _with_one_end(text: str) -> str:
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _lines(content: str, first: int = 0) -> Iterator[str]:
    for number, line in enumerate(io.StringIO(content)):
        if number >= first:
            yield line.strip("\r\n")


def _head(content: str, path: Path, columns: Mapping[str, str]) -> tuple[str, int]:
    """Return the line that names the columns, and its number: whatever stands before it, or else the first one."""
    lines = list(itertools.islice(_lines(content), MOST_COMMENTS))
    for is_comment in (False, True):  # a last comment does if only numbers follow
        for number, line in enumerate(lines):
            text = line.lstrip(COMMENT)
            follows = next((one for one in lines[number + 1 :] if one.strip()), "")
            if (text != line) == is_comment and name_places(_fields(text, _separator(text, follows)), columns):
                return text, number
    comment = ("", -1)
    for number, line in enumerate(lines):
        if line.startswith("#"):
            comment = (line.lstrip(COMMENT), number)
        elif line.strip():
            is_row = NUMBER.fullmatch(re.split(r"[,;|\s]", line.strip())[0].strip('"'))
            return comment if is_row and comment[0] else (line, number)
    if not content.strip():
        raise BadInputError(f"{path} is empty: give files of tracks")
    raise DamagedDataError(f"{path} is no table: it has no line of names")


def _separator(head: str, follows: str) -> str:
    """Return what parts the names, and the values of the line that follows."""
    counts = {one: min(head.count(one), follows.count(one)) if follows else head.count(one) for one in SEPARATORS}
    best = max(counts, key=lambda one: counts[one])
    return best if counts[best] else BLANKS


def _check_width(follows: str, separator: str, names: Sequence[str], path: Path) -> None:
    """Refuse rows with more values than there are names: which is which is not known."""
    values = _fields(follows, separator)
    while values and not values[-1]:
        values.pop()
    if len(values) > len(names):
        how = "blanks" if separator == BLANKS else f"{separator!r}"
        raise BadInputError(
            printable(
                f"{path} parts columns by {how}, and its rows have {len(values)}, more than the {len(names)} of its "
                f"head, {', '.join(names)[:60]}: name them all, and part by what no value holds"
            )
        )


def _fields(line: str, separator: str) -> list[str]:
    parts = line.split() if separator == BLANKS else next(csv.reader([line], delimiter=separator), [])
    return [part.strip().strip('"').strip() for part in parts]


def _each_once(names: list[str]) -> list[str]:
    return [name if name not in names[:i] else f"{name}.{i}" for i, name in enumerate(names)]


def _known_columns(row: list[str], path: Path) -> list[str]:
    """Return the columns of a file without a head, of the Global Drifter Program: the day has decimals."""
    if len(row) == len(GDP):
        month, day, year, latitude = (float(one) for one in row[1:5])
        is_dated = 1 <= month <= 12 and 1 <= day < 32 and 1900 <= year < 2100
        if is_dated and "." in row[2] and "." in row[4] and "." in row[5] and abs(latitude) <= 90:
            return [*GDP]
    raise BadInputError(f"{path} has no line that names its columns: write one, such as id,time,latitude,longitude")
