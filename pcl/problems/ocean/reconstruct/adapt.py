r"""A prior fitted to tracks: numbers under which what was measured is most likely.

.. math:: \log p(y) = -\tfrac12 y'(K + R)^{-1} y - \tfrac12 \log\det(K + R) - n \log 2\pi

Real drifters have errors that those of a simulation have not: a variance is added. The generic prior is of another sea:
its lengths, its times and its standard deviations get a factor each.

Shapes: n measurements.
"""

__all__ = ["Fitted", "fit", "thinned"]

import copy
import itertools
import math
from dataclasses import dataclass, replace
from typing import Any

import torch

from pcl.problems.ocean.prior.measurements import Measurements
from pcl.problems.ocean.prior.model import CurrentPrior

MOST = 300  # measurements that the numbers are chosen by
RUN = 10  # of them follow each other
FIRST_NOISE_M_S = 0.03
DOUBT = 1.0  # standard deviation of the logarithm of a factor around that from which learning begins
SHARED = ("log_lengths", "log_days", "log_scales")  # of a kernel: each gets one factor
FACTORS = (1.0, 0.3, 0.1, 0.03)  # of lengths, and of times, that learning may begin from
RATE, STEPS, AGAIN = 0.1, 30, 8  # of Adam; steps from what is fitted already


@dataclass(frozen=True, eq=False)
class Fitted:
    """A prior and the error of real drifters.

    Attributes:
        prior: of currents.
        noise_m_s: standard deviation of each component of the error of a velocity that is added.
        begun: the prior from which it was learned.
    """

    prior: CurrentPrior
    noise_m_s: float
    begun: CurrentPrior

    def with_noise(self, measurements: Measurements) -> Measurements:
        """Return measurements with the error that is added."""
        return replace(measurements, variance=measurements.variance + self.noise_m_s**2)


def thinned(number: int, most: int = MOST) -> torch.Tensor:
    """Return which of many measurements count: runs that follow each other, for near ones tell of lengths and times."""
    if number <= most:
        return torch.arange(number)
    runs = max(1, most // RUN)
    starts = torch.linspace(0, number - RUN, runs).long()
    rows: torch.Tensor = torch.unique((starts[:, None] + torch.arange(RUN)).reshape(-1))
    return rows


@torch.enable_grad()
def fit(
    prior: CurrentPrior,
    measurements: Measurements,
    centre: tuple[float, float],
    climatology: Any,
    *,
    kernel: bool,
    start: Fitted | None = None,
) -> Fitted:
    """Return a prior, and an error of drifters, under which measurements are likely.

    Args:
        prior: as it was.
        measurements: of drifters.
        centre: latitude and longitude around which the Earth is flat.
        climatology: see ``CurrentPrior.posterior``.
        kernel: whether its kernel gets factors too, or the error alone is chosen.
        start: to begin from, a few steps; None: the prior as it was.
    """
    some = measurements[thinned(len(measurements))]
    begun = start.begun if start else _nearest(prior, some, centre, climatology, kernel)
    found = copy.deepcopy(start.prior if start else begun).requires_grad_(False)
    begin = math.log(max(start.noise_m_s if start else FIRST_NOISE_M_S, 1e-6))
    log_noise = torch.tensor(begin, dtype=torch.float64, requires_grad=True)
    names = SHARED if kernel else ()
    learned = [getattr(found.kernel, name).requires_grad_(True) for name in names]
    before = [getattr(begun.kernel, name) for name in names]
    steps = STEPS if start is None else AGAIN
    optimizer = torch.optim.Adam([log_noise, *learned], RATE if start is None else RATE / 2)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda i: (1 + math.cos(math.pi * i / steps)) / 2)
    for _ in range(steps):
        noisy = replace(some, variance=some.variance + (2 * log_noise).exp())
        law = found.posterior(noisy, centre=centre, climatology=climatology)
        doubt = (log_noise - math.log(FIRST_NOISE_M_S)).square()
        for parameter, first in zip(learned, before, strict=True):
            doubt = doubt + (parameter - first).square().mean()
        loss = doubt / (2 * DOUBT**2) - law.log_evidence()
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        for parameter in learned:
            assert parameter.grad is not None
            parameter.grad.fill_(parameter.grad.sum())  # of what is added to all of them alike: one factor
        optimizer.step()
        schedule.step()
    return Fitted(found.requires_grad_(False), math.exp(log_noise.item()), begun)


@torch.no_grad()
def _nearest(
    prior: CurrentPrior, some: Measurements, centre: tuple[float, float], climatology: Any, kernel: bool
) -> CurrentPrior:
    """Return the prior with all lengths, and all times, multiplied by factors under which measurements are likely."""
    noisy = replace(some, variance=some.variance + FIRST_NOISE_M_S**2)
    candidates = []
    for length, time in itertools.product(FACTORS, FACTORS) if kernel else [(1.0, 1.0)]:
        found = copy.deepcopy(prior)
        found.kernel.log_lengths.add_(math.log(length))
        found.kernel.log_days.add_(math.log(time))
        law = found.posterior(noisy, centre=centre, climatology=climatology)
        candidates.append((float(law.log_evidence()), found))
    return max(candidates, key=lambda one: one[0])[1]
