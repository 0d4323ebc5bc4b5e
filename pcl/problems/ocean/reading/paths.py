"""The files of an archive: those of paths, globs and folders, and what lies beside them."""

__all__ = ["find_files"]

import glob
import os
from collections.abc import Sequence

from pcl.errors import BadInputError

SUFFIXES = (".nc", ".nc3", ".nc4", ".cdf", ".netcdf", ".zarr")  # in capitals as well
ZARR_METADATA = ("zarr.json", ".zgroup", ".zmetadata")


def _is_store(path: str) -> bool:
    return path.lower().endswith(".zarr") or any(os.path.exists(os.path.join(path, name)) for name in ZARR_METADATA)


def _expand(path: str) -> tuple[list[str], list[str]]:
    """Return the files behind a path, a glob or a folder, and what a folder holds beside them."""
    path = os.path.expanduser(path).rstrip("/") or "/"
    if not os.path.exists(path):
        expanded = [_expand(found) for found in sorted(glob.glob(path, recursive=True)) if found != path]
        return [file for files, _ in expanded for file in files], [other for _, others in expanded for other in others]
    if not os.path.isdir(path) or _is_store(path):
        return [path], []
    entries = [os.path.join(path, name) for name in sorted(os.listdir(path))]
    files = [entry for entry in entries if entry.lower().endswith(SUFFIXES) or _is_store(entry)]
    return files, [entry for entry in entries if entry not in files]


def find_files(paths: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return every file once: those of the paths, of globs, of folders (*.nc, *.cdf, ...) and Zarr stores.

    Args:
        paths: what to look for.

    Returns:
        The files, and what lies in the folders beside them.

    Raises:
        BadInputError: a path leads to no file.

    Example:
        >>> find_files(["nowhere/*.nc"])
        Traceback (most recent call last):
        pcl.errors.BadInputError: nowhere/*.nc: no such file, and no .nc, .nc4, .cdf or .zarr in such a folder: ...
    """
    found: dict[str, str] = {}
    aside: dict[str, str] = {}
    for path in paths:
        files, others = _expand(str(path))
        if not files:
            beside = f" (it holds {', '.join(map(os.path.basename, others[:5]))})" if others else ""
            raise BadInputError(
                f"{path}: no such file, and no .nc, .nc4, .cdf or .zarr in such a folder{beside}: data.ocean.paths "
                "must lead to files"
            )
        for known, entries in ((found, files), (aside, others)):
            for entry in entries:
                known.setdefault(os.path.realpath(entry), entry)
    if not found:
        raise BadInputError("no paths: data.ocean.paths must list NetCDF files, globs, folders or Zarr stores")
    return list(found.values()), [entry for real, entry in aside.items() if real not in found]
