"""Modalities whose marginal is known, so that normalisers over them are exact: of few values, or a Gaussian."""

__all__ = ["FiniteModality", "GaussianModality", "Marginal"]

from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from pcl.carrier import CarriedFeatures
from pcl.model import PairModel
from pcl.scores import Atoms


class Marginal(Protocol):
    """A modality whose marginal is known."""

    def given(self, model: PairModel) -> tuple[str, Any]:
        """Return the name and value of a loss's argument, ``atoms_u`` or ``atoms_v``, with this step's features."""
        ...


@dataclass(frozen=True)
class FiniteModality:
    """A modality with few values and known frequencies, such as labels.

    Attributes:
        name: ``u`` or ``v``.
        items: every value once, as stored, shape (K, ...).
        log_prior: log frequencies up to a constant, shape (K,).
    """

    name: str
    items: Tensor
    log_prior: Tensor

    def given(self, model: PairModel) -> tuple[str, Atoms]:
        """Return ``atoms_u`` or ``atoms_v`` with the features of all values."""
        device = model.temperature.log_temperature.device
        items = self.items.to(device)
        features = (model.features_u if self.name == "u" else model.features_v)(items)
        return f"atoms_{self.name}", Atoms(features, self.log_prior.to(device), items)


@dataclass(frozen=True)
class GaussianModality:
    """A modality of n numbers that a Gaussian carries, whose encoder is affine: embeddings of it are a Gaussian too.

    Attributes:
        name: ``u`` or ``v``.
        mean: as stored, shape (...).
        root: columns F of a covariance F F', as items (r, ...).
    """

    name: str
    mean: Tensor
    root: Tensor

    def given(self, model: PairModel) -> tuple[str, CarriedFeatures]:
        """Return ``atoms_u`` or ``atoms_v`` with the mean and the covariance of this step's embeddings."""
        like = model.temperature.log_temperature
        mean, root = (part.to(like) for part in (self.mean, self.root))
        encoder = model.encoder_u if self.name == "u" else model.encoder_v
        embeddings = encoder(torch.cat([mean[None], mean + root]))
        if model.tilting == "potentials":
            embeddings = embeddings[:, :-1]
        deviations = embeddings[1:] - embeddings[0]
        carried = CarriedFeatures(embeddings[0], deviations.T @ deviations, self.name == "u", model.tilting)
        return f"atoms_{self.name}", carried
