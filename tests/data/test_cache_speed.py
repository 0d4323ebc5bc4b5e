"""How fast batches come from copies of objects against a folder, and over a link of a given rate: run with -s."""

import contextlib
import threading
import time
from pathlib import Path

import pytest

from pcl.config.load import load_config
from pcl.data.loader import LaneLoader
from pcl.data.manifest import load_manifest
from pcl.data.shards import build_all
from pcl.storage.copies import Copies
from pcl.storage.place import Place, place, write_bytes
from pcl.train.parts import make_source
from tests.s3 import s3_server

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]
BYTES_PER_S = 100e6 / 8


@pytest.fixture(scope="module")
def folder(mnist_root, tmp_path_factory) -> Path:
    config = load_config("configs/mnist.yaml", [f"data.root={mnist_root}", "data.shards=/unused"])
    root = tmp_path_factory.mktemp("mnist") / "shards"
    build_all(root, make_source(config), {}, 16, 1000)
    return root


def epoch_s(root: Place, repeats: int = 1) -> float:
    """Return the time of the quickest epoch of batches, which others of this machine disturbed least, seconds."""
    manifest, times = load_manifest(root), []
    loader = LaneLoader(root, manifest, "train", global_batch=512, num_lanes=8, shuffle_pairs=8192, seed=0)
    with contextlib.closing(loader.batches()) as batches:
        for _ in range(repeats):
            started = time.monotonic()
            for _ in range(loader.steps_per_epoch):
                next(batches)
            times.append(time.monotonic() - started)
    return min(times)


def test_copies_are_as_fast_as_a_folder_and_the_first_epoch_as_the_link(folder, tmp_path):
    with s3_server() as s3:
        for path in folder.iterdir():
            write_bytes(place(f"{s3.address}/mnist") / path.name, path.read_bytes())
        root = place(f"{s3.address}/mnist", copies=Copies(tmp_path / "copies", 10**9))
        answer, link = s3._app, threading.Lock()

        def limited(environ, start_response):
            body = b"".join(answer(environ, start_response))
            with link:
                time.sleep(len(body) / BYTES_PER_S)
            return [body]

        s3._app = limited
        try:
            first = epoch_s(root)
        finally:
            s3._app = answer
        sizes = sum(shard.bytes for shard in load_manifest(folder).shards("train"))
        alternating = [(epoch_s(folder, 4), epoch_s(root, 4)) for _ in range(10)]
    ours, theirs = (min(times) for times in zip(*alternating, strict=True))
    print(  # noqa: T201
        f"\nfirst epoch over 100 Mbit/s: {first:.2f} s, the link alone {sizes / BYTES_PER_S:.2f} s; "
        f"an epoch from a folder {ours:.3f} s, from copies {theirs:.3f} s: {ours / theirs:.3f} of its throughput"
    )
    assert ours / theirs > 0.95
    assert first < 1.5 * sizes / BYTES_PER_S + 2 * theirs
