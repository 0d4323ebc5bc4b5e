"""Variants of a run file: which runs it stands for, and what is refused before any is trained."""

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pcl.commands.command_line import check_is_one_run
from pcl.config.identity import differing, experiment
from pcl.config.load import load_config, resolved_yaml
from pcl.config.variants import load_sweep
from pcl.errors import BadInputError

BASE = """
name: small
data: {source: gaussian_process, shards: shards}
model: {embedding_dim: 3, encoder_u: linear, encoder_v: linear}
train: {epochs: 4, global_batch: 512, learning_rate: 0.03}
"""
VARIANTS = """
seeds: [3, 1]
variants:
  inner: {}
  squared: {model.tilting: squared_distance, train: {epochs: 2}}
"""


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "run.yaml"
    path.write_text(BASE + VARIANTS)
    return path


def refusal(*arguments):
    with pytest.raises(BadInputError) as found:
        load_sweep(*arguments)
    return str(found.value)


def test_every_variant_has_every_seed_and_a_name_of_both(file):
    sweep = load_sweep(file)
    found = [(run.variant, run.config.name, run.config.seed, run.config.train.epochs) for run in sweep.runs]
    assert found == [
        ("inner", "small-inner-3", 3, 4),
        ("squared", "small-squared-3", 3, 2),
        ("inner", "small-inner-1", 1, 4),
        ("squared", "small-squared-1", 1, 2),
    ]
    assert sweep.name == "small"
    assert sweep.storage == sweep.runs[0].config.storage


def test_a_run_is_configured_as_if_its_keys_were_given_by_hand(file, tmp_path):
    """Its record is that of any other run: nothing of the sweep is left in it."""
    (tmp_path / "base.yaml").write_text(BASE)
    by_hand = load_config(
        tmp_path / "base.yaml",
        ["seed=1", "model.tilting=squared_distance", "train.epochs=2", "name=small-squared-1"],
    )
    assert load_sweep(file).runs[3].config == by_hand
    assert resolved_yaml(load_sweep(file).runs[3].config) == resolved_yaml(by_hand)


def test_the_command_line_comes_last_and_may_join_or_replace_variants(file):
    assert {run.config.train.epochs for run in load_sweep(file, ["train.epochs=9"]).runs} == {9}
    assert [run.config.name for run in load_sweep(file, ["seeds=[]", "name=x"]).runs] == ["x-inner-0", "x-squared-0"]
    changed = load_sweep(file, ["variants.inner.train.epochs=7", "seeds=[0]"])
    assert [(run.variant, run.config.train.epochs) for run in changed.runs] == [("inner", 7), ("squared", 2)]
    replaced = load_sweep(file, ["variants={large: {model.embedding_dim: 5}}", "seeds=[0]"])
    assert [(run.variant, run.config.model.embedding_dim) for run in replaced.runs] == [("large", 5)]
    assert [run.config.name for run in load_sweep(file, ["variants={}"]).runs] == ["small-3", "small-1"]


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("variants={a: {train.epoch: 3}}", "variant a: 'train.epoch' is not a key: the nearest is train.epochs"),
        ("variants={a: {train.epochs: none}}", "variant a: train.epochs=none: it must be an integer"),
        ("variants={a: {train.learning_rate: -1}}", "train.learning_rate=-1.0: it must be more than 0"),
        ("variants={a: {}, b: {train.log_every: 7}}", "small-a-3 and small-b-3 are the same run: no key on which"),
        ("variants={a: {seed: 5}}", "variants.a.seed and seeds are both given"),
        ("variants={a: {name: x}}", "variants.a.name: give name for all variants"),
        ("variants={a: {train.epochs: 3, train: {epochs: 4}}}", "variants.a.train.epochs is given twice"),
        ("variants={a: 3}", "variants.a holds '3': it must be a mapping of keys"),
        ("variants=3", "variants=3: it must be a mapping"),
        ("variants={a/b: {}}", "it names a folder inside storage"),
        ("seeds=[1, 1]", "seeds=[1, 1]: give different numbers"),
        ("seeds=[-1]", "seeds=[-1]: give different numbers, each at least 0"),
        ("seeds=[x]", "seeds=[x]: it must be an integer"),
        ("seed=5", "seed=... and seeds=[3, 1] are both given"),
        ("train.epoch=3", "'train.epoch' is not a key"),
    ],
)
def test_what_cannot_be_trained_is_refused_in_one_line(file, override, said):
    message = refusal(file, [override])
    assert said in message
    assert "\n" not in message
    assert message.count("is not a key") <= 1


