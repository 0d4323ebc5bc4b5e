"""Means and variances in blocks against numpy on all at once."""

import math

import numpy as np
import pytest
import torch

from pcl.evaluation.blocks import encoded, num_at_once, walk
from pcl.problems.ocean.evaluation.running import RunningMean


def test_blocks_of_any_size_give_what_numpy_gives():
    generator = np.random.default_rng(0)
    values, weights = 1e3 + generator.normal(size=1000), generator.uniform(size=1000)
    values[::7] = np.nan
    running = RunningMean()
    for part in np.split(np.arange(1000), [0, 1, 2, 10, 500, 500]):
        running.add(torch.from_numpy(values[part]), torch.from_numpy(weights[part]))
    known = np.isfinite(values)
    mean = np.average(values[known], weights=weights[known])
    assert running.mean == pytest.approx(mean, rel=1e-12)
    variance = np.average((values[known] - mean) ** 2, weights=weights[known])
    assert running.variance == pytest.approx(variance, rel=1e-9)


def test_nothing_has_no_mean():
    running = RunningMean()
    running.add(torch.full((3,), torch.nan), torch.ones(3))
    assert math.isnan(running.mean)
    assert math.isnan(running.variance)


def test_a_walk_goes_through_all_and_copies_nothing_of_the_whole(monkeypatch):
    monkeypatch.setattr(num_at_once, "__defaults__", (32,))
    windows = torch.arange(22.0).reshape(11, 2)
    blocks = list(walk(windows))
    assert torch.equal(torch.cat([block for _, block in blocks]), windows)
    assert [block.data_ptr() for _, block in blocks] == [windows[place].data_ptr() for place, _ in blocks]
    assert max(len(block) for _, block in blocks) == 4
    chosen = torch.tensor([1, 2, 4, 5, 6, 10])
    assert torch.equal(torch.cat([block for _, block in walk(windows, chosen)]), windows[chosen])
    assert [len(block) for _, block in walk(windows, chosen, item_bytes=16)] == [2, 2, 2]


def test_no_block_is_larger_than_asked_for():
    sizes = []

    def encode(items):
        sizes.append(len(items))
        return items

    items = torch.randn(1000, 2)
    assert torch.equal(encoded(encode, items, 300, 8), items)
    assert torch.equal(encoded(encode, items, 300, 30_000), items)
    assert sizes == [300, 300, 300, 100] + 10 * [100]
