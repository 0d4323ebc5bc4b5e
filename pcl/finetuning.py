r"""Fine-tuning: labels given an embedding that stays as it is, from few labelled items.

The label conditional of a trained model, :math:`\text{softmax}_k(s(u, v^k) + \log\pi_k)`, is a linear classifier of the
embedding of u, whatever the tilting. What the tilting adds for v alone is part of its log-prior from the start
(:math:`-|g_v|^2/2\tau` of the squared distance, :math:`b(v)/\tau` of potentials), what it adds for u alone cancels, and
the cosine has embeddings of length one. Fine-tuning moves G and F of :math:`\langle G_k, g_u(u)\rangle/\tau + F_k`.

Shapes: N labelled items, E embedding, F features (E, or E + 2), K labels.

References: Baptista, Stuart, Tran (2025), arXiv:2505.24134, equations 32-35, algorithm 2.
"""

__all__ = [
    "STRENGTHS",
    "UNIT_STRENGTH",
    "LabelConditional",
    "chosen_strength",
    "cross_validated",
    "drawn",
    "fine_tune",
    "folds_of",
    "untuned",
    "zeros",
]

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from pcl.tilting import EXTRA_FEATURES, embeddings_of

STRENGTHS = (1e3, 1e2, 1e1, 1.0, 1e-1, 1e-2, 1e-3)
UNIT_STRENGTH = 1.0  # that of a Gaussian prior of variance one
MOST_FOLDS = 5
TOLERANCE, ROUGH_TOLERANCE = 1e-8, 1e-6  # of gradients of a loss per item; rough where strengths are only compared

LogProbabilities = Callable[[Tensor], Tensor]
"""Log-probabilities (N, K) of labels given embeddings (N, E)."""


@dataclass(frozen=True)
class LabelConditional:
    r"""Conditional of labels given an embedding, :math:`\text{softmax}_k(\langle G_k, z\rangle/\tau + F_k)`.

    Attributes:
        weights: G, a row for each label, shape (K, E), float64.
        log_prior: F, shape (K,), float64.
        temperature: tau.

    Example:
        >>> labels = LabelConditional(torch.eye(2).double(), torch.zeros(2).double(), 1.0)
        >>> labels(torch.tensor([[0.0, 3.0]])).argmax(1)
        tensor([1])
    """

    weights: Tensor
    log_prior: Tensor
    temperature: float

    def __call__(self, embeddings: Tensor) -> Tensor:
        """Return log-probabilities (N, K) of the labels given embeddings (N, E)."""
        return self.logits(embeddings).log_softmax(1)

    def logits(self, embeddings: Tensor) -> Tensor:
        """Return scores (N, K) of the labels, log-probabilities up to a constant of each item."""
        return embeddings.double() @ self.weights.T / self.temperature + self.log_prior


def untuned(features_v: Tensor, tilting: str, temperature: float, log_prior: Tensor) -> LabelConditional:
    r"""Label conditional of a model as it was trained (zero-shot): G is the embeddings of the labels.

    Args:
        features_v: feature maps of the labels, shape (K, F).
        tilting: one of ``TILTINGS``.
        temperature: tau.
        log_prior: log frequencies of the labels up to a constant, shape (K,).

    Example:
        >>> untuned(torch.tensor([[2.0, 1.0, -2.0]]), "squared_distance", 0.5, torch.zeros(1)).log_prior
        tensor([-4.], dtype=torch.float64)
    """
    of_v = features_v[:, -1].double() / temperature if EXTRA_FEATURES.get(tilting) else 0.0
    return LabelConditional(embeddings_of(features_v, tilting).double(), log_prior.double() + of_v, temperature)


def zeros(labels: Tensor, num_labels: int, embedding_dim: int, temperature: float) -> LabelConditional:
    """Label conditional that knows how frequent labels are and nothing of the embedding: the start without any other.

    Args:
        labels: numbers 0 .. K-1, each at least once, shape (N,).
        num_labels: K.
        embedding_dim: E.
        temperature: tau.

    Example:
        >>> zeros(torch.tensor([0, 1, 1, 1]), 2, 5, 1.0)(torch.ones(1, 5)).exp()
        tensor([[0.2500, 0.7500]], dtype=torch.float64)
    """
    frequencies = torch.bincount(labels, minlength=num_labels).double() / len(labels)
    weights = torch.zeros(num_labels, embedding_dim, dtype=torch.float64)
    return LabelConditional(weights, frequencies.log(), temperature)


