"""The lane loader: global batches that do not depend on the number of workers.

The shards of a split are dealt, anew each epoch, to L fixed lanes. A lane is a deterministic stream: its shards in the
order dealt, shuffled in windows. A global batch of B pairs is B/L pairs from each lane; worker r of W owns lanes
r L/W .. (r+1) L/W - 1, so the concatenation over workers is the same for every W that divides L. The stream is a
pure function of (seed, step): the step is the cursor of every lane, and resuming needs nothing else.
"""

__all__ = ["LaneLoader", "iterate_split"]

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from pcl.data.cache import Ahead, ahead
from pcl.data.held_out import num_held_out
from pcl.data.manifest import Manifest, ShardEntry
from pcl.data.records import read_records, verify
from pcl.data.source import Arrays
from pcl.errors import BadInputError
from pcl.storage.place import Place

DEAL, SHUFFLE = 0, 1  # streams of random numbers


class LaneLoader:
    """Batches of one worker, counted in steps.

    Args:
        root: where the shards lie.
        manifest: its manifest.
        split: which split.
        global_batch: B, pairs in a batch over all workers.
        num_lanes: L.
        shuffle_pairs: pairs in a lane's shuffle window (rounded up to whole records).
        seed: of the dealing and the shuffling.
        worker_rank: r.
        num_workers: W.
        held_out: the fraction of every shard whose last pairs are left out, see ``pcl.data.held_out``.
        names: of the stored arrays that a batch holds, in its order; no other is read.

    Raises:
        BadInputError: W does not divide L, L does not divide B, there are fewer shards than lanes, or fewer pairs in
            a lane than it must give to one batch.
    """

    def __init__(
        self,
        root: Place,
        manifest: Manifest,
        split: str,
        *,
        global_batch: int,
        num_lanes: int,
        shuffle_pairs: int,
        seed: int,
        worker_rank: int = 0,
        num_workers: int = 1,
        held_out: float = 0.0,
        names: Sequence[str] = ("u", "v"),
    ) -> None:
        self.root, self.manifest, self.seed, self.shuffle_pairs = root, manifest, seed, shuffle_pairs
        self.names = tuple(names)
        self.shards = manifest.shards(split)
        self.pairs_of = {shard.name: shard.pairs - num_held_out(shard.pairs, held_out) for shard in self.shards}
        self.num_lanes, self.global_batch = num_lanes, global_batch
        self._check(split, num_workers)
        self.lane_batch = global_batch // num_lanes
        lanes_per_worker = num_lanes // num_workers
        self.lanes = range(worker_rank * lanes_per_worker, (worker_rank + 1) * lanes_per_worker)
        self.num_workers, self.verified = num_workers, set[str]()

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
        sizes = sorted(self.pairs_of.values())
        return sum(sizes[: len(sizes) // self.num_lanes])

    @property
    def num_pairs(self) -> int:
        """Pairs of the split but for those that are held out."""
        return sum(self.pairs_of.values())

    @property
    def steps_per_epoch(self) -> int:
        """Steps of an epoch, the same for all lanes and epochs; the pairs left over differ from epoch to epoch."""
        return self.pairs_per_lane // (self.global_batch // self.num_lanes)

    def batches(self, first_step: int = 0) -> Iterator[tuple[Tensor, ...]]:
        """Yield this worker's batches from a step on, without end: stored arrays (b, ...), by default u and v.

        Raises:
            DamagedDataError: a shard differs from its manifest; every shard is verified before its first use.
        """
        epoch, step = divmod(first_step, self.steps_per_epoch)
        while True:
            dealt, cursor = self._deal(epoch), step * self.lane_batch
            with Ahead(self.root, self._upcoming(epoch, cursor), self._num_ahead, self.num_workers) as self._fetching:
                lanes = [self._lane(dealt, epoch, lane, cursor) for lane in self.lanes]
                for _ in range(step, self.steps_per_epoch):
                    parts = [next(lane) for lane in lanes]
                    yield tuple(torch.from_numpy(np.concatenate([part[name] for part in parts])) for name in self.names)
            epoch, step = epoch + 1, 0

    @property
    def _num_ahead(self) -> int:
        """Shards that are fetched before they are used: those of the first windows, and one more of each lane."""
        pairs = max(1, self.num_pairs // len(self.shards))
        return min(len(self.shards), len(self.lanes) * (1 + -(-self.shuffle_pairs // pairs)))

    def _upcoming(self, epoch: int, first_pair: int) -> Iterator[ShardEntry]:
        """Yield shards about in the order of their use, from a pair of the lanes of an epoch on, without end."""
        while True:
            dealt, unread = self._deal(epoch), first_pair - self.shuffle_pairs - self.manifest.record_pairs
            first = max(0, unread // max(self.pairs_of.values()))
            for number in range(first, -(-len(dealt) // self.num_lanes)):
                for lane in self.lanes:
                    if number * self.num_lanes + lane < len(dealt):
                        yield self.shards[dealt[number * self.num_lanes + lane]]
            epoch, first_pair = epoch + 1, 0

    def _lane(self, dealt: np.ndarray, epoch: int, lane: int, first_pair: int) -> Iterator[Arrays]:
        """Yield a lane's share of every batch of an epoch, from one of its pairs on."""
        size = self.lane_batch
        window: Arrays | None = None
        shards = [self.shards[i] for i in dealt[lane :: self.num_lanes]]
        for arrays, skipped in self._windows(shards, epoch, lane, first_pair):
            arrays = {name: array[skipped:] for name, array in arrays.items()}
            if window is not None:
                arrays = {name: np.concatenate([window[name], array]) for name, array in arrays.items()}
            num_batches = len(arrays[self.names[0]]) // size
            for i in range(num_batches):
                yield {name: array[i * size : (i + 1) * size] for name, array in arrays.items()}
            window = {name: array[num_batches * size :] for name, array in arrays.items()}

    def _windows(
        self, shards: list[ShardEntry], epoch: int, lane: int, first_pair: int
    ) -> Iterator[tuple[Arrays, int]]:
        """Yield a lane's shuffled windows with the number of pairs to skip; windows before the cursor stay unread."""
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
        size, num_pairs = self.manifest.record_pairs, self.pairs_of[shard.name]
        return (min(size, num_pairs - start) for start in range(0, num_pairs, size))

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
            num_records = -(-self.pairs_of[shard.name] // self.manifest.record_pairs)
            if skip >= num_records:
                skip -= num_records
                continue
            self._fetching.used()
            if shard.name not in self.verified:
                verify(self.root / shard.name, shard)
                self.verified.add(shard.name)
            arrays = {name: self.manifest.arrays[name] for name in self.names}
            records = read_records(self.root / shard.name, shard, arrays, self.manifest.record_pairs)
            for record, size in zip(records, self._record_sizes(shard), strict=False):  # the last ones are held out
                if skip:
                    skip -= 1
                else:
                    yield {name: array[:size] for name, array in record.items()}


def iterate_split(
    root: Place, manifest: Manifest, split: str, names: Sequence[str] = ("u", "v")
) -> Iterator[tuple[Tensor, ...]]:
    """Yield a split's records in order, each shard verified first: stored arrays (n, ...), by default u and v.

    Raises:
        DamagedDataError: a shard differs from its manifest.
    """
    for shard in ahead(root, manifest.shards(split)):
        verify(root / shard.name, shard)
        arrays = {name: manifest.arrays[name] for name in names}
        for record in read_records(root / shard.name, shard, arrays, manifest.record_pairs):
            yield tuple(torch.from_numpy(record[name]) for name in names)
