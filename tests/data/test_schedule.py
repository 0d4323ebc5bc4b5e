"""The schedule of large trainings, without a network and without shards: what every one of 512 workers is given."""

from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

from pcl.data.loader import LaneLoader
from pcl.data.manifest import ArrayInfo, Manifest, ShardEntry, read_manifest
from pcl.data.source import Arrays

LANES, PAIRS, RECORD = 512, 16, 8  # pairs of a shard, and of a record


class NumberedPairs(LaneLoader):
    """A loader of shards that do not exist: u of a pair is the pair's number."""

    def _records(self, shards: list[ShardEntry], skip: int) -> Iterator[Arrays]:
        first = [int(shard.name[6:12]) * PAIRS + start for shard in shards for start in range(0, PAIRS, RECORD)]
        return ({"u": np.arange(number, number + RECORD)} for number in first[skip:])


class Schedule(NamedTuple):
    """Numbers of the pairs, (steps, B), of an epoch and some steps more, and the steps of an epoch."""

    numbers: np.ndarray
    steps: int


def manifest_of(num_shards: int) -> Manifest:
    size = PAIRS * 16 + PAIRS // RECORD * 2048 + 10240
    number = ArrayInfo("int64", (), "1", "number of the pair", statistics="none")
    shards = {
        split: [ShardEntry(f"{split}-{i:06d}.tar", PAIRS, size, f"{i:064x}") for i in range(count)]
        for split, count in (("train", num_shards), ("test", 1))
    }
    source, statistics = {"name": "numbers"}, {"u": {}, "v": {}}
    return Manifest(1, source, "", {}, {"u": number, "v": number}, statistics, RECORD, shards)


def loader(manifest: Manifest, num_workers: int, worker_rank: int) -> LaneLoader:
    batch: dict[str, Any] = {"global_batch": 8 * LANES, "num_lanes": LANES, "shuffle_pairs": 100, "seed": 3}
    return NumberedPairs(
        Path(), manifest, "train", num_workers=num_workers, worker_rank=worker_rank, names=("u",), **batch
    )


def given_to_all(manifest: Manifest, num_workers: int, first: int, count: int | None = None) -> Schedule:
    """Return what all workers are given from a step on, each by a loader of its own, side by side."""
    parts = []
    for rank in range(num_workers):
        own = loader(manifest, num_workers, rank)
        steps = own.steps_per_epoch
        batches = islice(own.batches(first), steps + 2 if count is None else count)
        parts.append(np.stack([batch[0].numpy() for batch in batches]))
    return Schedule(np.concatenate(parts, 1), steps)


@pytest.mark.long
@pytest.mark.parametrize(
    "num_shards",
    [4 * LANES, 4 * LANES - 300, pytest.param(200 * LANES, marks=pytest.mark.slow)],
    ids=["2,048", "1,748", "102,400"],
)
def test_every_pair_is_used_once_an_epoch_and_a_resume_is_exact(num_shards: int) -> None:
    manifest = manifest_of(num_shards)
    numbers, steps = given_to_all(manifest, LANES, 0)
    first, second = numbers[:steps].ravel(), numbers[steps:]
    equal_lanes = num_shards // LANES * PAIRS * LANES  # where lanes are unequal, the longer ones leave some pairs out
    assert len(np.unique(first)) == len(first) == equal_lanes
    assert not (first[: second.size] == second.ravel()).all()
    for num_workers, step in ((LANES, steps - 1), (64, 2), (1, steps // 2)):
        again = given_to_all(manifest, num_workers, step, 3).numbers
        assert (again == numbers[step : step + 3]).all()


def test_a_manifest_of_ten_thousand_shards_is_read_whole(tmp_path: Path) -> None:
    manifest = manifest_of(10_000)
    manifest.save(tmp_path)
    assert read_manifest(tmp_path) == manifest
