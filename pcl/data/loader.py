"""The lane loader: global batches that do not depend on the number of workers.

The shards of a split are dealt, anew each epoch, to L fixed lanes. A lane is a deterministic stream: its shards in the
order dealt, shuffled in windows. A global batch of B pairs is B/L pairs from each lane; worker r of W owns lanes
r L/W .. (r+1) L/W - 1, so the concatenation over workers is the same for every W that divides L. The stream is a
pure function of (seed, step): the step is the cursor of every lane, and resuming needs nothing else.
"""

__all__ = ["LaneLoader", "iterate_split"]

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from pcl.data.manifest import Manifest, ShardEntry
from pcl.data.records import read_records, verify
from pcl.data.source import Arrays
from pcl.errors import BadInputError

DEAL, SHUFFLE = 0, 1  # streams of random numbers


class LaneLoader:
    """Batches of one worker, counted in steps.

    Args:
        root: the folder of shards.
        manifest: its manifest.
        split: which split.
        global_batch: B, pairs in a batch over all workers.
        num_lanes: L.
        shuffle_pairs: pairs in a lane's shuffle window (rounded up to whole records).
        seed: of the dealing and the shuffling.
        worker_rank: r.
        num_workers: W.

    Raises:
        BadInputError: W does not divide L, L does not divide B, there are fewer shards than lanes, or fewer pairs in
            a lane than it must give to one batch.
    """

    def __init__(
        self,
        root: Path,
        manifest: Manifest,
        split: str,
        *,
        global_batch: int,
        num_lanes: int,
        shuffle_pairs: int,
        seed: int,
        worker_rank: int = 0,
        num_workers: int = 1,
    ) -> None:
        self.root, self.manifest, self.seed, self.shuffle_pairs = root, manifest, seed, shuffle_pairs
        self.shards = manifest.shards(split)
        self.num_lanes, self.global_batch = num_lanes, global_batch
        self._check(split, num_workers)
        self.lane_batch = global_batch // num_lanes
        lanes_per_worker = num_lanes // num_workers
        self.lanes = range(worker_rank * lanes_per_worker, (worker_rank + 1) * lanes_per_worker)
        self.verified: set[str] = set()

    def _check(self, split: str, num_workers: int) -> None:
        allowed = [w for w in range(1, self.num_lanes + 1) if self.num_lanes % w == 0]
        if num_workers not in allowed:
            raise BadInputError(
                f"{num_workers} workers do not divide {self.num_lanes} lanes: choose workers.num_workers among "
                f"{', '.join(map(str, allowed))}"
            )
        if self.global_batch % self.num_lanes:
            raise BadInputError(
                f"a global batch of {self.global_batch} pairs is not a multiple of {self.num_lanes} lanes: choose "
                f"train.global_batch={self.global_batch // self.num_lanes * self.num_lanes or self.num_lanes}"
            )
        if len(self.shards) < self.num_lanes:
            raise BadInputError(
                f"the {split} split has {len(self.shards)} shards, fewer than {self.num_lanes} lanes: write more "
                "shards (data.num_shards) or use fewer lanes (train.num_lanes)"
            )
        if self.steps_per_epoch == 0:
            raise BadInputError(
                f"the {split} split has {self.pairs_per_lane * self.num_lanes} pairs in {self.num_lanes} equal lanes, "
                f"fewer than one global batch of {self.global_batch}: choose a smaller train.global_batch"
            )

    @property
    def pairs_per_lane(self) -> int:
        """Pairs that every lane has in every epoch, however the shards are dealt."""
        sizes = sorted(shard.pairs for shard in self.shards)
        return sum(sizes[: len(sizes) // self.num_lanes])

    @property
    def steps_per_epoch(self) -> int:
        """Steps of an epoch, the same for all lanes and epochs; the pairs left over differ from epoch to epoch."""
        return self.pairs_per_lane // (self.global_batch // self.num_lanes)

    def batches(self, first_step: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield this worker's batches from a step on, without end: stored u (b, ...) and v (b, ...).

        Raises:
            DamagedDataError: a shard differs from its manifest; every shard is verified before its first use.
        """
        epoch, step = divmod(first_step, self.steps_per_epoch)
        while True:
            lanes = [self._lane(epoch, lane, step * self.lane_batch) for lane in self.lanes]
            for _ in range(step, self.steps_per_epoch):
                parts = [next(lane) for lane in lanes]
                u, v = (np.concatenate([part[name] for part in parts]) for name in ("u", "v"))
                yield torch.from_numpy(u), torch.from_numpy(v)
            epoch, step = epoch + 1, 0

    def _lane(self, epoch: int, lane: int, first_pair: int) -> Iterator[Arrays]:
        """Yield a lane's share of every batch of an epoch, from one of its pairs on."""
        size = self.lane_batch
        window: Arrays | None = None
        for arrays, skipped in self._windows(epoch, lane, first_pair):
            arrays = {name: array[skipped:] for name, array in arrays.items()}
            if window is not None:
                arrays = {name: np.concatenate([window[name], array]) for name, array in arrays.items()}
            num_batches = len(arrays["u"]) // size
            for i in range(num_batches):
                yield {name: array[i * size : (i + 1) * size] for name, array in arrays.items()}
            window = {name: array[num_batches * size :] for name, array in arrays.items()}

    def _windows(self, epoch: int, lane: int, first_pair: int) -> Iterator[tuple[Arrays, int]]:
        """Yield a lane's shuffled windows with the number of pairs to skip; windows before the cursor stay unread."""
        shards = [self.shards[i] for i in self._deal(epoch)[lane :: self.num_lanes]]
        start = skipped = 0
        records: Iterator[Arrays] | None = None
        for number, sizes in enumerate(self._window_sizes(shards)):
            num_pairs = sum(sizes)
            if start + num_pairs > first_pair:
                records = records or self._records(shards, skipped)
                part = [next(records) for _ in sizes]
                order = np.random.default_rng([self.seed, SHUFFLE, epoch, lane, number]).permutation(num_pairs)
                shuffled = {name: np.concatenate([record[name] for record in part])[order] for name in part[0]}
                yield shuffled, max(0, first_pair - start)
            start, skipped = start + num_pairs, skipped + len(sizes)

    def _deal(self, epoch: int) -> np.ndarray:
        return np.random.default_rng([self.seed, DEAL, epoch]).permutation(len(self.shards))

    def _record_sizes(self, shard: ShardEntry) -> Iterator[int]:
        size = self.manifest.record_pairs
        return (min(size, shard.pairs - start) for start in range(0, shard.pairs, size))

    def _window_sizes(self, shards: list[ShardEntry]) -> Iterator[list[int]]:
        """Cut a lane's records into windows of at least ``shuffle_pairs`` pairs: the sizes of each window's records.

        One window is held at a time: how many records there are is so far only what the manifest says.
        """
        window: list[int] = []
        num_pairs = 0
        for size in (size for shard in shards for size in self._record_sizes(shard)):
            window.append(size)
            num_pairs += size
            if num_pairs >= self.shuffle_pairs:
                yield window
                window, num_pairs = [], 0
        if window:
            yield window

    def _records(self, shards: list[ShardEntry], skip: int) -> Iterator[Arrays]:
        for shard in shards:
            num_records = -(-shard.pairs // self.manifest.record_pairs)
            if skip >= num_records:
                skip -= num_records
                continue
            if shard.name not in self.verified:
                verify(self.root / shard.name, shard)
                self.verified.add(shard.name)
            arrays = {name: self.manifest.arrays[name] for name in ("u", "v")}
            for record in read_records(self.root / shard.name, shard, arrays, self.manifest.record_pairs):
                if skip:
                    skip -= 1
                else:
                    yield record


def iterate_split(
    root: Path, manifest: Manifest, split: str, names: Sequence[str] = ("u", "v")
) -> Iterator[tuple[Tensor, ...]]:
    """Yield a split's records in order, each shard verified first: stored arrays (n, ...), by default u and v.

    Raises:
        DamagedDataError: a shard differs from its manifest.
    """
    for shard in manifest.shards(split):
        verify(root / shard.name, shard)
        arrays = {name: manifest.arrays[name] for name in names}
        for record in read_records(root / shard.name, shard, arrays, manifest.record_pairs):
            yield tuple(torch.from_numpy(record[name]) for name in names)
