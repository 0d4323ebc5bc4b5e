"""What estimates stand beside the posterior: climatology, and optimal interpolation whose scales the tracks choose.

Shapes: n measurements, m targets.
"""

__all__ = ["ClimatologyLaw", "FlatClimatology", "Interpolation", "Law", "error_variance", "tuned_scales"]

import itertools
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from pcl.problems.ocean.evaluation.baselines import OptimalInterpolation
from pcl.problems.ocean.evaluation.field_scores import gaussian_crps
from pcl.problems.ocean.evaluation.point_law import PointLaw
from pcl.problems.ocean.prior.measurements import Measurements
from pcl.problems.ocean.prior.model import CurrentPrior, Frame
from pcl.problems.ocean.reconstruct.adapt import thinned

LENGTHS_KM = (2.5, 5.0, 10.0, 20.0, 40.0, 70.0, 100.0, 150.0)
DAYS = (0.125, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0)
NOISES = (0.01, 0.03, 0.1, 0.3)
TARGETS_AT_ONCE = 2048


class Law(Protocol):
    """What says what currents are anywhere."""

    def law(self, latitude: Tensor, longitude: Tensor, time_s: Tensor) -> PointLaw:
        """Return the law of each, m/s, shape (2, m), at degrees and seconds since 1970-01-01, shape (m,) each."""


@dataclass(frozen=True, eq=False)
class FlatClimatology:
    """The mean and the standard deviation of velocities, the same everywhere.

    Attributes:
        mean: m/s, shape (2,).
        std: likewise.
    """

    mean: Tensor
    std: Tensor

    @classmethod
    def of(cls, measurements: Measurements) -> "FlatClimatology":
        """Return that of measurements."""
        return cls(measurements.velocity.mean(0), measurements.velocity.std(0, correction=0).clamp(min=1e-3))

    def at(self, latitude: Tensor, longitude: Tensor) -> tuple[Tensor, Tensor]:
        """Return the mean (2, n) and the amplitude (n,) at places."""
        number = len(latitude)
        return self.mean[:, None].expand(2, number), self.std.square().mean().sqrt().expand(number)


@dataclass(frozen=True, eq=False)
class ClimatologyLaw:
    """Climatology as a law: its mean, and its amplitude as the spread of both components."""

    climatology: Any

    def law(self, latitude: Tensor, longitude: Tensor, time_s: Tensor) -> PointLaw:
        """Return normal laws, shape (2, m)."""
        mean, amplitude = self.climatology.at(latitude, longitude)
        return PointLaw(mean, amplitude.expand(2, len(latitude)))


@dataclass(frozen=True, eq=False)
class Interpolation:
    """Optimal interpolation of measurements around a climatology: one streamfunction with three scales.

    Attributes:
        scales: length, time and noise.
        climatology: around which; its mean variance at the measurements is that of the anomaly.
        measurements: n of them.
        frame: of the places.
    """

    scales: OptimalInterpolation
    climatology: Any
    measurements: Measurements
    frame: Frame

    def _system(self) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """Return places (n, 3), anomalies (2 n, 1), the variance, and the root of the covariance over it (2 n, 2 n)."""
        m = self.measurements
        mean, amplitude = self.climatology.at(m.latitude, m.longitude)
        used = torch.isfinite(mean).all(0) & torch.isfinite(amplitude)
        variance = amplitude[used].square().mean().clamp(min=1e-6)
        where = self.frame.place(m.latitude, m.longitude, m.time_s)[used]
        anomaly = (m.velocity.T - mean)[:, used].reshape(-1, 1)
        size = 2 * len(where)
        noise = self.scales.noise + (m.variance[used] / variance).repeat(2)
        covariance = self.scales.covariance(where, where).reshape(size, size) + torch.diag(noise)
        return where, anomaly, variance, torch.linalg.cholesky(covariance), used

    def crps_left_out(self, drifter: np.ndarray) -> float:
        r"""Return the CRPS of each drifter's velocities given those of the others, m/s: what it is judged by.

        With P the inverse of the covariance of all measurements y, and i those of a drifter, their law given the others
        has the covariance :math:`P_{ii}^{-1}`, and :math:`P_{ii}^{-1} (Py)_i` is what its mean misses.

        Args:
            drifter: name of each measurement's, shape (n,).
        """
        _, anomaly, variance, root, used = self._system()
        inverse = torch.cholesky_inverse(root) / variance
        weighted, names = inverse @ anomaly, np.tile(drifter[used.numpy()], 2)
        scores = []
        for name in np.unique(names):
            own = torch.from_numpy(names == name)
            covariance = torch.linalg.inv(inverse[own][:, own])
            missed = (covariance @ weighted[own])[:, 0]
            scores.append(gaussian_crps(torch.zeros_like(missed), covariance.diagonal().sqrt(), missed))
        return float(torch.cat(scores).mean())

    def law(self, latitude: Tensor, longitude: Tensor, time_s: Tensor) -> PointLaw:
        """Return normal laws of the current, shape (2, m)."""
        where, anomaly, variance, root, _ = self._system()
        white = torch.linalg.solve_triangular(root, anomaly, upper=False)
        mean, _ = self.climatology.at(latitude, longitude)
        shifts, variances = [], []
        for targets in torch.split(self.frame.place(latitude, longitude, time_s), TARGETS_AT_ONCE):
            between = self.scales.covariance(where, targets).reshape(len(anomaly), 2 * len(targets))
            half = torch.linalg.solve_triangular(root, between, upper=False)
            shifts.append((half.T @ white).reshape(2, -1))
            variances.append(variance * (1 - half.square().sum(0)).clamp(min=0).reshape(2, -1))
        return PointLaw(mean + torch.cat(shifts, 1), torch.cat(variances, 1).sqrt())

    def of(self, measurements: Measurements) -> "Interpolation":
        """Return the same with other measurements."""
        return replace(self, measurements=measurements)

    def error_variance(self) -> Tensor:
        """Return the variance of the error of each measurement, m^2 s^-2, shape (n,)."""
        _, amplitude = self.climatology.at(self.measurements.latitude, self.measurements.longitude)
        found: Tensor = self.scales.noise * amplitude.square().nanmean() + self.measurements.variance
        return found


def tuned_scales(
    measurements: Measurements, drifter: np.ndarray, climatology: Any, centre: tuple[float, float]
) -> OptimalInterpolation:
    """Return the length, the time and the noise of optimal interpolation that predict drifters best from the others.

    They are chosen by what they are judged by, on the drifters that are judged: to its advantage.

    Args:
        measurements: of drifters.
        drifter: name of each measurement's, shape (n,).
        climatology: with ``at``, as ``GridClimatology``.
        centre: latitude and longitude around which the Earth is flat.
    """
    some = thinned(len(measurements))
    frame = Frame(*centre, float(measurements.time_s.mean()))
    candidates = itertools.starmap(OptimalInterpolation, itertools.product(LENGTHS_KM, DAYS, NOISES))

    def score(scales: OptimalInterpolation) -> float:
        return Interpolation(scales, climatology, measurements[some], frame).crps_left_out(drifter[some.numpy()])

    return min(candidates, key=score)


def error_variance(
    prior: CurrentPrior, measurements: Measurements, climatology: Any, centre: tuple[float, float]
) -> Tensor:
    """Return the variance of the error that a prior gives each measurement, shape (n,), NaN where there is no prior."""
    law = prior.posterior(measurements, centre=centre, climatology=climatology)
    found = torch.full((len(measurements),), torch.nan, dtype=torch.float64)
    found[law.used] = law.anomaly.measured.variance.detach()
    return found
