"""The climatology on the grid against sums over the windows themselves."""

import numpy as np
import pytest
import torch

from pcl.evaluation.splits import read_arrays
from pcl.problems.ocean.contract import Origin
from pcl.problems.ocean.prior.climatology import ClimatologySums, GridClimatology
from tests.problems.ocean.evaluation.ocean_pairs import MadePairs
from tests.shards import build_shards

DAY_S = 86400.0


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    root = tmp_path_factory.mktemp("shards")
    manifest = build_shards(root, MadePairs({"train": 40, "test": 4}, origins=((0, 0), (4, 6)), holes=0.1), 2, 8)
    every = torch.arange(40)
    return root, manifest, read_arrays(root, manifest, "train", {"u": every, "origin": every})


def values_at(arrays, row, column, counts=lambda time_s: True):
    """Return every stored velocity of a grid point whose time counts, shape (n, 2)."""
    found = []
    for u, origin in zip(arrays["u"].double().numpy(), arrays["origin"].numpy(), strict=True):
        place = Origin(*origin)
        i, j = row - int(place.row), column - int(place.column)
        if 0 <= i < u.shape[2] and 0 <= j < u.shape[3]:
            for step in range(u.shape[1]):
                if counts(place.release_s + step * DAY_S) and np.isfinite(u[:, step, i, j]).all():
                    found.append(u[:, step, i, j])
    return np.array(found).reshape(-1, 2)


def test_the_whole_is_mean_and_deviation_of_all_values_of_a_point(pairs):
    root, manifest, arrays = pairs
    climatology = ClimatologySums.of(root, manifest).whole()
    for row, column in ((3, 5), (6, 9), (11, 12)):
        values = values_at(arrays, row, column)
        np.testing.assert_allclose(climatology.mean[:, row, column], values.mean(0), atol=1e-12)
        np.testing.assert_allclose(climatology.std[:, row, column], values.std(0), atol=1e-9)
    assert climatology.mean[:, 23, 0].isnan().all()  # of no tile


def test_without_a_window_its_blocks_and_those_within_the_gap_do_not_count(pairs):
    root, manifest, arrays = pairs
    sums = ClimatologySums.of(root, manifest)
    first_s, last_s, gap_s = sums.first_s + 2 * DAY_S, sums.first_s + 5 * DAY_S, 1.5 * DAY_S

    def counts(time_s):
        block = min(int((time_s - sums.first_s) / sums.block_s), len(sums.sums) - 1)
        start = sums.first_s + block * sums.block_s
        return start > last_s + gap_s or start + sums.block_s < first_s - gap_s

    found, values = sums.without(first_s, last_s, gap_s), values_at(arrays, 6, 9, counts)
    assert 0 < len(values) < len(values_at(arrays, 6, 9))
    np.testing.assert_allclose(found.mean[:, 6, 9], values.mean(0), atol=1e-12)
    np.testing.assert_allclose(found.std[:, 6, 9], values.std(0), atol=1e-9)


def test_half_of_the_time_stays_however_long_the_gap(pairs):
    root, manifest, _ = pairs
    sums = ClimatologySums.of(root, manifest)
    ones = ClimatologySums(sums.latitude, sums.longitude, 0.0, 1.0, torch.ones(8, 5, 24, 24).double())
    ones.sums[:4, 1] = 7.0  # eastward, in the first half
    assert torch.equal(ones.without(1.0, 2.0, 1e9).mean[0], torch.ones(24, 24).double())
    assert torch.equal(ones.without(6.0, 7.0, 1e9).mean[0], torch.full((24, 24), 7.0).double())
    assert float(ones.without(0.2, 0.8, 0.0).mean[0, 0, 0]) == pytest.approx((3 * 7 + 4) / 7, abs=0.9)


@pytest.mark.parametrize("turn", [-360.0, 0.0, 360.0, 720.0])
def test_places_are_the_same_a_turn_further(turn):
    generator = torch.Generator().manual_seed(0)
    mean, std = torch.rand(2, 2, 3, 4, generator=generator, dtype=torch.float64)
    climatology = GridClimatology(torch.arange(3.0), 358 + torch.arange(4.0), mean, std)
    latitude, longitude = torch.tensor([0.0, 1.25, 2.0]).double(), torch.tensor([358.0, 0.5, -1.0]).double()
    found, amplitude = climatology.at(latitude, longitude + turn)
    torch.testing.assert_close(found[:, 0], mean[:, 0, 0])
    torch.testing.assert_close(found[:, 2], mean[:, 2, 1])
    between = 0.75 * (mean[:, 1, 2] + mean[:, 1, 3]) / 2 + 0.25 * (mean[:, 2, 2] + mean[:, 2, 3]) / 2
    torch.testing.assert_close(found[:, 1], between)
    torch.testing.assert_close(amplitude[0], std[:, 0, 0].square().mean().sqrt())


def test_a_grid_around_the_globe_has_no_edge_in_longitude():
    mean = torch.zeros(2, 2, 4).double()
    mean[0] = torch.tensor([0.0, 1.0, 2.0, 3.0])
    climatology = GridClimatology(torch.arange(2.0), 90 * torch.arange(4.0), mean, torch.ones(2, 2, 4).double())
    found, _ = climatology.at(torch.zeros(3), torch.tensor([315.0, -45.0, 359.0]))
    torch.testing.assert_close(found[0], torch.tensor([1.5, 1.5, 3 / 90]).double())


def test_what_is_unknown_is_left_out_and_far_away_nothing_is_known():
    mean = torch.tensor([[1.0, torch.nan], [3.0, torch.nan]]).double().expand(2, 2, 2)
    climatology = GridClimatology(torch.arange(2.0), torch.arange(2.0), mean, mean)
    latitude, longitude = torch.tensor([0.5, 0.5, 0.0, 1.6]), torch.tensor([0.5, 1.0, -0.4, 0.0])
    found, amplitude = climatology.at(latitude, longitude)
    assert found[0, [0, 2]].tolist() == [2.0, 1.0]
    assert amplitude.isnan().tolist() == [False, True, False, True]
