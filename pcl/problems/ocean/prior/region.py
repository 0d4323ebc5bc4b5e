r"""Posterior of currents of a whole region given many measurements: of overlapping blocks that blend.

A block is a box in space and time with the measurements in it and around it, as far as three lengths or times of the
longest component that carries a tenth of the variance. Where boxes meet, over half of one on both sides, what they say
is weighted by ramps that sum to one: means and variances are, and members, whose draws of the prior and of the errors
are those of the whole region, so that they stay coherent.

Shapes: n measurements, m targets, K members.
"""

__all__ = ["MOST_MEASUREMENTS", "RegionPosterior"]

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from pcl.problems.ocean.prior.kernel import AnomalyKernel, CurrentKernel, Points
from pcl.problems.ocean.prior.pooled import WithPooled
from pcl.problems.ocean.prior.posterior import Measured, Posterior, Spread

MOST_MEASUREMENTS = 4000  # of a block: the root of their covariance takes 0.5 GB, and as much twice while it is made
REACH, OVERLAP = 3.0, 0.5  # in units of the longest length and time


@dataclass(frozen=True)
class Box:
    """Sides of a block in space and time, in units of the longest length and time, shape (3,) each."""

    lower: Tensor
    upper: Tensor

    def holds(self, place: Tensor, margin: float) -> Tensor:
        """Return which places (n, 3) lie within it, or so far beyond, shape (n,)."""
        return ((place >= self.lower - margin) & (place <= self.upper + margin)).all(1)

    def weight(self, place: Tensor) -> Tensor:
        """Return the product of ramps that are one half at its sides, shape (n,)."""
        depth = torch.minimum(place - self.lower, self.upper - place) / (2 * OVERLAP)
        return (depth + 0.5).clamp(0, 1).prod(1)

    def halves(self, axis: int, at: float) -> tuple["Box", "Box"]:
        """Return both parts of it."""
        upper, lower = self.upper.clone(), self.lower.clone()
        upper[axis], lower[axis] = at, at
        return Box(self.lower, upper), Box(lower, self.upper)


@dataclass(frozen=True, eq=False)
class RegionPosterior:
    """The law of currents given many measurements, as ``Posterior``.

    Attributes:
        kernel: covariance of the prior.
        measured: what was measured.
        spread: as in ``Posterior``, the energy that of every block.
        most: measurements of a block.
    """

    kernel: CurrentKernel | AnomalyKernel | WithPooled
    measured: Measured
    spread: Spread | None = None
    most: int = MOST_MEASUREMENTS

    @cached_property
    def blocks(self) -> list[tuple[Box, Tensor]]:
        """Boxes that share out space and time, and the indices of their measurements."""
        everything = torch.full((3,), math.inf, dtype=torch.float64)
        return list(self._cut(Box(-everything, everything), self.measured.points.place / self.kernel.reach))

    def _cut(self, box: Box, place: Tensor) -> Iterator[tuple[Box, Tensor]]:
        chosen = box.holds(place, REACH + OVERLAP).nonzero()[:, 0]
        inside = place[box.holds(place, 0.0)]
        extent = inside.amax(0) - inside.amin(0) if len(inside) else torch.zeros(3)
        axis = int(extent.argmax())
        if len(chosen) <= self.most or extent[axis] <= 2 * OVERLAP:
            yield box, chosen
            return
        for half in box.halves(axis, float(inside[:, axis].amin() + extent[axis] / 2)):
            yield from self._cut(half, place)

    def _parts(self, targets: Points) -> Iterator[tuple[Posterior, Tensor, Tensor, Tensor]]:
        """Yield the posterior of a block, the indices of its measurements and of its targets, and their weights."""
        place = targets.place / self.kernel.reach
        weights = torch.stack([box.weight(place) for box, _ in self.blocks])
        weights = weights / weights.sum(0)
        for weight, (_, chosen) in zip(weights, self.blocks, strict=True):
            near = weight.nonzero()[:, 0]
            if len(near):
                measured = Measured(
                    self.measured.points[chosen], self.measured.anomaly[:, chosen], self.measured.variance[chosen]
                )
                yield Posterior(self.kernel, measured, self.spread), chosen, near, weight[near]

    def mean_and_variance(self, targets: Points) -> tuple[Tensor, Tensor]:
        """Return the mean of the anomaly, m/s, and its variance at targets, shape (2, m) each."""
        mean, variance = (torch.zeros(2, len(targets), dtype=torch.float64) for _ in range(2))
        for posterior, _, near, weight in self._parts(targets):
            for total, part in zip((mean, variance), posterior.mean_and_variance(targets[near]), strict=True):
                total[:, near] += weight * part
        return mean, variance

    @torch.no_grad()
    def members(self, targets: Points, num_members: int, generator: torch.Generator) -> Tensor:
        """Draw anomalies at targets, shape (K, 2, m); arguments as of ``Posterior.members``."""
        prior, noise = Posterior(self.kernel, self.measured).draw_prior(targets, num_members, generator)
        number = len(self.measured.points)
        found = torch.zeros(num_members, 2, len(targets), dtype=torch.float64)
        for posterior, chosen, near, weight in self._parts(targets):
            drawn = torch.cat([prior[..., :number][..., chosen], prior[..., number:][..., near]], -1)
            found[..., near] += weight * posterior.conditioned(drawn, noise[..., chosen], targets[near])
        return found

    def log_evidence(self) -> Tensor:
        """Refuse: blocks share measurements."""
        raise ValueError(f"{len(self.measured.points)} measurements: their density is formed of {self.most} at most")

    def log_density(self, targets: Points, anomaly: Tensor, error_variance: Tensor) -> Tensor:
        """Refuse, likewise."""
        raise ValueError(f"{len(self.measured.points)} measurements: a joint density is formed of {self.most} at most")
