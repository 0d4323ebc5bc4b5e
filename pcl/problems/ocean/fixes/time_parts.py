"""Parts of times in columns of their own: days, times of day, years and so on, each within its range."""

__all__ = ["as_clocks", "clocks_of", "days_of", "is_whole", "joined", "whole_days"]

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from pcl.errors import BadInputError, printable

if TYPE_CHECKING:
    import pandas as pd

DAY_S = 86_400
LIMITS = {  # the smallest, and what is too large
    "year": (0, 2200),
    "month": (1, 13),
    "day": (1, 32),
    "day of the year": (1, 367),
    "hour": (0, 24 + 1e-9),  # 24 is the midnight after
    "minute": (0, 60),
    "second": (0, 61),
}
JULIAN = (2.4e6, 2.5e6)
CENTURY, TURN = 100, 69  # years of two digits are of 1969 to 2068
BEFORE = (CENTURY, 1799)  # years that no drifter has seen
WHOLE_TIME = r".{6,}?[T\s]\s*(\d{1,2}:\d\d).*"  # a date, and behind it hour and minute
EPOCHS = ((3.1e8, 4.2e9), (1.9e11, 2.2e11), (3.1e11, 4.2e12), (1.9e13, 2.2e13), (3.1e14, 4.2e15), (3.1e17, 4.2e18))
POINTS = ((r"^(\d{1,2})[.h](\d\d)[.m](\d\d)s?$", r"\1:\2:\3"), (r"^(\d{1,2})h(\d\d)$", r"\1:\2"))  # 10.04.49, 10h04


def is_whole(column: "pd.Series[Any]") -> bool:
    """Return whether a column holds dates with a time of day: texts, dates or numbers.

    Example:
        >>> import pandas as pd
        >>> is_whole(pd.Series(["2023-04-20 10:04"])), is_whole(pd.Series(["2023-04-20 00:00"]))
        (True, False)
    """
    import pandas as pd

    if pd.api.types.is_datetime64_any_dtype(column):
        return bool((column.dropna() != column.dropna().dt.normalize()).any())
    numbers = pd.to_numeric(column, errors="coerce")
    if numbers.notna().sum() > 0.5 * column.notna().sum():
        return any(least <= numbers.median() <= most for least, most in EPOCHS)
    clocks = column.dropna().astype("string").str.strip().str.extract(rf"^{WHOLE_TIME}$")[0]
    return bool(clocks.notna().mean() > 0.5 and not clocks.dropna().isin(["00:00", "0:00"]).all())


def whole_days(column: "pd.Series[Any]") -> "tuple[pd.Series[str], pd.Series[str]]":
    """Return days as texts, and hour and minute where a day has them too.

    Example:
        >>> import pandas as pd
        >>> [one.tolist() for one in whole_days(pd.Series(["2023-04-20 00:00:00"]))]
        [['2023-04-20'], ['00:00']]
    """
    import pandas as pd

    if pd.api.types.is_float_dtype(column) and bool((column.dropna() % 1 == 0).all()):
        column = column.astype("Int64")  # 20230420.0, where some are missing
    texts = column.astype("string").str.strip()
    own = texts.str.extract(rf"^{WHOLE_TIME}$")[0].str.zfill(5)
    return texts.str.replace(r"[T\s]\s*\d{1,2}:\d\d.*$", "", regex=True), own


def clocks_of(column: "pd.Series[Any]", pattern: str, where: str) -> "pd.Series[str] | None":
    """Return times of day as texts with colons; None: it has others.

    Args:
        column: of texts, of numbers such as 100449 or 1004, of hours, or of parts of a day.
        pattern: of texts that are times of day.
        where: file and column, for messages.

    Raises:
        BadInputError: 10.04 may be hours, or hours and minutes.

    Example:
        >>> import pandas as pd
        >>> [clocks_of(pd.Series(one), "", "a.csv: time").tolist() for one in ([905, 2400], [9.125], [0.5])]
        [['09:05:00', '24:00:00'], ['09:07:30'], ['12:00:00']]
    """
    import pandas as pd

    texts = column.astype("string").str.strip()
    for found, instead in POINTS:
        texts = texts.str.replace(found, instead, regex=True)
    if pattern and texts.dropna().head(100).str.fullmatch(pattern).mean() > 0.5:
        return texts
    numbers = pd.to_numeric(column, errors="coerce")
    if not numbers.between(0, 240_000).any() or numbers.lt(0).any() or numbers.gt(240_000).any():
        return None
    if numbers.max() < 1 and (numbers % 1 > 0).any():
        return as_clocks(numbers * DAY_S)
    if numbers.max() <= 24:
        _refuse_points(numbers.dropna(), where)
        return as_clocks(numbers * 3600)
    if (numbers.dropna() % 1 != 0).any():
        return None
    whole = numbers * (100 if numbers.max() <= 2400 else 1)
    hour, minute, second = whole // 10_000, whole // 100 % 100, whole % 100
    if minute.max() > 59 or second.max() > 59 or whole.max() > 240_000:
        return None
    return as_clocks(hour * 3600 + minute * 60 + second)


