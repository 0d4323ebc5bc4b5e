"""Batches in chunks: the gradient of the whole batch, with the activations of one chunk."""

import json
import subprocess
import sys
from functools import partial
from itertools import count
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from pcl.config.identity import data_identity, experiment
from pcl.config.load import load_config
from pcl.data.augmentation import Augment, AugmentSettings
from pcl.encoders.build import build_model
from pcl.encoders.registry import EncoderKind, register_encoder
from pcl.errors import BadInputError
from pcl.marginals import FiniteModality, GaussianModality
from pcl.model import PairModel
from pcl.objective import ModelLoss, make_loss
from pcl.tilting import TILTINGS, Temperature
from pcl.train.averaging import GradientAverage
from pcl.train.checkpoint import save_checkpoint
from pcl.train.clock import Clock
from pcl.train.collectives import make_workers, mean_over_workers
from pcl.train.gradient import Step, features_of
from pcl.train.parts import make_source, prepare
from pcl.train.session import Session
from pcl.workers import OneWorker
from tests.processes import run_workers
from tests.shards import build_shards
from tests.train.test_collectives import (
    KERNELS,
    LOSS_KINDS,
    LOSSES,
    expected_loss_and_gradients,
    make_batch,
    make_model,
)

ROOT = Path(__file__).resolve().parents[2]
CPU = torch.device("cpu")
CASES = [
    (kind, weights, statistic, tilting, exclude_positive, chunk)
    for kind, weights, statistic in LOSSES
    for tilting in TILTINGS
    for exclude_positive in (False, True)
    for chunk in (1, 3)  # which divides no batch
]
MLP = {"kind": "mlp", "shape": [6], "widths": [8, 8], "dropout": 0.4}
SPEC = {
    "embedding_dim": 4,
    "encoder_u": MLP,
    "encoder_v": MLP,
    "tilting": "potentials",
    "temperature": {"initial": 0.5, "learned": True, "minimum": 0.1, "maximum": 9.0},
    "dtype": "float64",
}


def gradients(model, batch, loss, workers=None, **options):
    """Return the diagnostics of a step, and the mean gradient of every parameter by name."""
    workers = workers or OneWorker()
    average = GradientAverage(model.parameters(), workers)
    step = Step(model, options.pop("number", 7), loss, workers, Clock(), **options)
    diagnostics = step.backward(batch, average.begin)
    average.finish()
    found = {name: None if p.grad is None else p.grad.clone() for name, p in model.named_parameters()}
    return mean_over_workers(diagnostics, workers), found


