"""A hundred kills at random moments: weights and curves of a run that was left in peace, and nothing left over."""

import json
import os
import random
import re
import shutil
import signal
import tempfile
import time
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from pcl.train.best import best_checkpoint
from pcl.train.runs import checkpoints
from tests.typed import family, finish, goes_on, start, workers_of

pytestmark = [pytest.mark.slow, pytest.mark.timeout(7200)]
NUM_ROUNDS, KILLS_OF_A_ROUND = 5, 20
SETTINGS = ("train.epochs=200", "train.checkpoint_every=20", "train.log_every=10", "workers.max_failures=1000")
SETTINGS += ("train.validation_fraction=0.25", "train.schedule=constant")  # so that the best is not the last
LAST = 600
SIGNALS = {"SIGTERM": signal.SIGTERM, "SIGHUP": signal.SIGHUP, "SIGINT": signal.SIGINT}
HEARD = [name for name, number in SIGNALS.items() if signal.getsignal(number) is not signal.SIG_IGN]  # not by nohup
KINDS = ("worker", "worker", "driver", "tree", *HEARD)
LONGEST_S = 12.0  # after the start, or after the kill before: Ray starts, workers start
MOST_STEPS = 40  # and then steps are done


@pytest.fixture(scope="module")
def temporary():
    """A temporary folder of the jobs' own, with a short name, as sockets need."""
    folder = Path(tempfile.mkdtemp(dir="/tmp"))
    yield folder
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def arguments(shards, tmp_path_factory):
    return (f"data.shards={shards}", f"storage={tmp_path_factory.mktemp('runs')}", *SETTINGS)


def storage_of(arguments):
    return Path(arguments[1].removeprefix("storage="))


@pytest.fixture(scope="module")
def peaceful(arguments, temporary):
    code, _, errors = finish(start("train", *arguments, "name=peaceful", TMPDIR=str(temporary)), timeout_s=600)
    assert code == 0, errors
    return storage_of(arguments) / "peaceful"


def step_of(checkpoint):
    return int(checkpoint.name.removeprefix("checkpoint_"))


def newest(run):
    return max(map(step_of, checkpoints(run)), default=0) if run.exists() else 0


def reached(run):
    with suppress(OSError, ValueError):
        return int(json.loads((run / "progress.json").read_text())["step"])
    return 0


def wait_for_a_moment(choice, process, run):
    """Wait for a random moment: of all that a job does, or of the steps."""
    if choice.random() < 0.4:
        time.sleep(choice.uniform(0, LONGEST_S))
        return
    step, deadline = newest(run) + choice.randrange(1, MOST_STEPS), time.monotonic() + 120
    while process.poll() is None and not step <= reached(run) and time.monotonic() < deadline:
        time.sleep(0.05)
    time.sleep(choice.uniform(0, 0.3))


def kill(kind, process, choice):
    """Kill, and return whether the job itself ends of it."""
    with suppress(psutil.NoSuchProcess):
        if kind == "worker":
            workers = workers_of(process)
            if workers:
                choice.choice(workers).kill()
            return False
        if kind == "driver":
            process.kill()
        else:
            everybody = family(process)
            for one in everybody if choice.random() < 0.5 or kind == "tree" else everybody[:1]:
                with suppress(psutil.NoSuchProcess):
                    one.send_signal(SIGNALS.get(kind, signal.SIGKILL))
    return True


def check_end(kind, process, run, before):
    """A signal is obeyed within the time to stop, in one line, and costs no step; a kill costs no checkpoint."""
    told = time.monotonic()
    code, _, errors = finish(process)
    if kind in SIGNALS and code == -SIGNALS[kind]:
        return  # Python was still importing
    if kind in SIGNALS and code != 0:
        assert code == 128 + SIGNALS[kind], errors
        assert re.fullmatch(rf"error: {kind}: [^\n]*\n", errors), errors
        assert time.monotonic() - told < 60  # 30 on a machine that does nothing else
        assert newest(run) >= before, errors
    elif kind in SIGNALS:
        assert newest(run) == LAST
    else:
        assert code == -signal.SIGKILL


def kill_again_and_again(choice, run, arguments, temporary, most):
    """Train a run to its end, killing it so many times at most, and return how often it was killed."""
    num_kills, seen = 0, 0
    while num_kills < most and newest(run) < LAST:
        process = start("train", *arguments, f"name={run.name}", TMPDIR=str(temporary))
        processes, worker_died = [], False
        while process.poll() is None and num_kills < most:
            wait_for_a_moment(choice, process, run)
            if process.poll() is not None:
                break
            kind, processes, num_kills = choice.choice(KINDS), family(process), num_kills + 1
            before = reached(run) if workers_of(process) and not worker_died else 0
            worker_died |= kind == "worker"  # that costs the steps since the newest checkpoint
            print(f"{run.name}: {kind} at {newest(run)}, {before}", flush=True)  # noqa: T201
            if kill(kind, process, choice):
                check_end(kind, process, run, before)
        if process.poll() is None:
            code, _, errors = finish(process, timeout_s=600)
            assert code == 0, errors
        psutil.wait_procs(processes, timeout=180)  # agents of Ray take a minute
        assert not any(map(goes_on, processes))
        assert newest(run) >= seen, "a checkpoint that was committed is gone"
        seen = newest(run)
    code, _, errors = finish(start("train", *arguments, f"name={run.name}", TMPDIR=str(temporary)), timeout_s=600)
    assert code == 0, errors
    return num_kills


def check_nothing_changed(run, peaceful):
    """Weights, curves and files are those of a run that was left in peace."""
    whole, again = (torch.load(path / f"checkpoint_{LAST:08d}/state.pt", weights_only=True) for path in (peaceful, run))
    for name, value in whole["model"].items():
        assert torch.equal(value, again["model"][name]), name
    assert best_checkpoint(run) == best_checkpoint(peaceful)
    assert [path.name for path in checkpoints(run / "best")] == [best_checkpoint(run).name]
    for tag in ("validation/loss", "train/loss"):
        curves = [EventAccumulator(str(path)).Reload().Scalars(tag) for path in (peaceful, run)]
        every_ten = [{one.step: one.value for one in curve if one.step % 10 == 0} for curve in curves]
        assert every_ten[0] == every_ten[1]  # the same pairs in every step
    assert len(curves[1]) == len({one.step for one in curves[1]}), "a step was counted twice"
    assert not [path for path in run.rglob(".*") if path.name != ".validate_storage_marker"]
    assert sorted(path.name for path in run.glob("checkpoint_*/")) == [path.name for path in checkpoints(run)]


@pytest.mark.parametrize("number", range(NUM_ROUNDS))
def test_kills_change_no_bit_and_leave_nothing(number, arguments, peaceful, temporary):
    choice, num_kills, num_runs = random.Random(number), 0, 0
    while num_kills < KILLS_OF_A_ROUND:
        run = storage_of(arguments) / f"killed{number}-{num_runs}"
        num_kills += kill_again_and_again(choice, run, arguments, temporary, KILLS_OF_A_ROUND - num_kills)
        check_nothing_changed(run, peaceful)
        num_runs += 1
    assert not os.listdir(temporary)
