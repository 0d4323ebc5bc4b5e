"""A training whose only worker is the process that was started: bits, signals, failures and lines as with Ray."""

import re
import signal
import threading
import time

import pytest
import torch

from pcl.cluster import alone
from pcl.cluster.alone import Here
from pcl.config.load import load_config
from pcl.errors import DamagedDataError, RunFailedError
from pcl.plugins.loading import load_plugins, modules
from pcl.train.runs import checkpoints
from tests.conftest import GAUSSIAN
from tests.shards import damaged_copy
from tests.typed import family, finish, here, start, wait_until

LAST = "checkpoint_00000012"
SAID = "one worker, and no cluster is asked for: training in this process, without Ray"


@pytest.fixture(scope="module")
def arguments(shards, tmp_path_factory):
    folder = tmp_path_factory.mktemp("alone")
    return folder, (f"data.shards={shards}", f"storage={folder}", "workers.num_workers=1", "train.checkpoint_every=5")


def weights(run, name=LAST):
    return torch.load(run / name / "state.pt", weights_only=True)["model"]


def equal(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def test_it_has_the_bits_of_a_worker_of_ray(arguments, shared_ray):
    folder, given = arguments
    given = (*given, "train.epochs=3")
    for name, (code, output, errors) in (
        ("ray", finish(start("train", *given, "name=ray", **shared_ray))),
        ("here", here("train", GAUSSIAN, *given, "name=here")),
    ):
        assert code == 0, errors
        assert (SAID in output) == (name == "here")
    assert equal(weights(folder / "ray"), weights(folder / "here"))
    assert [path.name for path in checkpoints(folder / "ray")] == [path.name for path in checkpoints(folder / "here")]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_commits_a_checkpoint_from_which_it_goes_on(arguments, number):
    folder, given = arguments
    run = folder / number.name
    process = start("train", *given, "train.epochs=20000", "train.schedule=constant", f"name={number.name}")
    wait_until(lambda: checkpoints(run), process)
    assert family(process)[1:] == [], "it started a process"
    process.send_signal(number)
    code, _, errors = finish(process)
    assert (code, errors.count("\n")) == (128 + number, 1), errors
    (step,) = re.findall(rf"^error: {number.name}: checkpoint_0*(\d+) of 80000 steps is committed, ", errors)
    name = f"checkpoint_{int(step):08d}"
    assert checkpoints(run)[-1].name == name
    process = start("train", *given, "train.epochs=20000", "train.schedule=constant", f"name={number.name}")
    wait_until(lambda: checkpoints(run)[-1].name > name, process)
    process.send_signal(number)
    code, output, _ = finish(process)
    assert (code, f"going on from {name}\n" in output) == (128 + number, True)


@pytest.fixture
def failing(monkeypatch, tmp_path):
    """Return a function that trains with a loop that fails, and what its calls were given."""
    config, calls = load_config(GAUSSIAN, ["workers.max_failures=2"]), []

    def fit(errors):
        def fit_alone(config, run, step, stop, say, given_up):
            calls.append(step)
            if errors:
                raise errors.pop(0)

        monkeypatch.setattr(alone, "fit_alone", fit_alone)
        monkeypatch.setattr(alone, "mend_record", lambda run: [])
        monkeypatch.setattr(alone, "checkpoints", lambda run: [run / f"checkpoint_{len(calls):08d}"])
        workers = Here(1.0)
        try:
            workers.fit(config, tmp_path, 0)
        finally:
            calls.append(workers.notices())
        return calls

    return fit, calls


def test_what_a_restart_may_mend_is_tried_again_from_the_newest_checkpoint(failing):
    fit, _ = failing
    first, second, third, said = fit([RuntimeError("no memory"), ValueError("odd")])
    assert [first, second, third] == [0, 1, 2]
    assert said[0].startswith("worker 0 failed (RuntimeError: no memory, in ")
    assert said[1] == "going on from step 1 on 1 worker"
    assert said[3] == "going on from step 2 on 1 worker"


def test_what_fails_too_often_ends_it_in_a_line_that_says_where(failing):
    fit, calls = failing
    with pytest.raises(RunFailedError, match=r"training ended early \(RuntimeError: c, in .*test_alone.py, line \d+\)"):
        fit([RuntimeError(one) for one in "abc"])
    assert len(calls) == 4


def test_where_nothing_is_kept_it_says_so_and_names_the_line_of_a_plugin(monkeypatch, tmp_path):
    plugin = tmp_path / "plugin.py"
    plugin.write_text("import torch\n\ndef fails():\n    torch.nn.Linear(7, 2)(torch.zeros(1, 3))\n")
    load_plugins(plugin)
    monkeypatch.setattr(alone, "fit_alone", lambda *_: modules()[-1].fails())
    with pytest.raises(RunFailedError) as caught:
        Here(1.0).fit(load_config(GAUSSIAN, ["workers.max_failures=0"]), tmp_path / "run", 0)
    assert str(caught.value).endswith(
        f" in {plugin}, line 4): the same command begins anew, for there is no checkpoint yet"
    )


@pytest.mark.parametrize(
    "error", [DamagedDataError("a shard"), FloatingPointError("step 3"), RunFailedError("storage")]
)
def test_what_a_restart_cannot_mend_ends_it_at_once(failing, error):
    fit, calls = failing
    with pytest.raises(type(error), match=str(error)):
        fit([error])
    assert calls == [0, []]


def test_bits_that_flipped_end_it_in_one_line(arguments, shards):
    folder, given = arguments
    damaged = damaged_copy(shards, folder / "damaged")
    code, _, errors = here("train", GAUSSIAN, *given, "name=wrong", f"data.shards={damaged}")
    assert (code, errors.count("\n")) == (1, 1), errors
    assert errors.startswith(f"error: {damaged}/train-000003.tar is damaged: its SHA-256 is ")


def test_it_hears_that_it_is_asked_to_stop_from_another_thread(monkeypatch, tmp_path):
    workers = Here(1.0)
    threading.Thread(target=workers.ask_to_stop).start()

    def fit_alone(config, run, step, stop, say, given_up):
        while not stop():
            pass

    monkeypatch.setattr(alone, "fit_alone", fit_alone)
    workers.fit(load_config(GAUSSIAN), tmp_path, 0)


def test_storage_that_refuses_is_not_waited_for_when_time_to_stop_is_over():
    workers, began = Here(0.5), time.monotonic()
    workers.ask_to_stop()

    def refuse():
        raise OSError("SlowDown")

    with pytest.raises(RunFailedError, match=r"checkpoint_7/state.pt is not written: the job ends before storage"):
        alone.until_it_works(refuse, "checkpoint_7/state.pt", 60, workers._lines.append, workers._given_up.is_set)
    assert time.monotonic() - began < 30
    assert workers.notices() == ["storage refuses (SlowDown): trying again for 60 s"]
