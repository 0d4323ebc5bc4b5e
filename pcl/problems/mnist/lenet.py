"""LeNet, the encoder of images of digits.

Shapes: B pairs, E embedding.
"""

__all__ = ["LeNet"]

from collections.abc import Sequence

from torch import Tensor, nn

from pcl.errors import BadInputError


class LeNet(nn.Module):
    """LeNet-5 with rectifiers and max pooling for 28 x 28 images (LeCun et al. 1998)."""

    def __init__(self, shape: Sequence[int], embedding_dim: int) -> None:
        super().__init__()
        if tuple(shape) != (28, 28):
            raise BadInputError(f"the lenet encoder takes 28 x 28 images, not items of shape {tuple(shape)}")
        self.layers = nn.Sequential(
            nn.Conv2d(1, 6, 5, padding=2),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(6, 16, 5),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Linear(400, 120),
            nn.ReLU(),
            nn.Linear(120, 84),
            nn.ReLU(),
            nn.Linear(84, embedding_dim),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, 28, 28) to (B, E)."""
        embedding: Tensor = self.layers(x[:, None])
        return embedding
