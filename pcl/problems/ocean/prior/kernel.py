r"""Covariance of currents: streamfunctions and a velocity potential, each with scales of its own, that may be learned.

A component is a Gaussian random field :math:`\psi` with the covariance

.. math::
    \sigma^2 L_x L_y \exp\Big( -\frac{(x - c_x t)^2}{2 L_x^2} - \frac{(y - c_y t)^2}{2 L_y^2} - \frac{t^2}{2 T^2} \Big)

of two points that lie x to the east, y to the north and t later. A streamfunction gives the current
:math:`(-\partial_y \psi, \partial_x \psi)`, a potential :math:`(\partial_x \psi, \partial_y \psi)`: derivatives of the
covariance are that of the current. Amplitudes follow the local standard deviation s of the archive: currents at a point
are multiplied by :math:`s_0 (s / s_0)^\alpha` with :math:`s_0` that of the whole archive.

Shapes: n and m points, each km east, km north and days; K components.
"""

__all__ = ["AnomalyKernel", "CurrentKernel", "Points"]

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from pcl.problems.ocean.prior.averages import Averages

KINDS = ("streamfunction", "streamfunction", "potential")
FIRST_LENGTHS_KM = (50.0, 120.0, 100.0)
FIRST_DAYS = (6.0, 12.0, 6.0)
FIRST_EXPONENT = 0.5
FIRST_SHARES = (0.45, 0.45, 0.1)  # of the variance
LEAST_SHARE = 0.1  # of the variance, of a component whose lengths and time count
FIRST_NOISE = 0.05  # variance of an error over that of the current
NUM_WAVES = 1024  # of the draws of a component, spread evenly: their covariance is right to a part in a thousand
POINTS_AT_ONCE = 256  # of draws
DRIFT_SCALE_KM_DAY = 5.0  # in units of which the velocities of the components are learned


@dataclass(frozen=True)
class Points:
    """Points with what is known of the currents there.

    Attributes:
        place: km east, km north, days, shape (n, 3).
        amplitude: local standard deviation of the archive, m/s, shape (n,).
    """

    place: Tensor
    amplitude: Tensor

    def __len__(self) -> int:
        return len(self.place)

    def __getitem__(self, index: Tensor | slice) -> "Points":
        return Points(self.place[index], self.amplitude[index])


