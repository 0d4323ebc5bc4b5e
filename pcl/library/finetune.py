"""Fine-tuning in this process: a classifier of a trained model's u from labelled items."""

__all__ = ["finetune"]

from typing import Any

import numpy as np
import torch
from torch import Tensor

from pcl.entrance import as_tensor
from pcl.errors import BadInputError
from pcl.evaluation.blocks import encoded
from pcl.finetuning import LabelConditional, cross_validated, fine_tune, untuned, zeros
from pcl.library.classifier import BLOCK, Classifier
from pcl.tilting import embeddings_of
from pcl.train.trained import TrainedModel


@torch.no_grad()
def finetune(
    model: TrainedModel,
    u: Any,
    labels: Any,
    *,
    label_items: Any = None,
    log_prior: Any = None,
    strength: float | None = None,
    seed: int = 0,
) -> Classifier:
    r"""Fine-tune a trained model to labels of u, from few labelled items: g_u stays as it is, G and F are learned.

    .. math:: p(k|u) = \text{softmax}_k\left(\langle G_k, g_u(u)\rangle / \tau + F_k\right)

    They minimise the one-sided loss on the labelled items with a ridge towards their start
    (``pcl.finetuning.fine_tune``); with several labels of each kind cross-validation on these chooses its strength.

    Args:
        model: of ``pcl.fit`` or ``pcl.load``.
        u: stored items, (N, ...), an array of numpy or a tensor.
        labels: of each, whole numbers or texts, (N,).
        label_items: what the model's v is for each of the distinct labels in increasing order, (K, ...): their
            embeddings are the start of G; None: G starts at zero.
        log_prior: log frequencies of the distinct labels in increasing order, (K,), the start of F; None: those of
            ``labels``.
        strength: of the ridge, which at 1 is a Gaussian prior of variance one; None: chosen.
        seed: of the folds of the cross-validation.

    Raises:
        BadInputError: labels are no labels, or there are not as many as items.
        ValueError: u or label_items are not as the model takes them.

    References:
        Baptista, Stuart, Tran (2025), arXiv:2505.24134, equations 32-35, algorithm 2.

    Example:
        >>> import pcl
        >>> v = np.random.default_rng(0).normal(size=(400, 2))
        >>> u = np.concatenate([v, v**2], 1)
        >>> model = pcl.fit(u, v, epochs=5, show=False)
        >>> classifier = pcl.finetune(model, u[:40], np.where(v[:40, 0] > 0, "east", "west"))
        >>> classifier.predict(np.array([[3.0, 0.0, 9.0, 0.0], [-3.0, 0.0, 9.0, 0.0]]))
        array(['east', 'west'], dtype='<U4')
        >>> classifier.probabilities(u[:3]).shape
        (3, 2)
    """
    names, numbers = _distinct(labels)
    items = as_tensor("u", u)
    if len(items) != len(numbers):
        raise BadInputError(f"{len(items):,} items u and {len(numbers):,} labels: give one label for each item")
    embeddings = embeddings_of(encoded(model.features_u, items, BLOCK, items[:1].nbytes), model.tilting)
    start = _start(model, embeddings, numbers, len(names), label_items, log_prior)
    if strength is not None:
        return Classifier(model, fine_tune(embeddings, numbers, start, strength), names)
    return Classifier(model, cross_validated(embeddings, numbers, start, seed)[0], names)


def _distinct(labels: Any) -> tuple[list[Any], Tensor]:
    """Return the distinct labels in increasing order, and the number of each label among them."""
    given = labels.detach().cpu().numpy() if isinstance(labels, Tensor) else np.asarray(labels)
    if given.ndim != 1 or given.dtype.kind not in "iubU" or len(np.unique(given)) < 2:
        raise BadInputError(
            f"labels of shape {given.shape} and type {given.dtype}: give one whole number or text for each item, at "
            "least two different ones"
        )
    names, numbers = np.unique(given.astype(np.int64) if given.dtype.kind == "b" else given, return_inverse=True)
    return names.tolist(), torch.from_numpy(numbers)


def _start(
    model: TrainedModel, embeddings: Tensor, labels: Tensor, num_labels: int, label_items: Any, log_prior: Any
) -> LabelConditional:
    """Return G and F from which the fine-tuning starts."""
    temperature = float(model.temperature())
    plain = zeros(labels, num_labels, embeddings.shape[1], temperature)
    prior = plain.log_prior if log_prior is None else as_tensor("log_prior", log_prior).double()
    features = None if label_items is None else model.features_v(as_tensor("label_items", label_items))
    for name, given in (("log_prior", prior), ("label_items", features)):
        if given is not None and len(given) != num_labels:
            raise BadInputError(f"{name} has {len(given)} rows and there are {num_labels} labels: give one for each")
    if features is None:
        return LabelConditional(plain.weights, prior, temperature)
    return untuned(features, model.tilting, temperature, prior)
