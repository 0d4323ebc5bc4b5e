"""Archives of a known law: their covariance, and what is learned from them, comes out within its error."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from pcl.config.identity import data_identity
from pcl.config.load import load_config
from pcl.data.shards import build_all
from pcl.problems.ocean.evaluation.drift import drift
from pcl.problems.ocean.evaluation.member_drift import inside_region
from pcl.problems.ocean.evaluation.windows import Geometry
from pcl.problems.ocean.prior.kernel import CurrentKernel, Points
from pcl.problems.ocean.prior.posterior import Measured, Posterior
from pcl.problems.ocean.reanalysis import open_currents
from pcl.train.parts import make_source
from pcl.train.session import Session
from tests.problems.ocean.archives import DAY_S
from tests.problems.ocean.known_law import (
    KM_PER_DEGREE,
    LAW,
    Component,
    amplitude,
    kernel_of,
    unit_currents,
    write_known_law,
)
from tests.typed import ROOT


def test_the_archive_is_read_as_the_currents_that_were_drawn(tmp_path):
    path = write_known_law(tmp_path / "known.nc", days=6, size=9, hours=12, seed=5)
    found = open_currents([str(path)])
    assert found.wet.all()
    assert np.diff(found.time_s).tolist() == [43_200.0] * 11
    axis = 0.25 * (np.arange(9) - 4)
    generator = np.random.default_rng(5)
    wanted = unit_currents(LAW, np.arange(12) / 2, KM_PER_DEGREE * axis, KM_PER_DEGREE * axis, generator)
    loaded = found.load(slice(0, 12), slice(0, 9), slice(0, 9))
    np.testing.assert_allclose(loaded, wanted * amplitude(axis, axis), rtol=1e-5, atol=1e-7)


def test_the_covariance_of_the_archive_is_that_of_the_kernel():
    """Means over many places of products of currents, against the kernel, and its draws too."""
    axis, time, kernel = 28.0 * np.arange(31), 2.0 * np.arange(250), kernel_of()
    currents = unit_currents(LAW, time, axis, axis, np.random.default_rng(0))
    one = torch.ones(1, dtype=torch.float64)
    for steps, rows, columns in ((0, 0, 0), (0, 0, 2), (0, 3, 0), (0, 2, 2), (1, 0, -2), (1, 0, 2), (3, 1, 1)):
        east = slice(max(0, -columns), len(axis) - max(columns, 0)), slice(max(0, columns), len(axis) + min(columns, 0))
        first = currents[:, : len(time) - steps, : len(axis) - rows, east[0]]
        second = currents[:, steps:, rows:, east[1]]
        found = np.einsum("atyx,btyx->ab", first, second) / first[0].size
        apart = torch.tensor([[columns * 28.0, rows * 28.0, steps * 2.0]], dtype=torch.float64)
        wanted = kernel(Points(0 * apart, one), Points(apart, one)).detach().reshape(2, 2)
        np.testing.assert_allclose(found, wanted, atol=0.07)


@pytest.mark.long
def test_the_learned_law_is_the_true_one_within_its_error():
    """The most likely parameters of windows, from where learning starts; errors by the curvature of the likelihood."""
    generator, places, currents = np.random.default_rng(1), [], []
    axis, time = 28.0 * np.arange(10), 2.0 * np.arange(4)
    for _ in range(32):
        k, i, j = generator.integers([[4], [10], [10]], size=(3, 40))
        values = unit_currents(LAW, time, axis, axis, generator)[:, k, i, j] + 0.05 * generator.normal(size=(2, 40))
        places.append(torch.tensor(np.stack([axis[j], axis[i], time[k]], 1)))
        currents.append(torch.tensor(values.reshape(80)))
    windows, one = (torch.stack(places), torch.stack(currents)), torch.ones(40, dtype=torch.float64)

    kernel = CurrentKernel()
    names = [name for name, _ in kernel.named_parameters() if name != "exponent"]  # amplitudes are one
    shapes = [getattr(kernel, name).shape for name in names]

    def flat(of):
        return torch.cat([getattr(of, name).detach().reshape(-1) for name in names])

    def surprise(values):
        parts = torch.split(values, [math.prod(shape) for shape in shapes])
        chosen = {name: part.reshape(shape) for name, part, shape in zip(names, parts, shapes, strict=True)}
        noise = (2 * chosen["log_noise"]).exp() * torch.eye(80, dtype=torch.float64)

        def covariance(place):
            points = Points(place, one)
            return torch.func.functional_call(kernel, chosen, (points, points)).reshape(80, 80) + noise

        law = torch.distributions.MultivariateNormal(torch.zeros(80).double(), torch.vmap(covariance)(windows[0]))
        return -law.log_prob(windows[1]).sum()

    values = flat(kernel).requires_grad_()
    steps = torch.optim.LBFGS([values], max_iter=80, line_search_fn="strong_wolfe")

    def closure():
        steps.zero_grad()
        loss = surprise(values)
        loss.backward()
        return loss

    steps.step(closure)
    truth = kernel_of()
    truth.log_noise.data.fill_(math.log(0.05))
    wanted = flat(truth)
    assert surprise(values.detach()) < surprise(wanted)
    error = torch.linalg.inv(torch.autograd.functional.hessian(surprise, values.detach())).diagonal().sqrt()
    away = (values.detach() - wanted) / error
    assert away.abs().max() < 4
    assert away.square().mean() < 2
    assert error[:4].max() < 0.25  # lengths of the streamfunctions are known


def square(days=5, size=12, cell=0.25):
    """Geometry of windows around the equator, and the km and days of their points, shape (T H W, 3)."""
    axis, time = cell * (torch.arange(size) - (size - 1) / 2).double(), torch.arange(days).double()
    geometry = Geometry(axis, axis, size, size, DAY_S * time, (cell, cell), DAY_S / 4, "standard")
    t, y, x = torch.meshgrid(time, KM_PER_DEGREE * axis, KM_PER_DEGREE * axis, indexing="ij")
    return geometry, torch.stack([x.flatten(), y.flatten(), t.flatten()], 1)


@pytest.mark.long
def test_drifters_end_in_the_region_of_their_members_nine_times_of_ten():
    """The truth is drawn apart, members given ten measurements of it; both are followed on the grid of a window."""
    (geometry, place), kernel, size = square(), kernel_of(), 0.25
    kernel.log_noise.data.fill_(math.log(0.05 * 4))  # of the amplitude
    generator, draws = np.random.default_rng(3), torch.Generator().manual_seed(3)
    grid = Points(place, torch.full((len(place),), size, dtype=torch.float64))
    start = torch.tensor([[-0.6, -0.6], [0.6, -0.5], [0.0, 0.6]], dtype=torch.float64)
    origins, axis = torch.zeros(20, 6, dtype=torch.float64), KM_PER_DEGREE * geometry.latitude.numpy()
    inside, moved, spread = [], [], []
    for _ in range(100):
        truth = size * torch.from_numpy(unit_currents(LAW, np.arange(5.0), axis, axis, generator))
        seen = torch.from_numpy(generator.choice(len(place), 10, replace=False))
        anomaly = truth.reshape(2, -1)[:, seen] + 0.05 * torch.from_numpy(generator.normal(size=(2, 10)))
        posterior = Posterior(kernel, Measured(grid[seen], anomaly, kernel.noise_variance(grid[seen])))
        members = posterior.members(grid, 19, draws).reshape(19, *truth.shape)
        paths = drift(torch.cat([truth[None], members]), origins, geometry, start)[:, :, -1] * KM_PER_DEGREE
        inside.append(inside_region(paths[1:].transpose(0, 1), paths[0]))
        moved.append((paths[0] - KM_PER_DEGREE * start).norm(dim=-1))
        spread.append(paths[1:].std(0).mean())
    assert torch.cat(moved).mean() > 40
    assert torch.stack(spread).mean() > 10
    assert 0.87 <= torch.cat(inside).double().mean() <= 0.93


def correlations(kernel):
    """Correlations of both components at places 50 to 200 km and up to five days apart, shape (n, 2)."""
    one = torch.ones(1, dtype=torch.float64)
    apart = [
        (50.0, 0.0, 0.0),
        (100.0, 0.0, 0.0),
        (200.0, 0.0, 0.0),
        (0.0, 0.0, 3.0),
        (-40.0, 0.0, 5.0),
        (40.0, 0.0, 5.0),
    ]
    found = []
    for lag in apart:
        points = Points(torch.tensor([lag], dtype=torch.float64), one), Points(torch.zeros(1, 3).double(), one)
        found.append(kernel(*points).detach()[:, 0, :, 0].diagonal() / kernel.variance(points[0]).detach()[:, 0])
    return torch.stack(found)


WIDE = (
    Component("streamfunction", (95.0, 95.0), 4.0, 0.8, (-8.0, 0.0)),
    Component("streamfunction", (190.0, 190.0), 8.0, 0.1),
    Component("potential", (80.0, 80.0), 4.0, 0.1),
)


@pytest.mark.long
def test_training_learns_the_correlations_of_the_law(tmp_path):
    """From files to the prior, as anybody trains it, from drifters and the rest of their windows."""
    path = write_known_law(tmp_path / "wide.nc", law=WIDE, days=160, size=20)
    chosen = {
        "data.ocean.paths": f"[{path}]",
        "data.shards": tmp_path / "shards",
        "data.num_shards": 4,
        "data.record_pairs": 4,
        "data.ocean.tile_points": 12,
        "data.ocean.tile_stride": 8,
        "data.ocean.window_steps": 5,
        "data.ocean.gap_days": 15,
        "data.ocean.window_stride": 4,
        "train.epochs": 3,
        "data.ocean.drifters.step_s": 21_600,
        "loss.settings.num_points": 40,
    }
    config = load_config(ROOT / "configs" / "ocean.yaml", [f"{key}={value}" for key, value in chosen.items()])
    data = config.data
    build_all(Path(data.shards), make_source(config), data_identity(config), data.num_shards, data.record_pairs)
    session = Session(config, torch.device("cpu"))
    prior = session.state.model.encoder_v[-1].prior
    truth, before = correlations(kernel_of(WIDE)), correlations(prior.kernel)
    session.train(lambda step, scalars: None, lambda state, scalars: None)
    away = (correlations(prior.kernel) - truth).abs()
    assert away.max() < 0.13
    assert away.mean() < 0.07 < (before - truth).abs().mean() / 2
