"""Shards: the same bytes however they are built, readable by anyone, and no damage goes unnoticed."""

import contextlib
import dataclasses
import gc
import hashlib
import io
import json
import os
import pickle
import re
import runpy
import sys
import tarfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import webdataset
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pcl.data.loader import LaneLoader, iterate_split
from pcl.data.manifest import ArrayInfo, Manifest, load_manifest, manifest_sha256
from pcl.data.records import read_records
from pcl.data.shards import begin_build, build_shard, plan_shards
from pcl.data.source import Source
from pcl.errors import BadInputError, DamagedDataError
from pcl.problems.gaussian_process.source import GaussianProcessSource
from pcl.storage.lease import Lease
from pcl.storage.stored import sealed
from tests.modest import modest
from tests.shards import build_shards

QUICK = settings(max_examples=25, deadline=None, database=None, derandomize=True)
NUM_SHARDS, RECORD_PAIRS = 4, 7
CONFIG = {"num_shards": NUM_SHARDS, "seed": 0}


@dataclasses.dataclass
class Table(Source):
    """A source that holds its pairs in memory: ``table[split]`` is (u, v)."""

    table: dict[str, tuple[np.ndarray, np.ndarray]]
    scale_u: float = 1.0
    kept: tuple[str, str] = ("component", "counts")
    name: str = "table"

    split_rule = "given"

    @property
    def arrays(self) -> dict[str, ArrayInfo]:
        u, v = self.table["train"]
        return {
            "u": ArrayInfo(str(u.dtype), u.shape[1:], "1", "numbers", self.scale_u, self.kept[0]),
            "v": ArrayInfo(str(v.dtype), v.shape[1:], "1", "labels", 1.0, self.kept[1]),
        }

    def provenance(self) -> dict[str, Any]:
        return {"name": self.name}

    def num_pairs(self, split: str) -> int:
        return len(self.table[split][0])

    def pairs(self, split: str, start: int, stop: int) -> dict[str, np.ndarray]:
        return {name: array[start:stop] for name, array in zip("uv", self.table[split], strict=True)}

    def statistics(self) -> dict[str, dict[str, Any]]:
        return {}


class Described(Table):
    """Pairs with a third array that describes them, and statistics of u that the source knows itself."""

    @property
    def arrays(self) -> dict[str, ArrayInfo]:
        infos = super().arrays
        infos["u"] = dataclasses.replace(infos["u"], statistics="channel")
        return infos | {"origin": ArrayInfo("int64", (), "1", "number of the pair", statistics="none")}

    def pairs(self, split: str, start: int, stop: int) -> dict[str, np.ndarray]:
        return super().pairs(split, start, stop) | {"origin": np.arange(start, stop)}

    def statistics(self) -> dict[str, dict[str, Any]]:
        return {"u": {"mean": np.full((3, 1), 2.0).tolist(), "std": np.full((3, 1), 4.0).tolist()}}


def make_table(num_train: int = 101, num_test: int = 23, dtype: str = "float32") -> Table:
    generator = np.random.default_rng(5)
    return Table(
        {
            split: (generator.normal(3, 2, (n, 3, 2)).astype(dtype), generator.integers(0, 9, n, dtype=np.uint8))
            for split, n in (("train", num_train), ("test", num_test))
        }
    )


def begin(root: Path, source: Table, config: dict[str, Any] = CONFIG) -> bool:
    return begin_build(root, {"config": config, "source": source.provenance()})


def build(root: Path, source: Table, order: Sequence[int] | None = None) -> Manifest:
    """Build, or go on building, the shards in some order, and return the manifest that lies in the folder."""
    return build_shards(root, source, NUM_SHARDS, RECORD_PAIRS, CONFIG, order)


def contents(root: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in root.iterdir()}


def read_all(root: Path) -> dict[str, list[np.ndarray]]:
    """Read every record of a folder as the program does, checks included."""
    manifest = load_manifest(root)
    return {split: [u.numpy() for u, _ in iterate_split(root, manifest, split)] for split in manifest.splits}


# building


def test_bytes_do_not_depend_on_order_or_clock(tmp_path, monkeypatch):
    build(tmp_path / "a", make_table())
    monkeypatch.setattr(time, "time", lambda: 4e9)
    build(tmp_path / "b", make_table(), order=[5, 2, 7, 0, 1, 6, 4, 3])
    assert contents(tmp_path / "a") == contents(tmp_path / "b")


