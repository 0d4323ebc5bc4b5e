"""Tiled log-sum-exps against dense ones in float64: values, gradients, any tile, extreme scores; exact normalisers."""

import math
from unittest.mock import patch

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pcl import scores
from pcl.scores import Atoms, choose_mode, negative_log_sum_exps, normalisers, tiles
from pcl.workers import OneWorker


def problem(num_queries, num_candidates, dim, scale=1.0, seed=0):
    generator = torch.Generator().manual_seed(seed)
    queries = scale * torch.randn(num_queries, dim, generator=generator, dtype=torch.float64)
    return queries, torch.randn(num_candidates, dim, generator=generator, dtype=torch.float64)


def dense(queries, candidates, first):
    matrix = (queries @ candidates.T).clone()
    matrix.diagonal(first).fill_(-math.inf)
    return torch.logsumexp(matrix, 1), torch.logsumexp(matrix, 0)


def value_and_gradients(function, queries, candidates, first):
    """Return both log-sum-exps and the gradients of their sum with unequal weights."""
    leaves = [part.clone().requires_grad_() for part in (queries, candidates)]
    values = torch.cat(function(*leaves, first)[:2])
    weights = torch.linspace(-1, 2, len(values), dtype=values.dtype)
    return values.detach(), *torch.autograd.grad(values @ weights, leaves)


@given(
    num_queries=st.integers(2, 9),
    more=st.integers(0, 5),
    first=st.integers(0, 5),
    dim=st.integers(1, 4),
    tile=st.integers(1, 12),
    scale=st.sampled_from([0.1, 1.0, 30.0]),
    seed=st.integers(0, 2**32 - 1),
)
@settings(deadline=None)
def test_values_and_gradients_are_the_dense_ones_for_any_tile(num_queries, more, first, dim, tile, scale, seed):
    arguments = (*problem(num_queries, num_queries + more, dim, scale, seed), min(first, more))

    def tiled(queries, candidates, first):
        return negative_log_sum_exps(queries, candidates, first, tile=tile)

    found = value_and_gradients(tiled, *arguments)
    for part, expected in zip(found, value_and_gradients(dense, *arguments), strict=True):
        torch.testing.assert_close(part, expected, rtol=1e-12, atol=1e-12 * max(1.0, scale))


def test_autograd_checks_the_gradient():
    queries, candidates = (part.requires_grad_() for part in problem(5, 7, 3))
    assert torch.autograd.gradcheck(lambda q, c: negative_log_sum_exps(q, c, 1, tile=3)[:2], (queries, candidates))


@pytest.mark.parametrize("output", [0, 1])
def test_one_of_the_two_outputs_can_be_used_alone(output):
    leaves = [part.requires_grad_() for part in problem(4, 6, 3)]
    found, expected = (torch.autograd.grad(f(*leaves, 1)[output].sum(), leaves) for f in (negative_log_sum_exps, dense))
    for part, truth in zip(found, expected, strict=True):
        torch.testing.assert_close(part, truth, rtol=1e-12, atol=1e-12)
    rows, columns, _ = negative_log_sum_exps(*leaves, 1, with_columns=False)
    assert torch.equal(rows, negative_log_sum_exps(*leaves, 1)[0])
    assert columns.shape == (0,)


@given(length=st.integers(0, 20), tile=st.integers(1, 25))
def test_tiles_cover_a_range_once(length, tile):
    cut = tiles(length, tile)
    assert [i for part in cut for i in range(part.start, part.stop)] == list(range(length))
    assert all(part.stop - part.start <= tile for part in cut)


