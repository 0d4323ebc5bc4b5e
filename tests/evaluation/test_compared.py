"""Runs side by side: groups, means and spreads against numpy, and which claims numbers support."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pcl.evaluation.claims import claims
from pcl.evaluation.compared import (
    Compared,
    common_metrics,
    differing_keys,
    groups_of,
    metrics_table,
    shown,
    spread_of,
    training_seconds,
)
from pcl.evaluation.compared_figures import curves_figure, metrics_figure
from pcl.evaluation.compared_labels import label_table, per_label_table
from pcl.storage.curves import Curve


def run(name, seed=0, metrics=None, curves=None, **experiment):
    whole = {"seed": seed} | {key.replace("__", "."): value for key, value in experiment.items()}
    return Compared(name, Path("/runs") / name, whole, "checkpoint_00000010", metrics or {}, curves or {})


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=9))
def test_the_spread_is_that_of_numpy(values):
    found = spread_of(values)
    assert found.mean == pytest.approx(np.mean(values), rel=1e-9, abs=1e-9)
    if len(values) == 1:
        assert found.deviation is None
        assert found.standard_error == 0
    else:
        assert found.deviation == pytest.approx(np.std(values, ddof=1), rel=1e-9, abs=1e-9)
        assert found.standard_error == pytest.approx(found.deviation / np.sqrt(len(values)))


def test_runs_that_differ_in_their_seed_are_one_group():
    runs = [
        run(f"m-{name}-{seed}", seed, model__tilting=tilting, train__epochs=3)
        for seed in (1, 0)
        for name, tilting in (("inner", "inner_product"), ("cosine", "cosine"))
    ]
    groups = groups_of(runs)
    assert [(group.label, [one.seed for one in group.runs]) for group in groups] == [
        ("inner", [0, 1]),
        ("cosine", [0, 1]),
    ]
    assert differing_keys(groups) == {"model.tilting": ["inner_product", "cosine"]}


def test_labels_are_names_without_seeds_and_never_the_same():
    assert [group.label for group in groups_of([run("a", a=1), run("b", a=2)])] == ["a", "b"]
    assert [group.label for group in groups_of([run("x", a=1), run("x", a=2)])] == ["x (1)", "x (2)"]
    assert [group.label for group in groups_of([run("net_12", 12, a=1), run("net_13", 13, a=1), run("c", a=2)])] == [
        "net",
        "c",
    ]


def test_the_table_holds_what_all_runs_have_the_important_first():
    runs = [
        run("m-a-0", 0, {"median_rank": 4.0, "u_given_v_recall@1": 0.5, "only": 1.0}, a=1),
        run("m-a-1", 1, {"median_rank": 5.0, "u_given_v_recall@1": 0.7}, a=1),
        run("m-b-0", 0, {"median_rank": 9.0, "u_given_v_recall@1": 0.1}, a=2),
    ]
    assert common_metrics(runs) == (["u_given_v_recall@1"], ["median_rank"])
    assert metrics_table(groups_of(runs), ["u_given_v_recall@1", "median_rank"]) == [
        ["metric", "a (2 seeds)", "b"],
        ["u_given_v_recall@1", "0.6 ± 0.14", "0.1"],
        ["median_rank", "4.5 ± 0.71", "9"],
    ]
    many = groups_of([run(f"m-{letter}", 0, {"r": 1.0}, a=letter) for letter in "abcdefg"])
    assert metrics_table(many, ["r"]) == [["run", "r"], *([letter, "1"] for letter in "abcdefg")]


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ([1033.0, 1045.0], "1039 ± 8.5"),
        ([123456.0, 125456.0], "124,456 ± 1,414"),
        ([0.5], "0.5"),
        ([0.0, 0.0], "0 ± 0"),
    ],
)
def test_means_are_shown_with_their_spread(values, text):
    assert shown(spread_of(values)) == text


@given(st.lists(st.floats(1, 1e5), min_size=1, max_size=6), st.integers(1, 50))
def test_the_seconds_of_a_training_are_those_of_its_steps(seconds, every):
    """A training that logs every so many steps, each stretch of which took so long."""
    steps = [every * (number + 1) for number in range(len(seconds))]
    pace = Curve(steps, [every * 64 / one for one in seconds])
    assert training_seconds({"train/pairs_per_second": pace}, 64) == pytest.approx(sum(seconds))
    assert training_seconds({}, 64) is None


def test_curves_and_numbers_of_every_run_are_drawn():
    curve = {"train/loss": Curve([1, 2, 3], [3.0, 2.0, 1.0]), "train/temperature": Curve([1, 2], [1.0, 1.0])}
    runs = [run(f"m-{name}-{seed}", seed, {"r": 1.0}, curve, a=name) for name in "ab" for seed in range(3)]
    figure = curves_figure(groups_of(runs))
    assert [axis.get_title() for axis in figure.axes] == ["train/loss"]  # what never changes is not drawn
    assert len(figure.axes[0].lines) == 6
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["a", "b"]
    assert curves_figure(groups_of([run("x"), run("y", a=1)])) is None
    assert len(metrics_figure(groups_of(runs), ["r"]).axes[0].lines) == 4  # dots and a bar each


def label_runs(name, weights, sizes, losses):
    return [
        run(
            f"m-{name}-{seed}",
            seed,
            {
                "given_label_effective_sample_size": size,
                "given_label_drawn_distinct": min(size, 15.5),
                "given_label_0_effective_sample_size": size / 2,
                "given_label_10_effective_sample_size": size * 2,
                "label_negative_log_likelihood": loss,
                "label_negative_log_likelihood_low": loss - 0.01,
                "label_negative_log_likelihood_high": loss + 0.01,
                "label_accuracy": 0.99,
            },
            loss__kind="conditional",
            loss__weight_u_given_v=weights[0],
            loss__weight_v_given_u=weights[1],
        )
        for seed, (size, loss) in enumerate(zip(sizes, losses, strict=True))
    ]


def sentences(collapsed=(60.0, 70.0, 80.0), unfit=(0.9, 1.0, 1.1)):
    good, fit = (1000.0, 1010.0, 1020.0), (0.03, 0.031, 0.029)
    runs = label_runs("one", (0.0, 2.0), collapsed, fit) + label_runs("other", (2.0, 0.0), good, unfit)
    return claims(groups_of(runs + label_runs("both", (1.0, 1.0), good, fit)))


def test_a_question_is_answered_by_numbers_and_by_nothing_else():
    u, v, both = sentences()
    assert "predicts u from v (loss.weight_u_given_v=0)? Yes, by the effective sample size: " in u
    assert "one has 14.4 times less than other: it collapses onto few items." in u  # 1010 / 70
    assert "one: effective sample size 70 ± 10, different items among 16 draws 15.5 ± 0; other: " in u
    assert "(loss.weight_v_given_u=0)? Yes, by the negative log-likelihood: other has 33.3 times more than one." in v
    assert both.startswith("The loss of both has both parts: its conditional of u given v is as good as the best, that")
    u, v, _ = sentences(collapsed=(990.0, 1000.0, 1010.0), unfit=(0.031, 0.03, 0.032))
    assert "? No, by the effective" in u
    assert "collapses" not in u
    assert "? No, by the negative" in v


def test_the_best_of_all_is_not_compared_with_itself():
    _, v, _ = sentences(unfit=(0.001, 0.001, 0.001))
    assert "? No, by the negative log-likelihood: other is the best of all." in v


def test_differences_within_the_noise_of_the_seeds_are_none():
    u, _, _ = sentences(collapsed=(100.0, 700.0, 1900.0))
    assert "? No, by the effective sample size: one is not worse than other" in u


def test_no_question_is_asked_where_all_losses_have_both_parts():
    runs = label_runs("a", (1.0, 1.0), [9.0], [0.1]) + label_runs("b", (0.5, 1.0), [99.0], [0.2])
    assert claims(groups_of(runs)) == []


def test_tables_of_labels_have_intervals_and_a_row_a_label():
    groups = groups_of(
        label_runs("m", (1.0, 1.0), [10.0, 20.0], [0.5, 0.7]) + label_runs("n", (2.0, 1.0), [4.0], [0.3])
    )
    head, first, second = label_table(groups)
    assert head[2] == "negative log-likelihood, 95 %"
    assert first[2] == "0.6 ± 0.14 (0.5900 to 0.6100)"
    assert second[2] == "0.3 (0.2900 to 0.3100)"
    assert per_label_table(groups)[1:] == [["label 0", "7.5 ± 3.5", "2"], ["label 10", "30 ± 14", "8"]]
