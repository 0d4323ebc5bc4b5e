"""What the manifest keeps of the files of an archive: names, sizes, and what they say of themselves."""

__all__ = ["list_files", "product_of"]

import hashlib
from collections.abc import Sequence
from typing import Any

from pcl.problems.ocean.reading.container import attributes_of
from pcl.storage.inputs import Input, input_at

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
        paths: files and Zarr stores, on this machine or in object storage.

    Example:
        >>> [entry["name"] for entry in list_files([__file__])]
        ['archive.py']
    """
    return [{"name": one.name} | _describe(one) for one in map(input_at, paths)]


def _describe(path: Input) -> dict[str, Any]:
    sizes = path.sizes() if path.is_folder else {".": path.num_bytes}
    digest = hashlib.sha256()
    for name, size in sizes.items():
        digest.update(f"{name} {size}".encode())
    for name in list(sizes)[:: -(-len(sizes) // NUM_BLOCKS)]:
        file = path.below(name) if path.is_folder else path
        for number in range(NUM_BLOCKS):
            digest.update(file.read(max(0, sizes[name] - BLOCK_BYTES) * number // (NUM_BLOCKS - 1), BLOCK_BYTES))
    return {"bytes": sum(sizes.values()), "fingerprint": digest.hexdigest()[:16]}


def product_of(path: str) -> dict[str, str]:
    """Return the title, source, institution, ... and licence that a file states.

    Args:
        path: a NetCDF file or a Zarr store.
    """
    stated = attributes_of(input_at(path))
    licences = [stated[name] for name in LICENCE_NAMES if name in stated]
    product = {name: stated[name] for name in ATTRIBUTES if name in stated}
    return product | {"licence": licences[0] if licences else "not stated in the files"}
