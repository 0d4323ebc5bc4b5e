"""A sweep as people type it: killed and run again, with a variant that fails; and what it refuses before it trains."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
import torch

from pcl.commands import compare, sweep
from pcl.config.identity import data_identity
from pcl.config.variants import load_sweep
from pcl.errors import BadInputError
from pcl.train.checkpoint import checkpoint_name, is_whole, load_checkpoint
from pcl.train.parts import make_source
from pcl.train.runs import checkpoints
from pcl.train.session import Session
from tests import forked
from tests.shards import build_shards
from tests.typed import ROOT, family, finish, stand_still_when, still_there, wait_until

SHORT, LONG = 35, 840  # steps
FILE = """
name: small
seeds: [0]
data:
  source: gaussian_process
  num_shards: 8
  gaussian_process: {num_train: 4000, num_test: 200, num_modes: 20}
model: {embedding_dim: 2, encoder_u: linear, encoder_v: linear}
train: {epochs: 5, global_batch: 512, learning_rate: 0.03, log_every: 100, checkpoint_every: 70}
workers: {num_workers: 1}
evaluation: {num_examples: 0, num_embeddings: 0, baselines: false}
variants:
  short: {model.tilting: squared_distance}
  broken: {train.learning_rate: 1e20}
  long: {train.epochs: 120}
"""


pytestmark = pytest.mark.timeout(900)  # of a machine that does much else


@pytest.fixture
def given(tmp_path):
    """The arguments of a sweep whose shards do not exist yet."""
    (tmp_path / "run.yaml").write_text(FILE)
    return [str(tmp_path / "run.yaml"), f"data.shards={tmp_path / 'shards'}", f"storage={tmp_path / 'runs'}"]


def start(*arguments, **environment):
    kept = {key: value for key, value in os.environ.items() if not key.startswith("RAY_")}
    command = [sys.executable, "-m", "pcl", *arguments]
    pipe = subprocess.PIPE
    return forked.Popen(command, cwd=ROOT, env=kept | environment, text=True, stdout=pipe, stderr=pipe)


def kill_when(happened, process):
    """Kill a sweep when something has happened; nobody of its processes goes on that could hold a run."""
    everybody = []
    try:
        wait_until(happened, process, 300)
        everybody = family(process)
    finally:
        process.send_signal(signal.SIGKILL)
        process.communicate()
    assert still_there(everybody) == []


def task_of(run):
    """Return the process that trains a run, which holds the run's lease; None before it does."""
    held = [json.loads(lease.read_bytes()) for lease in run.glob("lease/0*")]
    return next((psutil.Process(one["pid"]) for one in held if not one["released"]), None)


def times_of(run):
    """Return when each file of checkpoints and evaluations was written."""
    files = [*run.glob("checkpoint_*/*"), *run.glob("evaluations/checkpoint_*/*")]
    return {str(file): file.stat().st_mtime_ns for file in files}


def test_a_sweep_that_is_killed_repeats_nothing_that_is_finished_and_one_failure_stops_nobody(
    given, tmp_path, shared_ray, capsys
):
    runs = tmp_path / "runs"
    short, long = runs / "small-short-0", runs / "small-long-0"
    evaluated = short / "evaluations" / checkpoint_name(SHORT) / "metrics.json"
    sweeping = start("sweep", *given)
    wait_until(lambda: task_of(long), sweeping, 300)
    stand_still_when(lambda: checkpoints(long), task_of(long), sweeping, 300)  # while the other run is evaluated
    kill_when(evaluated.is_file, sweeping)
    reached = [path.name for path in checkpoints(long) if is_whole(path)][-1]
    assert 70 <= int(reached.removeprefix("checkpoint_")) < LONG
    before = times_of(short)
    code, output, errors = finish(start("sweep", *given, **shared_ray), 400)
    assert code == 1, errors
    assert "1 of 3 runs failed (small-broken-0), the others are finished and compared" in errors
    assert "small-broken-0: FAILED: step " in output
    assert f"small-long-0: going on from {reached}" in output
    assert "small-short-0: training" not in output
    assert times_of(short) == before
    found = json.loads((runs / "small-comparison" / "compare.json").read_text())
    assert [group["label"] for group in found["groups"]] == ["short", "long"]
    assert found["differing"]["model.tilting"] == ["squared_distance", "inner_product"]
    text = (runs / "small-comparison" / "comparison.html").read_text()
    assert text.count("data:image/png;base64,") == 2
    assert "broken" not in text
    check_bits(given, long)
    compare.command("pcl compare", [str(short), str(long), "name=again", given[1]])
    assert capsys.readouterr().err == ""
    assert (runs / "again-comparison" / "comparison.html").is_file()


def check_bits(given, run):
    """A run that was cut off on its way ends with the bits of a training without Ray, in one go."""
    torch.set_num_threads(1)
    (config,) = [one.config for one in load_sweep(given[0], given[1:]).runs if one.variant == "long"]
    kept = {}
    session = Session(config, torch.device("cpu"))
    session.train(lambda *_: None, lambda state, _: kept.update(state.model.state_dict()))
    found = load_checkpoint(run / checkpoint_name(LONG))["model"]
    assert found.keys() == kept.keys()
    assert all(torch.equal(found[name], kept[name]) for name in kept)


def test_a_run_of_another_experiment_is_refused_before_anything_is_trained(given, tmp_path, monkeypatch):
    monkeypatch.setattr(sweep, "run_all", lambda items: pytest.fail("it trains"))
    monkeypatch.setattr(sweep, "write_missing_shards", lambda configs: None)
    wrong = [*given, "variants={a: {train.warmup_steps: 10000}, b: {train.global_batch: 12}}"]
    make_shards(load_sweep(given[0], given[1:]).runs[0].config)
    with pytest.raises(BadInputError, match=r"small-b-0: "):
        sweep.main(load_sweep(wrong[0], wrong[1:]))


def make_shards(config):
    data = config.data
    build_shards(Path(data.shards), make_source(config), data.num_shards, data.record_pairs, data_identity(config))


def test_variants_that_need_other_pairs_need_other_shards(given):
    other = [*given[1:], "variants={a: {}, b: {data.gaussian_process.num_train: 2000}}"]
    with pytest.raises(BadInputError, match=r"small-a-0 and small-b-0 need other pairs .*num_train.* of their own"):
        sweep.main(load_sweep(given[0], other))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [([], "needs two runs or more"), (["a", "a"], "needs two runs or more"), (["a", "b"], "holds no run")],
)
def test_what_is_no_run_is_not_compared(arguments, said, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(BadInputError, match=said):
        compare.command("pcl compare", arguments)
    assert not [*Path(tmp_path).iterdir()]
