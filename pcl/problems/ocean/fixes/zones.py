"""Time zones that heads of columns, lines of units and columns of their own say."""

__all__ = ["has_zones", "refuse_two_clocks", "said_zone", "the_zone", "without_zone", "zone_of", "zones_of_rows"]

import re
import zoneinfo
from collections.abc import Mapping
from datetime import timedelta, timezone, tzinfo
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pcl.errors import BadInputError, printable
from pcl.problems.ocean.fixes.names import BRACKETS, plain, words
from pcl.problems.ocean.reading.time import MOST_HOURS, OFFSET

if TYPE_CHECKING:
    import pandas as pd

FROM_UTC = re.compile(r"(?:UTC|GMT)\s*[+-]\s*\d{1,2}(?::?\d\d)?(?!\d)", re.IGNORECASE)
IANA = re.compile(
    r"(?:Africa|America|Antarctica|Arctic|Asia|Atlantic|Australia|Etc|Europe|Indian|Pacific)/[A-Za-z0-9/_+-]+",
    re.IGNORECASE,
)
UTC = {"utc", "gmt", "z", "zulu"}
LOCAL = {"local", "lokal", "lt", "lst", "ortszeit", "lokalzeit"}
SHORT = (  # CST may be of America or of China
    "cet cest mez mesz wet west eet eest bst msk edt est cdt cst mdt mst pdt pst akdt akst hst adt nst ndt jst kst "
    "sgt hkt pht aedt aest acdt acst awst nzdt nzst sast brt brst clt clst trt gst pkt"
)
NAMED = re.compile(r"(?!UTC|GMT)[A-Z]{2,4}T")  # what looks like such a name, where nothing but a zone is said
COLUMNS = ("tz", "timezone", "utcoffset", "gmtoffset", "tzoffset", "timezoneoffset", "offsetutc", "zeitzone", "tzname")
EPOCHS = ("epoch", "epochs", "epochtime", "unixtime", "unixtimestamp")
QUARTER_S = 900.0  # of which all offsets from UTC are multiples


def said_zone(name: str, unit: str = "") -> str:
    """Return the zone that the name of a column of times says, or its line of units; empty: none.

    Args:
        name: of the column.
        unit: what stands below it in a line of units.

    Example:
        >>> said_zone("time (UTC + 2)"), said_zone("time_CET"), said_zone("Time", "Europe/Berlin"), said_zone("time")
        ('UTC + 2', 'CET', 'Europe/Berlin', '')
    """
    for said in (unit.strip(" []()"), *(one.strip() for one in BRACKETS.findall(name))):
        if OFFSET.fullmatch(said) or IANA.fullmatch(said):
            return str(said)
        if offset := FROM_UTC.search(said):
            return str(offset[0])
        if NAMED.fullmatch(said) or _parts(said) & {*SHORT.split(), *LOCAL}:
            return str(said)
        if _parts(said) & UTC:
            return "UTC"
    outside = BRACKETS.sub("", name).replace("_", " ").strip()
    if found := IANA.search(BRACKETS.sub("", name)) or FROM_UTC.search(outside):
        return str(found[0])
    if known := words(name) & {*SHORT.split(), *LOCAL}:
        return "local time" if known & LOCAL else min(known).upper()
    return "UTC" if plain(name).endswith(("utc", "gmt")) or words(name) & UTC else ""


def without_zone(name: str) -> str:
    """Return the name of a column without a zone at its end.

    Example:
        >>> without_zone("time_gmt+2"), without_zone("date_CET"), without_zone("time_utc")
        ('time', 'date', 'time_utc')
    """
    at_the_end = rf"[\s_.-]+(?:{FROM_UTC.pattern}h?|{IANA.pattern}|{'|'.join([*SHORT.split(), *sorted(LOCAL)])})$"
    return re.sub(at_the_end, "", name.strip(), flags=re.IGNORECASE)


def the_zone(said: str, given: str, where: str) -> str:
    """Return the time zone of times: what is said of them, else the one that is given.

    Args:
        said: by their column.
        given: by the user; UTC if nothing is.
        where: file and column, for messages.

    Raises:
        BadInputError: a name is said that several zones have, and none is given.

    Example:
        >>> the_zone("UTC", "Europe/Berlin", "a.csv"), the_zone("CEST", "Europe/Berlin", "a.csv")
        ('UTC', 'Europe/Berlin')
    """
    said = _tidy(said)
    if not said or said == "UTC":
        return said or given
    if OFFSET.fullmatch(said) or IANA.fullmatch(said):
        try:
            zone_of(said)
            return said
        except (ValueError, zoneinfo.ZoneInfoNotFoundError):
            pass
    if given != "UTC":
        return given
    raise BadInputError(
        printable(f"{where} has times in {said[:20]!r}: say which that is, such as tracks.time_zone=Europe/Berlin")
    )


