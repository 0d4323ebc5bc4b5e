"""Scores of fields against closed forms, brute force and numpy."""

import math

import numpy as np
import pytest
import torch
from scipy import stats

from pcl.problems.ocean.evaluation.field_scores import (
    drift_scores,
    effective_resolution,
    fair_crps,
    gaussian_crps,
    mean_scores,
    rank_histogram,
    weighted_mean,
    zonal_spectra,
)


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.fixture
def pair():
    """An estimate and a truth with land, and areas."""
    truth, estimate = normal(3, 2, 4, 5, 6), normal(3, 2, 4, 5, 6, seed=1)
    truth[:, :, :, :2, 3] = torch.nan
    return estimate, truth, torch.cos(torch.linspace(0.2, 1.2, 15)).double().reshape(3, 1, 1, 5, 1)


def test_mean_scores_are_those_of_numpy(pair):
    estimate, truth, area = (part.numpy() for part in pair)
    weight = np.broadcast_to(area, truth.shape)
    wet = np.isfinite(truth)
    error = estimate - truth
    rmse = math.sqrt(np.average(error[wet] ** 2, weights=weight[wet]))
    rms = math.sqrt(np.average(truth[wet] ** 2, weights=weight[wet]))
    variances = []
    for values in (error, truth):
        total = 0.0
        for c in range(2):
            x, w = values[:, c][wet[:, c]], weight[:, c][wet[:, c]]
            total += np.average((x - np.average(x, weights=w)) ** 2, weights=w)
        variances.append(total)
    found = mean_scores(*pair)
    assert found == pytest.approx(
        {"rmse_m_s": rmse, "nrmse_score": 1 - rmse / rms, "explained_variance": 1 - variances[0] / variances[1]}
    )


def test_a_perfect_estimate_and_a_biased_one(pair):
    _, truth, area = pair
    perfect = mean_scores(truth, truth, area)
    assert perfect == pytest.approx({"rmse_m_s": 0, "nrmse_score": 1, "explained_variance": 1})
    biased = mean_scores(truth + 0.3, truth, area)
    assert biased["rmse_m_s"] == pytest.approx(0.3)
    assert biased["explained_variance"] == pytest.approx(1)


def test_fair_crps_is_the_double_sum():
    members, truth = normal(7, 3, 4), normal(3, 4, seed=1)
    first = (members - truth).abs().mean(0)
    second = (members[:, None] - members).abs().sum((0, 1)) / (2 * 7 * 6)
    torch.testing.assert_close(fair_crps(members, truth), first - second)
    torch.testing.assert_close(fair_crps(members[:1], truth), (members[0] - truth).abs())


