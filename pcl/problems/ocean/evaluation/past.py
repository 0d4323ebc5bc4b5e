"""What the training split says of every tile: its windows, and their mean and spread.

Shapes: N windows of the archive.
"""

__all__ = ["Past"]

from dataclasses import dataclass

import torch
from torch import Tensor

from pcl.evaluation.blocks import Items
from pcl.evaluation.parts import HERE, Parts
from pcl.problems.ocean.evaluation.fields import Estimate, summarise
from pcl.problems.ocean.evaluation.windows import Archive, Geometry, Windows


@dataclass(frozen=True, eq=False)
class Past:
    """The archive by tile.

    Attributes:
        archive: windows of the past.
        geometry: of the tiles.
        of_tile: indices of the windows of every tile.
        climatology: mean and standard deviation of these windows, without members.
    """

    archive: Archive
    geometry: Geometry
    of_tile: dict[int, Tensor]
    climatology: dict[int, Estimate]

    @classmethod
    def of(cls, archive: Archive, geometry: Geometry, parts: Parts = HERE) -> "Past":
        """Take the climatologies, each apart."""
        tiles = archive.tiles
        of_tile = {tile: (tiles == tile).nonzero()[:, 0] for tile in archive.tile_numbers}
        room = torch.empty(len(of_tile), 2, *archive.u.shape[1:], dtype=torch.float64)  # one: many scatter the memory
        for number, (mean, std) in parts.each(_climatology, archive.u, [*of_tile.values()], "climatologies"):
            room[number, 0], room[number, 1] = mean, std
        climatology = {
            tile: Estimate(moments[0], moments[1], effective_sample_size=float(len(own)))
            for (tile, own), moments in zip(of_tile.items(), room, strict=True)
        }
        return cls(archive, geometry, of_tile, climatology)

    def truth(self, queries: Windows) -> Tensor:
        """Return the true fields where the climatology of their tiles has a value: all methods are scored there."""
        known = torch.stack([torch.isfinite(self.climatology[tile].mean) for tile in queries.tiles.tolist()])
        return queries.u.double().where(known, torch.nan)


def _climatology(windows: Items, own: Tensor) -> tuple[Tensor, Tensor]:
    """Return the mean and the standard deviation of the windows of a tile."""
    return summarise(windows, torch.ones(len(own)), own)
