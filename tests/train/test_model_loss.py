"""Losses of the model and of stored arrays: any number of workers, resuming, held-out pairs, what encoders take."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from pcl.config.load import load_config
from pcl.data.held_out import held_out
from pcl.data.loader import iterate_split
from pcl.encoders.registry import EncoderKind, network_of, register_encoder
from pcl.errors import BadInputError
from pcl.objective import LOSSES, LossKind, make_loss, register_loss
from pcl.problems.problem import PROBLEMS, Problem, register
from pcl.settings import setting
from pcl.train.checkpoint import checkpoint_content, save_checkpoint
from pcl.train.collectives import mean_over_workers
from pcl.train.loop import train_step
from pcl.train.parts import prepare
from pcl.train.session import Session
from pcl.train.validation import HELD_OUT_LOSS
from tests.processes import run_workers

ROOT = Path(__file__).resolve().parents[2]
CPU = torch.device("cpu")


@dataclass
class Scatter:
    """Settings of the loss."""

    scale: float = setting("of the random numbers, no unit", 1.0, at_least=0)


class Scattered:
    """Mean squared distance of what v's encoder says of each v to its u, on one axis in a random direction."""

    def __init__(self, context):
        self.context, self.scale = context, context.settings["scale"]
        self.num_pairs = sum(len(u) for (u,) in iterate_split(context.root, context.manifest, "train", ("u",)))

    def __call__(self, model, arrays, *, step, workers):
        u, v = arrays["u"], arrays["v"]
        first = workers.worker_rank * len(u)
        numbers = range(first, first + len(u))
        drawn = [torch.Generator().manual_seed(hash((self.context.seed, step, number))) for number in numbers]
        direction = self.scale * torch.stack([torch.randn(u.shape[1], generator=one).double() for one in drawn])
        missed = ((model.encoder_v(v) - u.double()) * direction).sum(1).square()
        loss = missed.mean()
        return loss, {"loss": loss.detach(), "num_pairs": torch.tensor(float(self.num_pairs))}


class Beginning(nn.Linear):
    """Linear in v, from the mean of u on, which it keeps."""

    def __init__(self, shape, embedding_dim):
        super().__init__(*shape, embedding_dim)
        self.register_buffer("kept", torch.zeros(embedding_dim))

    def forward(self, x):
        return super().forward(x) + self.kept


def begin(network, root, manifest):
    network.kept.copy_(torch.cat([u for (u,) in iterate_split(root, manifest, "train", ("u",))]).mean(0))


@pytest.fixture(scope="module")
def shards(make_shards):
    root, manifest = make_shards(num_train=600, num_test=40, num_shards=8, record_pairs=50)
    return root, manifest.arrays["u"].shape[0]


@pytest.fixture(autouse=True)
def registered():
    registration()


def check(model):
    if not isinstance(network_of(model.encoder_v), Beginning):
        raise BadInputError("loss.kind=scattered learns an encoder that begins: choose model.encoder_v=beginning")


def registration():
    if "scattered" not in LOSSES:
        kind = LossKind(Scattered, ("v", "u"), check, has_normaliser=False, settings=Scatter)
        register_loss("scattered", kind)
        register_loss("starved", LossKind(Scattered, ("u", "wet"), has_normaliser=False))
        register_encoder("beginning", EncoderKind(Beginning, begin=begin))


def config(shards, *overrides):
    root, size = shards
    data = (f"data.shards={root}", "data.num_shards=8", "data.record_pairs=50", f"model.embedding_dim={size}")
    sizes = tuple(f"data.gaussian_process.{item}" for item in ("num_train=600", "num_test=40", "num_modes=20"))
    training = ("train.global_batch=32", "train.num_lanes=4", "train.epochs=2", "train.precision=float64")
    kinds = ("loss.kind=scattered", "model.encoder_v=beginning", "train.checkpoint_every=10", "train.log_every=5")
    return load_config(ROOT / "configs" / "gaussian.yaml", (*data, *sizes, *training, *kinds, *overrides))


def follow(shards, num_steps=8):
    """Return the losses of the first steps, and the final state of the model."""
    registration()
    session = Session(config(shards), CPU)
    losses, stream = [], session.loader.batches()
    for _ in range(num_steps):
        found = train_step(session.state, next(stream), session.loss, session.optimisation, session.workers)
        losses.append(mean_over_workers(found, session.workers)["loss"])
    return losses, dict(session.state.model.state_dict())


def test_the_number_of_workers_changes_nothing(shards):
    (losses, state), many = follow(shards), run_workers(follow, 2, shards)
    np.testing.assert_allclose(many[0][0], losses, rtol=1e-12)
    for worker in many:
        for name, value in worker[1].items():
            np.testing.assert_allclose(value, state[name], rtol=0, atol=1e-12)


