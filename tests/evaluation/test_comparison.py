"""Chance against all orders of few candidates, and whether a difference is told from noise."""

import itertools
import statistics

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pcl.evaluation.comparison import chance_metrics, is_behind
from pcl.evaluation.retrieval import identity_of


def ranks_in_all_orders(query_values, candidate_values):
    pairs = set(zip(query_values, candidate_values, strict=True))
    ranks = []
    for value in query_values:
        relevant = [(value, other) in pairs for other in candidate_values]
        ranks += [1 + order.index(True) for order in itertools.permutations(relevant)]
    return ranks


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2)), min_size=1, max_size=6))
@settings(deadline=None, max_examples=60)
def test_chance_is_the_mean_over_all_orders(pairs):
    query, candidate = zip(*pairs, strict=True)
    ranks = ranks_in_all_orders(query, candidate)
    found = chance_metrics(*(identity_of(torch.tensor(side)) for side in (query, candidate)), [1, 2, 5, 50])
    expected = {f"recall@{k}": sum(rank <= k for rank in ranks) / len(ranks) for k in (1, 2, 5, 50)}
    assert found == pytest.approx(expected | {"median_rank": statistics.median_low(ranks)})


def test_chance_of_many_pairs_is_quick_and_exact():
    labels = torch.arange(60_000) % 10
    found = chance_metrics(torch.arange(60_000), labels, [1, 5])
    assert found["recall@1"] == pytest.approx(0.1)
    assert found["recall@5"] == pytest.approx(1 - 0.9**5, abs=1e-4)
    assert found["median_rank"] == 7
    assert chance_metrics(torch.arange(1000), torch.arange(1000), [10])["recall@10"] == pytest.approx(0.01)


@pytest.mark.parametrize("copies", [1, 20])
def test_noise_is_seldom_called_a_loss(copies):
    """Two ways of equal power differ by more than two standard errors once in forty, with copies of queries too."""
    generator = torch.Generator().manual_seed(0)
    said = 0
    for _ in range(400):
        one, other = ((torch.rand(200, generator=generator) < 0.4).repeat_interleave(copies) for _ in range(2))
        said += is_behind(one, other, torch.arange(200).repeat_interleave(copies))
    assert 2 <= said <= 22


def test_a_difference_is_found_in_one_direction_only():
    generator = torch.Generator().manual_seed(0)
    weak, strong = (torch.rand(500, generator=generator) < p for p in (0.4, 0.55))
    queries = torch.arange(500)
    assert is_behind(weak, strong, queries)
    assert not is_behind(strong, weak, queries)
    assert not is_behind(weak, weak, queries)
    assert not is_behind(torch.zeros(5), torch.ones(5), torch.zeros(5))  # one query is no sample
    assert is_behind(torch.zeros(5), torch.ones(5), torch.arange(5))
