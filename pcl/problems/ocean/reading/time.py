"""The times of a file: seconds since 1970 in its calendar, freed of the rounding of the numbers that hold them."""

__all__ = ["EPOCH", "MOST_HOURS", "OFFSET", "date", "read_times", "tidy_times"]

import re
from collections.abc import Mapping
from typing import Any

import cftime  # type: ignore[import-untyped]
import numpy as np

from pcl.errors import BadInputError, printable
from pcl.problems.ocean.reading.names import text

EPOCH = "seconds since 1970-01-01"
CALENDARS = {
    "gregorian": "standard",
    "proleptic_gregorian": "standard",
    "365_day": "noleap",
    "366_day": "all_leap",
}
UNITS = re.compile(
    r"(?P<since>\s*\w+\s+since\s+)(?P<date>\d+-\d+-\d+)"
    r"(?:[T\s]\s*(?P<clock>\d{1,2}(?::\d{1,2}(?::\d{1,2}(?:\.\d*)?)?)?)(?!\d))?\s*(?P<zone>.*?)\s*",
    re.IGNORECASE,
)
# UTC+2, GMT + 02:00, +0200, +2h; the sign, hours, minutes
OFFSET = re.compile(r"(?:UTC|GMT)?\s*([+-])\s*(\d{1,2})(?::?(\d\d))?\s*h?", re.IGNORECASE)
OF_UTC = ("", "Z", "UTC", "GMT", "UT", "UTC TIME")
MOST_HOURS = 14  # that a clock is ahead of UTC
SECONDS = {"d": 86_400.0, "h": 3600.0, "min": 60.0, "s": 1.0}  # of units of time, by how their names begin
WHOLE_S = (86_400, 43_200, 21_600, 10_800, 3600, 1800, 900, 600, 300, 60, 10, 1)
FINE_S = 60.0  # decimals as fine as that are rounding, coarser ones may be meant
EVEN = 1e-3  # of the shortest step
UNIQUE = 4  # whole units must be this many times the rounding, or times could go to either of two


def read_times(values: np.ndarray, attributes: Mapping[Any, Any], where: str) -> tuple[np.ndarray, str, float]:
    """Return the times of a file.

    Args:
        values: as stored, shape (T,).
        attributes: of the variable, with ``units`` and ``calendar``.
        where: file and variable, for messages.

    Returns:
        Seconds since 1970-01-01 in the calendar, float64, shape (T,); the calendar; how exact they are, seconds.

    Raises:
        BadInputError: a time is missing, or units and calendar are none.

    Example:
        >>> hours = np.array([0.0, 1.0, 2.0, 3.0]) / 24 + 26_000
        >>> read_times(hours.astype(np.float32), {"units": "days since 1950-01-01"}, "a.nc: time")
        (array([1.6152480e+09, 1.6152516e+09, 1.6152552e+09, 1.6152588e+09]), 'standard', 0.0)
    """
    units, calendar = text(attributes, "units"), text({"calendar": "standard", **attributes}, "calendar").lower()
    exact = np.atleast_1d(np.asarray(values, np.float64))
    if not np.all(np.isfinite(exact)):
        raise BadInputError(f"{where} is missing at some steps: every step must have a time, repair or leave out")
    plain = _plain_units(units, where)
    try:
        dates = cftime.num2date(exact, plain, calendar, only_use_cftime_datetimes=True)
        # a millisecond hides the rounding of days and hours
        seconds = np.round(np.asarray(cftime.date2num(dates, EPOCH, calendar), np.float64), 3)
    except Exception as error:  # whatever a date that nobody foresaw makes of it
        said = " ".join(str(error).split())[:120]
        reason = said if isinstance(error, (ValueError, OverflowError)) else "its reference date or calendar is none"
        raise BadInputError(
            f"{where} in '{units}', calendar '{calendar}', is no time ({reason}): repair its units, such "
            "as 'days since 2010-01-01'"
        ) from error
    unit_s = next((length for name, length in SECONDS.items() if units.lower().startswith(name)), 0.0)
    binary, decimal = (rounding * unit_s for rounding in _rounding(np.atleast_1d(np.asarray(values))))
    # coarse decimals that are enough for an even axis are no rounding, and a time alone does not tell
    is_cut = decimal <= FINE_S or (len(seconds) > 2 and not _is_even(seconds))
    precision_s = max(binary, decimal) if is_cut else binary
    tidy = tidy_times(seconds, precision_s)
    return tidy, CALENDARS.get(calendar, calendar), precision_s if tidy is seconds else 0.0


