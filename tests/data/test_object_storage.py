"""Shards in object storage: the bytes, batches and weights of a folder; what fails is waited out or said in a line."""

import contextlib
import functools
import http.server
import pickle
import threading
import time
from collections.abc import Iterator
from multiprocessing import get_context
from pathlib import Path

import pytest
import torch

import pcl.data.cache as ahead_of_use
from pcl.config.load import load_config
from pcl.data.cache import opened
from pcl.data.loader import LaneLoader, iterate_split
from pcl.data.manifest import Manifest, load_manifest, manifest_sha256, read_manifest
from pcl.data.sample import pairs_at, sample_pairs
from pcl.data.shards import begin_build, build_all, build_shard, claimed, plan_shards, to_write
from pcl.errors import BadInputError, DamagedDataError, RunFailedError
from pcl.gaussian.process import GaussianProcessPair
from pcl.problems.gaussian_process.source import GaussianProcessSource
from pcl.storage.copies import Copies
from pcl.storage.lease import Lease
from pcl.storage.place import Place, names, place, write_bytes
from pcl.train.session import Session
from tests.s3 import POLL_S, S3, SLOW_DOWN, WRONG_KEY, s3_server

SOURCE = GaussianProcessSource(160, 40, 0, GaussianProcessPair(num_modes=20))
CONFIG = {"source": "gaussian_process", "seed": 0, "num_shards": 8, "record_pairs": 5}
NO_PERMISSION = (403, "AccessDenied", "Access Denied")
LARGE = 10**9


@pytest.fixture(scope="module")
def s3() -> Iterator[S3]:
    with s3_server() as server:
        yield server


@pytest.fixture(autouse=True)
def s3_that_works(s3) -> Iterator[None]:
    """Leave the server as it was."""
    yield
    s3.refusal, s3.refuses = None, lambda method, path: True


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("shards") / "shards"
    build_all(root, SOURCE, CONFIG, 8, 5)
    return root


@pytest.fixture(scope="module")
def address(s3) -> str:
    """Shards in a bucket, written as those of the folder."""
    build_all(place(f"{s3.address}/shards"), SOURCE, CONFIG, 8, 5)
    return f"{s3.address}/shards"


@pytest.fixture
def cached(tmp_path, address):
    """Return a function that gives the place of the shards with copies in a folder that is empty at first."""

    def at(where: str = address, most_bytes: int = LARGE, patience_s: float = 20.0, to: Path = tmp_path / "c") -> Place:
        return place(where, only_read=True, copies=Copies(to, most_bytes), patience_s=patience_s)

    return at


def loader_of(root: Place, manifest: Manifest, rank: int = 0, workers: int = 1) -> LaneLoader:
    options = {"global_batch": 16, "num_lanes": 4, "shuffle_pairs": 12, "seed": 3}
    return LaneLoader(root, manifest, "train", worker_rank=rank, num_workers=workers, **options)


def batches(root: Place, number: int = 25, first: int = 0, **workers: int) -> list[torch.Tensor]:
    """Return the first batches of a loader, over more than two epochs."""
    found = loader_of(root, load_manifest(root), **workers).batches(first)
    with contextlib.closing(found):
        return [torch.cat([u.flatten(), v.flatten()]) for _, (u, v) in zip(range(number), found, strict=False)]


def gets(s3: S3, name: str = ".tar") -> list[str]:
    return [path for method, path in s3.requests if method == "GET" and path.endswith(name)]


def damaged(address: str, name: str = "train-000003.tar") -> None:
    path = place(f"{address}/{name}")
    content = bytearray(path.read_bytes())
    content[3000] ^= 1
    write_bytes(path, bytes(content))


# writing


def test_objects_are_the_files_of_a_folder_to_the_byte_and_nothing_else(folder, address):
    root = place(address)
    assert names(root) == sorted(path.name for path in folder.iterdir())
    for path in folder.iterdir():
        assert (root / path.name).read_bytes() == path.read_bytes(), path.name
    assert manifest_sha256(root) == manifest_sha256(folder)
    assert to_write(root, {"config": CONFIG, "source": SOURCE.provenance()}, plan_shards(SOURCE, 8)) == []


def test_the_manifest_is_written_last(s3):
    s3.requests.clear()
    build_all(place(f"{s3.address}/last"), SOURCE, CONFIG, 8, 5)
    written = [path.rpartition("/")[2] for method, path in s3.requests if method == "PUT"]
    assert written[-1] == "manifest.json"
    assert written.count("manifest.json") == 1


