r"""A learned prior of currents, and its posterior given measurements anywhere: mean, spread, members, density.

The current is climatology and an anomaly whose covariance is learned (``CurrentKernel``); a measurement is the current
at the middle of a piece of a track with an error, whose variance is what is known of it and a share of the local
variance that is learned (``Precision``). Where climatology is not known there is no prior: NaN.

Shapes: n measurements, m targets, K members, R x X points of the archive's grid.
"""

__all__ = ["Covariance", "CurrentPosterior", "CurrentPrior", "generic_prior"]

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from pcl.problems.ocean.evaluation.point_law import PointLaw
from pcl.problems.ocean.prior.averages import Averages
from pcl.problems.ocean.prior.climatology import GridClimatology
from pcl.problems.ocean.prior.kernel import AnomalyKernel, CurrentKernel, Points
from pcl.problems.ocean.prior.measurements import EVERY, Measurements
from pcl.problems.ocean.prior.pooled import LEAST_AMPLITUDE, LagTable, WithPooled
from pcl.problems.ocean.prior.posterior import Measured, Posterior, Spread
from pcl.problems.ocean.prior.precision import Precision
from pcl.problems.ocean.prior.region import MOST_MEASUREMENTS, RegionPosterior
from pcl.problems.ocean.sphere import METRES_PER_DEGREE
from pcl.problems.ocean.tiles import DAY_S
from pcl.problems.ocean.tracks import within_half_turn

UNKNOWN = -1.0  # instead of a standard deviation: what checkpoints hold is finite
FIRST_FREEDOM = 300.0  # large: an energy that is nearly as expected
FIRST_SHARE = 0.03  # of the pooled covariance
FIRST_UNRESOLVED = 0.003  # of the square of the amplitude
FIRST_TAIL = 10.0  # degrees of freedom of the law of a point, less two
LEAST_TAIL = 0.5  # with less, a standard deviation would be that of a few points
NEVER = -30.0  # logarithm of what is not there


@dataclass(frozen=True, eq=False)
class Frame:
    """Plane that touches the Earth at a place, and a time from which days count."""

    latitude: float
    longitude: float
    time_s: float

    def place(self, latitude: Tensor, longitude: Tensor, time_s: Tensor) -> Tensor:
        """Return km east, km north and days, shape (n, 3)."""
        km = METRES_PER_DEGREE / 1000
        cosine = torch.cos(torch.deg2rad(torch.tensor(self.latitude, dtype=torch.float64)))
        east = within_half_turn(longitude.double() - self.longitude) * km * cosine
        north = (latitude.double() - self.latitude) * km
        return torch.stack([east, north, (time_s.double() - self.time_s) / DAY_S], 1)


@dataclass(frozen=True, eq=False)
class Uniform:
    """Climatology that is the same everywhere: at rest, with an amplitude in m/s."""

    amplitude: float

    def averages(self, time_s: float) -> None:
        """Return no time over which a mean was taken."""

    def at(self, latitude: Tensor, longitude: Tensor) -> tuple[Tensor, Tensor]:
        """Return the mean (2, n) and the amplitude (n,) at places."""
        zero = torch.zeros_like(latitude, dtype=torch.float64)
        return torch.stack([zero, zero]), torch.full_like(zero, self.amplitude)


Climatology = GridClimatology | Uniform
Covariance = CurrentKernel | AnomalyKernel | WithPooled


