"""Calibration within an evaluation: Gaussian pairs, whose learned conditionals have a known spread."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from pcl.data.loader import iterate_split
from pcl.data.shards import build_all
from pcl.evaluation.evaluate import evaluate
from pcl.evaluation.ranks import MOST_REFERENCES, chosen_components, chosen_pairs, in_which_way
from pcl.evaluation.splits import EvaluationOptions, Splits
from pcl.model import PairModel
from pcl.problems.arrays.memory import MemoryPairs
from pcl.problems.problem import drawn_by_form
from pcl.tilting import Temperature

CORRELATION = 0.8
NUM_PAIRS, NUM_TESTED = 12_000, 600


@pytest.fixture(scope="module")
def gaussian(tmp_path_factory):
    """Shards of pairs of three independent components each, u and v correlated, and a constant component of u."""
    root, generator = tmp_path_factory.mktemp("gaussian"), np.random.default_rng(1)
    u, noise = generator.standard_normal((2, NUM_PAIRS, 3), np.float32)
    v = CORRELATION * u + math.sqrt(1 - CORRELATION**2) * noise
    pairs = MemoryPairs(np.concatenate([u, np.ones((NUM_PAIRS, 1), np.float32)], 1), v, test_fraction=0.1, seed=0)
    return root, build_all(root, pairs, {}, 4, 500)


def model_of(tilting):
    """Return what the population loss ends in: u given v exact, or exact in the mean alone."""
    scale = 1 - CORRELATION**2 if tilting == "squared_distance" else 1.0
    encoders = [nn.Linear(number, 3, bias=False) for number in (4, 3)]
    for encoder, gain in zip(encoders, (CORRELATION, 1.0), strict=True):
        encoder.weight.data = gain / math.sqrt(scale) * torch.eye(3, encoder.in_features)
    return PairModel(*encoders, tilting, Temperature(1.0, learned=False, minimum=0.1, maximum=10.0)).eval()


def evaluated(gaussian, model, split="test", forms=("numbers", "numbers"), **options):
    given = EvaluationOptions(baselines=False, **{"calibration": NUM_TESTED} | options)
    return evaluate(model, *gaussian, split, given, drawn_by_form, forms=forms)


def held(level, ratio):
    """Return the probability that a normal value lies in the central interval of one that is wider by a ratio."""
    normal = torch.distributions.Normal(0.0, 1.0)
    return (2 * normal.cdf(ratio * normal.icdf(torch.tensor((1 + level) / 2))) - 1).item()


def test_an_exact_conditional_is_calibrated_and_one_with_the_prior_spread_is_too_wide(gaussian):
    exact = evaluated(gaussian, model_of("squared_distance"))
    narrow = math.sqrt(1 - CORRELATION**2)
    assert exact.metrics["u_given_v_calibration_p_value"] > 0.01
    assert exact.metrics["u_given_v_coverage_90"] == pytest.approx(0.9, abs=0.03)
    assert exact.metrics["u_given_v_relative_width"] == pytest.approx(narrow, abs=0.03)
    assert not any("spread of u given v" in note for note in exact.notes)

    wide = evaluated(gaussian, model_of("inner_product"))
    assert wide.metrics["u_given_v_calibration_p_value"] < 1e-6
    for level in (50, 90):
        expected = held(level / 100, 1 / narrow)
        assert wide.metrics[f"u_given_v_coverage_{level}"] == pytest.approx(expected, abs=0.04)
    assert wide.metrics["u_given_v_relative_width"] == pytest.approx(1, abs=0.05)
    (note,) = [note for note in wide.notes if "u given v" in note]
    assert note.startswith("Distrust the spread of u given v: 90 % intervals hold 9")
    assert note.endswith("too wide.")


@pytest.mark.parametrize(
    ("shift", "width"), [(0, 1.3), (0, 2), (0, 0.7), (0, 0.4), (1.5, 1), (3, 1), (2, 0.8), (-2, 1.2)]
)
def test_what_is_said_of_a_normal_law_is_true_of_it(shift, width):
    """Ranks of a normal truth in a law that is wider by a factor, and in one that lies beside it."""
    normal = torch.distributions.Normal(torch.zeros((), dtype=torch.float64), 1.0)
    truths = normal.icdf((torch.arange(20_000, dtype=torch.float64) + 0.5) / 20_000)
    ranks = normal.cdf((truths - shift) / width)
    half, most = (((ranks - 0.5).abs() < level / 2).double().mean().item() for level in (0.5, 0.9))
    expected = "shifted" if shift else "too wide" if width > 1 else "too narrow"
    assert in_which_way(half, most, (ranks.std() * math.sqrt(12)).item()) == expected


def test_every_component_has_a_row_and_the_figure_names_them(gaussian):
    found = evaluated(gaussian, model_of("squared_distance"))
    tables = {table[0][0]: table for table in (*found.tables, *found.details)}
    assert [row[0] for row in tables["intervals on 600 pairs"]][1:] == [
        "u given v (3 of 4 components)",
        "v given u (3 of 3 components)",
    ]
    rows = tables["component of u given v"][1:]
    assert [row[0] for row in rows] == ["0", "1", "2"]  # the constant one has no rank that tells anything
    shares = torch.tensor([[float(cell) for cell in row[1:]] for row in rows])
    assert shares[:, 2].mean() == pytest.approx(found.metrics["u_given_v_coverage_90"], abs=1e-3)
    labels = [text.get_text() for text in found.figures["calibration.png"].axes[2].get_legend().get_texts()]
    assert sum("component 2" in label for label in labels) == 1


def test_numbers_are_the_same_every_time_and_the_rest_of_an_evaluation_does_not_depend_on_them(gaussian):
    model = model_of("inner_product")
    one, again, without = (evaluated(gaussian, model, calibration=number) for number in (200, 200, 0))
    assert one.metrics == again.metrics
    assert without.metrics.items() <= one.metrics.items()
    assert "calibration.png" not in without.figures


@pytest.mark.parametrize(("forms", "judged"), [(("text", "numbers"), {"v"}), (("image", "text"), set())])
def test_only_numbers_are_judged(gaussian, forms, judged):
    found = evaluated(gaussian, model_of("inner_product"), forms=forms, calibration=50)
    assert {key[0] for key in found.metrics if "coverage" in key} == judged


def test_too_few_pairs_are_not_judged(gaussian):
    found = evaluated(gaussian, model_of("inner_product"), max_pairs=19)
    assert not any("coverage" in key for key in found.metrics)


@pytest.mark.parametrize("split", ["test", "train"])
def test_tested_pairs_are_no_references_of_which_there_are_many_more(gaussian, split):
    root, manifest = gaussian
    u, v = (torch.cat(part) for part in zip(*iterate_split(root, manifest, split), strict=True))
    options = EvaluationOptions(calibration=5000)
    splits = Splits(root, manifest, split, {"u": u, "v": v}, (u, v), options)
    tested, references = chosen_pairs(splits)
    assert len(references) >= 9 * len(tested) >= 9 * 900
    assert len(references) <= MOST_REFERENCES
    assert len(set(references)) == len(references)
    assert len(tested.unique()) == len(tested)
    if split == "train":
        assert not set(references) & set(tested.tolist())


def test_components_that_vary_are_chosen_evenly():
    items = torch.randn(5, 100, generator=torch.Generator().manual_seed(0))
    items[:, ::2] = 1.0
    chosen = chosen_components(items).tolist()
    assert len(chosen) == 8
    assert (chosen[0], chosen[-1]) == (1, 99)
    assert all(i % 2 for i in chosen)
    assert set(np.diff(chosen)) == {14}
    assert chosen_components(torch.ones(3, 4)).tolist() == []
