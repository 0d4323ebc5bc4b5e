"""Training under Ray: storage that refuses, S3, nodes that come and go."""

import errno
import os
import re
import signal
import subprocess
import threading
import time
from contextlib import suppress
from itertools import pairwise

import pytest
import torch

import pcl
from pcl.errors import RunFailedError
from pcl.train.runs import checkpoints
from tests.cluster.nodes import NodesHere
from tests.typed import finish, on_head, start, wait_until, workers_of


def steps_of(output):
    return [int(line.split()[1]) for line in output.splitlines() if line.startswith("step ")]


def model_of(run, step):
    return torch.load(run / f"checkpoint_{step:08d}" / "state.pt", weights_only=True)["model"]


@pytest.fixture
def refusing(monkeypatch):
    """Make pcl.storage.place refuse as often as a list has entries."""
    from pcl.cluster import files

    refusals, write, said = [], files.write_bytes, []

    def write_bytes(path, content):
        if refusals:
            raise refusals.pop()
        write(path, content)

    monkeypatch.setattr(files, "write_bytes", write_bytes)
    monkeypatch.setattr(files, "notice", said.append)
    return refusals, said


def test_a_file_is_whole_or_not_there(tmp_path, refusing):
    from pcl.cluster.files import patient_files

    refusals, said = refusing
    files, root = patient_files(tmp_path, timeout_s=5)
    assert root == str(tmp_path)
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "state.pt").write_bytes(b"weights")
    refusals += [OSError(errno.ENOSPC, "No space left on device")] * 2

    import pyarrow.fs

    pyarrow.fs.copy_files(str(tmp_path / "source"), f"{root}/run/checkpoint", destination_filesystem=files)
    assert (tmp_path / "run" / "checkpoint" / "state.pt").read_bytes() == b"weights"
    assert len(said) == 2
    assert "No space left on device): trying again for 5 s" in said[0]
    assert said[1].startswith("storage works again after ")
    with files.open_output_stream(f"{root}/run/record.json") as stream:
        stream.write(b"half")
        assert not (tmp_path / "run" / "record.json").exists()
    with files.open_input_stream(f"{root}/run/record.json") as stream:
        assert stream.read() == b"half"


def test_what_ray_asks_before_it_writes_is_asked_again_where_storage_refuses(tmp_path, refusing, monkeypatch):
    from pyarrow.fs import FileType, FSSpecHandler

    from pcl.cluster.files import patient_files

    refusals, ask = [OSError(errno.EIO, "SlowDown")] * 2, FSSpecHandler.get_file_info

    def get_file_info(handler, paths):
        if refusals:
            raise refusals.pop()
        return ask(handler, paths)

    monkeypatch.setattr(FSSpecHandler, "get_file_info", get_file_info)
    files, root = patient_files(tmp_path, timeout_s=5)
    (tmp_path / "state.pt").touch()
    found = files.get_file_info([f"{root}/state.pt", f"{root}/nothing"])
    assert [one.type for one in found] == [FileType.File, FileType.NotFound]
    assert "SlowDown): trying again for 5 s" in refusing[1][0]
    assert refusing[1][1].startswith("storage works again")


def test_storage_that_refuses_for_too_long_is_a_failure_of_its_own(tmp_path, refusing):
    from pcl.cluster.files import patient_files

    refusing[0].extend([OSError(errno.EROFS, "Read-only file system")] * 100)
    files, root = patient_files(tmp_path, timeout_s=0.5)
    stream = files.open_output_stream(f"{root}/record.json")
    stream.write(b"content")
    with pytest.raises(RunFailedError, match=r"storage refused record.json for 0.5 s .*Read-only file system"):
        stream.close()
    assert not (tmp_path / "record.json").exists()


@pytest.mark.parametrize(
    ("free", "own", "num_workers"),
    [
        ({"a": 1, "b": 1, "c": 1}, {}, 2),  # 3 does not divide 8 lanes
        ({"a": 2, "b": 2}, {}, 4),
        ({"a": 1, "b": 0}, {}, 1),
        ({"a": 0, "b": 0}, {"a": 1, "b": 1}, 2),  # its own workers still hold them
        ({"a": 9, "b": 9}, {}, 8),
        ({"a": 0.5, "b": 0.5}, {}, 0),  # half a worker on each
        ({}, {}, 0),
    ],
)
def test_the_number_of_workers_is_the_largest_that_divides_the_lanes(monkeypatch, free, own, num_workers):
    import ray.train

    from pcl.cluster.ray_insides import train

    config = ray.train.ScalingConfig(num_workers=(1, 8), resources_per_worker={"CPU": 1})
    policy = train.LaneScalingPolicy(config, [1, 2, 4, 8], 10)
    policy._own = own
    monkeypatch.setattr(train, "available_resources_per_node", lambda: {n: {"CPU": c} for n, c in free.items()})
    reserved = {node: {"CPU": max(amount, own.get(node, 0))} for node, amount in free.items()}
    assert policy._count_possible_workers(reserved | {"head": {}}) == num_workers


