"""The files of an archive: those of paths, globs and folders, and what lies beside them."""

__all__ = ["find_files"]

from collections.abc import Sequence

from pcl.errors import BadInputError
from pcl.storage.copies import Copies
from pcl.storage.inputs import Input, expanded

SUFFIXES = (".nc", ".nc3", ".nc4", ".cdf", ".netcdf", ".zarr")  # in capitals as well
ZARR_METADATA = ("zarr.json", ".zgroup", ".zmetadata")


def _is_store(path: Input) -> bool:
    return path.suffix == ".zarr" or (path.is_folder and any(path.below(name).exists for name in ZARR_METADATA))


def _inside(path: Input) -> tuple[list[Input], list[Input]]:
    """Return the files of a path, itself or what a folder holds, and what a folder holds beside them."""
    if not path.is_folder or _is_store(path):
        return [path], []
    entries = path.entries()
    is_file = [entry.suffix in SUFFIXES or _is_store(entry) for entry in entries]
    files, others = (
        [one for one, kept in zip(entries, is_file, strict=True) if kept is side] for side in (True, False)
    )
    return files, others


def find_files(paths: Sequence[str], copies: Copies | None = None) -> tuple[list[Input], list[Input]]:
    """Return every file once: those of the paths, of globs, of folders (*.nc, *.cdf, ...) and Zarr stores.

    Args:
        paths: what to look for, on this machine or in object storage.
        copies: of objects, see ``pcl.storage.inputs``.

    Returns:
        The files, and what lies in the folders beside them.

    Raises:
        BadInputError: a path leads to no file.

    Example:
        >>> find_files(["nowhere/*.nc"])
        Traceback (most recent call last):
        pcl.errors.BadInputError: nowhere/*.nc: no such file, and no .nc, .nc4, .cdf or .zarr in such a folder: ...
    """
    found: dict[str, Input] = {}
    aside: dict[str, Input] = {}
    for path in paths:
        files, others = _expand(str(path), copies)
        if not files:
            beside = f" (it holds {', '.join(other.name for other in others[:5])})" if others else ""
            raise BadInputError(
                f"{path}: no such file, and no .nc, .nc4, .cdf or .zarr in such a folder{beside}: data.ocean.paths "
                "must lead to files"
            )
        for known, entries in ((found, files), (aside, others)):
            for entry in entries:
                known.setdefault(entry.same, entry)
    if not found:
        raise BadInputError("no paths: data.ocean.paths must list NetCDF files, globs, folders or Zarr stores")
    return list(found.values()), [entry for same, entry in aside.items() if same not in found]


def _expand(path: str, copies: Copies | None) -> tuple[list[Input], list[Input]]:
    """Return the files behind a path, a pattern or a folder, and what folders hold beside them."""
    inside = [_inside(match) for match in expanded(path, copies)]
    return [file for files, _ in inside for file in files], [other for _, others in inside for other in others]