class CurrentPrior(nn.Module):
    """Gaussian law of currents that is learned, around a climatology.

    Args:
        latitude: of the archive's grid, degrees north, R of them; none: a prior without a climatology, whose amplitude
            is that of the tracks.
        longitude: likewise, X of them.
        lags: of the pooled covariance that is kept, in time, north and east; none: the kernel is the covariance.

    Attributes:
        kernel: covariance of the anomaly.
        precision: factor of the variance of the error of a measurement.
        log_freedom: of the degrees of freedom of the energy of a window's currents (``Posterior``).
        log_spread: of the root of the inflation of variances.
        log_unresolved: of the share of the amplitude's square that a point varies by beside the covariance.
        log_tail: of the degrees of freedom of Student's law of a point, less two.
        log_share: of the pooled covariance beside the kernel.

    Example:
        >>> prior = CurrentPrior()
        >>> east = Measurements(torch.tensor([[1.0, 0.0]]), torch.zeros(1), torch.zeros(1), *torch.zeros(3, 1))
        >>> mean, std = prior.posterior(east, centre=(0.0, 0.0)).mean_and_std(*torch.zeros(3, 1))
        >>> mean.shape, bool(mean[0] > 0.9), bool(std[0] < 0.3)
        (torch.Size([2, 1]), True, True)
    """

    latitude: Tensor
    longitude: Tensor
    mean: Tensor
    std: Tensor
    period: Tensor
    pooled: Tensor
    pooled_step: Tensor

    def __init__(
        self, latitude: Sequence[float] = (), longitude: Sequence[float] = (), lags: Sequence[int] = (0, 0, 0)
    ) -> None:
        super().__init__()
        self.kernel, self.precision = CurrentKernel(), Precision()
        self.log_freedom = nn.Parameter(torch.tensor(math.log(FIRST_FREEDOM), dtype=torch.float64))
        self.log_spread = nn.Parameter(torch.zeros((), dtype=torch.float64))
        self.log_share = nn.Parameter(torch.tensor(math.log(FIRST_SHARE), dtype=torch.float64))
        self.log_unresolved = nn.Parameter(torch.tensor(math.log(FIRST_UNRESOLVED), dtype=torch.float64))
        self.log_tail = nn.Parameter(torch.tensor(math.log(FIRST_TAIL), dtype=torch.float64))
        self.register_buffer("latitude", torch.tensor(latitude, dtype=torch.float64))
        self.register_buffer("longitude", torch.tensor(longitude, dtype=torch.float64))
        unknown = torch.full((2, len(latitude), len(longitude)), UNKNOWN, dtype=torch.float64)
        self.register_buffer("mean", torch.zeros_like(unknown))
        self.register_buffer("std", unknown)
        self.register_buffer("period", torch.zeros(2, dtype=torch.float64))
        self.register_buffer("pooled", torch.zeros(2, 2, *lags, dtype=torch.float64))
        self.register_buffer("pooled_step", torch.ones(3, dtype=torch.float64))

    def keep(self, climatology: GridClimatology, day: float = 1.0, table: LagTable | None = None) -> None:
        """Keep a climatology on the archive's grid, which checkpoints then hold, and take its amplitude as unit.

        Args:
            climatology: on the grid of the prior.
            day: time in which the currents of the archive change little, days.
            table: pooled covariance of the archive; None: none is kept.
        """
        known = torch.isfinite(climatology.mean) & torch.isfinite(climatology.std)
        self.mean.copy_(climatology.mean.where(known, 0.0))
        self.std.copy_(climatology.std.where(known, UNKNOWN))
        level = climatology.std.square().nanmean().sqrt()
        self.kernel.level.copy_(level if level > LEAST_AMPLITUDE else torch.tensor(LEAST_AMPLITUDE))
        self.kernel.day.fill_(day)
        if climatology.spans_s is not None:
            self.period.copy_(torch.stack([climatology.spans_s[0, 0], climatology.spans_s[-1, 1]]))
        if table is not None:
            self.pooled.copy_(table.values)
            self.pooled_step.copy_(table.step)

    def covariance(self, table: LagTable | None = None, averages: Averages | None = None) -> Covariance:
        """Return the covariance of currents: the kernel, and its share of a pooled one.

        Args:
            table: to take; None: that which is kept, if there is one.
            averages: time over which climatology was taken, in days of the points; None: that is not known.
        """
        kernel = self.kernel if averages is None else AnomalyKernel(self.kernel, averages)
        if table is None and not bool(self.pooled.any()):
            return kernel
        return WithPooled(kernel, self.log_share.exp(), table or LagTable(self.pooled, self.pooled_step))

    @property
    def of_older_records(self) -> dict[str, Tensor]:
        """What records of before are without: a pooled covariance, a known period, tails of the laws of points."""
        zeros = {name: torch.zeros(getattr(self, name).shape).double() for name in ("log_share", "period", "pooled")}
        never = torch.tensor(NEVER, dtype=torch.float64)
        step = torch.ones(3, dtype=torch.float64)
        return {**zeros, "pooled_step": step, "log_unresolved": never, "log_tail": -never}

    @property
    def spread(self) -> Spread:
        """How sure its posterior is, as it was learned."""
        return Spread(
            freedom=self.log_freedom.exp(),
            inflation=(2 * self.log_spread).exp(),
            unresolved=self.log_unresolved.exp(),
            degrees=2 + self.log_tail.exp().clamp(min=LEAST_TAIL),
        )

    @property
    def climatology(self) -> GridClimatology | None:
        """The climatology that is kept; None: there is none."""
        known = self.std >= 0
        if not bool(known.any()):
            return None
        mean, std = (values.where(known, torch.nan) for values in (self.mean, self.std))
        length = float(self.period[1] - self.period[0])
        return GridClimatology(self.latitude, self.longitude, mean, std, self.period[None] if length else None, length)

    def posterior(
        self,
        measurements: Measurements,
        *,
        centre: tuple[float, float],
        climatology: Climatology | None = None,
        table: LagTable | None = None,
        learned: bool = True,
    ) -> "CurrentPosterior":
        """Return the law of currents given measurements.

        Args:
            measurements: n of them, of which those count that lie where climatology is known.
            centre: latitude and longitude, degrees, around which the Earth is flat.
            climatology: to take; None: that which is kept, or of the amplitude of the measurements.
            table: pooled covariance to take; None: that which is kept.
            learned: whether what was learned is used; False: the covariance and the error from which learning starts.
        """
        chosen = climatology or self.climatology or _of_tracks(measurements)
        frame = Frame(*centre, float(measurements.time_s.double().mean()) if len(measurements) else 0.0)
        averages = chosen.averages(frame.time_s)
        kernel = self.covariance(table, averages) if learned else self.kernel.as_at_first()
        mean, amplitude = chosen.at(measurements.latitude, measurements.longitude)
        anomaly = measurements.velocity.double().T - mean
        used = torch.isfinite(anomaly).all(0) & torch.isfinite(amplitude)
        counted, amplitude = measurements[used], amplitude[used].clamp(min=LEAST_AMPLITUDE)
        points = Points(frame.place(counted.latitude, counted.longitude, counted.time_s), amplitude)
        error, spread = kernel.noise_variance(points), None
        if learned:
            usual_s = EVERY * float(self.kernel.day) * DAY_S
            error = error * self.precision(counted, amplitude, usual_s)
            spread = self.spread
        measured = Measured(points, anomaly[:, used], error + counted.variance.double())
        law = Posterior if len(counted) <= MOST_MEASUREMENTS else RegionPosterior
        return CurrentPosterior(law(kernel, measured, spread), chosen, frame, used)


