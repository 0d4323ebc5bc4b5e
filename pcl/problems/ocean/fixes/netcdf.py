"""Fixes from NetCDF and Zarr: trajectories of CF, ragged or not, and what models of particles write."""

__all__ = ["read_trajectories", "refuse_fields"]

import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pcl.errors import BadInputError, DamagedDataError, printable
from pcl.problems.ocean.fixes.degrees import to_degrees, to_unit
from pcl.problems.ocean.fixes.drifters import of_several, parting
from pcl.problems.ocean.fixes.drogues import attached, means_attached
from pcl.problems.ocean.fixes.fixes import Fixes
from pcl.problems.ocean.fixes.names import ROLES, drifter_names, find_roles, plain
from pcl.problems.ocean.fixes.place_columns import turned
from pcl.problems.ocean.fixes.times import NAMED, to_seconds
from pcl.problems.ocean.reading.time import read_times

if TYPE_CHECKING:
    import xarray as xr

STANDARD = {"latitude": "latitude", "longitude": "longitude", "time": "time"}  # standard names by role
UNITS = {
    "latitude": ("degreesnorth", "degreenorth", "degreen", "degreesn"),
    "longitude": ("degreeseast", "degreeeast", "degreee", "degreese"),
}
NOT_TRACKS = ("profile", "timeseries", "timeseriesprofile", "trajectoryprofile")
ROW_SIZES = ("rowsize", "rowsizes", "obscount", "count")
TRAJECTORIES = re.compile(r"traj|drifter|particle|buoy|float|platform|member|ensemble|realization|^id|^seed|_id$")
OBSERVATIONS = re.compile(r"obs|time|record|sample|step|fix")
LARGEST = 1e10  # of degrees and flags: a larger number stands for a missing one
LARGEST_TIME = 5e18  # nanoseconds since 1970 are 1.7e18


def read_trajectories(path: Path, columns: Mapping[str, str], *, time_units: str = "", time_zone: str = "UTC") -> Fixes:
    """Read the fixes of trajectories.

    Understood are variables that share one dimension, with an index or counts of trajectories (contiguous or indexed
    ragged arrays, as of clouddrift and the hourly drifters of the Global Drifter Program), and arrays of trajectories
    by observations or by times, either first (Parcels, OpenDrift).

    Args:
        path: a NetCDF file or a Zarr store.
        columns: names of variables by role, where they have no usual name.
        time_units: of times whose attribute ``units`` names no day that they are counted from.
        time_zone: of times that are texts and do not say theirs.

    Raises:
        BadInputError: a variable is missing, or it is a file of fields.
        DamagedDataError: the file cannot be read.
    """
    import xarray as xr

    is_store = path.is_dir()
    try:
        opened = xr.open_zarr(path, decode_times=False) if is_store else xr.open_dataset(path, decode_times=False)
    except Exception as error:  # whatever the libraries below make of a file that is none
        raise DamagedDataError(f"{path} cannot be opened ({type(error).__name__}): give a file of tracks") from error
    with opened as dataset:
        refuse_fields(dataset, path)
        told = {**_by_attributes(dataset), **columns}
        roles = find_roles([str(name) for name in dataset.variables], told, str(path))
        try:
            layout = _Layout(dataset, roles, path, partial(_seconds, time_units=time_units, time_zone=time_zone))
            return layout.fixes(is_told="drifter" in told)
        except (OSError, RuntimeError) as error:
            raise DamagedDataError(printable(f"{path} cannot be read ({error}): it is damaged"[:200])) from error


def refuse_fields(dataset: "xr.Dataset", path: Path) -> None:
    """Refuse a file of fields: it has axes of latitude and longitude, and a variable on both.

    Raises:
        BadInputError: it is one.
    """
    kind = str(dataset.attrs.get("featureType", "")).strip()
    if kind.lower() in NOT_TRACKS:
        raise BadInputError(f"{path} holds featureType '{kind}' and no tracks: give files of drifters to --tracks")
    axes = [_axes(dataset, role) for role in ("latitude", "longitude")]
    for latitude in axes[0]:
        for longitude in axes[1]:
            both = {*latitude.dims, *longitude.dims}
            on_both = [one for one in dataset.data_vars.values() if both <= {*one.dims}]
            is_grid = latitude.ndim == longitude.ndim == 1 and latitude.dims != longitude.dims and on_both
            is_curved = latitude.ndim == 2 and any(len(one.dims) > 2 for one in on_both)
            if is_grid or is_curved:
                raise BadInputError(
                    f"{path} holds fields on a grid and no tracks: give files of drifters to --tracks, and train on "
                    "fields with data.ocean.paths"
                )


