"""u given a label against loops over the items, draws in pictures, items in doubt, intervals of label probabilities."""

import math

import numpy as np
import pytest
import torch

from pcl.conditional import Conditional
from pcl.errors import BadInputError
from pcl.evaluation.ambiguous import ambiguous_figure, most_ambiguous
from pcl.evaluation.classification import classification_intervals, classification_metrics, wilson_interval
from pcl.evaluation.drawing import PLAIN, images, vectors
from pcl.evaluation.draws import REPEATED, WRONG, Cell, Drawn, Row, draws_figure, row_of_draws
from pcl.evaluation.given_labels import NUM_DRAWS, chosen_label, given_labels


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def test_each_label_has_the_numbers_of_its_weights_and_draws():
    features, queries = torch.randn(50, 3, generator=seeded()), torch.randn(4, 3, generator=seeded(1))
    labels = torch.randint(3, (50,), generator=seeded(2))
    conditional = Conditional(features, 0.5)
    found = given_labels(conditional, queries, labels)
    drawn = conditional.draw(queries, NUM_DRAWS, seeded(0)).numpy()
    for label, query in enumerate(queries.double().numpy()):
        weights = [math.exp(2 * float(query @ x)) for x in features.double().numpy()]
        weights = [weight / sum(weights) for weight in weights]
        assert found.effective_sample_size[label] == pytest.approx(1 / sum(w**2 for w in weights), rel=1e-5)
        right = sum(w for w, one in zip(weights, labels.tolist(), strict=True) if one == label)
        assert found.right_share[label] == pytest.approx(right, abs=1e-6)
        assert found.drawn_right_share[label] == np.mean([labels[i] == label for i in drawn[label]])
        assert found.drawn_distinct[label] == len(set(drawn[label]))
        assert found.expected_distinct[label] == pytest.approx(sum(1 - (1 - w) ** NUM_DRAWS for w in weights), rel=1e-5)
    assert found.counts.tolist() == [*np.bincount(labels), 0]


def test_the_expected_number_of_distinct_draws_is_that_of_many_draws():
    conditional, query = Conditional(torch.linspace(-3, 3, 12)[:, None], 1.0), torch.ones(1, 1)
    found = given_labels(conditional, query, torch.zeros(12, dtype=torch.long)).expected_distinct.item()
    many = conditional.draw(query.expand(4000, 1), NUM_DRAWS, seeded(3))
    numbers = np.array([len(set(row)) for row in many.tolist()])
    assert abs(numbers.mean() - found) < 4 * numbers.std() / math.sqrt(4000)


@pytest.mark.parametrize(
    ("counts", "asked", "label"), [([1] * 10, None, 7), ([1] * 8, None, 7), ([1] * 7, None, 6), ([1] * 10, 0, 0)]
)
def test_the_label_that_is_shown(counts, asked, label):
    assert chosen_label({"counts": counts}, asked) == label
    assert chosen_label({}, None) is None


@pytest.mark.parametrize(
    ("statistics", "asked", "message"),
    [({"counts": [1, 1]}, 2, "evaluation.label=2: the labels are 0 to 1"), ({}, 0, "v are no labels here")],
)
def test_a_label_that_is_none_is_refused(statistics, asked, message):
    with pytest.raises(BadInputError, match=message):
        chosen_label(statistics, asked)


@pytest.mark.long
def test_repeats_are_framed_and_wrong_labels_are_named(tmp_path):
    items, labels = torch.rand(6, 8, 8), torch.tensor([7, 7, 4, 7, 7, 7])
    drawn = Drawn(torch.tensor([1, 2, 1, 5, 1]), torch.tensor([0.5, 0.25, 0.5, 0.001, 0.5]), 3.25)
    row = row_of_draws("mine", images(items), drawn, labels, 7)
    assert row.title == "mine: 3 of 5 distinct, effective sample size 3.2"
    assert [cell.frame for cell in row.cells] == [PLAIN, PLAIN, REPEATED, PLAIN, REPEATED]
    assert [cell.above for cell in row.cells] == ["", "label 4", "", "", ""]
    assert [cell.below for cell in row.cells] == ["w = 0.5", "w = 0.25", "w = 0.5", "w = 0.001", "w = 0.5"]
    figure = draws_figure([row, row], "a title")
    shown = [axis for axis in figure.axes if axis.images]
    np.testing.assert_array_equal(shown[1].images[0].get_array(), items[2])
    assert (shown[1].get_title(), shown[1].title.get_color()) == ("label 4", WRONG)
    assert len(shown) == 10
    figure.savefig(tmp_path / "draws.png")


