"""The law of flows: velocities against autograd, the design, the scale, divergence and paths."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pcl.errors import BadInputError
from pcl.problems.streamfunction.law import Flow, StreamfunctionLaw, half_plane, waves

LAW = StreamfunctionLaw()


def draw(count, law=LAW, seed=0):
    generator = np.random.default_rng(seed)
    return torch.from_numpy(law.sample(count, generator)), torch.from_numpy(generator.normal(size=(count, 2)))


def psi_by_definition(law, u, x, time):
    """Re sum_k psi_k exp(i omega_k t) exp(2 pi i k.x), mode by mode, for one flow and one position."""
    total = 0.0
    for m, (k, omega) in enumerate(zip(law.wavenumbers, law.frequencies, strict=True)):
        coefficient = torch.complex(u[m], u[m + law.num_modes])
        angle = torch.as_tensor(omega * time) + 2 * math.pi * (k[0] * x[0] + k[1] * x[1])
        total = total + (coefficient * torch.polar(torch.ones_like(angle), angle)).real
    return total


@given(st.integers(1, 150))
@settings(deadline=None, max_examples=30)
def test_the_half_plane_holds_the_nearest_of_each_pair(num_modes):
    found = [tuple(k) for k in half_plane(num_modes)]
    assert len(set(found)) == num_modes
    assert not any((-a, -b) in found or (a, b) == (0, 0) for a, b in found)
    farthest = max(a * a + b * b for a, b in found)
    reach = range(-math.isqrt(farthest) - 1, math.isqrt(farthest) + 2)
    nearer = [(a, b) for a in reach for b in reach if 0 < a * a + b * b < farthest]
    assert all((a, b) in found or (-a, -b) in found for a, b in nearer)


@given(st.floats(-5, 5), st.floats(-5, 5))
@settings(deadline=None, max_examples=30)
def test_waves_are_those_of_the_definition(x, y):
    cosine, sine = waves(torch.from_numpy(LAW.wavenumbers), torch.tensor([[x, y]], dtype=torch.float64))
    angles = 2 * math.pi * LAW.wavenumbers @ np.array([x, y])
    np.testing.assert_allclose(cosine[:, 0], np.cos(angles), rtol=0, atol=1e-12)
    np.testing.assert_allclose(sine[:, 0], np.sin(angles), rtol=0, atol=1e-12)


@pytest.mark.parametrize("num_modes", [1, 2, 5, 49])
def test_velocity_is_j_times_the_gradient_of_the_streamfunction(num_modes):
    law, time = StreamfunctionLaw(num_modes=num_modes), 0.037
    u, x = draw(4, law)
    wanted, values = [], []
    for coefficients, position in zip(u, x, strict=True):
        position = position.clone().requires_grad_()
        psi = psi_by_definition(law, coefficients, position, time)
        (gradient,) = torch.autograd.grad(psi, position)
        wanted.append(torch.stack([-gradient[1], gradient[0]]))
        values.append(psi.detach())
    times = torch.tensor([time], dtype=torch.float64)
    torch.testing.assert_close(Flow(law, u)(time, x), torch.stack(wanted), rtol=1e-11, atol=1e-11)
    torch.testing.assert_close(law.streamfunction(u, x[:, None], times)[:, 0], torch.stack(values))
    design = law.design(x[:, None], times)
    torch.testing.assert_close((design @ u[:, None, :, None])[:, 0, :, 0], torch.stack(wanted), rtol=1e-11, atol=1e-11)


def test_the_design_gives_the_velocities_along_a_path():
    u, _ = draw(2)
    paths = LAW.paths(u)[:, ::100]
    times = LAW.time_step * 100 * torch.arange(paths.shape[1], dtype=torch.float64)
    found = torch.einsum("njik,nk->nji", LAW.design(paths, times), u)
    flow = Flow(LAW, u)
    wanted = torch.stack([flow(time.item(), paths[:, j]) for j, time in enumerate(times)], 1)
    torch.testing.assert_close(found, wanted, rtol=1e-10, atol=1e-9)


def test_the_flow_does_not_diverge():
    u, x = draw(3)
    x = x[:, None].requires_grad_()
    velocity = torch.einsum("njik,nk->nji", LAW.design(x, torch.tensor([0.02], dtype=torch.float64)), u)
    (first,) = torch.autograd.grad(velocity[..., 0].sum(), x, retain_graph=True)
    (second,) = torch.autograd.grad(velocity[..., 1].sum(), x)
    torch.testing.assert_close(
        first[..., 0] + second[..., 1], torch.zeros(3, 1, dtype=torch.float64), atol=1e-9, rtol=0
    )


@pytest.mark.parametrize("num_modes", [1, 8])
def test_the_scale_makes_the_mean_speed_of_a_fixed_point_exact(num_modes):
    law = StreamfunctionLaw(num_modes=num_modes, mean_path=2.0, duration=0.5)
    u = torch.from_numpy(law.sample(200_000, np.random.default_rng(1)))
    design = law.design(torch.tensor([[0.2, 0.7]], dtype=torch.float64), torch.tensor([0.1], dtype=torch.float64))[0]
    speed = (u @ design.T).norm(dim=1)
    wanted = law.mean_path / law.duration
    assert speed.mean().item() == pytest.approx(wanted, abs=4 * speed.std().item() / math.sqrt(len(u)))
    ratio = law.standard_deviations / np.tile(np.linalg.norm(law.wavenumbers, axis=1) ** -law.decay, 2)
    np.testing.assert_allclose(ratio, ratio[0], rtol=1e-12)


def test_paths_have_the_mean_length():
    law = StreamfunctionLaw(num_modes=8, num_positions=101, mean_path=1.0)
    u = torch.from_numpy(law.sample(1500, np.random.default_rng(2)))
    length = law.paths(u).diff(dim=1).norm(dim=-1).sum(1)
    assert length.mean().item() == pytest.approx(1.0, abs=4 * length.std().item() / math.sqrt(len(u)))


def test_a_path_of_a_steady_flow_keeps_the_streamfunction():
    law = StreamfunctionLaw(frequency_std=0.0, mean_path=1.0)
    u, _ = draw(3, law)
    psi = law.streamfunction(u, law.paths(u)[:, ::37], torch.zeros(28, dtype=torch.float64))
    torch.testing.assert_close(psi, psi[:, :1].expand_as(psi), rtol=0, atol=1e-6)


def test_substeps_are_as_few_as_the_tolerance_allows_and_help():
    law = StreamfunctionLaw(num_modes=8, num_positions=11, mean_path=0.25)
    substeps, found = law.choose_substeps(1e-5, num_flows=16)
    assert found <= 1e-5
    assert law.choose_substeps(found / 2, num_flows=16)[0] > substeps
    u, _ = draw(5, law)
    paths = law.paths(u, substeps)
    assert torch.equal(paths[:, 0], torch.full((5, 2), 0.75, dtype=torch.float64))
    assert (paths - law.paths(u, 8 * substeps)).abs().max() < 1e-4


def test_a_law_is_its_numbers():
    again = StreamfunctionLaw(start=[0.75, 0.75])
    assert np.array_equal(again.frequencies, LAW.frequencies)
    assert LAW.frequencies.std() == pytest.approx(2 * math.pi, rel=0.3)
    assert not np.array_equal(StreamfunctionLaw(law_seed=1).frequencies, LAW.frequencies)


@pytest.mark.parametrize(
    "wrong",
    [
        {"num_modes": 0},
        {"num_positions": 1},
        {"start": [0.0]},
        {"mean_path": 0.0},
        {"duration": -1.0},
        {"frequency_std": math.inf},
        {"decay": math.nan},
        {"law_seed": -1},
    ],
)
def test_impossible_numbers_are_refused(wrong):
    with pytest.raises(BadInputError, match=next(iter(wrong))):
        StreamfunctionLaw(**wrong)
