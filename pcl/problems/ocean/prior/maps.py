r"""Feature maps of a field and of the velocities that drifters measured: their score is how well one fits the other.

.. math:: s(u, v) = -\frac{1}{2 W} \sum_g w_g \big( |u_g - m_g|^2 \big),
    \qquad \phi_u = \big( u_g, -\tfrac12 |u_g|^2, 1 \big), \quad \phi_v = \tfrac1W \big( w_g m_g, w_g,
    -\tfrac12 \textstyle\sum_g w_g |m_g|^2 \big)

with the mean velocity m and the weight w of the raster of the drifters at every point g of the grid, and W the sum of
the weights. Where a field has no value it is at rest. Nothing is learned in them. Components of an embedding beyond
these 3 T H W + 1 are zero, so that one configuration fits windows of several sizes.

Shapes: B pairs, T times, H x W grid points, D drifters, P positions, E embedding.
"""

__all__ = ["FieldPoints", "MeasurementMaps", "keep_climatology"]

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from pcl.data.manifest import Manifest
from pcl.errors import BadInputError
from pcl.problems.ocean.contract import DrifterFacts, GridFacts, read_facts
from pcl.problems.ocean.evaluation.windows import Geometry
from pcl.problems.ocean.prior.climatology import ClimatologySums
from pcl.problems.ocean.prior.model import CurrentPrior
from pcl.problems.ocean.prior.pooled import PooledSums
from pcl.problems.ocean.tiles import DAY_S
from pcl.problems.ocean.tracks import DrifterRaster
from pcl.storage.place import Place


def _surplus(kind: str, grid: Sequence[int], embedding_dim: int) -> int:
    """Return how many components are zero."""
    size = 3 * math.prod(grid) + 1
    if embedding_dim < size:
        raise BadInputError(
            f"the {kind} encoder has 3 numbers for each of {' x '.join(map(str, grid))} points and one more, and "
            f"model.embedding_dim is {embedding_dim}: set it to {size}"
        )
    return embedding_dim - size


class FieldPoints(nn.Module):
    """Encoder of a velocity window: its values, their squares and a one; it takes them in m/s.

    Args:
        shape: of an item, (2, T, H, W), NaN where there is no water or no value.
        embedding_dim: E, at least 3 T H W + 1.

    Raises:
        BadInputError: the shape is not that of a window of velocities, or E is too small.

    Example:
        >>> FieldPoints((2, 1, 1, 1), 4)(torch.tensor([1.0, 2.0]).reshape(1, 2, 1, 1, 1))
        tensor([[ 1.0000,  2.0000, -2.5000,  1.0000]])
    """

    integer_input = True  # what is stored goes in as it is: squares of standardised values would not fit measurements
    may_be_missing = True

    def __init__(self, shape: Sequence[int], embedding_dim: int) -> None:
        super().__init__()
        if len(shape) != 4 or shape[0] != 2:
            raise BadInputError(
                f"the field_points encoder takes velocity windows of shape (2, times, rows, columns), not "
                f"{tuple(shape)}: choose another encoder"
            )
        self.surplus = _surplus("field_points", shape[1:], embedding_dim)

    def forward(self, u: Tensor) -> Tensor:
        """Map (B, 2, T, H, W) to (B, E)."""
        known = torch.where(torch.isfinite(u).all(1, keepdim=True), u, 0.0)
        values = torch.cat([known, -known.square().sum(1, keepdim=True) / 2], 1).flatten(1)
        return nn.functional.pad(torch.cat([values, torch.ones_like(values[:, :1])], 1), (0, self.surplus))


class MeasurementMaps(nn.Module):
    """Encoder of drifters as measurements, with the prior of currents that is learned with it.

    Args:
        shape: of an item, (D, P, 4): degrees east and north of the tile's centre, latitude, aground flag; NaN where
            a drifter is missing.
        embedding_dim: E, at least 3 T H W + 1.
        drifters: ``DrifterFacts``, as the manifest holds them.
        grid: ``GridFacts``, likewise.

    Attributes:
        prior: of the currents of the archive, which gives posteriors.

    Raises:
        BadInputError: the shape is not that of drifters, or E is too small.
        DamagedDataError: a fact is missing or impossible.

    Example:
        >>> about = {"record_s": 3600.0, "window_time_s": [0.0, 86400.0], "cell_degrees": [0.25, 0.25],
        ...     "height": 4, "width": 4}
        >>> grid = {"latitude": [0.0, 0.25, 0.5, 0.75], "longitude": [0.0, 0.25, 0.5, 0.75]}
        >>> MeasurementMaps((5, 25, 4), 97, drifters=about, grid=grid)(torch.zeros(3, 5, 25, 4)).shape
        torch.Size([3, 97])
    """

    integer_input = True  # degrees go in as they are
    may_be_missing = True

    def __init__(
        self, shape: Sequence[int], embedding_dim: int, *, drifters: Mapping[str, Any], grid: Mapping[str, Any]
    ) -> None:
        super().__init__()
        if len(shape) != 3 or shape[2] != 4 or shape[1] < 2:
            raise BadInputError(
                "the measurements encoder takes tracks of shape (drifters, two positions or more, 4), not "
                f"{tuple(shape)}: choose another encoder"
            )
        self.raster = DrifterRaster(read_facts(drifters, DrifterFacts), shape[1], margin=0)
        self.surplus = _surplus("measurements", self.raster.shape, embedding_dim)
        axes = read_facts(grid, GridFacts)
        lags = [2 * size - 1 for size in self.raster.shape]
        self.prior = CurrentPrior(axes.latitude, axes.longitude, lags)

    def forward(self, v: Tensor) -> Tensor:
        """Map (B, D, P, 4) to (B, E)."""
        raster = self.raster(v)
        mean, weight = raster[:, :2], raster[:, 2:]
        total = weight.flatten(1).sum(1)[:, None]
        square = (weight * mean.square()).flatten(1).sum(1)[:, None]
        values = torch.cat([(weight * mean).flatten(1), weight.flatten(1), -square / 2], 1)
        return nn.functional.pad(values / torch.where(total > 0, total, 1.0), (0, self.surplus))


def keep_climatology(network: nn.Module, root: Place, manifest: Manifest) -> None:
    """Have the prior of an encoder keep the climatology of the training split.

    Args:
        network: a ``MeasurementMaps``.
        root: the folder of shards.
        manifest: its manifest.

    Raises:
        DamagedDataError: a shard differs from its manifest.
    """
    assert isinstance(network, MeasurementMaps)
    geometry = Geometry.of(manifest.source, root / "manifest.json")
    sums = ClimatologySums.of(root, manifest)
    pooled = PooledSums.of(root, manifest, sums, manifest.config["ocean"]["gap_days"] * DAY_S)
    network.prior.keep(sums.whole(), geometry.scale_s / DAY_S, pooled.whole())