def test_manifest_tells_what_lies_in_the_folder(tmp_path):
    manifest = build(tmp_path, make_table())
    entries = [entry for shards in manifest.splits.values() for entry in shards]
    assert {entry.name: (entry.bytes, entry.sha256) for entry in entries} == {
        name: (len(content), hashlib.sha256(content).hexdigest())
        for name, content in contents(tmp_path).items()
        if name != "manifest.json"
    }
    assert manifest.num_pairs("train") == 101
    assert manifest.num_pairs("test") == 23
    assert (manifest.source, manifest.config, manifest.split_rule) == ({"name": "table"}, CONFIG, "given")


class KilledError(Exception):
    """Stands for the end of a process."""


def test_a_build_that_was_cut_off_continues(tmp_path, monkeypatch):
    source, root = make_table(), tmp_path / "cut"
    begin(root, source)
    plans = plan_shards(source, NUM_SHARDS)
    for plan in plans[:3]:
        build_shard(source, plan, root, RECORD_PAIRS)

    def pairs(split: str, start: int, stop: int) -> dict[str, np.ndarray]:
        if start > plans[3].start:
            raise KilledError
        return Table.pairs(source, split, start, stop)

    with monkeypatch.context() as patch:
        patch.setattr(source, "pairs", pairs)
        with pytest.raises(KilledError):
            build_shard(source, plans[3], root, RECORD_PAIRS)
    (root / f".{plans[4].name}.1").write_bytes(b"half of a shard by a process that was killed")

    assert not (root / plans[3].name).exists()
    with pytest.raises(BadInputError, match="write the shards first"):
        load_manifest(root)
    finished = {plan.name: (root / plan.name).stat().st_mtime_ns for plan in plans[:3]}
    build(root, source)
    build(tmp_path / "undisturbed", source)
    assert {name: (root / name).stat().st_mtime_ns for name in finished} == finished
    assert contents(root) == contents(tmp_path / "undisturbed")


def test_a_shard_damaged_before_the_build_continued_is_written_again(tmp_path):
    source, root = make_table(), tmp_path / "cut"
    begin(root, source)
    plan = plan_shards(source, NUM_SHARDS)[0]
    build_shard(source, plan, root, RECORD_PAIRS)
    content = bytearray((root / plan.name).read_bytes())
    content[1200] ^= 1
    (root / plan.name).write_bytes(content)
    build(root, source)
    build(tmp_path / "undisturbed", source)
    assert contents(root) == contents(tmp_path / "undisturbed")


def test_a_finished_build_is_not_redone(tmp_path):
    build(tmp_path, make_table())
    before = {path: path.stat().st_mtime_ns for path in [tmp_path, *tmp_path.iterdir()]}
    assert begin(tmp_path, make_table()) is False
    assert {path: path.stat().st_mtime_ns for path in [tmp_path, *tmp_path.iterdir()]} == before


@pytest.mark.parametrize("finished", [True, False])
def test_another_configuration_is_refused_with_the_differing_keys(tmp_path, finished):
    source = make_table()
    assert build(tmp_path, source) if finished else begin(tmp_path, source)
    before = contents(tmp_path)
    with pytest.raises(BadInputError, match=r"differing: config\.extra, config\.seed\)"):
        begin(tmp_path, source, CONFIG | {"seed": 1, "extra": 2})
    with pytest.raises(BadInputError, match=r"differing: source\.name\)"):
        begin(tmp_path, dataclasses.replace(source, name="other"))
    assert contents(tmp_path) == before


def test_a_foreign_folder_is_refused_and_left_alone(tmp_path):
    (tmp_path / "thesis.tex").write_text("do not touch")
    with pytest.raises(BadInputError, match=str(tmp_path)):
        begin(tmp_path, make_table())
    assert contents(tmp_path) == {"thesis.tex": b"do not touch"}


def test_a_file_in_the_place_of_the_folder_is_refused(tmp_path):
    (tmp_path / "shards").write_text("do not touch")
    with pytest.raises(BadInputError, match=str(tmp_path / "shards")):
        begin(tmp_path / "shards", make_table())


@pytest.mark.parametrize("name", ["build.json", "manifest.json"])
@pytest.mark.parametrize("text", ["", "{", "[]", "null", "{}"])
def test_a_garbled_identity_is_damage(tmp_path, name, text):
    (tmp_path / name).write_text(text)
    with pytest.raises(DamagedDataError, match=name):
        begin(tmp_path, make_table())


@QUICK
@given(num_train=st.integers(1, 300), num_test=st.integers(1, 300), num_shards=st.integers(1, 300))
@example(num_train=7, num_test=8, num_shards=8)
@example(num_train=8, num_test=8, num_shards=8)
def test_shards_cover_the_pairs_and_differ_by_one_pair_at_most(num_train, num_test, num_shards):
    source = make_table(num_train, num_test)
    if min(num_train, num_test) < num_shards:
        with pytest.raises(BadInputError, match=rf"fewer than data\.num_shards={num_shards}: ask for fewer"):
            plan_shards(source, num_shards)
        return
    plans = plan_shards(source, num_shards)
    assert len({plan.name for plan in plans}) == len(plans) == 2 * num_shards
    for split, num_pairs in (("train", num_train), ("test", num_test)):
        ranges = [range(plan.start, plan.stop) for plan in plans if plan.split == split]
        assert [i for pairs in ranges for i in pairs] == list(range(num_pairs))
        assert max(map(len, ranges)) - min(map(len, ranges)) <= 1