def _refuse_points(hours: "pd.Series[float]", where: str) -> None:
    """Refuse hours that may be hours and minutes with a point: no minute is beyond 59, and not all are half hours."""
    minutes = (hours % 1 * 100).round(6)
    if (minutes % 1 == 0).all() and minutes.max() < 60 and not minutes.isin([0, 50]).all():
        raise BadInputError(
            printable(
                f"{where} holds {hours[minutes > 0].iloc[0]:g}, which may be decimals of an hour or its minutes: "
                "write times of day as 10:04:49"
            )
        )


def as_clocks(seconds: "pd.Series[float]") -> "pd.Series[str]":
    """Return seconds of a day as texts; the last one may be the midnight after.

    Example:
        >>> import pandas as pd
        >>> as_clocks(pd.Series([36289.0, 86400.0])).tolist()
        ['10:04:49', '24:00:00']
    """
    import pandas as pd

    whole = seconds.round()
    found = pd.to_datetime(whole, unit="s").dt.strftime("%H:%M:%S").astype("string")
    return found.mask(whole == DAY_S, "24:00:00")


def joined(table: "pd.DataFrame", parts: Mapping[str, str], where: str) -> "pd.Series[pd.Timestamp]":
    """Return times of numbers; the last of them may have decimals, as the day of a 6-hourly file has.

    Args:
        table: as read.
        parts: columns by part; a day without a month is of the year.
        where: the file, for messages.

    Raises:
        BadInputError: a number is none of its part.

    Example:
        >>> import pandas as pd
        >>> joined(pd.DataFrame({"y": [23], "d": [110.5]}), {"year": "y", "day": "d"}, "a.csv").tolist()
        [Timestamp('2023-04-20 12:00:00')]
    """
    import pandas as pd

    numbers = {part: _numbers(table, parts, part, where) for part in ("year", "month") if part in parts}
    year = numbers["year"]
    numbers["year"] = year.mask(year < CENTURY, year + np.where(year < TURN, 2000, 1900))
    first = pd.to_datetime(pd.DataFrame({"month": 1, **numbers, "day": 1}, index=table.index), errors="coerce")
    days = days_of(table, parts, where) - 1  # of the month, or of the year
    seconds = (days * DAY_S).round(3)  # a millisecond hides the rounding of days
    return first + pd.to_timedelta(seconds, unit="s")


def days_of(table: "pd.DataFrame", parts: Mapping[str, str], where: str) -> "pd.Series[float]":
    """Return the days that the parts from days to seconds make.

    Raises:
        BadInputError: a number is none of its part, or has decimals though a smaller part follows.
    """
    units = {"day": 1, "hour": 24, "minute": 1440, "second": DAY_S}
    given = {part: _numbers(table, parts, part, where) for part in units if part in parts}
    *larger, least = [*given]
    if cut := next((parts[part] for part in larger if (given[part] % 1 > 0).any()), None):
        raise BadInputError(
            printable(f"{where}: {cut} has decimals, and {parts[least]} says what they are: leave out one of them")
        )
    if "hour" in given and ((given["hour"] == 24) & (sum(given.get(one, 0) for one in ("minute", "second")) > 0)).any():
        raise BadInputError(printable(f"{where}: {parts['hour']} has 24, and minutes after it: hours are 0 to 23"))
    days = [numbers / units[part] for part, numbers in given.items()]
    total: pd.Series[float] = sum(days[1:], days[0])
    return total


def _numbers(table: "pd.DataFrame", parts: Mapping[str, str], part: str, where: str) -> "pd.Series[float]":
    """Return the numbers of a part, if they are within its range."""
    import pandas as pd

    numbers = pd.to_numeric(table[parts[part]], errors="coerce")
    kind = "day of the year" if part == "day" and "year" in parts and "month" not in parts else part
    least, beyond = LIMITS[kind]
    wrong = numbers[(numbers < least) | (numbers >= beyond) | ((part == "year") & numbers.between(*BEFORE))]
    if len(wrong):
        name = parts[part]
        is_julian = kind == "day of the year" and wrong.between(*JULIAN).all()
        such = f"tracks.time={name} tracks.time_units=julian" if is_julian else "tracks.time=NAME"
        raise BadInputError(
            printable(
                f"{where}: {name} holds {wrong.iloc[0]:.10g}, which is no {kind}: repair it, or name a column of whole "
                f"times, {such}"
            )
        )
    return numbers
