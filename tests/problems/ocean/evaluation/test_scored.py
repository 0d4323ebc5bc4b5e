"""Fields in blocks that are scored apart: the same numbers however many tasks score them, and those of whole passes."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pcl.config.load import load_config
from pcl.encoders.build import build_model
from pcl.evaluation import parts
from pcl.evaluation.evaluate import evaluate
from pcl.evaluation.splits import EvaluationOptions
from pcl.problems.ocean.evaluation import evaluate as of_fields
from pcl.problems.ocean.evaluation import scored
from pcl.problems.ocean.evaluation.field_scores import DriftTally, FieldTally, MeanSpectrum
from pcl.problems.ocean.evaluation.running import RunningMean
from pcl.problems.ocean.settings import PosteriorSettings
from pcl.problems.problem import problem
from pcl.train.parts import model_spec
from tests.evaluation.test_parts import apart, assert_same
from tests.problems.ocean.evaluation.ocean_pairs import ROOT

OCEAN = problem("ocean")


@pytest.mark.parametrize(("file", "overrides"), [("ocean_networks", ("model.field_network.width=8",)), ("ocean", ())])
def test_an_evaluation_has_the_same_metrics_however_many_tasks_there_are(ocean_shards, monkeypatch, file, overrides):
    monkeypatch.setattr(parts, "FEW", 0)
    monkeypatch.setattr(scored, "MOST_AT_ONCE", 3)
    monkeypatch.setattr(of_fields, "NUM_TUNING", 4)  # scales are chosen before there are tasks
    root, manifest = ocean_shards
    config = load_config(ROOT / "configs" / f"{file}.yaml", overrides)
    model = build_model(model_spec(config, manifest)).eval()
    own = PosteriorSettings(num_members=5, num_examples=1)

    def evaluated(number):
        options = EvaluationOptions(recall_at=[1], block_pairs=7, max_pairs=8, own=own, parts=apart(number))
        return evaluate(model, root, manifest, "test", options, OCEAN.drawings, OCEAN.evaluate)

    results = [evaluated(number) for number in (0, 1, 3)]
    assert_same(results)
    assert results[0].datasets.keys() == results[1].datasets.keys()


@given(st.lists(st.lists(st.floats(-9, 9), max_size=5), max_size=5), st.floats(0.1, 3))
@settings(deadline=None, max_examples=50)
def test_means_of_blocks_are_joined_to_those_of_all(lists, weight):
    joined, whole = RunningMean(), RunningMean()
    for values in lists:
        block = RunningMean()
        block.add(torch.tensor(values), torch.tensor([weight]))
        whole.add(torch.tensor(values), torch.tensor([weight]))
        joined.join(block)
    assert (joined.weight, joined.mean, joined.variance) == pytest.approx(
        (whole.weight, whole.mean, whole.variance), abs=1e-12, nan_ok=True
    )


def test_scores_of_blocks_are_joined_to_those_of_all():
    generator = torch.Generator().manual_seed(0)
    truth, guess = torch.randn(2, 6, 2, 3, 4, 8, generator=generator, dtype=torch.float64)
    truth[2, :, :, 1] = torch.nan
    area = torch.rand(6, 1, 1, 4, 1, generator=generator, dtype=torch.float64)
    places = torch.randn(6, 5, 9, 3, generator=generator, dtype=torch.float64)
    places[1, 2, 4:] = torch.nan
    whole, joined = ([FieldTally(), MeanSpectrum(), DriftTally()] for _ in range(2))
    for tallies, blocks in ((whole, [slice(0, 6)]), (joined, [slice(0, 2), slice(2, 3), slice(3, 6)])):
        for block in blocks:
            of_block = [FieldTally(), MeanSpectrum(), DriftTally()]
            of_block[0].add(guess[block], truth[block], area[block])
            of_block[1].add(truth[block])
            of_block[2].add(places[block, ..., :2] / 2, places[block])
            for tally, other in zip(tallies, of_block, strict=True):
                tally.join(other)
    assert joined[0].scores() == pytest.approx(whole[0].scores())
    error = (guess - truth).square()
    known = truth.isfinite() * area
    assert joined[0].scores()["rmse_m_s"] == pytest.approx(math.sqrt((error.nan_to_num() * known).sum() / known.sum()))
    torch.testing.assert_close(joined[1].power, whole[1].power)
    torch.testing.assert_close(joined[2].scores().separation_km, whole[2].scores().separation_km)
    assert joined[2].scores().skill == pytest.approx(whole[2].scores().skill)
