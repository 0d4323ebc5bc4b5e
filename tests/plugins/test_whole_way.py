"""An encoder of somebody else, the whole way: shards, two Ray workers, a kill, the head, another process."""

import json
import os
import shutil
import signal
import sys
from contextlib import suppress

import psutil
import pytest
import torch

from tests import forked
from tests.plugins.test_plugins import MINE, RUN
from tests.typed import ROOT, finish, stand_still_when, start, wait_until, workers_of

pytestmark = pytest.mark.process
LAST = "checkpoint_00000072"
LOADED = """
import sys, numpy as np, pcl
model = pcl.load(sys.argv[1], plugins=[sys.argv[2]])
print(repr(model.encode_u(np.ones((1, 2), np.float64)).tolist()))
"""


def run_of(folder):
    shutil.copy(MINE, folder / "mine.py")
    (folder / "run.yaml").write_text(
        RUN.format(folder=folder).replace("epochs: 2", "epochs: 8\n  checkpoint_every: 20")
    )
    return folder / "run.yaml"


def train_with_a_kill(run, shared_ray, *arguments):
    process, here = start("train", *arguments, config=str(run), **shared_ray), psutil.Process()
    wait_until(lambda: len(workers_of(here)) == 2, process)
    victim = workers_of(here)[1]
    stand_still_when(lambda: [*run.parent.glob("runs/spiral/checkpoint_*/state.pt")], victim, process)
    victim.kill()
    return finish(process)


def evaluate_with_the_head(folder):
    head = folder / "head.yaml"
    head.write_text(f"storage: {folder}/runs\npoll_s: 0.5\nplugins: [mine.py]\n")
    process, metrics = (
        start("head", config=str(head)),
        folder / "runs" / "spiral" / "evaluations" / LAST / "metrics.json",
    )
    try:
        wait_until(metrics.is_file, process, timeout_s=180)
    finally:
        with suppress(ProcessLookupError):
            os.kill(process.pid, signal.SIGTERM)
        finish(process)
    return json.loads(metrics.read_text())


def test_an_encoder_of_a_plugin_on_the_whole_way(tmp_path, shared_ray):
    run = run_of(tmp_path)
    where = (f"storage={tmp_path}/runs", "workers.num_workers=2", "evaluation.num_examples=1")
    code, _, errors = finish(start("write_shards", *where, config=str(run)))
    assert code == 0, errors
    code, output, errors = train_with_a_kill(run, shared_ray, *where)
    assert code == 0, errors
    assert "going on from step" in output
    state = torch.load(tmp_path / "runs" / "spiral" / LAST / "state.pt", weights_only=True)
    assert state["spec"]["encoder_u"]["kind"] == "wide"
    metrics = evaluate_with_the_head(tmp_path)
    assert 0 < metrics["u_given_v_recall@1"] <= 1
    command = [sys.executable, "-c", LOADED, str(tmp_path / "runs" / "spiral"), str(tmp_path / "mine.py")]
    found = forked.run(command, capture_output=True, text=True, cwd=ROOT, check=True)
    weights, x = state["model"], torch.ones(1, 2)
    standardised = x * weights["encoder_u.0.scale"] + weights["encoder_u.0.shift"]
    first, last = ([weights[f"encoder_u.1.layers.{layer}.{part}"] for part in ("weight", "bias")] for layer in (0, 2))
    by_hand = torch.tanh(standardised @ first[0].T + first[1]) @ last[0].T + last[1]
    torch.testing.assert_close(torch.tensor(eval(found.stdout)), by_hand, rtol=1e-5, atol=1e-6)
