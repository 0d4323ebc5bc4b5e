"""What the page of a reconstruction says of its scores."""

import itertools

import pytest

from pcl.problems.ocean.reconstruct.report import HONEST, spread_word

PLACES = {50: "in the middle", 90: "at the ends"}
SHARES = {50: (0, 30, 39, 40, 50, 60, 61, 70, 100), 90: (0, 50, 82, 83, 90, 96, 97, 100)}


@pytest.mark.parametrize(("half", "most"), itertools.product(*SHARES.values()))
def test_the_word_for_a_spread_is_true_of_both_intervals(half, most):
    word, is_honest = spread_word({50: half, 90: most}), []
    for level, share in ((50, half), (90, most)):
        (low, high), place = HONEST[level], PLACES[level]
        of_all = [part for part in word.split(" and ") if not any(one in part for one in PLACES.values())]
        said = " ".join([part for part in word.split(" and ") if place in part] + of_all)
        assert ("too narrow" in said) == (share < low), word
        assert ("too wide" in said) == (share > high), word
        is_honest.append(low <= share <= high)
    assert (word == "honest") == all(is_honest)
