"""Baselines against brute force, a Gaussian process written out, and fields in which the answer is known."""

import math

import numpy as np
import pytest
import torch

from pcl.problems.ocean.evaluation.baselines import (
    Measurements,
    OptimalInterpolation,
    climatology,
    measure,
    nearest_track_analog,
    random_analog,
)
from pcl.problems.ocean.evaluation.fields import Estimate
from pcl.problems.ocean.evaluation.interpolation import interpolate
from pcl.problems.ocean.evaluation.windows import Geometry

DAY = 86400.0
AXIS = 10 + 0.25 * torch.arange(20, dtype=torch.float64)
GEOMETRY = Geometry(AXIS, AXIS, 8, 8, DAY * torch.arange(4, dtype=torch.float64), (0.25, 0.25), 21600.0, "standard")


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def some_measurements(number=9, seed=0):
    generator = torch.Generator().manual_seed(seed)
    place = 1.4 * (torch.rand(number, 2, generator=generator, dtype=torch.float64) - 0.5)
    return Measurements(normal(number, 2, seed=seed), place, 3 * DAY * torch.rand(number, generator=generator).double())


def test_climatology_is_the_mean_over_water():
    windows = normal(6, 2, 4, 3, 3)
    windows[:, :, :, 0, 0] = torch.nan
    windows[2, :, :, 1, 1] = torch.nan
    found = climatology(windows, 5, torch.Generator().manual_seed(0))
    mean, std = (np.nanmean(windows[..., 1:].numpy(), 0), np.nanstd(windows[..., 1:].numpy(), 0))
    np.testing.assert_allclose(found.mean[..., 1:], mean)
    np.testing.assert_allclose(found.std[..., 1:], std, atol=1e-12)
    assert torch.isnan(found.mean[:, :, 0, 0]).all()
    assert all(any(torch.equal(m.nan_to_num(), w.nan_to_num()) for w in windows) for m in found.members)


def test_a_random_analog_is_a_window():
    windows = normal(6, 2, 4, 3, 3)
    generator = torch.Generator().manual_seed(0)
    drawn = {int((windows == random_analog(windows, generator).mean).flatten(1).all(1).nonzero()) for _ in range(100)}
    assert drawn == set(range(6))


def test_the_nearest_analog_is_that_of_a_loop():
    windows, seen = normal(12, 2, 4, 8, 8), some_measurements()
    distances = []
    for window in windows.numpy():
        total = 0.0
        for velocity, (east, north), time in zip(*(x.numpy() for x in vars(seen).values()), strict=True):
            where = (time / DAY, north / 0.25 + 3.5, east / 0.25 + 3.5)
            for component in range(2):
                value = sum(
                    window[component, t, i, j]
                    * math.prod(max(0, 1 - abs(a - b)) for a, b in zip(where, (t, i, j), strict=True))
                    for t in range(4)
                    for i in range(8)
                    for j in range(8)
                )
                total += (value - velocity[component]) ** 2
        distances.append(total)
    found = nearest_track_analog(windows, seen, GEOMETRY)
    assert torch.equal(found.mean, windows[int(np.argmin(distances))])


def test_the_nearest_analog_finds_the_field_that_moved_the_drifters():
    windows, seen = normal(30, 2, 4, 8, 8), some_measurements()
    index = GEOMETRY.index(seen.time_s, seen.place[:, 0], seen.place[:, 1])
    exact = Measurements(interpolate(windows[17:18], index[None])[0].T, seen.place, seen.time_s)
    assert torch.equal(nearest_track_analog(windows, exact, GEOMETRY).mean, windows[17])


def test_an_analog_without_water_under_the_drifters_is_none():
    windows, seen = normal(3, 2, 4, 8, 8), some_measurements()
    index = GEOMETRY.index(seen.time_s, seen.place[:, 0], seen.place[:, 1])
    exact = Measurements(interpolate(windows[1:2], index[None])[0].T, seen.place, seen.time_s)
    dry = torch.cat([windows[:1], torch.full_like(windows[:1], torch.nan), windows[1:]])
    assert torch.equal(nearest_track_analog(dry, exact, GEOMETRY).mean, windows[1])


def test_interpolation_leaves_land_out_and_keeps_to_the_edge():
    fields = torch.ones(1, 1, 1, 2, 3)
    fields[..., 0] = torch.nan
    index = torch.tensor([[[0.0, 0.5, 0.9], [0.0, 0.5, 9.0], [0.0, -4.0, 0.0]]])
    found = interpolate(fields, index)[0, 0]
    assert found[:2].tolist() == [1, 1]
    assert torch.isnan(found[2])


def prior(std=0.3):
    return Estimate(0.1 * normal(2, 4, 8, 8, seed=5), torch.full((2, 4, 8, 8), std, dtype=torch.float64))


