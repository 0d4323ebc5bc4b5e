"""Trainings and evaluations on a GPU, without Ray: the CPU's losses, the same bits again, chunks, retrieval."""

from itertools import islice

import pytest
import torch

from pcl.benchmark.agreement import SPEC
from pcl.config.load import load_config
from pcl.encoders.build import build_model
from pcl.encoders.compiled import compiled
from pcl.evaluation.features import features_of
from pcl.evaluation.parts import Parts
from pcl.evaluation.retrieval import both_ranks
from pcl.library.fit import fit
from pcl.train.clock import Clock
from pcl.train.loop import train_step
from pcl.train.session import Session, same_sums
from tests.conftest import GAUSSIAN

pytestmark = pytest.mark.gpu
NETWORKS = (
    "model.encoder_u=mlp",
    "model.encoder_v=mlp",
    "model.settings_u={widths: [64], dropout: 0.2}",
    "model.settings_v={widths: [64]}",
)


def session(shards, device, *overrides):
    where = f"data.shards={shards}", f"storage={shards.parent}", "train.epochs=1"
    return Session(load_config(GAUSSIAN, [*where, *overrides]), device)


def trained(one, steps=4):
    """Return the losses of the first steps."""
    losses = []
    with same_sums():
        for batch in islice(one.loader.batches(one.state.step), steps):
            given = one.state, batch, one.loss, one.optimisation, one.workers
            losses.append(float(train_step(*given, marginals=one.marginals, augment=one.augment)["loss"]))
    return losses


def weights(one):
    return {name: part.detach().cpu() for name, part in one.state.model.state_dict().items()}


def test_steps_are_those_of_the_cpu(shards, device):
    ours, theirs = (session(shards, where, "train.precision=float64") for where in (device, torch.device("cpu")))
    assert trained(ours) == pytest.approx(trained(theirs), rel=1e-9)
    for part, truth in zip(weights(ours).values(), weights(theirs).values(), strict=True):
        torch.testing.assert_close(part, truth, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("precision", ["float32", "bf16"])
def test_the_same_training_gives_the_same_bits_dropout_too(shards, device, precision):
    one, other = (session(shards, device, *NETWORKS, f"train.precision={precision}") for _ in range(2))
    assert trained(one) == trained(other)
    torch.randn(3, device=device)  # a step draws what follows from the seed and the step
    assert trained(one) == trained(other)
    assert all(torch.equal(*pair) for pair in zip(weights(one).values(), weights(other).values(), strict=True))


def test_chunks_change_no_gradient(shards, device):
    whole, parts = (
        session(shards, device, "train.precision=float64", *more) for more in ((), ("train.chunk_pairs=16",))
    )
    assert trained(parts) == pytest.approx(trained(whole), rel=1e-9)


def test_a_compiled_encoder_is_the_encoder(device):
    encoder = build_model(SPEC).encoder_u.to(device).eval()
    items = torch.randn(32, 64, generator=torch.Generator().manual_seed(0)).to(device)
    torch.testing.assert_close(compiled(encoder, device)(items), encoder(items), rtol=1e-4, atol=1e-5)


def test_features_and_ranks_are_those_of_the_cpu(device):
    generator = torch.Generator().manual_seed(0)
    u, v = (torch.randn(300, 5, generator=generator, dtype=torch.float64) for _ in range(2))
    ids = torch.arange(300)
    expected = both_ranks(u, v, ids, ids)
    found = both_ranks(u, v, ids, ids, parts=Parts(device=device.type))
    assert all(torch.equal(part.cpu(), truth) for part, truth in zip(found, expected, strict=True))
    model = fit(u.numpy(), v.numpy(), epochs=1, show=False, device="cpu")
    here, there = (
        features_of(model, (u.float(), v.float()), 64, Parts(device=where)) for where in ("cpu", device.type)
    )
    for part, truth in zip(there, here, strict=True):
        torch.testing.assert_close(part, truth, rtol=1e-4, atol=1e-5)


def test_fit_learns(device):
    generator = torch.Generator().manual_seed(0)
    v = torch.randn(1000, 2, generator=generator)
    u = v @ torch.randn(2, 3, generator=generator)
    model = fit(u.numpy(), v.numpy(), epochs=10, show=False, device=device)
    learned = model.conditional("u_given_v", u, device=device)
    found = learned.mean(model.features_v(v[:200]).to(device), u.to(device)).cpu()
    assert torch.corrcoef(torch.stack([found.flatten(), u[:200].flatten()]))[0, 1] > 0.8


def test_the_clock_waits_for_the_device(device):
    clock = Clock(device)
    clock.begin_step(True)
    a = torch.randn(2000, 2000, device=device)
    with clock.part("forward"):
        for _ in range(10):
            a = a @ a / 2000
    assert clock.take()["time/forward_ms"] > 0
