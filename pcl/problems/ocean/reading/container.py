"""The container of a file of currents, NetCDF or Zarr: opened as it is stored, group by group."""

__all__ = ["attributes_of", "groups_of", "one_line", "open_dataset"]

import warnings
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from typing import Any

import netCDF4
import xarray as xr
import zarr

from pcl.errors import BadInputError
from pcl.problems.ocean.reading.classic_netcdf import missing_bytes
from pcl.problems.ocean.reading.layouts import SAID, damaged
from pcl.storage.inputs import Input
from pcl.storage.remote_netcdf import lazily_fetched


@contextmanager
def one_line(path: Input) -> Iterator[None]:
    """Turn whatever a library raises on the content of a file into one line that names it."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # several fill values, no consolidated metadata: neither is an obstacle
            yield
    except SAID:
        raise
    except Exception as error:
        reason = f"{type(error).__name__}: {' '.join(str(error).split())[:120]}"
        raise BadInputError(
            f"{path} cannot be understood ({reason}): repair the attributes of its variables, or leave it out"
        ) from error


def _refuse_other_formats(path: Input) -> None:
    """Refuse what is no field at all by its own name: tables of text, GRIB."""
    if path.is_folder:
        return
    try:
        head = path.read(0, 8192)
    except OSError:
        return  # it cannot be read at all, as has been found
    if head[:4] == b"GRIB":
        raise BadInputError(f"{path} is GRIB: convert it to NetCDF first")
    lines = head.decode("latin-1").splitlines()
    separated = [line for line in lines if any(line.count(separator) >= 2 for separator in ",;\t")]
    is_markup = head.lstrip()[:1] == b"<"  # a login page that was saved as data
    is_text = len(separated) >= 2 and not is_markup and all(byte >= 32 or byte in b"\r\n\t" for byte in head)
    if is_text or head[:4] == b"PAR1":
        raise BadInputError(
            f"{path} is a table, such as tracks of drifters: data.ocean.paths must lead to gridded currents, "
            "NetCDF or Zarr"
        )


def open_dataset(path: Input, group: str) -> xr.Dataset:
    """Open a group of a file with everything as it is stored; what it lacks comes from the groups around it."""
    try:
        if num_missing := _missing_bytes(path):
            raise ValueError(f"{num_missing} bytes are missing at its end")
        root = _open_one(path, "")
        groups = groups_of(path) if group else []
    except SAID:
        raise
    except Exception as error:
        with one_line(path):
            _refuse_other_formats(path)
        raise damaged(path, error) from error
    names = [name for name in group.split("/") if name]
    if names and "/".join(names) not in groups:
        raise BadInputError(
            f"{path} has no group {group}, but {', '.join(groups) or 'no groups'}: data.ocean.group must name one of "
            "them, or be empty"
        )
    dataset = root
    with one_line(path):
        for level in range(len(names)):
            inner = _open_one(path, "/".join(names[: level + 1]))
            around = {
                name: values
                for name, values in dataset.variables.items()
                if all(inner.sizes.get(dim) == size for dim, size in values.sizes.items())
            }
            dataset = xr.Dataset({**around, **inner.variables}, attrs={**dataset.attrs, **inner.attrs})
    return dataset


def _missing_bytes(path: Input) -> int:
    if path.is_folder:
        return 0
    with path.held() as file:
        return missing_bytes(str(file))


def _open_one(path: Input, group: str) -> xr.Dataset:
    if path.is_folder:
        return _opened(path.store(), engine="zarr", group=group)
    open_file = partial(_opened, engine="netcdf4", group=group)  # it also reads the classic format
    return lazily_fetched(path, open_file) if path.is_remote else open_file(path)


def _opened(file: Any, engine: str, group: str) -> xr.Dataset:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return xr.open_dataset(
            file, engine=engine, group=group or None, decode_times=False, mask_and_scale=False, cache=False
        )


def attributes_of(path: Input) -> dict[str, str]:
    """Return what a file or a store says of itself."""
    with path.held() if not path.is_folder else nullcontext(path.store()) as file, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        engine = "zarr" if path.is_folder else "netcdf4"
        with xr.open_dataset(file, engine=engine, decode_cf=False) as dataset:
            return {str(name): str(value) for name, value in dataset.attrs.items()}


def groups_of(path: Input) -> list[str]:
    """Return the groups of a file that hold variables, with the groups around them."""
    if path.is_folder:
        members = zarr.open_group(path.store(), mode="r").members(max_depth=None)
        return sorted({name.rpartition("/")[0] for name, member in members if isinstance(member, zarr.Array)} - {""})

    def below(parent: netCDF4.Dataset) -> Iterator[str]:
        for inner in parent.groups.values():
            if inner.variables:
                yield inner.path.strip("/")
            yield from below(inner)

    with path.held() as held, netCDF4.Dataset(held) as file:
        return sorted(below(file))
