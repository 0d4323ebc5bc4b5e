"""Times as people write them, in seconds since 1970-01-01 UTC."""

__all__ = ["have_zones", "to_seconds"]

import zoneinfo
from typing import TYPE_CHECKING, Any

import numpy as np

from pcl.errors import BadInputError, printable
from pcl.problems.ocean.fixes.dates import MOST_UNREAD, dates_of, of_digits
from pcl.problems.ocean.fixes.zones import zone_of
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
DAY_S = 86_400.0
SOON = 2.1e9  # seconds since 1970: 2036
WRITTEN = {  # numbers that are dates: the smallest and the largest, and the unit of decimals, seconds
    "YYYYJJJ": (1.9e6, 2.2e6, DAY_S),
    "YYYYMMDD": (1.9e7, 2.2e7, DAY_S),
    "YYYYMMDDhh": (1.9e9, 2.2e9, 3600.0),
    "YYYYMMDDhhmm": (1.9e11, 2.2e11, 60.0),
    "YYYYMMDDhhmmss": (1.9e13, 2.2e13, 1.0),
}
OF_TWO_KINDS = ("YYMMDDhhmm", "DDMMYYhhmm", "MMDDYYhhmm")  # dates that are of the size of seconds since 1970
SEVERAL = 5  # different numbers are no such dates by chance
LATE = 1.9e9  # seconds since 1970: 2030
UTC = r"\s*(?:[\[(]?(?:UTC|GMT)[\])]?|(?:GMT|UTC)?[+-]00:?00|(?<=\d)\s*Z)$"
CLOCK = r"(?:\d:\d\d|T\d\d(?:\d\d){0,2})(?:[.,]\d+)?(?:\s*[AaPp][Mm])?"
OFF_UTC = rf"({CLOCK})\s*(?:UTC|GMT)?\s*([+-])(\d\d?):?(\d\d)?$"
MISSING = r"(?i:[-.]*|n/?a|nan|nat|none|null)"
DECIMAL_COMMA = r"^([+-]?\d+),(\d+)$"


