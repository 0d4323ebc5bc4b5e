"""The scores of one method over a block of held-out pairs: estimates are scored and forgotten, means at its end.

Those of blocks are joined to the scores of all pairs.

Shapes: N pairs, Q pairs of a block, K members, T times, H x W grid points, D drifters, P positions, L lead times.
"""

__all__ = ["NUM_BINS", "Tally"]

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from pcl.problems.ocean.evaluation.field_scores import (
    DriftTally,
    FieldTally,
    MeanSpectrum,
    fair_crps,
    places_in_law,
    resolved_km,
)
from pcl.problems.ocean.evaluation.fields import Estimate
from pcl.problems.ocean.evaluation.joint_scores import energy_score, variogram_score
from pcl.problems.ocean.evaluation.member_drift import MemberDrift
from pcl.problems.ocean.evaluation.running import RunningMean

NUM_BINS = 20  # of the place of the truth in its law: of 5 % each
CENTRAL = {"coverage_50": slice(5, 15), "coverage_90": slice(1, 19)}  # bins of the central intervals


class Tally:
    """What is known of a method's estimates so far.

    Args:
        shape: of the fields of the block, (Q, 2, T, H, W).
        num_leads: L, lead times at which the drift of members is scored.
    """

    def __init__(self, shape: Sequence[int], num_leads: int) -> None:
        self._filled = 0
        self._block = torch.empty(*shape, dtype=torch.float64)  # one room: many small ones scatter the memory
        self.fields, self.errors, self.drift = FieldTally(), MeanSpectrum(), DriftTally()
        self.member_drift = MemberDrift(num_leads)
        self.variance, self.crps = RunningMean(), RunningMean()
        self.energy: list[float] = []
        self.variogram: list[float] = []
        self.sizes: list[float] = []
        self.places = torch.zeros(NUM_BINS, dtype=torch.float64)
        self._sums: list[Tensor] = []

    def add(self, estimate: Estimate, truth: Tensor, area: Tensor, generator: torch.Generator) -> None:
        """Add the estimate of one pair, with its true field (2, T, H, W) and area (1, 1, H, 1)."""
        self._block[self._filled] = estimate.mean
        self._filled += 1
        crps, error = _crps(estimate, truth), estimate.mean - truth
        self.crps.add(crps, area)
        known = torch.isfinite(truth) * area
        sums = [(part.nan_to_num() * known).sum() for part in (crps, error.square())]
        self._sums.append(torch.stack([*sums, known.sum()]))
        if estimate.effective_sample_size is not None:
            self.sizes.append(estimate.effective_sample_size)
        if estimate.std is None:
            return
        self.variance.add(estimate.std.square(), area)
        place = _places(estimate, truth, generator)
        bins = (place.nan_to_num() * NUM_BINS).long().clamp(max=NUM_BINS - 1)
        self.places.index_add_(0, bins.flatten(), (known * torch.isfinite(place)).flatten())

    def add_whole(self, estimate: Estimate, truth: Tensor, area: Tensor) -> None:
        """Add the members of one pair as wholes; arguments as of ``add``."""
        assert estimate.members is not None
        self.energy.append(energy_score(estimate.members, truth, area))
        self.variogram.append(variogram_score(estimate.members, truth, area))

    def end_block(self, truth: Tensor, area: Tensor) -> Tensor:
        """Score the means of the block, truth (Q, 2, T, H, W) and area (Q, 1, 1, H, 1), and return them once."""
        means, self._block = self._block[: self._filled], self._block.new_empty(0)
        self.fields.add(means, truth, area)
        self.errors.add(torch.where(torch.isfinite(truth), means - truth, torch.nan))
        return means

    def join(self, later: "Tally") -> None:
        """Add the pairs of another, which come after these."""
        for ours, theirs in (
            (self.fields, later.fields),
            (self.errors, later.errors),
            (self.drift, later.drift),
            (self.member_drift, later.member_drift),
            (self.variance, later.variance),
            (self.crps, later.crps),
        ):
            ours.join(theirs)  # type: ignore[arg-type]
        self.energy += later.energy
        self.variogram += later.variogram
        self.sizes += later.sizes
        self.places += later.places
        self._sums += later._sums

    @property
    def has_law(self) -> bool:
        """Whether the method says how sure it is."""
        return self.variance.weight > 0

    def by_pair(self, score: str) -> Tensor:
        """Return the sum of the errors of every pair and that of their weights, shape (N, 2).

        Args:
            score: ``crps_m_s``, or ``rmse_m_s``, whose errors are squares.
        """
        sums = torch.stack(self._sums)
        return sums[:, [("crps_m_s", "rmse_m_s").index(score), 2]]

    def scores(self, truth: MeanSpectrum, length_km: float) -> dict[str, float]:
        """Return the scores of all blocks.

        Args:
            truth: spectrum of the true fields.
            length_km: of a row of a tile.
        """
        found = self.fields.scores()
        found["resolution_km"] = resolved_km(truth, self.errors, length_km)
        found["crps_m_s"] = self.crps.mean
        if self.has_law:
            found["spread_skill"] = math.sqrt(self.variance.mean) / found["rmse_m_s"]
            share = self.places / self.places.sum()
            found |= {name: float(share[bins].sum()) for name, bins in CENTRAL.items()}
        if self.sizes:
            found["effective_sample_size"] = float(torch.tensor(self.sizes).median())
        found["liu_weisberg"] = self.drift.scores().skill
        return found

    def whole_scores(self) -> dict[str, float]:
        """Return the scores of ensembles as wholes; nothing where there are none."""
        if not self.energy:
            return {}
        mean = {"energy": self.energy, "variogram": self.variogram}
        return {f"{name}_m_s": math.fsum(values) / len(values) for name, values in mean.items()}


def _crps(estimate: Estimate, truth: Tensor) -> Tensor:
    if estimate.law is not None:
        return estimate.law.crps(truth)
    if estimate.members is not None:
        return fair_crps(estimate.members, truth)
    return (estimate.mean - truth).abs()


def _places(estimate: Estimate, truth: Tensor, generator: torch.Generator) -> Tensor:
    """Return the place of the truth in the law of its point, 0 to 1, NaN where there is no truth."""
    if estimate.law is not None:
        return estimate.law.place(truth)
    assert estimate.members is not None
    return places_in_law(estimate.members, truth, generator)
