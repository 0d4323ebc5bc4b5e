"""What the manifest keeps of the files of an archive: names, sizes, and what they say of themselves."""

__all__ = ["list_files", "product_of"]

import os
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import xarray as xr

ATTRIBUTES = (
    "title",
    "source",
    "institution",
    "producer",
    "credit",
    "references",
    "comment",
    "history",
    "id",
    "version",
)
LICENCE_NAMES = ("license", "licence", "rights")  # the first is that of the CF and ACDD conventions


def list_files(paths: Sequence[str]) -> list[dict[str, Any]]:
    """Return the name, without its folder, and the bytes of every file; those of a Zarr store together.

    Args:
        paths: files and Zarr stores.

    Example:
        >>> [entry["name"] for entry in list_files([__file__])]
        ['archive.py']
    """
    return [{"name": Path(path).name, "bytes": _size(Path(path))} for path in paths]


def _size(path: Path) -> int:
    if not path.is_dir():
        return path.stat().st_size
    return sum(os.path.getsize(os.path.join(folder, name)) for folder, _, names in os.walk(path) for name in names)


def product_of(path: str) -> dict[str, str]:
    """Return the title, source, institution, ... and licence that a file states.

    Args:
        path: a NetCDF file or a Zarr store.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with xr.open_dataset(path, engine="zarr" if Path(path).is_dir() else "netcdf4", decode_cf=False) as dataset:
            stated = {str(name): str(value) for name, value in dataset.attrs.items()}
    licences = [stated[name] for name in LICENCE_NAMES if name in stated]
    product = {name: stated[name] for name in ATTRIBUTES if name in stated}
    return product | {"licence": licences[0] if licences else "not stated in the files"}
