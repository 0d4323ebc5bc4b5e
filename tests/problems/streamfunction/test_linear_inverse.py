"""The encoder that knows the physics: against least squares, against the truth, and its gradient."""

import numpy as np
import pytest
import torch

from pcl.encoders import make_encoder
from pcl.errors import BadInputError
from pcl.problems.streamfunction.law import StreamfunctionLaw
from pcl.problems.streamfunction.linear_inverse import LinearInverse, oracle

LAW = {"num_modes": 8, "num_positions": 201, "mean_path": 3.0}
TIME_STEP = StreamfunctionLaw(**LAW).time_step


@pytest.fixture
def double_precision():
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def pairs(count, seed=0):
    law = StreamfunctionLaw(**LAW)
    u = torch.from_numpy(law.sample(count, np.random.default_rng(seed)))
    return law, u, law.paths(u, 4)


def encoder(**options):
    given = {"position_stride": 1, "noise": 0.01, "learned_map": "none", "time_step": TIME_STEP, "law": LAW}
    return LinearInverse((201, 2), options.pop("embedding_dim", 16), **given | options)


@pytest.mark.usefixtures("double_precision")
@pytest.mark.parametrize(("stride", "noise"), [(1, 0.5), (3, 0.05)])
def test_it_solves_the_augmented_least_squares_problem(stride, noise):
    law, _, paths = pairs(3)
    found = encoder(position_stride=stride, noise=noise, whiten=False)(paths)
    for x, u in zip(paths, found, strict=True):
        used = slice(2, -2, stride)
        velocities = (x[:-4] - 8 * x[1:-3] + 8 * x[3:-1] - x[4:]) / (12 * TIME_STEP)
        times = TIME_STEP * torch.arange(201)[used]
        design = law.design(x[used], times).reshape(-1, 16).numpy()
        rows = np.concatenate([design / noise, np.diag(1 / law.standard_deviations)])
        right = np.concatenate([velocities[::stride].reshape(-1).numpy() / noise, np.zeros(16)])
        wanted = np.linalg.lstsq(rows, right, rcond=None)[0]
        np.testing.assert_allclose(u, wanted, rtol=1e-6, atol=1e-8)


@pytest.mark.usefixtures("double_precision")
def test_it_finds_the_coefficients_of_dense_paths_without_noise():
    law, u, paths = pairs(20)
    error = encoder(noise=1e-3)(paths) - u / torch.from_numpy(law.standard_deviations)
    assert error.square().mean(1).median() < 1e-4


def test_rounding_of_stored_positions_does_little_harm():
    law, u, paths = pairs(20)
    stored = encoder(noise=1e-2)(paths.float())
    assert stored.dtype == torch.float32
    error = stored - u / torch.from_numpy(law.standard_deviations)
    assert error.square().mean(1).median() < 1e-3


@pytest.mark.usefixtures("double_precision")
def test_its_gradient_is_that_of_finite_differences():
    law = {"num_modes": 2, "num_positions": 9}
    network = LinearInverse((9, 2), 4, noise=1.0, time_step=0.0125, law=law)
    paths = StreamfunctionLaw(**law).paths(torch.randn(2, 4, generator=torch.Generator().manual_seed(0)))
    assert torch.autograd.gradcheck(network, paths.requires_grad_(), eps=1e-7, atol=1e-4)


@pytest.mark.usefixtures("double_precision")
@pytest.mark.parametrize("learned_map", ["linear", "mlp"])
def test_a_learned_map_starts_at_the_oracle_and_can_learn(learned_map):
    _, _, paths = pairs(4)
    network = encoder(learned_map=learned_map)
    torch.testing.assert_close(network(paths), encoder()(paths))
    network(paths).square().sum().backward()
    assert all(parameter.grad is not None for parameter in network.parameters())
    assert encoder(learned_map=learned_map, embedding_dim=5)(paths).shape == (4, 5)


def test_the_oracle_is_that_encoder_without_parameters():
    source = {"law": LAW, "time_step": TIME_STEP}
    _, _, paths = pairs(3)
    wanted = encoder(position_stride=2, noise=0.1)(paths)
    assert torch.equal(oracle(source, position_stride=2, noise=0.1)(paths), wanted)
    assert not list(oracle(source).parameters())
    options = {"position_stride": 2, "noise": 0.1, "whiten": True, "learned_map": "none"}
    by_name = make_encoder("linear_inverse", (201, 2), 16, **options, time_step=TIME_STEP, law=LAW)
    torch.testing.assert_close(by_name(paths.float()), wanted.float(), rtol=0.05, atol=0.05)
    assert by_name(paths[:0].float()).shape == (0, 16)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"embedding_dim": 5}, "has 16 coefficients but model.embedding_dim is 5"),
        ({"position_stride": 0}, "position_stride=0"),
        ({"noise": 0.0}, "noise=0.0"),
    ],
)
def test_what_does_not_fit_is_refused(options, message):
    with pytest.raises(BadInputError, match=message):
        encoder(**options)


def test_a_path_must_be_long_enough():
    with pytest.raises(BadInputError, match="takes paths"):
        LinearInverse((4, 2), 16, noise=0.1, time_step=0.1, law=LAW)
