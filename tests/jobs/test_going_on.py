"""Going on as people type it, on workers of Ray Train and alone: more epochs, and the weights of another run."""

import json

import pytest
import torch

import pcl
from tests.conftest import GAUSSIAN
from tests.trained import weights_of_two
from tests.typed import finish, here, start

pytestmark = [pytest.mark.process, pytest.mark.timeout(600)]

SETTINGS = ("train.schedule=constant", "train.checkpoint_every=3", "workers.start_timeout_s=120")


@pytest.fixture(scope="module")
def typed(tmp_path_factory, make_shards, shared_ray):
    """What runs a job on small shards, the folder of its runs, and what all jobs are given."""
    root, _ = make_shards(num_train=1600, num_test=40, num_shards=8, record_pairs=50)
    folder = tmp_path_factory.mktemp("going-on") / "runs"
    sizes = ("num_train=1600", "num_test=40", "num_modes=20")
    data = (f"data.shards={root}", f"storage={folder}", "data.num_shards=8", "data.record_pairs=50")
    fixed = (*data, *(f"data.gaussian_process.{one}" for one in sizes), "train.global_batch=320", *SETTINGS)

    def run(job, *arguments, code=0, alone=False):
        words = (*fixed, f"workers.num_workers={2 - alone}", *arguments)
        found, output, errors = here(job, GAUSSIAN, *words) if alone else finish(start(job, *words, **shared_ray))
        assert found == code, errors
        return output if code == 0 else errors

    return run, folder, fixed


def weights(run, step):
    return torch.load(run / f"checkpoint_{step:08d}" / "state.pt", weights_only=True)["model"]


def test_more_epochs_give_the_bits_of_a_run_that_had_them_from_the_start(typed):
    run, folder, fixed = typed
    run("train", "name=mine", "train.epochs=2")
    output = run("train", "name=mine", "train.epochs=4")
    assert "going on from checkpoint_00000010" in output
    one, other = weights(folder / "mine", 20), weights_of_two(*fixed, "train.epochs=4")
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], value) for name, value in other.items())
    assert "this run is finished" in run("train", "name=mine", "train.epochs=4", alone=True)
    errors = run("train", "name=mine", "train.epochs=3", code=2, alone=True)
    assert errors.count("\n") == 1
    assert "give at least train.epochs=4" in errors
    earlier = json.loads((folder / "mine" / "provenance.json").read_text())["earlier"]
    assert [one["experiment"]["train.epochs"] for one in earlier] == [2]


def test_workers_begin_with_the_weights_that_the_run_keeps(typed):
    """With a rate of nearly nothing they end where they began; the source is gone when the run goes on."""
    run, folder, _ = typed
    run("train", "name=source", "train.epochs=1", "seed=3", alone=True)
    begun = weights(folder / "source", 5)
    given = ("name=heir", f"train.init_from={folder / 'source'}", "train.learning_rate=1e-12")
    output = run("train", *given, "train.epochs=1")
    assert f"encoder_u: 1 of 1 tensors are those of {folder / 'source'}/checkpoint_00000005" in output
    (folder / "source").rename(folder / "elsewhere")
    assert "going on from checkpoint_00000005" in run("train", *given, "train.epochs=2", alone=True)
    for name, value in weights(folder / "heir", 10).items():
        torch.testing.assert_close(value, begun[name], rtol=0, atol=1e-9)
    errors = run("train", f"train.init_from={folder / 'source'}", "name=other", "train.epochs=1", code=2, alone=True)
    assert errors.count("\n") == 1
    assert "train.init_from: " in errors
    assert not (folder / "other").exists()
    assert pcl.load(folder / "heir").spec["embedding_dim"] == 5
