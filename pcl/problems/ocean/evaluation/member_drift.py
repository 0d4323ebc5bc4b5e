r"""Forecasts of drift by an ensemble: how probable it is to find a drifter nearby, and how often that comes true.

Of every drifter the ensemble has K ends and one guess of the place, where the mean current takes it. The probability
that the drifter is within 25 km of the guess is the share of ends there. The region of 90 % is the ellipse about the
middle of all K + 1 ends, with their covariance, that holds 90 % of them; the true one counts as one of them. So its
rank by distance is uniform if the members are draws from the law of the truth, whatever that law.

Shapes: Q windows, D drifters, K members, L lead times.
"""

__all__ = ["WITHIN_KM", "MemberDrift", "inside_region"]

import torch
from torch import Tensor

from pcl.problems.ocean.sphere import METRES_PER_DEGREE

WITHIN_KM = 25.0
BINS = 10  # of probability, in which forecasts are compared with what happened
REGION = 0.9


class MemberDrift:
    """Forecasts of drift so far.

    Args:
        num_leads: L.
    """

    def __init__(self, num_leads: int) -> None:
        self.counts = torch.zeros(num_leads, BINS, 3, dtype=torch.float64)  # forecasts, their sum, what came true
        self.squares, self.inside = torch.zeros(2, num_leads, dtype=torch.float64)

    def add(self, ends: Tensor, guess: Tensor, true: Tensor, latitude: Tensor) -> None:
        """Add windows.

        Args:
            ends: degrees east and north of the centres, shape (Q, K, D, L, 2).
            guess: likewise, shape (Q, D, L, 2).
            true: likewise; NaN where it does not count.
            latitude: of the centres, degrees, shape (Q,).
        """
        metre = METRES_PER_DEGREE / 1000 * torch.stack([torch.deg2rad(latitude).cos(), torch.ones_like(latitude)], -1)
        km = metre[:, None, None]
        ends, guess, true = ends * km[:, None], guess * km, true * km
        for lead in range(ends.shape[3]):
            end = ends[..., lead, :].transpose(1, 2).flatten(0, 1)
            place, truth = guess[..., lead, :].flatten(0, 1), true[..., lead, :].flatten(0, 1)
            known = torch.isfinite(truth).all(-1) & torch.isfinite(place).all(-1) & torch.isfinite(end).all((-1, -2))
            self._add(lead, end[known], place[known], truth[known])

    def join(self, later: "MemberDrift") -> None:
        """Add the windows of another."""
        self.counts += later.counts
        self.squares += later.squares
        self.inside += later.inside

    def _add(self, lead: int, ends: Tensor, guess: Tensor, true: Tensor) -> None:
        """Add the drifters that count at a lead time: ends (n, K, 2), guess (n, 2) and true (n, 2), km."""
        probability = ((ends - guess[:, None]).norm(dim=-1) <= WITHIN_KM).double().mean(1)
        happened = ((true - guess).norm(dim=-1) <= WITHIN_KM).double()
        bins = (probability * BINS).long().clamp(max=BINS - 1)
        row = torch.stack([torch.ones_like(probability), probability, happened], 1)
        self.counts[lead].index_add_(0, bins, row)
        self.squares[lead] += (probability - happened).square().sum()
        self.inside[lead] += inside_region(ends, true).sum()

    def scores(self, lead: int) -> dict[str, float]:
        r"""Return the scores at a lead time; NaN where no drifter counts.

        ``within_25_km``: how often a drifter is; ``within_25_km_expected``: how often it was to be. ``brier``: the mean
        square of their difference; ``reliability``: the part of it that better calibration would save,
        :math:`\sum_b n_b (\bar p_b - \bar o_b)^2 / n`. ``region_90``: how often a drifter is in its region of 90 %.
        """
        number, expected, happened = self.counts[lead].T
        total = number.sum()
        apart = ((expected - happened).square() / number.clamp(min=1)).sum()
        found = {
            "within_25_km": happened.sum(),
            "within_25_km_expected": expected.sum(),
            "brier": self.squares[lead],
            "reliability": apart,
            "region_90": self.inside[lead],
        }
        return {name: float(value / total) for name, value in found.items()}

    def curve(self, lead: int) -> tuple[Tensor, Tensor, Tensor]:
        """Return, of the bins that hold forecasts: their mean, how often they came true, and their number."""
        number, expected, happened = self.counts[lead][self.counts[lead][:, 0] > 0].T
        return expected / number, happened / number, number


def inside_region(ends: Tensor, true: Tensor) -> Tensor:
    """Tell which true ends are inside the region of 90 %, shape (n,): 1 inside, 0 outside.

    A part of one where the region ends between two of the K + 1 ends, or where ends have the same place.

    Args:
        ends: of the members, km, shape (n, K, 2).
        true: km, shape (n, 2).
    """
    together = torch.cat([true[:, None], ends], 1)
    centred = together - together.mean(1, keepdim=True)
    covariance = centred.mT @ centred / centred.shape[1]
    covariance = covariance + 1e-9 * torch.eye(2, dtype=covariance.dtype)  # km^2: drifters aground all stay
    distance = (torch.linalg.solve(covariance, centred.mT).mT * centred).sum(-1)
    nearer = (distance < distance[:, :1]).sum(1)
    as_near = (distance == distance[:, :1]).sum(1)
    inside: Tensor = (REGION * together.shape[1] - nearer).clamp(min=0).minimum(as_near) / as_near
    return inside