def fine_tune(
    embeddings: Tensor,
    labels: Tensor,
    start: LabelConditional,
    strength: float = UNIT_STRENGTH,
    tolerance: float = TOLERANCE,
) -> LabelConditional:
    r"""Fine-tune labels given frozen embeddings: the one-sided loss with a ridge towards the start, by LBFGS, float64.

    .. math::
        \min_{G, F} \; -\sum_i \log \text{softmax}_{y_i}\!\left(\frac{\langle G_k, z_i\rangle}{\tau} + F_k\right)
        + \frac{\lambda}{2} \left( \frac{c^2}{\tau^2} |G - G^0|^2 + |F - F^0|^2 \right),
        \qquad c^2 = \frac{1}{NE} \sum_i |z_i|^2

    It is convex, so the result depends on nothing else. With c the strength has no unit: at 1 the ridge is a Gaussian
    prior of variance one on the change of a score by a typical component.

    Args:
        embeddings: z of the labelled items, shape (N, E).
        labels: numbers 0 .. K-1, shape (N,).
        start: G and F from which it starts, and which the ridge prefers.
        strength: lambda; 0 for no ridge: labels that can be told apart without error have no optimum then.
        tolerance: on the largest component of the gradient of what is minimised, a mean over the items.

    Raises:
        ValueError: there is no item, numbers of items differ, or a label is not one of the start.

    Example:
        >>> start = LabelConditional(torch.zeros(2, 1).double(), torch.zeros(2).double(), 1.0)
        >>> tuned = fine_tune(torch.tensor([[-1.0], [1.0]]), torch.tensor([0, 1]), start)
        >>> tuned(torch.tensor([[3.0]])).exp()
        tensor([[0.0420, 0.9580]], dtype=torch.float64)
    """
    _check(embeddings, labels, len(start.weights), strength)
    embeddings, labels = embeddings.double(), labels.long()
    scale = embeddings.square().mean().sqrt().clamp_min(torch.finfo(torch.float64).tiny)
    columns = torch.cat([embeddings / scale, torch.ones_like(embeddings[:, :1])], 1)
    at_start = start.logits(embeddings)
    change = torch.zeros(len(start.weights), columns.shape[1], dtype=torch.float64, requires_grad=True)

    def objective() -> Tensor:
        loss = cross_entropy(at_start + columns @ change.T, labels)
        return loss + strength / (2 * len(labels)) * change.square().sum()

    _descend(objective, change, tolerance)
    of_weights, of_prior = change.detach()[:, :-1], change.detach()[:, -1]
    weights = start.weights + of_weights * (start.temperature / scale)
    return LabelConditional(weights, start.log_prior + of_prior, start.temperature)


def _check(embeddings: Tensor, labels: Tensor, num_labels: int, strength: float) -> None:
    if len(labels) == 0 or embeddings.shape[:1] != labels.shape:
        raise ValueError(f"{len(embeddings)} items and {len(labels)} labels: give one label for each, and at least one")
    if int(labels.min()) < 0 or int(labels.max()) >= num_labels:
        raise ValueError(f"labels from {int(labels.min())} to {int(labels.max())}: they are 0 to {num_labels - 1}")
    if not 0 <= strength < float("inf"):
        raise ValueError(f"strength {strength}: it must be at least 0, and finite")


@torch.enable_grad()
def _descend(objective: Callable[[], Tensor], change: Tensor, tolerance: float) -> None:
    """Move a tensor in place to the minimum of a convex function of it."""
    optimizer = torch.optim.LBFGS(
        [change],
        max_iter=1000,
        max_eval=4000,
        tolerance_grad=tolerance,
        tolerance_change=1e-16,
        history_size=20,
        line_search_fn="strong_wolfe",
    )

    def closure() -> Tensor:
        optimizer.zero_grad()
        value = objective()
        value.backward()  # type: ignore[no-untyped-call]
        return value

    optimizer.step(closure)  # type: ignore[no-untyped-call]


