"""More epochs on a run with a constant rate: the bits of one that had them all, and a record that can be undone."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from pcl.config.load import load_config, resolved_yaml
from pcl.errors import BadInputError, DamagedDataError
from pcl.train import longer
from pcl.train.checkpoint import load_checkpoint, save_checkpoint
from pcl.train.longer import earlier_hashes, has_other_epochs, lengthen
from pcl.train.parts import full_experiment
from pcl.train.runs import claim, recorded_experiment
from pcl.train.session import Session
from tests.processes import run_workers

GAUSSIAN = Path(__file__).resolve().parents[2] / "configs" / "gaussian.yaml"
STEPS_PER_EPOCH = 10


@pytest.fixture(scope="module")
def shards(make_shards):
    root, _ = make_shards(num_train=400, num_test=40, num_shards=8, record_pairs=25)
    return root


def config(shards, epochs, *overrides):
    sizes = ("num_train=400", "num_test=40", "num_modes=20")
    data = (f"data.shards={shards}", "data.num_shards=8", "data.record_pairs=25")
    settings = ("train.global_batch=40", "train.num_lanes=4", "train.schedule=constant", "train.warmup_steps=4")
    more = ("train.checkpoint_every=7", "model.temperature.learned=true", f"train.epochs={epochs}", *overrides)
    return load_config(GAUSSIAN, (*data, *(f"data.gaussian_process.{one}" for one in sizes), *settings, *more))


def train(config, run, resume_from=None):
    """Train a claimed run as a worker does, and return its weights."""
    session = Session.of_run(config, torch.device("cpu"), run, resume_from)

    def commit(step, scalars, content):
        if content is not None:
            save_checkpoint(run / f"checkpoint_{step:08d}", content)

    session.run(run, commit)
    return session.state.model.state_dict()


def begin(config, run):
    claim(run, full_experiment(config), resolved_yaml(config))


def extend(config, run):
    assert has_other_epochs(run, full_experiment(config), STEPS_PER_EPOCH)
    lengthen(run, full_experiment(config), resolved_yaml(config))


@pytest.mark.parametrize("num_workers", [1, pytest.param(2, marks=pytest.mark.process)])
def test_a_longer_run_has_the_bits_of_one_that_had_all_epochs_from_the_start(shards, tmp_path, num_workers):
    short, long, whole, first = config(shards, 2), config(shards, 5), tmp_path / "whole", tmp_path / "first"
    begin(long, whole)
    begin(short, first)

    def done(*arguments):
        return train(*arguments) if num_workers == 1 else run_workers(train, num_workers, *arguments)[0]

    wanted = done(long, whole)
    done(short, first)
    extend(long, first)
    found = done(long, first, first / "checkpoint_00000020")
    for name, value in wanted.items():
        np.testing.assert_array_equal(found[name], value)
    last = [load_checkpoint(run / "checkpoint_00000050") for run in (whole, first)]
    assert last[0]["step"] == last[1]["step"] == 50
    for one, other in zip(*(content["optimizer"]["state"].values() for content in last), strict=True):
        assert all(torch.equal(one[key], other[key]) for key in one)
    assert last[0]["config_hash"] == last[1]["config_hash"]


def test_a_run_is_lengthened_again_and_again_and_resumed_from_any_of_its_checkpoints(shards, tmp_path):
    wanted = None
    for epochs in (1, 2, 4):
        given = config(shards, epochs)
        begin(given, tmp_path) if epochs == 1 else extend(given, tmp_path)
        step = {1: 0, 2: 10, 4: 20}[epochs]
        wanted = train(given, tmp_path, tmp_path / f"checkpoint_{step:08d}" if step else None)
    assert len(earlier_hashes(tmp_path)) == 2
    for step in (7, 10, 14, 20, 35):
        found = train(given, tmp_path, tmp_path / f"checkpoint_{step:08d}")
        assert all(torch.equal(found[name], value) for name, value in wanted.items())
    with pytest.raises(DamagedDataError, match="another configuration"):
        Session(given, torch.device("cpu"), tmp_path / "checkpoint_00000007")


def test_what_was_recorded_can_be_taken_back(shards, tmp_path):
    short, long = config(shards, 2), config(shards, 5, "train.log_every=3")
    begin(short, tmp_path)
    before = {name: (tmp_path / name).read_bytes() for name in ("config.yaml", "provenance.json")}
    extend(long, tmp_path)
    content = json.loads((tmp_path / "provenance.json").read_text())
    assert content["experiment"] == json.loads(before["provenance.json"])["experiment"] | {"train.epochs": 5}
    assert recorded_experiment(tmp_path, full_experiment(long))["train.epochs"] == 5
    assert load_config(tmp_path).train.epochs == 5
    (earlier,) = content["earlier"]
    assert earlier.pop("config").encode() == before["config.yaml"]
    assert earlier == json.loads(before["provenance.json"])


@pytest.mark.parametrize("refused", ["config.yaml", "provenance.json"])
def test_storage_that_refuses_leaves_a_run_that_the_same_command_lengthens(shards, tmp_path, monkeypatch, refused):
    short, long = config(shards, 2), config(shards, 5)
    begin(short, tmp_path)
    before = (tmp_path / "provenance.json").read_bytes()

    def refuse(*arguments):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(longer, "write_bytes" if refused == "config.yaml" else "write_json", refuse)
        with pytest.raises(OSError, match="No space"):
            extend(long, tmp_path)
    assert (tmp_path / "provenance.json").read_bytes() == before
    assert recorded_experiment(tmp_path, full_experiment(short)) is not None
    extend(long, tmp_path)
    assert recorded_experiment(tmp_path, full_experiment(long)) is not None
    assert not has_other_epochs(tmp_path, full_experiment(long), STEPS_PER_EPOCH)
    lengthen(tmp_path, full_experiment(long), "")
    assert len(json.loads((tmp_path / "provenance.json").read_text())["earlier"]) == 1


def test_a_run_that_was_stopped_may_get_fewer_epochs_than_planned_but_not_than_done(shards, tmp_path):
    begin(config(shards, 9), tmp_path)
    train(config(shards, 9), tmp_path)
    for folder in tmp_path.glob("checkpoint_0000*"):
        if int(folder.name[-8:]) > 28:
            (folder / "state.pt").unlink()
    assert has_other_epochs(tmp_path, full_experiment(config(shards, 3)), STEPS_PER_EPOCH)
    with pytest.raises(BadInputError, match=r"done 28 steps, train\.epochs=2 are 20: give at least train\.epochs=3"):
        has_other_epochs(tmp_path, full_experiment(config(shards, 2)), STEPS_PER_EPOCH)


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["train.schedule=cosine"], "cosine schedule, which ends with them: only train.schedule=constant goes on to 5"),
        (["train.learning_rate=0.5"], r"differing: train\.epochs, train\.learning_rate\)"),
    ],
)
def test_others_are_refused_with_the_rule_and_the_remedy(shards, tmp_path, overrides, said):
    recorded = config(shards, 2, *(one for one in overrides if "schedule" in one))
    begin(recorded, tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(BadInputError, match=said) as refused:
        has_other_epochs(tmp_path, full_experiment(config(shards, 5, *overrides)), STEPS_PER_EPOCH)
    assert "name=..." in str(refused.value)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_new_run_and_the_same_epochs_are_as_ever(shards, tmp_path):
    experiment = full_experiment(config(shards, 2))
    assert not has_other_epochs(tmp_path / "nothing", experiment, STEPS_PER_EPOCH)
    begin(config(shards, 2), tmp_path)
    assert not has_other_epochs(tmp_path, experiment, STEPS_PER_EPOCH)
    assert earlier_hashes(tmp_path) == earlier_hashes(tmp_path / "nothing") == []
