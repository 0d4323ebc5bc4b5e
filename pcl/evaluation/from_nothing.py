"""A classifier of the same architecture that was trained on labelled items alone, from random weights.

Shapes: N items, E embedding, K labels.
"""

__all__ = ["Recipe", "from_nothing"]

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from pcl.encoders.build import ModelSpec, build_model
from pcl.evaluation.blocks import encoded
from pcl.model import PairModel
from pcl.tilting import embeddings_of, feature_maps


@dataclass(frozen=True)
class Recipe:
    """How a classifier is trained from nothing, by Adam.

    Attributes:
        steps: in all; the learning rate falls to 0 as a cosine.
        learning_rate: at the first step.
        weight_decay: of matrices, decoupled.
        batch: items in a step, all of them where there are fewer.
        block: items that are encoded at a time.
    """

    steps: int = 300
    learning_rate: float = 1e-3
    weight_decay: float = 0.0
    batch: int = 64
    block: int = 1024


class _Classifier(nn.Module):
    """An encoder of u and a linear map of its embeddings to logits of labels."""

    def __init__(self, model: PairModel, embedding_dim: int, num_labels: int) -> None:
        super().__init__()
        self.encoder, self.tilting = model.encoder_u, model.tilting
        self.temperature = float(model.temperature())
        self.head = nn.Linear(embedding_dim, num_labels, dtype=model.temperature().dtype)

    def forward(self, items: Tensor) -> Tensor:
        """Return logits (N, K) of stored items."""
        embedding = self.encoder(items)
        features, _ = feature_maps(embedding, embedding, self.tilting)
        logits: Tensor = self.head(embeddings_of(features, self.tilting) / self.temperature)
        return logits


def from_nothing(
    spec: ModelSpec, items: Tensor, labels: Tensor, num_labels: int, recipe: Recipe, seed: int = 0
) -> Callable[[Tensor], Tensor]:
    """Train the encoder of u of a model, and a linear map of its embeddings to labels, from random weights.

    The loss is the one-sided loss of labels given items, exact over all labels: cross-entropy.

    Args:
        spec: of the model, whose architecture, tilting and first temperature it takes.
        items: stored u, shape (N, ...).
        labels: of them, numbers 0 .. K-1, shape (N,).
        num_labels: K.
        recipe: of the training.
        seed: of the weights, the order of the items and dropout; the global generator is left as it was.

    Returns:
        A function that gives log-probabilities (n, K) of stored items (n, ...).
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = _Classifier(build_model(spec, seed), spec["embedding_dim"], num_labels)
        _train(network, items, labels.long(), recipe, torch.Generator().manual_seed(seed))
    network.eval().requires_grad_(False)

    def log_probabilities(of: Tensor) -> Tensor:
        return encoded(network, of, recipe.block, of[:1].nbytes).double().log_softmax(1)

    return log_probabilities


@torch.enable_grad()
def _train(network: nn.Module, items: Tensor, labels: Tensor, recipe: Recipe, generator: torch.Generator) -> None:
    parameters = [parameter for parameter in network.parameters() if parameter.requires_grad]
    groups = [
        {"params": [p for p in parameters if p.ndim >= 2], "weight_decay": recipe.weight_decay},
        {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=recipe.learning_rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, recipe.steps)
    batches = _batches(len(items), recipe.batch, generator)
    for _ in range(recipe.steps):
        chosen = next(batches)
        optimizer.zero_grad(set_to_none=True)
        cross_entropy(network(items[chosen]), labels[chosen]).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        schedule.step()


def _batches(number: int, batch: int, generator: torch.Generator) -> Iterator[Tensor]:
    """Yield indices of batches without end, each item once in a pass; what is left of a pass is left out."""
    size = min(number, batch)
    while True:
        yield from torch.randperm(number, generator=generator)[: number // size * size].view(-1, size)