# reading


@pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")
def test_stock_webdataset_reads_all_pairs(tmp_path):
    source = make_table()
    manifest = build(tmp_path, source)
    for split, (u, v) in source.table.items():
        urls = [str(tmp_path / entry.name) for entry in manifest.shards(split)]
        samples = list(webdataset.WebDataset(urls, shardshuffle=False).decode())
        np.testing.assert_array_equal(np.concatenate([sample["u.npy"] for sample in samples]), u, strict=True)
        np.testing.assert_array_equal(np.concatenate([sample["v.npy"] for sample in samples]), v, strict=True)
        assert len({sample["__key__"] for sample in samples}) == len(samples)
    gc.collect()  # webdataset leaves files open: let them go while their warning is ignored


def test_records_hold_the_stated_number_of_pairs(tmp_path):
    manifest = build(tmp_path, make_table())
    for entry in manifest.shards("train"):
        records = list(read_records(tmp_path / entry.name, entry, manifest.arrays, RECORD_PAIRS))
        *whole, last = [len(record["u"]) for record in records]
        assert set(whole) == {RECORD_PAIRS}
        assert 1 <= last <= RECORD_PAIRS
        assert sum(whole) + last == entry.pairs


def test_there_is_no_pickle(tmp_path):
    manifest = build(tmp_path, make_table())
    for entry in [entry for shards in manifest.splits.values() for entry in shards]:
        with tarfile.open(tmp_path / entry.name) as tar:
            for member in tar:
                stream = tar.extractfile(member)
                assert np.lib.format.read_magic(stream) == (1, 0)
                assert not np.lib.format.read_array_header_1_0(stream)[2].hasobject


def test_pairs_may_be_described_by_further_arrays(tmp_path):
    table = make_table()
    manifest = build(tmp_path, Described(table.table))
    assert manifest.statistics["u"] == {"mean": [[2.0]] * 3, "std": [[4.0]] * 3}
    assert manifest.statistics["origin"] == {}
    origins = torch.cat([origin for (origin,) in iterate_split(tmp_path, manifest, "test", ["origin"])])
    assert origins.tolist() == list(range(23))
    loader = LaneLoader(tmp_path, manifest, "train", global_batch=4, num_lanes=2, shuffle_pairs=5, seed=0)
    assert len(next(loader.batches())) == 2
    spoiled = dataclasses.replace(manifest, statistics=manifest.statistics | {"u": {"mean": [1.0], "std": [1.0]}})
    spoiled.save(tmp_path)
    with pytest.raises(DamagedDataError, match=r"finite numbers of shape \(3, 1\)"):
        load_manifest(tmp_path)


def test_statistics_of_components(tmp_path):
    source = make_table(dtype="float64")
    u, v = source.table["train"]
    u[:, 0] += 1e6
    u[:, 1, 0] = 4.0
    source.scale_u = 0.5
    statistics = build(tmp_path, source).statistics
    assert np.shape(statistics["u"]["mean"]) == (3, 2)
    np.testing.assert_allclose(statistics["u"]["mean"], (u * 0.5).mean(0), rtol=1e-14)
    np.testing.assert_allclose(statistics["u"]["std"], (u * 0.5).std(0), rtol=1e-8)
    assert statistics["u"]["std"][1][0] == 0
    assert statistics["v"] == {"counts": [int((v == label).sum()) for label in range(v.max() + 1)]}


def test_scalar_statistics_of_integers_are_in_physical_units(tmp_path):
    source = make_table()
    source.table = {split: ((abs(u) * 40).astype(np.uint8), v) for split, (u, v) in source.table.items()}
    source.scale_u, source.kept = 1 / 255, ("scalar", "counts")
    statistics = build(tmp_path, source).statistics["u"]
    physical = source.table["train"][0].astype(np.float64) / 255
    assert statistics["mean"] == pytest.approx(physical.mean(), rel=1e-12)
    assert statistics["std"] == pytest.approx(physical.std(), rel=1e-12)


# damage


@pytest.fixture
def shards(tmp_path: Path) -> Path:
    """A folder of finished shards that a test may damage."""
    root = tmp_path / "shards"
    build(root, make_table())
    return root


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Manifest]:
    root = tmp_path_factory.mktemp("pristine")
    return root, build(root, make_table())