def test_all_wrong_variants_are_named_at_once(file):
    message = refusal(file, ["variants={a: {train.epoch: 3}, b: {}, c: {model.tilting: dot}}"])
    assert "variant a: 'train.epoch'" in message
    assert "variant c: model.tilting=dot: choose one of" in message
    assert "variant b" not in message


def test_a_file_of_one_run_and_the_folder_of_a_run_are_no_sweep(file, tmp_path):
    file.write_text(BASE)
    assert "holds neither variants nor seeds" in refusal(file)
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.yaml").write_text(BASE)
    assert "is a run: give the run file" in refusal(tmp_path / "run")


def test_a_command_of_one_run_refuses_a_file_of_several(file):
    with pytest.raises(BadInputError, match=r"pcl train takes one: pcl sweep .*run\.yaml trains"):
        check_is_one_run(load_config(file), str(file), "pcl train")
    file.write_text(BASE)
    check_is_one_run(load_config(file), str(file), "pcl train")


@settings(max_examples=6, deadline=None)
@given(
    st.dictionaries(st.sampled_from("abc"), st.integers(1, 3), min_size=1),
    st.sets(st.integers(0, 2**63 - 1), max_size=2),
)
def test_runs_are_the_product_and_no_two_are_alike(tmp_path_factory, epochs, seeds):
    path = tmp_path_factory.mktemp("sweep") / "run.yaml"
    path.write_text(BASE)
    text = ", ".join(f"{name}: {{train.epochs: {number}}}" for name, number in epochs.items())
    given = [f"variants={{{text}}}", f"seeds={sorted(seeds)}"]
    if len(set(epochs.values())) < len(epochs):
        assert "are the same run" in refusal(path, given)
        return
    runs = load_sweep(path, given).runs
    assert len(runs) == len(epochs) * max(1, len(seeds)) == len({run.config.name for run in runs})
    for one, other in itertools.combinations(runs, 2):
        assert differing(experiment(one.config), experiment(other.config))


CROSSED = """
variants:
  small: {}
  large: {model: {embedding_dim: 5}, train.epochs: 7}
crossed_with:
  loss: {one: {}, other: {loss.kind: joint}}
  tilting: {inner: {}, squared: {model.tilting: squared_distance, train: {epochs: 2}}}
left_out: [large-other-*]
"""


def test_variants_that_are_crossed_are_all_combined_but_for_those_left_out(file):
    file.write_text(BASE + CROSSED)
    found = {
        run.variant: (c.model.embedding_dim, c.loss.kind, c.model.tilting, c.train.epochs)
        for run in load_sweep(file).runs
        for c in [run.config]
    }
    assert found == {
        "small-one-inner": (3, "conditional", "inner_product", 4),
        "small-one-squared": (3, "conditional", "squared_distance", 2),
        "small-other-inner": (3, "joint", "inner_product", 4),
        "small-other-squared": (3, "joint", "squared_distance", 2),
        "large-one-inner": (5, "conditional", "inner_product", 7),
        "large-one-squared": (5, "conditional", "squared_distance", 2),
    }
    run = load_sweep(file).runs[-1].config
    assert run.name == "small-large-one-squared-0"
    assert (run.variants, run.crossed_with, run.left_out) == ({}, {}, [])


def test_the_command_line_may_change_what_variants_are_crossed_with(file):
    file.write_text(BASE + CROSSED)
    changed = load_sweep(file, ["crossed_with.loss.other.loss.kind=logistic", "left_out=[*-one-*, *-squared]"])
    assert {run.variant: run.config.loss.kind for run in changed.runs} == dict.fromkeys(
        ("small-other-inner", "large-other-inner"), "logistic"
    )
    replaced = load_sweep(file, ["variants={}", "crossed_with={e: {two: {model.embedding_dim: 2}}}", "left_out=[]"])
    assert [(run.variant, run.config.model.embedding_dim) for run in replaced.runs] == [("two", 2)]
    with pytest.raises(BadInputError, match="stands for several runs"):
        check_is_one_run(load_config(file, ["variants={}"]), str(file), "pcl train")


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("left_out=[large-tiny-*]", "left_out: 'large-tiny-*' fits none of small-one-inner, "),
        ("crossed_with=3", "crossed_with=3: it must be a mapping"),
        ("crossed_with={loss: 3}", "crossed_with.loss=3: it must be a mapping"),
        ("crossed_with={loss: {one: {name: x}}}", "crossed_with.loss.one.name: give name for all variants"),
        ("crossed_with={loss: {one: {train.epoch: 1}}}", "'train.epoch' is not a key"),
    ],
)
def test_what_cannot_be_crossed_is_refused_in_one_line(file, override, said):
    file.write_text(BASE + CROSSED)
    message = refusal(file, [override, *([] if override.startswith("left_out") else ["left_out=[]"])])
    assert said in message
    assert "\n" not in message
