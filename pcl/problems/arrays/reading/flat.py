"""Arrays of numpy's files, ``.npy`` and ``.npz``, mapped a block at a time."""

__all__ = ["Flat", "open_npy", "open_npz"]

import math
import struct
import zipfile
from dataclasses import dataclass
from typing import IO, Any

import numpy as np

from pcl.errors import BadInputError, DamagedDataError
from pcl.problems.arrays.reading.address import Address, choose
from pcl.problems.arrays.reading.stored import Held, Stored, block_edges, damaged
from pcl.storage.inputs import Input

LOCAL_HEADER = struct.Struct("<26xHH")  # of a zip file's member: the lengths of its name and of what else is said


@dataclass(frozen=True, kw_only=True)
class Flat(Stored):
    """An array whose values follow one another in a file.

    Attributes:
        path: of the file.
        offset: bytes before the values.
        order: C, or F where the rows are the last axis in the file.
    """

    path: Input
    offset: int
    order: str

    def load(self, start: int, stop: int) -> np.ndarray:
        """Return rows start .. stop - 1; nothing stays mapped: what was is the cache of the system."""
        with self.path.held() as file:
            mapped = np.memmap(file, self.dtype, "r", self.offset, self.shape, self.order)  # type: ignore[call-overload]
            return np.array(mapped[start:stop], order="C")


def open_npy(address: Address) -> Stored:
    """Open a ``.npy`` file.

    Args:
        address: of the file.

    Raises:
        BadInputError: it holds Python objects, or a name is asked for.
        DamagedDataError: it is none, or is cut off.
    """
    if address.name:
        raise BadInputError(f"{address.label}: a .npy file holds one array, without a name: give {address.path}")
    with address.path.held() as file, file.open("rb") as stream:
        return _flat(address.label, address.path, stream, address.path.num_bytes)


def open_npz(address: Address, most_bytes: float) -> Stored:
    """Open an array of an ``.npz`` file: it is mapped if it is not compressed, and else held in memory.

    Args:
        address: ``file.npz:name``.
        most_bytes: that may be held.

    Raises:
        BadInputError: there is no such array, it holds Python objects, or it is compressed and too large.
        DamagedDataError: the file is none, or is cut off.
    """
    where = str(address.path)
    with damaged(where), address.path.held() as file, zipfile.ZipFile(file) as archive, file.open("rb") as stream:
        known = [name.removesuffix(".npy") for name in archive.namelist() if name.endswith(".npy")]
        address = Address(address.path, choose(address, known, "array"))
        member = archive.getinfo(f"{address.name}.npy")
        if member.compress_type == zipfile.ZIP_STORED:
            stream.seek(member.header_offset)
            name_bytes, extra_bytes = LOCAL_HEADER.unpack(stream.read(LOCAL_HEADER.size))
            stream.seek(name_bytes + extra_bytes, 1)
            return _flat(address.label, address.path, stream, stream.tell() + member.file_size)
        if member.file_size > most_bytes:
            raise BadInputError(
                f"{address.label} is compressed and has {member.file_size / 1e6:,.0f} MB, more than build.memory_mb="
                f"{most_bytes / 1e6:g}: save it with np.save or np.savez, which are read a block at a time"
            )
        with archive.open(member) as content:
            _header(address.label, content)
        with np.load(file, allow_pickle=False) as arrays:
            return Held.of(address.label, arrays[address.name])


def _flat(label: str, path: Input, stream: IO[bytes], end: int) -> Flat:
    shape, is_fortran, dtype = _header(label, stream)
    item_bytes = dtype.itemsize * math.prod(shape[1:])
    if end - stream.tell() < dtype.itemsize * math.prod(shape):
        raise DamagedDataError(
            f"{label} is cut off: its header promises {math.prod(shape):,} values of {dtype}, of which "
            f"{max(0, end - stream.tell()) // dtype.itemsize:,} are there; write it again"
        )
    edges = block_edges(shape[0] if shape else 0, item_bytes)
    order, offset = "F" if is_fortran else "C", stream.tell()
    return Flat(label=label, shape=shape, dtype=dtype, edges=edges, path=path, offset=offset, order=order)


def _header(label: str, stream: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    with damaged(label):
        major, _ = np.lib.format.read_magic(stream)
        read = np.lib.format.read_array_header_1_0 if major == 1 else np.lib.format.read_array_header_2_0
        shape, is_fortran, dtype = read(stream)
    if dtype.hasobject:
        raise BadInputError(
            f"{label} holds Python objects: save an array of numbers, such as np.array(items, dtype=np.float32)"
        )
    return shape, is_fortran, dtype
