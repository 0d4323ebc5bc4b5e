"""Every way to estimate the field of a held-out pair from its drifters: the learned posterior, and what it must beat.

Shapes: Q pairs, K members.
"""

__all__ = ["INTERPOLATION", "NUM_TUNING", "Family", "Methods"]

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Protocol

import torch
from torch import Tensor

from pcl.evaluation.parts import HERE, Parts
from pcl.model import PairModel
from pcl.problems.ocean.contract import Origin
from pcl.problems.ocean.evaluation.baselines import (
    OptimalInterpolation,
    draw,
    measure,
    nearest_track_analogs,
    random_analog,
)
from pcl.problems.ocean.evaluation.fields import Estimate, FieldPosterior, completed
from pcl.problems.ocean.evaluation.learned import POSTERIOR, LearnedPosterior, prior_of
from pcl.problems.ocean.evaluation.past import Past
from pcl.problems.ocean.evaluation.windows import Archive, Geometry, Windows
from pcl.problems.ocean.settings import PosteriorSettings

NUM_TUNING = 12  # training pairs on which the scales of the optimal interpolation are chosen
INTERPOLATION = "optimal interpolation"


class Family(Protocol):
    """Methods that share work."""

    @property
    def names(self) -> tuple[str, ...]:
        """Of the methods, as in tables."""

    @property
    def source(self) -> str:
        """What the first is, in a line for files that travel."""

    def estimates(
        self, queries: Windows, whole: Sequence[bool], generator: torch.Generator
    ) -> Iterator[Sequence[Estimate]]:
        """Yield the estimates of every pair, one of each method.

        Args:
            queries: Q pairs.
            whole: of which members are asked for as well where the law of a point is known without, Q of them.
            generator: of the members.
        """


class Methods:
    """The methods, with what they know of the archive.

    Args:
        model: with its encoders.
        archive: of the past.
        geometry: of the tiles.
        settings: of the posterior and the draws.
        block_pairs: windows encoded at a time.
        parts: where the archive is encoded and summarised.
    """

    def __init__(
        self,
        model: PairModel,
        archive: Archive,
        geometry: Geometry,
        settings: PosteriorSettings,
        block_pairs: int,
        parts: Parts = HERE,
    ) -> None:
        self.past, self.settings = Past.of(archive, geometry, parts), settings
        self.interpolation = _Interpolation(self.past, settings.num_members)
        prior, number = prior_of(model), settings.num_members
        first: Family
        if prior is None:
            first = _Archived(FieldPosterior(model, archive, settings.references, block_pairs, parts), number)
        else:
            first = LearnedPosterior(prior, self.past, number)
        self.families: list[Family] = [
            first,
            _Climatology(self.past, number),
            _NearestTrack(self.past, settings.references),
            self.interpolation,
        ]

    @property
    def names(self) -> list[str]:
        """Of all methods, the posterior first."""
        return [name for family in self.families for name in family.names]

    def estimates(self, queries: Windows, whole: Sequence[bool], seed: int) -> Iterator[Iterator[tuple[str, Estimate]]]:
        """Yield for every pair the name and estimate of every method, completed by climatology; the posterior first.

        Args:
            queries: Q pairs.
            whole: as in ``Family.estimates``.
            seed: of the members of each method.
        """
        streams = [family.estimates(queries, whole, torch.Generator().manual_seed(seed)) for family in self.families]
        for tile in queries.tiles.tolist():
            yield self._of_pair(streams, self.past.climatology[tile])

    def _of_pair(
        self, streams: Sequence[Iterator[Sequence[Estimate]]], climatology: Estimate
    ) -> Iterator[tuple[str, Estimate]]:
        for family, stream in zip(self.families, streams, strict=True):
            for name, estimate in zip(family.names, next(stream), strict=True):
                yield name, completed(estimate, climatology)

    def posterior(self, pair: Windows, seed: int) -> Estimate:
        """Return the posterior of one pair, with members, completed by climatology."""
        (found, *_), *_ = self.families[0].estimates(pair, [True], torch.Generator().manual_seed(seed))
        return completed(found, self.past.climatology[int(pair.tiles[0])])