def drawn(labels: Tensor, number: int, generator: torch.Generator) -> Tensor:
    """Few-shot draw: indices of so many items of each label, increasing; all that a draw of fewer by this seed has.

    Args:
        labels: numbers 0 .. K-1, shape (N,); items of negative numbers belong to none.
        number: of each label; 0: all items that have a label.
        generator: of the order in which items are taken.

    Raises:
        ValueError: a label has fewer items.

    Example:
        >>> labels = torch.tensor([0, 1, 0, 1, -1, 1])
        >>> labels[drawn(labels, 2, torch.Generator().manual_seed(0))].bincount(), len(drawn(labels, 0, None))
        (tensor([2, 2]), 5)
    """
    if number == 0:
        return (labels >= 0).nonzero()[:, 0]
    order = torch.randperm(len(labels), generator=generator)
    order = order[labels[order] >= 0]
    order = order[labels[order].argsort(stable=True)]
    counts = torch.bincount(labels[order])
    if int(counts.min()) < number:
        raise ValueError(f"label {int(counts.argmin())} has {int(counts.min())} items, fewer than {number}")
    starts = counts.cumsum(0) - counts
    return order[(starts[:, None] + torch.arange(number)).flatten()].sort().values


def folds_of(labels: Tensor, generator: torch.Generator, most: int = MOST_FOLDS) -> list[Tensor]:
    """Folds of a cross-validation that each hold their share of every label, as masks of what is left out.

    Args:
        labels: numbers 0 .. K-1, shape (N,).
        generator: of the order of the items.
        most: folds; there are fewer where a label has fewer items, and none where one has a single item.

    Example:
        >>> folds = folds_of(torch.tensor([0, 0, 1, 1, 1]), torch.Generator().manual_seed(0))
        >>> [int(fold.sum()) for fold in folds]
        [3, 2]
    """
    counts = torch.bincount(labels)
    number = min(most, int(counts[counts > 0].min()))
    order = torch.randperm(len(labels), generator=generator)
    order = order[labels[order].argsort(stable=True)]
    starts = (counts.cumsum(0) - counts)[labels[order]]
    fold = torch.empty_like(order)
    fold[order] = (torch.arange(len(order)) - starts) % number
    return [fold == part for part in range(number)] if number > 1 else []


def chosen_strength(
    fit: Callable[[Tensor, Tensor, float], LogProbabilities],
    embeddings: Tensor,
    labels: Tensor,
    folds: Sequence[Tensor],
    strengths: Sequence[float] = STRENGTHS,
) -> float:
    """Strength of a ridge by cross-validation: that of the least negative log-likelihood of what is left out.

    Args:
        fit: makes a classifier of embeddings, their labels and a strength.
        embeddings: shape (N, E).
        labels: shape (N,).
        folds: masks of what is left out; with none the strength is that of a Gaussian prior of variance one.
        strengths: to choose from, the first one if several are as good.
    """
    if not folds:
        return UNIT_STRENGTH

    def lost(strength: float) -> float:
        return sum(
            -fit(embeddings[~fold], labels[~fold], strength)(embeddings[fold])
            .gather(1, labels[fold, None])
            .sum()
            .item()
            for fold in folds
        )

    return min(strengths, key=lost)


def cross_validated(
    embeddings: Tensor, labels: Tensor, start: LabelConditional, seed: int = 0
) -> tuple[LabelConditional, float]:
    """Fine-tune with the strength that cross-validation on the labelled items chooses, and return it too.

    Args:
        embeddings: shape (N, E).
        labels: numbers 0 .. K-1, shape (N,).
        start: see ``fine_tune``.
        seed: of the folds.

    Example:
        >>> embeddings, labels = torch.tensor([[-2.0], [-1.0], [1.0], [2.0]]), torch.tensor([0, 0, 1, 1])
        >>> tuned, strength = cross_validated(embeddings, labels, zeros(labels, 2, 1, 1.0))
        >>> tuned(embeddings).argmax(1), strength
        (tensor([0, 0, 1, 1]), 0.001)
    """
    folds = folds_of(labels, torch.Generator().manual_seed(seed))

    def fit(some: Tensor, of: Tensor, strength: float) -> LabelConditional:
        return fine_tune(some, of, start, strength, ROUGH_TOLERANCE)

    strength = chosen_strength(fit, embeddings, labels, folds)
    return fine_tune(embeddings, labels, start, strength), strength
