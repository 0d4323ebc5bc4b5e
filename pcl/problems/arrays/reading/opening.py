"""Any array of others, by what its file is called."""

__all__ = ["KINDS", "open_array", "read_whole"]


import numpy as np

from pcl.errors import BadInputError
from pcl.problems.arrays.reading.address import find
from pcl.problems.arrays.reading.stored import Stored
from pcl.storage.copies import Copies

KINDS = ".npy, .npz, .nc, .zarr, .parquet, .csv"


def open_array(
    address: str, dim: str = "", *, is_raw: bool = False, most_bytes: float = 512e6, copies: Copies | None = None
) -> Stored:
    """Open an array without reading it, but for CSV files and compressed ``.npz`` files, which are held in memory.

    Args:
        address: ``x.npy``, ``x.npz:name``, ``x.nc:variable``, ``x.zarr:variable``, ``x.parquet:column``,
            ``x.csv:a,b`` or ``x.csv:temp_*``, on this machine or in object storage.
        dim: dimension of the pairs in NetCDF and Zarr; empty: the one called ``sample``, else the leading one.
        is_raw: whether values of NetCDF and Zarr are taken as they are stored.
        most_bytes: that may be held in memory.
        copies: of objects, see ``pcl.storage.inputs``.

    Raises:
        BadInputError: there is no such file, or no such array in it.
        DamagedDataError: the file cannot be read.
    """
    found = find(address, copies)
    suffix = found.path.suffix
    if found.path.is_folder:
        from pcl.problems.arrays.reading.grids import open_zarr

        return open_zarr(found, dim, is_raw=is_raw)
    if suffix in (".nc", ".nc4", ".cdf"):
        from pcl.problems.arrays.reading.grids import open_netcdf

        return open_netcdf(found, dim, is_raw=is_raw)
    if suffix in (".parquet", ".pq", ".csv", ".tsv"):
        from pcl.problems.arrays.reading.tables import open_csv, open_parquet

        return open_csv(found, most_bytes) if suffix in (".csv", ".tsv") else open_parquet(found)
    if suffix in (".npy", ".npz"):
        from pcl.problems.arrays.reading.flat import open_npy, open_npz

        return open_npy(found) if suffix == ".npy" else open_npz(found, most_bytes)
    raise BadInputError(f"{found.label} is of no kind that is read: those are {KINDS}")


def read_whole(address: str, dim: str = "", *, most_bytes: float = 512e6) -> np.ndarray:
    """Return what is known of every pair, a group or a split: numbers or texts, shape (n,).

    Args:
        address: see ``open_array``.
        dim: see ``open_array``.
        most_bytes: see ``open_array``.

    Raises:
        BadInputError: see ``open_array``.
        DamagedDataError: see ``open_array``.
    """
    return open_array(address, dim, is_raw=True, most_bytes=most_bytes).whole()