class _Archived:
    """The posterior that weights windows of the archive, and its mode."""

    names = (POSTERIOR, "posterior mode")
    source = "pcl: windows of the training archive weighted by a contrastively learned conditional"

    def __init__(self, posterior: FieldPosterior, num_members: int) -> None:
        self.posterior, self.num_members = posterior, num_members

    def estimates(
        self, queries: Windows, whole: Sequence[bool], generator: torch.Generator
    ) -> Iterator[Sequence[Estimate]]:
        for law in self.posterior.laws(queries.v, queries.tiles.tolist()):
            yield law.estimate(self.num_members, generator), law.best()


class _Climatology:
    """Mean and spread of a tile's windows with some of them, and one of them."""

    names = ("climatology", "random analog")
    source = "pcl: windows of the training archive"

    def __init__(self, past: Past, num_members: int) -> None:
        self.past, self.num_members = past, num_members

    def estimates(
        self, queries: Windows, whole: Sequence[bool], generator: torch.Generator
    ) -> Iterator[Sequence[Estimate]]:
        u = self.past.archive.u
        for tile in queries.tiles.tolist():
            own, climatology = self.past.of_tile[tile], self.past.climatology[tile]
            members = draw(u, self.num_members, generator, own)
            yield replace(climatology, members=members), random_analog(u, generator, own)


class _NearestTrack:
    """The window that would have moved the drifters in the most similar way."""

    names = ("nearest-track analog",)
    source = "pcl: a window of the training archive"

    def __init__(self, past: Past, references: str) -> None:
        self.past, self.references = past, references

    def estimates(
        self, queries: Windows, whole: Sequence[bool], generator: torch.Generator
    ) -> Iterator[Sequence[Estimate]]:
        tiles, u, geometry = queries.tiles.tolist(), self.past.archive.u, self.past.geometry
        seen = [measure(drifters, geometry) for drifters in queries.v]
        chosen: dict[int | None, Tensor | None] = {None: None}
        if self.references == "tile":
            chosen = dict(self.past.of_tile.items())
        nearest = torch.empty(len(tiles), dtype=torch.long)
        for group, windows in chosen.items():
            own = [i for i, tile in enumerate(tiles) if group in (None, tile)]
            if own:
                nearest[own] = nearest_track_analogs(u, [seen[i] for i in own], geometry, windows)
        for index in nearest:
            yield (Estimate(u[index[None]][0].double()),)


class _Interpolation:
    """Optimal interpolation around the climatology of the tile, its scales tuned on training pairs."""

    names = (INTERPOLATION,)
    source = "pcl: optimal interpolation"

    def __init__(self, past: Past, num_members: int) -> None:
        self.past, self.num_members = past, num_members
        archive, geometry, examples = past.archive, past.geometry, past.archive.examples
        origins = archive.origin[examples]
        of_examples = zip(
            archive.u[examples],
            geometry.area(origins),
            [past.climatology[tile] for tile in archive.tiles[examples].tolist()],
            [measure(drifters, geometry) for drifters in archive.v],
            Origin.of(origins).latitude.tolist(),
            strict=True,
        )
        self.tuned = OptimalInterpolation.tune([*of_examples], geometry)

    def estimates(
        self, queries: Windows, whole: Sequence[bool], generator: torch.Generator
    ) -> Iterator[Sequence[Estimate]]:
        latitudes = Origin.of(queries.origin).latitude.tolist()
        for tile, drifters, latitude, joint in zip(queries.tiles.tolist(), queries.v, latitudes, whole, strict=True):
            climatology, geometry = self.past.climatology[tile], self.past.geometry
            seen, number = measure(drifters, geometry), self.num_members if joint else 0
            yield (self.tuned.estimate(climatology, seen, geometry, latitude, number, generator),)