@pytest.mark.parametrize("size", [2, 5, 50])
def test_the_fair_crps_of_normal_members_is_that_of_the_normal_law(size):
    truth = torch.tensor(0.7, dtype=torch.float64)
    sampled = fair_crps(0.2 + 1.5 * normal(size, 200_000 // size), truth.expand(200_000 // size)).mean()
    exact = gaussian_crps(torch.tensor(0.2).double(), torch.tensor(1.5).double(), truth)
    assert float(sampled) == pytest.approx(float(exact), abs=0.02)


@pytest.mark.parametrize("truth", [-2.0, 0.0, 0.4, 3.0])
def test_the_crps_of_a_normal_law_is_its_integral(truth):
    x = np.linspace(-12, 12, 480_001)
    law = stats.norm(0.3, 0.8).cdf(x)
    integral = np.trapezoid((law - (x >= truth)) ** 2, x)
    found = gaussian_crps(*(torch.tensor(value, dtype=torch.float64) for value in (0.3, 0.8, truth)))
    assert float(found) == pytest.approx(integral, rel=1e-4)


def test_ranks_of_the_same_law_are_uniform_and_of_a_narrow_one_are_not():
    generator = torch.Generator().manual_seed(0)
    truth = normal(40_000)
    truth[::7] = torch.nan
    counts = rank_histogram(normal(9, 40_000, seed=1), truth, generator)
    assert counts.sum() == torch.isfinite(truth).sum()
    assert stats.chisquare(counts.numpy()).pvalue > 1e-3
    narrow = rank_histogram(0.5 * normal(9, 40_000, seed=1), truth, generator)
    assert narrow[0] + narrow[-1] > 2 * narrow[1:-1].max()


def test_ties_are_spread_over_all_ranks():
    counts = rank_histogram(torch.zeros(4, 50_000), torch.zeros(50_000), torch.Generator().manual_seed(0))
    assert stats.chisquare(counts.numpy()).pvalue > 1e-3


def test_the_spectrum_is_that_of_numpy_and_skips_rows_with_land():
    rows = normal(5, 16)
    rows[2, 4] = torch.nan
    kept = rows[[0, 1, 3, 4]].numpy()
    x = np.arange(16)
    detrended = np.stack([row - np.polyval(np.polyfit(x, row, 1), x) for row in kept])
    expected = (np.abs(np.fft.rfft(detrended * np.hanning(16))) ** 2)[:, 1:].mean(0)
    power, number = zonal_spectra(rows)
    assert number == 4
    np.testing.assert_allclose(power.numpy(), expected)


@pytest.mark.parametrize("cut", [3, 5, 7])
def test_the_resolution_of_white_noise_with_a_sharp_cut(cut):
    """Errors of variance 0 below a wavenumber and equal to the truth above it: the crossing lies at the cut."""
    truth = normal(1, 2, 1, 4000, 64)
    spectrum = torch.fft.rfft(truth)
    spectrum[..., 4 * cut :] = 0
    resolved = effective_resolution(torch.fft.irfft(spectrum, n=64), truth, spacing_km=20.0)
    assert resolved == pytest.approx(64 * 20 / (4 * cut - 0.5), rel=0.03)


def test_the_resolution_of_nothing_and_of_everything():
    truth = normal(1, 2, 3, 8, 16)
    assert math.isnan(effective_resolution(torch.zeros_like(truth), truth, 20.0))
    assert effective_resolution(0.9 * truth, truth, 20.0) == pytest.approx(40.0)  # twice the spacing: the shortest wave
    assert math.isnan(effective_resolution(truth, torch.full_like(truth, torch.nan), 20.0))


def test_separation_and_skill_of_two_drifters_by_hand():
    """At 60 N a degree of longitude is 55.56 km: the true drifter goes 1 degree east a record, the other stays."""
    true = torch.tensor([[0.0, 0, 60], [1, 0, 60], [2, 0, 60]], dtype=torch.float64)
    still = torch.zeros(3, 2, dtype=torch.float64)
    found = drift_scores(torch.stack([still, true[:, :2]]), torch.stack([true, true]))
    torch.testing.assert_close(found.separation_km, torch.tensor([0.0, 55.56, 111.12]).double() / 2)
    assert found.skill == pytest.approx((0 + 1) / 2)  # d_i = l_i: skill 0; no separation: skill 1
    half = torch.stack([true[:, :2] * torch.tensor([0.5, 1.0])])
    assert drift_scores(half, true[None]).skill == pytest.approx(0.5)


def test_a_drifter_counts_until_it_is_gone():
    true = torch.tensor([[0.0, 0, 0], [1, 0, 0], [torch.nan] * 3], dtype=torch.float64)
    found = drift_scores(torch.tensor([[[0.0, 0], [1.5, 0], [9, 9]]]).double(), true[None])
    torch.testing.assert_close(found.separation_km[:2], torch.tensor([0.0, 55.56]).double())
    assert torch.isnan(found.separation_km[2])
    assert found.skill == pytest.approx(0.5)


def test_what_is_missing_has_no_weight():
    values = torch.tensor([[1.0, torch.nan], [3.0, 5.0]])
    assert weighted_mean(values, torch.tensor([[3.0], [1.0]])) == pytest.approx((3 + 3 + 5) / 5)
