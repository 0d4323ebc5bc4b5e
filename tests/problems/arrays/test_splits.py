"""Splits: complete, disjoint, of the size asked for, the same for the same seed, no group on both sides, a gap kept."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pcl.errors import BadInputError
from pcl.problems.arrays.settings import ArraysSettings
from pcl.problems.arrays.splits import NEITHER, TEST, TRAIN, by_group, by_order, divide, random_split, stated

FRACTION = st.floats(0.01, 0.99)
SEED = st.integers(0, 2**63 - 1)


@given(num_pairs=st.integers(1, 400), fraction=FRACTION, seed=SEED)
def test_a_random_split_has_the_size_asked_for_and_is_a_function_of_the_seed(num_pairs, fraction, seed):
    split = random_split(num_pairs, fraction, seed)
    assert split.shape == (num_pairs,)
    assert set(split.tolist()) <= {TRAIN, TEST}
    assert (split == TEST).sum() == round(num_pairs * fraction)
    np.testing.assert_array_equal(split, random_split(num_pairs, fraction, seed))


def test_every_pair_is_as_likely_to_be_held_out():
    counts = sum(random_split(20, 0.25, seed) == TEST for seed in range(2000))
    deviation = (2000 * 0.25 * 0.75) ** 0.5
    assert np.abs(counts - 500).max() < 4 * deviation


@given(groups=st.lists(st.integers(0, 12), min_size=2, max_size=200), fraction=FRACTION, seed=SEED)
def test_no_group_is_on_both_sides(groups, fraction, seed):
    groups = np.array(groups)
    if len(np.unique(groups)) < 2:
        with pytest.raises(BadInputError, match="one group"):
            by_group(groups, fraction, seed)
        return
    split = by_group(groups, fraction, seed)
    assert not set(groups[split == TRAIN]) & set(groups[split == TEST])
    smallest = np.unique(groups, return_counts=True)[1].min()
    assert 0 < (split == TEST).sum() <= max(round(len(groups) * fraction), smallest) < len(groups) + smallest


@given(groups=st.lists(st.sampled_from("abcdefg"), min_size=2).filter(lambda x: len(set(x)) > 1), seed=SEED)
def test_only_which_pairs_share_a_group_matters_not_its_kind(groups, seed):
    texts = np.array(groups)
    numbers = np.unique(texts, return_inverse=True)[1]
    np.testing.assert_array_equal(by_group(texts, 0.3, seed), by_group(numbers, 0.3, seed))


@given(num_pairs=st.integers(1, 300), fraction=FRACTION, gap=st.integers(0, 400))
def test_the_last_pairs_are_held_out_and_a_gap_lies_before_them(num_pairs, fraction, gap):
    split = by_order(num_pairs, fraction, gap)
    test, train = np.flatnonzero(split == TEST), np.flatnonzero(split == TRAIN)
    assert len(test) == round(num_pairs * fraction)
    assert test.tolist() == list(range(num_pairs - len(test), num_pairs))
    assert train.tolist() == list(range(max(0, num_pairs - len(test) - gap)))
    assert len(test) + len(train) + (split == NEITHER).sum() == num_pairs


@pytest.mark.parametrize("values", [[0, 1, 1], [0.0, 1.0, 1.0], [False, True, True], ["train", "test", "test"]])
def test_a_split_is_given_by_numbers_or_names(values):
    assert stated(np.array(values)).tolist() == [TRAIN, TEST, TEST]


@pytest.mark.parametrize(
    ("settings", "arrays", "message"),
    [
        ({"split": "group"}, {}, "split=group needs groups"),
        ({"split": "given"}, {}, "split=given needs given"),
        ({}, {"groups": np.arange(9)}, "split=random does not use groups"),
        ({"split": "order"}, {"given": np.arange(9)}, "split=order does not use given"),
        ({"gap": 3}, {}, "gap=3 and split=random"),
        ({"split": "group"}, {"groups": np.arange(8)}, "groups has shape (8,) and there are 9 pairs"),
        ({"split": "group"}, {"groups": np.full(9, np.nan)}, "groups lacks values"),
        ({"split": "group"}, {"groups": np.array([None] * 9)}, "groups lacks values, or holds objects"),
        ({"split": "given"}, {"given": np.arange(9)}, "a pair is said to be in '2'"),
        ({"split": "given"}, {"given": np.array(["train", "val", "test"] * 3)}, "a pair is said to be in 'val'"),
    ],
)
def test_what_does_not_fit_is_refused_in_a_line(settings, arrays, message):
    with pytest.raises(BadInputError) as caught:
        divide(ArraysSettings(**settings), 9, 0, arrays.get("groups"), arrays.get("given"))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
