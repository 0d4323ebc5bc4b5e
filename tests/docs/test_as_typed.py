"""What the page on one's own pairs tells to type: commands, and a loop of one's own under torchrun."""

import os
import re
import subprocess
import sys

import numpy as np
import pytest
import torch

import pcl
from tests.docs.page import EXAMPLES, PAGE, ROOT, blocks, example, write_data
from tests.typed import here

pytestmark = pytest.mark.process
TIMEOUT_S = 200
STEPS, BATCH = 30, 64


def test_a_run_file_gives_the_model_that_fit_gives(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_data(tmp_path)
    (block,) = (one for one in blocks(PAGE) if one.file == "run.yaml")
    (tmp_path / "run.yaml").write_text(block.text)
    where = ("train.epochs=2", "workers.num_workers=1")
    for command in ("shards", "train"):
        code, _, errors = here(command, "run.yaml", *where)
        assert code == 0, errors
    trained = pcl.load(tmp_path / "runs" / "mine").state_dict()
    u, v = np.load(tmp_path / "u.npy"), np.load(tmp_path / "v.npy")
    fitted = pcl.fit(u, v, epochs=2, show=False).state_dict()
    assert trained.keys() == fitted.keys()
    for name, value in fitted.items():
        torch.testing.assert_close(trained[name], value, rtol=0, atol=0)


def test_a_loop_of_ones_own_gives_the_same_in_two_processes(tmp_path):
    kept = {key: value for key, value in os.environ.items() if not key.startswith("RAY_")}
    environment = kept | {"PYTHONPATH": str(ROOT), "GLOO_SOCKET_IFNAME": "lo", "OMP_NUM_THREADS": "1"}
    both = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    command = [*both, str(EXAMPLES / "own_loop.py"), f"--steps={STEPS}", f"--batch={BATCH}"]
    done = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=TIMEOUT_S, check=False
    )
    assert done.returncode == 0, done.stderr
    (found,) = re.findall(r"loss (\S+)", done.stdout)
    assert float(found) == pytest.approx(example("own_loop").main(STEPS, BATCH), abs=2e-5)
