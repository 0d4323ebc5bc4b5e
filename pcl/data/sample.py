"""Some pairs of a split: those of given numbers, or a random sample, for what a training must know of its data.

A sample depends on the seed and on the pairs in their order, not on how they are divided into records and shards.
"""

__all__ = ["pairs_at", "records_at", "sample_pairs"]

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from pcl.data.cache import ahead
from pcl.data.manifest import Manifest
from pcl.data.records import read_records, verify
from pcl.data.source import Arrays
from pcl.storage.place import Place

SAMPLE = 2  # stream of random numbers, beside those of pcl.data.loader


def sample_pairs(root: Place, manifest: Manifest, split: str, most: int, seed: int) -> tuple[Tensor, Tensor]:
    """Random pairs of a split in their order, without replacement: stored u (n, ...) and v (n, ...).

    Shards without a chosen pair are not read; of the others one record is held at a time.

    Args:
        root: where the shards lie.
        manifest: its manifest.
        split: which split.
        most: n, or all pairs if there are fewer.
        seed: of the choice.

    Raises:
        DamagedDataError: a shard differs from its manifest.
    """
    num_pairs = manifest.num_pairs(split)
    generator = np.random.default_rng([seed, SAMPLE])
    chosen = np.sort(generator.choice(num_pairs, min(most, num_pairs), replace=False))
    found = pairs_at(root, manifest, split, chosen)
    return found["u"], found["v"]


def pairs_at(
    root: Place, manifest: Manifest, split: str, chosen: np.ndarray, names: Sequence[str] = ("u", "v")
) -> dict[str, Tensor]:
    """Pairs of a split by their numbers: stored arrays by name (n, ...), by default ``u`` and ``v``.

    Args:
        root: where the shards lie.
        manifest: its manifest.
        split: which split.
        chosen: numbers of the pairs, ascending, shape (n,).
        names: of the arrays.

    Raises:
        DamagedDataError: a shard differs from its manifest.
    """
    infos = {name: manifest.arrays[name] for name in names}
    found = {name: np.empty((len(chosen), *info.shape), info.dtype) for name, info in infos.items()}
    for place, record in records_at(root, manifest, split, chosen, names):
        for name, array in record.items():
            found[name][place] = array
    return {name: torch.from_numpy(array) for name, array in found.items()}


def records_at(
    root: Place, manifest: Manifest, split: str, chosen: np.ndarray, names: Sequence[str] = ("u", "v")
) -> Iterator[tuple[slice, Arrays]]:
    """Yield what records hold of some pairs, each with its place among them; one record is held at a time.

    Shards without a chosen pair are not read.

    Args:
        root: where the shards lie.
        manifest: its manifest.
        split: which split.
        chosen: numbers of the pairs, ascending.
        names: of the arrays.

    Raises:
        DamagedDataError: a shard differs from its manifest.
    """
    infos = {name: manifest.arrays[name] for name in names}
    shards = manifest.shards(split)
    edges = np.cumsum([0, *(shard.pairs for shard in shards)])
    has_some = np.diff(np.searchsorted(chosen, edges)) > 0
    begins = edges[:-1][has_some]
    needed = [shard for shard, is_needed in zip(shards, has_some, strict=True) if is_needed]
    for shard, begin in zip(ahead(root, needed), begins, strict=True):
        verify(root / shard.name, shard)
        for record in read_records(root / shard.name, shard, infos, manifest.record_pairs):
            end = begin + len(record[names[0]])
            place = slice(*np.searchsorted(chosen, [begin, end]).tolist())
            if place.start < place.stop:
                yield place, {name: array[chosen[place] - begin] for name, array in record.items()}
            begin = end
