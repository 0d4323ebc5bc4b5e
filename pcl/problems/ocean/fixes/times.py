"""Times as people write them, in seconds since 1970-01-01 UTC."""

__all__ = ["have_zones", "to_seconds"]

import re
import zoneinfo
from datetime import timedelta, timezone, tzinfo
from typing import TYPE_CHECKING, Any

import numpy as np

from pcl.errors import BadInputError, printable
from pcl.problems.ocean.reading.time import read_times

if TYPE_CHECKING:
    import pandas as pd

NUMBERS = (  # the smallest and the largest number, and its unit in seconds: from 1980 to 2100
    (3.1e8, 4.2e9, 1.0),
    (3.1e11, 4.2e12, 1e-3),
    (3.1e14, 4.2e15, 1e-6),
    (3.1e17, 4.2e18, 1e-9),
)
NAMED = {"matlab": 719_529.0, "excel": 25_569.0, "julian": 2_440_587.5, "modified julian": 40_587.0}
"""The day that 1970-01-01 is, of days that are counted as these do."""
FORMATS = (  # of texts that are made plain
    "%d %b %Y %H:%M:%S",
    "%d %b %Y %H:%M",
    "%d %b %Y %I:%M:%S %p",
    "%d %b %y %H:%M:%S",
    "%d %b %y %H:%M",
    "%Y %b %d %H:%M:%S",
    "%b %d %H:%M:%S %Y",
    "%Y/%m/%d %H:%M:%S",
    "%Y/%m/%d %H:%M",
    "%Y.%m.%d %H:%M:%S",
    "%Y:%m:%d %H:%M:%S",
    "%Y-%j %H:%M:%S",
    "%Y-%jT%H:%M:%S",
    "%Y%m%dT%H%M%S",
    "%Y%m%d %H:%M:%S",
    "%Y%m%d %H:%M",
    "%Y%m%d%H%M%S",
)
CLOCKS = ("%H:%M:%S", "%H:%M", "%I:%M:%S %p", "%I:%M %p")
DAY_FIRST = tuple(f"{date} {clock}" for date in ("%d/%m/%Y", "%d.%m.%Y", "%d-%m-%Y", "%d/%m/%y") for clock in CLOCKS)
MONTH_FIRST = tuple(f"{date} {clock}" for date in ("%m/%d/%Y", "%m-%d-%Y", "%m/%d/%y") for clock in CLOCKS)
SOON = 2.1e9  # seconds since 1970: 2036
WRITTEN = ((1.9e7, 2.2e7), (1.9e13, 2.2e13))  # numbers that are dates: 20230420, 20230420100449
UTC = r"\s*(?:[\[(]?(?:UTC|GMT)[\])]?|(?:GMT|UTC)?[+-]00:?00|(?<=\d)\s*Z)$"
FRACTION = r"(?<=:\d\d)[.,](\d+)"  # of a second
PLAIN = (  # what is replaced, in turn
    (FRACTION, ""),
    (r"^(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun)[a-z]*,?\s+", ""),
    (r",\s*", " "),
    (r"([A-Za-z]{3})[a-z]*\.?", r"\1"),  # months in full
    (r"^([A-Za-z]{3})[-/. ](\d{1,2})[-/. ](\d{4})", r"\2 \1 \3"),
    (r"[-/. ]([A-Za-z]{3})[-/. ]", r" \1 "),
)
OFFSET = re.compile(r"(?:UTC|GMT)?([+-])(\d{1,2}):?(\d\d)?")
CLOCK = r"(?:\d:\d\d|T\d\d(?:\d\d){0,2})(?:[.,]\d+)?(?:\s*[AaPp][Mm])?"
OFF_UTC = rf"({CLOCK})\s*(?:UTC|GMT)?\s*([+-])(\d\d?):?(\d\d)?$"
SOME = 500  # texts that a format is chosen by
MOST_UNREAD = 0.1  # of the times