def test_a_build_that_was_killed_goes_on_from_what_is_whole(s3, folder, tmp_path):
    root = place(f"{s3.address}/killed", copies=Copies(tmp_path, LARGE))
    identity = {"config": CONFIG, "source": SOURCE.provenance()}
    with claimed(root, identity):
        for plan in plan_shards(SOURCE, 8)[:5]:
            build_shard(SOURCE, plan, root, 5)
    write_bytes(root / "train-000001.tar", b"of somebody else")
    s3.requests.clear()
    with pytest.raises(BadInputError, match="not exist: write the shards first"):
        load_manifest(root)
    build_all(root, SOURCE, CONFIG, 8, 5)
    written = [path.rpartition("/")[2] for method, path in s3.requests if method == "PUT"]
    again = {name for name in written if name.startswith("train")}
    assert again == {f"train-{number:06d}.tar" for number in (1, 5, 6, 7)}
    assert (root / "manifest.json").read_bytes() == (folder / "manifest.json").read_bytes()


def build_at(address: str, barrier, results) -> None:
    root, identity = place(address), {"config": CONFIG, "source": SOURCE.provenance()}
    begin_build(root, identity, claim=False)
    barrier.wait()
    try:
        with claimed(root, identity):
            build_all(root, SOURCE, CONFIG, 8, 5)
            barrier.wait(60)  # the other one has ended
        results.put("")
    except BadInputError as error:
        results.put(str(error))
        barrier.wait(60)


def test_one_of_two_builders_wins_and_the_other_gets_a_line(s3, folder, monkeypatch):
    monkeypatch.setitem(Lease.__init__.__kwdefaults__, "duration_s", 4.0)
    fork = get_context("fork")
    barrier, results = fork.Barrier(2), fork.Queue()
    builders = [fork.Process(target=build_at, args=(f"{s3.address}/two", barrier, results)) for _ in range(2)]
    for builder in builders:
        builder.start()
    lines = sorted(results.get(timeout=90) for _ in builders)
    for builder in builders:
        builder.join()
    assert lines[0] == ""
    assert "is in use by process" in lines[1]
    assert "\n" not in lines[1]
    root = place(f"{s3.address}/two")
    assert names(root) == sorted(path.name for path in folder.iterdir())


def test_an_upload_that_is_refused_is_tried_again(s3, capsys):
    refusals = iter(range(4))
    s3.refusal, s3.refuses = SLOW_DOWN, lambda method, path: method == "PUT" and next(refusals, None) is not None
    root = place(f"{s3.address}/refused")
    entry, _ = build_shard(SOURCE, plan_shards(SOURCE, 8)[0], root, 5)
    assert (root / entry.name).stat().st_size == entry.bytes
    assert "storage refuses" in capsys.readouterr().err


# reading


@pytest.mark.parametrize("workers", [1, 2])
def test_batches_are_those_of_a_folder(cached, folder, workers):
    for rank in range(workers):
        for first in (0, 13):
            ours = batches(cached(), first=first, rank=rank, workers=workers)
            assert all(map(torch.equal, ours, batches(folder, first=first, rank=rank, workers=workers)))


def test_other_readers_give_what_they_give_of_a_folder(cached, folder):
    manifest, root = load_manifest(folder), cached()
    chosen = torch.tensor([0, 1, 19, 20, 77, 159]).numpy()
    for ours, theirs in (
        *zip(iterate_split(root, manifest, "test"), iterate_split(folder, manifest, "test"), strict=True),
        (sample_pairs(root, manifest, "train", 7, 1), sample_pairs(folder, manifest, "train", 7, 1)),
        (pairs_at(root, manifest, "train", chosen).values(), pairs_at(folder, manifest, "train", chosen).values()),
    ):
        assert all(map(torch.equal, ours, theirs))


def read_all(where: Place) -> None:
    where = pickle.loads(pickle.dumps(where))  # connections do not survive a fork
    for _ in iterate_split(where, read_manifest(where), "train"):
        pass


def test_every_object_is_fetched_once_by_the_processes_of_a_machine_and_by_those_after_them(s3, cached):
    s3.requests.clear()
    fork = get_context("fork")
    readers = [fork.Process(target=read_all, args=(cached(),)) for _ in range(3)]
    for reader in readers:
        reader.start()
    for reader in readers:
        reader.join()
        assert reader.exitcode == 0
    read_all(cached())
    assert sorted(gets(s3)) == sorted(f"/bucket/shards/train-{number:06d}.tar" for number in range(8))