def _axes(dataset: "xr.Dataset", role: str) -> list[Any]:
    names = ROLES[role]
    return [one for name, one in dataset.variables.items() if plain(str(name)) in names or _has_units(one, role)]


def _has_units(variable: Any, role: str) -> bool:
    return plain(str(variable.attrs.get("units", ""))) in UNITS[role]


def _by_attributes(dataset: "xr.Dataset") -> dict[str, str]:
    """Return the variables of roles that attributes tell: by standard name, the role of an identifier, or units."""

    def only(holds: Callable[[Any], bool]) -> str | None:
        found = [str(name) for name, one in dataset.variables.items() if holds(one)]
        return found[0] if len(found) == 1 else None

    named: dict[str, str | None] = {}
    for role, standard in STANDARD.items():
        named[role] = only(lambda one, name=standard: one.attrs.get("standard_name") == name)  # type: ignore[misc]
    for role in UNITS:
        named[role] = named[role] or only(lambda one, role=role: _has_units(one, role))  # type: ignore[misc]
    named["drifter"] = only(lambda one: one.attrs.get("cf_role") == "trajectory_id")
    return {role: name for role, name in named.items() if name}


class _Layout:
    """How the fixes of a file lie: variables have the shape of the latitudes, of one axis, or of the trajectories."""

    def __init__(
        self, dataset: "xr.Dataset", roles: Mapping[str, str], path: Path, to_s: Callable[..., np.ndarray]
    ) -> None:
        self.dataset, self.roles, self.path, self.to_s = dataset, roles, path, to_s
        self.latitude = dataset[roles["latitude"]]
        if self.latitude.ndim not in (1, 2):
            raise BadInputError(
                f"{path}: {self.latitude.name} has shape {self.latitude.shape}: tracks are rows, or trajectories by "
                "times"
            )

    def fixes(self, *, is_told: bool) -> Fixes:
        """Return all fixes, without the ends of rows that are shorter than the longest.

        Args:
            is_told: whether it is said, not only usual, which variable names drifters.
        """
        if not self.latitude.size:
            raise BadInputError(f"{self.path} holds no fixes: give files of tracks")
        time = self.dataset[self.roles["time"]]
        time_s = self.to_s(self._spread(time), time.attrs, f"{self.path}: {time.name}")
        latitude, longitude = (self._degrees(role) for role in ("latitude", "longitude"))
        unnamed = Fixes(np.full(len(time_s), self.path.stem), time_s, latitude, longitude, self._drogued(time_s))
        found = replace(unnamed, name=self._names(unnamed, is_told))
        if "drifter" not in self.roles and len(found.names) == 1 and of_several(found):
            raise BadInputError(
                f"{self.path} names no drifter, and its fixes jump as those of several: name their variable with "
                "tracks.drifter=NAME"
            )
        return found[np.isfinite(latitude) | np.isfinite(longitude)] if self.latitude.ndim == 2 else found

    def _degrees(self, role: str) -> np.ndarray:
        variable = self.dataset[self.roles[role]]
        where, unit = f"{self.path}: {variable.name}", str(variable.attrs.get("units", ""))
        values = self._spread(variable)
        if values.dtype.kind in "OSU":
            return turned(to_degrees([_as_text(one) for one in values.tolist()], role, where), "", role, unit, where)
        found = _known(values, where)
        # by its unit a number counts west whatever its sign; its name only says so of numbers without one
        return to_unit(found, unit) if (found < 0).any() else turned(found, str(variable.name), role, unit, where)

    def _spread(self, variable: "xr.DataArray") -> np.ndarray:
        """Return a variable at every fix."""
        dims = self.latitude.dims
        if {*variable.dims} <= {*dims}:
            return np.asarray(variable.broadcast_like(self.latitude).transpose(*dims).values).ravel()
        values: np.ndarray = np.asarray(variable.values).ravel()
        if (index := self._index_of(variable)) is not None:
            values = values[index]
            return values
        return np.repeat(values, self._row_sizes(variable))

    def _index_of(self, variable: "xr.DataArray") -> np.ndarray | None:
        """Return the trajectory of each fix, of an indexed ragged array."""
        for one in self.dataset.variables.values():
            if one.attrs.get("instance_dimension") in variable.dims and one.dims == self.latitude.dims:
                index = np.asarray(one.values).astype(int)
                if len(index) and index.min() >= 0 and index.max() < variable.size:
                    return index
        return None

    def _row_sizes(self, variable: "xr.DataArray") -> np.ndarray:
        """Return how many fixes each trajectory has, of a contiguous ragged array."""
        for name, one in self.dataset.variables.items():
            is_count = "sample_dimension" in one.attrs or plain(str(name)) in ROW_SIZES
            if is_count and one.dims == variable.dims:
                sizes: np.ndarray = np.nan_to_num(np.asarray(one.values)).astype(int)
                if sizes.sum() == self.latitude.size and sizes.min() >= 0:
                    return sizes
        raise BadInputError(
            printable(
                f"{self.path}: {variable.name} has {variable.size} values for {self.latitude.size:,} fixes, and no "
                "variable counts the fixes of each, such as rowsize with the attribute sample_dimension"
            )
        )

    def _names(self, fixes: Fixes, is_told: bool) -> np.ndarray:
        """Return the name of the drifter of every fix: that of the file and a number where it has none."""
        named = self.roles.get("drifter")
        # a scalar names the drifter of a file of one, and is a container of attributes in others
        is_of_one = self.latitude.ndim == 1 and self._number() is None
        if named is not None and (is_of_one or self.dataset[named].ndim):
            names = {name: self._texts(name) for name in (named, *self._other_names(is_told or not is_of_one))}
            return names[parting(fixes, names, str(self.path))]
        if self.latitude.ndim == 2:
            return self._numbered(self._along(self._axis_of_trajectories(fixes)))
        return fixes.name if (of := self._number()) is None else self._numbered(of)

    def _texts(self, name: str) -> np.ndarray:
        return np.array([_as_text(one) for one in self._spread(self.dataset[name])])

    def _other_names(self, is_told: bool) -> list[str]:
        """Return what else may name the drifter of each fix, where that is not told."""
        free = [str(name) for name, one in self.dataset.variables.items() if one.dims == self.latitude.dims]
        return [] if is_told else drifter_names([name for name in free if name not in self.roles.values()])

    def _along(self, axis: int) -> np.ndarray:
        """Return the number of each fix along an axis."""
        number: np.ndarray = np.indices(self.latitude.shape)[axis].ravel()
        return number

    def _numbered(self, numbers: np.ndarray) -> np.ndarray:
        named: np.ndarray = np.char.add(f"{self.path.stem} ", numbers.astype(str))  # those of another file are others
        return named

    def _number(self) -> np.ndarray | None:
        """Return the number of the trajectory of each fix, of a ragged array that does not name them."""
        for name, one in self.dataset.variables.items():
            values = np.asarray(one.values)
            if "instance_dimension" in one.attrs and one.dims == self.latitude.dims:
                return values.astype(int)
            if ("sample_dimension" in one.attrs or plain(str(name)) in ROW_SIZES) and one.ndim == 1:
                sizes = np.nan_to_num(values).astype(int)
                if sizes.min(initial=0) >= 0 and sizes.sum() == self.latitude.size:
                    return np.repeat(np.arange(len(sizes)), sizes)
        return None

    def _axis_of_trajectories(self, fixes: Fixes) -> int:
        """Return which axis is not that of times: by names, then by times, then by motion; else the first, as of CF."""
        time = self.dataset[self.roles["time"]]
        dims = self.latitude.dims
        if time.ndim == 1 and time.dims[0] in dims:
            return 1 - dims.index(time.dims[0])
        for names, other in ((TRAJECTORIES, 0), (OBSERVATIONS, 1)):
            named = [axis for axis in (0, 1) if names.search(str(dims[axis]).lower())]
            if len(named) == 1:
                return abs(named[0] - other)
        time_s = fixes.time_s.reshape(self.latitude.shape)
        growing = [bool((np.diff(time_s, axis=axis) > 0).any() and _grows(time_s, axis)) for axis in (0, 1)]
        if growing[0] != growing[1]:
            return int(growing[0])
        jumps = [of_several(replace(fixes, name=self._along(axis).astype(str))) for axis in (0, 1)]
        return int(jumps[0] and not jumps[1])

    def _drogued(self, time_s: np.ndarray) -> np.ndarray | None:
        """Return where the drogue was not known to be lost: by a flag, or by the date at which it was."""
        if "drogue" in self.roles:
            return self._flags(self.dataset[self.roles["drogue"]], of_loss=False)
        if "drogue_lost" not in self.roles:
            return None
        lost = self.dataset[self.roles["drogue_lost"]]
        values = self._spread(lost)
        if values.dtype.kind == "b" or "flag_meanings" in lost.attrs or _are_flags(values, lost.attrs):
            return self._flags(lost, of_loss=True)
        if not lost.attrs.get("units") and values.dtype.kind in "iuf":
            values = np.where(values > 0, values, np.nan)  # 0: never
        when = self.to_s(values, lost.attrs, f"{self.path}: {lost.name}")
        on: np.ndarray = ~((time_s >= when) & (when > 0))  # never lost: no date, or none after 1970
        return on

    def _flags(self, variable: "xr.DataArray", *, of_loss: bool) -> np.ndarray | None:
        """Return where a flag does not say that the drogue is lost, by what the file says that its values mean."""
        values, where = self._spread(variable), f"{self.path}: {variable.name}"
        values = _known(values, where) if values.dtype.kind in "iuf" else values
        texts = np.array([_as_text(one) for one in values.tolist()])
        meanings = str(variable.attrs.get("flag_meanings", "")).lower().split()
        if not meanings:
            return attached(texts, where, of_loss=of_loss)
        flags = [_as_text(one) for one in np.atleast_1d(variable.attrs.get("flag_values", ())).tolist()]
        meant = [means_attached(one, of_loss=of_loss) for one in meanings]
        if len(flags) != len(meanings) or not any(one is False for one in meant):
            raise BadInputError(
                printable(
                    f"{where} has flag_values {', '.join(flags) or 'none'} and flag_meanings '{' '.join(meanings)}', "
                    "which do not say when the drogue is lost: write a meaning for each value, such as 'lost attached'"
                )
            )
        return ~np.isin(texts, [flag for flag, one in zip(flags, meant, strict=True) if one is False])