@dataclass(frozen=True, eq=False)
class CurrentPosterior:
    """The law of currents given measurements, climatology in it; where that is not known, all is NaN.

    Attributes:
        anomaly: the law of the anomaly.
        climatology: around which.
        frame: of the places.
        used: which measurements counted, shape (n,).
    """

    anomaly: Posterior | RegionPosterior
    climatology: Climatology
    frame: Frame
    used: Tensor

    def mean_and_std(self, latitude: Tensor, longitude: Tensor, time_s: Tensor) -> tuple[Tensor, Tensor]:
        """Return the mean and the standard deviation of the current, m/s, shape (2, m) each.

        Args:
            latitude: degrees north, shape (m,).
            longitude: degrees east, shape (m,).
            time_s: seconds since 1970-01-01, shape (m,).
        """
        law = self.law(latitude, longitude, time_s)
        return law.mean, law.std

    def law(self, latitude: Tensor, longitude: Tensor, time_s: Tensor) -> PointLaw:
        """Return the law of the current at each point, m/s, shape (2, m); arguments as of ``mean_and_std``."""
        return self.law_of(*self.resolved(latitude, longitude, time_s))

    def resolved(self, latitude: Tensor, longitude: Tensor, time_s: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return what the covariance alone says of points: means and variances (2, m) each, and amplitudes (m,)."""
        targets, mean, known = self._targets(latitude, longitude, time_s)
        shift, variance = self.anomaly.mean_and_variance(targets)
        amplitude = self.anomaly.kernel.scale(targets)
        return mean + _spread(shift, known), _spread(variance, known), _spread(amplitude, known)

    def law_of(self, mean: Tensor, variance: Tensor, amplitude: Tensor) -> PointLaw:
        """Return the law of points of which the covariance alone says so much, see ``resolved``."""
        spread = self.anomaly.spread
        return PointLaw(mean, variance.sqrt()) if spread is None else spread.law(mean, variance, amplitude)

    def members(
        self, latitude: Tensor, longitude: Tensor, time_s: Tensor, num_members: int, generator: torch.Generator
    ) -> Tensor:
        """Draw currents that are coherent in space and time, of the normal law of the covariance, m/s, (K, 2, m).

        Args:
            latitude: degrees north, shape (m,).
            longitude: degrees east, shape (m,).
            time_s: seconds since 1970-01-01, shape (m,).
            num_members: K.
            generator: of the draws.
        """
        targets, mean, known = self._targets(latitude, longitude, time_s)
        return mean + _spread(self.anomaly.members(targets, num_members, generator), known)

    def log_density(self, latitude: Tensor, longitude: Tensor, time_s: Tensor, velocity: Tensor) -> Tensor:
        """Return the joint log-density of velocities at places, with the prior's error of a measurement, nats, scalar.

        Args:
            latitude: degrees north, shape (m,).
            longitude: degrees east, shape (m,).
            time_s: seconds since 1970-01-01, shape (m,).
            velocity: m/s, shape (2, m): those count that lie where climatology is known.
        """
        targets, mean, known = self._targets(latitude, longitude, time_s)
        error = self.anomaly.kernel.noise_variance(targets)
        return self.anomaly.log_density(targets, (velocity.double() - mean)[:, known], error)

    def log_evidence(self) -> Tensor:
        """Return the log-density of the measurements that count under the prior, errors included, nats, a scalar."""
        return self.anomaly.log_evidence()

    def _targets(self, latitude: Tensor, longitude: Tensor, time_s: Tensor) -> tuple[Points, Tensor, Tensor]:
        """Return the known points, climatology at all (2, m), and which are known (m,)."""
        mean, amplitude = self.climatology.at(latitude, longitude)
        known = torch.isfinite(mean).all(0) & torch.isfinite(amplitude)
        place = self.frame.place(latitude, longitude, time_s)[known]
        return Points(place, amplitude[known].clamp(min=LEAST_AMPLITUDE)), mean, known


def _spread(values: Tensor, known: Tensor) -> Tensor:
    """Return values (..., of the known) at all points (..., m), NaN elsewhere."""
    if bool(known.all()):
        return values
    found = values.new_full((*values.shape[:-1], len(known)), torch.nan)
    found[..., known] = values
    return found


def _of_tracks(measurements: Measurements) -> Uniform:
    """Return a climatology at rest of the amplitude of what was measured."""
    speed = measurements.velocity.double().square()
    return Uniform(max(float(speed.mean().sqrt()), LEAST_AMPLITUDE) if len(measurements) else LEAST_AMPLITUDE)


def generic_prior() -> CurrentPrior:
    """Prior of ocean currents for places without an archive: lengths and times of a year of the Agulhas, rounded.

    Two streamfunctions of 55 and 105 km, 9 and 11 days, and a potential; the amplitude is that of the tracks.

    Example:
        >>> generic_prior().kernel.log_lengths.exp().round().tolist()[0]
        [55.0, 55.0]
    """
    prior, values = CurrentPrior(), GENERIC
    with torch.no_grad():
        for name, value in values.items():
            parameter: Any = getattr(prior.kernel, name)
            parameter.copy_(torch.tensor(value, dtype=torch.float64))
        for name in ("log_lengths", "log_days", "log_scales", "log_noise"):
            getattr(prior.kernel, name).log_()
        prior.log_tail.fill_(math.log(GENERIC_TAIL))
    return prior


GENERIC_TAIL = 4.0  # degrees of freedom of the law of a point, less two
GENERIC: dict[str, Any] = {  # scales themselves, whose logarithms the kernel holds
    "log_lengths": [[55.0, 55.0], [105.0, 105.0], [100.0, 100.0]],
    "log_days": [9.0, 11.0, 6.0],
    "log_scales": [0.6, 0.75, 0.25],
    "log_noise": 0.13,
    "exponent": 1.0,
}
