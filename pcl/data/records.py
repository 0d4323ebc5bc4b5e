"""Records of shards: read one at a time, checked against the manifest, without any pickle."""

__all__ = ["read_records", "to_npy", "verify"]

import io
import os
import tarfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import webdataset

from pcl.data.manifest import SHARD_REMEDY, ArrayInfo, ShardEntry, bytes_per_pair
from pcl.data.source import Arrays
from pcl.errors import DamagedDataError, printable
from pcl.storage.stored import read_array, sha256

LONGEST_HEADER = 1 << 14  # bytes of a .npy file before its values


def verify(path: Path, shard: ShardEntry) -> None:
    """Compare a shard's SHA-256 with its manifest's.

    Raises:
        DamagedDataError: they differ, or the file cannot be read.
    """
    try:
        with _Bounded(path, 0) as stream:
            for _ in _headers(stream):  # a file of a terabyte without content ends here
                pass
        found = sha256(path)
    except Exception as error:  # see ``read_records``
        raise _unreadable(path, error) from error
    if found != shard.sha256:
        raise DamagedDataError(
            f"{path} is damaged: its SHA-256 is {found[:12]}..., its manifest says {shard.sha256[:12]}...; "
            f"{SHARD_REMEDY}"
        )


def read_records(path: Path, shard: ShardEntry, arrays: Mapping[str, ArrayInfo], record_pairs: int) -> Iterator[Arrays]:
    """Read a shard's records in order, each checked against what the manifest promises before it is held.

    Args:
        path: the tar file.
        shard: its entry.
        arrays: dtype and shape of every array.
        record_pairs: pairs in a record.

    Yields:
        Arrays of shape (pairs, *shape) by name.

    Raises:
        DamagedDataError: the tar cannot be read, or holds other arrays or another number of pairs.
    """
    remaining = shard.pairs
    most = {
        f"{name}.npy": min(record_pairs, remaining) * bytes_per_pair([info]) + LONGEST_HEADER
        for name, info in arrays.items()
    }
    try:
        for sample in webdataset.tariterators.group_by_keys(_members(path, most)):
            num_pairs, record = min(record_pairs, remaining), {}
            for name, info in arrays.items():
                try:
                    record[name] = read_array(sample[f"{name}.npy"], info.dtype, (num_pairs, *info.shape))
                except ValueError as error:
                    raise DamagedDataError(
                        f"{path}, record {printable(sample['__key__'][:100])}: {name} is not what the manifest "
                        f"promises ({printable(error)}); {SHARD_REMEDY}"
                    ) from error
            if num_pairs == 0:
                raise DamagedDataError(f"{path} holds more than {shard.pairs} pairs: {SHARD_REMEDY}")
            remaining -= num_pairs
            yield record
    except DamagedDataError:
        raise
    except Exception as error:  # of a tar that somebody else made anything may be raised
        raise _unreadable(path, error) from error
    if remaining:
        raise DamagedDataError(
            f"{path} holds {shard.pairs - remaining} pairs, its manifest says {shard.pairs}: {SHARD_REMEDY}"
        )


def _unreadable(path: Path, error: Exception) -> DamagedDataError:
    reason = (error.strerror or "no reason is given") if isinstance(error, OSError) else type(error).__name__
    return DamagedDataError(f"{path} cannot be read ({reason}): {SHARD_REMEDY}")


def _members(path: Path, most: Mapping[str, int]) -> Iterator[dict[str, Any]]:
    """Yield name and content of a tar's files with some suffixes, none of them larger than it may be.

    Args:
        path: the tar file.
        most: bytes of a file by its suffix.
    """
    with _Bounded(path, max(most.values(), default=0)) as stream:
        for member in _headers(stream):
            suffix = member.name.rpartition("/")[2].partition(".")[2]
            if member.isreg() and suffix in most:
                if member.issparse() or member.size > most[suffix]:
                    raise ValueError("a file of the tar is larger than it may be")
                stream.seek(member.offset_data)
                yield {"fname": member.name, "data": stream.read(member.size), "__url__": str(path)}
    yield {}


def _headers(stream: "_Bounded") -> Iterator[tarfile.TarInfo]:
    """Yield what a tar says of its files.

    Raises:
        ValueError: it leads back into itself, or ends long before its file does.
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
        if stream.size - tar.offset > 2 * tarfile.RECORDSIZE:
            raise ValueError("the tar ends long before its file does")


class _Bounded(io.FileIO):
    """A file of which no more is read at once than there is, or may be: Python allocates what is asked for.

    Args:
        path: of the file.
        most: bytes that are read at once; the headers of a tar are so in any case.
    """

    def __init__(self, path: Path, most: int) -> None:
        super().__init__(path)
        self.size, self.most = os.fstat(self.fileno()).st_size, max(most, LONGEST_HEADER)

    def read(self, size: int | None = -1) -> bytes:
        """Return up to so many bytes, all that follow if it is negative."""
        most = min(self.most, max(0, self.size - self.tell()))
        return super().read(most if size is None or size < 0 else min(size, most)) or b""


def to_npy(array: np.ndarray) -> bytes:
    """Return an array as a .npy file holds it."""
    stream = io.BytesIO()
    np.lib.format.write_array(stream, np.ascontiguousarray(array), version=(1, 0), allow_pickle=False)
    return stream.getvalue()
