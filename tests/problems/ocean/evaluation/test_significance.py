"""Differences of methods against numpy written out, laws in which the truth is known, and scipy."""

import math

import numpy as np
import pytest
import torch
from scipy import stats

from pcl.problems.ocean.evaluation.significance import blocks_of_time, difference, student_quantile


def sums(errors, weights):
    return torch.from_numpy(np.stack([errors * weights, weights], 1))


def test_the_difference_is_that_of_the_weighted_means_and_its_interval_the_jackknife_written_out():
    generator = np.random.default_rng(0)
    blocks, weights = np.sort(generator.integers(0, 6, 40)), generator.uniform(1, 2, 40)
    one, other = generator.uniform(size=(2, 40)) ** 2
    found = difference(sums(one, weights), sums(other, weights), torch.from_numpy(blocks), torch.sqrt)

    def score(kept):
        first, second = (math.sqrt(np.average(x[kept], weights=weights[kept])) for x in (one, other))
        return first - second

    whole = score(np.ones(40, bool))
    pseudo = np.array([6 * whole - 5 * score(blocks != b) for b in range(6)])
    centred = pseudo - pseudo.mean()
    variance = ((centred**2).sum() + 2 * max(0, (centred[1:] * centred[:-1]).sum())) / 5 / 6
    reach = stats.t.ppf(0.975, 5) * math.sqrt(variance)
    assert found.value == pytest.approx(whole)
    assert (found.low, found.high) == pytest.approx((whole - reach, whole + reach), rel=1e-3)
    assert found.num_blocks == 6


@pytest.mark.parametrize(("memory", "least"), [(0.0, 0.93), (0.3, 0.88)])
def test_intervals_hold_the_truth_of_weather_that_lasts(memory, least):
    """Blocks of 28 pairs share an error that goes on from block to block: pairs alone would be far too sure."""
    generator, hits, naive = np.random.default_rng(1), 0, 0
    for _ in range(400):
        weather = np.zeros(10)
        weather[0] = generator.normal()
        for b in range(1, 10):
            weather[b] = memory * weather[b - 1] + math.sqrt(1 - memory**2) * generator.normal()
        errors = np.repeat(weather, 28) + 0.1 * generator.normal(size=280)
        ones = np.ones(280)
        found = difference(sums(errors, ones), sums(0 * errors, ones), torch.arange(280) // 28)
        hits += found.low <= 0 <= found.high
        naive += abs(errors.mean()) <= 1.96 * errors.std() / math.sqrt(280)
    assert least <= hits / 400 <= 1
    assert naive < 200


def test_two_blocks_give_no_interval():
    errors = torch.ones(4, 2)
    found = difference(errors, 2 * errors, torch.tensor([0, 0, 1, 1]))
    assert math.isnan(found.low)
    assert math.isnan(found.high)
    assert not found.is_less
    assert not found.is_more


@pytest.mark.parametrize("degrees", [3, 4, 8, 30, 1000])
def test_quantiles_are_those_of_scipy(degrees):
    assert student_quantile(degrees) == pytest.approx(stats.t.ppf(0.975, degrees), rel=3e-3)


def test_pairs_of_one_time_are_one_block():
    assert blocks_of_time(torch.tensor([7.0, 3.0, 7.0, 9.0]).double()).tolist() == [1, 0, 1, 2]