def _plain_units(units: str, where: str) -> str:
    """Return units with hour and offset from UTC written so that cftime reads them: it skips what it does not know."""
    found = UNITS.fullmatch(units.replace("\N{MINUS SIGN}", "-"))
    if found is None:
        return units
    year, _, day = found["date"].split("-")
    said = found["zone"].strip("[]() ")
    offset = OFFSET.fullmatch(said)
    is_known = said.upper() in OF_UTC or (offset is not None and int(offset[2]) <= MOST_HOURS)
    if len(day) > 2 or not is_known:  # CST may be of America or of China
        what = f"the zone {found['zone'][:40]}" if len(day) <= 2 else f"the day {day} of the year {year}"
        raise BadInputError(
            printable(
                f"{where} in '{units}' has {what}: write year, month and day, and an offset from UTC, such as "
                "'days since 2010-01-31 00:00:00 -06:00'"
            )
        )
    clock = found["clock"] or "0"
    plain = f"{found['since']}{found['date']} {clock}{':00' * (2 - clock.count(':'))}"
    return f"{plain} {offset[1]}{int(offset[2]):02}:{offset[3] or '00'}" if offset else plain


def _rounding(values: np.ndarray) -> tuple[float, float]:
    """Return half the distance between stored numbers, and half the last decimal that they were cut to."""
    numbers = values.astype(np.float64)
    binary = float(np.spacing(np.abs(values).max(initial=0))) / 2 if values.dtype.kind == "f" else 0.0
    for digits in range(7):
        scaled = numbers * 10**digits
        if np.all(np.abs(scaled - np.round(scaled)) <= 1e-6):
            return binary, 0.5 * 10.0**-digits if digits else 0.0
    return binary, 0.0


def _is_even(seconds: np.ndarray) -> bool:
    """Return whether times are equally spaced but for holes."""
    steps = np.diff(seconds)
    steps = steps[steps > 0]
    if not len(steps):
        return False
    multiples = steps / steps.min()
    return bool(np.all(np.abs(multiples - np.round(multiples)) <= EVEN))


def tidy_times(seconds: np.ndarray, precision_s: float) -> np.ndarray:
    """Return times as multiples of the longest whole unit, or as equally spaced, where they are so within rounding.

    Args:
        seconds: shape (T,).
        precision_s: how far rounding may have moved a time, seconds.

    Returns:
        The times themselves where rounding does not explain what is irregular.

    Example:
        >>> tidy_times(np.array([0.0, 3610.0, 7150.0]), 60.0).tolist()
        [0.0, 3600.0, 7200.0]
        >>> tidy_times(np.array([0.0, 3610.0, 7150.0]), 5.0).tolist()
        [0.0, 3610.0, 7150.0]
    """
    if precision_s < 1e-3:
        return seconds
    within = precision_s * (1 + 1e-6) + 1e-3
    for unit in WHOLE_S:
        whole: np.ndarray = np.round(seconds / unit) * unit
        if unit >= UNIQUE * precision_s and np.all(np.abs(seconds - whole) <= within):
            return whole
    if len(seconds) > 2:
        step = (seconds[-1] - seconds[0]) / (len(seconds) - 1)
        even = seconds[0] + step * np.arange(len(seconds))
        even += (seconds - even).mean()
        if step > UNIQUE * precision_s and np.all(np.abs(seconds - even) <= 2 * within):
            return np.asarray(even)
    return seconds


def date(seconds: float, calendar: str) -> str:
    """Return a time as people write it.

    Args:
        seconds: since 1970-01-01.
        calendar: of the time.

    Example:
        >>> date(3600.0, "standard")
        '1970-01-01 01:00'
    """
    return str(cftime.num2date(seconds, EPOCH, calendar).strftime("%Y-%m-%d %H:%M"))
