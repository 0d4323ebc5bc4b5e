"""What files hold, by SHA-256: shards are a function of it, wherever the files lie."""

__all__ = ["content_of_array", "content_of_file"]

import hashlib
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from pcl.data.source import Progress
from pcl.errors import BadInputError, printable
from pcl.problems.arrays.reading.address import Address
from pcl.storage.inputs import Input

PIECE_BYTES = 1 << 22
NUM_READERS = 8  # of objects at a time: each is waited for


def content_of_file(address: Address, progress: Progress) -> dict[str, Any]:
    """Name, bytes and SHA-256 of a file, or of all files of an array in a Zarr store.

    The SHA-256 of a store is that of the relative paths and SHA-256s of its files in their order, metadata and chunks.

    Args:
        address: of the array.
        progress: shows how far it is.
    """
    path = address.path
    if path.is_folder:
        size, digest = _content_of_folder(path.below(address.name) if address.name else path, progress)
    else:
        size, digest = path.num_bytes, _content_of_one(path, progress)
    return {"name": path.name, "of": address.name, "bytes": size, "sha256": digest}


def _content_of_one(path: Input, progress: Progress) -> str:
    found = hashlib.sha256()
    with path.held() as file, file.open("rb") as stream:
        for _ in progress(range(0, path.num_bytes, PIECE_BYTES), "piece"):
            found.update(stream.read(PIECE_BYTES))
    return found.hexdigest()


def _content_of_folder(folder: Input, progress: Progress) -> tuple[int, str]:
    if not folder.is_listed:
        raise BadInputError(f"{printable(folder)}: what a store on the web holds cannot be listed: give a NetCDF file")
    sizes = {name: size for name, size in folder.sizes().items() if _is_content(name.rpartition("/")[2])}
    found, names = hashlib.sha256(), sorted(sizes)
    with ThreadPoolExecutor(NUM_READERS if folder.is_remote else 1) as pool:
        for first in progress(range(0, len(names), NUM_READERS), "block of files"):
            some = names[first : first + NUM_READERS]
            for name, digest in zip(some, pool.map(lambda one: folder.below(one).sha256(), some), strict=True):
                found.update(f"{name}\0{digest}\n".encode())
    return sum(sizes.values()), found.hexdigest()


def _is_content(name: str) -> bool:
    return not name.startswith(".") or name.startswith(".z")  # systems leave hidden files of their own in folders


def content_of_array(array: np.ndarray) -> dict[str, Any]:
    """Bytes and SHA-256 of an array in memory: of its type, its shape and its values in their order."""
    found = hashlib.sha256(f"{array.dtype.newbyteorder('=').str}{list(array.shape)}".encode())
    found.update(np.ascontiguousarray(array, array.dtype.newbyteorder("=")).reshape(-1).view(np.uint8).data)
    return {"bytes": array.nbytes, "sha256": found.hexdigest()}