@pytest.fixture
def small_disk(tmp_path):
    """A folder with room for 8 MB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(folder)]
    try:
        subprocess.run(mount, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("file systems cannot be mounted here")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def fill(folder):
    with (folder / "ballast").open("wb", buffering=0) as file, suppress(OSError):
        while file.write(b"0" * 4096):
            pass


@pytest.mark.cluster
def test_storage_that_refuses_for_ten_seconds_neither_ends_nor_repeats_training(small_disk, shards):
    arguments = (f"data.shards={shards}", f"storage={small_disk}", "train.log_every=10", "train.checkpoint_every=20")
    process = start("train", *arguments, "name=run", "train.epochs=60")
    run = small_disk / "run"
    wait_until(lambda: checkpoints(run), process)
    fill(small_disk)
    time.sleep(10)
    (small_disk / "ballast").unlink()
    code, output, errors = finish(process)
    assert code == 0, errors
    assert re.search(r"^storage refuses .*No space left on device", output, re.MULTILINE), output
    assert re.search(r"^storage works again", output, re.MULTILINE), output
    assert "going on from" not in output
    assert all(earlier < later for earlier, later in pairwise(steps_of(output)))
    assert [path.name for path in checkpoints(run)] == [f"checkpoint_{step:08d}" for step in (200, 220, 240)]
    assert {path.name for path in run.glob("checkpoint_0*")} == {path.name for path in checkpoints(run)}


@pytest.mark.cluster
def test_a_full_disk_ends_in_one_line(small_disk, shards):
    fill(small_disk)
    started = time.monotonic()
    code, _, errors = finish(start("train", f"data.shards={shards}", f"storage={small_disk}", "name=run"))
    assert (code, errors.count("\n")) == (1, 1), errors
    assert "No space left on device" in errors
    assert time.monotonic() - started < 60


@pytest.mark.slow
def test_a_disk_that_stays_full_ends_the_run_and_the_same_command_goes_on(small_disk, shards):
    arguments = (f"data.shards={shards}", f"storage={small_disk}", "train.log_every=10", "train.checkpoint_every=20")
    arguments = (*arguments, "name=run", "train.epochs=60", "workers.storage_timeout_s=3")
    process = start("train", *arguments)
    wait_until(lambda: checkpoints(small_disk / "run"), process)
    fill(small_disk)
    code, _, errors = finish(process)
    assert (code, errors.count("\n")) == (1, 1), errors
    assert re.search(r"storage refused \S+ for 3 s .*No space left on device.*: mend it", errors)
    (small_disk / "ballast").unlink()
    code, output, errors = finish(start("train", *arguments))
    assert code == 0, errors
    assert "going on from checkpoint_" in output
    assert checkpoints(small_disk / "run")[-1].name == "checkpoint_00000240"


@pytest.fixture
def bucket(monkeypatch):
    """The address of an empty bucket of an S3 server on this machine."""
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    names = {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "not-to-be-seen", "AWS_DEFAULT_REGION": "us-east-1"}
    for name, value in (names | {"AWS_ENDPOINT_URL": f"http://{host}:{port}"}).items():
        monkeypatch.setenv(name, value)
    import boto3

    boto3.client("s3").create_bucket(Bucket="bucket")
    yield "s3://bucket/runs"
    server.stop()


@pytest.mark.slow
def test_a_run_in_s3_goes_on_after_a_killed_worker_and_after_a_killed_job(bucket, shards, tmp_path):
    arguments = (f"data.shards={shards}", "train.epochs=30", "train.checkpoint_every=37", "train.log_every=10")
    code, _, errors = finish(start("train", *arguments, f"storage={tmp_path}", "name=whole"))
    assert code == 0, errors

    run = pcl.storage.place.place(bucket) / "run"
    process = start("train", *arguments, f"storage={bucket}", "name=run")
    wait_until(lambda: "checkpoint_00000037" in [path.name for path in checkpoints(run)], process)
    os.kill(workers_of(process)[1].pid, signal.SIGKILL)
    wait_until(lambda: "checkpoint_00000074" in [path.name for path in checkpoints(run)], process)
    process.kill()
    process.communicate()
    code, output, errors = finish(start("train", *arguments, f"storage={bucket}", "name=run"))
    assert code == 0, errors
    assert output.splitlines()[-1] == f"watch: tensorboard --logdir {bucket}"
    assert "going on from checkpoint_" in output
    assert "not-to-be-seen" not in (run / "config.yaml").read_text() + (run / "provenance.json").read_text()
    whole, again = pcl.load(tmp_path / "whole").state_dict(), pcl.load(f"{bucket}/run").state_dict()
    assert all(torch.equal(value, again[name]) for name, value in whole.items())


@pytest.fixture
def nodes():
    """A cluster of a head without CPUs and two nodes with one CPU each, and how to start a job there."""
    with NodesHere() as cluster:
        cluster.add("one")
        cluster.add("two")
        yield cluster


def join(cluster, name):
    """Start another node; training shows when it is there, long before the dashboard knows which ones are alive."""
    cluster._start(name, f"--address={cluster.address}", "--num-cpus=1")


def train_on(cluster, *arguments):
    return start("train", *arguments, prefix=on_head(cluster), **cluster.environment, RAY_ADDRESS=cluster.address)


@pytest.mark.cluster
@pytest.mark.timeout(600)
def test_workers_shrink_with_the_nodes_and_grow_again(nodes, shards, tmp_path):
    arguments = (f"data.shards={shards}", f"storage={tmp_path}", "train.epochs=150", "train.precision=float64")
    arguments = (*arguments, "train.checkpoint_every=50", "train.log_every=10")
    process = train_on(nodes, *arguments, "name=elastic", "workers.num_workers=[1, 2]")
    run = tmp_path / "elastic"
    wait_until(lambda: checkpoints(run), process)
    nodes.kill("two")

    def repair():
        wait_until((run / "checkpoint_00000150" / "state.pt").is_file, process)
        join(nodes, "three")

    repairing = threading.Thread(target=repair)
    repairing.start()
    code, output, errors = finish(process, 400)
    repairing.join()
    assert code == 0, errors
    assert re.search(r"^going on from step \d+ on 2 -> 1 worker, node \S+ \(\w{8}\) is gone$", output, re.MULTILINE), (
        output
    )
    assert re.search(r"^going on from step \d+ on 1 -> 2 workers$", output, re.MULTILINE), output

    process = train_on(nodes, *arguments, "name=whole", "workers.num_workers=2")
    code, _, errors = finish(process, 300)
    assert code == 0, errors
    whole, again = model_of(tmp_path / "whole", 600), model_of(run, 600)
    for name, value in whole.items():
        torch.testing.assert_close(again[name], value, rtol=1e-10, atol=1e-10)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_fixed_number_of_workers_waits_for_a_node_and_gives_up_in_time(nodes, shards, tmp_path):
    arguments = (f"data.shards={shards}", f"storage={tmp_path}", "train.epochs=100", "name=fixed")
    arguments = (*arguments, "train.checkpoint_every=50", "train.log_every=10", "workers.num_workers=2")
    patience = ("workers.resources_timeout_s=5", "workers.start_timeout_s=30")
    run = tmp_path / "fixed"
    process = train_on(nodes, *arguments, *patience)
    wait_until(lambda: checkpoints(run), process)
    nodes.kill("two")
    code, output, errors = finish(process, 200)
    assert code == 1
    assert "no 2 workers could be started within 35 s: add nodes" in errors
    assert "waiting up to 35 s for room for 2 workers" in output

    code, output, errors = finish(train_on(nodes, *arguments, *patience))
    assert code == 2
    assert "2 workers need 1 CPU each, on one node, and the cluster has room for 1 of them" in errors
    assert "waiting up to 5 s for room for 2 workers" in output

    process = train_on(nodes, *arguments, "workers.resources_timeout_s=90")
    time.sleep(15)
    join(nodes, "three")
    code, output, errors = finish(process, 200)
    assert code == 0, errors
    assert "going on from checkpoint_" in output
    assert checkpoints(run)[-1].name == "checkpoint_00000400"
