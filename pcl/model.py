"""A model of pairs: two encoders, a tilting and a temperature."""

__all__ = ["ModelSpec", "PairModel", "build_model"]

from typing import Any, TypedDict

import torch
from torch import Tensor, nn

from pcl.conditional import Conditional
from pcl.encoders import make_encoder
from pcl.tilting import TILTINGS, Temperature, feature_maps, log_tilting


class ModelSpec(TypedDict):
    """Everything needed to build a model again: plain numbers and strings, saved in every checkpoint."""

    embedding_dim: int
    encoder_u: dict[str, Any]
    encoder_v: dict[str, Any]
    tilting: str
    temperature: dict[str, Any]
    dtype: str


class PairModel(nn.Module):
    """Encoders of u and v with the tilting that joins them.

    Args:
        encoder_u: maps stored u, (B, *shape_u), to (B, E).
        encoder_v: maps stored v, (B, *shape_v), to (B, E).
        tilting: one of ``TILTINGS``.
        temperature: tau.
    """

    def __init__(self, encoder_u: nn.Module, encoder_v: nn.Module, tilting: str, temperature: Temperature) -> None:
        super().__init__()
        if tilting not in TILTINGS:
            raise ValueError(f"tilting {tilting!r} is not known; choose one of {', '.join(TILTINGS)}")
        self.encoder_u = encoder_u
        self.encoder_v = encoder_v
        self.tilting = tilting
        self.temperature = temperature

    def encode_u(self, u: Tensor) -> Tensor:
        """Return embeddings (B, E) of stored u."""
        embedding: Tensor = self.encoder_u(u)
        return embedding

    def encode_v(self, v: Tensor) -> Tensor:
        """Return embeddings (B, E) of stored v."""
        embedding: Tensor = self.encoder_v(v)
        return embedding

    def forward(self, u: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Return the feature maps of both modalities, (B, F) each."""
        return feature_maps(self.encode_u(u), self.encode_v(v), self.tilting)

    def features_u(self, u: Tensor) -> Tensor:
        """Return the feature maps (B, F) of u alone."""
        embedding = self.encode_u(u)
        return feature_maps(embedding, embedding, self.tilting)[0]

    def features_v(self, v: Tensor) -> Tensor:
        """Return the feature maps (B, F) of v alone."""
        embedding = self.encode_v(v)
        return feature_maps(embedding, embedding, self.tilting)[1]

    @torch.no_grad()
    def conditional(self, direction: str, references: Tensor, log_prior: Tensor | None = None) -> Conditional:
        """Return the learned conditional on a reference set.

        Args:
            direction: ``u_given_v`` (references are u, queries ``features_v``) or ``v_given_u``.
            references: stored items of the predicted modality, (N, ...).
            log_prior: log weights of the references up to a constant, (N,); uniform when None.

        Raises:
            ValueError: the direction is not known, or the references are empty.
        """
        if direction not in ("u_given_v", "v_given_u"):
            raise ValueError(f"direction {direction!r} is not known; choose u_given_v or v_given_u")
        features = self.features_u(references) if direction == "u_given_v" else self.features_v(references)
        return Conditional(features, self.temperature(), log_prior)

    def log_tilting(self, u: Tensor, v: Tensor) -> Tensor:
        """Return s(u, v) of every u against every v, shape (len(u), len(v))."""
        return log_tilting(self.encode_u(u), self.encode_v(v), self.tilting, self.temperature())


def build_model(spec: ModelSpec, seed: int = 0) -> PairModel:
    """Build a model in its dtype with weights drawn from a seed; the global generator is left as it was.

    Example:
        >>> linear = {"kind": "linear", "shape": [3]}
        >>> tau = {"initial": 1.0, "learned": False, "minimum": 0.1, "maximum": 10.0}
        >>> model = build_model({"embedding_dim": 2, "encoder_u": linear, "encoder_v": linear,
        ...     "tilting": "cosine", "temperature": tau, "dtype": "float64"})
        >>> model.log_tilting(torch.ones(1, 3), torch.ones(4, 3)).shape
        torch.Size([1, 4])
    """
    default = torch.get_default_dtype()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        torch.set_default_dtype(getattr(torch, spec["dtype"]))
        try:
            return PairModel(
                make_encoder(embedding_dim=spec["embedding_dim"], **spec["encoder_u"]),
                make_encoder(embedding_dim=spec["embedding_dim"], **spec["encoder_v"]),
                spec["tilting"],
                Temperature(**spec["temperature"]),
            )
        finally:
            torch.set_default_dtype(default)
