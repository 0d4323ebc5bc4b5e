"""Classification scores against plain loops."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pcl.evaluation.classification import classification_metrics, reliability


def predictions(num, num_labels, sharpness, seed):
    generator = torch.Generator().manual_seed(seed)
    logits = sharpness * torch.randn(num, num_labels, generator=generator, dtype=torch.float64)
    return torch.log_softmax(logits, 1), torch.randint(num_labels, (num,), generator=generator)


def in_bins(log_probabilities, labels, num_bins):
    """Return (confidence, correct) of every prediction by bin; bin b holds confidences in (b, b + 1] / num_bins."""
    bins = [[] for _ in range(num_bins)]
    for row, label in zip(log_probabilities.tolist(), labels.tolist(), strict=True):
        confidence = math.exp(max(row))
        (b,) = (b for b in range(num_bins) if b / num_bins < confidence <= (b + 1) / num_bins)
        bins[b].append((confidence, row.index(max(row)) == label))
    return bins


@given(
    st.integers(1, 40), st.integers(2, 6), st.sampled_from([0.1, 1, 5]), st.integers(1, 20), st.integers(0, 2**32 - 1)
)
@settings(deadline=None)
def test_metrics_are_those_of_loops(num, num_labels, sharpness, num_bins, seed):
    log_probabilities, labels = predictions(num, num_labels, sharpness, seed)
    bins = in_bins(log_probabilities, labels, num_bins)
    share, confidence, accuracy = (part.tolist() for part in reliability(log_probabilities, labels, num_bins))
    assert share == pytest.approx([len(members) / num for members in bins])
    assert confidence == pytest.approx([sum(c for c, _ in members) / max(1, len(members)) for members in bins])
    assert accuracy == pytest.approx([sum(right for _, right in members) / max(1, len(members)) for members in bins])
    gaps = [abs(sum(right for _, right in members) - sum(c for c, _ in members)) / num for members in bins]
    rows = zip(log_probabilities.tolist(), labels.tolist(), strict=True)
    assert classification_metrics(log_probabilities, labels, num_bins) == pytest.approx(
        {
            "accuracy": sum(right for members in bins for _, right in members) / num,
            "negative_log_likelihood": -sum(row[label] for row, label in rows) / num,
            "calibration_error": sum(gaps),
        },
        rel=1e-9,
        abs=1e-12,
    )


def test_bins_are_closed_on_the_right():
    log_probabilities = torch.tensor([[0.5, 0.25, 0.25], [0.75, 0.25, 0.0], [1.0, 0.0, 0.0]]).log()
    share, confidence, _ = reliability(log_probabilities, torch.zeros(3, dtype=torch.long), 4)
    assert share.tolist() == pytest.approx([0, 1 / 3, 1 / 3, 1 / 3])
    assert confidence.tolist() == pytest.approx([0, 0.5, 0.75, 1])


def test_calibrated_predictions_have_no_calibration_error():
    generator = torch.Generator().manual_seed(0)
    log_probabilities, _ = predictions(100_000, 3, 1.5, seed=1)
    labels = torch.multinomial(log_probabilities.exp(), 1, generator=generator)[:, 0]
    assert classification_metrics(log_probabilities, labels)["calibration_error"] < 0.01
    sharpened = torch.log_softmax(3 * log_probabilities, 1)
    assert classification_metrics(sharpened, labels)["calibration_error"] > 0.1


def test_stored_labels_of_bytes_are_understood():
    log_probabilities, labels = predictions(50, 4, 1.0, seed=2)
    expected = classification_metrics(log_probabilities, labels)
    assert classification_metrics(log_probabilities, labels.to(torch.uint8)) == expected


def test_certainty_is_right_or_infinitely_wrong():
    log_probabilities = torch.tensor([[0.0, -torch.inf], [-torch.inf, 0.0]])
    right, wrong = (classification_metrics(log_probabilities, torch.tensor(labels)) for labels in ([0, 1], [1, 0]))
    assert right == {"accuracy": 1.0, "negative_log_likelihood": 0.0, "calibration_error": 0.0}
    assert wrong == {"accuracy": 0.0, "negative_log_likelihood": math.inf, "calibration_error": 1.0}
