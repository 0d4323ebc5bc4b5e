"""The learned law beside the true one: what an evaluation says of it, against the numbers that were put in."""

import numpy as np
import pytest
import torch

from pcl.evaluation.result import Evaluation
from pcl.problems.streamfunction.law import StreamfunctionLaw
from pcl.problems.streamfunction.learned_inverse import LearnedInverse
from pcl.problems.streamfunction.learned_law import add_law, law_figure
from tests.told import unexplained

LAW = StreamfunctionLaw(num_modes=6, num_positions=51)


@pytest.fixture
def encoder():
    found = LearnedInverse((51, 2), 12, time_step=LAW.time_step, partner_std=LAW.standard_deviations.tolist())
    with torch.no_grad():
        found.moved_frequencies.copy_(torch.from_numpy(LAW.frequencies + 3.0) / found.frequency_rate)
        found.moved_noise.fill_(-np.log(4.0) / found.scale_rate)
    return found


def test_an_evaluation_says_how_far_the_law_is_off(encoder):
    result = Evaluation()
    add_law(result, encoder, LAW)
    assert result.metrics["frequency_rms_error"] == pytest.approx(3.0, rel=1e-5)
    assert result.metrics["frequency_rms"] == pytest.approx(np.linalg.norm(LAW.frequencies) / np.sqrt(6))
    assert result.metrics["frequency_correlation"] == pytest.approx(1.0)
    assert result.metrics["velocity_noise"] == pytest.approx(0.5, rel=1e-6)
    assert not unexplained(result.metrics)
    (table,) = result.details
    assert [row[0] for row in table[1:3]] == ["0, 1", "1, 0"]
    numbers = np.array([[float(x) for x in row[1:]] for row in table[1:]])
    np.testing.assert_allclose(numbers[:, 0] - numbers[:, 1], 3.0, atol=0.01)
    np.testing.assert_allclose(numbers[:, 2:5], np.tile(LAW.standard_deviations[:6, None], 3), rtol=1e-3)
    assert result.captions.keys() == result.figures.keys() == {"learned_law.png"}


def test_frequencies_that_have_not_moved_have_no_correlation(encoder):
    with torch.no_grad():
        encoder.moved_frequencies.zero_()
    result = Evaluation()
    add_law(result, encoder, LAW)
    assert "frequency_correlation" not in result.metrics
    assert result.metrics["frequency_rms_error"] == pytest.approx(result.metrics["frequency_rms"])


def test_the_picture_shows_what_was_learned_and_the_truth(encoder, tmp_path):
    figure = law_figure(encoder, LAW)
    frequencies, errors, deviations = figure.axes[:3]
    np.testing.assert_allclose(
        frequencies.collections[0].get_offsets(), np.stack([LAW.frequencies, LAW.frequencies + 3], 1)
    )
    np.testing.assert_allclose(errors.lines[0].get_ydata(), 3.0, atol=1e-4)
    np.testing.assert_allclose(deviations.lines[1].get_ydata(), LAW.standard_deviations[:6])
    assert "0.5 widths" in figure.get_suptitle()
    figure.savefig(tmp_path / "law.png")
