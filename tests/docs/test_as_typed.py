"""What the page on one's own pairs tells to type, in processes of its own: with Ray, and under torchrun."""

import os
import re
import sys

import numpy as np
import pytest
import torch

import pcl
from tests import forked
from tests.docs.page import EXAMPLES, PAGE, ROOT, blocks, write_data

pytestmark = pytest.mark.process
TIMEOUT_S = 200
LOOP = ("--steps=30", "--batch=64")


def run(folder, *words):
    """Run a module of Python with arguments, outside any cluster, and return its output."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("RAY_")}
    environment = kept | {"PYTHONPATH": str(ROOT), "GLOO_SOCKET_IFNAME": "lo", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, *map(str, words)]
    done = forked.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=TIMEOUT_S)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_run_file_gives_the_model_that_fit_gives(tmp_path):
    write_data(tmp_path)
    (block,) = (one for one in blocks(PAGE) if one.file == "run.yaml")
    (tmp_path / "run.yaml").write_text(block.text)
    where = ("train.epochs=2", "workers.num_workers=1")
    run(tmp_path, "-m", "pcl", "shards", "run.yaml", *where)
    run(tmp_path, "-m", "pcl", "train", "run.yaml", *where)
    trained = pcl.load(tmp_path / "runs" / "mine").state_dict()
    u, v = np.load(tmp_path / "u.npy"), np.load(tmp_path / "v.npy")
    fitted = pcl.fit(u, v, epochs=2, show=False).state_dict()
    assert trained.keys() == fitted.keys()
    for name, value in fitted.items():
        torch.testing.assert_close(trained[name], value, rtol=0, atol=0)


def test_a_loop_of_ones_own_gives_the_same_in_two_processes(tmp_path):
    script = EXAMPLES / "own_loop.py"
    alone = run(tmp_path, script, *LOOP)
    both = run(tmp_path, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", script, *LOOP)
    found = [float(loss) for printed in (alone, both) for loss in re.findall(r"loss (\S+)", printed)]
    assert len(found) == 2
    assert found[0] == pytest.approx(found[1], abs=2e-5)