def zone_of(name: str) -> tzinfo:
    """Return a zone by its name or its offset.

    Raises:
        ValueError: the offset is none.
        zoneinfo.ZoneInfoNotFoundError: nobody knows the name.

    Example:
        >>> zone_of("UTC+2h").utcoffset(None)
        datetime.timedelta(seconds=7200)
    """
    if (offset := OFFSET.fullmatch(_tidy(name))) is None:
        return zoneinfo.ZoneInfo(name)
    size = timedelta(hours=int(offset[2]), minutes=int(offset[3] or 0))
    if size > timedelta(hours=MOST_HOURS):
        raise ValueError(name)
    return timezone(-size if offset[1] == "-" else size)


def has_zones(table: "pd.DataFrame", columns: Mapping[str, str]) -> bool:
    """Return whether a table has a column of zones.

    Example:
        >>> import pandas as pd
        >>> has_zones(pd.DataFrame({"time": [], "tz": []}), {"time": "time"})
        True
    """
    return any(plain(str(name)) in COLUMNS and str(name) not in columns.values() for name in table.columns)


def zones_of_rows(table: "pd.DataFrame", columns: Mapping[str, str], given: str, where: str) -> "pd.Series[Any] | str":
    """Return the zone of each row, of a table with a column of them; else the one that is given.

    Args:
        table: with times in one column.
        columns: roles that have columns: such a column is none of zones.
        given: by the user.
        where: the file, for messages.

    Raises:
        BadInputError: the column holds what is neither a zone nor an offset, and none is given.

    Example:
        >>> import pandas as pd
        >>> zones_of_rows(pd.DataFrame({"time": ["2023-04-20 10:00"], "utc_offset": [2]}), {}, "UTC", "a.csv").tolist()
        ['+02:00']
    """
    names = [str(name) for name in table.columns if plain(str(name)) in COLUMNS and str(name) not in columns.values()]
    if not names:
        return given
    texts = table[names[0]].astype("string").str.strip().replace("", None)
    known = {text: _normal(text) for text in texts.dropna().unique()}
    if not known:
        return given
    if unknown := [text for text, zone in known.items() if not zone]:
        return the_zone(unknown[0], given, f"{where}: {names[0]}")
    found = texts.map(known)
    return found.fillna(given)


def refuse_two_clocks(table: "pd.DataFrame", name: str, time_s: np.ndarray, path: Path) -> None:
    """Refuse times that a column of seconds since 1970 shows to be of another zone.

    Args:
        table: with times in one column.
        name: of this column.
        time_s: its times, seconds since 1970-01-01 UTC, shape (n,).
        path: of the file, for messages.

    Raises:
        BadInputError: most differ from the other column by whole quarters of an hour.
    """
    import pandas as pd

    for other in (str(one) for one in table.columns if plain(str(one)) in EPOCHS and str(one) != name):
        epoch = pd.to_numeric(table[other], errors="coerce").to_numpy(np.float64, na_value=np.nan)
        ahead = float(np.nanmedian(time_s - epoch)) if np.isfinite(time_s - epoch).any() else 0.0
        quarters = round(ahead / QUARTER_S)
        if quarters and abs(ahead) <= MOST_HOURS * 3600 and abs(ahead - quarters * QUARTER_S) < 2:
            raise BadInputError(
                printable(
                    f"{path}: {name} is {quarters / 4:g} h ahead of {other}, as a clock of another zone is: say which "
                    f"counts, such as tracks.time={other}"
                )
            )


def _normal(text: str) -> str:
    """Return a zone or an offset, as it is understood; empty: it is none."""
    if _parts(text) <= UTC and text.isalpha():
        return "UTC"
    if re.fullmatch(r"[+-]?\d{1,2}(?:\.\d+)?", text) and abs(float(text)) <= MOST_HOURS:
        minutes = round(float(text) * 60)
        return f"{'-' if minutes < 0 else '+'}{abs(minutes) // 60:02}:{abs(minutes) % 60:02}"
    try:
        zone_of(text)
    except (ValueError, OSError, zoneinfo.ZoneInfoNotFoundError):
        return ""
    return text if OFFSET.fullmatch(_tidy(text)) or IANA.fullmatch(text) else ""


def _tidy(said: str) -> str:
    return said.strip().replace("\N{MINUS SIGN}", "-")


def _parts(said: str) -> set[str]:
    return {*re.findall(r"[a-z]+", said.lower())}