def check_noticed(root: Path, match: str) -> None:
    with pytest.raises(DamagedDataError, match=match) as noticed:
        read_all(root)
    assert "\n" not in str(noticed.value)


def test_sound_shards_are_read(shards):
    assert sum(map(len, read_all(shards)["train"])) == 101


@pytest.mark.parametrize("keep", [0, 1, 511, 512, 4000, -1])
def test_a_truncated_shard_is_noticed(shards, keep):
    path = shards / "train-000002.tar"
    path.write_bytes(path.read_bytes()[:keep])
    check_noticed(shards, path.name)


@pytest.mark.parametrize("position", [3, 600, 2000, -1])
def test_a_flipped_bit_is_noticed(shards, position):
    path = shards / "test-000001.tar"
    content = bytearray(path.read_bytes())
    content[position] ^= 4
    path.write_bytes(content)
    check_noticed(shards, path.name)


def test_a_missing_shard_is_noticed(shards):
    (shards / "train-000000.tar").unlink()
    check_noticed(shards, r"train-000000\.tar is missing")


def test_exchanged_shards_are_noticed(shards):
    first, second = (shards / f"train-00000{i}.tar" for i in (1, 2))
    first_content = first.read_bytes()
    first.write_bytes(second.read_bytes())
    second.write_bytes(first_content)
    check_noticed(shards, "train-000001")


Change = Callable[[dict[str, Any]], object]
LIES: dict[str, Change] = {
    "pairs more": lambda m: m["splits"]["train"][1].update(pairs=26),
    "pairs less": lambda m: m["splits"]["train"][1].update(pairs=24),
    "pairs one record less": lambda m: m["splits"]["train"][1].update(pairs=21),
    "pairs one record more": lambda m: m["splits"]["train"][1].update(pairs=28),
    "pairs no number": lambda m: m["splits"]["train"][1].update(pairs="25"),
    "bytes": lambda m: m["splits"]["train"][1].update(bytes=1),
    "sha": lambda m: m["splits"]["train"][1].update(sha256="0" * 64),
    "shard parent": lambda m: m["splits"]["train"][1].update(name="../shards/train-000001.tar"),
    "shard folder": lambda m: m["splits"]["train"][1].update(name="./train-000001.tar"),
    "shard newline": lambda m: m["splits"]["train"][1].update(name="train-000001.tar\n"),
    "shard no text": lambda m: m["splits"]["train"][1].update(name=1),
    "shard unnamed": lambda m: m["splits"]["train"][1].pop("name"),
    "dtype": lambda m: m["arrays"]["u"].update(dtype="float64"),
    "dtype order": lambda m: m["arrays"]["u"].update(dtype=">f4"),
    "dtype unknown": lambda m: m["arrays"]["u"].update(dtype="banana"),
    "shape": lambda m: m["arrays"]["u"].update(shape=[2, 3]),
    "shape missing": lambda m: m["arrays"]["u"].pop("shape"),
    "another array": lambda m: m["arrays"].update(w=m["arrays"]["u"]),
    "record_pairs": lambda m: m.update(record_pairs=8),
    "record_pairs none": lambda m: m.update(record_pairs=0),
    "record_pairs beyond counting": lambda m: m.update(record_pairs=10**30),
    "twelve terabytes": lambda m: m["arrays"]["u"].update(shape=[3, 10**12]),
    "shape that overflows": lambda m: m["arrays"]["u"].update(shape=[2**32, 2**32]),
    "shape of nothing": lambda m: m["arrays"]["u"].update(shape=[0]),
    "shape of many axes": lambda m: m["arrays"]["u"].update(shape=[1] * 1000),
    "a thousand million pairs": lambda m: m["splits"]["train"][1].update(pairs=10**9),
    "dtype of objects": lambda m: m["arrays"]["u"].update(dtype="O"),
    "dtype of texts": lambda m: m["arrays"]["u"].update(dtype="<U3"),
    "dtype of records": lambda m: m["arrays"]["u"].update(dtype="f4,f4"),
    "scale 0": lambda m: m["arrays"]["u"].update(scale_factor=0.0),
    "scale not finite": lambda m: m["arrays"]["u"].update(scale_factor=float("nan")),
    "scale no number": lambda m: m["arrays"]["u"].update(scale_factor="1"),
    "statistics unknown": lambda m: m["arrays"]["u"].update(statistics="median"),
    "mean not finite": lambda m: m["statistics"]["u"]["mean"].__setitem__(0, [float("inf"), 0.0]),
    "mean ragged": lambda m: m["statistics"]["u"]["mean"].__setitem__(0, [0.0]),
    "mean of texts": lambda m: m["statistics"]["u"].update(mean=[["1", "2"]] * 3),
    "mean of large numbers": lambda m: m["statistics"]["u"].update(mean=[[10**400, 0.5]] * 3),
    "std negative": lambda m: m["statistics"]["u"]["std"].__setitem__(0, [-1.0, 1.0]),
    "std infinite": lambda m: m["statistics"]["u"]["std"].__setitem__(0, [float("inf"), 1.0]),
    "std missing": lambda m: m["statistics"]["u"].pop("std"),
    "counts of more pairs": lambda m: m["statistics"]["v"]["counts"].append(1),
    "counts negative": lambda m: m["statistics"]["v"]["counts"].__setitem__(0, -1),
    "counts no list": lambda m: m["statistics"]["v"].update(counts=3),
    "channels of a number": lambda m: m["arrays"]["v"].update(statistics="channel"),
    "split elsewhere": lambda m: m["splits"].update({"../x": []}),
    "split empty": lambda m: m["splits"].update(test=[]),
    "array elsewhere": lambda m: m["arrays"].update({"../u": m["arrays"]["u"]}),
    "source unnamed": lambda m: m["source"].pop("name"),
    "schema newer": lambda m: m.update(schema_version=2),
    "schema missing": lambda m: m.pop("schema_version"),
    "splits missing": lambda m: m.pop("splits"),
    "statistics missing": lambda m: m.pop("statistics"),
    "splits no mapping": lambda m: m.update(splits=[1]),
    "extra key": lambda m: m.update(comment="hand-made"),
}