def test_what_is_read_next_is_fetched_meanwhile(s3, cached):
    s3.requests.clear()
    root = cached()
    with contextlib.closing(loader_of(root, load_manifest(root)).batches()) as found:
        next(found)
        deadline = time.monotonic() + 20
        while len(gets(s3)) < 8 and time.monotonic() < deadline:
            time.sleep(0.01)
    assert len(gets(s3)) == 8


def test_copies_are_bounded_and_the_batches_the_same(cached, folder, tmp_path):
    size = max(shard.bytes for shard in load_manifest(folder).shards("train"))
    root = cached(most_bytes=3 * size)
    assert all(map(torch.equal, batches(root), batches(folder)))
    held = sum(path.stat().st_size for path in (tmp_path / "c").iterdir() if not path.name.startswith("."))
    assert 0 < held <= 3 * size


def test_a_reader_that_is_killed_in_the_middle_leaves_nothing_that_counts(s3, cached, folder):
    asked, killed, answer = threading.Event(), threading.Event(), s3._app

    def stall(environ, start_response):
        if environ["PATH_INFO"].endswith("train-000000.tar") and not asked.is_set():
            asked.set()
            killed.wait(20)
        return answer(environ, start_response)

    s3._app, root = stall, cached()
    try:
        reader = get_context("fork").Process(target=read_all, args=(root,))
        reader.start()
        assert asked.wait(20)
        reader.kill()
        reader.join()
    finally:
        killed.set()
        s3._app = answer
    assert all(map(torch.equal, batches(root), batches(folder)))


def test_a_web_server_is_read(folder, cached):
    class Silent(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_):
            """Log nothing."""

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Silent, directory=folder))
    thread = threading.Thread(target=server.serve_forever, args=(POLL_S,), daemon=True)
    thread.start()
    try:
        root = cached(f"http://127.0.0.1:{server.server_port}")
        assert all(map(torch.equal, batches(root, 5), batches(folder, 5)))
        with pytest.raises(BadInputError, match="can only be read: write shards to a folder or to s3://"):
            begin_build(root / "new", {"config": {}, "source": {}})
        with pytest.raises(BadInputError, match="does not exist"):
            load_manifest(root / "nowhere")
    finally:
        server.shutdown()
        server.server_close()


# a server that fails, or is slow


@pytest.fixture(scope="module")
def trained(shards) -> dict[str, torch.Tensor]:
    return weights(shards)


@pytest.fixture(scope="module")
def shards_in_s3(s3, shards) -> str:
    for path in shards.iterdir():
        write_bytes(place(f"{s3.address}/gaussian") / path.name, path.read_bytes())
    return f"{s3.address}/gaussian"


def weights(where: Path | str, *more: str) -> dict[str, torch.Tensor]:
    """Return the weights after a short training."""
    short = ("train.epochs=2", "train.num_lanes=8", "train.warmup_steps=0", "model.embedding_dim=4")
    session = Session(
        load_config("configs/gaussian.yaml", [f"data.shards={where}", *short, *more]), torch.device("cpu")
    )
    session.train(lambda *_: None, lambda *_: None)
    return session.state.model.state_dict()


def assert_same(ours: dict[str, torch.Tensor], theirs: dict[str, torch.Tensor]) -> None:
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_a_training_has_the_bits_of_one_from_a_folder(shards_in_s3, trained, tmp_path):
    assert_same(weights(shards_in_s3, f"data.cache={tmp_path}"), trained)
    assert_same(weights(shards_in_s3, f"data.cache={tmp_path}"), trained)  # from the copies


def test_a_server_that_fails_for_seconds_is_waited_out(s3, shards_in_s3, trained, tmp_path, capsys):
    s3.refusal, s3.refuses = SLOW_DOWN, lambda method, path: path.endswith(".tar")
    timer = threading.Timer(3.0, lambda: setattr(s3, "refusal", None))
    timer.start()
    assert_same(weights(shards_in_s3, f"data.cache={tmp_path}"), trained)
    timer.join()
    lines = capsys.readouterr().err.splitlines()
    assert any("storage refuses" in line or line.startswith("waiting for s3://") for line in lines)


def test_a_slow_server_is_waited_for(s3, shards_in_s3, trained, tmp_path, monkeypatch, capsys):
    answer = s3._app

    def late(environ, start_response):
        if environ["PATH_INFO"].endswith(".tar"):
            time.sleep(0.1)
        return answer(environ, start_response)

    monkeypatch.setattr(ahead_of_use, "LATE_S", 0.05)
    s3._app = late
    try:
        assert_same(weights(shards_in_s3, f"data.cache={tmp_path}"), trained)
    finally:
        s3._app = answer
    assert f"waiting for {shards_in_s3}/train-0000" in capsys.readouterr().err


