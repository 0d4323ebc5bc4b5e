"""The Gaussian pair against its precision matrix, an independent eigenproblem, and Monte Carlo."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.linalg import block_diag, eigh
from sklearn.cross_decomposition import CCA

from pcl.gaussian import DIRECTIONS, AffineMap, GaussianPair, plug_in, relative_error

SIZES = [(1, 1), (4, 2), (2, 5), (3, 3)]


def split(covariance, n):
    return covariance[:n, :n], covariance[:n, n:], covariance[n:, n:]


def random_pair(n, m, seed=0):
    factor = torch.randn(n + m, n + m, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return GaussianPair(*split(factor @ factor.T / (n + m) + 0.1 * torch.eye(n + m, dtype=torch.float64), n))


def sample(pair, num_pairs, seed=0):
    return pair.sample(num_pairs, torch.Generator().manual_seed(seed))


@given(st.integers(1, 5), st.integers(1, 5), st.integers(0, 2**32 - 1))
@settings(deadline=None, max_examples=50)
def test_conditionals_are_those_of_the_precision_matrix(n, m, seed):
    pair = random_pair(n, m, seed)
    precision = np.linalg.inv(pair.covariance.numpy())
    for direction, own, given_ in (
        ("u_given_v", slice(n), slice(n, None)),
        ("v_given_u", slice(n, None), slice(n)),
    ):
        mean, covariance = pair.conditional(direction)
        expected = np.linalg.inv(precision[own, own])
        np.testing.assert_allclose(covariance, expected, rtol=1e-9, atol=1e-11)
        np.testing.assert_allclose(mean.matrix, -expected @ precision[own, given_], rtol=1e-9, atol=1e-11)
        assert not mean.offset.any()


@pytest.mark.parametrize(("n", "m"), SIZES)
def test_samples_have_the_law_and_its_conditionals(n, m):
    pair, num_pairs = random_pair(n, m), 200_000
    u, v = (part.numpy() for part in sample(pair, num_pairs))
    assert u.shape == (num_pairs, n)
    assert v.shape == (num_pairs, m)
    assert u.dtype == np.float64
    joint, covariance = np.hstack([u, v]), pair.covariance.numpy()
    error = np.sqrt((np.outer(np.diag(covariance), np.diag(covariance)) + covariance**2) / num_pairs)
    assert (np.abs(joint.T @ joint / num_pairs - covariance) < 5 * error).all()
    mean, conditional = pair.conditional("u_given_v")
    regression, *_ = np.linalg.lstsq(v, u, rcond=None)
    np.testing.assert_allclose(regression.T, mean.matrix, atol=0.02)
    np.testing.assert_allclose(np.cov((u - v @ regression).T).reshape(n, n), conditional, atol=0.02)


@pytest.mark.parametrize(("n", "m"), SIZES)
def test_canonical_correlations_solve_the_generalised_eigenproblem(n, m):
    pair = random_pair(n, m)
    within = block_diag(pair.c_uu.numpy(), pair.c_vv.numpy())
    expected = eigh(pair.covariance.numpy() - within, within, eigvals_only=True)[::-1][: min(n, m)]
    np.testing.assert_allclose(pair.canonical_correlations(), expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize(("n", "m"), SIZES)
def test_canonical_variates_are_standard_and_correlated_pair_by_pair(n, m):
    pair = random_pair(n, m)
    directions_u, sigma, directions_v = (part.numpy() for part in pair.canonical_pairs())
    assert (directions_u.shape, directions_v.shape) == ((min(n, m), n), (min(n, m), m))
    for directions, covariance in ((directions_u, pair.c_uu), (directions_v, pair.c_vv)):
        np.testing.assert_allclose(directions @ covariance.numpy() @ directions.T, np.eye(min(n, m)), atol=1e-12)
    np.testing.assert_allclose(directions_u @ pair.c_uv.numpy() @ directions_v.T, np.diag(sigma), atol=1e-12)
    np.testing.assert_allclose(sigma, pair.canonical_correlations(), rtol=1e-12)
    product = pair.c_uu.numpy() @ (directions_u.T * sigma) @ directions_v @ pair.c_vv.numpy()
    np.testing.assert_allclose(product, pair.c_uv, rtol=1e-10, atol=1e-11)


def test_canonical_pairs_are_those_of_canonical_correlation_analysis():
    u, v = sample(random_pair(4, 3), 2_000)
    pair = plug_in(u, v)
    analysis = CCA(n_components=3, scale=False, max_iter=10_000, tol=1e-14)
    variates = analysis.fit_transform(u.numpy(), v.numpy())
    expected = [np.corrcoef(x, y)[0, 1] for x, y in zip(*(part.T for part in variates), strict=True)]
    np.testing.assert_allclose(pair.canonical_correlations(), expected, atol=1e-9)
    directions_u, _, directions_v = pair.canonical_pairs()
    for data, directions, variate in ((u, directions_u, variates[0]), (v, directions_v, variates[1])):
        found = (data - data.mean(0)) @ directions.T
        correlations = [np.corrcoef(x, y)[0, 1] for x, y in zip(found.T, variate.T, strict=True)]
        np.testing.assert_allclose(np.abs(correlations), 1, atol=1e-9)


@pytest.mark.parametrize(("n", "m"), SIZES)
def test_mutual_information_is_that_of_the_log_determinants(n, m):
    pair = random_pair(n, m)
    log_determinants = [np.linalg.slogdet(c)[1] for c in (pair.c_uu, pair.c_vv, pair.covariance)]
    expected = (log_determinants[0] + log_determinants[1] - log_determinants[2]) / 2
    assert pair.mutual_information() == pytest.approx(expected, rel=1e-10)
    assert pair.swapped.mutual_information() == pytest.approx(expected, rel=1e-10)


def test_independent_modalities_share_nothing():
    pair = GaussianPair(2 * torch.eye(3), torch.zeros(3, 2), torch.eye(2))
    assert pair.mutual_information() == 0
    assert not pair.canonical_correlations().any()
    assert pair.conditional("v_given_u")[0].matrix.abs().max() == 0


def test_the_law_is_kept_in_double_precision_and_swaps():
    pair = GaussianPair(torch.eye(2), torch.tensor([[0.5], [0.25]]), torch.eye(1))
    assert pair.covariance.dtype == torch.float64
    np.testing.assert_array_equal(pair.covariance, [[1, 0, 0.5], [0, 1, 0.25], [0.5, 0.25, 1]])
    np.testing.assert_array_equal(pair.swapped.covariance, [[1, 0.5, 0.25], [0.5, 1, 0], [0.25, 0, 1]])


def test_an_affine_map_maps_rows():
    found = AffineMap(torch.tensor([[1.0, 2.0], [0.0, 1.0], [3.0, 0.0]]), torch.tensor([1.0, 0.0, -1.0]))
    assert found(torch.tensor([[1.0, 1.0], [0.0, 2.0]])).tolist() == [[4.0, 1.0, 2.0], [5.0, 2.0, -1.0]]


@pytest.mark.parametrize(
    ("c_uu", "c_uv", "c_vv", "message"),
    [
        (torch.eye(2), torch.zeros(2, 2), torch.eye(3), r"c_uv has shape \(2, 2\).*must be \(2, 3\)"),
        (torch.ones(2, 3), torch.zeros(2, 2), torch.eye(2), "shape"),
        (torch.eye(2), torch.zeros(2, 2), torch.ones(2, 3), "shape"),
        (torch.tensor([[1, 0.3], [0, 1]]), torch.zeros(2, 1), torch.eye(1), "not symmetric.*3.0e-01"),
        (torch.eye(1), torch.tensor([[torch.nan]]), torch.eye(1), "not finite"),
        (torch.eye(1), torch.tensor([[1.5]]), torch.eye(1), "not positive definite.*-5.0e-01"),
        (torch.eye(1), torch.ones(1, 1), torch.eye(1), "not positive definite"),
        (torch.zeros(1, 1), torch.zeros(1, 1), torch.eye(1), "not positive definite"),
    ],
)
def test_what_is_no_covariance_is_refused(c_uu, c_uv, c_vv, message):
    with pytest.raises(ValueError, match=message):
        GaussianPair(c_uu, c_uv, c_vv)


def test_a_covariance_that_is_singular_but_for_rounding_is_refused():
    generator = torch.Generator().manual_seed(0)
    for _ in range(20):
        factor = torch.randn(5, 4, generator=generator, dtype=torch.float64)
        with pytest.raises(ValueError, match="not positive definite"):
            GaussianPair(*split(factor @ factor.T, 3))


def test_a_badly_scaled_covariance_is_not_taken_for_a_singular_one():
    scale = torch.tensor([1e3, 1.0, 1e-2], dtype=torch.float64)
    correlation = torch.full((3, 3), 0.5, dtype=torch.float64).fill_diagonal_(1)
    pair = GaussianPair(*split(scale[:, None] * correlation * scale, 2))
    expected = GaussianPair(*split(correlation, 2)).mutual_information()
    assert pair.mutual_information() == pytest.approx(expected, rel=1e-6)


def test_scales_beyond_the_digits_of_a_number_do_not_matter():
    scale = torch.tensor([1e12, 1.0, 1e-12], dtype=torch.float64)
    correlation = torch.full((3, 3), 0.5, dtype=torch.float64).fill_diagonal_(1)
    pair = GaussianPair(*split(scale[:, None] * correlation * scale, 2))
    expected = GaussianPair(*split(correlation, 2))
    np.testing.assert_allclose(pair.canonical_correlations(), expected.canonical_correlations(), rtol=1e-12)
    np.testing.assert_allclose(pair.canonical_pairs()[0] * scale[:2], expected.canonical_pairs()[0], rtol=1e-12)


def test_a_component_that_both_share_up_to_rounding_is_refused():
    """The mean of u is that of v but for 3e-15 of its variance; the covariance passes for positive definite."""
    within = torch.full((4, 4), 0.5, dtype=torch.float64).fill_diagonal_(1)
    near, same = (torch.full((4, 4), (2.5 - gap) / 4, dtype=torch.float64) for gap in (1e-13, 3e-15))
    largest = GaussianPair(within, near, within).canonical_correlations()[0].item()
    assert 1 - largest == pytest.approx(1e-13 / 2.5, rel=0.05)
    with pytest.raises(ValueError, match=r"the first canonical correlation is 0.99.*, 1 up to rounding: u and v share"):
        GaussianPair(within, same, within)


def test_correlations_stay_below_one_for_a_covariance_near_the_end_of_precision():
    for seed in range(50):
        generator = torch.Generator().manual_seed(seed)
        basis, _ = torch.linalg.qr(torch.randn(7, 7, generator=generator, dtype=torch.float64))
        factor = basis * torch.logspace(0, -6.5, 7, dtype=torch.float64)
        pair = GaussianPair(*split(factor @ factor.T, 4))
        assert pair.canonical_correlations().max() < 1
        assert np.isfinite(pair.mutual_information())


def test_an_unknown_direction_is_refused():
    with pytest.raises(ValueError, match="'joint' is not known; choose one of u_given_v, v_given_u"):
        random_pair(2, 2).conditional("joint")


def test_plug_in_is_the_sample_covariance_and_converges_as_one_over_root_n():
    pair, errors = random_pair(3, 2), {}
    for num_pairs in (200, 20_000):
        estimates = [plug_in(*sample(pair, num_pairs, seed)).covariance for seed in range(10)]
        errors[num_pairs] = np.mean([np.linalg.norm(e - pair.covariance) for e in estimates])
    assert 5 < errors[200] / errors[20_000] < 20
    u, v = sample(pair, 50)
    np.testing.assert_allclose(plug_in(u, v).covariance, np.cov(np.hstack([u, v]).T), rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(plug_in(u + 7, v - 3).covariance, plug_in(u, v).covariance, rtol=1e-10, atol=1e-12)


def test_plug_in_refuses_what_is_not_enough():
    u, v = sample(random_pair(3, 2), 6)
    assert plug_in(u, v).covariance.shape == (5, 5)
    with pytest.raises(ValueError, match="5 pairs: a covariance of 5 components"):
        plug_in(u[:5], v[:5])
    with pytest.raises(ValueError, match="6 u and 5 v"):
        plug_in(u, v[:5])


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_relative_error_is_that_of_monte_carlo(direction):
    pair = random_pair(4, 2)
    draws = dict(zip(("v_given_u", "u_given_v"), sample(pair, 200_000), strict=True))[direction]
    truth = pair.conditional(direction)[0]
    noise = torch.randn(truth.matrix.shape, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    estimate = AffineMap(truth.matrix + 0.3 * noise, torch.full_like(truth.offset, 0.2))
    expected = (estimate(draws) - truth(draws)).square().sum() / truth(draws).square().sum()
    assert relative_error(estimate, pair, direction) == pytest.approx(expected.item(), rel=0.02)
    assert relative_error(truth, pair, direction) == 0
    nothing = AffineMap(torch.zeros_like(truth.matrix), truth.offset)
    assert relative_error(nothing, pair, direction) == pytest.approx(1, rel=1e-12)
