"""Every way to estimate the field of a held-out pair from its drifters: the learned posterior, and what it must beat.

Shapes: Q pairs, K members.
"""

__all__ = ["METHODS", "NORMAL", "NUM_TUNING", "POSTERIOR", "Methods"]

from collections.abc import Iterator
from dataclasses import replace

import torch
from torch import Tensor

from pcl.model import PairModel
from pcl.problems.ocean.contract import Origin
from pcl.problems.ocean.evaluation.baselines import (
    OptimalInterpolation,
    climatology,
    draw,
    measure,
    nearest_track_analog,
    random_analog,
)
from pcl.problems.ocean.evaluation.fields import Estimate, FieldLaw, FieldPosterior, completed
from pcl.problems.ocean.evaluation.windows import Archive, Geometry, Windows
from pcl.problems.ocean.settings import PosteriorSettings

NUM_TUNING = 12  # training pairs on which the scales of the optimal interpolation are chosen
POSTERIOR, NORMAL = "posterior", "optimal interpolation"
METHODS = (POSTERIOR, "posterior mode", "climatology", "random analog", "nearest-track analog", NORMAL)


class Methods:
    """The methods, with what they know of the archive.

    Args:
        model: with its encoders.
        archive: of the past.
        geometry: of the tiles.
        settings: of the posterior and the draws.
        block_pairs: windows encoded at a time.
    """

    def __init__(
        self, model: PairModel, archive: Archive, geometry: Geometry, settings: PosteriorSettings, block_pairs: int
    ) -> None:
        self.archive, self.geometry, self.settings = archive, geometry, settings
        self.generator = torch.Generator().manual_seed(settings.seed)
        self.posterior = FieldPosterior(model, archive, references=settings.references, block_pairs=block_pairs)
        tiles = archive.tiles
        self.of_tile = {tile: (tiles == tile).nonzero()[:, 0] for tile in archive.tile_numbers}
        self.prior = self._climatologies()
        self.interpolation = OptimalInterpolation.tune(
            [
                (
                    u,
                    geometry.area(origin[None])[0],
                    self.prior[tile],
                    measure(v, geometry),
                    float(Origin.of(origin).latitude),
                )
                for u, origin, tile, v in zip(
                    archive.u[archive.examples],
                    archive.origin[archive.examples],
                    tiles[archive.examples].tolist(),
                    archive.v,
                    strict=True,
                )
            ],
            geometry,
        )

    def _climatologies(self) -> dict[int, Estimate]:
        """Return the mean and spread of every tile's windows, without members."""
        priors = {}
        moments = torch.empty(len(self.of_tile), 2, *self.archive.u.shape[1:], dtype=torch.float64)
        for (tile, own), (mean, std) in zip(self.of_tile.items(), moments, strict=True):
            found = climatology(self.archive.u, 1, self.generator, own)
            assert found.std is not None
            priors[tile] = replace(found, mean=mean.copy_(found.mean), std=std.copy_(found.std), members=None)
        return priors

    def truth(self, queries: Windows) -> Tensor:
        """Return the true fields where the climatology of their tiles has a value: all methods are scored there."""
        prior = torch.stack([self.prior[tile].mean for tile in queries.tiles.tolist()])
        return queries.u.double().where(torch.isfinite(prior), torch.nan)

    def estimates(self, queries: Windows) -> Iterator[Iterator[tuple[str, Estimate]]]:
        """Yield for every pair the name and estimate of every method, completed by climatology; the posterior first."""
        tiles = queries.tiles.tolist()
        for number, law in enumerate(self.posterior.laws(queries.v, tiles)):
            latitude = float(Origin.of(queries.origin[number]).latitude)
            yield self._of_pair(law, queries.v[number], tiles[number], latitude)

    def _of_pair(self, law: FieldLaw, drifters: Tensor, tile: int, latitude: float) -> Iterator[tuple[str, Estimate]]:
        prior = self.prior[tile]
        for name, estimate in zip(METHODS, self._raw(law, drifters, tile, latitude), strict=True):
            yield name, completed(estimate, prior)

    def _raw(self, law: FieldLaw, drifters: Tensor, tile: int, latitude: float) -> Iterator[Estimate]:
        """Yield the estimates of ``METHODS``."""
        u, own, prior, geometry = self.archive.u, self.of_tile[tile], self.prior[tile], self.geometry
        seen, number, generator = measure(drifters, geometry), self.settings.num_members, self.generator
        yield law.estimate(number, generator)
        yield law.best()
        yield replace(prior, members=draw(u, number, generator, own))
        yield random_analog(u, generator, own)
        yield nearest_track_analog(u, seen, geometry, law.candidates)
        yield self.interpolation.estimate(prior, seen, geometry, latitude, number, generator)
