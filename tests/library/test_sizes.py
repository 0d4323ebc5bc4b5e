"""Sizes of a fit: for any number of pairs and any batch there is an epoch, and enough of them are as in a run file."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pcl.data.loader import LaneLoader
from pcl.data.manifest import Manifest, ShardEntry
from pcl.data.shards import plan_shards
from pcl.errors import BadInputError
from pcl.library.fit import fit
from pcl.library.sizes import sizes_of
from pcl.problems.arrays.memory import MemoryPairs


def loader_of(num_pairs: int, batch: int, options=None) -> tuple[LaneLoader, dict]:
    """The loader of a fit, whose shards are planned and not written."""
    pairs = MemoryPairs(np.arange(float(num_pairs)), np.arange(float(num_pairs)))
    sizes = sizes_of(batch, pairs.num_pairs("train"), pairs.num_pairs("test"), options or {}) | (options or {})
    plans = plan_shards(pairs, sizes["data.num_shards"])
    splits = {
        split: [ShardEntry(plan.name, plan.stop - plan.start, 0, "") for plan in plans if plan.split == split]
        for split in ("train", "test")
    }
    manifest = Manifest(0, {}, "", {}, pairs.arrays, {}, 100, splits)
    of_run = {"global_batch": sizes["train.global_batch"], "num_lanes": sizes["train.num_lanes"]}
    held_out = sizes.get("train.validation_fraction", 0.0)
    return LaneLoader(Path(), manifest, "train", **of_run, shuffle_pairs=100, seed=0, held_out=held_out), sizes


@given(st.integers(24, 3000), st.integers(1, 64).map(lambda number: 8 * number))
@example(24, 256)
@example(150, 256)
@example(157, 256)
@example(276, 256)
@settings(deadline=None)
def test_there_is_an_epoch_of_any_number_of_pairs(num_pairs, batch):
    loader, sizes = loader_of(num_pairs, batch)
    assert loader.steps_per_epoch >= 1
    used = loader.steps_per_epoch * loader.global_batch
    assert used >= min(batch, 0.8 * loader.num_pairs) or used > loader.num_pairs / 2
    if loader.pairs_per_lane * 8 >= batch and num_pairs >= 160:  # enough for what a run file has
        assert sizes == {"data.num_shards": 16, "train.num_lanes": 8, "train.global_batch": batch}


@given(
    st.integers(24, 600), st.sampled_from([1, 2, 4, 8]), st.sampled_from([1, 2, 4]), st.sampled_from([0.0, 0.1, 0.3])
)
@settings(deadline=None)
def test_what_options_give_stays_and_the_batch_is_what_is_left(num_pairs, lanes, times, fraction):
    options = {"train.num_lanes": lanes, "data.num_shards": lanes * times, "train.validation_fraction": fraction}
    if lanes * times <= round(num_pairs * 0.1):
        loader, sizes = loader_of(num_pairs, 256, options)
        assert loader.steps_per_epoch >= 1
        assert (sizes["train.num_lanes"], sizes["data.num_shards"]) == (lanes, lanes * times)


@pytest.mark.parametrize("num_pairs", [24, 100, 150, 157, 276])
def test_few_pairs_are_fitted(num_pairs):
    v = np.random.default_rng(0).normal(size=(num_pairs, 2))
    model = fit(v @ np.ones((2, 3)), v, epochs=1, encoder_u="linear", encoder_v="linear", show=False)
    assert np.isfinite(model.encode_u(v @ np.ones((2, 3)))).all()


@pytest.mark.parametrize("batch", [0, 4, 20, 16.0, "16", True])
def test_a_batch_that_is_none_is_refused(batch):
    with pytest.raises(BadInputError, match="it must be a multiple of 8"):
        sizes_of(batch, 900, 100, {})