@pytest.mark.parametrize("lie", LIES)
def test_a_manifest_that_lies_is_noticed(shards, lie):
    path = shards / "manifest.json"
    content = json.loads(path.read_text())
    LIES[lie](content)
    for told in (content, sealed(content), {key: content[key] for key in content if key != "sha256"}):
        path.write_text(json.dumps(told))
        check_noticed(shards, "schema version 2" if lie == "schema newer" else r"-00000\d\.tar|manifest\.json")


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"null", b"7", b"\xff\xfe\x00", b"{}"])
def test_a_manifest_that_is_garbage_is_noticed(shards, content):
    (shards / "manifest.json").write_bytes(content)
    check_noticed(shards, r"manifest\.json")


class Canary:
    """Creates a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


def test_a_pickled_object_in_a_shard_is_not_executed(shards, tmp_path):
    sung = tmp_path / "sung"
    pickle.loads(pickle.dumps(Canary(sung)))
    assert sung.exists()
    sung.unlink()

    stream = io.BytesIO()
    np.save(stream, np.array([Canary(sung)] * RECORD_PAIRS, dtype=object), allow_pickle=True)
    path = shards / "train-000000.tar"
    with tarfile.open(path, "w") as tar:
        for suffix in ("u", "v"):
            member = tarfile.TarInfo(f"000000-000000.{suffix}.npy")
            member.size = stream.getbuffer().nbytes
            tar.addfile(member, io.BytesIO(stream.getvalue()))
    manifest = json.loads((shards / "manifest.json").read_text())
    manifest["splits"]["train"][0].update(
        bytes=path.stat().st_size, sha256=hashlib.sha256(path.read_bytes()).hexdigest()
    )
    (shards / "manifest.json").write_text(json.dumps(sealed(manifest)))
    check_noticed(shards, path.name)
    assert not sung.exists()


@settings(QUICK, max_examples=200)
@given(position=st.integers(0, 10_239), bit=st.integers(0, 7))
@example(position=1544, bit=3)  # an opening bracket in a header of numpy
def test_any_flipped_bit_gives_the_promised_shapes_or_damage(pristine, tmp_path_factory, position, bit):
    root, manifest = pristine
    entry = manifest.shards("train")[0]
    content = bytearray((root / entry.name).read_bytes())
    content[position % len(content)] ^= 1 << bit
    path = tmp_path_factory.getbasetemp() / "flipped.tar"
    path.write_bytes(content)
    try:
        records = list(read_records(path, entry, manifest.arrays, RECORD_PAIRS))
    except DamagedDataError:
        return
    assert sum(len(record["u"]) for record in records) == entry.pairs


# what claims more than it holds: one line, little memory, little time


def tar_of(path: Path, *members: tuple[tarfile.TarInfo, bytes]) -> None:
    """Write a tar whose headers may say anything."""
    with path.open("wb") as stream:
        for member, content in members:
            stream.write(member.tobuf(tarfile.GNU_FORMAT))
            stream.write(content.ljust(-(-len(content) // 512) * 512, b"\0"))
        stream.write(bytes(1024))


def header(name: str, size: int, kind: bytes = tarfile.REGTYPE) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.size, info.type = size, kind
    return info


def npy(shape: str, dtype: str = "<f4", values: bytes = b"") -> bytes:
    text = f"{{'descr': '{dtype}', 'fortran_order': False, 'shape': {shape}, }}".encode().ljust(117) + b"\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text + values


def grow(path: Path, size: int) -> None:
    with path.open("r+b") as stream:
        stream.truncate(size)


def empty_tar_of_a_terabyte(path: Path) -> None:
    path.write_bytes(b"")
    grow(path, 10**12)


def member_of_a_terabyte(path: Path) -> None:
    tar_of(path, (header("000000-000000.u.npy", 10**12), npy("(7, 3, 2)")))
    grow(path, 10**12 + 20_480)


def gnu_sparse_member(path: Path) -> None:
    info = header("000000-000000.u.npy", 0, tarfile.GNUTYPE_SPARSE)
    block = bytearray(info.tobuf(tarfile.GNU_FORMAT))
    block[386:410] = b"%011o\0%011o\0" % (0, 0)  # one segment, of nothing
    block[483:495] = b"%011o\0" % (8**11 - 1)  # the size when unpacked: 8 GB
    block[148:156] = b"%06o\0 " % (sum(block) - sum(block[148:156]) + 8 * 32)
    path.write_bytes(bytes(block) + bytes(10_240))


def pax_header_of_two_gigabytes(path: Path) -> None:
    tar_of(path, (header("././@PaxHeader", 2**31, tarfile.XHDTYPE), b""))
    grow(path, 2**31 + 20_480)


def long_name_of_two_gigabytes(path: Path) -> None:
    tar_of(path, (header("././@LongLink", 2**31, tarfile.GNUTYPE_LONGNAME), b""))
    grow(path, 2**31 + 20_480)


def negative_size(path: Path) -> None:
    tar_of(path, (header("000000-000000.u.npy", -512), b""))


def record(path: Path, u: bytes) -> None:
    v = npy("(7,)", "|u1", bytes(7))
    tar_of(path, (header("a.u.npy", len(u)), u), (header("a.v.npy", len(v)), v))


def npy_of_thirty_digits(path: Path) -> None:
    record(path, npy(f"({10**29},)"))


def npy_of_another_shape(path: Path) -> None:
    record(path, npy("(7, 2, 3)", values=bytes(168)))


def npy_that_overflows(path: Path) -> None:
    record(path, npy(f"({2**32}, {2**32})"))


def npy_of_no_shape(path: Path) -> None:
    record(path, npy("(" * 100))


def npy_with_too_few_values(path: Path) -> None:
    record(path, npy("(7, 3, 2)", values=bytes(100)))


def npy_of_objects(path: Path) -> None:
    record(path, npy("(7, 3, 2)", "|O", pickle.dumps(1)))


def name_with_an_escape(path: Path) -> None:
    tar_of(path, *((header(f"\x1b]0;title\x07.{name}.npy", 3), b"abc") for name in "uv"))


TARS: list[Callable[[Path], None]] = [
    empty_tar_of_a_terabyte,
    member_of_a_terabyte,
    gnu_sparse_member,
    pax_header_of_two_gigabytes,
    long_name_of_two_gigabytes,
    negative_size,
    npy_of_thirty_digits,
    npy_of_another_shape,
    npy_that_overflows,
    npy_of_no_shape,
    npy_with_too_few_values,
    npy_of_objects,
    name_with_an_escape,
]


@pytest.mark.parametrize("checked", [True, False])
@pytest.mark.parametrize("make", TARS, ids=[make.__name__ for make in TARS])
def test_a_tar_that_claims_more_than_it_holds_is_one_line(shards, make, checked):
    """With the SHA-256 that the manifest says, or read without a look at it."""
    manifest = load_manifest(shards)
    path = shards / "train-000000.tar"
    make(path)
    if path.stat().st_size < 10**6:
        manifest = with_entry(manifest, sha256=hashlib.sha256(path.read_bytes()).hexdigest())
    manifest = with_entry(manifest, bytes=path.stat().st_size)
    manifest.save(shards)
    entry = manifest.shards("train")[0]
    with modest(), pytest.raises(DamagedDataError, match=rf"{path.name}|manifest\.json") as noticed:
        read_all(shards) if checked else list(read_records(path, entry, manifest.arrays, RECORD_PAIRS))
    assert str(noticed.value).isprintable()
    assert len(str(noticed.value)) < 500


def with_entry(manifest: Manifest, **changed: Any) -> Manifest:
    first, *rest = manifest.shards("train")
    splits = manifest.splits | {"train": [dataclasses.replace(first, **changed), *rest]}
    return dataclasses.replace(manifest, splits=splits)


@pytest.mark.parametrize("read", ["lanes", "in order"])
def test_pairs_that_a_hollow_file_promises_take_no_memory(tmp_path, read):
    """The file is as long as its manifest says, and nothing is in it: a thousand million pairs of two bytes."""
    source = make_table()
    source.table = {split: (v, v) for split, (_, v) in source.table.items()}
    source.kept = ("none", "none")
    manifest = build(tmp_path, source)
    grow(tmp_path / "train-000000.tar", 10**12)
    lie = with_entry(manifest, pairs=10**9, bytes=10**12)
    lie.save(tmp_path)
    with modest():
        lie = load_manifest(tmp_path)
        batches = iterate_split(tmp_path, lie, "train")
        if read == "lanes":
            loader = LaneLoader(tmp_path, lie, "train", global_batch=4, num_lanes=1, shuffle_pairs=50, seed=0)
            batches = loader.batches()
        with pytest.raises(DamagedDataError, match=r"train-00000\d\.tar"):
            list(batches)


JUNK = {
    "brackets": b"[" * 10**7,
    "lists": b'{"a":[' + b"[]," * 10**7 + b"0]}",
    "less lists": b'{"a":[' + b"[]," * 130_000 + b"0]}",
    "numbers": b'{"a":[' + b"999," * 10**7 + b"0]}",
    "less numbers": b'{"a":[' + b"999," * 1_000_000 + b"0]}",
    "keys": b"{" + b",".join(b'"%d":{}' % i for i in range(10**6)) + b"}",
    "less keys": b"{" + b",".join(b'"%d":{}' % i for i in range(130_000)) + b"}",
    "no shards": b'{"splits":{"train":[' + b"{}," * 130_000 + b"{}]}}",
    "digits": b'{"record_pairs":' + b"9" * 10**6 + b"}",
    "escape": b'{"schema_version":"\\u001b]0;title\\u0007"}',
    "escape in a key": b'{"schema_version":1,"\\u001b]0;title\\u0007":1}',
}


@pytest.mark.long
@pytest.mark.parametrize("junk", JUNK)
def test_a_manifest_of_junk_is_one_line(shards, junk):
    (shards / "manifest.json").write_bytes(JUNK[junk])
    with modest(800_000_000), pytest.raises(DamagedDataError, match=r"manifest\.json") as noticed:
        load_manifest(shards)
    assert str(noticed.value).isprintable()
    assert len(str(noticed.value)) < 500


@pytest.mark.parametrize("lie", ["twelve terabytes", "a thousand million pairs", "record_pairs beyond counting"])
def test_a_manifest_without_a_checksum_claims_no_memory(shards, lie):
    content = json.loads((shards / "manifest.json").read_text())
    del content["sha256"]
    LIES[lie](content)
    (shards / "manifest.json").write_text(json.dumps(content))
    with modest():
        check_noticed(shards, r"manifest\.json")


def test_a_manifest_of_an_earlier_version_is_read_and_said_to_be_so_once(shards, capsys):
    content = json.loads((shards / "manifest.json").read_text())
    del content["sha256"]
    (shards / "manifest.json").write_text(json.dumps(content))
    before = (shards / "manifest.json").read_bytes()
    assert load_manifest(shards) == load_manifest(shards)
    (line,) = capsys.readouterr().err.splitlines()
    assert "has no checksum of itself" in line
    assert (shards / "manifest.json").read_bytes() == before


# written again


@pytest.fixture
def write(monkeypatch, capsys, tmp_path) -> Callable[..., tuple[int, str, str]]:
    """Return a function that runs the job in this process alone: exit code, output, errors."""
    from pcl.commands import shards as command

    def one_by_one(function, shared, items, *_, **__):
        return ((item, function(shared, item)) for item in items)

    monkeypatch.setattr(command, "task_runner", lambda: contextlib.nullcontext(one_by_one))
    sizes = ("data.gaussian_process.num_train=60", "data.gaussian_process.num_test=20", "data.num_shards=3")

    def run(root: Path = tmp_path / "shards", *arguments: str) -> tuple[int, str, str]:
        argv = ["write_shards.py", "configs/gaussian.yaml", f"data.shards={root}", *sizes, *arguments]
        monkeypatch.setattr(sys, "argv", argv)
        code = 0
        try:
            runpy.run_path("jobs/write_shards.py", run_name="__main__")
        except SystemExit as end:
            code = int(end.code or 0)
        return code, *capsys.readouterr()

    return run


def spoil(path: Path, how: str) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    if how == "missing":
        path.unlink()
    else:
        path.write_bytes({"bit flipped": content, "truncated": content[:-600], "empty": b""}[how])


@pytest.mark.parametrize("how", ["missing", "bit flipped", "truncated", "empty"])
def test_a_damaged_shard_is_written_again_and_no_other(write, tmp_path, how):
    root = tmp_path / "shards"
    assert write()[0] == 0
    whole, times = contents(root), {path.name: path.stat().st_mtime_ns for path in root.iterdir()}
    assert write()[:2] == (0, write()[1])
    victims = ["test-000002.tar", "train-000001.tar"]
    for name in victims:
        spoil(root / name, how)
    with pytest.raises(DamagedDataError, match=r"pcl shards with the same config writes it again$"):
        read_all(root)
    code, output, errors = write()
    assert (code, errors) == (0, "")
    assert output.startswith("4 of 6 shards verified, 2 to write\n")
    assert contents(root) == whole
    changed = [name for name, time_ns in times.items() if (root / name).stat().st_mtime_ns != time_ns]
    assert sorted(changed) == victims
    assert write()[1].startswith("6 of 6 shards verified, 0 to write\n")


def test_a_shard_that_is_written_again_otherwise_is_one_line(write, tmp_path, monkeypatch):
    root = tmp_path / "shards"
    write()
    whole = contents(root)
    spoil(root / "train-000001.tar", "missing")
    pairs = GaussianProcessSource.pairs

    def others(source, split, start, stop):
        return {name: array + 1 for name, array in pairs(source, split, start, stop).items()}

    monkeypatch.setattr(GaussianProcessSource, "pairs", others)
    code, _, errors = write()
    assert code == 1
    assert errors == (
        f"error: {root / 'train-000001.tar'} was written again and is not what its manifest says: the data or the "
        "program have changed since; write the shards to another data.shards\n"
    )
    assert contents(root)["manifest.json"] == whole["manifest.json"]
    assert write()[0] == 1
    monkeypatch.setattr(GaussianProcessSource, "pairs", pairs)
    assert write()[0] == 0
    assert contents(root) == whole


@pytest.mark.long
def test_a_second_process_is_refused_while_one_writes(write, tmp_path, monkeypatch):
    monkeypatch.setitem(Lease.__init__.__kwdefaults__, "duration_s", 4.0)
    root = tmp_path / "shards"
    write()
    spoil(root / "train-000001.tar", "missing")
    pairs, seen = GaussianProcessSource.pairs, []

    def meanwhile(source, split, start, stop):
        with monkeypatch.context() as patch:
            patch.setattr(GaussianProcessSource, "pairs", pairs)
            seen.append(write())
        return pairs(source, split, start, stop)

    monkeypatch.setattr(GaussianProcessSource, "pairs", meanwhile)
    assert write()[0] == 0
    ((code, _, errors),) = seen
    assert code == 2
    assert errors.startswith(f"error: the folder {root} is in use by process {os.getpid()} on ")
    assert errors.endswith("which is alive: wait until it ends, or choose another data.shards\n")
    assert errors.count("\n") == 1
    tars = {f"{split}-00000{i}.tar" for split in ("train", "test") for i in range(3)}
    assert set(contents(root)) == {"manifest.json", *tars}


def test_finished_shards_that_may_not_be_written_are_verified(write, tmp_path, monkeypatch):
    write()
    monkeypatch.setattr(os, "access", lambda *_, **__: False)
    assert write()[0] == 0


@pytest.mark.parametrize("ground", ["file", "not writable"])
def test_a_dry_run_refuses_what_the_build_refuses(write, tmp_path, monkeypatch, ground):
    if ground == "file":
        (tmp_path / "ground").write_text("do not touch")
    else:
        monkeypatch.setattr(os, "access", lambda *_, **__: False)
    before = sorted(tmp_path.rglob("*"))
    for root in (tmp_path / "ground", tmp_path / "ground" / "shards", tmp_path / "ground" / "a" / "b"):
        build, dry = write(root), write(root, "build.dry_run=true")
        assert (build[0], build[2]) == (dry[0], dry[2])
        assert build[0] == 2
        assert re.fullmatch(
            r"error: \S+ (is no folder, .*|may not be written): choose another data\.shards\n", build[2]
        )
    assert sorted(tmp_path.rglob("*")) == before


def test_the_checksum_changes_no_identity_of_shards(shards, tmp_path):
    """The same shards have the same manifest_sha256, whether their manifest has a checksum of itself or is older."""
    content = json.loads((shards / "manifest.json").read_text())
    seal = content.pop("sha256")
    (tmp_path / "manifest.json").write_text(json.dumps(content, indent=2, sort_keys=True) + "\n")
    older = hashlib.sha256((tmp_path / "manifest.json").read_bytes()).hexdigest()
    assert manifest_sha256(shards) == manifest_sha256(tmp_path) == older == seal
