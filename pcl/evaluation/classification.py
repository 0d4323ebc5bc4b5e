"""Scores of predicted label probabilities.

Shapes: N predictions, K labels.
"""

__all__ = ["classification_metrics", "reliability"]

import torch
from torch import Tensor


def reliability(log_probabilities: Tensor, labels: Tensor, num_bins: int = 15) -> tuple[Tensor, Tensor, Tensor]:
    """Bin predictions by confidence (probability of the predicted label) into bins of equal width.

    Args:
        log_probabilities: shape (N, K).
        labels: true labels, shape (N,).
        num_bins: bins of (0, 1].

    Returns:
        Share of the predictions, mean confidence and accuracy of every bin, shapes (num_bins,); 0 in empty bins.

    References:
        Guo et al. (2017), arXiv:1706.04599, section 2.

    Example:
        >>> share, confidence, accuracy = reliability(torch.tensor([[0.9, 0.1]]).log(), torch.tensor([0]), 2)
        >>> share, confidence, accuracy
        (tensor([0., 1.]), tensor([0.0000, 0.9000]), tensor([0., 1.]))
    """
    log_confidence, predicted = log_probabilities.max(1)
    confidence = log_confidence.exp()
    bins = (confidence * num_bins).ceil().long().clamp(1, num_bins) - 1
    counts = torch.bincount(bins, minlength=num_bins).to(confidence)
    totals = [
        torch.zeros(num_bins, dtype=confidence.dtype).index_add_(0, bins, values.to(confidence))
        for values in (confidence, predicted == labels)
    ]
    mean_confidence, accuracy = (total / counts.clamp(min=1) for total in totals)
    return counts / len(labels), mean_confidence, accuracy


def classification_metrics(log_probabilities: Tensor, labels: Tensor, num_bins: int = 15) -> dict[str, float]:
    r"""Return accuracy, negative log-likelihood and expected calibration error.

    .. math:: \text{ECE} = \sum_b \frac{n_b}{N} \,|\text{accuracy}_b - \text{confidence}_b|

    Args:
        log_probabilities: shape (N, K).
        labels: true labels, shape (N,).
        num_bins: bins of the calibration error.

    Returns:
        ``accuracy`` and ``calibration_error`` as shares, ``negative_log_likelihood`` in nats.

    Example:
        >>> metrics = classification_metrics(torch.tensor([[0.8, 0.2], [0.2, 0.8]]).log(), torch.tensor([0, 1]))
        >>> {name: round(value, 3) for name, value in metrics.items()}
        {'accuracy': 1.0, 'negative_log_likelihood': 0.223, 'calibration_error': 0.2}
    """
    labels = labels.long()
    share, confidence, accuracy = reliability(log_probabilities, labels, num_bins)
    return {
        "accuracy": (log_probabilities.argmax(1) == labels).double().mean().item(),
        "negative_log_likelihood": -log_probabilities.gather(1, labels[:, None]).double().mean().item(),
        "calibration_error": (share * (accuracy - confidence).abs()).sum().item(),
    }