class CurrentKernel(nn.Module):
    """Covariance of currents at points, float64, with 20 parameters that can be learned.

    Args:
        kinds: of the K components, ``streamfunction`` or ``potential``.
        lengths_km: of each at first, east and north alike.
        days: time scale of each at first, in units of ``day``.
        shares: of the variance of the archive that each has at first.
        noise: variance of an error over that of the current at first.

    Attributes:
        log_lengths: of the lengths east and north, km, shape (K, 2).
        log_days: of the time scales, in units of ``day``, shape (K,).
        log_scales: of the standard deviations over that of the archive, shape (K,).
        drifts: velocities of the components, in units of 5 km a day, shape (K, 2).
        log_noise: of the standard deviation of the error of a velocity over that of the archive.
        exponent: alpha, of the local standard deviation.
        level: s_0, m/s, a buffer.
        day: time in which the currents of the archive change little, days, a buffer: they may be tides.

    Example:
        >>> kernel = CurrentKernel()
        >>> points = Points(torch.zeros(1, 3, dtype=torch.float64), torch.ones(1, dtype=torch.float64))
        >>> kernel(points, points).reshape(2, 2)
        tensor([[1., 0.],
                [0., 1.]], dtype=torch.float64, grad_fn=...)
    """

    level: Tensor
    day: Tensor

    def __init__(
        self,
        kinds: Sequence[str] = KINDS,
        lengths_km: Sequence[float] = FIRST_LENGTHS_KM,
        days: Sequence[float] = FIRST_DAYS,
        shares: Sequence[float] = FIRST_SHARES,
        *,
        noise: float = FIRST_NOISE,
    ) -> None:
        super().__init__()
        self.kinds = tuple(kinds)

        def learned(values: object) -> nn.Parameter:
            return nn.Parameter(torch.tensor(values, dtype=torch.float64))

        self.log_lengths = learned([[math.log(length)] * 2 for length in lengths_km])
        self.log_days = learned([math.log(each) for each in days])
        self.log_scales = learned([math.log(share) / 2 for share in shares])
        self.drifts = learned([[0.0, 0.0]] * len(self.kinds))
        self.log_noise = learned(math.log(noise) / 2)
        self.exponent = learned(FIRST_EXPONENT)
        self.register_buffer("level", torch.tensor(1.0, dtype=torch.float64))
        self.register_buffer("day", torch.tensor(1.0, dtype=torch.float64))

    @property
    def lengths_km(self) -> Tensor:
        """Lengths east and north, shape (K, 2)."""
        return self.log_lengths.exp()

    @property
    def days(self) -> Tensor:
        """Time scales, shape (K,)."""
        return self.log_days.exp() * self.day

    @property
    def reach(self) -> Tensor:
        """The longest lengths and time of the components that matter, km east, km north and days, shape (3,)."""
        variances = (2 * self.log_scales.detach()).exp()
        matter = variances >= LEAST_SHARE * variances.sum()
        return torch.cat([self.lengths_km[matter].amax(0), self.days[matter].amax()[None]]).detach()

    @property
    def drifts_km_day(self) -> Tensor:
        """Velocities of the components, east and north, shape (K, 2)."""
        return self.drifts * DRIFT_SCALE_KM_DAY

    def as_at_first(self) -> "CurrentKernel":
        """Return the kernel from which this one began to learn, in its units."""
        first = CurrentKernel(self.kinds).requires_grad_(False)
        first.level.copy_(self.level)
        first.day.copy_(self.day)
        return first

    def forward(self, first: Points, second: Points, averages: Averages | None = None) -> Tensor:
        """Return the covariances of currents at two sets of points, m^2 s^-2, shape (2, n, 2, m).

        Args:
            first: n points.
            second: m points.
            averages: of the currents less their means over that time; None: of the currents.
        """
        apart = first.place[:, None] - second.place
        time = apart[..., 2]
        moved = (apart[..., :2] - self.drifts_km_day[:, None, None] * time[..., None]) / self.lengths_km[:, None, None]
        x, y = moved.unbind(-1)  # (K, n, m)
        x_square, y_square = x.square(), y.square()
        decay = 2 * self.log_scales[:, None, None] - (x_square + y_square) / 2
        if averages is None:
            decay = (decay - (time / self.days[:, None, None]).square() / 2).exp()
        else:
            days = self.days.clamp(max=averages.longest)
            decay = decay.exp() * averages.correlation(days, first.place[:, 2], second.place[:, 2])
        ratio = self._ratio[:, None, None]
        along_x = (1 - x_square) * decay / ratio  # minus the second derivative in x
        along_y = (1 - y_square) * decay * ratio
        of_stream = self._of_stream[:, None, None]
        east = torch.where(of_stream, along_y, along_x).sum(0)
        north = torch.where(of_stream, along_x, along_y).sum(0)
        across = x * y * decay
        across = torch.where(of_stream, across, -across).sum(0)
        total = torch.stack([torch.stack([east, across], 1), torch.stack([across, north], 1)])
        covariance: Tensor = total * (self.scale(first)[:, None, None] * self.scale(second))
        return covariance

    @property
    def _ratio(self) -> Tensor:
        """Lengths east over lengths north, shape (K,)."""
        ratio: Tensor = (self.log_lengths[:, 0] - self.log_lengths[:, 1]).exp()
        return ratio

    @property
    def _of_stream(self) -> Tensor:
        """Which components are streamfunctions, shape (K,)."""
        return torch.tensor([kind == "streamfunction" for kind in self.kinds], device=self.log_days.device)

    def scale(self, points: Points) -> Tensor:
        """Return the amplitude of currents at points, m/s, shape (n,)."""
        scale: Tensor = self.level * (points.amplitude / self.level) ** self.exponent
        return scale

    def noise_variance(self, points: Points) -> Tensor:
        """Return the variance of the error of a velocity at points, m^2 s^-2, shape (n,)."""
        variance: Tensor = (2 * self.log_noise).exp() * self.scale(points).square()
        return variance

    def variance(self, points: Points, averages: Averages | None = None) -> Tensor:
        """Return the variances of both components at points, m^2 s^-2, shape (2, n)."""
        shares, ratio, of_stream = (2 * self.log_scales).exp()[:, None], self._ratio[:, None], self._of_stream[:, None]
        if averages is not None:
            shares = shares * averages.variance(self.days.clamp(max=averages.longest), points.place[:, 2])
        east = (shares * torch.where(of_stream, ratio, 1 / ratio)).sum(0)
        north = (shares * torch.where(of_stream, 1 / ratio, ratio)).sum(0)
        return torch.stack([east, north]) * self.scale(points).square()

    @torch.no_grad()
    def draw(
        self, points: Points, num_draws: int, generator: torch.Generator, averages: Averages | None = None
    ) -> Tensor:
        r"""Draw coherent currents at points: sums of waves, whose covariance is this one, shape (K, 2, n).

        .. math:: \psi = \sigma \sqrt{\tfrac{L_x L_y}{M}} \sum_j a_j \cos\theta_j + b_j \sin\theta_j, \qquad
            \theta_j = k_j \cdot (x - c t) + \omega_j t

        with normal a and b of every draw; the wavenumbers and frequencies, normal of standard deviations 1 / L and
        1 / T and spread evenly, are those of all draws. What is drawn does not depend on the points: draws at some
        and at others, of generators in the same state, are of one field.

        Args:
            points: where and when.
            num_draws: K.
            generator: of the waves and their amplitudes.
            averages: as of ``forward``.
        """
        days = self.days if averages is None else self.days.clamp(max=averages.longest)
        waves = [self._waves(number, days[number], num_draws, generator) for number in range(len(self.kinds))]
        blocks = []
        for start in range(0, max(1, len(points)), POINTS_AT_ONCE):
            place = points.place[start : start + POINTS_AT_ONCE]
            drawn = torch.zeros(num_draws, 2, len(place), dtype=torch.float64)
            for k, frequency, currents in waves:
                drawn += currents @ _cosines(place, k, frequency, averages).T
            blocks.append(drawn)
        return torch.cat(blocks, -1) * self.scale(points)

    def _waves(
        self, number: int, days: Tensor, num_draws: int, generator: torch.Generator
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return waves (3, M), frequencies as the drift sees them (M,), currents of cosines, then sines (K, 2, 2 M)."""
        seed = int(torch.randint(2**31, (), generator=generator))
        engine = torch.quasirandom.SobolEngine(3, scramble=True, seed=seed)  # type: ignore[no-untyped-call]
        even = engine.draw(NUM_WAVES, dtype=torch.float64)
        normal = math.sqrt(2) * torch.erfinv((2 * even - 1).clamp(-1 + 1e-9, 1 - 1e-9))
        lengths, drift = self.lengths_km[number], self.drifts_km_day[number]
        k = normal[:, :2] / lengths
        frequency = normal[:, 2] / days
        cosine, sine = torch.randn(2, num_draws, NUM_WAVES, generator=generator, dtype=torch.float64)
        size = self.log_scales[number].exp() * (lengths.prod() / NUM_WAVES).sqrt()
        along = [size * torch.cat([sine * each, -cosine * each], 1) for each in k.T]  # derivatives east and north
        current = [-along[1], along[0]] if self.kinds[number] == "streamfunction" else along
        return torch.cat([k, (frequency - k @ drift)[:, None]], 1).T, frequency, torch.stack(current, 1)


def _cosines(place: Tensor, k: Tensor, frequency: Tensor, averages: Averages | None) -> Tensor:
    """Return cosines and then sines of waves at places (n, 3), less their means over a time, shape (n, 2 M)."""
    angles = place @ k
    found = torch.cat([angles.cos(), angles.sin()], 1)
    if averages is None:
        return found
    still = angles - place[:, 2:] * frequency  # what drifts keeps its mean
    cosine, sine = averages.of_waves(frequency)
    means = [still.cos() * cosine - still.sin() * sine, still.sin() * cosine + still.cos() * sine]
    return found - torch.cat(means, 1)


@dataclass(frozen=True, eq=False)
class AnomalyKernel:
    """Covariance of currents less their means over the time of a climatology, as ``CurrentKernel``.

    Attributes:
        kernel: of the currents, with the amplitude, and the error of measurements.
        averages: that time, in the days of the points.
    """

    kernel: CurrentKernel
    averages: Averages

    def __call__(self, first: Points, second: Points) -> Tensor:
        """Return the covariances at two sets of points, m^2 s^-2, shape (2, n, 2, m)."""
        covariance: Tensor = self.kernel(first, second, self.averages)
        return covariance

    @property
    def reach(self) -> Tensor:
        """As of the kernel, shape (3,)."""
        return self.kernel.reach

    def scale(self, points: Points) -> Tensor:
        """Return the amplitude of currents at points, m/s, shape (n,)."""
        return self.kernel.scale(points)

    def noise_variance(self, points: Points) -> Tensor:
        """Return the variance of the error of a velocity at points, m^2 s^-2, shape (n,)."""
        return self.kernel.noise_variance(points)

    def variance(self, points: Points) -> Tensor:
        """Return the variances of both components at points, m^2 s^-2, shape (2, n)."""
        return self.kernel.variance(points, self.averages)

    def draw(self, points: Points, num_draws: int, generator: torch.Generator) -> Tensor:
        """Draw coherent anomalies at points, shape (K, 2, n); see ``CurrentKernel.draw``."""
        return self.kernel.draw(points, num_draws, generator, self.averages)
