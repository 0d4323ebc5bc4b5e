"""From stored numbers to metres per second: what counts as missing, by the CF conventions and by habit."""

__all__ = ["Valid", "conform", "netcdf_fill", "take_zarr_fill", "to_metres_per_second", "zarr_fill"]

import contextlib
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import netCDF4
import numpy as np
import xarray as xr

from pcl.errors import BadInputError
from pcl.problems.ocean.reading.names import text
from pcl.storage.inputs import Input

LARGEST_VALUE = 1e10  # beyond it lie the fill values of every product: 1e20, 1.27e30, 9.97e36, -9.99e33
# HYCOM's fill -30000 after its scale 0.001, and without it, where a file forgot to declare it, m s-1
FILLS = (-30.0, -30000.0)
FASTEST_M_S = 3.0  # of the great currents
DIGITS = 4  # of a limit that somebody chose, such as 2.5: HYCOM writes the extremes of some field as valid_range
NARROW = 0.05  # m s-1 or cm s-1: every product has such speeds; a range without them is one in other units


@dataclass(frozen=True)
class Valid:
    """What unpacked values of a variable count.

    Attributes:
        low: smallest.
        high: largest.
        fills: values that stand for a missing one.
        is_measured: low and high are extremes of some data, not limits: plausible currents beyond them count.
    """

    low: float = -np.inf
    high: float = np.inf
    fills: tuple[float, ...] = ()
    is_measured: bool = False


def conform(variable: xr.Variable, where: str, unwritten: Callable[[], Any]) -> tuple[xr.Variable, Valid]:
    """Return a variable whose attributes make xarray mask what CF calls missing, and the rules that it does not know.

    Missing are the values of ``_FillValue`` and ``missing_value`` (of any type, one or several), NetCDF's default fill
    where none is declared, and what lies outside ``valid_range``, or ``valid_min`` and ``valid_max``, in stored units.

    Args:
        variable: as stored.
        where: file and variable, for messages.
        unwritten: gives the value that the file holds where nothing was written, None where it says so by an attribute,
            or everything was written.

    Raises:
        BadInputError: an attribute is of a type that it cannot have.

    Example:
        >>> rules = {"missing_value": -9.0, "valid_max": 5, "scale_factor": 0.5}
        >>> conform(xr.Variable("x", np.int16([1, -9, 7]), rules), "a.nc: u", lambda: None)[1]
        Valid(low=-inf, high=2.5, fills=(), is_measured=False)

    References:
        CF conventions 1.11, sections 2.5 and 8.1; NetCDF Users Guide, attribute conventions.
    """
    attributes = dict(variable.attrs)
    take_zarr_fill(attributes, variable.encoding)
    for key in ("scale_factor", "add_offset"):
        if key in attributes:
            numbers = _numbers(attributes[key])
            if numbers.size != 1 or (key == "scale_factor" and numbers[0] == 0):
                raise BadInputError(
                    f"{where}: {key} is {attributes[key]!r}: it must be a number, and no scale is 0, repair it"
                )
            # xarray masks in the type that it unpacks to, and float32 cannot tell the largest integers apart
            is_wide = variable.dtype.kind in "iu" and variable.dtype.itemsize >= 4
            attributes[key] = np.float64(numbers[0]) if is_wide else numbers[0]
    meant = _meant_type(variable)
    stored, unpacked = [], []
    for key in ("missing_value", "_FillValue"):
        for value in _numbers(attributes.pop(key, ())):
            cast = _as_meant(value, variable.dtype, meant)
            stored += [] if cast is None else [cast]
            unpacked += [float(value)] if cast is None else []
    fill = unwritten()
    stored += [] if fill is None else [np.asarray(fill, variable.dtype).view(meant)[()]]
    conforming = variable.copy(deep=False)
    conforming.attrs = attributes
    if stored:
        conforming.attrs["missing_value"] = np.array(stored, meant)
    low, high = _valid_range(variable.dtype, {**variable.attrs, **attributes}, where)
    limits = [end for end in (low, high) if np.isfinite(end)]
    is_measured = bool(limits) and variable.dtype.kind == "f" and not any(map(_is_round, limits))
    return conforming, Valid(low, high, tuple(unpacked), is_measured)


def _is_round(number: float) -> bool:
    return float(np.float32(f"{number:.{DIGITS - 1}e}")) == float(np.float32(number))


def take_zarr_fill(attributes: dict[str, Any], encoding: Mapping[Any, Any]) -> None:
    """Make the fill value of a Zarr array an attribute if somebody chose it, and take away the usual zero.

    Every array of the second format has a fill value, 0 unless told otherwise: where all chunks have been written a
    zero is a current, and one of a coordinate a place.

    Args:
        attributes: of the array, changed in place.
        encoding: as xarray tells it.
    """
    if "compressors" not in encoding:
        return  # not of a Zarr store
    if "fill_value" in encoding:  # the third format, where missing values are declared by the attribute
        if encoding["fill_value"] != 0:
            attributes.setdefault("_FillValue", encoding["fill_value"])
    elif attributes.get("_FillValue") == 0 and not attributes.get("add_offset"):
        del attributes["_FillValue"]


def _numbers(value: Any) -> np.ndarray:
    """Return the numbers of an attribute, also where they are written as text; none where it holds no numbers."""
    with contextlib.suppress(TypeError, ValueError):
        numbers = np.atleast_1d(np.asarray(value)).ravel()
        numbers = numbers.astype(np.float64) if numbers.dtype.kind not in "iuf" else numbers
        return numbers[~np.isnan(numbers)] if numbers.dtype.kind == "f" else numbers
    return np.empty(0)


