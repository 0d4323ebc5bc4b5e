"""Fine-tuning judged: few labels a class, beside zero-shot, a linear probe and training from nothing.

Shapes: N items, E embedding, K labels.
"""

__all__ = ["FineTuned", "FineTuning", "LabelledItems", "fine_tuned", "linear_probe"]

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import torch
from torch import Tensor

from pcl.data.source import Progress, silently
from pcl.encoders.build import ModelSpec
from pcl.evaluation.blocks import encoded
from pcl.evaluation.classification import classification_metrics
from pcl.evaluation.from_nothing import Recipe, from_nothing
from pcl.finetuning import (
    LabelConditional,
    LogProbabilities,
    chosen_strength,
    cross_validated,
    drawn,
    folds_of,
    untuned,
    zeros,
)
from pcl.model import PairModel
from pcl.tilting import embeddings_of

LEAST_PROBABILITY = 1e-12


@dataclass(frozen=True)
class LabelledItems:
    """Stored u of both splits with their labels, read when they are needed.

    Attributes:
        names: of the labels, K texts or whole numbers.
        labels: of ``train`` and ``test``: a number 0 .. K-1 for every item, -1 where it is left out.
        read: returns stored u of a split by increasing indices.
        atoms: stored v of each label, shape (K, ...), where the model encodes labels; they give the start.
        log_prior: log frequencies of the labels that the model was trained on, shape (K,), where it knows them.
    """

    names: Sequence[str] | Sequence[int]
    labels: Mapping[str, Tensor]
    read: Callable[[str, Tensor], Tensor]
    atoms: Tensor | None = None
    log_prior: Tensor | None = None


@dataclass(frozen=True)
class FineTuning:
    """How fine-tuning is judged.

    Attributes:
        per_label: labels a class that are drawn from the training split; 0: all.
        seeds: of the draws.
        recipe: of the training from nothing; None: it is left out.
        max_test: the first test items only; 0: all.
        block: items that are encoded at a time.
    """

    per_label: Sequence[int] = (1, 2, 5, 10, 100)
    seeds: Sequence[int] = (0, 1, 2, 3, 4)
    recipe: Recipe | None = field(default_factory=Recipe)
    max_test: int = 0
    block: int = 1024


@dataclass
class FineTuned:
    """What was found, and the classifier that is kept: of the last number of labels and the first seed.

    Attributes:
        scores: metrics of the test items by method and by labels a class, one for each seed.
        zero_shot: those of the model as it was trained, where it encodes labels.
        kept: the classifier.
        strength: of its ridge.
        num_test: items that are judged.
        num_labelled: items that were drawn, by labels a class.
    """

    scores: dict[str, dict[int, list[dict[str, float]]]]
    zero_shot: dict[str, float] | None
    kept: LabelConditional
    strength: float
    num_test: int
    num_labelled: dict[int, int]


@dataclass(frozen=True)
class _Split:
    """Items of a split, their embeddings and their labels, shapes (N, ...), (N, E), (N,)."""

    items: Tensor
    embeddings: Tensor
    labels: Tensor

    def at(self, rows: Tensor) -> "_Split":
        return _Split(self.items[rows], self.embeddings[rows], self.labels[rows])


