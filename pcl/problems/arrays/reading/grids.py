"""Variables of NetCDF files and Zarr stores, read a few whole chunks at a time."""

__all__ = ["open_netcdf", "open_zarr"]

import math
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any, ClassVar

import netCDF4
import numpy as np
import xarray as xr
import zarr

from pcl.errors import BadInputError, printable
from pcl.problems.arrays.reading.address import Address, choose
from pcl.problems.arrays.reading.stored import Coordinate, Stored, block_edges, damaged
from pcl.storage.remote_netcdf import lazily_fetched

SAMPLE = "sample"  # the dimension of the pairs, where there is one of this name
COPIES = (
    10  # of a block: what is read, what is decoded, and what the allocator keeps of the threads of Zarr, as measured
)
CACHE_BYTES = 1 << 20  # of HDF5: chunks are read once, whole
ONE_READER = {"async.concurrency": 1}  # of a task: there are as many tasks as CPUs, and each thread keeps memory


@dataclass(frozen=True, kw_only=True)
class Variable(Stored):
    """A variable that xarray reads.

    Attributes:
        address: of the file and the variable.
        engine: what xarray reads it with.
        dim: dimension of the pairs.
        is_raw: whether values are taken as they are stored: neither unpacked nor compared with what says "missing".
    """

    address: Address
    engine: str
    dim: str
    is_raw: bool
    copies: ClassVar[int] = COPIES

    @cached_property
    def opened(self) -> xr.DataArray:
        """The variable, of which nothing is read."""
        return _open(self.address, self.engine, self.is_raw)[self.address.name.rpartition("/")[2]]

    def load(self, start: int, stop: int) -> np.ndarray:
        """Return rows start .. stop - 1."""
        with zarr.config.set(ONE_READER):
            return np.asarray(self.opened.isel({self.dim: slice(start, stop)}).transpose(self.dim, ...).values)

    def coordinate(self) -> Coordinate | None:
        """Return the index coordinate of the dimension of the pairs: times as dates, so that their units are alike."""
        with damaged(self.label):
            found = _open(self.address, self.engine, is_raw=True)
            if self.dim not in found.indexes:
                return None
            alone = found[[self.dim]]
            with warnings.catch_warnings(), suppress(ValueError, OverflowError):  # units that are no dates: numbers
                warnings.simplefilter("ignore")
                alone = xr.decode_cf(alone)
            return Coordinate(self.label, self.dim, alone[self.dim].values)


@dataclass(frozen=True, kw_only=True)
class Chunked(Stored):
    """An array of a Zarr store that names no dimensions: the leading one is that of the pairs.

    Attributes:
        address: of the store and the array.
    """

    address: Address
    copies: ClassVar[int] = COPIES

    @cached_property
    def opened(self) -> zarr.Array[Any]:
        """The array, of which nothing is read."""
        found = zarr.open_array(self.address.path.store(), path=self.address.name, mode="r")
        return found

    def load(self, start: int, stop: int) -> np.ndarray:
        """Return rows start .. stop - 1."""
        with zarr.config.set(ONE_READER):
            return np.asarray(self.opened[start:stop])


def open_netcdf(address: Address, dim: str = "", *, is_raw: bool = False) -> Stored:
    """Open a variable of a NetCDF file.

    Args:
        address: ``file.nc:variable``, or ``file.nc:group/variable``.
        dim: dimension of the pairs; empty: the one called ``sample``, else the leading one.
        is_raw: see ``Variable``.

    Raises:
        BadInputError: there is no such variable or dimension.
        DamagedDataError: the file is no NetCDF.
    """
    return _variable(address, "netcdf4", dim, is_raw)


def open_zarr(address: Address, dim: str = "", *, is_raw: bool = False) -> Stored:
    """Open an array of a Zarr store.

    Args:
        address: ``folder.zarr:variable``, ``folder.zarr:group/variable``, or a folder that is an array itself.
        dim: see ``open_netcdf``.
        is_raw: see ``Variable``.

    Raises:
        BadInputError: there is no such array or dimension.
        DamagedDataError: the folder is no Zarr store.
    """
    with damaged(address.label):
        found = zarr.open(address.path.store(), mode="r")
        if isinstance(found, zarr.Array):
            return _chunked(Address(address.path, ""), dim)
        names = sorted(name for name, member in found.members(max_depth=None) if isinstance(member, zarr.Array))
        at_root = [name for name in names if "/" not in name and name not in _coordinates(found)]
        address = Address(address.path, address.name if address.name in names else choose(address, at_root, "variable"))
        group = address.name.rpartition("/")[0]
        around = zarr.open_group(address.path.store(), path=group, mode="r")
        without = sorted(name for name, array in around.arrays() if not _dims_of(array))
    if address.name.rpartition("/")[2] in without:
        return _chunked(address, dim)
    if without:
        raise BadInputError(
            f"{address.label}: {without[0]} beside it names no dimensions, and all arrays of a group must do so "
            "or none: keep them in groups of their own"
        )
    return _variable(address, "zarr", dim, is_raw)


