"""The model of a reconstruction: a prior, its climatology, and the numbers that tracks choose."""

__all__ = ["Model"]

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from torch import Tensor

from pcl.problems.ocean.evaluation.baselines import OptimalInterpolation
from pcl.problems.ocean.prior.measurements import Measurements
from pcl.problems.ocean.prior.model import CurrentPosterior, CurrentPrior, Frame, Uniform
from pcl.problems.ocean.reconstruct.adapt import Fitted, fit
from pcl.problems.ocean.reconstruct.laws import FlatClimatology, Interpolation, error_variance, tuned_scales

LEAST_M_S = 1e-3


@dataclass(frozen=True, eq=False)
class Model:
    """What estimates currents from measurements.

    Attributes:
        prior: as it was learned, or the generic one.
        centre: latitude and longitude around which the Earth is flat.
        is_generic: whether the kernel is fitted to tracks too.
        fitted: the prior that tracks chose; None: as it was learned.
        scales: of optimal interpolation, that all tracks chose.
        amplitude: of currents in m/s, where the prior keeps no climatology.
    """

    prior: CurrentPrior
    centre: tuple[float, float]
    is_generic: bool
    fitted: Fitted | None
    scales: OptimalInterpolation
    amplitude: float

    @classmethod
    def of(
        cls,
        prior: CurrentPrior,
        measurements: Measurements,
        drifter: np.ndarray,
        centre: tuple[float, float],
        *,
        generic: bool,
        adapt: bool,
    ) -> "Model":
        """Return the model whose numbers measurements choose, each that of the drifter of that name."""
        begin = cls(prior, centre, generic, None, OptimalInterpolation(), _amplitude(measurements))
        scales = tuned_scales(measurements, drifter, begin.flat(measurements), centre)
        return replace(begin, scales=scales, fitted=begin.fit(measurements) if adapt else None)

    def fit(self, measurements: Measurements) -> Fitted:
        """Return the prior that measurements choose, from the one that is there."""
        return fit(self.prior, measurements, self.centre, self.climatology, kernel=self.is_generic, start=self.fitted)

    def without(self, known: Measurements) -> "Model":
        """Return the model that fewer measurements choose; scales of optimal interpolation stay, to its advantage."""
        own = replace(self, amplitude=_amplitude(known))
        return own if self.fitted is None else replace(own, fitted=own.fit(known))

    def plain(self) -> "Model":
        """Return the model whose prior is not fitted to tracks."""
        return replace(self, fitted=None)

    @property
    def climatology(self) -> Any:
        """Climatology of the prior; at rest, with the amplitude of the tracks, where it keeps none."""
        return self.prior.climatology or Uniform(self.amplitude)

    def law(self, measurements: Measurements) -> CurrentPosterior:
        """Return the law of currents given measurements."""
        prior, counted = self._with(measurements)
        return prior.posterior(counted, centre=self.centre, climatology=self.climatology)

    def error_variance(self, measurements: Measurements) -> Tensor:
        """Return the variance of the error of measurements, m^2 s^-2, shape (n,), NaN where there is no prior."""
        prior, counted = self._with(measurements)
        return error_variance(prior, counted, self.climatology, self.centre)

    def flat(self, measurements: Measurements) -> Any:
        """Return climatology as a method of its own: of the archive, else mean and spread of the measurements."""
        return self.prior.climatology or FlatClimatology.of(measurements)

    def interpolated(self, measurements: Measurements) -> Interpolation:
        """Return optimal interpolation of measurements."""
        frame = Frame(*self.centre, float(measurements.time_s.mean()))
        return Interpolation(self.scales, self.flat(measurements), measurements, frame)

    def _with(self, measurements: Measurements) -> tuple[CurrentPrior, Measurements]:
        if self.fitted is None:
            return self.prior, measurements
        return self.fitted.prior, self.fitted.with_noise(measurements)


def _amplitude(measurements: Measurements) -> float:
    return max(float(measurements.velocity.square().mean().sqrt()), LEAST_M_S)
