"""The scores of one method over all held-out pairs: estimates are scored and forgotten, means at the end of a block.

Shapes: Q pairs of a block, T times, H x W grid points, D drifters, P positions.
"""

__all__ = ["Tally"]

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from pcl.problems.ocean.evaluation.field_scores import (
    DriftTally,
    FieldTally,
    MeanSpectrum,
    fair_crps,
    gaussian_crps,
    rank_histogram,
    resolved_km,
)
from pcl.problems.ocean.evaluation.fields import Estimate
from pcl.problems.ocean.evaluation.running import RunningMean


class Tally:
    """What is known of a method's estimates so far.

    Args:
        shape: of the fields of the largest block, (Q, 2, T, H, W).
        normal: its ensemble is drawn from normal laws, whose score is known without drawing.
    """

    def __init__(self, shape: Sequence[int], *, normal: bool = False) -> None:
        self.normal, self._filled = normal, 0
        self._block = torch.empty(*shape, dtype=torch.float64)  # one room for all: many small ones scatter the memory
        self.fields, self.errors, self.drift = FieldTally(), MeanSpectrum(), DriftTally()
        self.crps, self.variance = RunningMean(), RunningMean()
        self.sizes: list[float] = []
        self.ranks: Tensor | None = None

    def add(self, estimate: Estimate, truth: Tensor, area: Tensor, generator: torch.Generator) -> None:
        """Add the estimate of one pair, with its true field (2, T, H, W) and area (1, 1, H, 1)."""
        self._block[self._filled] = estimate.mean
        self._filled += 1
        if estimate.std is None or estimate.members is None:
            self.crps.add((estimate.mean - truth).abs(), area)
            return
        if estimate.effective_sample_size is not None:
            self.sizes.append(estimate.effective_sample_size)
        if self.normal:
            self.crps.add(gaussian_crps(estimate.mean, estimate.std, truth), area)
        else:
            self.crps.add(fair_crps(estimate.members, truth), area)
        self.variance.add(estimate.std.square(), area)
        counts = rank_histogram(estimate.members, truth, generator)
        self.ranks = counts if self.ranks is None else self.ranks + counts

    def end_block(self, truth: Tensor, area: Tensor) -> Tensor:
        """Score the means of a block, truth (Q, 2, T, H, W) and area (Q, 1, 1, H, 1), and return them once."""
        means, self._filled = self._block[: self._filled], 0
        self.fields.add(means, truth, area)
        self.errors.add(torch.where(torch.isfinite(truth), means - truth, torch.nan))
        return means

    def scores(self, truth: MeanSpectrum, length_km: float) -> dict[str, float]:
        """Return the scores of all blocks.

        Args:
            truth: spectrum of the true fields.
            length_km: of a row of a tile.
        """
        found = self.fields.scores()
        found["resolution_km"] = resolved_km(truth, self.errors, length_km)
        found["crps_m_s"] = self.crps.mean
        if self.ranks is not None:
            found["spread_skill"] = math.sqrt(self.variance.mean) / found["rmse_m_s"]
        if self.sizes:
            found["effective_sample_size"] = float(torch.tensor(self.sizes).median())
        found["liu_weisberg"] = self.drift.scores().skill
        return found
