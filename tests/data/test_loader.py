"""The lane loader: the same batches for every number of workers, each pair once, and resume at any step."""

import io
import tarfile
from collections import Counter
from collections.abc import Callable
from itertools import combinations, islice, pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from pcl.data.loader import LaneLoader, iterate_split
from pcl.data.manifest import Manifest, load_manifest
from pcl.data.shards import ShardPlan, build_shard, finish_build
from pcl.errors import BadInputError, DamagedDataError
from pcl.problems.gaussian_process.source import GaussianProcessSource

QUICK = settings(max_examples=25, deadline=None, database=None, derandomize=True)
ARGUMENTS = st.fixed_dictionaries(
    {
        "num_lanes": st.sampled_from([1, 2, 4, 8]),
        "lane_batch": st.integers(1, 30),
        "shuffle_pairs": st.sampled_from([1, 5, 13, 52, 60, 1000]),
        "seed": st.integers(0, 3),
    }
)


class Pair(NamedTuple):
    """Where a pair lies."""

    shard: str
    record: str
    position: int


class Shards(NamedTuple):
    """A folder of shards, and every training pair as numpy and tarfile alone read it, by the bytes of its v."""

    root: Path
    manifest: Manifest
    pairs: dict[bytes, Pair]
    partners: dict[bytes, bytes]

    @property
    def sizes(self) -> list[int]:
        return list(Counter(pair.shard for pair in self.pairs.values()).values())


def read_shards(root: Path, manifest: Manifest) -> Shards:
    pairs, partners = {}, {}
    for path in sorted(root.glob("train-*.tar")):
        with tarfile.open(path) as tar:
            arrays = {member.name: np.load(io.BytesIO(tar.extractfile(member).read())) for member in tar}
        for name, values in arrays.items():
            if name.endswith(".v.npy"):
                for position, (u, v) in enumerate(zip(arrays[name.replace(".v.", ".u.")], values, strict=True)):
                    pairs[v.tobytes()] = Pair(path.name, name, position)
                    partners[v.tobytes()] = u.tobytes()
    assert len(pairs) == manifest.num_pairs("train")
    return Shards(root, manifest, pairs, partners)


@pytest.fixture(scope="module")
def shards(make_shards: Callable[..., tuple[Path, Manifest]]) -> Shards:
    """19 shards of 52 or 53 pairs, in records of 13 and less."""
    return read_shards(*make_shards(num_train=1003, num_test=19, num_shards=19, record_pairs=13))


@pytest.fixture(scope="module")
def uneven(tmp_path_factory: pytest.TempPathFactory) -> Shards:
    """11 shards of very different sizes."""
    root, source = tmp_path_factory.mktemp("uneven"), GaussianProcessSource(400, 1, seed=1)
    edges = np.cumsum([0, 3, 40, 7, 25, 90, 11, 5, 60, 33, 1, 125]).tolist()
    plans = [ShardPlan("train", i, *edges[i : i + 2]) for i in range(11)] + [ShardPlan("test", 0, 0, 1)]
    finish_build(root, source, {}, 10, [(plan, *build_shard(source, plan, root, 10)) for plan in plans])
    return read_shards(root, load_manifest(root))


def make_loader(shards: Shards, *, lane_batch: int, num_lanes: int, **arguments: Any) -> LaneLoader:
    arguments = {
        "shuffle_pairs": 60,
        "seed": 0,
        "num_lanes": num_lanes,
        "global_batch": lane_batch * num_lanes,
    } | arguments
    return LaneLoader(shards.root, shards.manifest, "train", **arguments)


def global_batches(shards: Shards, num_workers: int, first: int, count: int, **arguments: Any) -> list[Tensor]:
    """Return what all workers together get, u and v of a pair in one row, (global_batch, 17) a step."""
    streams = [
        make_loader(shards, num_workers=num_workers, worker_rank=rank, **arguments).batches(first)
        for rank in range(num_workers)
    ]
    steps = islice(zip(*streams, strict=True), count)
    return [torch.cat([torch.cat([u, v], 1) for u, v in parts]) for parts in steps]


def where(shards: Shards, batch: Tensor) -> list[Pair]:
    """Return where each pair of a batch lies, and check that u and v are still together."""
    found = []
    for row in batch.numpy():
        u, v = row[:-5].tobytes(), row[-5:].tobytes()
        assert shards.partners[v] == u
        found.append(shards.pairs[v])
    return found


def epoch_of_lanes(shards: Shards, epoch: int = 0, **arguments: Any) -> list[list[Pair]]:
    """Return the pairs of an epoch, lane by lane, in the order in which they come."""
    loader = make_loader(shards, **arguments)
    steps, size = loader.steps_per_epoch, arguments["lane_batch"]
    batches = [where(shards, batch) for batch in global_batches(shards, 1, epoch * steps, steps, **arguments)]
    return [
        [pair for batch in batches for pair in batch[lane * size : (lane + 1) * size]]
        for lane in range(arguments["num_lanes"])
    ]


