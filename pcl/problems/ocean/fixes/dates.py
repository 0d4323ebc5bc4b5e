"""Dates and times of day as people write them, as dates of pandas."""

__all__ = ["MOST_UNREAD", "dates_of", "of_digits"]

from typing import TYPE_CHECKING, Any

import numpy as np

from pcl.errors import BadInputError, printable

if TYPE_CHECKING:
    import pandas as pd

FORMATS = ("%d %b %Y", "%d %b %y", "%Y %b %d", "%Y/%m/%d", "%Y.%m.%d", "%Y:%m:%d", "%Y-%m-%d", "%Y-%j")
ORDERS = {
    "day": ("%d/%m/%Y", "%d.%m.%Y", "%d-%m-%Y", "%d/%m/%y"),
    "month": ("%m/%d/%Y", "%m-%d-%Y", "%m/%d/%y"),
    "year": ("%y/%m/%d",),
}
"""Formats in which numbers alone say which is which, by what comes first."""
CENTURY = r"(?:19|20)\d\d"
MONTH, DAY = r"(?:0[1-9]|1[0-2])", r"(?:0[1-9]|[12]\d|3[01])"
HOUR, MINUTE = r"(?:[01]\d|2[0-4])", r"[0-5]\d"
DIGITS = (  # dates without anything between their parts, with a time of day or not
    (rf"^({CENTURY})({MONTH})({DAY})T?({HOUR})({MINUTE})([0-5]\d)$", r"\1/\2/\3 \4:\5:\6"),
    (rf"^({CENTURY})({MONTH})({DAY})T?({HOUR})({MINUTE})$", r"\1/\2/\3 \4:\5"),
    (rf"^({CENTURY})({MONTH})({DAY})T?({HOUR})$", r"\1/\2/\3 \4:00"),
    (rf"^({CENTURY})({MONTH})({DAY})(?!\d)", r"\1/\2/\3"),
    (rf"^(\d\d)(\d\d)({CENTURY})(?!\d)", r"\1/\2/\3"),
    (rf"^({CENTURY})([0-3]\d\d)(?!\d)", r"\1-\2"),
    (r"^(\d\d)(\d\d)(\d\d)(?!\d)", r"\1/\2/\3"),
)
PLAIN = (  # what is replaced, in turn
    (r"^(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun)[a-z]*,?\s+", ""),
    (r"(?<!:\d\d),\s*", " "),  # that is no decimal comma
    (r"([A-Za-z]{3})[a-z]*\.?", r"\1"),  # months in full
    (r"^([A-Za-z]{3}) +(\d{1,2}) +(\d\S*) +(\d{4})$", r"\2 \1 \4 \3"),  # as C writes it
    (r"^([A-Za-z]{3})[-/. ](\d{1,2})[-/. ](\d{4})", r"\2 \1 \3"),
    (r"[-/. ]([A-Za-z]{3})[-/. ]", r" \1 "),
    (r"^(\d{1,2})[-.](\d{1,2})[-.](\d\d)(?!\d)", r"\1/\2/\3"),
    *DIGITS,
)
# date, hour, minute, second with decimals, before noon or after; nothing but the date is a day
PARTS = r"^(.*?)(?:[T\s]\s*(\d{1,2}):(\d\d)(?::(\d\d(?:[.,]\d*)?))?\s*(?:([AaPp])\.?[Mm]\.?)?)?$"
MIDNIGHT = r"(?<=\d)([T\s]\s*)24(:?00(?::?00(?:[.,]0*)?)?)$"  # of the next day
TWO_DIGITS, LATEST = r"\d+/\d+/\d\d", "2036"  # years of two digits, and what no fix is after
SOME = 500  # texts that a format is chosen by
MOST_UNREAD = 0.1  # of the times
OVER_YEARS = "300D"  # fixes of one order that lie on a day of several years are of the other order
FAR_MORE = 10


def dates_of(texts: "pd.Series[Any]", where: str) -> "pd.Series[Any]":
    """Return texts as dates by the one format that reads them.

    Args:
        texts: of times, missing ones as such.
        where: file and column, for messages.

    Raises:
        BadInputError: they are no times, or could be read in two ways.

    Example:
        >>> import pandas as pd
        >>> dates_of(pd.Series(["20-Apr-2023 10:04", "20-Apr-2023 24:00"]), "a.csv: time").astype(str).tolist()
        ['2023-04-20 10:04:00', '2023-04-21 00:00:00']
    """
    import pandas as pd

    written, texts = texts, texts.str.replace(MIDNIGHT, r"\g<1>00\2", regex=True)
    late = (written != texts).fillna(False).astype(bool)
    present = texts.notna()
    few_digits = texts.str.contains(r"^\d{6,7}(?!\d)", regex=True, na=False)  # no year, month and day for certain
    dates = pd.to_datetime(texts.mask(few_digits), format="ISO8601", errors="coerce")
    if not dates[present].notna().mean() > 1 - MOST_UNREAD:
        dates = _by_parts(texts, where)
    return dates + pd.to_timedelta(late.astype(int), unit="D") if late.any() else dates


