"""What files hold, by SHA-256: shards are a function of it, wherever the files lie."""

__all__ = ["content_of_array", "content_of_file"]

import hashlib
import os
from pathlib import Path
from typing import Any

import numpy as np

from pcl.data.source import Progress
from pcl.problems.arrays.reading.address import Address
from pcl.storage.stored import sha256

PIECE_BYTES = 1 << 22


def content_of_file(address: Address, progress: Progress) -> dict[str, Any]:
    """Name, bytes and SHA-256 of a file, or of all files of an array in a Zarr store.

    The SHA-256 of a store is that of the relative paths and SHA-256s of its files in their order, metadata and chunks.

    Args:
        address: of the array.
        progress: shows how far it is.
    """
    path = address.path
    if path.is_dir():
        size, digest = _content_of_folder(path / address.name, progress)
    else:
        size, digest = path.stat().st_size, _content_of_one(path, progress)
    return {"name": path.name, "of": address.name, "bytes": size, "sha256": digest}


def _content_of_one(path: Path, progress: Progress) -> str:
    found = hashlib.sha256()
    with path.open("rb") as stream:
        for _ in progress(range(0, path.stat().st_size, PIECE_BYTES), "piece"):
            found.update(stream.read(PIECE_BYTES))
    return found.hexdigest()


def _content_of_folder(folder: Path, progress: Progress) -> tuple[int, str]:
    files = [Path(root) / name for root, _, names in os.walk(folder) for name in names]
    kept = {path.relative_to(folder).as_posix(): path for path in files if _is_content(path.name)}
    found, size = hashlib.sha256(), 0
    for name in progress(sorted(kept), "file"):
        found.update(f"{name}\0{sha256(kept[name])}\n".encode())
        size += kept[name].stat().st_size
    return size, found.hexdigest()


def _is_content(name: str) -> bool:
    return not name.startswith(".") or name.startswith(".z")  # systems leave hidden files of their own in folders


def content_of_array(array: np.ndarray) -> dict[str, Any]:
    """Bytes and SHA-256 of an array in memory: of its type, its shape and its values in their order."""
    found = hashlib.sha256(f"{array.dtype.newbyteorder('=').str}{list(array.shape)}".encode())
    found.update(np.ascontiguousarray(array, array.dtype.newbyteorder("=")).reshape(-1).view(np.uint8).data)
    return {"bytes": array.nbytes, "sha256": found.hexdigest()}
