"""Fixes from tables: CSV and Parquet files, and the files without a head of the Global Drifter Program."""

__all__ = ["TABLES", "read_table"]

import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pcl.errors import BadInputError, DamagedDataError, printable
from pcl.problems.ocean.fixes.drifters import of_several, parting
from pcl.problems.ocean.fixes.drogues import attached
from pcl.problems.ocean.fixes.fixes import Fixes
from pcl.problems.ocean.fixes.names import ROLES, WORDS, drifter_names, find_roles, plain, words
from pcl.problems.ocean.fixes.place_columns import in_degrees
from pcl.problems.ocean.fixes.text_tables import read_text_table
from pcl.problems.ocean.fixes.time_columns import with_one_time
from pcl.problems.ocean.fixes.times import have_zones, to_seconds
from pcl.problems.ocean.fixes.zones import has_zones, refuse_two_clocks, said_zone, the_zone, zones_of_rows

if TYPE_CHECKING:
    import pandas as pd

PARQUET = (".parquet", ".pq", ".parq")
TABLES = (".csv", ".tsv", ".txt", ".dat", ".tab", ".asc", *PARQUET)
UNIT = re.compile(r"\D*(deg|°|rad)\D*", re.IGNORECASE)  # of latitudes, in the second row of a file of ERDDAP
FLAGS = ("", "0", "1", "0.0", "1.0", "true", "false", "yes", "no", "t", "f", "y", "n", "drogued", "undrogued")
NEVER = r"[0:/. TZ-]*|-.*|1970-01-01.*|.*e\+?3\d|(?i:nan|nat|none|null)"  # dates of a drogue that is still on
CUT = r"\d(?:\.\d+)?[eE]\+\d\d"  # a long number that a spreadsheet has rounded
UNITS = re.compile(r"[\[(](.* since .*)[\])]")  # of times, in the name of their column


def read_table(path: Path, columns: Mapping[str, str], *, time_units: str = "", time_zone: str = "UTC") -> Fixes:
    """Read the fixes of a table.

    A second line of units, as ERDDAP writes it, is understood and left out; lines at the beginning that start with #
    are comments. Date and time may have columns of their own, and so may year, month, day and so on.

    Args:
        path: of one of the suffixes of ``TABLES``, or of a compressed text.
        columns: names of columns by role, where they have no usual name.
        time_units: of numbers that are times.
        time_zone: of times that do not say theirs.

    Raises:
        BadInputError: a column is missing, or its values are none of its kind.
        DamagedDataError: the file is no table.
    """
    table = _parquet(path) if path.suffix.lower() in PARQUET else read_text_table(path, columns)
    table, said = _without_units(table, columns)
    if not len(table):
        raise BadInputError(f"{path} holds no rows: give files of tracks")
    table = with_one_time(table, columns, said, str(path))
    roles = _roles(table, columns, path)
    units = {role: said.get(name, "") for role, name in roles.items()}
    in_name = UNITS.search(roles["time"])
    time_units = time_units or ("since" in units.get("time", "") and units["time"]) or (in_name[1] if in_name else "")
    zone, zone_of_losses = _zones(table, roles, units, time_zone, path)
    to_s = partial(to_seconds, units=time_units, time_zone=zone_of_losses)
    time_s = to_seconds(table[roles["time"]], f"{path}: {roles['time']}", units=time_units, time_zone=zone)
    if not columns.get("time"):
        refuse_two_clocks(table, roles["time"], time_s, path)
    found = Fixes(
        np.full(len(table), path.stem),  # a file that names no drifter is of one
        time_s,
        _degrees(table, roles, "latitude", path, units),
        _degrees(table, roles, "longitude", path, units),
        _drogued(table, roles, time_s, path, lambda dates: to_s(dates, f"{path}: {roles['drogue_lost']}")),
    )
    if "drifter" in roles:
        found = _named(table, roles, columns, found, path)
    if not columns.get("drifter") and len(found.names) == 1 and of_several(found):
        _refuse_several(table, roles, found, path)
    return found


def _zones(
    table: "pd.DataFrame", roles: Mapping[str, str], units: Mapping[str, str], given: str, path: Path
) -> tuple[Any, Any]:
    """Return the zones of times, and of dates at which drogues were lost: what is said of either, else the given one.

    Each is one zone, or one of every row.
    """
    name, lost = roles["time"], roles.get("drogue_lost", "")
    said, said_of_lost = said_zone(name, units["time"]), said_zone(lost, units.get("drogue_lost", ""))
    if (said or has_zones(table, roles)) and have_zones(table[name]):
        zone: Any = given
    else:
        zone = the_zone(said, given, str(path)) if said else zones_of_rows(table, roles, given, str(path))
    if said_of_lost:
        return zone, the_zone(said_of_lost, given, f"{path}: {lost}")
    return zone, zone if given == "UTC" else given


def _roles(table: "pd.DataFrame", columns: Mapping[str, str], path: Path) -> dict[str, str]:
    """Return roles of columns; one whose values are all different numbers the rows, not the drifters."""
    known = [str(name) for name in table.columns]
    while True:
        roles = find_roles(known, columns, str(path))
        named = roles.get("drifter")
        if named is None or columns.get("drifter") or len(table) < 3 or not table[named].is_unique:
            return roles
        known.remove(named)


