"""Records outlive code: shards, a stopped run, an evaluation and theory results of version 0.1, in tests/recorded."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from pcl.config.identity import data_identity, differing, experiment, flatten
from pcl.config.load import load_config
from pcl.config.page import page_of_keys
from pcl.gaussian.process import GaussianProcessPair
from pcl.theory import store as stores
from pcl.theory.plan import plan, run_task
from pcl.theory.store import Store, code_version
from pcl.train.runs import recorded_experiment
from tests.config.keys import KEYS, value
from tests.typed import ROOT, finish, here, start

RECORDED = Path(__file__).with_name("recorded")
CONFIG = str(RECORDED / "run" / "config.yaml")


@pytest.fixture
def where(tmp_path):
    """The recorded shards and run, and what names them."""
    shutil.copytree(RECORDED / "shards", tmp_path / "shards")
    shutil.copytree(RECORDED / "run", tmp_path / "runs" / "recorded")
    return (f"data.shards={tmp_path / 'shards'}", f"storage={tmp_path / 'runs'}")


def done(command, *arguments):
    code, output, errors = here(command, CONFIG, *arguments)
    assert code == 0, errors
    return output


def test_recorded_shards_are_verified_and_none_is_written(where):
    before = {path: path.read_bytes() for path in (RECORDED / "shards").iterdir()}
    assert "8 of 8 shards verified, 0 to write" in done("shards", *where)
    for path, content in before.items():
        assert (Path(where[0].partition("=")[2]) / path.name).read_bytes() == content


def test_a_missing_recorded_shard_is_written_again_to_the_byte(where):
    shard = Path(where[0].partition("=")[2]) / "train-000002.tar"
    shard.unlink()
    assert "7 of 8 shards verified, 1 to write" in done("shards", *where)
    assert shard.read_bytes() == (RECORDED / "shards" / shard.name).read_bytes()


def test_a_recorded_run_is_resumed_and_evaluated(where, shared_ray):
    """To the bit where the processor rounds as that one did which it was recorded on."""
    run = Path(where[1].partition("=")[2]) / "recorded"
    output = done("evaluate", *where, "evaluation.num_examples=0", "evaluation.checkpoint=checkpoint_00000101")
    assert str(run / "evaluations" / "checkpoint_00000101") in output
    recorded, found = (
        json.loads((folder / "evaluations" / "checkpoint_00000101" / "metrics.json").read_text())
        for folder in (RECORDED / "run", run)
    )
    names = {"u_to_v": "v_given_u", "v_to_u": "u_given_v"}  # their directions then
    for key, number in recorded.items():
        if isinstance(number, float):
            now = next((key.replace(old, new) for old, new in names.items() if old in key), key)
            assert found[now] == pytest.approx(number, rel=1e-5, abs=1e-12)
    assert found["experiment"] == recorded["experiment"]

    code, output, errors = finish(start("train", *where, config=CONFIG, **shared_ray))
    assert code == 0, errors
    assert "going on from checkpoint_00000101" in output
    whole, again = (
        torch.load(path, weights_only=True)["model"]
        for path in (RECORDED / "final.pt", run / "checkpoint_00001000" / "state.pt")
    )
    for name, weight in whole.items():
        torch.testing.assert_close(again[name], weight, rtol=1e-4, atol=1e-5)
    if is_recorded_processor():
        assert all(torch.equal(again[name], weight) for name, weight in whole.items())
    assert "this run is finished" in done("train", *where)


def is_recorded_processor():
    """Return whether sums of products round here as where the fixture was recorded."""
    generator = torch.Generator().manual_seed(0)
    a, b = (torch.randn(48, 48, generator=generator) for _ in range(2))
    return torch.load(RECORDED / "product.pt", weights_only=True).equal(a @ b)


def test_recorded_theory_results_are_kept():
    store = Store(RECORDED / "theory", GaussianProcessPair())
    kept = [task for task in plan(GaussianProcessPair(), quick=True) if store.load(task) is not None]
    assert len({store.path(task) for task in kept}) == len([*store.folder.iterdir()])


def test_the_code_gives_the_recorded_theory_results():
    """If it does not, its version must not be among those that share their numbers."""
    assert code_version() in stores.SAME_NUMBERS, (
        f"the theory's code has changed, its version is {code_version()}: where the numbers are as before, enter it "
        "in SAME_NUMBERS; else enter it without earlier ones, and record theory results anew"
    )
    process = GaussianProcessPair()
    store = Store(RECORDED / "theory", process)
    kept = [task for task in plan(process, quick=True) if store.load(task)]
    minima, trained = ([task for task in kept if task.experiment == name] for name in ("minimum", "optima"))
    for task in (*minima[:2], trained[0]):
        found, recorded = run_task(process, task), store.load(task)
        assert flat_numbers(found) == pytest.approx(flat_numbers(recorded), rel=1e-4, abs=1e-6)
        if is_recorded_processor():
            assert flat_numbers(found) == flat_numbers(recorded)


def flat_numbers(result):
    """Return all numbers of a result, but for how long it took, in one list."""
    if isinstance(result, dict):
        return [number for key, value in sorted(result.items()) if key != "seconds" for number in flat_numbers(value)]
    return [number for value in result for number in flat_numbers(value)] if isinstance(result, list) else [result]


def test_results_depend_on_the_closure_of_the_theory_alone(tmp_path, monkeypatch):
    """A copy of the package in which a figure of the ocean changes, then a comment, then a loss."""
    shutil.copytree(ROOT / "pcl", tmp_path / "pcl")
    monkeypatch.setattr(stores, "__file__", str(tmp_path / "pcl" / "theory" / "store.py"))

    def version_after(file, text):
        path = tmp_path / "pcl" / file
        path.write_text(path.read_text() + text)
        stores.code_version.cache_clear()
        return stores.code_version()

    stores.code_version.cache_clear()
    before = stores.code_version()
    assert version_after("problems/ocean/evaluation/maps.py", "\nWIDTH = 3\n") == before
    assert version_after("losses.py", "\n# a comment\n") == before
    assert version_after("losses.py", "\nSCALE = 3\n") != before
    monkeypatch.undo()
    stores.code_version.cache_clear()


OCEAN = {
    "drifters": {"halo_degrees": 4.0, "land": "freeze", "noise_m": 0.0, "num_drifters": 8, "num_releases": 1}
    | {"record_s": 21600.0, "step_s": 3600.0},
    "num_shards": 16,
    "ocean": {"depth_m": None, "eastward": "", "gap_days": 30.0, "mask": "", "minimum_wet": 0.5, "northward": ""}
    | {"test_fraction": 0.2, "tile_points": 16, "tile_stride": 8, "units": "", "window_steps": 8, "window_stride": 2},
    "record_pairs": 28,
    "seed": 0,
    "source": "ocean",
}
"""The identity of the shards of configs/ocean.yaml as version 0.1 kept it: without keys that came later."""


def test_a_key_that_a_record_lacks_counts_as_its_default():
    wanted = {"data": data_identity(load_config(ROOT / "configs" / "ocean.yaml"))}
    assert differing({"data": OCEAN}, wanted) == []
    for override, key in (
        ("data.ocean.group=u", "data.ocean.group"),
        ("data.ocean.max_gap_hours=3", "data.ocean.max_gap_hours"),
        ("data.ocean.drifters.noise_m=1", "data.ocean.drifters.noise_m"),
        ("data.drifters.noise_m=1", "data.ocean.drifters.noise_m"),
    ):
        changed = {"data": data_identity(load_config(ROOT / "configs" / "ocean.yaml", [override]))}
        assert differing({"data": OCEAN}, changed) == [key]


DEFAULT = flatten(yaml.safe_load(page_of_keys()))


@settings(max_examples=20, deadline=None, database=None)
@given(
    lacking=st.sets(st.sampled_from(KEYS)),
    extra=st.sampled_from(["train.log_every", "train.checkpoint_every"]),
    changed=st.sampled_from(sorted(experiment(load_config(CONFIG)))),
)
def test_any_key_may_be_lacking_where_it_has_its_default(lacking, extra, changed):
    default, full = DEFAULT, experiment(load_config(CONFIG))
    kept = {key: found for key, found in full.items() if key not in lacking or default[key] != found}
    assert differing(kept | {extra: 7}, full) == []
    assert differing(kept | {changed: "another"}, full) == [changed]


def test_how_often_a_run_is_logged_and_saved_is_no_part_of_it():
    run, config = RECORDED / "run", load_config(CONFIG)
    manifest = json.loads((run / "provenance.json").read_text())["experiment"]["manifest_sha256"]
    changed = replace(config, train=replace(config.train, log_every=1, checkpoint_every=1))
    recorded = recorded_experiment(run, experiment(changed) | {"manifest_sha256": manifest})
    assert recorded is not None
    assert recorded["train.log_every"] == 10


def test_old_names_of_keys_are_understood():
    config = load_config(ROOT / "configs" / "ocean.yaml", ["data.drifters.noise_m=5", "evaluation.fields.seed=3"])
    assert value(config, "data.ocean.drifters.noise_m") == 5
    assert value(config, "evaluation.ocean.seed") == 3