# bad input: one line each


def test_a_bucket_that_does_not_exist(cached):
    with pytest.raises(OSError, match="bucket does not exist"):
        load_manifest(cached("s3://nobucket/shards"))
    with pytest.raises(OSError, match="bucket does not exist"):
        begin_build(cached("s3://nobucket/shards"), {"config": {}, "source": {}})


@pytest.mark.parametrize("refusal", [WRONG_KEY, NO_PERMISSION])
def test_no_permission_and_wrong_credentials_are_said_at_once(s3, cached, folder, refusal):
    s3.refusal, started = refusal, time.monotonic()
    with pytest.raises(PermissionError):
        load_manifest(cached())
    with pytest.raises(RunFailedError, match=r"train-000000.tar cannot be read \(.*\): mend it"):
        read_one(cached(), load_manifest(folder))
    assert time.monotonic() - started < 15


def read_one(root: Place, manifest: Manifest, number: int = 0) -> None:
    shard = manifest.shards("train")[number]
    opened(root / shard.name, shard).close()


def test_storage_that_refuses_for_longer_ends_in_a_line(s3, cached, folder):
    s3.refusal = SLOW_DOWN
    with pytest.raises(RunFailedError, match="cannot be read"):
        read_one(cached(patience_s=0.5), load_manifest(folder))


def test_no_such_key(s3, cached, address, folder):
    with pytest.raises(BadInputError, match="does not exist: write the shards first"):
        load_manifest(cached(f"{s3.address}/nowhere"))
    for path in folder.iterdir():
        write_bytes(place(f"{s3.address}/lacking") / path.name, path.read_bytes())
    (place(f"{s3.address}/lacking") / "train-000003.tar").unlink()
    root = cached(f"{s3.address}/lacking")
    with pytest.raises(DamagedDataError, match=r"train-000003.tar is missing: its manifest lists it"):
        load_manifest(root)
    with pytest.raises(DamagedDataError, match=r"train-000003.tar is missing: its manifest lists it"):
        read_one(root, read_manifest(root), 3)


def test_a_damaged_object(s3, cached, folder, tmp_path):
    for path in folder.iterdir():
        write_bytes(place(f"{s3.address}/damaged") / path.name, path.read_bytes())
    damaged(f"{s3.address}/damaged")
    root = cached(f"{s3.address}/damaged")
    with pytest.raises(DamagedDataError, match=r"train-000003.tar is damaged: its SHA-256 is "):
        batches(root)
    shard = load_manifest(root).shards("train")[3]
    assert not (tmp_path / "c" / shard.sha256).exists()
    plans, identity = plan_shards(SOURCE, 8), {"config": CONFIG, "source": SOURCE.provenance()}
    assert [plan.name for plan in to_write(root, identity, plans)] == ["train-000003.tar"]


def test_what_was_damaged_on_its_way_is_asked_for_again(s3, cached, folder):
    answer, spoilt = s3._app, iter([True])

    def spoil(environ, start_response):
        body = b"".join(answer(environ, start_response))
        if environ["PATH_INFO"].endswith("train-000002.tar") and next(spoilt, False):
            return [bytes(len(body))]
        return [body]

    s3._app = spoil
    try:
        read_one(cached(), load_manifest(folder), 2)
    finally:
        s3._app = answer


def test_a_folder_of_copies_that_cannot_be_one(cached, folder, tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(BadInputError, match=r"data.cache") as refused:
        read_one(cached(to=tmp_path / "file" / "copies"), load_manifest(folder))
    assert "\n" not in str(refused.value)


def test_copies_that_may_hold_no_shard(cached, folder):
    with pytest.raises(BadInputError, match=r"data.cache_gb"):
        read_one(cached(most_bytes=1000), load_manifest(folder))


def test_packages_that_are_not_installed_are_named(monkeypatch):
    import importlib

    real = importlib.import_module

    def without(name: str, *rest: str):
        if name == "gcsfs":
            raise ImportError(name)
        return real(name, *rest)

    monkeypatch.setattr(importlib, "import_module", without)
    with pytest.raises(BadInputError, match="gs:// needs gcsfs: pip install gcsfs"):
        place("gs://bucket/shards", only_read=True)


@pytest.mark.parametrize("address", ["ftp://host/a", "memory://a", "s3://bucket/../a", "https://a@b/c"])
def test_other_addresses_are_refused(address):
    with pytest.raises(BadInputError):
        place(address, only_read=True)