def most_steps(sizes: list[int], num_lanes: int, lane_batch: int) -> int:
    """Return the steps that every lane can give, whichever shards it was dealt: try all hands."""
    return min(map(sum, combinations(sizes, len(sizes) // num_lanes))) // lane_batch


@pytest.mark.long
@QUICK
@given(arguments=ARGUMENTS, data=st.data())
def test_batches_do_not_depend_on_the_workers_nor_on_where_they_begin(shards, arguments, data):
    steps = make_loader(shards, **arguments).steps_per_epoch
    first = data.draw(st.integers(0, 2 * steps), "first step")
    wanted = global_batches(shards, 1, 0, first + 3, **arguments)[first:]
    for num_workers in [w for w in (1, 2, 4, 8) if arguments["num_lanes"] % w == 0]:
        found = global_batches(shards, num_workers, first, 3, **arguments)
        assert len(found) == 3
        assert all(map(torch.equal, found, wanted))


@QUICK
@given(arguments=ARGUMENTS, epoch=st.integers(0, 3))
def test_an_epoch_holds_each_pair_at_most_once(shards, arguments, epoch):
    loader, sizes = make_loader(shards, **arguments), sorted(shards.sizes)
    assert loader.steps_per_epoch == sum(sizes[: 19 // arguments["num_lanes"]]) // arguments["lane_batch"]
    pairs = [pair for lane in epoch_of_lanes(shards, epoch, **arguments) for pair in lane]
    assert len(set(pairs)) == len(pairs) == loader.steps_per_epoch * loader.global_batch


@QUICK
@given(arguments=ARGUMENTS, epoch=st.integers(0, 3))
def test_every_lane_gives_its_share_from_shards_of_its_own(shards, arguments, epoch):
    lanes = epoch_of_lanes(shards, epoch, **arguments)
    hands = [{pair.shard for pair in lane} for lane in lanes]
    assert {len(lane) for lane in lanes} == {make_loader(shards, **arguments).steps_per_epoch * arguments["lane_batch"]}
    assert sum(map(len, hands)) == len(set().union(*hands))
    assert max(map(len, hands)) <= -(-19 // arguments["num_lanes"])


@QUICK
@given(arguments=ARGUMENTS, epoch=st.integers(0, 3), percent=st.sampled_from([1, 10, 25, 50, 90]))
def test_the_last_pairs_of_every_shard_may_be_held_out_and_the_lanes_stay_balanced(shards, arguments, epoch, percent):
    kept = {
        pair
        for shard, number in Counter(pair.shard for pair in shards.pairs.values()).items()
        for pair in shards.pairs.values()
        if pair.shard == shard and 13 * int(pair.record[7:13]) + pair.position < number - number * percent // 100
    }
    sizes = sorted(Counter(pair.shard for pair in kept).values())
    lane_batch = min(arguments["lane_batch"], sum(sizes[: 19 // arguments["num_lanes"]]))
    arguments = arguments | {"held_out": percent / 100, "lane_batch": lane_batch}
    lanes = epoch_of_lanes(shards, epoch, **arguments)
    steps = make_loader(shards, **arguments).steps_per_epoch
    assert steps == sum(sizes[: 19 // arguments["num_lanes"]]) // lane_batch
    assert [len(lane) for lane in lanes] == [steps * lane_batch] * len(lanes)
    pairs = [pair for lane in lanes for pair in lane]
    assert len(set(pairs)) == len(pairs)
    assert set(pairs) <= kept


@QUICK
@given(num_lanes=st.integers(1, 11), lane_batch=st.integers(1, 4), seed=st.integers(0, 9), epoch=st.integers(0, 3))
def test_uneven_shards_give_all_lanes_the_same_number_of_steps(uneven, num_lanes, lane_batch, seed, epoch):
    wanted = most_steps(uneven.sizes, num_lanes, lane_batch)
    arguments = {"num_lanes": num_lanes, "lane_batch": lane_batch, "seed": seed, "shuffle_pairs": 12}
    if wanted == 0:
        with pytest.raises(BadInputError, match=r"choose a smaller train\.global_batch"):
            make_loader(uneven, **arguments)
        return
    lanes = epoch_of_lanes(uneven, epoch, **arguments)
    assert [len(lane) for lane in lanes] == [wanted * lane_batch] * num_lanes
    assert len({pair for lane in lanes for pair in lane}) == wanted * lane_batch * num_lanes


@pytest.mark.parametrize("shuffle_pairs", [1, 10, 20, 25, 55])
def test_a_window_is_whole_records_in_random_order(make_shards, shuffle_pairs):
    shards = read_shards(*make_shards(num_train=160, num_shards=4, record_pairs=10))
    (lane,) = epoch_of_lanes(shards, num_lanes=1, lane_batch=1, shuffle_pairs=shuffle_pairs)
    window = -(-shuffle_pairs // 10) * 10
    for start in range(0, 160, window):
        pairs = lane[start : start + window]
        records = Counter((pair.shard, pair.record) for pair in pairs)
        assert set(records.values()) == {10}
        assert pairs != sorted(pairs, key=lambda pair: [*records].index((pair.shard, pair.record)) * 10 + pair.position)
    shards_of_first_window = {pair.shard for pair in lane[:window]}
    assert len(shards_of_first_window) == (2 if window > 40 else 1)


def test_no_two_windows_are_shuffled_alike(make_shards):
    shards = read_shards(*make_shards(num_train=160, num_shards=4, record_pairs=10))
    orders = [
        tuple(pair.position for pair in lane[start : start + 10])
        for seed in (0, 1)
        for epoch in (0, 1)
        for lane in epoch_of_lanes(shards, epoch, num_lanes=2, lane_batch=1, shuffle_pairs=10, seed=seed)
        for start in range(0, 80, 10)
    ]
    assert len(set(orders)) == len(orders) == 64


def test_epochs_and_seeds_deal_anew(shards):
    streams = [
        epoch_of_lanes(shards, epoch, num_lanes=4, lane_batch=5, seed=seed)
        for epoch, seed in [(0, 0), (1, 0), (2, 0), (0, 1)]
    ]
    for first, second in combinations(streams, 2):
        assert {pair.shard for pair in first[0]} != {pair.shard for pair in second[0]}
    assert epoch_of_lanes(shards, 0, num_lanes=4, lane_batch=5, seed=0) == streams[0]


@pytest.mark.parametrize("second", [{"seed": 1}, {"epoch": 1}])
def test_a_window_that_holds_the_lane_is_shuffled_anew(shards, second):
    arguments = {"num_lanes": 1, "lane_batch": 1003, "shuffle_pairs": 1003}
    (one,), (two,) = epoch_of_lanes(shards, **arguments), epoch_of_lanes(shards, **arguments, **second)
    assert sorted(one) == sorted(two) == sorted(shards.pairs.values())
    assert sum(a == b for a, b in zip(one, two, strict=True)) < 20
    assert sum(a.shard == b.shard for a, b in pairwise(one)) < 150


@pytest.mark.parametrize(
    ("arguments", "remedy"),
    [
        ({"num_workers": 3}, r"3 workers .* workers\.num_workers among 1, 2, 4, 8$"),
        ({"num_workers": 16}, r"16 workers .* workers\.num_workers among 1, 2, 4, 8$"),
        ({"num_workers": 0}, r"0 workers .* workers\.num_workers among 1, 2, 4, 8$"),
        ({"num_lanes": 12, "global_batch": 12, "num_workers": 5}, "among 1, 2, 3, 4, 6, 12$"),
        ({"global_batch": 30}, r"30 pairs .* 8 lanes: choose train\.global_batch=24$"),
        ({"global_batch": 5}, r"5 pairs .* 8 lanes: choose train\.global_batch=8$"),
        ({"num_lanes": 20, "global_batch": 20}, r"19 shards.*20 lanes.*\(data\.num_shards\).*\(train\.num_lanes\)$"),
        ({"global_batch": 8 * 105}, r"fewer than one global batch of 840: choose a smaller train\.global_batch$"),
    ],
)
def test_what_cannot_be_dealt_is_refused_with_the_remedy(shards, arguments, remedy):
    with pytest.raises(BadInputError, match=remedy) as refused:
        make_loader(shards, **{"lane_batch": 1, "num_lanes": 8} | arguments)
    assert "\n" not in str(refused.value)


def test_a_remedy_helps(shards):
    assert make_loader(shards, lane_batch=3, num_lanes=8).global_batch == 24
    assert make_loader(shards, lane_batch=104, num_lanes=8).steps_per_epoch == 1


def test_a_split_that_is_not_there_is_refused(shards):
    with pytest.raises(BadInputError, match=r"'validation'.*(train, test|test, train)"):
        list(iterate_split(shards.root, shards.manifest, "validation"))


def damage(path: Path, how: str) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    if how == "missing":
        path.unlink()
    else:
        path.write_bytes(content if how == "bit flipped" else content[:-600])


@pytest.mark.parametrize("how", ["bit flipped", "truncated", "missing"])
@pytest.mark.parametrize("read", ["lanes", "in order"])
def test_a_damaged_shard_gives_no_pair(make_shards, how, read):
    shards = read_shards(*make_shards(num_train=160, num_shards=8, record_pairs=5))
    if read == "lanes":
        arguments = {"lane_batch": 2, "num_lanes": 2, "shuffle_pairs": 7}
        victim = epoch_of_lanes(shards, **arguments)[0][-1].shard
        stream = make_loader(shards, **arguments).batches()
    else:
        victim, stream = "train-000004.tar", iterate_split(shards.root, shards.manifest, "train")
    damage(shards.root / victim, how)
    seen: list[tuple[Tensor, Tensor]] = []
    with pytest.raises(DamagedDataError, match=victim):
        seen.extend(islice(stream, 40))
    assert seen
    assert victim not in {pair.shard for batch in seen for pair in where(shards, torch.cat(batch, 1))}


def test_iterate_split_reads_every_pair_in_order(shards):
    batches = [torch.cat(pair, 1) for pair in iterate_split(shards.root, shards.manifest, "train")]
    assert max(map(len, batches)) == 13
    assert [pair for batch in batches for pair in where(shards, batch)] == list(shards.pairs.values())
