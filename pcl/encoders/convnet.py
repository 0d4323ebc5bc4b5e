"""Residual convolutional networks, for images of any size.

Shapes: B pairs, C channels, H x W places, E embedding.
"""

__all__ = ["ConvNet", "ConvNetSettings", "ResidualBlock", "group_norm"]

import math
from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from pcl.errors import BadInputError
from pcl.settings import check_settings, setting

LAST_PLACES = 4  # rows and columns of the last stage, about: an axis longer than half as many again is halved
MOST_WIDENED = 8  # channels of the last stages over those of the first


@dataclass
class ConvNetSettings:
    """Settings of the convnet encoder."""

    width: int = setting("channels of the first stage, doubled up to eightfold", 32, at_least=1, at_most=10**4)
    blocks: int = setting("residual blocks in a stage", 1, at_least=0, at_most=100)
    pool: str = setting("of the last 4 x 4 places: flatten remembers where", "flatten", choices=("flatten", "mean"))
    dropout: float = setting(
        "share of what enters the last layer that is dropped in training", 0.0, at_least=0, at_most=0.99
    )


class ResidualBlock(nn.Module):
    """Residual block that normalises first (He et al. 2016, arXiv:1603.05027).

    Args:
        width: channels.

    Example:
        >>> import torch
        >>> ResidualBlock(6)(torch.zeros(2, 6, 5, 7)).shape
        torch.Size([2, 6, 5, 7])
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            group_norm(width),
            nn.SiLU(),
            nn.Conv2d(width, width, 3, padding=1),
            group_norm(width),
            nn.SiLU(),
            nn.Conv2d(width, width, 3, padding=1),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to the same shape."""
        residual: Tensor = self.layers(x)
        return x + residual


def group_norm(width: int) -> nn.GroupNorm:
    """Return a normalisation over groups of channels: one over the batch would tie its pairs together."""
    return nn.GroupNorm(math.gcd(8, width), width)


class ConvNet(nn.Module):
    """Residual network of images: stages that halve an image down to about 4 x 4 places, then one linear layer.

    The places are flattened, not averaged: an average would forget where things are.

    Args:
        shape: of an image, (H, W) or (C, H, W).
        embedding_dim: E.
        width: channels of the first stage.
        blocks: residual blocks in a stage.
        pool: ``flatten`` or ``mean``.
        dropout: share of what enters the last layer that is dropped in training.

    Raises:
        BadInputError: items are no images, or a setting is impossible.

    Example:
        >>> import torch
        >>> ConvNet((3, 37, 20), 8, width=4)(torch.zeros(2, 3, 37, 20)).shape
        torch.Size([2, 8])
    """

    def __init__(
        self,
        shape: Sequence[int],
        embedding_dim: int,
        *,
        width: int = 32,
        blocks: int = 1,
        pool: str = "flatten",
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        check_settings(ConvNetSettings(width, blocks, pool, dropout), "the convnet encoder: ")
        if len(shape) not in (2, 3) or math.prod(shape[-2:]) < 2:
            raise BadInputError(
                "the convnet encoder takes images (rows, columns) or (channels, rows, columns) of two places or more, "
                f"not items of shape {tuple(shape)}: choose mlp"
            )
        channels, places = (shape[0] if len(shape) == 3 else 1), list(shape[-2:])
        widths = _widths(width, places)
        layers: list[nn.Module] = []
        for one in widths:
            rows, columns = (2 if _is_long(size) else 1 for size in places)
            layers.append(nn.Conv2d(channels, one, 3, stride=(rows, columns), padding=1))
            layers += [ResidualBlock(one) for _ in range(blocks)]
            channels, places = one, [-(-places[0] // rows), -(-places[1] // columns)]
        self.stages = nn.Sequential(*layers, group_norm(channels), nn.SiLU())
        self.pool = nn.AdaptiveAvgPool2d(1) if pool == "mean" else nn.Identity()
        num_features = channels * (1 if pool == "mean" else math.prod(places))
        self.head = nn.Sequential(nn.Flatten(), nn.Dropout(dropout), nn.Linear(num_features, embedding_dim))

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, H, W) or (B, C, H, W) to (B, E)."""
        embedding: Tensor = self.head(self.pool(self.stages(x if x.ndim == 4 else x[:, None])))
        return embedding


def _is_long(size: int) -> bool:
    return 2 * size > 3 * LAST_PLACES


def _widths(width: int, places: Sequence[int]) -> list[int]:
    """Return the channels of every stage, of which each halves the long axes; there is always one."""
    longest, widths = max(places), [width]
    while _is_long(longest := -(-longest // 2)):
        widths.append(width * min(2 ** len(widths), MOST_WIDENED))
    return widths
