"""MNIST image-label pairs from the four original IDX files (LeCun, Cortes, Burges 1998)."""

__all__ = ["MnistSource", "parse_idx"]

import hashlib
import math
import sys
import urllib.request
from http.client import HTTPException
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from pcl.data.manifest import ArrayInfo
from pcl.data.source import Arrays, Source
from pcl.errors import BadInputError, DamagedDataError
from pcl.storage.copies import Copies
from pcl.storage.inputs import Input, input_at
from pcl.storage.place import write_bytes
from pcl.storage.stored import unzipped

MIRRORS = (
    "https://ossci-datasets.s3.amazonaws.com/mnist/",
    "https://storage.googleapis.com/cvdf-datasets/mnist/",
)

# name: md5 of the .gz file, md5 of its content, bytes of its content
FILES = {
    "train-images-idx3-ubyte": ("f68b3c2dcbeaaa9fbdd348bbdeb94873", "6bbc9ace898e44ae57da46a324031adb", 47_040_016),
    "train-labels-idx1-ubyte": ("d53e105ee54ea40749a09fcbcd1e9432", "a25bea736e30d166cdddb491f175f624", 60_008),
    "t10k-images-idx3-ubyte": ("9fb629c4189551a2d022fa330f9573f3", "2646ac647ad5339dbf082846283269ea", 7_840_016),
    "t10k-labels-idx1-ubyte": ("ec29112dd5afa0611ce80d1b7f02629c", "27ae3e4e09519cfbb04c329615203637", 10_008),
}
MOST_AXES = 32  # that an array may have


def parse_idx(content: bytes) -> np.ndarray:
    """Decode an IDX file of unsigned bytes: magic 0 0 8 ndim, big-endian sizes, then the values.

    Args:
        content: the uncompressed file.

    Raises:
        ValueError: the magic number or the length is wrong.

    Example:
        >>> parse_idx(bytes([0, 0, 8, 1, 0, 0, 0, 3, 7, 8, 9]))
        array([7, 8, 9], dtype=uint8)
    """
    if len(content) < 4 or content[:3] != b"\x00\x00\x08":
        raise ValueError(f"magic number {content[:4].hex()}: an IDX file of unsigned bytes begins with 000008")
    ndim = content[3]
    header, values = content[4 : 4 + 4 * ndim], np.frombuffer(content, np.uint8)[4 + 4 * ndim :]
    shape = tuple(int.from_bytes(header[4 * i : 4 * i + 4], "big") for i in range(ndim))
    if len(header) < 4 * ndim or ndim > MOST_AXES or len(values) != math.prod(shape):
        raise ValueError(f"{len(values)} values follow a header that promises {shape}"[:200])
    return values.reshape(shape)


def _read(root: Input, name: str) -> bytes | None:
    """Return the uncompressed content of a file that lies in root, gzipped or not."""
    _, md5, size = FILES[name]
    for path in (root.below(name), root.below(f"{name}.gz")):
        if path.exists and not path.is_folder:
            with path.held() as file:
                try:
                    content = unzipped(file, size) if path.suffix == ".gz" else _read_of_size(file, size)
                except ValueError:
                    content = b""
            if hashlib.md5(content, usedforsecurity=False).hexdigest() != md5:
                raise DamagedDataError(
                    f"{path} is not the original MNIST file (md5 of its content should be {md5}): "
                    "delete it and run again"
                )
            return content
    return None


def _read_of_size(path: Path, size: int) -> bytes:
    return path.read_bytes() if path.stat().st_size == size else b""


def _download(root: Input, name: str, mirrors: tuple[str, ...]) -> None:
    """Fetch one .gz file, check its md5, then put it in place: in a folder of this machine."""
    for mirror in () if root.is_remote else mirrors:
        try:
            with urllib.request.urlopen(f"{mirror}{name}.gz", timeout=30) as response:
                size = int(response.headers.get("Content-Length", 0))
                content = bytearray()
                if not sys.stderr.isatty():
                    print(f"downloading {name}.gz, {size / 1e6:.1f} MB", flush=True)  # noqa: T201
                with tqdm(total=size, unit="B", unit_scale=True, desc=name, disable=not sys.stderr.isatty()) as bar:
                    while (chunk := response.read(1 << 16)) and len(content) <= FILES[name][2]:
                        content += chunk
                        bar.update(len(chunk))
        except (OSError, ValueError, HTTPException):
            continue
        if hashlib.md5(content, usedforsecurity=False).hexdigest() == FILES[name][0]:
            write_bytes(Path(root) / f"{name}.gz", bytes(content))
            return
    wanted = ", ".join(f"{file}.gz (md5 {md5})" for file, (md5, *_) in FILES.items())
    tried = "" if root.is_remote else " and could not be downloaded"
    raise BadInputError(f"MNIST is not in {root}{tried}: put there {wanted}")


class MnistSource(Source):
    """The 60,000 training and 10,000 test pairs (image, label).

    Args:
        root: folder of the four IDX files, gzipped or not; those missing are downloaded there unless it lies in object
            storage.
        mirrors: where to download from, each address ending in a slash.
        copies: of objects, see ``pcl.storage.inputs``.

    Raises:
        BadInputError: files are missing and cannot be downloaded.
        DamagedDataError: a file is not the original.
    """

    split_rule = "the original split: 60,000 training and 10,000 test pairs, in the order of the files"

    def __init__(self, root: Path | str, mirrors: tuple[str, ...] = MIRRORS, *, copies: Copies | None = None) -> None:
        folder = input_at(str(root), copies)
        self.images: dict[str, np.ndarray] = {}
        self.labels: dict[str, np.ndarray] = {}
        for name in FILES:
            content = _read(folder, name)
            if content is None:
                _download(folder, name, mirrors)
                content = _read(folder, name)
                assert content is not None
            split = "train" if name.startswith("train") else "test"
            (self.images if "images" in name else self.labels)[split] = parse_idx(content)

    @property
    def arrays(self) -> dict[str, ArrayInfo]:
        """The arrays of a pair."""
        return {
            "u": ArrayInfo("uint8", (28, 28), "1", "grey level of a digit", 1 / 255, "scalar"),
            "v": ArrayInfo("uint8", (), "1", "label of the digit", 1.0, "counts"),
        }

    def provenance(self) -> dict[str, Any]:
        """Return name, hashes and licence of the files."""
        return {
            "name": "mnist",
            "md5": {f"{name}.gz": md5 for name, (md5, *_) in FILES.items()},
            "licence": "CC BY-SA 3.0 (Y. LeCun, C. Cortes)",
        }

    def num_pairs(self, split: str) -> int:
        """Return the number of pairs of a split."""
        return len(self.labels[split])

    def pairs(self, split: str, start: int, stop: int) -> Arrays:
        """Return the pairs of a range."""
        return {"u": self.images[split][start:stop], "v": self.labels[split][start:stop]}
