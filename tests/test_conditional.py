"""The conditional on a reference set against loops over the references."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare

from pcl.conditional import Conditional, draw
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


def groups(num_references, values=(1.0, -1.0, 0.0)):
    """Return a conditional on three groups of equal references, a query, and the exact shares of the groups."""
    bounds = [num_references * i // 3 for i in range(4)]
    sizes = np.diff(bounds)
    features = torch.cat([torch.full((int(n), 1), value) for n, value in zip(sizes, values, strict=True)])
    shares = sizes * np.exp(0.3 * np.array(values))
    return Conditional(features, 1.0), torch.tensor([[0.3]]), torch.tensor(bounds[1:3]), shares / shares.sum()


@pytest.mark.long
@pytest.mark.parametrize("num_references", [2**10, 2**20, 2**22, pytest.param(2**24 + 7, marks=pytest.mark.slow)])
def test_draws_and_moments_have_the_right_law_for_any_number_of_references(num_references):
    conditional, query, bounds, shares = groups(num_references)
    drawn = conditional.sample(query, 100_000, torch.Generator().manual_seed(0))[0]
    group = torch.bucketize(drawn, bounds, right=True)
    assert chisquare(np.bincount(group, minlength=3), 100_000 * shares).pvalue > 1e-3
    within = [drawn[group == i].double().mean() for i in range(3)]
    middles = [(num_references * (2 * i + 1)) / 6 for i in range(3)]
    np.testing.assert_allclose(within, middles, rtol=0.01)
    assert drawn.max() >= 2 / 3 * num_references
    values = torch.tensor([0.0, 1.0, 2.0]).repeat_interleave(torch.tensor(np.diff([0, *bounds, num_references])))
    mean, square = shares @ np.arange(3), shares @ np.arange(3) ** 2
    assert conditional.mean(query, values).item() == pytest.approx(mean, rel=1e-5)
    assert conditional.variance(query, values).item() == pytest.approx(square - mean**2, rel=1e-5)
    weight = shares / np.diff([0, *bounds, num_references])
    size = 1 / (weight @ shares)
    assert conditional.effective_sample_size(query).item() == pytest.approx(size, rel=1e-5)
    np.testing.assert_allclose(conditional.log_weights(query)[0, [0, -1]], np.log(weight[[0, 2]]), rtol=1e-6)


def test_what_has_no_weight_is_never_drawn():
    weights = torch.zeros(3, 1000)
    weights[:, 100:900:7] = torch.rand(3, 115, generator=torch.Generator().manual_seed(1))

    for uniform in (0.0, 1 - 2**-53):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(torch, "rand", lambda *size, uniform=uniform, **_: torch.full(size, uniform).double())
            drawn = draw(weights, 2, torch.Generator())
        expected = [100, 898][uniform > 0]
        assert drawn.tolist() == [[expected, expected]] * 3
    with pytest.raises(ValueError, match="num_samples=0: draw at least one"):
        draw(weights, 0, torch.Generator())


def test_rows_are_drawn_in_blocks_that_change_nothing(monkeypatch):
    weights = torch.rand(5, 40, generator=torch.Generator().manual_seed(1))
    whole = draw(weights, 7, torch.Generator().manual_seed(2))
    monkeypatch.setattr("pcl.conditional.BLOCK_WEIGHTS", 80)
    assert torch.equal(draw(weights, 7, torch.Generator().manual_seed(2)), whole)


def test_a_reference_without_weight_has_the_density_of_its_score():
    references, queries, _ = problem()
    log_prior = torch.tensor([0.0, -math.inf, 0.0, 0.5, -math.inf, 0.0], dtype=torch.float64)
    conditional = Conditional(references, TEMPERATURE, log_prior)
    _, expected = brute_force(references, queries, log_prior)
    np.testing.assert_allclose(conditional.log_density(queries), expected, rtol=1e-10, atol=1e-12)
    assert (conditional.weights(queries)[:, [1, 4]] == 0).all()


def test_weights_of_large_scores_sum_to_one_in_single_precision():
    generator = torch.Generator().manual_seed(0)
    conditional = Conditional(1e4 + torch.randn(500, 1, generator=generator), 1.0)
    np.testing.assert_allclose(conditional.weights(torch.ones(1, 1)).double().sum(), 1, rtol=1e-6)


@pytest.mark.parametrize("dtype", [torch.int64, torch.uint8, torch.float16, torch.float32, torch.float64])
def test_values_of_every_dtype_have_moments(dtype):
    references, queries, _ = problem()
    conditional = Conditional(references.float(), TEMPERATURE)
    values = torch.tensor([3, 1, 4, 1, 5, 9]).to(dtype)
    weights = conditional.weights(queries.float()).double()
    mean = weights @ values.double()
    found = conditional.mean(queries.float(), values), conditional.variance(queries.float(), values)
    assert {part.dtype for part in found} == {torch.float64 if dtype == torch.float64 else torch.float32}
    torch.testing.assert_close(found[0].double(), mean, rtol=1e-6, atol=0)
    torch.testing.assert_close(found[1].double(), weights @ values.double().square() - mean.square(), rtol=1e-4, atol=0)


def test_arrays_of_numpy_are_as_good_as_tensors():
    references, queries, log_prior = problem()
    values = np.arange(12).reshape(6, 2)[::-1]
    expected = Conditional(references, TEMPERATURE, log_prior)
    found = Conditional(references.numpy(), TEMPERATURE, log_prior.numpy())
    np.testing.assert_array_equal(found.weights(queries.numpy()), expected.weights(queries))
    means = expected.mean(queries, torch.tensor(values.copy()))
    np.testing.assert_array_equal(found.mean(queries.numpy(), values), means)
    assert isinstance(found.sample(queries.numpy(), 2, torch.Generator().manual_seed(0)), np.ndarray)
    single = Conditional(references.float(), TEMPERATURE)
    assert single.weights(queries.numpy()).dtype == np.float32  # numpy's numbers are double


METHODS = ("log_weights", "weights", "log_density", "mode", "effective_sample_size", "sample", "mean", "variance")


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    ("queries", "message"),
    [
        (torch.tensor([[0.0, math.nan, 0.0]]), "queries are not finite, first in number 0 of 1"),
        (torch.full((2, 3), math.inf), "queries are not finite"),
        (torch.zeros(2, 1), r"queries of shape \(2, 1\): needed is \(Q, 3\)"),
        (torch.zeros(3), r"queries of shape \(3,\): needed is \(Q, 3\); give a single one as x\[None\]"),
        (torch.zeros(2, 3, dtype=torch.bool), "queries of dtype bool: needed are real numbers"),
        (np.array([["a", "b", "c"]]), "queries of type ndarray: needed is an array of numbers"),
        ([[1.0], [1.0, 2.0]], "queries of type list: needed is an array of numbers"),
    ],
)
def test_queries_that_are_none_are_refused_by_every_method(method, queries, message):
    rest = {"sample": (3, torch.Generator()), "mean": (torch.zeros(6),), "variance": (torch.zeros(6),)}
    with pytest.raises(ValueError, match=message):
        getattr(Conditional(torch.zeros(6, 3), 1.0), method)(queries, *rest.get(method, ()))


@pytest.mark.parametrize("method", ["mean", "variance"])
@pytest.mark.parametrize(
    ("values", "message"),
    [
        (torch.zeros(5), r"values of shape \(5,\): needed is \(6, ...\)"),
        (torch.full((6, 2), math.nan), "values are not finite"),
        (torch.zeros(6, dtype=torch.complex64), "values of dtype complex64"),
    ],
)
def test_values_that_no_reference_carries_are_refused(method, values, message):
    with pytest.raises(ValueError, match=message):
        getattr(Conditional(torch.zeros(6, 3), 1.0), method)(torch.zeros(1, 3), values)


def test_a_prior_without_any_weight_is_refused():
    with pytest.raises(ValueError, match="nothing but -inf"):
        Conditional(torch.zeros(2, 1), 1.0, torch.full((2,), -math.inf))


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
    with pytest.raises(ValueError, match=r"log_prior of shape \(2,\): needed is \(3,\)"):
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
