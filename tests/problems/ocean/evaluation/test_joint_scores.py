"""Joint scores against loops, and on ensembles of which only the whole is wrong."""

import math

import numpy as np
import pytest
import torch

from pcl.problems.ocean.evaluation.field_scores import fair_crps
from pcl.problems.ocean.evaluation.joint_scores import energy_score, variogram_score


@pytest.fixture
def made():
    """Members, a truth with land, and areas by latitude."""
    generator = np.random.default_rng(0)
    members, truth = generator.normal(size=(7, 2, 3, 4, 6)), generator.normal(size=(2, 3, 4, 6))
    truth[:, :, :2, 3] = np.nan
    area = np.cos(np.radians([10.0, 30.0, 50.0, 70.0])).reshape(1, 1, 4, 1)
    return members, truth, area


def as_tensors(arrays):
    return [*map(torch.from_numpy, arrays)]


def test_the_energy_score_is_the_double_sum(made):
    members, truth, area = made
    weights = np.where(np.isfinite(truth), np.broadcast_to(area, truth.shape), 0)

    def norm(x):
        return math.sqrt((weights * np.nan_to_num(x) ** 2).sum() / weights.sum())

    first = np.mean([norm(x - truth) for x in members])
    second = np.sum([norm(x - y) for x in members for y in members]) / (2 * 7 * 6)
    assert energy_score(*as_tensors(made)) == pytest.approx(first - second)


def test_the_energy_score_of_a_point_is_that_of_single_points():
    members, truth = torch.randn(9, 1, 1, 1, 1).double(), torch.randn(1, 1, 1, 1).double()
    assert energy_score(members, truth, torch.ones(1)) == pytest.approx(float(fair_crps(members, truth)))


def test_the_variogram_score_is_the_loop(made):
    members, truth, area = made
    weights, total, weight = np.broadcast_to(area, truth.shape), 0.0, 0.0
    for one in np.ndindex(truth.shape):
        for axis in (1, 2, 3):
            for lag in (1, 2, 4):
                other = tuple(index + lag * (i == axis) for i, index in enumerate(one))
                if other[axis] >= truth.shape[axis] or not np.isfinite(truth[one] - truth[other]):
                    continue
                mean = np.mean([abs(x[one] - x[other]) ** 0.5 for x in members])
                share = (weights[one] + weights[other]) / 2
                total += share * (abs(truth[one] - truth[other]) ** 0.5 - mean) ** 2
                weight += share
    assert variogram_score(*as_tensors(made)) == pytest.approx(total / weight)


def test_what_is_wrong_between_points_shows():
    """Waves, and the same values at every point on their own: each point has the right law, the whole has not."""
    generator = torch.Generator().manual_seed(0)
    x = torch.arange(16.0) / 3
    waves = (x + 6.28 * torch.rand(60, 30, 1, generator=generator)).sin().double()  # 60 truths, 29 members of each
    waves = waves[:, :, None, None, None]
    mixed = torch.stack([waves[:, :, ..., i][:, torch.randperm(29, generator=generator) + 1] for i in range(16)], -1)
    for score in (energy_score, variogram_score):
        whole, points = (
            np.mean([score(members[i], waves[i, 0], torch.ones(1)) for i in range(60)])
            for members in (waves[:, 1:], mixed)
        )
        assert whole < 0.95 * points