def _named(
    table: "pd.DataFrame", roles: Mapping[str, str], columns: Mapping[str, str], fixes: Fixes, path: Path
) -> Fixes:
    """Return fixes with the names of the column that parts drifters: of several it is told by how they move."""
    others = [name for role, name in roles.items() if role != "drifter"]
    known = [str(name) for name in table.columns if str(name) not in others and not table[name].is_unique]
    usual = [] if columns.get("drifter") or len(table) < 3 else drifter_names(known)
    candidates = {name: _as_names(table[name]) for name in (roles["drifter"], *usual)}
    name = parting(fixes, candidates, str(path))
    return replace(fixes, name=_whole_names(table[name], path))


def _refuse_several(table: "pd.DataFrame", roles: Mapping[str, str], fixes: Fixes, path: Path) -> None:
    """Say which column would part the several drifters of a table that names none, or one where another column does."""
    others = [str(name) for name in table.columns if str(name) not in roles.values()]
    few = [name for name in others if 1 < table[name].nunique() <= len(table) / 2]
    parted = [name for name in few if not of_several(replace(fixes, name=_as_names(table[name])))]
    if "drifter" in roles and not parted:
        return
    named = f"one drifter, by {roles['drifter']}" if "drifter" in roles else "no drifter"
    known = (
        f"it may be {min(parted, key=lambda name: table[name].nunique())}"
        if parted
        else "it has " + (", ".join(others[:12]) or "no other column")
    )
    raise BadInputError(
        printable(
            f"{path} names {named}, and its fixes jump as those of several: name their column with "
            f"tracks.drifter=NAME, {known}"
        )
    )


def _parquet(path: Path) -> "pd.DataFrame":
    import pandas as pd

    try:
        table = pd.read_parquet(path)
    except (OSError, ValueError) as error:
        raise DamagedDataError(f"{path} is no Parquet file: {' '.join(str(error).split())[:120]}") from error
    if isinstance(table.index, pd.DatetimeIndex) and table.index.name is None:
        table.index.name = "time"
    has_index = not isinstance(table.index, pd.RangeIndex)
    return table.reset_index() if has_index else table


def _without_units(table: "pd.DataFrame", columns: Mapping[str, str]) -> tuple["pd.DataFrame", dict[str, str]]:
    """Return a table without a first row that says units, of latitudes as well, and these by column."""
    known = [str(name) for name in table.columns]
    said = {name: str(table.iloc[0, i]).strip() for i, name in enumerate(known)} if len(table) else {}
    usual = {columns.get("latitude"), *(one for one in known if plain(one) in ROLES["latitude"])}
    latitudes = [one for one in said if one in usual or WORDS["latitude"] & words(one)]
    if not any(UNIT.fullmatch(said[one]) for one in latitudes):
        return table, {}
    return table.iloc[1:].reset_index(drop=True), said


def _degrees(
    table: "pd.DataFrame", roles: Mapping[str, str], role: str, path: Path, units: Mapping[str, str]
) -> np.ndarray:
    name = roles[role]
    taken = {one for other, one in roles.items() if other != role}
    found = in_degrees(table, name, role, str(path), units.get(role, ""), taken)
    if not np.isfinite(found).any():
        raise BadInputError(
            printable(
                f"{path}: the column {name} holds no numbers, such as {str(table[name].iloc[0])[:40]!r}: positions "
                "are degrees"
            )
        )
    return found


def _whole_names(column: "pd.Series[Any]", path: Path) -> np.ndarray:
    """Return names of drifters; refuse long numbers of which a spreadsheet has kept the first digits."""
    texts = column.astype("string").str.strip()
    if (cut := texts.str.fullmatch(CUT).fillna(False).astype(bool)).any():
        raise BadInputError(
            printable(
                f"{path}: {column.name} has {texts[cut].iloc[0]!r}, of which a spreadsheet has rounded the last digits "
                "away: write the numbers of drifters whole, as texts"
            )
        )
    return _as_names(column)


def _as_names(column: "pd.Series[Any]") -> np.ndarray:
    """Return names as texts: numbers as they are written, without a decimal that says nothing."""
    import pandas as pd

    if pd.api.types.is_float_dtype(column) and bool((column.dropna() % 1 == 0).all()):
        column = column.astype("Int64") if column.abs().max() < 2**53 else column
    texts = column.astype("string").fillna("").str.strip()
    if texts.str.fullmatch(r"(\d+\.0+)?").all():
        texts = texts.str.partition(".")[0]
    found: np.ndarray = texts.to_numpy(str)
    return found


def _drogued(
    table: "pd.DataFrame", roles: Mapping[str, str], time_s: np.ndarray, path: Path, to_s: Callable[[Any], np.ndarray]
) -> np.ndarray | None:
    """Return where the drogue was not known to be lost: by a flag, or by the date at which it was."""
    if "drogue" in roles:
        on = attached(table[roles["drogue"]], f"{path}: {roles['drogue']}")
        if on is not None:
            return on
    if "drogue_lost" not in roles:
        return None
    dates = table[roles["drogue_lost"]].astype("string").str.strip()
    if dates.dropna().str.lower().isin(FLAGS).all():
        return attached(dates, f"{path}: {roles['drogue_lost']}", of_loss=True)
    dates = dates.mask(dates.str.fullmatch(NEVER).fillna(True).astype(bool))
    if dates.isna().all():
        return None
    kept: np.ndarray = ~(time_s >= to_s(dates))  # never lost: no date
    return kept
