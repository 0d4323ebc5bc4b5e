"""What the manifest keeps of the files of an archive: names, sizes, and what they say of themselves."""

__all__ = ["list_files", "product_of"]

import hashlib
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import xarray as xr

from pcl.problems.ocean.reading.container import engine_of

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
NUM_BLOCKS, BLOCK_BYTES = 5, 1 << 16
LICENCE_NAMES = ("license", "licence", "rights")  # the first is that of the CF and ACDD conventions


def list_files(paths: Sequence[str]) -> list[dict[str, Any]]:
    """Return the name, without its folder, the bytes and a fingerprint of every file; those of a Zarr store together.

    The fingerprint is the SHA-256 of a few blocks, spread evenly: archives are too large to be read for it.

    Args:
        paths: files and Zarr stores.

    Example:
        >>> [entry["name"] for entry in list_files([__file__])]
        ['archive.py']
    """
    return [{"name": Path(path).name} | _describe(Path(path)) for path in paths]


def _describe(path: Path) -> dict[str, Any]:
    files = sorted(file for file in path.rglob("*") if file.is_file()) if path.is_dir() else [path]
    digest = hashlib.sha256()
    for file in files:
        digest.update(f"{file.relative_to(path)} {file.stat().st_size}".encode())
    for file in files[:: -(-len(files) // NUM_BLOCKS)]:
        size = file.stat().st_size
        with file.open("rb") as stream:
            for number in range(NUM_BLOCKS):
                stream.seek(max(0, size - BLOCK_BYTES) * number // (NUM_BLOCKS - 1))
                digest.update(stream.read(BLOCK_BYTES))
    return {"bytes": sum(file.stat().st_size for file in files), "fingerprint": digest.hexdigest()[:16]}


def product_of(path: str) -> dict[str, str]:
    """Return the title, source, institution, ... and licence that a file states.

    Args:
        path: a NetCDF file or a Zarr store.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with xr.open_dataset(path, engine=engine_of(path), decode_cf=False) as dataset:
            stated = {str(name): str(value) for name, value in dataset.attrs.items()}
    licences = [stated[name] for name in LICENCE_NAMES if name in stated]
    product = {name: stated[name] for name in ATTRIBUTES if name in stated}
    return product | {"licence": licences[0] if licences else "not stated in the files"}