def to_seconds(values: Any, where: str, *, units: str = "", time_zone: str = "UTC") -> np.ndarray:
    """Return times in seconds since 1970-01-01 UTC, NaN where there is none.

    Args:
        values: a series of texts, dates or numbers.
        where: file and column, for messages.
        units: of numbers, such as ``days since 1950-01-01``, or a name of ``NAMED``, which count days of their own;
            empty: seconds since 1970, or parts of them, by their size.
        time_zone: of texts and dates that do not say theirs.

    Raises:
        BadInputError: they are no times, or could be read in two ways.

    Example:
        >>> to_seconds(["20-Apr-2023 10:04:49", "20-Apr-2023 12:04:49"], "a.csv: date_UTC").tolist()
        [1681985089.0, 1681992289.0]
        >>> to_seconds([1681985089000], "a.csv: time").tolist()
        [1681985089.0]
    """
    import pandas as pd

    series = pd.Series(values)
    if pd.api.types.is_numeric_dtype(series):
        numbers = series.to_numpy(np.float64, na_value=np.nan)
        if units or not _are_written_out(numbers):
            return _of_numbers(numbers, where, units)
        series = series.astype("Int64").astype("string")
    if not pd.api.types.is_datetime64_any_dtype(series):
        numbers = pd.to_numeric(series, errors="coerce")
        if numbers.notna().mean() > 1 - MOST_UNREAD and (units or not _are_written_out(numbers.to_numpy(np.float64))):
            return _of_numbers(numbers.to_numpy(np.float64), where, units)
        texts = series.astype("string").str.strip()
        ahead = _ahead_of_utc(texts)
        plain = texts.str.replace(OFF_UTC, r"\1", regex=True).str.replace(UTC, "", regex=True)
        dates = _dates(plain, where)
        if dates.dt.tz is None and ahead.notna().any():
            utc, local = (_localised(dates, zone, where) for zone in ("UTC", time_zone))
            return _seconds((utc - ahead).where(ahead.notna(), local))
        series = dates
    return _seconds(_localised(series, time_zone, where))


def _are_written_out(numbers: np.ndarray) -> bool:
    known = numbers[np.isfinite(numbers)]
    return len(known) > 0 and any(least <= np.median(known) <= most for least, most in WRITTEN)


def _of_numbers(numbers: np.ndarray, where: str, units: str) -> np.ndarray:
    known = np.isfinite(numbers)
    if units.strip().lower() in NAMED:
        since: np.ndarray = np.round((numbers - NAMED[units.strip().lower()]) * 86_400, 3)
        return since
    if units:
        seconds = np.full(len(numbers), np.nan)
        if known.any():
            seconds[known] = read_times(numbers[known], {"units": units}, where)[0]
        return seconds
    middle = float(np.median(numbers[known])) if known.any() else 0.0
    for least, most, unit_s in NUMBERS:
        if least <= middle <= most:
            return numbers * unit_s
    likely = [name for name, day in NAMED.items() if NUMBERS[0][0] <= (middle - day) * 86_400 <= SOON]
    such = likely[0] if likely else "days since 1950-01-01"
    raise BadInputError(
        f"{where} holds numbers around {middle:.10g}, which are no seconds since 1970 of a year from 1980 to 2100: say "
        f"what they are, such as tracks.time_units='{such}'"
    )


def _dates(texts: "pd.Series[Any]", where: str) -> "pd.Series[Any]":
    """Return texts as dates by the one format that reads them."""
    import pandas as pd

    present = texts.notna() & (texts != "")
    iso = pd.to_datetime(texts.where(present), format="ISO8601", errors="coerce")
    if iso[present].notna().mean() > 1 - MOST_UNREAD:
        return iso
    fraction = pd.to_numeric("0." + texts.str.extract(FRACTION, expand=False).fillna("0"))
    plain = texts.where(present)
    for found, instead in PLAIN:
        plain = plain.str.replace(found, instead, regex=True)
    best = _by_the_best(FORMATS, plain)
    if best[present].notna().mean() <= 1 - MOST_UNREAD:
        best = _with_slashes(plain, texts[present], where)
    return best + pd.to_timedelta(fraction, unit="s")


