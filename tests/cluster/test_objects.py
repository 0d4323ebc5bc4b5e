"""Shards in object storage, two nodes: a worker dies, the server fails and is slow, and the bits are a folder's."""

import os
import signal
import socket
import threading
import time

import psutil
import pytest
import torch

from pcl.storage.place import place, write_bytes
from tests.cluster.nodes import NodesHere
from tests.s3 import SLOW_DOWN, s3_server, s3_variables
from tests.typed import wait_until

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(900)]
TRAINING = ("train.epochs=100", "train.checkpoint_every=100", "train.log_every=20", "model.embedding_dim=4")
WORKERS = ("workers.num_workers=2", "workers.resources_timeout_s=90", "workers.num_checkpoints=10")
LAST = "checkpoint_00000400/state.pt"


def weights(run):
    return torch.load(run / LAST, weights_only=True)["model"]


def worker_of(cluster, node):
    """Return the process of a worker of Ray Train on a node."""
    for pid in cluster.pids(node):
        try:
            if any("RayTrainWorker" in part for part in psutil.Process(pid).cmdline()):
                return pid
        except psutil.Error:  # it has just ended
            continue
    raise AssertionError(f"no worker on {node}")


def test_a_training_from_objects_while_a_worker_dies_has_the_bits_of_one_from_a_folder(shards, tmp_path):
    cluster = NodesHere()
    host = cluster._address(0) if cluster.namespaced else "127.0.0.1"
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    cluster.environment |= s3_variables(f"http://{host}:{port}")
    with cluster, s3_server(host, port) as s3:
        for path in shards.iterdir():
            write_bytes(place(f"{s3.address}/shards") / path.name, path.read_bytes())
        cluster.add("one")
        cluster.add("two")
        train = ("train", "configs/gaussian.yaml", f"storage={tmp_path}", *TRAINING, *WORKERS)
        cluster.submitted(*train, "name=folder", f"data.shards={shards}", timeout_s=200)

        answer = s3._app

        def slow(environ, start_response):
            time.sleep(0.2 if environ["PATH_INFO"].endswith(".tar") else 0)
            return answer(environ, start_response)

        s3._app = slow
        s3.refusal, s3.refuses = SLOW_DOWN, lambda method, path: path.endswith(".tar")
        threading.Timer(30.0, lambda: setattr(s3, "refusal", None)).start()  # some 10 of them after the workers' start
        training = cluster.submit(*train, "name=objects", f"data.shards={s3.address}/shards")
        wait_until((tmp_path / "objects" / "checkpoint_00000100" / "state.pt").is_file, training, 150)
        os.kill(worker_of(cluster, "two"), signal.SIGKILL)
        output, _ = training.communicate(timeout=250)
    assert training.returncode == 0, output[-5000:]
    assert "going on from" in output
    ours, theirs = weights(tmp_path / "objects"), weights(tmp_path / "folder")
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
