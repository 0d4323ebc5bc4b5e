"""What the page of a fine-tuning says beside its numbers: what was learned from what, and what to distrust."""

__all__ = ["finetuned_card"]

from collections.abc import Mapping
from typing import Any

import torch

from pcl.commands.model_card import few
from pcl.config.load import Config
from pcl.data.manifest import Manifest
from pcl.evaluation.finetuning import LabelledItems
from pcl.evaluation.report import Card
from pcl.evaluation.result import Table

LONGEST = 300  # characters of a value
KEYS = ("per_label", "seeds", "without", "steps")
NUMBERS = (
    "Fine-tuned: the encoder of u stays as it is, and a vector G and a log-prior F of every label are learned from the "
    "labelled items, p(label | u) = softmax(<G, g(u)> / tau + F). Linear probe: a logistic regression on the same "
    "embeddings. From nothing: the same encoder, trained on the labelled items alone. Zero-shot: the model as it was "
    "trained, which learns from none of them. Cells are means over draws of the labels ± standard deviation."
)


def finetuned_card(
    config: Config, manifest: Manifest, checkpoint: str, labelled: LabelledItems, about: Mapping[str, Any]
) -> Card:
    """Return the card of a fine-tuning.

    Args:
        config: of the run, with the section ``finetune``.
        manifest: of the run's shards.
        checkpoint: name of that whose encoder is frozen.
        labelled: the items and their labels.
        about: where the model and the labels are from.
    """
    chosen, most = config.finetune, config.evaluation.max_pairs
    there = {split: int((numbers >= 0).sum()) for split, numbers in labelled.labels.items()}
    num_test = min(there["test"], most or there["test"])
    sentences = [
        f"{len(labelled.names):,} labels of u ({manifest.arrays['u'].meaning}), learned from "
        f"{' or '.join(str(number) if number else 'all' for number in chosen.per_label)} items a label of "
        f"{there['train']:,} on top of the encoder of {checkpoint}; judged on {num_test:,} others.",
        f"The classifier that is kept is of {_kept(chosen.per_label[-1])} and the seed {chosen.seeds[0]}.",
    ]
    warnings = few(num_test, "test items")
    if num_test < there["test"]:
        warnings.append(f"The first {num_test:,} of {there['test']:,} test items were judged.")
    if len(chosen.seeds) == 1:
        warnings.append("One draw of labels: how much luck is in it is not known; more finetune.seeds tell.")
    facts = {
        "Labels": _labels(labelled),
        "Configuration": [["key", "value"], *([f"finetune.{key}", _short(getattr(chosen, key))] for key in KEYS)],
        "Where it comes from": [["", "value"], *([key, _short(value)] for key, value in about.items())],
    }
    return Card(f"{config.name}, fine-tuned", sentences, warnings, facts, NUMBERS, "Every number, and what it is.")


def _kept(per_label: int) -> str:
    return f"{per_label} items a label" if per_label else "all items"


def _labels(labelled: LabelledItems) -> Table:
    """Return how many items have each label."""
    counts = [
        torch.bincount(labelled.labels[split][labelled.labels[split] >= 0], minlength=len(labelled.names)).tolist()
        for split in ("train", "test")
    ]
    rows = zip(labelled.names, *counts, strict=True)
    return [["label", "in training", "in the test"], *([str(name), f"{n:,}", f"{m:,}"] for name, n, m in rows)]


def _short(value: Any) -> str:
    text = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 3]}..."
