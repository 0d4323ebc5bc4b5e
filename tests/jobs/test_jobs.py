"""The jobs as people type them: the whole way under Ray, a killed worker, damaged data, and mistakes."""

import hashlib
import json
import re
import runpy
import shutil
import sys
import time

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import pcl
from pcl.data.loader import iterate_split
from pcl.data.manifest import load_manifest
from pcl.train.runs import checkpoints
from tests.shards import damaged_copy
from tests.typed import ROOT, family, finish, goes_on, stand_still_when, start, still_there, wait_until, workers_of

SETTINGS = ("train.epochs=10", "train.global_batch=512", "train.checkpoint_every=37", "train.log_every=10")
LAST = "checkpoint_00000190"
NO_DRAWINGS = [f"evaluation.{key}=0" for key in ("calibration", "num_embeddings", "num_examples")]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("jobs")


@pytest.fixture(scope="module")
def shards(folder, shared_ray):
    """Shards that tasks of Ray have written."""
    code, output, errors = finish(start("write_shards", f"data.shards={folder / 'shards'}", **shared_ray))
    assert code == 0, errors
    assert "train: 10,000 pairs in 16 shards" in output
    return folder / "shards"


@pytest.fixture(scope="module")
def arguments(folder, shards):
    return (f"data.shards={shards}", f"storage={folder / 'runs'}", *SETTINGS)


@pytest.fixture(scope="module")
def run(folder, arguments, shared_ray):
    """A run that was never disturbed."""
    code, output, errors = finish(start("train", *arguments, "name=whole", **shared_ray))
    assert code == 0, errors
    assert "190 steps = 10 epochs of 19 steps of 512 pairs on 2 workers" in output
    assert "public interface" not in output, "this Ray's insides are known"
    assert output.splitlines()[-1] == f"watch: tensorboard --logdir {folder / 'runs'}"
    return folder / "runs" / "whole"


def test_shards_are_found_finished_and_the_manifest_tells_the_truth(monkeypatch, capsys, shards):
    before = {path.name: path.stat().st_mtime_ns for path in shards.iterdir()}
    code, output, errors = call(
        monkeypatch, capsys, "write_shards", ROOT / "configs/gaussian.yaml", f"data.shards={shards}"
    )
    assert (code, {path.name: path.stat().st_mtime_ns for path in shards.iterdir()}) == (0, before), errors
    assert output.splitlines()[-1] == f"shards: {shards}"
    for shard in json.loads((shards / "manifest.json").read_text())["splits"]["train"]:
        assert hashlib.sha256((shards / shard["name"]).read_bytes()).hexdigest() == shard["sha256"]


def test_a_run_leaves_what_the_readme_says(run, shards):
    assert {"config.yaml", "provenance.json", LAST} <= {path.name for path in run.iterdir()}
    assert "learning_rate: 0.03" in (run / "config.yaml").read_text()
    losses = EventAccumulator(str(run)).Reload().Scalars("train/loss")
    assert losses[-1].step == 190
    assert losses[-1].value < losses[0].value - 0.3
    u, v = next(iterate_split(shards, load_manifest(shards), "test"))
    assert pcl.load(run).log_tilting(u, v).diagonal().mean() > 1


def test_a_finished_run_is_not_trained_again(run, arguments):
    code, output, errors = finish(start("train", *arguments, "name=whole"))
    assert code == 0, errors
    assert "this run is finished" in output


def test_evaluation_agrees_with_what_it_prints(run, arguments):
    code, output, errors = finish(start("evaluate", *arguments, "name=whole", "evaluation.num_examples=1"))
    assert code == 0, errors
    metrics = json.loads((run / "evaluations" / LAST / "metrics.json").read_text())
    learned = [metrics[f"learned_relative_error_{direction}"] for direction in ("u_given_v", "v_given_u")]
    assert f"{learned[0]:.5f}  {learned[1]:.5f}" in output
    assert max(learned) < 0.05
    assert metrics["closed_form_relative_error_v_given_u"] < 1e-20 < metrics["plug_in_relative_error_v_given_u"] < 0.003
    assert metrics["v_given_u_recall@10"] > 5 * 10 / 10_000
    assert (run / "evaluations" / LAST / "conditional_means.png").stat().st_size > 10_000
    tags = EventAccumulator(str(run / "evaluations")).Reload().Tags()
    assert "eval/u_given_v_recall@5" in tags["scalars"]
    assert {"eval/conditional_means", "eval/retrieved"} <= set(tags["images"])
    assert (run / "evaluations" / "projector_config.pbtxt").is_file()
    assert (metrics["checkpoint"], metrics["step"]) == (LAST, 190)


