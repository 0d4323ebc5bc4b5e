"""Held-out pairs: those of a shard's end that are not trained on, and the fixed batches in which they are judged."""

__all__ = ["HeldOut", "held_out", "num_held_out"]

import math
from dataclasses import dataclass

import numpy as np

from pcl.data.manifest import Manifest

VALIDATION = 3  # stream of random numbers, beside those of pcl.data.loader and pcl.data.sample
MOST_BATCHES, MOST_PAIRS = 16, 4096  # of a held-out loss: as many batches, or those of so many pairs if they are more


def num_held_out(num_pairs: int, fraction: float) -> int:
    r"""Number of a shard's last pairs that are held out.

    .. math:: \lfloor f n \rfloor

    Args:
        num_pairs: n, of the shard.
        fraction: f, less than 1; what it is in decimals counts, not how it is rounded in binary.

    Example:
        >>> num_held_out(1000, 0.1), num_held_out(100, 0.29), num_held_out(9, 0.1)
        (100, 29, 0)
    """
    return math.floor(round(num_pairs * fraction, 6))


@dataclass(frozen=True)
class HeldOut:
    """Pairs that are held out of a training.

    Attributes:
        split: that they are of: ``train``, of which they are the last of every shard, or ``test``.
        numbers: of the pairs in their split, ascending.
    """

    split: str
    numbers: np.ndarray

    def batches(self, batch: int, seed: int) -> np.ndarray:
        """Return numbers of pairs in batches, (n, b): in random order, the same for a seed, without what is left over.

        Args:
            batch: b, or all pairs if there are fewer.
            seed: of the order.
        """
        batch = min(batch, len(self.numbers))
        if batch < 2:  # nothing to tell a pair from
            return np.empty((0, batch), np.int64)
        number = min(len(self.numbers) // batch, max(MOST_BATCHES, -(-MOST_PAIRS // batch)))
        order = np.random.default_rng([seed, VALIDATION]).permutation(self.numbers)
        return order[: number * batch].reshape(number, batch)


def held_out(manifest: Manifest, fraction: float) -> HeldOut:
    """Held-out pairs of the training split, or the test split where nothing is held out of a training.

    Args:
        manifest: of the shards.
        fraction: of the pairs of every shard of the training split.
    """
    if not fraction:
        return HeldOut("test", np.arange(manifest.num_pairs("test")))
    parts, first = [np.empty(0, np.int64)], 0
    for shard in manifest.shards("train"):
        first += shard.pairs
        parts.append(np.arange(first - num_held_out(shard.pairs, fraction), first))
    return HeldOut("train", np.concatenate(parts))
