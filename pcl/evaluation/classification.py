"""Scores of predicted label probabilities, with intervals.

Shapes: N predictions, K labels.
"""

__all__ = ["classification_intervals", "classification_metrics", "reliability", "wilson_interval"]

import math

import torch
from torch import Tensor

NORMAL_95 = 1.959964  # standard deviations of a normal law that hold 95 %
NUM_NOISES = 10_000  # draws of the noise of a calibration error


def _binned(log_probabilities: Tensor, labels: Tensor, num_bins: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return the confidence of every prediction, whether it is right, and its bin of (0, 1]; shape (N,) each."""
    log_confidence, predicted = log_probabilities.max(1)
    confidence = log_confidence.exp()
    bins = (confidence * num_bins).ceil().long().clamp(1, num_bins) - 1
    return confidence, predicted == labels, bins


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
    confidence, is_right, bins = _binned(log_probabilities, labels, num_bins)
    counts = torch.bincount(bins, minlength=num_bins).to(confidence)
    totals = [
        torch.zeros(num_bins, dtype=confidence.dtype).index_add_(0, bins, values.to(confidence))
        for values in (confidence, is_right)
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


def classification_intervals(
    log_probabilities: Tensor, labels: Tensor, generator: torch.Generator, num_bins: int = 15
) -> dict[str, tuple[float, float]]:
    r"""Return a 95 % interval of each of ``classification_metrics``, for other pairs of the same law.

    Accuracy has Wilson's, the negative log-likelihood that of a mean. A calibration error is a sum of absolute values,
    which noise makes larger: with the gaps :math:`d_b = \frac{n_b}{N} (\text{accuracy}_b - \text{confidence}_b)` and
    their expectations :math:`\delta_b`,

    .. math:: \Big| \sum_b |d_b| - \sum_b |\delta_b| \Big| \le \sum_b |d_b - \delta_b|,

    whose 95 % quantile, for gaps with normal noise, is half of the interval: it holds for a calibrated model too.

    Args:
        log_probabilities: shape (N, K).
        labels: true labels, shape (N,).
        generator: of the noise.
        num_bins: bins of the calibration error.

    Example:
        >>> predictions = torch.tensor([[0.8, 0.2]]).log().repeat(1000, 1)
        >>> labels = (torch.arange(1000) % 5 == 0).long()
        >>> found = classification_intervals(predictions, labels, torch.Generator().manual_seed(0))
        >>> {name: (round(low, 3), round(high, 3)) for name, (low, high) in found.items()}
        {'accuracy': (0.774, 0.824), 'negative_log_likelihood': (0.466, 0.535), 'calibration_error': (0.0, 0.025)}
    """
    labels, number = labels.long(), len(labels)
    losses = -log_probabilities.gather(1, labels[:, None])[:, 0].double()
    mean, deviation = losses.mean().item(), losses.std(correction=min(1, number - 1)).item()
    reach = NORMAL_95 * deviation / math.sqrt(number) if math.isfinite(mean) else 0.0
    confidence, is_right, bins = _binned(log_probabilities, labels, num_bins)
    gaps = is_right.double() - confidence.double()
    low, high = wilson_interval(is_right.sum()[None], torch.tensor([number]))
    return {
        "accuracy": (low.item(), high.item()),
        "negative_log_likelihood": (max(0.0, mean - reach), mean + reach),
        "calibration_error": _around_calibration_error(gaps, bins, generator, num_bins),
    }


def _around_calibration_error(
    gaps: Tensor, bins: Tensor, generator: torch.Generator, num_bins: int
) -> tuple[float, float]:
    """Return the interval of a calibration error from right less confidence and the bin of every prediction."""
    number = len(gaps)
    first, second = (
        torch.zeros(num_bins, dtype=torch.float64).index_add_(0, bins, part) / number for part in (gaps, gaps.square())
    )
    values, vectors = torch.linalg.eigh((torch.diag(second) - torch.outer(first, first)) / number)
    noise = torch.randn(NUM_NOISES, num_bins, dtype=torch.float64, generator=generator)
    noise = noise * values.clamp(min=0).sqrt() @ vectors.T
    error, reach = first.abs().sum().item(), noise.abs().sum(1).quantile(0.95).item()
    return max(0.0, error - reach), min(1.0, error + reach)


def wilson_interval(successes: Tensor, totals: Tensor) -> tuple[Tensor, Tensor]:
    r"""Return Wilson's 95 % interval of a share, which stays between 0 and 1.

    .. math:: \frac{1}{1 + z^2/n} \Big( p + \frac{z^2}{2n} \pm z \sqrt{\frac{p (1 - p)}{n} + \frac{z^2}{4 n^2}} \Big)

    Args:
        successes: of each share, shape (m,).
        totals: n, at least 1, likewise.

    References:
        Wilson (1927), Journal of the American Statistical Association 22, 209-212.

    Example:
        >>> wilson_interval(torch.tensor([8.0]), torch.tensor([10.0]))
        (tensor([0.4902], dtype=torch.float64), tensor([0.9433], dtype=torch.float64))
    """
    share, square = successes.double() / totals, NORMAL_95**2 / totals.double()
    middle = (share + square / 2) / (1 + square)
    reach = (share * (1 - share) * square + square.square() / 4).clamp(min=0).sqrt() / (1 + square)
    return (middle - reach).clamp(min=0), (middle + reach).clamp(max=1)