def _coordinates(group: Any) -> set[str]:
    """Return the arrays of a group that say where its dimensions lie."""
    return {name for name, array in group.arrays() if _dims_of(array) == [name]}


def _dims_of(array: Any) -> list[str]:
    """Return the dimensions that an array names, in either format of Zarr, none where it names none."""
    names = array.attrs.get("_ARRAY_DIMENSIONS") or getattr(array.metadata, "dimension_names", None)
    return list(names or ())


def _chunked(address: Address, dim: str) -> Stored:
    with damaged(address.label):
        array = zarr.open_array(address.path.store(), path=address.name, mode="r")
        if dim:
            raise BadInputError(f"{address.label} names no dimensions, so none is {dim}: leave sample_dim empty")
        shape, dtype = tuple(array.shape), np.dtype(array.dtype)
        rows = int(array.chunks[0]) if shape else 1
    edges = block_edges(shape[0] if shape else 0, dtype.itemsize * math.prod(shape[1:]), max(1, rows))
    return Chunked(label=address.label, shape=shape, dtype=dtype, edges=edges, address=address)


def _variable(address: Address, engine: str, dim: str, is_raw: bool) -> Stored:
    with damaged(address.label):
        dataset = _open(address, engine, is_raw)
        known = [str(name) for name in dataset.data_vars] + [str(name) for name in dataset.coords if address.name]
        group, _, name = address.name.rpartition("/")
        name = choose(Address(address.path, name), known, "variable")
        address = Address(address.path, f"{group}/{name}" if group else name)
        array = dataset[name]
        dims = [str(one) for one in array.dims]
        dim = _dim_of_pairs(address, dims, dim)
        stored = array.encoding.get("chunks") or array.encoding.get("chunksizes")
        rows = stored[dims.index(dim)] if stored and dim else 1
        shape = (array.sizes[dim], *(array.sizes[one] for one in dims if one != dim)) if dim else ()
        said = {key: printable(array.attrs.get(key, ""))[:200] for key in ("units", "long_name")}
    edges = block_edges(shape[0] if shape else 0, array.dtype.itemsize * math.prod(shape[1:]), max(1, int(rows)))
    return Variable(
        label=address.label,
        shape=shape,
        dtype=array.dtype,
        edges=edges,
        units=said["units"] or "1",
        meaning=said["long_name"],
        address=address,
        engine=engine,
        dim=dim,
        is_raw=is_raw,
    )


def _dim_of_pairs(address: Address, dims: list[str], dim: str) -> str:
    if dim and dim not in dims:
        found = ", ".join(dims) or "none"
        raise BadInputError(printable(f"{address.label} has no dimension {dim}, but {found}: sample_dim must name one"))
    return dim or (SAMPLE if SAMPLE in dims else dims[0] if dims else "")


def _open(address: Address, engine: str, is_raw: bool) -> xr.Dataset:
    """Open a group of a file; times stay numbers, and nothing that is read is kept."""
    group = address.name.rpartition("/")[0]
    open_file = partial(_open_file, engine=engine, group=group, is_raw=is_raw)
    if engine == "zarr":
        return open_file(address.path.store())
    return lazily_fetched(address.path, open_file) if address.path.is_remote else open_file(str(address.path))


def _open_file(file: Any, engine: str, group: str, *, is_raw: bool) -> xr.Dataset:
    more: Any = {"consolidated": False} if engine == "zarr" else {}  # what an array says of itself is hashed with it
    with warnings.catch_warnings(), _small_cache():
        warnings.simplefilter("ignore")  # several fill values, no consolidated metadata: neither is an obstacle
        return xr.open_dataset(
            file,
            engine=engine,
            group=group or None,
            decode_times=False,
            mask_and_scale=not is_raw,
            cache=False,
            **more,
        )


@contextmanager
def _small_cache() -> Iterator[None]:
    """Let files that are opened keep little: HDF5 would keep 64 MB of every variable."""
    found = netCDF4.get_chunk_cache()
    netCDF4.set_chunk_cache(CACHE_BYTES)
    try:
        yield
    finally:
        netCDF4.set_chunk_cache(*found)
