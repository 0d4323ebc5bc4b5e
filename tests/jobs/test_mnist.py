"""The jobs on the real MNIST: accuracy after ten epochs on two workers (minutes)."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
TWO_SIDED = ("loss.weight_u_given_v=1", "loss.weight_v_given_u=1")


@pytest.fixture(scope="module")
def job(mnist_root, tmp_path_factory):
    """Return a function that runs a job on MNIST and shows what it prints."""
    folder = tmp_path_factory.mktemp("mnist")
    places = (f"data.root={mnist_root}", f"data.shards={folder / 'shards'}", f"storage={folder / 'runs'}")
    environment = {key: value for key, value in os.environ.items() if not key.startswith("RAY_")}

    def call(name, *overrides):
        command = [sys.executable, f"jobs/{name}.py", "configs/mnist.yaml", *places, *overrides]
        subprocess.run(command, cwd=ROOT, env=environment, check=True, timeout=1200)
        return folder / "runs"

    call("write_shards")
    return call


@pytest.mark.slow
@pytest.mark.timeout(2400)
@pytest.mark.parametrize(("name", "overrides", "least"), [("one-sided", (), 0.988), ("two-sided", TWO_SIDED, 0.98)])
def test_accuracy_after_ten_epochs(job, name, overrides, least):
    job("train", f"name={name}", *overrides)
    runs = job("evaluate", f"name={name}", *overrides)
    (metrics,) = (runs / name / "evaluations").glob("*/metrics.json")
    accuracy = json.loads(metrics.read_text())["label_accuracy"]
    assert accuracy >= least
