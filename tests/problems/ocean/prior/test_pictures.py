"""The picture of a learned covariance: correlations by closed form, and what it says in words."""

import math

import pytest
import torch

from pcl.evaluation.result import Evaluation
from pcl.problems.ocean.prior.kernel import CurrentKernel
from pcl.problems.ocean.prior.model import CurrentPrior
from pcl.problems.ocean.prior.pictures import add_prior, correlation
from tests.told import unexplained


def test_correlations_of_one_streamfunction_are_those_of_its_closed_form():
    kernel = CurrentKernel(("streamfunction",), [80.0], [10.0], [1.0])
    found = correlation(kernel, torch.tensor([[60.0, 0.0, 0.0], [0.0, 60.0, 0.0], [0.0, 0.0, 5.0]]).double())
    decay, square = math.exp(-((60 / 80) ** 2) / 2), (60 / 80) ** 2
    assert found[0, 0].tolist() == pytest.approx([decay, (1 - square) * decay, math.exp(-1 / 8)])
    assert found[1, 1].tolist() == pytest.approx([(1 - square) * decay, decay, math.exp(-1 / 8)])
    assert not found[0, 1].any()


def test_an_evaluation_shows_what_was_learned():
    prior = CurrentPrior([0.0, 1.0], [0.0, 1.0])
    with torch.no_grad():
        prior.kernel.log_lengths[0, 1] = math.log(44.0)
    result = Evaluation({})
    add_prior(result, prior)
    title = result.figures["prior.png"]._suptitle.get_text()
    assert "50.0 km east,   44.0 km north" in title
    assert result.metrics["prior_streamfunction_1_length_north_km"] == pytest.approx(44.0)
    assert result.metrics["prior_potential_3_variance"] == pytest.approx(0.1)
    assert not unexplained(result.metrics)