def pairs(number=12, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return tuple(torch.randn(number, 6, generator=generator, dtype=torch.float64) for _ in range(2))


def assert_same(one, other, atol=1e-12):
    assert one.keys() == other.keys()
    for name, expected in one.items():
        np.testing.assert_allclose(other[name], expected, rtol=0, atol=atol, err_msg=name)


def of_case(case, workers=None):
    kind, weights, statistic, tilting, exclude_positive, chunk = case
    workers = workers or make_workers()
    model = make_model(tilting, has_bias=LOSS_KINDS[kind].has_bias)
    batch = [part.chunk(workers.num_workers)[workers.worker_rank] for part in make_batch()]
    options = {} if LOSS_KINDS[kind].has_bias else {"exclude_positive": exclude_positive}
    loss = make_loss(kind, weights, kernels=KERNELS, statistic=statistic, **options)
    return gradients(model, batch, loss, workers, chunk_pairs=chunk)


def check_case(case, found):
    diagnostics, grads = found
    value, expected = expected_loss_and_gradients(*case[:-1])
    assert diagnostics["loss"] == pytest.approx(value, abs=1e-12)
    assert_same(expected, grads)


@pytest.mark.parametrize("loss", LOSSES, ids=str)
def test_one_worker_has_the_gradient_of_the_formula_on_the_whole_batch(loss):
    for case in (case for case in CASES if case[:3] == loss):
        check_case(case, of_case(case))


def on_two_workers(shards):
    """Return what each test of two workers looks at: they share the start of the processes."""
    return {
        "cases": [of_case(case) for case in CASES],
        "exact": [of_exact(name, 3) for name in EXACT],
        "model": of_scattered(3),
        "session": follow(shards, ("train.chunk_pairs=5",), 6),
    }


@pytest.fixture(scope="module")
def of_two_workers(shards):
    return run_workers(on_two_workers, 2, shards)


@pytest.mark.process
def test_two_workers_have_the_gradient_of_the_formula_on_the_whole_batch(of_two_workers):
    for worker in of_two_workers:
        for case, found in zip(CASES, worker["cases"], strict=True):
            check_case(case, found)


def labels_and_numbers():
    generator = torch.Generator().manual_seed(3)
    return torch.randn(12, 6, generator=generator, dtype=torch.float64), torch.arange(12) % 4


EXACT = {
    "conditional atoms": ("conditional", "one_hot"),
    "joint atoms": ("joint", "one_hot"),
    "logistic atoms": ("logistic", "one_hot"),
    "conditional gaussian": ("conditional", "linear"),
}


def of_exact(name, chunk):
    """Return the step of a loss whose normaliser is exact: the encoder of v gets gradients from it directly too."""
    kind, encoder = EXACT[name]
    workers = make_workers()
    u, v = labels_and_numbers() if encoder == "one_hot" else pairs()
    if encoder == "one_hot":
        marginal = FiniteModality("v", torch.arange(4), torch.tensor([0.1, 0.2, 0.3, 0.4]).double().log())
    else:
        marginal = GaussianModality("v", v.mean(0), torch.linalg.cholesky(torch.cov(v.T)).T)
    shape = [] if encoder == "one_hot" else [6]
    sides = {"encoder_u": {**MLP, "dropout": 0.0}, "encoder_v": {"kind": encoder, "shape": shape}}
    tilting = "potentials" if encoder == "one_hot" else "squared_distance"
    model = build_model(SPEC | sides | {"tilting": tilting, "bias": kind == "logistic"}, seed=0)
    batch = [part.chunk(workers.num_workers)[workers.worker_rank] for part in (u, v)]
    return gradients(model, batch, make_loss(kind), workers, marginals=[marginal], chunk_pairs=chunk)


@pytest.mark.process
@pytest.mark.parametrize("name", EXACT)
def test_exact_normalisers(name, of_two_workers):
    whole = of_exact(name, 0)
    assert whole[1]["encoder_v.0.potential" if "atoms" in name else "encoder_v.1.map.weight"].abs().max() > 1e-3
    for found in (of_exact(name, 5), of_two_workers[0]["exact"][list(EXACT).index(name)]):
        assert found[0]["loss"] == pytest.approx(whole[0]["loss"], abs=1e-12)
        assert_same(whole[1], found[1])


def test_both_passes_of_a_chunk_drop_the_same():
    """By one graph of all chunks, each drawn anew from the seed, the step, the worker and its number."""
    model, batch = build_model(SPEC, seed=0), pairs()
    _, found = gradients(model, batch, make_loss("conditional"), seed=5, chunk_pairs=5)
    model.zero_grad()
    parts = []
    for number, chunk in enumerate(zip(*(torch.split(part, 5) for part in batch), strict=True)):
        torch.manual_seed(hash((5, 7, 0, number)) & (2**63 - 1))
        parts.append(features_of(model, *chunk, bf16=False))
    value, _ = make_loss("conditional")(*(torch.cat(side) for side in zip(*parts, strict=True)), model.temperature())
    value.backward()
    assert_same({name: p.grad for name, p in model.named_parameters()}, found)
    model.zero_grad()
    _, other = gradients(model, batch, make_loss("conditional"), seed=6, chunk_pairs=5)
    assert not np.allclose(other["encoder_u.1.layers.2.weight"], found["encoder_u.1.layers.2.weight"], atol=1e-3)


def test_bf16_is_close():
    spec = SPEC | {"dtype": "float32", "encoder_u": {**MLP, "dropout": 0.0}, "encoder_v": {**MLP, "dropout": 0.0}}
    batch = [part.float() for part in pairs(64)]
    whole, found = (
        gradients(build_model(spec, seed=0), batch, make_loss("conditional"), bf16=True, chunk_pairs=chunk)
        for chunk in (0, 24)
    )
    assert found[0]["loss"] == pytest.approx(whole[0]["loss"], abs=1e-3)
    for name, expected in whole[1].items():
        assert (found[1][name] - expected).norm() <= 0.05 * expected.norm() + 1e-6, name


def test_pairs_are_augmented_as_in_the_whole_batch():
    generator = torch.Generator().manual_seed(0)
    batch = torch.rand(12, 8, 8, generator=generator).double(), pairs()[1]
    spec = SPEC | {"encoder_u": {**MLP, "shape": [8, 8], "dropout": 0.0}, "encoder_v": {**MLP, "dropout": 0.0}}
    augment = Augment(AugmentSettings(u=["flip", "crop"]), seed=0)
    whole, found, plain = (
        gradients(build_model(spec, seed=0), batch, make_loss("joint"), **options)[1]
        for options in ({"augment": augment}, {"augment": augment, "chunk_pairs": 5}, {"chunk_pairs": 5})
    )
    assert_same(whole, found)
    assert not np.allclose(plain["encoder_u.1.layers.2.weight"], whole["encoder_u.1.layers.2.weight"], atol=1e-4)


@pytest.mark.parametrize("chunk", [12, 13, 10**6])
def test_a_chunk_that_holds_the_batch_is_the_batch_to_the_bit(chunk):
    whole, found = (
        gradients(build_model(SPEC, seed=0), pairs(), make_loss("joint"), chunk_pairs=size)[1] for size in (0, chunk)
    )
    assert all(torch.equal(found[name], expected) for name, expected in whole.items())


def test_one_network_of_both_and_encoders_that_do_not_learn():
    plain = {**MLP, "dropout": 0.0}
    for spec, frozen in (
        (SPEC | {"share": True, "encoder_u": plain, "encoder_v": plain}, ()),
        (SPEC, "u"),
        (SPEC, "uv"),
    ):
        results = []
        for chunk in (0, 5):
            model = build_model(spec | {"encoder_u": plain, "encoder_v": plain}, seed=0)
            for side in frozen:
                getattr(model, f"encoder_{side}").requires_grad_(False)
            results.append(gradients(model, pairs(), make_loss("conditional"), chunk_pairs=chunk)[1])
        assert [name for name, g in results[1].items() if g is None] == [n for n, g in results[0].items() if g is None]
        assert_same(*({name: g for name, g in found.items() if g is not None} for found in results))


class Counting(nn.Module):
    """An encoder that takes a second of a clock, with a graph or without, and ten in the backward pass."""

    def __init__(self, now):
        super().__init__()
        self.now, self.sizes, self.layer = now, [], nn.Linear(6, 4).double()

    def forward(self, x):
        self.now[0] += 1
        self.sizes.append((len(x), torch.is_grad_enabled()))
        embedding = self.layer(x)
        if embedding.requires_grad:
            embedding.register_hook(lambda gradient: self.now.__setitem__(0, self.now[0] + 10))
        return embedding


def test_only_a_chunk_has_a_graph_and_the_clock_tells_the_parts():
    now = [0.0]
    clock = Clock(now=lambda: now[0])
    clock.begin_step()
    temperature = Temperature(0.5, learned=True, minimum=0.1, maximum=9.0).double()
    model = PairModel(Counting(now), Counting(now), "cosine", temperature)
    begun = []

    def begin(complete):
        begun.append((len(model.encoder_u.sizes), [p is model.temperature.log_temperature for p in complete]))
        assert model.temperature.log_temperature.grad is not None

    Step(model, 0, make_loss("conditional"), OneWorker(), clock, chunk_pairs=5).backward(pairs(), begin)
    assert model.encoder_u.sizes == model.encoder_v.sizes == [(n, graph) for graph in (False, True) for n in (5, 5, 2)]
    assert begun == [(6, [True])]  # once, before the last chunk's backward, with what gets nothing from it
    assert {part: seconds for part, seconds in clock.seconds.items() if seconds} == {"forward": 12, "backward": 60}


def scattered(model, arrays, *, step, workers):
    """A loss of the model that draws by the number of a pair in the global batch."""
    first = workers.worker_rank * len(arrays["u"])
    drawn = [torch.Generator().manual_seed(first + row) for row in range(len(arrays["u"]))]
    noise = torch.stack([torch.randn(4, generator=one, dtype=torch.float64) for one in drawn])
    value = (model.encoder_u(arrays["u"]) + noise).square().sum(1).mean()
    return value, {"loss": value.detach()}


def of_scattered(chunk):
    model, workers = make_model("cosine"), make_workers()
    batch = [make_batch()[0].chunk(workers.num_workers)[workers.worker_rank]]
    return gradients(model, batch, ModelLoss(("u",), lambda: scattered), workers, chunk_pairs=chunk)


@pytest.mark.process
def test_a_loss_of_the_model_takes_a_chunk_for_a_worker(of_two_workers):
    whole = of_scattered(0)
    for found in (of_scattered(1), of_scattered(3), of_scattered(4), of_two_workers[1]["model"]):
        assert found[0]["loss"] == pytest.approx(whole[0]["loss"], rel=1e-12)
        learned = {name: gradient for name, gradient in whole[1].items() if gradient is not None}
        assert_same(learned, {name: found[1][name] for name in learned})


def test_a_loss_of_the_model_that_compares_pairs_is_refused():
    def comparing(model, arrays, *, step, workers):
        value = workers.gather(model.encoder_u(arrays["u"])).std()
        return value, {"loss": value.detach()}

    loss = ModelLoss(("u",), lambda: comparing)
    gradients(make_model("cosine"), make_batch()[:1], loss)
    with pytest.raises(BadInputError, match=r"compares the pairs of a batch, .*set train.chunk_pairs=0$"):
        gradients(make_model("cosine"), make_batch()[:1], loss, chunk_pairs=2)


class Remembering(nn.Linear):
    """Keeps how many batches it has seen."""

    def __init__(self, shape, embedding_dim):
        super().__init__(*shape, embedding_dim)
        self.register_buffer("seen", torch.zeros(()))

    def forward(self, x):
        self.seen += 1
        return super().forward(x)


class Normalising(nn.Sequential):
    """Ties the pairs of a batch together."""

    def __init__(self, shape, embedding_dim):
        super().__init__(nn.Linear(*shape, embedding_dim), nn.BatchNorm1d(embedding_dim))


@pytest.fixture(scope="module")
def shards(make_shards):
    root, _ = make_shards(num_train=600, num_test=40, num_shards=8, record_pairs=50)
    return root


def config(shards, *overrides):
    data = (f"data.shards={shards}", "data.num_shards=8", "data.record_pairs=50")
    sizes = tuple(f"data.gaussian_process.{item}" for item in ("num_train=600", "num_test=40", "num_modes=20"))
    training = ("train.global_batch=32", "train.num_lanes=4", "train.epochs=1", "train.precision=float64")
    dropping = tuple(
        f"model.{key}" for side in "uv" for key in (f"encoder_{side}=mlp", f"settings_{side}={{dropout: .2}}")
    )
    first = ("train.checkpoint_every=8", "train.log_every=4", *data, *sizes, *training, *dropping)
    return load_config(ROOT / "configs" / "gaussian.yaml", (*first, *overrides))


def follow(shards, overrides, num_steps):
    """Return the losses of the first steps of a session."""
    session = Session(config(shards, "model.settings_u={dropout: 0}", "model.settings_v={dropout: 0}", *overrides), CPU)
    losses, stopping = [], count(1)
    session.config.train.log_every = 1
    session.train(lambda step, scalars: losses.append(scalars["loss"]), nothing, lambda: next(stopping) >= num_steps)
    return losses


@pytest.mark.process
def test_a_session_learns_in_chunks_what_it_learns_at_once(shards, of_two_workers):
    whole = follow(shards, (), 6)
    np.testing.assert_allclose(follow(shards, ("train.chunk_pairs=5",), 6), whole, rtol=0, atol=1e-11)
    np.testing.assert_allclose(of_two_workers[0]["session"], whole, rtol=0, atol=1e-11)


def nothing(*_):
    """Log and report nothing."""


def run(shards, directory, resume_from, *overrides):
    session = Session(config(shards, *overrides), CPU, resume_from)

    def commit(step, scalars, content):
        save_checkpoint(directory / f"checkpoint_{step:08d}", content)

    session.run(directory, commit)
    return session.state.model.state_dict()


COMPILING = pytest.param("train.compile=true", marks=[pytest.mark.slow, pytest.mark.process])


@pytest.mark.parametrize("how", ["train.chunk_pairs=5", "train.recompute=true", COMPILING])
def test_resuming_is_exact(shards, tmp_path, how):
    whole = run(shards, tmp_path, None, how)
    again = run(shards, tmp_path, tmp_path / "checkpoint_00000008", how)
    assert all(torch.equal(again[name], value) for name, value in whole.items())
    assert not all(map(torch.equal, run(shards, tmp_path / "another", None, how, "seed=3").values(), whole.values()))


def test_how_a_gradient_is_computed_is_no_part_of_an_experiment(shards, tmp_path):
    settings = ("train.chunk_pairs=5", "train.recompute=true", "train.compile=true")
    assert experiment(config(shards)) == experiment(config(shards, *settings))
    run(shards, tmp_path, None, "train.chunk_pairs=5")
    run(shards, tmp_path, tmp_path / "checkpoint_00000008", "train.chunk_pairs=7")


def test_a_step_runs_the_compiled_encoders_and_a_held_out_loss_the_plain_ones(shards, tmp_path, monkeypatch):
    sizes = []

    def compiled(encoder, device):
        return lambda items: (sizes.append(len(items)), encoder(items))[1]

    plain = run(shards, tmp_path, None, "train.validate_every=8")
    monkeypatch.setattr("pcl.train.session.compiled", compiled)
    found = run(shards, tmp_path / "compiled", None, "train.validate_every=8", "train.compile=true")
    assert sizes == [32] * 2 * 18
    assert list(found) == list(plain)
    assert all(torch.equal(found[name], value) for name, value in plain.items())


@pytest.mark.slow
@pytest.mark.process
def test_a_large_batch_takes_the_memory_of_a_chunk(mnist_root, tmp_path):
    file, overrides = ROOT / "configs" / "mnist.yaml", [f"data.shards={tmp_path}", f"data.root={mnist_root}"]
    made = load_config(file, overrides)
    build_shards(tmp_path, make_source(made), made.data.num_shards, made.data.record_pairs, data_identity(made))
    overrides += ["train.global_batch=16384", "train.warmup_steps=0"]
    whole, chunks = [], ["train.chunk_pairs=512"]
    (alone,), (small,), both = (measured(file, overrides, ways) for ways in ([whole], [chunks], [whole, chunks]))
    assert small["peak_mib"] < 0.05 * alone["peak_mib"]
    assert both[1]["cpu"] < 1.6 * both[0]["cpu"]


def measured(file, overrides, ways, rounds=3, steps=1):
    """Return the peak memory and the seconds of a step of ways to train, in a process of their own."""
    given = json.dumps([str(file), overrides, ways, rounds, steps])
    command = [sys.executable, "-m", "tests.train.chunk_worker", given]
    return json.loads(subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout)


def test_what_is_not_the_same_in_chunks_is_refused(shards):
    with pytest.raises(BadInputError, match=r"^train.chunk_pairs=-1: it must be at least 0$"):
        config(shards, "train.chunk_pairs=-1")
    register_encoder("normalising", EncoderKind(Normalising))
    register_encoder("remembering", EncoderKind(Remembering))
    own = partial(config, shards, "model.settings_u={}", "train.epochs=1")
    prepare(own("model.encoder_u=normalising"), 1)
    with pytest.raises(BadInputError, match=r"^train.chunk_pairs=4: a BatchNorm1d of the model ties the pairs"):
        prepare(own("model.encoder_u=normalising", "train.chunk_pairs=4"), 1)
    for kind in ("normalising", "remembering"):
        with pytest.raises(BadInputError, match="keeps something of every batch that it sees"):
            Session(own(f"model.encoder_u={kind}", "train.chunk_pairs=4"), CPU).train(nothing, nothing)