def test_a_step_has_the_loss_and_the_gradient_by_hand(shards):
    session = Session(config(shards), CPU)
    batch = next(session.loader.batches())
    v, u = (part.double() for part in batch)
    network = network_of(session.state.model.encoder_v)
    with torch.no_grad():
        missed = session.state.model.encoder_v(v) - u
    drawn = [torch.Generator().manual_seed(hash((session.config.seed, 0, number))) for number in range(len(u))]
    direction = torch.stack([torch.randn(u.shape[1], generator=one).double() for one in drawn])
    along = (missed * direction).sum(1)
    found = train_step(session.state, batch, session.loss, session.optimisation, session.workers)
    assert found["loss"].item() == pytest.approx(along.square().mean().item(), rel=1e-12)
    assert found["num_pairs"].item() == 600
    torch.testing.assert_close(network.bias.grad, 2 * (along[:, None] * direction).mean(0))


def test_an_encoder_takes_what_it_keeps_from_the_training_split_once(shards, tmp_path):
    session = Session(config(shards), CPU)
    network = network_of(session.state.model.encoder_v)
    u = torch.cat([u for (u,) in iterate_split(shards[0], session.manifest, "train", ("u",))])
    torch.testing.assert_close(network.kept, u.mean(0).double())
    network.kept.fill_(7)
    save_checkpoint(tmp_path, checkpoint_content(session.state, session.spec, session.experiment_hash))
    assert (network_of(Session(config(shards), CPU, tmp_path).state.model.encoder_v).kept == 7).all()


def test_resuming_is_exact_and_what_is_held_out_is_judged(shards, tmp_path):
    overrides = ("train.validation_fraction=0.2",)
    whole, logged = Session(config(shards, *overrides), CPU), []

    def report(state, scalars):
        content = checkpoint_content(state, whole.spec, whole.experiment_hash)
        save_checkpoint(tmp_path / str(state.step), content)

    whole.train(lambda step, scalars: logged.append((step, scalars)), report)
    resumed = Session(config(shards, *overrides), CPU, tmp_path / "10")
    resumed.train(lambda *_: None, lambda *_: None)
    for name, value in whole.state.model.state_dict().items():
        assert torch.equal(value, resumed.state.model.state_dict()[name])
    judged = [scalars[HELD_OUT_LOSS] for _, scalars in logged if HELD_OUT_LOSS in scalars]
    assert judged[-1] < judged[0]

    pairs = held_out(whole.manifest, 0.2)
    u, v = (torch.cat(part) for part in zip(*iterate_split(shards[0], whole.manifest, "train"), strict=True))
    losses = [
        whole.loss(whole.state.model, (v[rows], u[rows]), step=number, workers=whole.workers)[0].item()
        for number, rows in enumerate(pairs.batches(32, whole.config.seed))
    ]
    assert judged[-1] == pytest.approx(np.mean(losses), rel=1e-12)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("loss.kind=starved", "loss.kind=starved needs wet of every pair, which gaussian_process does not have"),
        ("model.encoder_v=linear", "choose model.encoder_v=beginning"),
        ("data.augment.pairs=[turn]", "data.augment: the scattered loss sees pairs as they are stored"),
        ("loss.normaliser=atoms", "loss.normaliser=atoms: the scattered loss has none"),
        ("train.precision=bf16", "train.precision=bf16: the scattered loss has no encoders"),
        ("train.compile=true", "train.compile=true: the scattered loss has no encoders, leave it out"),
        ("loss.settings={scale: -1}", r"loss.settings.scale=-1.0: it must be at least 0"),
    ],
)
def test_what_does_not_fit_is_refused_before_a_worker_starts(shards, override, message):
    with pytest.raises(BadInputError, match=message):
        prepare(config(shards, override), 1)


def test_a_loss_that_is_not_finite_ends_the_training_with_the_step(shards):
    session = Session(config(shards, "loss.settings={scale: 1e300}"), CPU)
    with pytest.raises(FloatingPointError, match=r"step 1: the loss is inf: .* lower the learning rate"):
        session.train(lambda *_: None, lambda *_: None)


def test_it_is_no_loss_of_feature_maps():
    with pytest.raises(ValueError, match="the scattered loss is one of the model"):
        make_loss("scattered")


def test_a_kind_of_pairs_registers_its_losses():
    ours = PROBLEMS["mnist"]
    register(Problem("mine", ours.settings, Beginning, losses={"of_mine": LossKind(Scattered, ("u",))}))
    assert LOSSES["of_mine"].arrays == ("u",)
    with pytest.raises(BadInputError, match="two kinds of losses are named 'conditional'"):
        register(Problem("other", ours.settings, Scattered, losses={"conditional": LossKind(Scattered, ("u",))}))
