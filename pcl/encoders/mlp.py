"""Multilayer perceptrons, for items of any numbers.

Shapes: B pairs, E embedding; ``shape`` is the shape of one item.
"""

__all__ = ["ACTIVATIONS", "MLP", "MLPSettings"]

import math
from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from pcl.encoders.basic import flattened
from pcl.errors import BadInputError
from pcl.settings import check_settings, setting

ACTIVATIONS: dict[str, type[nn.Module]] = {"relu": nn.ReLU, "gelu": nn.GELU, "silu": nn.SiLU, "tanh": nn.Tanh}
MOST_WIDTH = 10**6


@dataclass
class MLPSettings:
    """Settings of the mlp encoder."""

    widths: list[int] = setting("of the hidden layers; none: a linear map with a bias", [256, 256])
    activation: str = setting("after a hidden layer", "gelu", choices=tuple(ACTIVATIONS))
    norm: str = setting("of a hidden layer, before its activation", "none", choices=("none", "layer"))
    residual: bool = setting("add what goes into a hidden layer to what comes out, where both are as wide", False)
    dropout: float = setting("share of a hidden layer that is dropped in training", 0.0, at_least=0, at_most=0.99)


class _Layer(nn.Module):
    """A hidden layer: linear map, norm, activation, dropout, and what went in."""

    def __init__(self, num_in: int, num_out: int, settings: MLPSettings) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(num_in, num_out),
            nn.LayerNorm(num_out) if settings.norm == "layer" else nn.Identity(),
            ACTIVATIONS[settings.activation](),
            nn.Dropout(settings.dropout),
        )
        self.is_residual = settings.residual and num_in == num_out

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, in) to (B, out)."""
        result: Tensor = self.layers(x)
        return x + result if self.is_residual else result


class MLP(nn.Module):
    r"""Multilayer perceptron of a flattened item: :math:`W_k\, a(\dots a(W_1 x + b_1) \dots) + b_k`.

    Args:
        shape: of an item of numbers.
        embedding_dim: E.
        widths: of the hidden layers.
        activation: one of ``ACTIVATIONS``.
        norm: ``none`` or ``layer``.
        residual: whether layers as wide as what goes in add to it.
        dropout: share of a hidden layer that is dropped in training.

    Raises:
        BadInputError: a setting is impossible.

    Example:
        >>> import torch
        >>> MLP((3, 4), 5, widths=[8])(torch.zeros(2, 3, 4)).shape
        torch.Size([2, 5])
    """

    def __init__(
        self,
        shape: Sequence[int],
        embedding_dim: int,
        *,
        widths: Sequence[int] = (256, 256),
        activation: str = "gelu",
        norm: str = "none",
        residual: bool = False,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        settings = MLPSettings(list(widths), activation, norm, residual, dropout)
        check_settings(settings, "the mlp encoder: ")
        if wrong := [width for width in widths if not 1 <= width <= MOST_WIDTH]:
            raise BadInputError(f"widths={list(widths)}: {wrong[0]} must be at least 1 and at most {MOST_WIDTH:,}")
        sizes = [math.prod(shape), *widths]
        layers = [_Layer(num_in, num_out, settings) for num_in, num_out in zip(sizes, widths, strict=False)]
        self.layers = nn.Sequential(*layers, nn.Linear(sizes[-1], embedding_dim))

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, *shape) to (B, E)."""
        embedding: Tensor = self.layers(flattened(x))
        return embedding
