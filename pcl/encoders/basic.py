"""Encoders without a physics: from one modality's arrays to embeddings.

With ``potential=True`` a potential (``pcl.encoders.potential``) follows the embedding, as component E + 1.

Shapes: B pairs, E embedding; ``shape`` is the shape of one item of the modality.
"""

__all__ = ["Identity", "Linear", "OneHot", "Standardise", "flattened"]

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from pcl.encoders.potential import Quadratic
from pcl.errors import BadInputError


class Standardise(nn.Module):
    r"""Turn stored values into floating point: :math:`x \mapsto (x\,c - m) / d`.

    Args:
        scale_factor: c, physical units per stored unit.
        mean: m in physical units, a scalar or one value per component of an item.
        std: d in physical units, likewise; a component that does not vary (d = 0) is only centred.

    Example:
        >>> Standardise(1 / 255, mean=0.5, std=0.25)(torch.tensor([255], dtype=torch.uint8))
        tensor([2.])
    """

    scale: Tensor
    shift: Tensor

    def __init__(
        self, scale_factor: float = 1.0, mean: float | Sequence[float] = 0.0, std: float | Sequence[float] = 1.0
    ) -> None:
        super().__init__()
        deviation = np.asarray(std, np.float64)  # of numpy: torch imports its compiler for this on the meta device
        deviation = np.where(deviation > 0, deviation, 1.0)
        dtype = torch.get_default_dtype()
        self.register_buffer("scale", torch.tensor(1.0 / deviation * scale_factor, dtype=dtype))
        self.register_buffer("shift", torch.tensor(-np.asarray(mean, np.float64) / deviation, dtype=dtype))

    def forward(self, stored: Tensor) -> Tensor:
        """Map stored values of any dtype, shape (B, *shape), to the dtype of the model."""
        return stored.to(self.scale.dtype) * self.scale + self.shift


def flattened(x: Tensor) -> Tensor:
    """Items (B, *shape) as rows (B, n), a single number as a row of one.

    Example:
        >>> flattened(torch.zeros(5)).shape, flattened(torch.zeros(5, 2, 3)).shape
        (torch.Size([5, 1]), torch.Size([5, 6]))
    """
    return x.flatten(1) if x.ndim > 1 else x[:, None]


class Linear(nn.Module):
    """Linear encoder g(x) = G x of a flattened item, without bias (arXiv:2505.24134, section 5)."""

    def __init__(self, shape: Sequence[int], embedding_dim: int, *, potential: bool = False) -> None:
        super().__init__()
        self.map = nn.Linear(math.prod(shape), embedding_dim, bias=False)
        self.potential = Quadratic(math.prod(shape), embedding_dim) if potential else None

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, *shape) to (B, E)."""
        x = flattened(x)
        embedding: Tensor = self.map(x)
        return embedding if self.potential is None else torch.cat([embedding, self.potential(x)], 1)


class OneHot(nn.Module):
    """One-hot encoder of integer labels 0 .. E-1, without parameters (arXiv:2505.24134, section 6.2)."""

    integer_input = True
    atoms: Tensor

    def __init__(self, shape: Sequence[int], embedding_dim: int, *, potential: bool = False) -> None:
        super().__init__()
        if tuple(shape) != ():
            raise BadInputError(f"the one_hot encoder takes one label per pair, not items of shape {tuple(shape)}")
        self.num_labels = embedding_dim
        atoms = torch.zeros(embedding_dim, embedding_dim)
        atoms.diagonal().fill_(1.0)
        self.register_buffer("atoms", atoms, persistent=False)
        self.potential = nn.Parameter(torch.zeros(embedding_dim, 1)) if potential else None

    def forward(self, labels: Tensor) -> Tensor:
        """Map labels (B,) to (B, E)."""
        atoms = self.atoms if self.potential is None else torch.cat([self.atoms, self.potential], 1)
        return atoms.index_select(0, labels.long())


class Identity(nn.Module):
    """The identity on a flattened item: its embedding dimension is the item's size."""

    def __init__(self, shape: Sequence[int], embedding_dim: int, *, potential: bool = False) -> None:
        super().__init__()
        if math.prod(shape) != embedding_dim:
            raise BadInputError(
                f"the identity encoder keeps {math.prod(shape)} numbers but model.embedding_dim is {embedding_dim}: "
                "set them equal"
            )
        self.potential = Quadratic(embedding_dim, embedding_dim) if potential else None

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, *shape) to (B, E)."""
        x = flattened(x)
        return x if self.potential is None else torch.cat([x, self.potential(x)], 1)