def test_an_evaluation_is_of_the_checkpoint_that_is_named(monkeypatch, capsys, run, arguments):
    job = ("evaluate", ROOT / "configs/gaussian.yaml", *arguments, "name=whole")
    code, output, errors = call(monkeypatch, capsys, *job, "evaluation.checkpoint=checkpoint_00000005")
    assert (code, output) == (2, "")
    held = ", ".join(sorted(path.name for path in run.glob("checkpoint_*") if path.is_dir()))
    assert errors == f"error: evaluation.checkpoint=checkpoint_00000005: {run} holds {held}\n"
    earlier = held.split(", ")[0]
    code, _, errors = call(monkeypatch, capsys, *job, f"evaluation.checkpoint={earlier}", *NO_DRAWINGS)
    assert code == 0, errors
    metrics = json.loads((run / "evaluations" / earlier / "metrics.json").read_text())
    assert metrics["checkpoint"] == earlier
    events = EventAccumulator(str(run / "evaluations")).Reload().Scalars("eval/u_given_v_recall@5")
    assert [event.step for event in events] == [metrics["step"], 190]


def test_a_worker_that_is_killed_and_a_run_that_is_told_to_stop_change_no_bit(run, arguments, folder, shared_ray):
    """The signal comes to every process of the job, as from Slurm; the run goes on from the checkpoint that it commits.

    A worker was killed before.
    """
    disturbed = folder / "runs" / "disturbed"
    process = start("train", *arguments, "name=disturbed")
    wait_until(lambda: len(workers_of(process)) == 2, process)
    first = workers_of(process)
    stand_still_when((disturbed / "checkpoint_00000037" / "state.pt").is_file, first[1], process)
    first[1].kill()
    wait_until(lambda: len(workers_of(process)) == 2 and first[0] not in workers_of(process), process)
    second = workers_of(process)
    stand_still_when((disturbed / "checkpoint_00000074" / "state.pt").is_file, second[1], process)
    processes, started = family(process), time.monotonic()
    for one in processes:
        one.terminate()
    second[1].resume()
    code, output, errors = finish(process)
    assert (code, errors.count("\n")) == (143, 1), errors
    assert re.search(r"^worker [01] on node 127.0.0.1 \(\w{8}\) (died|failed \(.*\))$", output, re.MULTILINE), output
    (step,) = re.findall(r"^going on from step (\d+) on 2 workers$", output, re.MULTILINE)
    assert int(step) < 74, output
    name, step = re.fullmatch(r"error: SIGTERM: (checkpoint_0*(\d+)) of 190 steps is committed, .*\n", errors).groups()
    assert 74 < int(step) < 190
    assert time.monotonic() - started < 30
    assert not any(map(goes_on, processes))
    assert checkpoints(disturbed)[-1].name == name
    assert all(json.loads(lease.read_bytes())["released"] for lease in (disturbed / "lease").iterdir())
    code, output, errors = finish(start("train", *arguments, "name=disturbed", **shared_ray))
    assert code == 0, errors
    assert f"going on from {name}\n" in output
    assert_same_weights(run, disturbed)


def test_a_half_written_checkpoint_is_left_out_and_written_again(run, arguments, folder, shared_ray):
    """The run as if its machine had died while the file system wrote the last checkpoint."""
    half = folder / "runs" / "half"
    shutil.copytree(run, half)
    state = half / LAST / "state.pt"
    state.write_bytes(state.read_bytes()[:-1000])
    code, output, errors = finish(start("train", *arguments, "name=half", **shared_ray))
    assert code == 0, errors
    assert f"{LAST} is half written or gone: it is left out\ngoing on from checkpoint_00000185\n" in output
    assert_same_weights(run, half)


def assert_same_weights(run, other):
    """Assert that the last weights of two runs are the same to the bit."""
    whole, again = (torch.load(path / LAST / "state.pt", weights_only=True) for path in (run, other))
    assert whole["model"].keys() == again["model"].keys()
    for name, value in whole["model"].items():
        assert torch.equal(value, again["model"][name]), name


@pytest.mark.slow
def test_one_job_at_a_time_trains_a_run_and_one_that_ended_goes_on(arguments, folder):
    stopped = folder / "runs" / "stopped"
    arguments = (*arguments, "train.epochs=600", "train.global_batch=2048", "name=stopped")
    step = lambda: json.loads((stopped / "progress.json").read_text())["step"]  # noqa: E731

    process = start("train", *arguments)
    wait_until(lambda: checkpoints(stopped), process)
    second, started = start("train", *arguments), time.monotonic()
    code, _, errors = finish(second)
    assert (code, errors.count("\n")) == (2, 1), errors
    assert f"the run stopped is in use by process {process.pid}" in errors
    assert time.monotonic() - started < 60
    processes = family(process)
    process.kill()  # it can give nothing back
    process.communicate()
    assert still_there(processes) == []  # its workers notice, and write no more

    reached = step()
    process = start("train", *arguments)
    wait_until(lambda: (stopped / "progress.json").is_file() and step() > reached, process)
    process.terminate()
    started = time.monotonic()
    code, output, errors = finish(process)
    assert code == 143
    assert re.fullmatch(r"error: SIGTERM: checkpoint_\d+ of 2400 steps is committed, .*\n", errors), errors
    assert time.monotonic() - started < 20
    assert "going on from checkpoint_" in output
    assert int(next(line for line in output.splitlines() if line.startswith("step ")).split()[1]) > 37


