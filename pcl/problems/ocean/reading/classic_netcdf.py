"""The size that a classic NetCDF file promises: its library reads what was cut off as zeros, without a word."""

__all__ = ["missing_bytes"]

import math
import os
import struct
from typing import BinaryIO

TYPE_BYTES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 4, 6: 8, 7: 1, 8: 2, 9: 4, 10: 8, 11: 8}


class _Header:
    """A reader of the header, which is big-endian and padded to four bytes (NetCDF classic format specification)."""

    def __init__(self, file: BinaryIO, version: int) -> None:
        self.file = file
        self.count = ">q" if version == 5 else ">i"
        self.offset = ">i" if version == 1 else ">q"

    def number(self, form: str) -> int:
        return int(struct.unpack(form, self.file.read(struct.calcsize(form)))[0])

    def skip(self, num_bytes: int) -> None:
        self.file.seek(_padded(num_bytes), os.SEEK_CUR)

    def length(self) -> int:
        self.number(">i")  # the tag of the list
        return self.number(self.count)

    def skip_attributes(self) -> None:
        for _ in range(self.length()):
            self.skip(self.number(self.count))
            kind = self.number(">i")
            self.skip(TYPE_BYTES[kind] * self.number(self.count))

    def dimensions(self) -> list[int]:
        sizes = []
        for _ in range(self.length()):
            self.skip(self.number(self.count))
            sizes.append(self.number(self.count))
        return sizes

    def variable(self, sizes: list[int]) -> tuple[int, int, bool]:
        """Return where a variable begins, its bytes (of one record, if it has records), and whether it has."""
        self.skip(self.number(self.count))
        shape = [sizes[self.number(self.count)] for _ in range(self.number(self.count))]
        self.skip_attributes()
        kind = self.number(">i")
        self.number(self.count)  # its size, which overflows for large variables
        is_record = bool(shape) and shape[0] == 0
        return self.number(self.offset), TYPE_BYTES[kind] * math.prod(shape[is_record:]), is_record


def _padded(num_bytes: int) -> int:
    return -(-num_bytes // 4) * 4


def missing_bytes(path: str) -> int:
    """Return how many bytes a classic NetCDF file is shorter than its header promises; 0 for any other file.

    Args:
        path: of a file.

    Raises:
        ValueError: the header itself is cut off or damaged.

    Example:
        >>> missing_bytes("/dev/null")
        0

    Source: NetCDF classic format specification, unidata.ucar.edu.
    """
    with open(path, "rb") as file:
        magic = file.read(4)
        if len(magic) < 4 or magic[:3] != b"CDF" or magic[3] not in (1, 2, 5):
            return 0
        header = _Header(file, magic[3])
        try:
            num_records = header.number(header.count)
            sizes = header.dimensions()
            header.skip_attributes()
            variables = [header.variable(sizes) for _ in range(header.length())]
        except (struct.error, KeyError, IndexError, OSError) as error:
            raise ValueError("its header is cut off") from error
    records = [num_bytes for _, num_bytes, is_record in variables if is_record]
    # a single variable with records is not padded
    record_bytes = records[0] if len(records) == 1 else sum(map(_padded, records))
    num_before = max(num_records, 1) - 1  # -1 stands for a number of records that was never written
    ends = [begin + num_bytes + num_before * record_bytes * is_record for begin, num_bytes, is_record in variables]
    if num_records < 1:
        ends = [end for end, (*_, is_record) in zip(ends, variables, strict=True) if not is_record]
    return max(0, max(ends, default=0) - os.path.getsize(path))
