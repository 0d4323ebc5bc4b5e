"""Retrieval ranks against a brute-force matrix of all scores, with duplicates, ties and any block size."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pcl.evaluation.retrieval import both_ranks, identity_of, retrieval_metrics, retrieval_ranks


def brute_force_ranks(queries, candidates, query_values, candidate_values):
    """Apply the stated rule to one query at a time."""
    pairs = set(zip(query_values, candidate_values, strict=True))
    scores = queries.numpy() @ candidates.numpy().T
    ranks = []
    for row, value in zip(scores, query_values, strict=True):
        relevant = [(value, other) in pairs for other in candidate_values]
        best = max(score for score, is_relevant in zip(row, relevant, strict=True) if is_relevant)
        ranks.append(1 + sum(score >= best for score, r in zip(row, relevant, strict=True) if not r))
    return ranks


@st.composite
def problems(draw):
    """Whole numbers: ties are exact; values repeat on both sides, and equal ones have equal features."""
    num_pairs, dim = draw(st.integers(1, 12)), draw(st.integers(1, 3))
    values = [draw(st.lists(st.integers(0, 5), min_size=num_pairs, max_size=num_pairs)) for _ in range(2)]
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**32 - 1)))
    features = [torch.randint(-2, 3, (6, dim), generator=generator).float()[of] for of in values]
    return *features, *values


@given(problems(), st.integers(1, 15))
@settings(deadline=None, max_examples=300)
def test_ranks_are_those_of_the_rule_for_any_block(problem, block_pairs):
    u, v, *values = problem
    ids = [identity_of(torch.tensor(side)) for side in values]
    v_given_u, u_given_v = both_ranks(u, v, *ids, block_pairs)
    assert v_given_u.tolist() == brute_force_ranks(*problem)
    assert u_given_v.tolist() == brute_force_ranks(v, u, *values[::-1])
    assert retrieval_ranks(v, u, *ids[::-1], block_pairs).tolist() == u_given_v.tolist()


def test_a_copy_of_the_answer_is_an_answer():
    """The query a occurs with x and with y, so the y that belongs to b is not a rival of the y that belongs to a."""
    u, v = identity_of(torch.tensor([0, 0, 1])), identity_of(torch.tensor([5, 6, 6]))
    features = {5: [0.0, 1.0], 6: [1.0, 0.0]}
    candidates = torch.tensor([features[value] for value in (5, 6, 6)])
    queries = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 0.0]])
    assert retrieval_ranks(queries, candidates, u, v).tolist() == [1, 1, 2]


def test_distinct_items_without_ties_are_ranked_as_by_sorting():
    generator = torch.Generator().manual_seed(0)
    queries, candidates = (torch.randn(200, 8, generator=generator) for _ in range(2))
    order = (queries @ candidates.T).argsort(1, descending=True)
    expected = [row.tolist().index(i) + 1 for i, row in enumerate(order)]
    ids = torch.arange(200)
    for block_pairs in (7, 200, 2048):
        assert retrieval_ranks(queries, candidates, ids, ids, block_pairs).tolist() == expected


def test_ties_count_against_the_model():
    same, ids = torch.ones(4, 2), torch.arange(4)
    assert retrieval_ranks(same, same, ids, ids).tolist() == [4, 4, 4, 4]
    labels = torch.tensor([0, 0, 0, 1])  # equal labels are one answer
    assert retrieval_ranks(same, same, ids, labels).tolist() == [2, 2, 2, 4]
    assert retrieval_ranks(same, same, torch.zeros(4), ids).tolist() == [1, 1, 1, 1]


@pytest.mark.parametrize("side", [0, 1])
def test_scores_that_are_not_numbers_find_nothing(side):
    features, ids = [torch.eye(3), torch.eye(3)], torch.arange(3)
    features[side] = features[side] * torch.nan
    assert retrieval_ranks(*features, ids, ids).tolist() == [3, 3, 3]


def test_pairs_need_as_many_of_each():
    ids = torch.arange(3)
    with pytest.raises(ValueError, match="3 u, 2 v, 3 and 2 ids"):
        retrieval_ranks(torch.eye(3), torch.eye(3)[:2], ids, ids[:2])
    with pytest.raises(ValueError, match="must be equal"):
        retrieval_ranks(torch.eye(3), torch.eye(3), ids, ids[:2])


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2)), min_size=1, max_size=12))
@settings(deadline=None, max_examples=50)
def test_equal_items_have_equal_numbers(items):
    found = identity_of(torch.tensor(items, dtype=torch.float64)).tolist()
    for i, first in enumerate(items):
        for j, second in enumerate(items):
            assert (found[i] == found[j]) == (first == second)
    assert set(found) == set(range(len(set(items))))


def test_items_of_any_shape_and_dtype_are_numbered():
    images = torch.zeros(3, 2, 2, dtype=torch.uint8)
    images[1, 1, 1] = 1
    assert identity_of(images).tolist() == [0, 1, 0]
    assert identity_of(torch.tensor([3, 1, 3, 2], dtype=torch.uint8)).tolist() == [0, 1, 0, 2]
    assert identity_of(images.transpose(1, 2)).tolist() == [0, 1, 0]


@given(st.lists(st.integers(1, 30), min_size=1, max_size=20), st.lists(st.integers(1, 30), max_size=4))
@settings(deadline=None, max_examples=50)
def test_metrics_are_shares_and_the_median(ranks, recall_at):
    found = retrieval_metrics(torch.tensor(ranks), recall_at)
    expected = {f"recall@{k}": sum(rank <= k for rank in ranks) / len(ranks) for k in recall_at}
    assert found == pytest.approx(expected | {"median_rank": np.median(ranks)})
