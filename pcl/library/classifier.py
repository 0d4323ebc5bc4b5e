"""Classifiers of u: a trained encoder that stays as it is, and what was learned of labels on top of it."""

__all__ = ["Classifier"]

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pcl.entrance import as_tensor, in_kind
from pcl.errors import BadInputError, DamagedDataError
from pcl.evaluation.blocks import encoded
from pcl.finetuning import LabelConditional
from pcl.storage.place import Place, place, write_bytes
from pcl.storage.stored import Finite, read_sealed, sealed, write_json
from pcl.tilting import embeddings_of
from pcl.train.model_folder import read_weights, weights_file
from pcl.train.runs import load
from pcl.train.trained import TrainedModel

JSON_FILE, WEIGHTS_FILE = "classifier.json", "classifier.safetensors"
BLOCK = 1024
REMEDY = "fine-tune again, or use the version of this program that wrote it"


@dataclass(frozen=True)
class Stored:
    """What ``classifier.json`` holds."""

    names: list[str] | list[int]
    temperature: Finite


class Classifier:
    r"""Classifier of u: :math:`p(k|u) = \text{softmax}_k(\langle G_k, g_u(u)\rangle/\tau + F_k)`.

    Arrays of numpy are answered with arrays, tensors with tensors.

    Args:
        model: whose encoder of u is g_u.
        conditional: G, F and tau.
        names: of the labels, texts or whole numbers, K.
    """

    def __init__(self, model: TrainedModel, conditional: LabelConditional, names: Sequence[Any]) -> None:
        self.model, self.conditional, self.names = model, conditional, list(names)

    @in_kind
    @torch.no_grad()
    def log_probabilities(self, u: Any) -> Tensor:
        """Return log-probabilities of the labels given stored u, (N, ...) -> (N, K).

        Raises:
            ValueError: u are not as the encoder takes them.
        """
        items = as_tensor("u", u)
        features = encoded(self.model.features_u, items, BLOCK, items[:1].nbytes)
        return self.conditional(embeddings_of(features, self.model.tilting))

    @in_kind
    def probabilities(self, u: Any) -> Tensor:
        """Return probabilities of the labels given stored u, shape (N, K); rows sum to one."""
        found: Tensor = self.log_probabilities(as_tensor("u", u)).exp()
        return found

    def predict(self, u: Any) -> np.ndarray:
        """Return the name of the most probable label of every stored u, shape (N,)."""
        chosen = self.log_probabilities(as_tensor("u", u)).argmax(1)
        found: np.ndarray = np.asarray(self.names)[chosen.numpy()]
        return found

    def save(self, folder: str | Path | Place) -> None:
        """Write the classifier with its model to a folder, from which ``Classifier.load(folder)`` reads it.

        Raises:
            BadInputError: the folder holds a model already.
            OSError: storage refuses.
        """
        directory = place(str(folder))
        self.model.save(str(directory))
        conditional = self.conditional
        weights = {"weights": conditional.weights, "log_prior": conditional.log_prior}
        write_bytes(directory / WEIGHTS_FILE, weights_file(weights))
        write_json(directory / JSON_FILE, sealed({"names": list(self.names), "temperature": conditional.temperature}))

    @staticmethod
    def load(folder: str | Path | Place, plugins: Sequence[str | Path] = ()) -> "Classifier":
        """Load a classifier from the folder of a fine-tuning.

        Args:
            folder: that ``save`` or ``pcl finetune`` wrote.
            plugins: Python files that register encoders which the model needs.

        Raises:
            BadInputError: the folder holds no classifier, or see ``pcl.load``.
            DamagedDataError: a file cannot be read.
            OSError: storage refuses.
        """
        directory = place(str(folder))
        read = read_sealed(directory / JSON_FILE, Stored, REMEDY)
        if read is None:
            raise BadInputError(f"{directory} holds no classifier: give a folder that pcl finetune or save wrote")
        stored, model = read[0], load(directory, plugins)
        found = read_weights(directory / WEIGHTS_FILE) or {}
        shapes = {name: tuple(value.shape) for name, value in found.items()}
        number = len(stored.names)
        wanted = {"weights": (number, model.spec["embedding_dim"]), "log_prior": (number,)}
        if shapes != wanted or any(value.dtype != torch.float64 for value in found.values()):
            raise DamagedDataError(f"{directory / WEIGHTS_FILE} is not that of {JSON_FILE}: {REMEDY}")
        conditional = LabelConditional(found["weights"], found["log_prior"], stored.temperature)
        return Classifier(model, conditional, stored.names)
