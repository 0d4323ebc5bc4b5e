"""One step at a time: schedule, clipping, decay, mixed precision and bounds of the temperature."""

import math
from itertools import pairwise

import pytest
import torch

from pcl.encoders.build import build_model
from pcl.objective import make_loss
from pcl.train.clock import Clock
from pcl.train.loop import Optimisation, TrainingState, learning_rate_factor, make_optimizer, train, train_step
from pcl.workers import OneWorker

SPEC = {
    "embedding_dim": 4,
    "encoder_u": {"kind": "linear", "shape": [6]},
    "encoder_v": {"kind": "linear", "shape": [6]},
    "tilting": "squared_distance",
    "temperature": {"initial": 0.5, "learned": True, "minimum": 0.4, "maximum": 0.6},
    "dtype": "float32",
}


def step(optimisation, batch, spec=SPEC):
    model = build_model(spec, seed=0)
    state = TrainingState(model, make_optimizer(model, optimisation))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    return state, before, train_step(state, batch, make_loss("conditional"), optimisation, OneWorker())


@pytest.fixture
def batch():
    generator = torch.Generator().manual_seed(0)
    return torch.randn(32, 6, generator=generator), torch.randn(32, 6, generator=generator)


def test_schedule_warms_up_and_ends_at_the_final_factor():
    optimisation = Optimisation(num_steps=100, learning_rate=1.0, warmup_steps=10, final_factor=0.1)
    factors = [learning_rate_factor(i, optimisation) for i in range(101)]
    assert factors[:10] == pytest.approx([(i + 1) / 10 for i in range(10)])
    assert factors[55] == pytest.approx(0.1 + 0.9 * (1 + math.cos(math.pi * 45 / 90)) / 2)
    assert factors[100] == pytest.approx(0.1)
    assert all(later <= earlier for earlier, later in pairwise(factors[10:]))


def test_the_gradient_is_clipped_and_its_norm_reported(batch):
    clipped, _, diagnostics = step(Optimisation(10, 0.1, gradient_clip=1e-3), batch)
    free, _, unclipped = step(Optimisation(10, 0.1), batch)
    norms = [torch.stack([p.grad.norm() for p in state.model.parameters()]).norm().item() for state in (clipped, free)]
    assert norms[0] == pytest.approx(1e-3, rel=1e-3)
    assert diagnostics["gradient_norm"].item() == pytest.approx(norms[1], rel=1e-5)
    assert unclipped["gradient_norm"].item() == pytest.approx(norms[1], rel=1e-5)


def test_a_learned_temperature_stays_between_its_bounds(batch):
    state, _, _ = step(Optimisation(10, 10.0, schedule="constant"), batch)
    assert state.model.temperature().item() in (pytest.approx(0.4), pytest.approx(0.6))


def test_bf16_is_for_the_encoders_only():
    spec = SPEC | {"tilting": "squared_distance"}
    same = torch.randn(32, 6, generator=torch.Generator().manual_seed(1)) * 10
    model = build_model(spec, seed=0)
    model.encoder_v.load_state_dict(model.encoder_u.state_dict())
    optimisation = Optimisation(10, 1e-9, bf16=True)
    state = TrainingState(model, make_optimizer(model, optimisation))
    diagnostics = train_step(state, (same, same), make_loss("conditional"), optimisation, OneWorker())
    assert abs(diagnostics["positive_score"].item()) < 1e-3  # -|z - z|^2 / 2, were it not for bf16 squares
    assert all(p.dtype == torch.float32 for p in model.parameters())


def test_steps_are_reproducible_and_leave_no_queue_of_seeds(batch):
    first, before, _ = step(Optimisation(10, 0.1), batch)
    again, _, _ = step(Optimisation(10, 0.1), batch)
    for name, value in first.model.state_dict().items():
        assert torch.equal(value, again.model.state_dict()[name])
    assert not torch.equal(before["encoder_u.1.map.weight"], first.model.encoder_u[1].map.weight)


def test_the_speed_is_by_the_clock_and_counts_what_comes_between_two_points(batch):
    now, logged = [0.0], []

    def batches():
        while True:
            now[0] += 1.0  # a step takes a second
            yield batch

    def pause(seconds):
        return lambda *_: now.__setitem__(0, now[0] + seconds)

    model = build_model(SPEC)
    optimisation = Optimisation(num_steps=8, learning_rate=0.01)
    train(
        TrainingState(model, make_optimizer(model, optimisation)),
        batches(),
        make_loss("conditional"),
        optimisation,
        workers=OneWorker(),
        global_batch=60,
        log_every=2,
        checkpoint_every=4,
        log=lambda step, scalars: (logged.append((step, scalars)), pause(0.5)()),
        report=pause(3.5),
        clock=Clock(now=lambda: now[0]),
    )
    speeds = [60 * 2 / 2.0, 60 * 2 / 2.5, 60 * 2 / (2.5 + 3.5), 60 * 2 / 2.5]
    assert [step for step, _ in logged] == [2, 4, 6, 8]
    assert [scalars["pairs_per_second"] for _, scalars in logged] == pytest.approx(speeds)
    assert [scalars["checkpoint_ms"] for _, scalars in logged] == [0, 0, 3500, 0]


def test_a_loss_that_is_not_finite_ends_the_training_with_the_step(batch):
    u, v = batch
    batches = [(u, v), (u, v.clone().fill_(math.nan))]
    optimisation = Optimisation(2, 0.1)
    model = build_model(SPEC, seed=0)
    state = TrainingState(model, make_optimizer(model, optimisation))
    options = {"workers": OneWorker(), "global_batch": 32, "log_every": 1, "checkpoint_every": 1}
    quiet = {"log": lambda *_: None, "report": lambda *_: None}
    with pytest.raises(FloatingPointError, match=r"step 2: the loss is nan: .*lower the learning rate"):
        train(state, batches, make_loss("conditional"), optimisation, **options, **quiet)
    assert all(torch.isfinite(p).all() for p in model.parameters())