def to_seconds(values: Any, where: str, *, units: str = "", time_zone: "str | pd.Series[Any]" = "UTC") -> np.ndarray:
    """Return times in seconds since 1970-01-01 UTC, NaN where there is none.

    Args:
        values: a series of texts, dates or numbers.
        where: file and column, for messages.
        units: of numbers, such as ``days since 1950-01-01``, or a name of ``NAMED``, which count days of their own;
            empty: seconds since 1970, or parts of them, by their size.
        time_zone: of texts and dates that do not say theirs; or one for each of them, with their index.

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
    if pd.api.types.is_datetime64_any_dtype(series):
        return _seconds(_localised(series, time_zone, where))
    if pd.api.types.is_numeric_dtype(series):
        numbers = pd.Series(series.to_numpy(np.float64, na_value=np.nan), series.index)
        present, texts = numbers.notna(), pd.Series(pd.NA, numbers.index, dtype="string")
    else:
        texts = series.astype("string").str.strip()
        texts = texts.mask(texts.str.fullmatch(MISSING).fillna(True).astype(bool))
        present = texts.notna()
        numbers = pd.to_numeric(texts.str.replace(DECIMAL_COMMA, r"\1.\2", regex=True), errors="coerce")
        numbers = numbers.astype("Float64").astype(np.float64)
    if numbers.notna().sum() > (1 - MOST_UNREAD) * present.sum():
        dates = None if units else _written_out(numbers, where)
        if dates is None:
            return _of_numbers(numbers.to_numpy(np.float64), where, units)
        return _seconds(_localised(dates, time_zone, where))
    ahead = _ahead_of_utc(texts)
    dates = dates_of(texts.str.replace(OFF_UTC, r"\1", regex=True).str.replace(UTC, "", regex=True), where)
    if dates.dt.tz is None and ahead.notna().any():
        utc, local = (_localised(dates, zone, where) for zone in ("UTC", time_zone))
        return _seconds((utc - ahead).where(ahead.notna(), local))
    return _seconds(_localised(dates, time_zone, where))


def _written_out(numbers: "pd.Series[float]", where: str) -> "pd.Series[Any] | None":
    """Return dates of numbers that are dates, such as 20230420100449, or 20230420.42, a day and its decimals."""
    import pandas as pd

    known = numbers[np.isfinite(numbers)]
    middle = known.median() if len(known) else 0.0
    form = next((form for form, (least, most, _) in WRITTEN.items() if least <= middle <= most), "")
    whole, decimals = np.floor(known), known % 1
    if not form or (form.endswith("hh") and not of_digits(whole.to_numpy(), form)):
        _refuse_two_kinds(known, where)
        return None
    unit_s = WRITTEN[form][2]
    if unit_s == DAY_S and decimals.any() and decimals.max() < 0.24 and not ((decimals * 100).round(6) % 1).any():
        raise BadInputError(
            f"{where} holds {known[decimals > 0].iloc[0]:.10g}, of which the decimals may be hours or parts of a day: "
            "write times as 2023-04-20T10:04:49Z"
        )
    dates = dates_of(whole.astype("int64").astype("string").reindex(numbers.index), where)
    return dates + pd.to_timedelta((decimals * unit_s).round(2).reindex(numbers.index), unit="s")


def _refuse_two_kinds(numbers: "pd.Series[float]", where: str) -> None:
    """Refuse numbers that are seconds since 1970, or dates with a year of two digits."""
    least, most, _ = NUMBERS[0]
    if not len(numbers) or not least <= numbers.median() <= most or (numbers % 1).any():
        return
    is_likely = numbers.nunique() >= SEVERAL or numbers.median() > LATE
    if is_likely and (form := next((one for one in OF_TWO_KINDS if of_digits(numbers.to_numpy(), one)), "")):
        raise BadInputError(
            f"{where} holds numbers such as {numbers.iloc[0]:.0f}, which may be {form} or seconds since 1970: write "
            "times as 2023-04-20T10:04:49Z, or say tracks.time_units='seconds since 1970-01-01'"
        )


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


def have_zones(texts: Any) -> bool:
    """Return whether all times say how far from UTC they are."""
    import pandas as pd

    column = pd.Series(texts)
    if pd.api.types.is_datetime64_any_dtype(column):
        return column.dt.tz is not None
    present = column.astype("string").str.strip().replace("", None).dropna()
    return len(present) > 0 and bool(_ahead_of_utc(present).notna().all())


def _ahead_of_utc(texts: "pd.Series[Any]") -> "pd.Series[Any]":
    """Return how much the clock of each time is ahead of UTC, NaT where it does not say."""
    import pandas as pd

    parts = texts.str.extract(OFF_UTC)
    hours = pd.to_numeric(parts[2]) + pd.to_numeric(parts[3].fillna("0")) / 60
    hours = hours.where(parts[1] != "-", -hours)
    return pd.to_timedelta(hours.mask(texts.str.contains(UTC, regex=True, na=False), 0.0), unit="h")


def _localised(dates: "pd.Series[Any]", time_zone: "str | pd.Series[Any]", where: str) -> "pd.Series[Any]":
    """Return dates in UTC; an hour that a zone has twice counts as the second, one that it skips goes on after it."""
    import pandas as pd

    if dates.dt.tz is not None:
        return dates.dt.tz_convert("UTC")
    if not isinstance(time_zone, str):
        parts = [_localised(part, str(zone), where) for zone, part in dates.groupby(time_zone)]
        return pd.concat(parts).reindex(dates.index)
    try:
        zone = zone_of(time_zone)
    except (ValueError, OSError, zoneinfo.ZoneInfoNotFoundError) as error:
        raise BadInputError(
            printable(
                f"tracks.time_zone={time_zone[:60]} is not known, for {where}: give one such as Europe/Berlin or +02:00"
            )
        ) from error
    return dates.dt.tz_localize(zone, ambiguous=False, nonexistent="shift_forward").dt.tz_convert("UTC")


def _seconds(dates: "pd.Series[Any]") -> np.ndarray:
    import pandas as pd

    since = dates - pd.Timestamp("1970-01-01", tz="UTC")
    seconds: np.ndarray = since.dt.total_seconds().to_numpy(np.float64, na_value=np.nan)
    return seconds