def test_captions_say_what_the_first_item_is_where_it_is_compared_with():
    drawing = vectors(torch.rand(4, 5))
    cells = [Cell(drawing, 0, "given"), Cell(drawing, 1)]
    figures = (draws_figure([Row("", part)], "", first="the first draw") for part in (cells, cells[:1]))
    both, alone = (figure._supxlabel.get_text().replace("\n", " ") for figure in figures)
    assert both == "lines over the number of the component; grey behind a line: the first draw"
    assert alone == "lines over the number of the component"


def test_the_most_ambiguous_items_have_the_least_mean_margin():
    runs = [torch.randn(40, 4, generator=seeded(seed), dtype=torch.float64).log_softmax(1) for seed in (1, 2, 3)]
    margins = []
    for item in range(40):
        largest = [sorted(run[item].exp().tolist(), reverse=True)[:2] for run in runs]
        margins.append(np.mean([one - two for one, two in largest]))
    assert most_ambiguous(runs, 7).tolist() == np.argsort(margins)[:7].tolist()
    assert len(most_ambiguous(runs, 100)) == 40


@pytest.mark.parametrize(("num_labels", "num_items"), [(3, 1), (30, 5)])
def test_ambiguous_items_stand_beside_the_probabilities_of_every_model(num_labels, num_items, tmp_path):
    runs = {name: torch.randn(9, num_labels, generator=seeded(i)).log_softmax(1) for i, name in enumerate("ab")}
    items, labels = torch.arange(num_items), torch.arange(9) % num_labels
    figure = ambiguous_figure(images(torch.rand(9, 8, 8)), items, labels, runs)
    bars = [axis for axis in figure.axes if axis.patches]
    assert len(bars) == num_items
    (first,) = bars[:1]
    shown = [int(tick.get_text()) for tick in first.get_xticklabels()]
    assert [tick.get_weight() for tick in first.get_xticklabels() if tick.get_text() == "0"] in ([], ["bold"])
    heights = [patch.get_height() for patch in first.patches]
    expected = [float(run[0, label].exp()) for run in runs.values() for label in shown]
    np.testing.assert_allclose(heights, expected, rtol=1e-5)
    figure.savefig(tmp_path / "ambiguous.png")


def test_wilson_interval_solves_its_equation():
    """The ends are the shares that lie 1.96 of their own standard errors from what was found."""
    successes, totals = torch.tensor([0, 3, 10, 97]), torch.tensor([7, 10, 10, 200])
    for end in wilson_interval(successes, totals):
        gap = (successes / totals - end).abs().double()
        error = (end * (1 - end) / totals).sqrt()
        at_an_end = ((end == 0) | (end == 1)).numpy()
        np.testing.assert_allclose((gap / error).numpy()[~at_an_end], 1.959964, rtol=1e-5)


@pytest.mark.long
@pytest.mark.parametrize("sharpness", [1.0, 1.6])
def test_intervals_hold_the_truth_of_other_pairs(sharpness):
    """Of a calibrated model, whose error is 0, and of one that is too sure."""
    num_labels, number, scores = 3, 400, torch.randn(200_000, 3, generator=seeded(1), dtype=torch.float64)
    labels = torch.multinomial((1.5 * scores).softmax(1), 1, generator=seeded(2))[:, 0]
    claimed = (1.5 * sharpness * scores).log_softmax(1)
    truth = classification_metrics(claimed, labels)
    held = dict.fromkeys(truth, 0)
    for trial in range(100):
        part = slice(trial * number, (trial + 1) * number)
        found = classification_intervals(claimed[part], labels[part], seeded(trial))
        for name, (low, high) in found.items():
            assert low <= classification_metrics(claimed[part], labels[part])[name] <= high
            held[name] += low <= truth[name] <= high
    assert num_labels == 3
    assert min(held.values()) >= 88


def test_intervals_of_certain_predictions_are_finite_or_said_to_be_infinite():
    log_probabilities = torch.tensor([[0.0, -torch.inf]]).repeat(20, 1)
    right = classification_intervals(log_probabilities, torch.zeros(20), seeded())
    assert right["negative_log_likelihood"] == (0.0, 0.0)
    assert right["calibration_error"] == (0.0, 0.0)
    wrong = classification_intervals(log_probabilities, torch.ones(20), seeded())
    assert wrong["negative_log_likelihood"] == (math.inf, math.inf)
