"""One column of times of a table that has several: date and time of day, or year, month, day and so on."""

__all__ = ["WHOLE", "with_one_time"]

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from pcl.errors import BadInputError, printable
from pcl.problems.ocean.fixes.names import ROLES, plain
from pcl.problems.ocean.fixes.time_parts import as_clocks, clocks_of, days_of, is_whole, joined, whole_days
from pcl.problems.ocean.fixes.zones import said_zone, without_zone

if TYPE_CHECKING:
    import pandas as pd

WHOLE = "datetime"  # the name of the column that is made
DATES = (  # those of UTC before others
    *("dateutc", "utcdate", "dategmt", "date", "datadate", "gpsdate", "datum", "fecha", "dato", "yyyymmdd"),
    *("locdate", "datelocal", "localdate"),
)
CLOCKS = (
    *("timeutc", "utctime", "timegmt", "time", "utc", "gmt", "timeofday", "hhmmss", "hhmm", "clock", "loctime"),
    *("datatime", "gpstime", "uhrzeit", "zeit", "heure", "hora", "timelocal", "localtime"),
)
DIGITS = ("hhmm", "hhmmss")  # times of day, whatever numbers they hold
NOON = ("ampm", "meridiem")
CLOCK = r"\d{1,2}:\d{2}(?::\d{2}(?:\.\d*)?)?\s*(?:[zZ]|UTC|[+-]\d\d:?\d\d|[aApP]\.?[mM]\.?)?"
HOUR_MINUTE = r"^(\d{1,2}:\d\d)"
BOTH = "mm"  # month or minute
DAYS_OF_YEAR = ("dayofyear", "yearday", "doy", "yday", "jday", "julianday", "ddd")
PARTS = {
    "year": ("year", "yyyy", "yr"),
    "month": ("month", "mon", "mo", BOTH),
    "day": ("day", "dd", "dayofmonth"),
    "hour": ("hour", "hours", "hh", "hr"),
    "minute": ("minute", "minutes", "min", "mi", "mn"),
    "second": ("second", "seconds", "sec", "ss"),
}


def with_one_time(
    table: "pd.DataFrame", columns: Mapping[str, str], units: Mapping[str, str] | None = None, where: str = "the table"
) -> "pd.DataFrame":
    """Return a table whose times are in one column, ``datetime``, where they were in several.

    A column of whole times wins over parts of them; what its columns say of a zone, the name of the column says.

    Args:
        table: as read.
        columns: names by role: a column that is named for the time is left alone, unless it is a time of day.
        units: by column, of a table with a line of them.
        where: the file, for messages.

    Raises:
        BadInputError: parts of a time are none, or could be put together in two ways.

    Example:
        >>> import pandas as pd
        >>> table = pd.DataFrame({"date": ["2023-04-20"], "time (UTC+2)": ["10:04"], "lat": [54.5]})
        >>> with_one_time(table, {})
           lat datetime (UTC+2)
        0 54.5 2023-04-20 10:04
    """
    names = [str(name) for name in reversed(table.columns)]
    named = {plain(without_zone(name)): name for name in names} | {plain(name): name for name in names}
    chosen = columns.get("time")
    if chosen and (chosen not in table or not (_holds_clocks(table[chosen]) or plain(chosen) in DIGITS)):
        return table
    date = _first({key: name for key, name in named.items() if name != chosen}, DATES)
    parts = _parts(table, named)
    clock, clocks = _clock(table, chosen or _first(named, CLOCKS), parts, where)
    if clock and clocks is None:
        if chosen or not is_whole(table[clock]):
            return table
        clock = None
    others = [named[name] for name in (WHOLE, *DATES, *CLOCKS) if name in named]
    whole = [named[name] for name in ROLES["time"] if name in named and is_whole(table[named[name]])]
    if whole and not (date and clock and plain(clock) not in PARTS["hour"]):
        return table if chosen else table.drop(columns=[name for name in others if name not in whole])
    of_day: dict[str, str] = {part: parts[part] for part in ("hour", "minute", "second") if part in parts}
    if clocks is None and date and "hour" in parts:
        clocks, used = as_clocks(days_of(table, of_day, where) * 86_400), [*of_day.values()]
    else:
        used = [clock] if clock else []
    if date and clocks is not None:
        times, used = _dates(table[date], clocks, where) + " " + _with_noon(clocks, table, named), [date, *used]
    elif date is None and {"year", "day"} <= parts.keys():
        of_date = {part: name for part, name in parts.items() if clocks is None or part not in of_day}
        times, used = joined(table, of_date, where), [*parts.values(), *used]
        if clocks is not None:
            times = times.dt.strftime("%Y-%m-%d").astype("string") + " " + _with_noon(clocks, table, named)
    else:
        if date and date == _first(named, ROLES["time"]):
            _refuse_days(table, date, where)
        return table
    zone = _zone(used, units or {}, where)
    name = chosen or (f"{WHOLE} ({zone})" if zone else WHOLE)
    return table.drop(columns=list(dict.fromkeys([*others, *used]))).assign(**{name: times})


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