def of_digits(numbers: np.ndarray, form: str) -> bool:
    """Return whether most whole numbers are dates of a form, such as ``YYYYMMDDhh``.

    Example:
        >>> of_digits(np.array([2023042010]), "YYYYMMDDhh"), of_digits(np.array([2023042099]), "YYYYMMDDhh")
        (True, False)
    """
    import pandas as pd

    pattern = form
    for part, digits in {
        "YYYY": CENTURY,
        "JJJ": r"(?:[0-2]\d\d|3[0-6]\d)",
        "YY": r"\d\d",
        "MM": MONTH,
        "DD": DAY,
        "hh": HOUR,
        "mm": MINUTE,
        "ss": MINUTE,
    }.items():
        pattern = pattern.replace(part, digits)
    texts = pd.Series(numbers.astype(np.int64)).astype(str).str.zfill(len(form))
    return bool(texts.str.fullmatch(pattern).mean() > 1 - MOST_UNREAD)


def _by_parts(texts: "pd.Series[Any]", where: str) -> "pd.Series[Any]":
    """Return dates of which date and time of day are read apart."""
    import pandas as pd

    plain = texts
    for found, instead in PLAIN:
        plain = plain.str.replace(found, instead, regex=True)
    parts = plain.str.extract(PARTS)
    hour, minute, second = (pd.to_numeric(parts[i].str.replace(",", ".")).fillna(0.0) for i in (1, 2, 3))
    half = parts[4].str.lower()
    hour = hour.where(hour <= half.notna().map({True: 12, False: 23}))
    hour = hour.mask(half.notna(), hour % 12 + 12 * half.eq("p").fillna(False).astype(int))
    of_day = (hour * 3600 + minute * 60 + second).where((minute < 60) & (second < 60))
    days = parts[0].where(of_day.notna())
    dates = _by_the_best(FORMATS, days)
    if not dates[texts.notna()].notna().mean() > 1 - MOST_UNREAD:
        dates = _in_order(days, texts.dropna(), where)
    return dates + pd.to_timedelta(of_day.round(6), unit="s")


def _in_order(days: "pd.Series[Any]", written: "pd.Series[Any]", where: str) -> "pd.Series[Any]":
    """Return days of which day, month or year come first, if only one way reads them all; some are written."""
    import pandas as pd

    found = {first: _by_the_best(formats, days) for first, formats in ORDERS.items()}
    if days.dropna().str.fullmatch(TWO_DIGITS).all():
        found = {first: dates.where(dates < LATEST) for first, dates in found.items()}
    shares = {first: float(one[written.index].notna().mean()) if len(written) else 0.0 for first, one in found.items()}
    said = f"such as {str(written.iloc[0])[:40] if len(written) else ''!r}: write them as 2023-04-20T10:04:49Z"
    most = max(shares.values())
    if most <= 1 - MOST_UNREAD:
        raise BadInputError(printable(f"{where} holds no times that can be read, {said}"))
    best = [first for first, share in shares.items() if share == most]
    spans = {first: found[first].max() - found[first].min() for first in best}
    if "year" in best and len(best) > 1:
        years, others = spans["year"], min(span for first, span in spans.items() if first != "year")
        if max(years, others) > max(FAR_MORE * min(years, others), pd.Timedelta(OVER_YEARS)):
            best = ["year"] if years < others else [first for first in best if first != "year"]
    if len(best) > 1:
        which = "day or month" if best == ["day", "month"] else ", ".join(best[:-1]) + f" or {best[-1]}"
        raise BadInputError(printable(f"{where} may have {which} first, {said}"))
    return found[best[0]]


def _by_the_best(formats: tuple[str, ...], texts: "pd.Series[Any]") -> "pd.Series[Any]":
    """Return texts as dates by the format that reads most of some of them."""
    import pandas as pd

    some = texts.dropna().iloc[:: max(1, len(texts) // SOME)]
    best = max(formats, key=lambda form: int(pd.to_datetime(some, format=form, errors="coerce").notna().sum()))
    return pd.to_datetime(texts, format=best, errors="coerce")
