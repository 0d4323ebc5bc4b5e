"""The transformer of paths: its lift against loops, its attention against the formula, and what it refuses."""

import math

import numpy as np
import pytest
import torch

from pcl.errors import BadInputError
from pcl.problems.streamfunction.law import half_plane
from pcl.problems.streamfunction.transformer import (
    FREQUENCY_RATE,
    NUM_WAVES,
    Block,
    PositionLift,
    Transformer,
    VelocityFourierLift,
)

OPTIONS = {"lift": "velocity_fourier", "positions_per_token": 10, "width": 16, "depth": 2, "num_heads": 2}


@pytest.fixture(autouse=True)
def double_precision():
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def test_the_positions_of_a_token_are_its_features():
    paths = torch.arange(24.0).reshape(1, 12, 2)
    tokens = PositionLift(3, 0.1)(paths)
    assert torch.equal(tokens[0, 1], torch.arange(6.0, 12.0))
    assert tokens.shape == (1, 4, 6)


@pytest.mark.parametrize(
    ("positions_per_token", "stride", "num_places", "phases"),
    [(10, 5, 110, False), (4, 1, 188, False), (10, 5, 60, True)],
)
def test_the_velocity_lift_is_that_of_a_loop(positions_per_token, stride, num_places, phases):
    path, time_step = np.random.default_rng(0).normal(size=(40, 2)), 0.1
    lift = VelocityFourierLift(positions_per_token, time_step, num_places, phases=phases)
    frequencies = np.zeros(NUM_WAVES)
    if phases:
        frequencies = np.random.default_rng(1).normal(size=NUM_WAVES)
        lift.moved_frequencies.data.copy_(torch.from_numpy(frequencies / FREQUENCY_RATE))
    x, times = path[stride // 2 :: stride], time_step * np.arange(40)[stride // 2 :: stride]
    w = np.gradient(x, stride * time_step, axis=0) * time_step * 39
    features = []
    for position, velocity, time in zip(x, w, times, strict=True):
        row = [*velocity]
        for wave in (math.cos, math.sin):
            row += [wave(2 * math.pi * k @ position) for k in half_plane(num_places)]
        for wave in (math.cos, math.sin):
            for k, omega in zip(half_plane(NUM_WAVES), frequencies, strict=True):
                across = (-k[1] * velocity[0] + k[0] * velocity[1]) / math.hypot(*k)
                row.append(wave(2 * math.pi * k @ position + omega * time) * across)
        features.append(row)
    wanted = np.array(features).reshape(40 // positions_per_token, positions_per_token // stride, -1).mean(1)
    found = lift(torch.from_numpy(path)[None])[0].detach()
    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-11)


def test_the_velocity_lift_does_not_see_whole_widths_of_the_domain():
    lift, paths = VelocityFourierLift(10, 0.1), torch.rand(2, 50, 2)
    torch.testing.assert_close(lift(paths + torch.tensor([3.0, -2.0])), lift(paths))


def test_attention_is_that_of_the_formula():
    torch.manual_seed(0)
    block, tokens = Block(6, 2), torch.randn(1, 4, 6)
    q, k, v = block.queries_keys_values(block.norm(tokens))[0].split(6, 1)
    heads = []
    for part in (slice(0, 3), slice(3, 6)):
        weights = torch.softmax(q[:, part] @ k[:, part].T / math.sqrt(3), 1)
        heads.append(weights @ v[:, part])
    middle = tokens[0] + block.out(torch.cat(heads, 1))
    torch.testing.assert_close(block(tokens)[0], middle + block.layers(block.norm_after(middle)))


@pytest.mark.parametrize(
    ("lift", "phases"), [("positions", False), ("velocity_fourier", False), ("velocity_fourier", True)]
)
def test_an_embedding_depends_on_every_token_and_reaches_every_parameter(lift, phases):
    encoder = Transformer((50, 2), 7, **OPTIONS | {"lift": lift, "phases": phases}, time_step=0.1)
    paths = torch.rand(3, 50, 2, requires_grad=True)
    embedding = encoder(paths)
    assert embedding.shape == (3, 7)
    embedding.square().sum().backward()
    assert (paths.grad.unflatten(1, (5, 10)).abs().amax((2, 3)) > 0).all()
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in encoder.parameters())
    torch.testing.assert_close(encoder(paths[1:2]), embedding[1:2])
    assert encoder(paths[:0]).shape == (0, 7)


def test_dropout_acts_in_training_only():
    encoder, paths = Transformer((50, 2), 7, **OPTIONS | {"dropout": 0.5}, time_step=0.1), torch.rand(3, 50, 2)
    assert not torch.equal(encoder(paths), encoder(paths))
    encoder.eval()
    assert torch.equal(encoder(paths), encoder(paths))


@pytest.mark.parametrize(
    ("shape", "options", "message"),
    [
        ((50, 3), {}, "takes paths"),
        ((50, 2), {"positions_per_token": 7}, "must divide the 50 positions"),
        ((50, 2), {"num_heads": 3}, "heads must divide the width"),
        ((50, 2), {"depth": 0}, "at least 1"),
        ((50, 2), {"dropout": 1.0}, "less than 1"),
        ((50, 2), {"num_places": 48}, "has 49 wavenumbers"),
        ((50, 2), {"lift": "fourier"}, "choose one of positions, velocity_fourier"),
    ],
)
def test_what_does_not_fit_is_refused(shape, options, message):
    with pytest.raises(BadInputError, match=message):
        Transformer(shape, 7, **OPTIONS | options, time_step=0.1)