def _grows(time_s: np.ndarray, axis: int) -> bool:
    """Return whether times never stay or go back along an axis, but for those that are missing."""
    steps = np.diff(time_s, axis=axis)
    return bool((steps[np.isfinite(steps)] > 0).all())


def _are_flags(values: np.ndarray, attributes: Mapping[Any, Any]) -> bool:
    """Return whether values tell whether the drogue is lost, not when."""
    if values.dtype.kind in "OSU":
        return all(_as_text(one).lower() in ("", "0", "1", "true", "false", "yes", "no") for one in values.tolist())
    return values.dtype.kind in "iu" and not attributes.get("units") and bool(np.isin(values, (0, 1)).all())


def _as_text(value: Any) -> str:
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace").strip("\0 ")
    if isinstance(value, (float, np.floating)):
        return np.format_float_positional(value, trim="-") if np.isfinite(value) else ""
    return str(value).strip("\0 ")


def _seconds(
    values: np.ndarray, attributes: Mapping[Any, Any], where: str, *, time_units: str, time_zone: str
) -> np.ndarray:
    """Return seconds since 1970-01-01 UTC, NaN where there is no time."""
    if values.dtype.kind in "OSU":
        texts = [_as_text(one) for one in values.tolist()]
        return to_seconds(texts, where, units=time_units, time_zone=time_zone)
    numbers = _known(values, where, LARGEST_TIME)
    seconds, known = np.full(len(numbers), np.nan), np.isfinite(numbers)
    units = str(attributes.get("units") or "").strip()
    if "since" not in units.lower():  # only how long a unit is, if anything
        units = time_units
        if units.strip().lower() in NAMED or not units:
            _refuse_other_units(attributes, time_units, where)
            seconds[known] = to_seconds(numbers[known], where, units=units) if known.any() else np.nan
            return seconds
    if known.any():
        stated = {**attributes, "units": units}
        if units.startswith("nanoseconds"):
            numbers, stated["units"] = numbers / 1e9, units.removeprefix("nano")
        distinct, index = np.unique(numbers[known], return_inverse=True)
        found, calendar, _ = read_times(distinct, stated, where)
        _refuse_calendar(calendar, where)
        seconds[known] = found[index]
    return seconds


def _refuse_calendar(calendar: str, where: str) -> None:
    if calendar not in ("standard", "julian"):
        raise BadInputError(
            f"{where} has the calendar '{calendar}', whose days are not those of drifters: write times in the "
            "standard calendar"
        )


def _refuse_other_units(attributes: Mapping[Any, Any], time_units: str, where: str) -> None:
    """Refuse days, hours or minutes since nothing: only seconds, or parts of them, are of 1970 by their size."""
    said = str(attributes.get("units") or "").strip()
    if not time_units and re.fullmatch(r"(?i)(d|days?|h|hrs?|hours?|mins?|minutes?|months?|years?)", said):
        raise BadInputError(
            printable(
                f"{where} is in '{said}', since when is not said: say it, such as tracks.time_units='{said} since "
                "1950-01-01', or matlab, excel, julian, modified julian"
            )
        )


def _known(values: np.ndarray, where: str, largest: float = LARGEST) -> np.ndarray:
    """Return numbers, NaN where one stands for a missing one."""
    if values.dtype.kind not in "biuf":
        raise BadInputError(f"{where} is stored as {values.dtype}: store numbers with units")
    found = values.astype(np.float64)
    return np.where(np.abs(found) < largest, found, np.nan)