def test_no_memory_is_as_large_as_the_matrix():
    """Of all tensors made by a forward and a backward pass, none has more than a tile or the features."""
    largest = 0

    class Watch(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, function, types, arguments=(), options=None):
            nonlocal largest
            result = function(*arguments, **(options or {}))
            for part in result if isinstance(result, tuple | list) else [result]:
                if isinstance(part, torch.Tensor):
                    largest = max(largest, part.untyped_storage().nbytes() // part.element_size())
            return result

    queries, candidates = (part.requires_grad_() for part in problem(200, 200, 4))
    with Watch():
        rows, columns, _ = negative_log_sum_exps(queries, candidates, tile=16)
        (rows.sum() + columns.sum()).backward()
    assert 256 <= largest <= 200 * 4


@given(st.integers(1, 6), st.integers(0, 3), st.integers(1, 9), st.integers(0, 2**32 - 1))
@settings(deadline=None, max_examples=50)
def test_effective_negatives_are_those_of_the_definition(num_queries, more, tile, seed):
    queries, candidates = problem(num_queries, num_queries + more, 3, seed=seed)
    effective = negative_log_sum_exps(queries.requires_grad_(), candidates, more, tile=tile)[2]
    whole = scores._held_whole(queries, candidates, more)[2]
    assert not effective.requires_grad
    assert not whole.requires_grad
    for i in range(num_queries):
        negatives = np.exp(np.delete((queries[i].detach() @ candidates.T).numpy(), more + i))
        expected = negatives.sum() ** 2 / (negatives**2).sum() if len(negatives) else 0.0
        assert effective[i].item() == pytest.approx(expected, rel=1e-12)
        assert whole[i].item() == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("mode", ["plain", "tiled"])
@pytest.mark.parametrize("sign", [-1, 1])
def test_scores_of_ten_thousand_overflow_nothing(mode, sign):
    queries, candidates = (part.float() for part in problem(20, 20, 4))
    queries *= sign * 1e4 / (queries @ candidates.T).abs().max()
    form = scores._form(mode)
    found = value_and_gradients(form, queries, candidates, 0)
    expected = value_and_gradients(dense, queries.double(), candidates.double(), 0)
    assert expected[0].max() > 1e3
    for part, truth in zip(found, expected, strict=True):
        assert torch.isfinite(part).all()
        torch.testing.assert_close(part.double(), truth, rtol=1e-4, atol=1e-3 * truth.abs().max().item())


@pytest.mark.parametrize("mode", ["plain", "tiled"])
def test_a_dominating_positive_overflows_nothing(mode):
    queries = (1e4 * torch.eye(6)).requires_grad_()
    over_u, over_v, effective = normalisers(queries, torch.eye(6), OneWorker(), mode)
    (over_u.sum() + over_v.sum()).backward()
    torch.testing.assert_close(over_v, torch.full((6,), 5.0).log())
    torch.testing.assert_close(over_u, over_v)
    torch.testing.assert_close(effective, torch.full((6,), 5.0))
    torch.testing.assert_close(queries.grad, (1 - torch.eye(6)) * 2 / 5)


@pytest.mark.parametrize("mode", ["plain", "tiled", "one_sided"])
def test_a_single_pair_has_no_negative_and_no_gradient(mode):
    queries, candidates = (part.requires_grad_() for part in problem(1, 1, 3))
    over_u, over_v, effective = normalisers(queries, candidates, OneWorker(), mode)
    assert over_u.item() == over_v.item() == torch.finfo(torch.float64).min
    assert effective.item() == 0
    assert not any(g.any() for g in torch.autograd.grad(over_u + over_v, (queries, candidates)))


def test_the_mode_follows_the_number_of_scores():
    with patch.object(scores, "PLAIN_ELEMENTS", 100):
        assert [choose_mode("auto", *size) for size in ((10, 1), (11, 1), (5, 4), (6, 4))] == [
            "plain",
            "tiled",
            "plain",
            "one_sided",
        ]
        assert choose_mode("tiled", 1, 1) == "tiled"
    with pytest.raises(ValueError, match="mode 'fast' is not known; choose one of auto, plain, tiled, one_sided"):
        choose_mode("fast", 1, 1)
    with pytest.raises(ValueError, match="tile 0"):
        negative_log_sum_exps(*problem(2, 2, 1), tile=0)


def test_atoms_normalise_over_all_values_of_a_modality():
    queries, features = problem(5, 3, 2)
    prior = torch.tensor([0.2, 0.0, 0.8], dtype=torch.float64)
    atoms = Atoms(features, prior.log() - 7)
    expected = ((queries @ features.T).exp() * prior).sum(1).log()
    torch.testing.assert_close(atoms.log_normaliser(queries), expected, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(atoms.log_probabilities.exp(), prior)
    for wrong in (torch.zeros(2), torch.full((3,), -math.inf)):
        with pytest.raises(ValueError, match="for 3 atoms: every atom needs the log of its weight"):
            Atoms(features, wrong)
