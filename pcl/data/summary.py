"""What a build of shards will take, or took: lines for people."""

__all__ = ["describe_needs", "describe_statistics", "format_sizes", "planned_sizes", "written_sizes"]

import io
import math
from collections.abc import Mapping, Sequence

import numpy as np

from pcl.data.manifest import SPLITS, ArrayInfo, Manifest
from pcl.data.shards import ShardPlan
from pcl.data.source import Source

MEGABYTE = 1e6
TAR_BLOCK, TAR_RECORD = 512, 10_240  # bytes: a member is whole blocks, a file whole records
MEMBER_HEADERS = 3  # blocks: webdataset gives the time in an extended header of two

Sizes = dict[str, tuple[int, int, int]]  # pairs, shards and bytes of every split


def planned_sizes(source: Source, plans: Sequence[ShardPlan], record_pairs: int) -> Sizes:
    """Return pairs, shards and bytes of every split, from shapes alone.

    Args:
        source: where the pairs will come from.
        plans: its shards.
        record_pairs: pairs in a record.
    """
    arrays = source.arrays
    sizes = {}
    for split in SPLITS:
        own = [plan for plan in plans if plan.split == split]
        size = sum(_shard_bytes(arrays, plan.stop - plan.start, record_pairs) for plan in own)
        sizes[split] = (source.num_pairs(split), len(own), size)
    return sizes


def _shard_bytes(arrays: Mapping[str, ArrayInfo], num_pairs: int, record_pairs: int) -> int:
    records, rest = divmod(num_pairs, record_pairs)
    size = records * _record_bytes(arrays, record_pairs) + (_record_bytes(arrays, rest) if rest else 0)
    return math.ceil((size + 2 * TAR_BLOCK) / TAR_RECORD) * TAR_RECORD


def _record_bytes(arrays: Mapping[str, ArrayInfo], num_pairs: int) -> int:
    total = 0
    for info in arrays.values():
        header, shape = io.BytesIO(), (num_pairs, *info.shape)
        descr = np.lib.format.dtype_to_descr(np.dtype(info.dtype))
        np.lib.format.write_array_header_1_0(header, {"descr": descr, "fortran_order": False, "shape": shape})
        content = header.tell() + math.prod(shape) * np.dtype(info.dtype).itemsize
        total += (MEMBER_HEADERS + math.ceil(content / TAR_BLOCK)) * TAR_BLOCK
    return total


def written_sizes(manifest: Manifest) -> Sizes:
    """Return pairs, shards and bytes of every split."""
    return {
        split: (manifest.num_pairs(split), len(manifest.splits[split]), sum(s.bytes for s in manifest.splits[split]))
        for split in SPLITS
    }


def format_sizes(sizes: Sizes) -> list[str]:
    """Return a line for every split, and one for all of them.

    Example:
        >>> format_sizes({"train": (1000, 8, 2_000_000), "test": (100, 8, 250_000)})[::2]
        ['train: 1,000 pairs in 8 shards, 2.0 MB', 'in all: 1,100 pairs in 16 shards, 2.2 MB']
    """
    totals = sizes | {"in all": tuple(map(sum, zip(*sizes.values(), strict=True)))}
    return [
        f"{name}: {pairs:,} pairs in {shards} shards, {size / MEGABYTE:.1f} MB"
        for name, (pairs, shards, size) in totals.items()
    ]


def describe_needs(source: Source, plans: Sequence[ShardPlan], record_pairs: int) -> list[str]:
    """Return the memory that the pairs of a task take, and what the source notes of itself.

    Args:
        source: where the pairs come from.
        plans: its shards.
        record_pairs: pairs in a record.
    """
    largest = max(plan.stop - plan.start for plan in plans)
    # a record is written, and read back, at a time; of what is counted the whole shard is held, and joined
    shard = 2 * _record_bytes(source.arrays, min(record_pairs, largest)) + 2 * _record_bytes(source.counted, largest)
    return [f"memory of a task: {shard / MEGABYTE:.1f} MB of its pairs", *source.notes(record_pairs)]


def describe_statistics(manifest: Manifest) -> list[str]:
    """Return the mean and standard deviation of every channel of the arrays that keep them.

    Args:
        manifest: of the shards.
    """
    lines = []
    for name, info in manifest.arrays.items():
        if info.statistics == "channel":
            mean, std = (np.ravel(manifest.statistics[name][key]) for key in ("mean", "std"))
            channels = ", ".join(f"{m:.4g} +- {s:.4g}" for m, s in zip(mean, std, strict=True))
            lines.append(f"{name}, mean and standard deviation over the training split: {channels} {info.units}")
    return lines
