"""The Gaussian process pair: its law from the definition, and samples with that law."""

import math

import numpy as np
import pytest
import torch

from pcl.gaussian import GaussianProcessPair

SMALL = GaussianProcessPair(4, 2, noise_std=0.3, inverse_length=1.5, smoothness=0.8, num_modes=7)


def test_the_law_is_the_sum_over_the_modes():
    law, points = SMALL.law(), [1 / 8, 3 / 8, 5 / 8, 7 / 8]
    np.testing.assert_allclose(SMALL.points, points, rtol=1e-15)

    def mode(j, x):
        return (j**2 * math.pi**2 + 1.5**2) ** (-0.8 / 2) * math.sqrt(2) * math.cos(j * math.pi * x)

    for i, x in enumerate(points):
        for k, y in enumerate(points):
            expected = sum(mode(j, x) * mode(j, y) for j in range(1, 8)) + 0.09 * (i == k)
            assert law.c_uu[i, k].item() == pytest.approx(expected, rel=1e-12)
        np.testing.assert_allclose(law.c_uv[i], [mode(1, x), mode(2, x)], rtol=1e-12)
    assert torch.equal(law.c_vv, torch.eye(2, dtype=torch.float64))


def test_the_modes_are_orthogonal_with_their_eigenvalues_as_squared_lengths():
    process = GaussianProcessPair(num_points=2000, num_coefficients=5, num_modes=5)
    modes = process.modes()
    gram = modes @ modes.T / 2000
    np.testing.assert_allclose(gram, np.diag((np.arange(1, 6) ** 2 * np.pi**2 + 9) ** -2.0), atol=1e-12)


@pytest.mark.parametrize(("process", "num_pairs"), [(SMALL, 100_000), (GaussianProcessPair(), 20_000)])
def test_the_sample_covariance_is_that_of_the_law(process, num_pairs):
    u, v = process.sample(num_pairs, np.random.default_rng(0))
    assert u.shape == (num_pairs, process.num_points)
    assert v.shape == (num_pairs, process.num_coefficients)
    assert u.dtype == v.dtype == np.float64
    pairs, covariance = np.hstack([u, v]), process.law().covariance.numpy()
    error = np.sqrt((np.outer(np.diag(covariance), np.diag(covariance)) + covariance**2) / num_pairs)
    assert (np.abs(pairs.T @ pairs / num_pairs - covariance) < 5 * error).all()
    assert (np.abs(pairs.mean(0)) < 5 * np.sqrt(np.diag(covariance) / num_pairs)).all()


def test_a_sample_is_a_function_of_its_generator():
    first, again, other = (SMALL.sample(3, np.random.default_rng(seed))[0] for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


@pytest.mark.parametrize(
    "arguments",
    [{"num_points": 0}, {"num_coefficients": 0}, {"num_coefficients": 1001}, {"noise_std": -0.1}, {"num_modes": 4}],
)
def test_an_impossible_process_is_refused(arguments):
    with pytest.raises(ValueError, match="needed are num_points >= 1, 1 <= num_coefficients <= num_modes"):
        GaussianProcessPair(**arguments)
