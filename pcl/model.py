"""A model of pairs: two encoders, a tilting and a temperature."""

__all__ = ["PairModel"]

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from pcl.conditional import Conditional
from pcl.entrance import Items, as_tensor, in_kind
from pcl.tilting import TILTINGS, Temperature, feature_maps, log_tilting

BLOCK_ITEMS, BLOCK_BYTES = 1024, 4_000_000  # of references encoded at a time: layers hold many times as much


class PairModel(nn.Module):
    """Encoders of u and v with the tilting that joins them.

    Its methods take stored items as tensors or as arrays of numpy, which are answered in kind, and refuse those of
    another shape or dtype, or with values that no encoder knows; a training, whose data were checked as they were
    stored, calls the encoders.

    Args:
        encoder_u: maps stored u, (B, *shape_u), to (B, E); its attribute ``items``, where it has one, says what it
            takes (``pcl.entrance.Items``).
        encoder_v: maps stored v, (B, *shape_v), to (B, E); with potentials, which come last, both return (B, E + 1).
        tilting: one of ``TILTINGS``.
        temperature: tau.
        has_bias: whether its loss learns a bias of the scores.

    Attributes:
        bias: beta, a scalar that is 0 at first, or None: the logistic loss learns it, and s + beta is then the log
            density of a pair with respect to the product of the marginals. Conditionals do not depend on it.
    """

    bias: nn.Parameter | None

    def __init__(
        self,
        encoder_u: nn.Module,
        encoder_v: nn.Module,
        tilting: str,
        temperature: Temperature,
        has_bias: bool = False,
    ) -> None:
        super().__init__()
        if tilting not in TILTINGS:
            raise ValueError(f"tilting {tilting!r} is not known; choose one of {', '.join(TILTINGS)}")
        self.encoder_u = encoder_u
        self.encoder_v = encoder_v
        self.tilting = tilting
        self.temperature = temperature
        self.bias = nn.Parameter(torch.zeros(())) if has_bias else None

    @property
    def for_loss(self) -> dict[str, Tensor]:
        """What its loss is told beside the features and the temperature: ``bias``, of a loss that learns one."""
        return {} if self.bias is None else {"bias": self.bias}

    def _checked(self, name: str, encoder: nn.Module, given: Any) -> Tensor:
        like = self.temperature.log_temperature
        items = getattr(encoder, "items", None)
        if isinstance(items, Items):
            return items.checked(name, given, like)
        tensor = as_tensor(name, given)
        return (
            tensor.to(like.device) if isinstance(given, Tensor) or not tensor.is_floating_point() else tensor.to(like)
        )

    def _encode(self, name: str, given: Any) -> Tensor:
        encoder = self.encoder_u if name == "u" else self.encoder_v
        embedding: Tensor = encoder(self._checked(name, encoder, given))
        return embedding

    def _features(self, name: str, given: Any) -> Tensor:
        embedding = self._encode(name, given)
        return feature_maps(embedding, embedding, self.tilting)[0 if name == "u" else 1]

    @in_kind
    def encode_u(self, u: Any) -> Tensor:
        """Return embeddings (B, E) of stored u; with potentials (B, E + 1), of which the last is a(u).

        Raises:
            ValueError: u has another shape or dtype than what is stored, or values that are not finite.
        """
        return self._encode("u", u)

    @in_kind
    def encode_v(self, v: Any) -> Tensor:
        """Return embeddings (B, E) of stored v; with potentials (B, E + 1), of which the last is b(v).

        Raises:
            ValueError: as for ``encode_u``.
        """
        return self._encode("v", v)

    def forward(self, u: Any, v: Any) -> tuple[Tensor, Tensor]:
        """Return the feature maps of both modalities, (B, F) each."""
        return feature_maps(self._encode("u", u), self._encode("v", v), self.tilting)

    @in_kind
    def features_u(self, u: Any) -> Tensor:
        """Return the feature maps (B, F) of u alone."""
        return self._features("u", u)

    @in_kind
    def features_v(self, v: Any) -> Tensor:
        """Return the feature maps (B, F) of v alone."""
        return self._features("v", v)

    @torch.no_grad()
    def conditional(
        self, direction: str, references: Any, log_prior: Any = None, *, device: str | torch.device | None = None
    ) -> Conditional:
        """Return the learned conditional on a reference set, which is encoded in blocks of bounded memory.

        Args:
            direction: ``u_given_v`` (references are u, queries ``conditional.given(v)``) or ``v_given_u``.
            references: stored items of the predicted modality, (N, ...). They may lie on disk, as those of
                ``numpy.load(file, mmap_mode="r")`` do: a block of them is read at a time, and features alone are kept.
            log_prior: log weights of the references up to a constant, (N,); uniform when None.
            device: where features are kept and weights are formed, such as ``cuda``; None: where the model is.

        Raises:
            ValueError: the direction is not known, the references are empty, or they are not as ``encode_u`` or
                ``encode_v`` takes them.
        """
        if direction not in ("u_given_v", "v_given_u"):
            raise ValueError(f"direction {direction!r} is not known; choose u_given_v or v_given_u")
        of_u = direction == "u_given_v"
        if not isinstance(references, np.memmap):
            references = self._checked("references", self.encoder_u if of_u else self.encoder_v, references)
        step = max(1, min(BLOCK_ITEMS, BLOCK_BYTES // max(1, references[:1].nbytes)))
        blocks = (references[start : start + step] for start in range(0, max(1, len(references)), step))
        features = torch.cat([self._features("u" if of_u else "v", block).to(device) for block in blocks])
        encoder = self.features_v if of_u else self.features_u
        return Conditional(features, self.temperature().to(device), log_prior, encoder=encoder)

    @in_kind
    def log_tilting(self, u: Any, v: Any) -> Tensor:
        """Return s(u, v) of every u against every v, shape (len(u), len(v))."""
        return log_tilting(self._encode("u", u), self._encode("v", v), self.tilting, self.temperature())