@torch.no_grad()
def fine_tuned(
    model: PairModel, spec: ModelSpec, given: LabelledItems, how: FineTuning, progress: Progress = silently
) -> FineTuned:
    """Fine-tune a model on few labels of each kind, and judge it on the test items beside what else one could do.

    Args:
        model: whose encoder of u is frozen: it encodes every item once.
        spec: of the model.
        given: the labelled items.
        how: numbers of labels, seeds, and the training from nothing.
        progress: shows how many draws are done.

    Raises:
        ValueError: items are not as the encoder takes them, or a label has fewer items than are to be drawn.
    """
    draws = {
        (number, seed): drawn(given.labels["train"], number, torch.Generator().manual_seed(seed))
        for number in how.per_label
        for seed in how.seeds
    }
    num_labels, start_of = len(given.names), _starts(model, spec, given)
    used = torch.unique(torch.cat([*draws.values()]))
    tested = drawn(given.labels["test"], 0, torch.Generator())[: how.max_test or None]
    encode = partial(_encoded, model, given, how.block)
    train, test = encode("train", used), encode("test", tested)
    scores: dict[str, dict[int, list[dict[str, float]]]] = {}
    kept: tuple[LabelConditional, float] | None = None
    for number, seed in progress([*draws], "draw"):
        few = train.at(torch.searchsorted(used, draws[number, seed]))
        tuned, strength = cross_validated(few.embeddings, few.labels, start_of(few.labels), seed)
        for method, log_probabilities in _predictions(few, test, tuned, spec, how, num_labels, seed):
            found = classification_metrics(log_probabilities, test.labels)
            scores.setdefault(method, {}).setdefault(number, []).append(found)
        if number == how.per_label[-1] and seed == how.seeds[0]:
            kept = tuned, strength
    assert kept is not None
    sizes = {number: len(draws[number, how.seeds[0]]) for number in how.per_label}
    as_trained = None if given.atoms is None else start_of(torch.arange(num_labels))
    zero_shot = None if as_trained is None else classification_metrics(as_trained(test.embeddings), test.labels)
    return FineTuned(scores, zero_shot, *kept, len(test.labels), sizes)


def _encoded(model: PairModel, given: LabelledItems, block: int, split: str, indices: Tensor) -> _Split:
    items = given.read(split, indices)
    embeddings = embeddings_of(encoded(model.features_u, items, block, items[:1].nbytes), model.tilting)
    return _Split(items, embeddings, given.labels[split][indices].long())


def _starts(model: PairModel, spec: ModelSpec, given: LabelledItems) -> Callable[[Tensor], LabelConditional]:
    """Return what gives the start for labels that were drawn: their frequencies, unless the model knows better."""
    temperature = float(model.temperature())
    of_labels = None if given.atoms is None else model.features_v(given.atoms)

    def start_of(labels: Tensor) -> LabelConditional:
        plain = zeros(labels, len(given.names), spec["embedding_dim"], temperature)
        if of_labels is None:
            return plain
        prior = plain.log_prior if given.log_prior is None else given.log_prior
        return untuned(of_labels, model.tilting, temperature, prior)

    return start_of


def _predictions(
    few: _Split, test: _Split, tuned: LabelConditional, spec: ModelSpec, how: FineTuning, num_labels: int, seed: int
) -> Iterator[tuple[str, Tensor]]:
    """Yield log-probabilities of the test items by every method that learns from few labels."""
    yield "fine-tuned", tuned(test.embeddings)
    folds = folds_of(few.labels, torch.Generator().manual_seed(seed))
    fit = partial(linear_probe, num_labels=num_labels)
    strength = chosen_strength(fit, few.embeddings, few.labels, folds)
    yield "linear probe", fit(few.embeddings, few.labels, strength)(test.embeddings)
    if how.recipe is not None:
        yield "from nothing", from_nothing(spec, few.items, few.labels, num_labels, how.recipe, seed)(test.items)


def linear_probe(embeddings: Tensor, labels: Tensor, strength: float, num_labels: int) -> LogProbabilities:
    """Linear probe of frozen embeddings: logistic regression of scikit-learn, on embeddings of mean square one.

    Args:
        embeddings: shape (N, E).
        labels: shape (N,), of at least two kinds.
        strength: of the ridge, 1 / C.
        num_labels: K; those that do not occur get no probability.
    """
    from sklearn.linear_model import LogisticRegression  # it takes a second

    scale = embeddings.double().square().mean().sqrt().clamp_min(torch.finfo(torch.float64).tiny)
    probe = LogisticRegression(C=1 / strength, max_iter=2000, tol=1e-5)
    probe.fit((embeddings / scale).double().numpy(), labels.numpy())

    def log_probabilities(of: Tensor) -> Tensor:
        found = np.full((len(of), num_labels), LEAST_PROBABILITY)
        found[:, probe.classes_] = probe.predict_proba((of / scale).double().numpy()).clip(LEAST_PROBABILITY)
        return torch.from_numpy(np.log(found))

    return log_probabilities