def test_optimal_interpolation_is_the_textbook_gaussian_process():
    """The covariance by automatic differentiation of that of the streamfunction; the posterior by an inverse."""
    method, seen, before = OptimalInterpolation(60.0, 5.0, 0.2), some_measurements(), prior()
    found = method.estimate(before, seen, GEOMETRY, latitude=12.0)
    km = np.array([111.12 * math.cos(math.radians(12.0)), 111.12])
    where = [(*(place.numpy() * km), time / DAY) for place, time in zip(seen.place, seen.time_s.tolist(), strict=True)]
    point = (2, 5, 1)  # time, row, column
    target = ((point[2] - 3.5) * 0.25 * km[0], (point[1] - 3.5) * 0.25 * km[1], float(point[0]))

    def psi(a, b):
        squares = ((a[0] - b[0]) ** 2 + (a[1] - b[1]) ** 2) / 60**2 + (a[2] - b[2]) ** 2 / 5**2
        return 60**2 * torch.exp(-squares / 2)

    def covariance(a, b):
        a, b = torch.tensor(a).double(), torch.tensor(b).double()
        hessian = torch.func.jacrev(torch.func.grad(psi, 0), 1)(a, b)[:2, :2]
        turn = torch.tensor([[0.0, -1.0], [1.0, 0.0]]).double()  # u = -d psi/dy, v = d psi/dx
        return (turn @ hessian @ turn.T).numpy()

    among = np.block([[covariance(a, b) for b in where] for a in where]) + 0.2 * np.eye(2 * len(where))
    towards = np.block([[covariance(target, b) for b in where]])
    index = GEOMETRY.index(seen.time_s, seen.place[:, 0], seen.place[:, 1])
    anomaly = (seen.velocity - interpolate(before.mean[None], index[None])[0].T).numpy().ravel()
    mean = before.mean[:, *point].numpy() + towards @ np.linalg.inv(among) @ anomaly
    variance = 0.3**2 * (1 - np.diag(towards @ np.linalg.inv(among) @ towards.T))
    np.testing.assert_allclose(found.mean[:, *point], mean, rtol=1e-8)
    np.testing.assert_allclose(found.std[:, *point] ** 2, variance, rtol=1e-8)


def test_optimal_interpolation_without_measurements_is_the_prior():
    nothing = Measurements(torch.zeros(0, 2).double(), torch.zeros(0, 2).double(), torch.zeros(0).double())
    found = OptimalInterpolation().estimate(prior(), nothing, GEOMETRY, 12.0)
    torch.testing.assert_close(found.mean, prior().mean)
    torch.testing.assert_close(found.std, prior().std)


def test_its_anomaly_has_no_divergence():
    km = 111.12 * 0.25
    still = Estimate(torch.zeros(2, 4, 8, 8).double(), prior().std)
    u, v = OptimalInterpolation(80.0, 5.0, 0.1).estimate(still, some_measurements(), GEOMETRY, 0.0).mean
    divergence = (u[:, 1:-1, 2:] - u[:, 1:-1, :-2] + v[:, 2:, 1:-1] - v[:, :-2, 1:-1]) / (2 * km)
    vorticity = (v[:, 1:-1, 2:] - v[:, 1:-1, :-2] - u[:, 2:, 1:-1] + u[:, :-2, 1:-1]) / (2 * km)
    assert divergence.abs().max() < 0.05 * vorticity.abs().max()  # of centred differences


def test_members_have_the_mean_and_the_spread():
    found = OptimalInterpolation().estimate(
        prior(), some_measurements(), GEOMETRY, 12.0, 4000, torch.Generator().manual_seed(0)
    )
    torch.testing.assert_close(found.members.mean(0), found.mean, rtol=0, atol=0.03)
    torch.testing.assert_close(found.members.std(0), found.std, rtol=0.1, atol=1e-3)


def test_scales_are_found_again():
    """Fields drawn from the prior with one length: tuning chooses it among three."""
    grid = torch.cartesian_prod(*[torch.arange(n, dtype=torch.float64) for n in (4, 8, 8)])
    points = torch.stack([grid[:, 2] * 27.78, grid[:, 1] * 27.78, grid[:, 0]], 1)
    truth_method = OptimalInterpolation(70.0, 4.0, 0.01)
    covariance = truth_method.covariance(points, points).reshape(512, 512) + 1e-8 * torch.eye(512)
    root = torch.linalg.cholesky(covariance)
    area, unit = torch.ones(1, 1, 1, 1).double(), Estimate(torch.zeros(2, 4, 8, 8).double(), prior(1.0).std)
    examples = []
    for seed in range(12):
        truth = (root @ normal(512, seed=seed)).reshape(2, 4, 8, 8)
        seen = some_measurements(20, seed)
        index = GEOMETRY.index(seen.time_s, seen.place[:, 0], seen.place[:, 1])
        seen = Measurements(interpolate(truth[None], index[None])[0].T, seen.place, seen.time_s)
        examples.append((truth, area, unit, seen, 0.0))
    found = OptimalInterpolation.tune(examples, GEOMETRY, (25.0, 70.0, 200.0), (4.0,), (0.01, 1.0))
    assert (found.length_km, found.noise) == (70.0, 0.01)


def test_measurements_lie_within_the_tile_and_are_means_over_pieces():
    drifters = torch.zeros(3, 13, 4)
    drifters[..., 0] = 0.05 * torch.arange(13)
    drifters[1, 5:] = torch.nan
    drifters[2, :, 1] = 3.0  # beyond the tile
    found = measure(drifters, GEOMETRY, every_s=2 * 21600.0)
    assert len(found.velocity) == 6 + 2
    torch.testing.assert_close(
        found.velocity[:, 0], torch.full((8,), 0.05 * 111120 / 21600).double(), rtol=1e-5, atol=0
    )
    assert found.time_s[:6].tolist() == [(2 * i + 1) * 21600.0 for i in range(6)]
    assert found.place[:6, 0].tolist() == pytest.approx([0.1 * i + 0.05 for i in range(6)], abs=1e-6)
