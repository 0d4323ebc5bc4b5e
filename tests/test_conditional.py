"""The conditional on a reference set against loops over the references."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare

from pcl.conditional import Conditional
from pcl.tilting import log_tilting

TEMPERATURE = 0.7


def problem(num_references=6, num_queries=4, dim=3, seed=0):
    """Return features of references and queries and a log prior that is not normalised."""
    generator = torch.Generator().manual_seed(seed)
    sizes = ((num_references, dim), (num_queries, dim), (num_references,))
    return tuple(torch.randn(size, generator=generator, dtype=torch.float64) for size in sizes)


def brute_force(references, queries, log_prior):
    """Return the weights (Q, N) and log rho (Q, N), one number at a time."""
    prior = np.exp(log_prior.numpy())
    prior /= prior.sum()
    tilting = np.array([[np.exp(float(q @ x) / TEMPERATURE) for x in references] for q in queries])
    normaliser = np.array([sum(p * t for p, t in zip(prior, row, strict=True)) for row in tilting])[:, None]
    return prior * tilting / normaliser, np.log(tilting / normaliser)


@pytest.mark.parametrize("uniform", [True, False])
def test_weights_density_and_mode_are_those_of_the_definition(uniform):
    references, queries, log_prior = problem()
    log_prior = torch.zeros(6, dtype=torch.float64) if uniform else log_prior
    conditional = Conditional(references, TEMPERATURE, None if uniform else log_prior)
    weights, log_density = brute_force(references, queries, log_prior)
    np.testing.assert_allclose(conditional.weights(queries), weights, rtol=1e-12)
    np.testing.assert_allclose(conditional.log_weights(queries), np.log(weights), rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(conditional.log_density(queries), log_density, rtol=1e-10, atol=1e-12)
    np.testing.assert_array_equal(conditional.mode(queries), weights.argmax(1))


@given(st.integers(1, 20), st.integers(1, 4), st.floats(0.01, 100), st.integers(0, 2**32 - 1))
@settings(deadline=None, max_examples=50)
def test_the_density_integrates_to_one_and_the_sample_size_is_bounded(num_references, num_queries, temperature, seed):
    references, queries, log_prior = problem(num_references, num_queries, seed=seed)
    conditional = Conditional(references, torch.tensor(temperature), log_prior)
    prior = np.exp(log_prior) / np.exp(log_prior).sum()
    np.testing.assert_allclose(conditional.log_density(queries).exp() @ prior, 1, rtol=1e-12)
    np.testing.assert_allclose(conditional.weights(queries).sum(1), 1, rtol=1e-12)
    size = conditional.effective_sample_size(queries)
    np.testing.assert_allclose(size, 1 / (conditional.weights(queries) ** 2).sum(1), rtol=1e-10)
    assert ((size >= 1) & (size <= num_references * (1 + 1e-12))).all()


def test_the_effective_sample_size_reaches_its_bounds():
    queries = torch.tensor([[0.0, 0.0], [1e4, 0.0]])
    size = Conditional(torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]]), 1.0).effective_sample_size(queries)
    assert size.tolist() == pytest.approx([3.0, 1.0], rel=1e-6)


def test_the_prior_counts_up_to_a_constant_and_can_exclude():
    references, queries, log_prior = problem()
    plain, shifted = (Conditional(references, TEMPERATURE, log_prior + c).weights(queries) for c in (0, 300))
    torch.testing.assert_close(plain, shifted, rtol=1e-10, atol=1e-12)
    kept = torch.tensor([1, 2, 4])
    excluded = torch.full((6,), -torch.inf).index_fill(0, kept, 0.0)
    found = Conditional(references, TEMPERATURE, excluded)
    expected = Conditional(references[kept], TEMPERATURE)
    torch.testing.assert_close(found.weights(queries)[:, kept], expected.weights(queries))
    torch.testing.assert_close(found.log_density(queries)[:, kept], expected.log_density(queries))
    assert found.weights(queries)[:, [0, 3, 5]].max() == 0
    assert set(found.sample(queries, 1000, torch.Generator().manual_seed(0)).unique().tolist()) <= set(kept.tolist())


def test_the_prior_of_the_labels_moves_the_mode():
    labels = torch.eye(2)
    assert Conditional(labels, 1.0).mode(torch.tensor([[1.0, 0.0]])).tolist() == [0]
    assert Conditional(labels, 1.0, torch.tensor([0.1, 0.9]).log()).mode(torch.tensor([[1.0, 0.0]])).tolist() == [1]


def test_sampling_frequencies_are_the_weights():
    references, queries, log_prior = problem()
    conditional = Conditional(references, TEMPERATURE, log_prior)
    weights, _ = brute_force(references, queries, log_prior)
    draws = conditional.sample(queries, 20_000, torch.Generator().manual_seed(3))
    assert draws.shape == (4, 20_000)
    counts = np.array([np.bincount(row, minlength=6) for row in draws])
    assert all(chisquare(c, 20_000 * w).pvalue > 1e-3 for c, w in zip(counts, weights, strict=True))
    assert chisquare(counts[0], 20_000 * weights[1]).pvalue < 1e-3
    assert torch.equal(draws, conditional.sample(queries, 20_000, torch.Generator().manual_seed(3)))


@pytest.mark.parametrize("shape", [(), (2,), (2, 3)])
def test_moments_are_weighted_averages(shape):
    references, queries, log_prior = problem()
    values = torch.randn(6, *shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    weights, _ = brute_force(references, queries, log_prior)
    conditional = Conditional(references, TEMPERATURE, log_prior)
    mean = np.stack([np.average(values, axis=0, weights=w) for w in weights])
    variance = np.stack(
        [np.average((values - m) ** 2, axis=0, weights=w) for w, m in zip(weights, torch.from_numpy(mean), strict=True)]
    )
    np.testing.assert_allclose(conditional.mean(queries, values), mean, rtol=1e-12)
    np.testing.assert_allclose(conditional.variance(queries, values), variance, rtol=1e-10)


def test_the_variance_of_kelvins_survives_single_precision():
    references, queries, _ = problem(200)
    values = 290 + 0.1 * torch.randn(200, generator=torch.Generator().manual_seed(1))
    expected = Conditional(references, TEMPERATURE).variance(queries, values.double())
    found = Conditional(references.float(), TEMPERATURE).variance(queries.float(), values)
    np.testing.assert_allclose(found, expected, rtol=0.01)


def test_scores_of_ten_thousand_overflow_nothing():
    conditional = Conditional(torch.tensor([[1e4], [0.0], [-1e4]]), 1.0)
    queries = torch.tensor([[1.0], [-1.0], [0.0]])
    torch.testing.assert_close(conditional.weights(queries)[:2], torch.tensor([[1.0, 0, 0], [0, 0, 1.0]]))
    assert torch.isfinite(conditional.log_density(queries)).all()


def test_impossible_reference_sets_are_refused():
    with pytest.raises(ValueError, match="empty"):
        Conditional(torch.zeros(0, 3), 1.0)
    with pytest.raises(ValueError, match=r"log_prior has shape \(2,\); 3 references"):
        Conditional(torch.zeros(3, 3), 1.0, torch.zeros(2))


@pytest.mark.parametrize("temperature", [0.0, -1.0, math.nan, math.inf, torch.tensor(0.0)])
def test_impossible_temperatures_are_refused(temperature):
    with pytest.raises(ValueError, match="it divides the scores and must be positive and finite"):
        Conditional(torch.eye(2), temperature)
    with pytest.raises(ValueError, match="it divides the scores and must be positive and finite"):
        log_tilting(torch.ones(1, 2), torch.ones(1, 2), "inner_product", temperature)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_damaged_features_and_priors_are_refused(value):
    with pytest.raises(ValueError, match="features of the references are not finite"):
        Conditional(torch.tensor([[1.0], [value]]), 1.0)
    with pytest.raises(ValueError, match="log_prior holds nan or"):
        Conditional(torch.ones(2, 1), 1.0, torch.tensor([0.0, value]))
