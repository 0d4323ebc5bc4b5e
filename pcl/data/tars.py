"""Tar files that somebody else made: what they say of their files, read within bounds.

Nothing is extracted, so that names that lead elsewhere lead nowhere.
"""

__all__ = ["BoundedFile", "headers"]

import io
import os
import tarfile
from collections.abc import Iterator
from pathlib import Path

LONGEST_HEADER = 1 << 14  # bytes of a header of a tar, with its extended ones


class BoundedFile(io.FileIO):
    """A file of which no more is read at once than there is, or may be: Python allocates what is asked for.

    Args:
        path: of the file.
        most: bytes that are read at once; the headers of a tar are so in any case.
    """

    def __init__(self, path: Path, most: int = 0) -> None:
        super().__init__(path)
        self.size, self.most = os.fstat(self.fileno()).st_size, max(most, LONGEST_HEADER)

    def read(self, size: int | None = -1) -> bytes:
        """Return up to so many bytes, all that follow if it is negative."""
        most = min(self.most, max(0, self.size - self.tell()))
        return super().read(most if size is None or size < 0 else min(size, most)) or b""


def headers(stream: BoundedFile) -> Iterator[tarfile.TarInfo]:
    """Yield what a tar says of its files, one after another; none is kept.

    Raises:
        ValueError: it leads back into itself, has no end, or ends long before its file does.
        tarfile.TarError: it is none.
    """
    with tarfile.open(fileobj=stream, mode="r:") as tar:
        position = -1
        while (member := tar.next()) is not None:
            tar.members = []  # type: ignore[attr-defined]  # it would keep them all
            if not position < member.offset_data <= tar.offset:
                raise ValueError("the tar leads back into itself")
            position = member.offset_data
            yield member
        stream.seek(tar.offset)
        if stream.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
            raise ValueError(f"no end of a tar at byte {tar.offset:,}")
        if stream.size - tar.offset > 2 * tarfile.RECORDSIZE:
            raise ValueError("the tar ends long before its file does")
