"""Trainings whose normaliser is over a Gaussian: any number of workers, the moments of the shards, what is refused."""

from pathlib import Path

import numpy as np
import pytest
import torch

from pcl.config.load import load_config
from pcl.data.loader import iterate_split
from pcl.data.manifest import load_manifest
from pcl.errors import BadInputError
from pcl.train.collectives import mean_over_workers
from pcl.train.loop import train_step
from pcl.train.normaliser import gaussian_of
from pcl.train.session import Session
from pcl.train.validation import HELD_OUT_LOSS
from tests.processes import run_workers

ROOT = Path(__file__).resolve().parents[2]
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def shards(make_shards):
    root, _ = make_shards(num_train=600, num_test=40, num_shards=8, record_pairs=50)
    return root


def config(shards, *overrides):
    data = (f"data.shards={shards}", "data.num_shards=8", "data.record_pairs=50")
    sizes = tuple(f"data.gaussian_process.{item}" for item in ("num_train=600", "num_test=40", "num_modes=20"))
    training = ("train.global_batch=32", "train.num_lanes=4", "train.epochs=2", "train.precision=float64")
    first = ("loss.normaliser=gaussian", *data, *sizes, *training)
    return load_config(ROOT / "configs" / "gaussian.yaml", (*first, *overrides))


def follow(shards, overrides, num_steps=12):
    """Return the losses of the first steps, and the final weights."""
    session = Session(config(shards, *overrides), CPU)
    losses, stream = [], session.loader.batches()
    for _ in range(num_steps):
        found = train_step(
            session.state, next(stream), session.loss, session.optimisation, session.workers, session.marginals
        )
        losses.append(mean_over_workers(found, session.workers)["loss"])
    return losses, [parameter.detach().clone() for parameter in session.state.model.parameters()]


@pytest.mark.parametrize("tilting", ["inner_product", "squared_distance"])
def test_the_number_of_workers_changes_nothing(shards, tilting):
    overrides = (f"model.tilting={tilting}",)
    (losses, weights), many = follow(shards, overrides), run_workers(follow, 2, shards, overrides)
    np.testing.assert_allclose(many[0][0], losses, rtol=0, atol=1e-10)
    for one, other in zip(many[0][1], weights, strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-9)
    assert losses[-1] < losses[0]
    assert follow(shards, (*overrides, "loss.normaliser=batch"), 1)[0][0] != pytest.approx(losses[0], abs=1e-3)


def test_the_gaussian_has_the_moments_of_the_training_split(shards):
    manifest = load_manifest(shards)
    u = np.concatenate([items.numpy() for (items,) in iterate_split(shards, manifest, "train", ("u",))])
    mean, root = gaussian_of(shards, manifest, "u")
    np.testing.assert_allclose(mean, u.mean(0), rtol=0, atol=1e-7)
    np.testing.assert_allclose(root.T @ root, np.cov(u.T, bias=True), rtol=0, atol=1e-7)


def test_both_sides_are_exact_where_both_encoders_are_affine(shards):
    assert [one.name for one in Session(config(shards), CPU).marginals] == ["u", "v"]
    assert [one.name for one in Session(config(shards, "model.encoder_v=mlp"), CPU).marginals] == ["u"]
    one_sided = config(shards, "loss.weight_u_given_v=0", "model.encoder_u=mlp")
    assert [one.name for one in Session(one_sided, CPU).marginals] == ["v"]


def test_the_held_out_loss_has_the_same_normaliser(shards):
    session = Session(config(shards, "train.validation_fraction=0.5"), CPU)
    session.train(lambda step, scalars: None, lambda state, scalars: None)
    found = session.validation(session.state.model)[HELD_OUT_LOSS]
    session.validation.marginals = []
    assert found != pytest.approx(session.validation(session.state.model)[HELD_OUT_LOSS], abs=1e-3)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (("model.encoder_u=mlp",), "model.encoder_u=mlp is not affine as linear or identity"),
        (("model.tilting=cosine",), "model.tilting=cosine is no Gaussian in u"),
        (("model.tilting=potentials",), "model.tilting=potentials is no Gaussian in u"),
        (("loss.kind=joint",), "loss.normaliser=gaussian: not of the joint loss, choose loss.kind=conditional"),
        (("loss.kind=joint_mmd",), "loss.normaliser=gaussian: the joint_mmd loss has none"),
        (("loss.normaliser=all",), "loss.normaliser=all: choose one of batch, atoms, gaussian"),
    ],
)
def test_what_no_gaussian_carries_is_refused(shards, overrides, message):
    with pytest.raises(BadInputError, match=message):
        Session(config(shards, *overrides), CPU)


def test_items_of_too_many_numbers_are_refused(shards, monkeypatch):
    monkeypatch.setattr("pcl.train.normaliser.MOST_NUMBERS", 10)
    with pytest.raises(BadInputError, match=r"an item of u has \d+ numbers, more than 10; choose another"):
        Session(config(shards), CPU)


@pytest.mark.parametrize(("old", "new"), [("true", "atoms"), ("false", "batch")])
def test_the_old_key_is_understood(shards, old, new):
    assert config(shards, f"loss.exact_normaliser={old}").loss.normaliser == new
