"""One column of times of a table that has several: date and time of day, or year, month, day and so on."""

__all__ = ["WHOLE", "with_one_time"]

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from pcl.problems.ocean.fixes.names import plain

if TYPE_CHECKING:
    import pandas as pd

WHOLE = "datetime"  # the name of the column that is made
DATES = ("dateutc", "dategmt", "date", "datadate", "datum", "yyyymmdd", "locdate")  # those of UTC before others
CLOCKS = ("timeutc", "timegmt", "time", "utc", "gmt", "timeofday", "hhmmss", "hhmm", "clock", "loctime", "datatime")
CLOCK = r"\d{1,2}:\d{2}(?::\d{2}(?:\.\d*)?)?\s*(?:[zZ]|UTC|[aApP][mM])?"
BOTH = "mm"  # month or minute
DAY_S = 86_400
DAYS_OF_YEAR = ("dayofyear", "yearday", "doy", "yday", "jday", "julianday", "ddd")
PARTS = {
    "year": ("year", "yyyy", "yr"),
    "month": ("month", "mon", "mo", BOTH),
    "day": ("day", "dd", "dayofmonth"),
    "hour": ("hour", "hours", "hh", "hr"),
    "minute": ("minute", "minutes", "min", "mi", "mn"),
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
    date, clock = (_first(named, names) for names in (DATES, CLOCKS))
    if date and clock and (clocks := _clocks(table[clock])) is not None:
        times = table[date].astype("string").str.strip() + " " + clocks
        others = [named[name] for name in (*DATES, *CLOCKS) if name in named]
        return table.drop(columns=others).assign(**{WHOLE: times})
    parts = _parts(table, named)
    if clock is None and date and "hour" in parts:
        of_day: dict[str, str] = {part: parts[part] for part in ("hour", "minute", "second") if part in parts}
        times = table[date].astype("string").str.strip() + " " + _as_clocks(_days(table, of_day) * DAY_S)
        return table.drop(columns=[date, *of_day.values()]).assign(**{WHOLE: times})
    if clock is None and date is None and {"year", "day"} <= parts.keys():
        return table.drop(columns=[*parts.values()]).assign(**{WHOLE: _joined(table, parts)})
    return table


def _first(named: Mapping[str, str], names: Sequence[str]) -> str | None:
    return next((named[name] for name in names if name in named), None)


def _parts(table: "pd.DataFrame", named: Mapping[str, str]) -> dict[str, str]:
    """Return which column has which part of a time: MM is the month, mm after it the minute; a day may be of a year."""
    parts = {part: name for part, names in PARTS.items() if (name := _first(named, names))}
    twice = [str(name) for name in table.columns if str(name).strip().lower().partition(".")[0] == BOTH]
    of_year = _first(named, DAYS_OF_YEAR)
    if "day" in parts and "month" in parts:
        twice = twice[1:]
    elif of_year:
        parts = {part: name for part, name in parts.items() if part != "month"} | {"day": of_year}
    else:  # of no use without the other
        parts = {part: name for part, name in parts.items() if part not in ("month", "day")}
    return {"minute": twice[0]} | parts if twice else parts


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
    return _as_clocks(seconds)


def _as_clocks(seconds: "pd.Series[float]") -> "pd.Series[str]":
    """Return seconds of a day as texts, 10:04:49."""
    import pandas as pd

    found: pd.Series[str] = pd.to_datetime(seconds.round(), unit="s").dt.strftime("%H:%M:%S").astype("string")
    return found


def _joined(table: "pd.DataFrame", parts: Mapping[str, str]) -> "pd.Series[pd.Timestamp]":
    """Return times of numbers; the last of them may have decimals, as the day of a 6-hourly file has."""
    import pandas as pd

    numbers = {part: pd.to_numeric(table[parts[part]], errors="coerce") for part in ("year", "month") if part in parts}
    first = pd.to_datetime(pd.DataFrame({"month": 1, **numbers, "day": 1}, index=table.index), errors="coerce")
    days = _days(table, parts) - 1  # of the month, or of the year
    seconds = (days * DAY_S).round(3)  # a millisecond hides the rounding of days
    return first + pd.to_timedelta(seconds, unit="s")


def _days(table: "pd.DataFrame", parts: Mapping[str, str]) -> "pd.Series[float]":
    """Return the days that the parts from days to seconds make."""
    import pandas as pd

    units = {"day": 1, "hour": 24, "minute": 1440, "second": DAY_S}
    given = [pd.to_numeric(table[parts[part]], errors="coerce") / unit for part, unit in units.items() if part in parts]
    days: pd.Series[float] = sum(given[1:], given[0])
    return days
