"""The tiled log-sum-exp against a dense one in float64: values, gradients, any tile, extreme scores."""

import math
from unittest.mock import patch

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pcl import scores
from pcl.scores import relative_log_sum_exp


def problem(num_queries, num_candidates, dim, scale=1.0, seed=0):
    generator = torch.Generator().manual_seed(seed)
    queries = scale * torch.randn(num_queries, dim, generator=generator, dtype=torch.float64)
    candidates = torch.randn(num_candidates, dim, generator=generator, dtype=torch.float64)
    return queries, candidates, torch.randint(num_candidates, (num_queries,), generator=generator)


def dense(queries, candidates, columns):
    matrix = queries.double() @ candidates.double().T
    return torch.logsumexp(matrix - matrix.gather(1, columns[:, None]), 1)


def value_and_gradients(function, queries, candidates, columns):
    """Return the values and the gradients of their sum with unequal weights."""
    leaves = [part.clone().requires_grad_() for part in (queries, candidates)]
    values = function(*leaves, columns)
    weights = torch.linspace(-1, 2, len(queries), dtype=values.dtype)
    return values.detach(), *torch.autograd.grad(values @ weights, leaves)


def tiled(queries, candidates, columns):
    return relative_log_sum_exp(queries, candidates, columns)[0]


@given(
    num_queries=st.integers(1, 9),
    num_candidates=st.integers(1, 9),
    dim=st.integers(1, 4),
    tile_elements=st.integers(1, 100),
    scale=st.sampled_from([0.1, 1.0, 30.0]),
    seed=st.integers(0, 2**32 - 1),
)
@settings(deadline=None)
def test_values_and_gradients_are_the_dense_ones_for_any_tile(
    num_queries, num_candidates, dim, tile_elements, scale, seed
):
    arguments = problem(num_queries, num_candidates, dim, scale, seed)
    with patch.dict(scores.TILE_ELEMENTS, cpu=tile_elements):
        found = value_and_gradients(tiled, *arguments)
    for part, expected in zip(found, value_and_gradients(dense, *arguments), strict=True):
        torch.testing.assert_close(part, expected, rtol=1e-12, atol=1e-12 * max(1.0, scale))


def test_autograd_checks_the_gradient():
    queries, candidates, columns = problem(5, 7, 3)
    with patch.dict(scores.TILE_ELEMENTS, cpu=15):
        assert torch.autograd.gradcheck(
            lambda q, c: tiled(q, c, columns), (queries.requires_grad_(), candidates.requires_grad_())
        )


def test_the_matrix_is_never_held_whole():
    queries, candidates, _ = problem(64, 50, 4)
    with patch.dict(scores.TILE_ELEMENTS, cpu=500):
        assert [t.indices(64)[1] - t.indices(64)[0] for t in scores._tiles(queries, candidates)] == [10] * 6 + [4]


@given(st.integers(1, 6), st.integers(1, 8), st.integers(1, 30), st.integers(0, 2**32 - 1))
@settings(deadline=None, max_examples=50)
def test_effective_negatives_are_those_of_the_definition(num_queries, num_candidates, tile_elements, seed):
    queries, candidates, columns = problem(num_queries, num_candidates, 3, seed=seed)
    with patch.dict(scores.TILE_ELEMENTS, cpu=tile_elements):
        effective = relative_log_sum_exp(queries.requires_grad_(), candidates, columns)[1]
    assert not effective.requires_grad
    for i in range(num_queries):
        negatives = np.exp(np.delete((queries[i].detach() @ candidates.T).numpy(), columns[i]))
        expected = negatives.sum() ** 2 / (negatives**2).sum() if len(negatives) else 0.0
        assert effective[i].item() == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("advantage", [0.0, 20.0, 60.0, 100.0, 1000.0])
def test_effective_negatives_do_not_depend_on_the_positive_score(advantage):
    candidates = torch.eye(5)
    queries = torch.tensor([[advantage, 0.0, 0.0, 0.0, -50.0]])
    effective = relative_log_sum_exp(queries, candidates, torch.tensor([0]))[1]
    assert effective.item() == pytest.approx(3.0, rel=1e-5)


@pytest.mark.parametrize("positive", ["largest", "smallest", "any"])
def test_scores_of_ten_thousand_overflow_nothing(positive):
    queries, candidates, columns = (part.float() for part in problem(20, 30, 4))
    queries *= 1e4 / (queries @ candidates.T).abs().max()
    matrix = queries @ candidates.T
    columns = {"largest": matrix.argmax(1), "smallest": matrix.argmin(1), "any": columns.long()}[positive]
    found = value_and_gradients(tiled, queries, candidates, columns)
    expected = value_and_gradients(dense, queries.double(), candidates.double(), columns)
    assert positive != "smallest" or expected[0].max() > 1e4
    for part, truth in zip(found, expected, strict=True):
        assert torch.isfinite(part).all()
        torch.testing.assert_close(part.double(), truth, rtol=1e-5, atol=1e-30 + 1e-6 * truth.abs().max().item())


@pytest.mark.parametrize("loss", [1e-4, 1e-7])
def test_a_tiny_loss_and_its_gradient_survive_single_precision(loss):
    batch = 512
    generator = torch.Generator().manual_seed(0)
    queries = math.log(batch / loss) * torch.eye(batch) + 0.3 * torch.randn(batch, batch, generator=generator)
    candidates, columns = torch.eye(batch), torch.arange(batch)
    found = value_and_gradients(tiled, queries, candidates, columns)
    expected = value_and_gradients(dense, queries.double(), candidates.double(), columns)
    assert 0.5 * loss < expected[0].mean() < 2 * loss
    assert found[0].dtype == torch.float32
    assert found[0].double().mean().item() == pytest.approx(expected[0].mean().item(), rel=0.003)
    for part, truth in zip(found, expected, strict=True):
        assert torch.linalg.norm(part.double() - truth) < 0.003 * torch.linalg.norm(truth)


def test_one_of_the_two_gradients_can_be_asked_for_alone():
    queries, candidates, columns = problem(4, 6, 3)
    candidates.requires_grad_()
    found, expected = (
        torch.autograd.grad(f(queries, candidates, columns).sum(), candidates)[0] for f in (tiled, dense)
    )
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