def have_zones(texts: Any) -> bool:
    """Return whether times say how far from UTC they are."""
    import pandas as pd

    column = pd.Series(texts)
    if pd.api.types.is_datetime64_any_dtype(column):
        return column.dt.tz is not None
    return bool(_ahead_of_utc(column.astype("string").str.strip()).notna().any())


def _ahead_of_utc(texts: "pd.Series[Any]") -> "pd.Series[Any]":
    """Return how much the clock of each time is ahead of UTC, NaT where it does not say."""
    import pandas as pd

    parts = texts.str.extract(OFF_UTC)
    hours = pd.to_numeric(parts[2]) + pd.to_numeric(parts[3].fillna("0")) / 60
    hours = hours.where(parts[1] != "-", -hours)
    return pd.to_timedelta(hours.mask(texts.str.contains(UTC, regex=True, na=False), 0.0), unit="h")


def _with_slashes(texts: "pd.Series[Any]", written: "pd.Series[Any]", where: str) -> "pd.Series[Any]":
    """Return dates of which day or month come first, if only one way reads them all; some are written."""
    day, month = _by_the_best(DAY_FIRST, texts), _by_the_best(MONTH_FIRST, texts)
    shares = [float(one[written.index].notna().mean()) if len(written) else 0.0 for one in (day, month)]
    said = f"such as {str(written.iloc[0])[:40] if len(written) else ''!r}: write them as 2023-04-20T10:04:49Z"
    if max(shares) <= 1 - MOST_UNREAD:
        raise BadInputError(printable(f"{where} holds no times that can be read, {said}"))
    if shares[0] == shares[1]:
        raise BadInputError(printable(f"{where} may have day or month first, {said}"))
    return day if shares[0] > shares[1] else month


def _by_the_best(formats: tuple[str, ...], texts: "pd.Series[Any]") -> "pd.Series[Any]":
    """Return texts as dates by the format that reads most of some of them."""
    import pandas as pd

    some = texts.dropna().iloc[:: max(1, len(texts) // SOME)]
    best = max(formats, key=lambda form: int(pd.to_datetime(some, format=form, errors="coerce").notna().sum()))
    return pd.to_datetime(texts, format=best, errors="coerce")


def _localised(dates: "pd.Series[Any]", time_zone: str, where: str) -> "pd.Series[Any]":
    """Return dates in UTC; an hour that a zone has twice counts as the second, one that it skips goes on after it."""
    if dates.dt.tz is not None:
        return dates.dt.tz_convert("UTC")
    try:
        zone = _zone(time_zone)
    except (ValueError, zoneinfo.ZoneInfoNotFoundError) as error:
        raise BadInputError(
            printable(
                f"tracks.time_zone={time_zone[:60]} is not known, for {where}: give one such as Europe/Berlin or +02:00"
            )
        ) from error
    return dates.dt.tz_localize(zone, ambiguous=False, nonexistent="shift_forward").dt.tz_convert("UTC")


def _zone(name: str) -> tzinfo:
    if (offset := OFFSET.fullmatch(name.strip())) is None:
        return zoneinfo.ZoneInfo(name)
    size = timedelta(hours=int(offset[2]), minutes=int(offset[3] or 0))
    return timezone(-size if offset[1] == "-" else size)


def _seconds(dates: "pd.Series[Any]") -> np.ndarray:
    import pandas as pd

    since = dates - pd.Timestamp("1970-01-01", tz="UTC")
    seconds: np.ndarray = since.dt.total_seconds().to_numpy(np.float64, na_value=np.nan)
    return seconds