def _cast(value: Any, dtype: np.dtype[Any]) -> Any:
    """Return a value in the type of the stored numbers, None where that type cannot hold it."""
    if dtype.kind == "f":
        with np.errstate(over="ignore"):
            return np.asarray(value).astype(dtype)[()]
    if dtype.kind in "iu" and float(value).is_integer():
        bounds = np.iinfo(dtype)
        number = int(value)
        if dtype.kind == "u" and bounds.min > number >= -(bounds.max + 1) // 2:
            number += bounds.max + 1  # written as signed
        return dtype.type(number) if bounds.min <= number <= bounds.max else None
    return None


def _meant_type(variable: xr.Variable) -> np.dtype[Any]:
    """Return the type that stored integers are meant to have: files without unsigned types say so by an attribute."""
    unsigned, dtype = text(variable.attrs, "_Unsigned").lower(), variable.dtype
    kind = {("true", "i"): "u", ("false", "u"): "i"}.get((unsigned, dtype.kind), dtype.kind)
    return np.dtype(f"{kind}{dtype.itemsize}") if dtype.kind in "iu" else dtype


def _as_meant(value: Any, stored: np.dtype[Any], meant: np.dtype[Any]) -> Any:
    """Return a value of an attribute in the type that numbers are meant to have, None if it is none of them."""
    cast = _cast(value, stored)
    return _cast(value, meant) if cast is None else np.asarray(cast, stored).view(meant)[()]


def _valid_range(dtype: np.dtype[Any], attributes: Mapping[Any, Any], where: str) -> tuple[float, float]:
    """Return the smallest and the largest valid value, unpacked."""
    both = _numbers(attributes.get("valid_range", ()))
    single = [_numbers(attributes.get(key, ()))[:1] for key in ("valid_min", "valid_max")]
    ends = [both[:1], both[1:]] if both.size == 2 else single
    low, high = (
        _unpack(dtype, attributes, end[0]) if end.size else unlimited
        for end, unlimited in zip(ends, (-np.inf, np.inf), strict=True)
    )
    if attributes.get("scale_factor", 1) < 0:  # the smallest that is stored is the largest
        low, high = (-np.inf if np.isinf(high) else high), (np.inf if np.isinf(low) else low)
    as_stored = all(end.dtype == dtype for end in ends if end.size)
    if "scale_factor" in attributes and not as_stored and (low > -NARROW or high < NARROW):
        raise BadInputError(
            f"{where}: its valid range is {low:.3g} to {high:.3g} once unpacked: it must be in stored units, as "
            f"{dtype}; correct or delete valid_range, valid_min, valid_max"
        )
    return low, high


def _unpack(dtype: np.dtype[Any], attributes: Mapping[Any, Any], end: Any) -> float:
    """Return a bound in unpacked units, with the very rounding that values get."""
    cast = _cast(end, dtype)
    if cast is None:  # no number of the stored type: it is meant unpacked
        return float(end)
    packing = {key: attributes[key] for key in ("scale_factor", "add_offset", "_Unsigned") if key in attributes}
    stored = xr.Variable(("end",), np.array([cast], dtype), packing)
    return float(xr.conventions.decode_cf_variable("end", stored).values[0])


def netcdf_fill(path: Input, group: str, name: str, variable: xr.Variable) -> Any:
    """Return what a NetCDF file holds where nothing was written, None where it declares it or was told not to fill.

    As for netCDF4-python, bytes have no such value, and those of floats are beyond all currents anyway.

    Args:
        path: of the file.
        group: of the variable, or one inside the group of the variable; empty for the root.
        name: of the variable.
        variable: as stored.
    """
    if "_FillValue" in variable.attrs or variable.dtype.kind not in "iu" or variable.dtype.itemsize == 1:
        return None
    with path.held() as held, netCDF4.Dataset(held) as file:
        place = file[group] if group.strip("/") else file
        while name not in place.variables:
            place = place.parent
        return place[name].get_fill_value()


def zarr_fill(path: Input, group: str, name: str, variable: xr.Variable) -> Any:
    """Return what a Zarr store holds where nothing was written, None where all chunks are there.

    Arguments are those of ``netcdf_fill``.
    """
    groups = [part for part in group.split("/") if part]
    while groups and not path.below(*groups, name).is_folder:
        groups.pop()
    sizes = variable.encoding.get("shards") or variable.encoding["chunks"]
    num_chunks = math.prod(-(-size // chunk) for size, chunk in zip(variable.shape, sizes, strict=True))
    written = (file.rpartition("/")[2] for file in path.below(*groups, name).sizes())
    if sum(file != "zarr.json" and not file.startswith(".") for file in written) >= num_chunks:
        return None
    return variable.encoding.get("fill_value", variable.attrs.get("_FillValue"))


def to_metres_per_second(values: np.ndarray, units_per: float, valid: Valid) -> np.ndarray:
    """Return float32 m s-1, NaN where a value is missing; the division is in double, so cm s-1 round only once.

    Args:
        values: unpacked, of any shape.
        units_per: how many of their units make 1 m s-1.
        valid: what counts.

    Example:
        >>> to_metres_per_second(np.array([50.0, 1e20, 400.0]), 100.0, Valid(high=300.0))
        array([0.5, nan, nan], dtype=float32)
    """
    values = np.asarray(values)
    low, high = valid.low, valid.high
    if valid.is_measured:
        low, high = min(low, -FASTEST_M_S * units_per), max(high, FASTEST_M_S * units_per)
    counts = (np.abs(values) <= LARGEST_VALUE) & (values >= low) & (values <= high)
    values = np.where(counts, values, np.nan).astype(np.float64) / units_per
    for fill in (*FILLS, *(fill / units_per for fill in valid.fills)):
        values[np.abs(values - fill) < 1e-4] = np.nan
    return values.astype(np.float32)
