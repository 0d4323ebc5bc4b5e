"""A random sample of a split, for what a training must know of its data beforehand.

It depends on the seed and on the pairs in their order, not on how they are divided into records and shards.
"""

__all__ = ["sample_pairs"]

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from pcl.data.manifest import Manifest
from pcl.data.records import read_records, verify

SAMPLE = 2  # stream of random numbers, beside those of pcl.data.loader


def sample_pairs(root: Path, manifest: Manifest, split: str, most: int, seed: int) -> tuple[Tensor, Tensor]:
    """Random pairs of a split in their order, without replacement: stored u (n, ...) and v (n, ...).

    Shards without a chosen pair are not read; of the others one record is held at a time.

    Args:
        root: the folder of shards.
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
    infos = {name: manifest.arrays[name] for name in ("u", "v")}
    found = {name: np.empty((len(chosen), *info.shape), info.dtype) for name, info in infos.items()}
    first = 0
    for shard in manifest.shards(split):
        start, stop = np.searchsorted(chosen, [first, first + shard.pairs])
        if start < stop:
            verify(root / shard.name, shard)
            begin = first
            for record in read_records(root / shard.name, shard, infos, manifest.record_pairs):
                end = begin + len(record["u"])
                place = slice(*np.searchsorted(chosen, [begin, end]))
                for name, array in record.items():
                    found[name][place] = array[chosen[place] - begin]
                begin = end
        first += shard.pairs
    return torch.from_numpy(found["u"]), torch.from_numpy(found["v"])
