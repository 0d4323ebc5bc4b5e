"""Fields of a split that stay in its shards and are read where they are asked for: none is held.

Shapes: N items.
"""

__all__ = ["StoredItems"]

import io
import itertools
import os
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from pcl.data.cache import opened
from pcl.data.manifest import SHARD_REMEDY, Manifest, ShardEntry, bytes_per_pair
from pcl.data.records import verify
from pcl.data.tars import BoundedFile, headers
from pcl.errors import DamagedDataError
from pcl.storage.place import Place


class StoredItems:
    """Items of an array of a split, as a tensor of shape (N, ...) that is read piece by piece.

    Args:
        root: where the shards lie.
        manifest: its manifest.
        split: which split.
        name: of the array.
        kept: increasing indices of the items among the pairs of the split, shape (N,).

    Raises:
        DamagedDataError: a shard differs from its manifest; every shard is verified, here and once.
    """

    def __init__(self, root: Place, manifest: Manifest, split: str, name: str, kept: Tensor) -> None:
        self.info = manifest.arrays[name]
        self.item_bytes = bytes_per_pair([self.info])
        paths: list[tuple[Place, ShardEntry]] = []
        offsets = []
        for shard in manifest.shards(split):
            path = root / shard.name
            verify(path, shard)
            offsets.append(self._offsets(path, shard, f"{name}.npy", manifest.record_pairs))
            paths += [(path, shard)] * shard.pairs
        self.paths = [paths[index] for index in kept.tolist()]
        self.offsets = np.concatenate(offsets)[kept.numpy()]

    def _offsets(self, path: Place, shard: ShardEntry, suffix: str, record_pairs: int) -> np.ndarray:
        """Return where the items of a shard begin, bytes."""
        found: list[int] = []
        with opened(path, shard) as stream:
            for member in headers(stream):
                if member.name.rpartition("/")[2].partition(".")[2] == suffix:
                    number = min(record_pairs, shard.pairs - len(found))
                    first = member.offset_data + self._header(stream, path, member.offset_data, number)
                    found += range(first, first + number * self.item_bytes, self.item_bytes)
        if len(found) != shard.pairs:
            raise DamagedDataError(f"{path} holds {len(found)} pairs, its manifest says {shard.pairs}: {SHARD_REMEDY}")
        return np.array(found, np.int64)

    def _header(self, stream: BoundedFile, path: Place, offset: int, number: int) -> int:
        """Return the length of the header of a .npy file of so many items."""
        wanted = io.BytesIO()
        np.lib.format.write_array_header_1_0(
            wanted,
            {"shape": (number, *self.info.shape), "fortran_order": False, "descr": np.dtype(self.info.dtype).str},
        )
        stream.seek(offset)
        if stream.read(len(wanted.getvalue())) != wanted.getvalue():
            raise DamagedDataError(f"{path} holds a record that is not what the manifest promises: {SHARD_REMEDY}")
        return len(wanted.getvalue())

    def __len__(self) -> int:
        return len(self.offsets)

    @property
    def shape(self) -> tuple[int, ...]:
        """That of all items together."""
        return (len(self), *self.info.shape)

    def __getitem__(self, chosen: Tensor | slice) -> Tensor:
        """Read items: of increasing indices, in few pieces."""
        places = torch.arange(len(self))[chosen].tolist()
        found = np.empty((len(places), *self.info.shape), self.info.dtype)
        content = found.reshape(-1).view(np.uint8).data
        for (path, shard), runs in itertools.groupby(self._runs(places), key=lambda run: run[0]):
            with opened(path, shard) as stream:
                for _, start, first, number in runs:
                    part = content[start * self.item_bytes : (start + number) * self.item_bytes]
                    if os.preadv(stream.fileno(), [part], first) != len(part):
                        raise DamagedDataError(f"{path} has become shorter while it was read: {SHARD_REMEDY}")
        return torch.from_numpy(found)

    def _runs(self, places: list[int]) -> Iterator[tuple[tuple[Place, ShardEntry], int, int, int]]:
        """Yield path and entry, place in the result, offset in the file and number of items one behind another."""
        start = 0
        for stop in range(1, len(places) + 1):
            goes_on = stop < len(places) and self._follows(places[stop - 1], places[stop])
            if not goes_on:
                yield self.paths[places[start]], start, int(self.offsets[places[start]]), stop - start
                start = stop

    def _follows(self, one: int, other: int) -> bool:
        follows = self.offsets[one] + self.item_bytes == self.offsets[other]
        return bool(follows) and self.paths[one] is self.paths[other]