def test_a_flipped_bit_ends_the_run_in_one_line(arguments, folder, shards, shared_ray):
    damaged = damaged_copy(shards, folder / "damaged")
    code, _, errors = finish(start("train", *arguments, "name=damaged", f"data.shards={damaged}", **shared_ray))
    assert code == 1
    assert errors.count("\n") == 1
    assert errors.startswith(f"error: {damaged}/train-000003.tar is damaged: its SHA-256 is ")


def call(monkeypatch, capsys, job, *argv):
    """Run a job in this process; return its exit code, output and errors."""
    monkeypatch.setattr(sys, "argv", [f"jobs/{job}.py", *map(str, argv)])
    code = 0
    try:
        runpy.run_path(str(ROOT / "jobs" / f"{job}.py"), run_name="__main__")
    except SystemExit as end:
        code = end.code
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def lie(shards, target, change):
    """Copy shards with a changed manifest."""
    target.mkdir()
    for path in shards.iterdir():
        (target / path.name).symlink_to(path)
    manifest = json.loads((shards / "manifest.json").read_text())
    change(manifest)
    (target / "manifest.json").unlink()
    (target / "manifest.json").write_text(json.dumps(manifest))


MISTAKES = [
    ("train.global_batch=20480", 2, "fewer than one global batch of 20480"),
    ("train.global_batch=2050", 2, "not a multiple of 8 lanes: choose train.global_batch=2048"),
    ("workers.num_workers=3", 2, "3 workers do not divide 8 lanes: choose workers.num_workers among 1, 2, 4, 8"),
    ("train.num_lanes=32", 2, "16 shards, fewer than 32 lanes"),
    ("train.lr=1", 2, "train.lr"),
    ("train.epochs=many", 2, "train.epochs"),
    ("train.epochs=0", 2, "train.epochs=0: it must be at least 1"),
    ("model.encoder_u=lenet", 2, "28 x 28 images"),
    ("model.encoder_v=identity model.embedding_dim=4", 2, "the identity encoder keeps 5 numbers"),
    ("epochs", 2, "write key=value"),
    ("data.gaussian_process.num_train=2000", 2, "data.gaussian_process.num_train"),
    ("data.shards=nowhere", 2, "write the shards first"),
    ("train.precision=bf16 workers.use_gpu=false", 2, "on CPUs choose float32"),
]


@pytest.mark.parametrize(("mistake", "exit_code", "message"), MISTAKES)
def test_a_mistake_ends_in_one_line(monkeypatch, capsys, folder, arguments, mistake, exit_code, message):
    code, output, errors = call(
        monkeypatch, capsys, "train", ROOT / "configs/gaussian.yaml", *arguments, "name=wrong", *mistake.split()
    )
    assert (code, output) == (exit_code, "")
    assert message in errors
    assert errors.count("\n") == 1
    assert not (folder / "runs" / "wrong").exists()


def test_a_truncated_or_missing_shard_ends_in_one_line(monkeypatch, capsys, folder, arguments, shards):
    for name, change in (("short", lambda p: p.write_bytes(p.read_bytes()[:-512])), ("gone", lambda p: p.unlink())):
        (folder / name).mkdir()
        for path in shards.iterdir():
            (folder / name / path.name).write_bytes(path.read_bytes())
        change(folder / name / "train-000007.tar")
        overrides = (*arguments, "name=wrong", f"data.shards={folder / name}")
        code, _, errors = call(monkeypatch, capsys, "train", ROOT / "configs/gaussian.yaml", *overrides)
        assert code == 1
        assert "train-000007.tar" in errors
        assert errors.count("\n") == 1
        assert not (folder / "runs" / "wrong").exists()


def test_a_manifest_that_lies_about_a_size_ends_in_one_line(monkeypatch, capsys, folder, arguments, shards):
    lie(shards, folder / "lies", lambda manifest: manifest["splits"]["train"][0].update(bytes=1))
    overrides = (*arguments, "name=wrong", f"data.shards={folder / 'lies'}")
    code, _, errors = call(monkeypatch, capsys, "train", ROOT / "configs/gaussian.yaml", *overrides)
    assert code == 1
    assert "manifest.json differs from its own checksum" in errors
    assert errors.count("\n") == 1


def test_a_name_in_use_is_refused_with_the_differing_keys(monkeypatch, capsys, run, arguments):
    before = sorted(path.stat().st_mtime_ns for path in run.iterdir())
    overrides = (*arguments, "name=whole", "train.learning_rate=0.1", "model.tilting=cosine")
    for job in ("train", "evaluate"):
        code, _, errors = call(monkeypatch, capsys, job, ROOT / "configs/gaussian.yaml", *overrides)
        assert code == 2
        assert "differing: model.tilting, train.learning_rate" in errors
    assert sorted(path.stat().st_mtime_ns for path in run.iterdir()) == before


@pytest.mark.parametrize("job", ["write_shards", "train", "evaluate", "benchmark"])
def test_help_says_how_it_was_called_and_where_every_key_is_explained(monkeypatch, capsys, job):
    code, output, _ = call(monkeypatch, capsys, job, "--help")
    assert code == 0
    assert f"jobs/{job}.py CONFIG " in output
    assert "[key=value ...]" in output
    assert output.endswith("pcl config prints every key, and what it means.\n")
