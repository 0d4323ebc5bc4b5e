"""Advection against closed forms: the fields of Parcels' own tests, rotation, orders of convergence."""

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pcl.advection import choose_step, convergence, integrate, rk4_step
from pcl.errors import BadInputError

DAY = 86400.0


def points(*rows):
    return torch.tensor(rows, dtype=torch.float64)


def shear(time, x):
    """A smooth field that varies in space and time."""
    return torch.stack([torch.sin(x[..., 1] + time), torch.cos(x[..., 0] - 2 * time)], -1)


def rotation(time, x):
    return torch.stack([-x[..., 1], x[..., 0]], -1)


def test_the_error_falls_as_the_fourth_power_of_the_step():
    start = points([0.3, 0.1], [-1.0, 2.0])
    exact = integrate(shear, start, 0.0, 2.0 / 4096, 4096, 4096)[-1]
    errors = [(integrate(shear, start, 0.0, 2.0 / n, n, n)[-1] - exact).norm().item() for n in (16, 32, 64)]
    slopes = [math.log2(coarse / fine) for coarse, fine in itertools.pairwise(errors)]
    assert slopes == pytest.approx([4, 4], abs=0.15)


def test_solid_body_rotation_returns_and_keeps_its_radius():
    start = points([1.0, 0.0], [0.0, 0.5], [0.0, 0.0])
    path = integrate(rotation, start, 0.0, 2 * math.pi / 1000, 1000, 250)
    assert path.shape == (5, 3, 2)
    quarter = torch.stack([-start[:, 1], start[:, 0]], -1)
    torch.testing.assert_close(path[1], quarter, rtol=0, atol=1e-9)
    torch.testing.assert_close(path[-1], start, rtol=0, atol=1e-9)
    torch.testing.assert_close(path.norm(dim=-1), start.norm(dim=-1).expand(5, 3), rtol=0, atol=1e-11)


@given(st.floats(-2, 2), st.floats(-2, 2), st.floats(-5, 5))
@settings(deadline=None, max_examples=20)
def test_a_path_followed_backward_returns(x, y, start_time):
    start = points([x, y])
    end = integrate(shear, start, start_time, 0.01, 100, 100)[-1]
    back = integrate(shear, end, start_time + 1.0, -0.01, 100, 100)[-1]
    torch.testing.assert_close(back, start, rtol=0, atol=1e-9)


F, U_G, U_0 = 1e-4, 0.04, 0.3  # rad/s, m/s, m/s
GAMMA, GAMMA_G = 1 / (2.89 * DAY), 1 / (28.9 * DAY)


def moving_eddy(time, x):
    turning = U_0 - U_G
    return points([U_G + turning * math.cos(F * time), -turning * math.sin(F * time)]).expand_as(x)


def decaying_eddy(time, x):
    turning = (U_0 - U_G) * math.exp(-GAMMA * time)
    mean = U_G * math.exp(-GAMMA_G * time)
    return points([mean + turning * math.cos(F * time), -turning * math.sin(F * time)]).expand_as(x)


def test_a_moving_eddy():
    start, end_time = points([0.0, 0.0], [1e4, -5e3]), 2 * DAY
    end = integrate(moving_eddy, start, 0.0, 300.0, int(end_time / 300))[-1]
    drift = [U_G * end_time + (U_0 - U_G) / F * math.sin(F * end_time), -(U_0 - U_G) / F * (1 - math.cos(F * end_time))]
    torch.testing.assert_close(end - start, points(drift).expand(2, 2), rtol=1e-7, atol=0)


def test_a_decaying_eddy():
    start, t = points([1e4, 1e4]), 2 * DAY
    end = integrate(decaying_eddy, start, 0.0, 300.0, int(t / 300))[-1]
    factor, decay = (U_0 - U_G) * F / (F**2 + GAMMA**2), math.exp(-GAMMA * t)
    x = U_G / GAMMA_G * (1 - math.exp(-GAMMA_G * t))
    x += factor * (GAMMA / F + decay * (math.sin(F * t) - GAMMA / F * math.cos(F * t)))
    y = -factor * (1 - decay * (math.cos(F * t) + GAMMA / F * math.sin(F * t)))
    torch.testing.assert_close(end - start, points([x, y]), rtol=1e-7, atol=0)


def stommel_psi(x):
    return (1 - torch.exp(-x[..., 0] / 0.05) - x[..., 0]) * torch.sin(math.pi * x[..., 1])


def peninsula_psi(x):
    return x[..., 1] * 0.02 / ((x[..., 0] - 0.5) ** 2 + x[..., 1] ** 2) - x[..., 1]


@pytest.mark.long
@pytest.mark.parametrize(
    ("psi", "start", "duration"),
    [
        (stommel_psi, [[0.1, 0.5], [0.3, 0.3], [0.5, 0.8]], 2.0),
        (peninsula_psi, [[0.0, 0.05], [0.0, 0.1], [0.0, 0.3]], 1.0),
    ],
)
def test_a_steady_streamfunction_is_kept(psi, start, duration):
    def velocity(time, x):
        x = x.detach().requires_grad_()
        (gradient,) = torch.autograd.grad(psi(x).sum(), x)
        return torch.stack([-gradient[..., 1], gradient[..., 0]], -1)

    path = integrate(velocity, points(*start), 0.0, duration / 1000, 1000, 50)
    assert (path - path[0]).norm(dim=-1).amax() > 0.3
    torch.testing.assert_close(psi(path), psi(path[0]).expand(21, 3), rtol=5e-7, atol=0)


def test_records_are_those_of_every_step_thinned_and_the_rest_is_not_followed():
    start = points([0.3, 0.1])
    every = integrate(shear, start, 1.0, 0.1, 7)
    assert every.shape == (8, 1, 2)
    assert torch.equal(integrate(shear, start, 1.0, 0.1, 7, 3), every[[0, 3, 6]])
    assert torch.equal(every[1], rk4_step(shear, 1.0, start, 0.1))
    assert torch.equal(integrate(shear, start, 1.0, 0.1, 0), start[None])


def test_convergence_is_the_error_of_a_step():
    start = points([1.0, 0.0])
    found = convergence(rotation, start, 0.0, 0.1, 20, 5)
    path, angles = integrate(rotation, start, 0.0, 0.1, 20, 5), 0.5 * torch.arange(5, dtype=torch.float64)
    error = (path[:, 0] - torch.stack([angles.cos(), angles.sin()], -1)).norm(dim=-1).amax().item()
    assert found == pytest.approx(error, rel=0.07)


def test_the_step_chosen_is_the_first_that_reaches_the_tolerance():
    start, tolerance = points([0.3, 0.1]), 1e-6
    substeps, found = choose_step(shear, start, 0.0, 0.5, 4, tolerance)
    assert found == convergence(shear, start, 0.0, 0.5 / substeps, 4 * substeps, substeps) <= tolerance
    assert convergence(shear, start, 0.0, 1.0 / substeps, 2 * substeps, substeps // 2) > tolerance
    with pytest.raises(BadInputError, match="with 2 steps between two records"):
        choose_step(shear, start, 0.0, 0.5, 4, 1e-12, max_substeps=2)


def test_impossible_counts_are_refused():
    with pytest.raises(BadInputError, match="at least 0 and 1"):
        integrate(shear, points([0.0, 0.0]), 0.0, 0.1, 3, 0)
