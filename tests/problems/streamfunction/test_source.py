"""The source of flows and paths: pure, the same however it is cut, and readable again from shards."""

import json

import numpy as np
import pytest
import torch

from pcl.data.manifest import SPLITS
from pcl.errors import BadInputError
from pcl.problems.streamfunction.law import StreamfunctionLaw
from pcl.problems.streamfunction.linear_inverse import oracle
from pcl.problems.streamfunction.source import StreamfunctionSource, streamfunction_source
from tests.shards import build_shards

LAW = StreamfunctionLaw(num_modes=6, num_positions=41, mean_path=1.0, start=[0.75, 0.75])
SOURCE = StreamfunctionSource(20, 10, seed=3, law=LAW, substeps=2)


def test_a_pair_does_not_depend_on_the_range_it_is_drawn_in():
    whole = SOURCE.pairs("train", 0, 9)
    parts = [SOURCE.pairs("train", start, stop) for start, stop in ((0, 4), (4, 5), (5, 9))]
    assert np.array_equal(whole["u"], np.concatenate([part["u"] for part in parts]))
    np.testing.assert_allclose(whole["v"], np.concatenate([part["v"] for part in parts]), rtol=0, atol=2e-7)
    assert all(np.array_equal(whole[name], SOURCE.pairs("train", 0, 9)[name]) for name in whole)


def test_splits_and_seeds_differ():
    first = SOURCE.pairs("train", 0, 3)["u"]
    assert not np.isclose(first, SOURCE.pairs("test", 0, 3)["u"]).any()
    assert not np.isclose(first, StreamfunctionSource(20, 10, 4, LAW).pairs("train", 0, 3)["u"]).any()


def test_a_stored_path_is_that_of_its_flow():
    pair = SOURCE.pairs("test", 2, 4)
    wanted = LAW.paths(torch.from_numpy(pair["u"]).double(), 8)
    np.testing.assert_allclose(pair["v"], wanted, rtol=0, atol=1e-4)
    assert (pair["v"][:, 0] == 0.75).all()


def test_shards_hold_what_the_physics_needs(tmp_path):
    manifest = build_shards(tmp_path, SOURCE, 2, 3)
    assert [manifest.num_pairs(split) for split in SPLITS] == [20, 10]
    assert manifest.statistics["v"] == {}
    assert len(manifest.statistics["u"]["mean"]) == 12
    assert manifest.source == json.loads(json.dumps(SOURCE.provenance()))
    v = torch.from_numpy(SOURCE.pairs("test", 0, 10)["v"])
    assert oracle(manifest.source)(v).shape == (10, 12)


def test_the_step_is_chosen_by_the_tolerance():
    settings = {"num_train": 2, "num_test": 1, "num_modes": 6, "num_positions": 6, "mean_path": 0.15}
    coarse = streamfunction_source(settings | {"tolerance": 1e-3}, seed=0)
    fine = streamfunction_source(settings | {"tolerance": 1e-6}, seed=0)
    assert coarse.substeps < fine.substeps
    assert fine.difference <= 1e-6 < coarse.difference <= 1e-3
    assert fine.provenance()["integrator"]["steps_between_positions"] == fine.substeps
    with pytest.raises(BadInputError, match=r"data\.streamfunction: .* steps between two records"):
        streamfunction_source(settings | {"tolerance": 1e-17}, seed=0)


def test_impossible_counts_are_refused():
    with pytest.raises(BadInputError, match="0 training"):
        StreamfunctionSource(0, 1, 0, LAW)
