"""Records of shards: read one at a time, checked against the manifest, without any pickle."""

__all__ = ["read_records", "to_npy", "verify"]

import io
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import webdataset

from pcl.data.cache import opened
from pcl.data.manifest import SHARD_REMEDY, ArrayInfo, ShardEntry, bytes_per_pair
from pcl.data.source import Arrays
from pcl.data.tars import headers
from pcl.errors import BadInputError, DamagedDataError, RunFailedError, printable
from pcl.storage.place import Place
from pcl.storage.stored import read_array, sha256

LONGEST_HEADER = 1 << 14  # bytes of a .npy file before its values
SAID = (BadInputError, DamagedDataError, RunFailedError)  # errors that are a line already


def verify(path: Place, shard: ShardEntry) -> None:
    """Compare a shard's SHA-256 with its manifest's; that of an object is, whenever it is fetched.

    Raises:
        DamagedDataError: they differ, or the file cannot be read.
    """
    try:
        with opened(path, shard) as stream:
            for _ in headers(stream):  # a file of a terabyte without content ends here
                pass
        found = sha256(path) if isinstance(path, Path) else shard.sha256
    except SAID:
        raise
    except Exception as error:  # see ``read_records``
        raise _unreadable(path, error) from error
    if found != shard.sha256:
        raise DamagedDataError(
            f"{path} is damaged: its SHA-256 is {found[:12]}..., its manifest says {shard.sha256[:12]}...; "
            f"{SHARD_REMEDY}"
        )


def read_records(
    path: Place, shard: ShardEntry, arrays: Mapping[str, ArrayInfo], record_pairs: int
) -> Iterator[Arrays]:
    """Read a shard's records in order, each checked against what the manifest promises before it is held.

    Args:
        path: the tar file; an object is read from its copy.
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
        for sample in webdataset.tariterators.group_by_keys(_members(path, shard, most)):
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
    except SAID:
        raise
    except Exception as error:  # of a tar that somebody else made anything may be raised
        raise _unreadable(path, error) from error
    if remaining:
        raise DamagedDataError(
            f"{path} holds {shard.pairs - remaining} pairs, its manifest says {shard.pairs}: {SHARD_REMEDY}"
        )


def _unreadable(path: Place, error: Exception) -> DamagedDataError:
    reason = (error.strerror or "no reason is given") if isinstance(error, OSError) else type(error).__name__
    return DamagedDataError(f"{path} cannot be read ({reason}): {SHARD_REMEDY}")


def _members(path: Place, shard: ShardEntry, most: Mapping[str, int]) -> Iterator[dict[str, Any]]:
    """Yield name and content of a tar's files with some suffixes, none of them larger than it may be.

    Args:
        path: the tar file.
        shard: its entry.
        most: bytes of a file by its suffix.
    """
    with opened(path, shard, max(most.values(), default=0)) as stream:
        for member in headers(stream):
            suffix = member.name.rpartition("/")[2].partition(".")[2]
            if member.isreg() and suffix in most:
                if member.issparse() or member.size > most[suffix]:
                    raise ValueError("a file of the tar is larger than it may be")
                stream.seek(member.offset_data)
                yield {"fname": member.name, "data": stream.read(member.size), "__url__": str(path)}
    yield {}


def to_npy(array: np.ndarray) -> bytes:
    """Return an array as a .npy file holds it."""
    stream = io.BytesIO()
    np.lib.format.write_array(stream, np.ascontiguousarray(array), version=(1, 0), allow_pickle=False)
    return stream.getvalue()