def _clock(
    table: "pd.DataFrame", name: str | None, parts: dict[str, str], where: str
) -> "tuple[str | None, pd.Series[str] | None]":
    """Return the column of times of day, and these, if it holds any; hours beyond a day are taken out of the parts."""
    import pandas as pd

    if name is not None:
        return name, clocks_of(table[name], CLOCK, f"{where}: {name}")
    if "hour" in parts and "minute" not in parts:
        hour = parts["hour"]
        if pd.to_numeric(table[hour], errors="coerce").max() > 99:  # 1004
            clocks = clocks_of(table[hour], CLOCK, f"{where}: {hour}")
            return (None, None) if clocks is None else (parts.pop("hour"), clocks)
    return None, None


def _holds_clocks(column: "pd.Series[Any]") -> bool:
    """Return whether most values of a column are times of day."""
    texts = column.dropna().head(100).astype("string").str.strip()
    return len(texts) > 0 and bool(texts.str.fullmatch(CLOCK).mean() > 0.5)


def _dates(column: "pd.Series[Any]", clocks: "pd.Series[str]", where: str) -> "pd.Series[str]":
    """Return days as texts, of dates that may have a time of day of their own: midnight, or that of the clock."""
    days, own = whole_days(column)
    known = own.notna() & clocks.notna()
    is_the_same = own[known] == clocks[known].str.extract(HOUR_MINUTE)[0].str.zfill(5)
    if not is_the_same.all() and not own.dropna().eq("00:00").all():
        raise BadInputError(
            printable(
                f"{where}: {column.name} has times of day, {str(column.iloc[0])[:40]!r}, and they are not those of "
                f"the column beside it: say which counts, such as tracks.time={column.name}"
            )
        )
    return days


def _with_noon(clocks: "pd.Series[str]", table: "pd.DataFrame", named: Mapping[str, str]) -> "pd.Series[str]":
    """Return times of day with what a column says of noon: AM or PM."""
    if (name := _first(named, NOON)) is None or clocks.str.contains(r"[aApP]\.?[mM]", regex=True, na=False).any():
        return clocks
    halves = table[name].astype("string").str.strip().str.upper().str.replace(".", "", regex=False)
    is_of_12 = not clocks.str.contains(r"^(?:00?|1[3-9]|2\d):", regex=True, na=False).any()
    return clocks + " " + halves if is_of_12 and halves.dropna().isin(["AM", "PM"]).all() else clocks


def _zone(names: Sequence[str], units: Mapping[str, str], where: str) -> str:
    """Return the zone that the columns of a time say.

    Raises:
        BadInputError: one of them says another than the other.
    """
    said = {name: zone for name in names if (zone := said_zone(name, units.get(name, "")))}
    if len({*said.values()}) > 1:
        what = " and ".join(f"{name} in {zone}" for name, zone in said.items())
        raise BadInputError(
            printable(f"{where} has {what}: write both in one zone, in one column, and name it with tracks.time=NAME")
        )
    return next(iter(said.values()), "")


def _refuse_days(table: "pd.DataFrame", date: str, where: str) -> None:
    """Refuse days without a time of day where a column has one, by a name that nobody knows."""
    clocks = [str(name) for name in table.columns if str(name) != date and _holds_clocks(table[name])]
    if clocks:
        raise BadInputError(
            printable(
                f"{where} has days in {date}, and times of day in {', '.join(clocks[:5])}: name the column of the time "
                f"of day, such as tracks.time={clocks[0]}, or tracks.time={date} if there is none"
            )
        )
