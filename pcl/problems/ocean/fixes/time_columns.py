"""One column of times of a table that has several: date and time of day, or year, month, day and so on."""

__all__ = ["WHOLE", "with_one_time"]

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from pcl.problems.ocean.fixes.names import plain

if TYPE_CHECKING:
    import pandas as pd

WHOLE = "datetime"  # the name of the column that is made
DATES = ("date", "dateutc", "dategmt", "datadate", "datum", "yyyymmdd", "locdate")
CLOCKS = ("time", "timeutc", "timegmt", "utc", "gmt", "timeofday", "hhmmss", "hhmm", "clock", "loctime", "datatime")
CLOCK = r"\d{1,2}:\d{2}(?::\d{2}(?:\.\d*)?)?\s*(?:[zZ]|UTC|[aApP][mM])?"
PARTS = {
    "year": ("year", "yyyy", "yr"),
    "month": ("month", "mon", "mo"),
    "day": ("day", "dd", "dayofmonth"),
    "hour": ("hour", "hours", "hh", "hr"),
    "minute": ("minute", "minutes", "min", "mi"),
    "second": ("second", "seconds", "sec", "ss"),
}


def with_one_time(table: "pd.DataFrame", columns: Mapping[str, str]) -> "pd.DataFrame":
    """Return a table whose times are in one column, ``datetime``, where they were in several.

    Args:
        table: as read.
        columns: names by role: a column that is named for the time is left alone.

    Example:
        >>> import pandas as pd
        >>> table = pd.DataFrame({"date": ["2023-04-20"], "time": ["10:04"], "lat": [54.5]})
        >>> with_one_time(table, {})
           lat          datetime
        0 54.5  2023-04-20 10:04
    """
    if columns.get("time"):
        return table
    named = {plain(str(name)): str(name) for name in reversed(table.columns)}
    date, clock = (next((named[name] for name in names if name in named), None) for names in (DATES, CLOCKS))
    if date and clock and (clocks := _clocks(table[clock])) is not None:
        times = table[date].astype("string").str.strip() + " " + clocks
        return table.drop(columns=[date, clock]).assign(**{WHOLE: times})
    found = {part: next((named[name] for name in names if name in named), None) for part, names in PARTS.items()}
    if clock is None and date is None and all(found[part] for part in ("year", "month", "day")):
        present = {part: name for part, name in found.items() if name}
        return table.drop(columns=[*present.values()]).assign(**{WHOLE: _joined(table, present)})
    return table


def _clocks(column: "pd.Series[Any]") -> "pd.Series[str] | None":
    """Return times of day as texts with colons: written so, as 100449 or 1004, or as hours; None: it has others."""
    import pandas as pd

    texts = column.astype("string").str.strip()
    if texts.head(100).str.fullmatch(CLOCK).mean() > 0.5:
        return texts
    numbers = pd.to_numeric(column, errors="coerce")
    if not numbers.between(0, 235_959).any() or numbers.lt(0).any() or numbers.gt(235_959).any():
        return None
    if numbers.max() < 24:
        seconds = (numbers * 3600).round()
    elif (numbers.dropna() % 1 != 0).any():
        return None
    else:
        whole = numbers * (100 if numbers.max() < 2400 else 1)
        hour, minute, second = whole // 10_000, whole // 100 % 100, whole % 100
        if hour.max() > 23 or minute.max() > 59 or second.max() > 59:
            return None
        seconds = hour * 3600 + minute * 60 + second
    found: pd.Series[str] = pd.to_datetime(seconds, unit="s").dt.strftime("%H:%M:%S").astype("string")
    return found


def _joined(table: "pd.DataFrame", parts: Mapping[str, str]) -> "pd.Series[pd.Timestamp]":
    """Return times of numbers; the last of them may have decimals, as the day of a 6-hourly file has."""
    import pandas as pd

    numbers = {part: pd.to_numeric(table[name], errors="coerce") for part, name in parts.items()}
    first = pd.DataFrame({"year": numbers.pop("year"), "month": numbers.pop("month"), "day": 1})
    days = numbers.pop("day") - 1
    units = {"hour": 24, "minute": 1440, "second": 86_400}
    for part, value in numbers.items():
        days = days + value / units[part]
    seconds = (days * 86_400).round(3)  # a millisecond hides the rounding of days
    return pd.to_datetime(first, errors="coerce") + pd.to_timedelta(seconds, unit="s")
