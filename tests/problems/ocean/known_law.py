r"""An archive of currents whose covariance is known: random waves of two streamfunctions and a potential.

.. math:: \psi = \sigma \sqrt{\tfrac{2 L_x L_y}{M}} \sum_j \cos(k_j \cdot (x - c t) + \omega_j t + \varphi_j)

with normal wavenumbers and frequencies of standard deviations 1 / L and 1 / T; currents are its derivatives, multiplied
by a standard deviation that varies in space. Waves are products along the axes, so a year of a region takes a second.
"""

import math
from dataclasses import dataclass

import numpy as np
import xarray as xr

KM_PER_DEGREE = 111.12
NUM_WAVES = 1500


@dataclass(frozen=True)
class Component:
    """A component of a law of currents.

    Attributes:
        kind: streamfunction or potential.
        lengths_km: east and north.
        days: time scale.
        share: of the variance of the currents.
        drift_km_day: velocity, east and north.
    """

    kind: str
    lengths_km: tuple[float, float]
    days: float
    share: float
    drift_km_day: tuple[float, float] = (0.0, 0.0)


LAW = (
    Component("streamfunction", (60.0, 60.0), 6.0, 0.55, (-5.0, 0.0)),
    Component("streamfunction", (130.0, 130.0), 14.0, 0.3),
    Component("potential", (90.0, 90.0), 5.0, 0.15),
)


def amplitude(latitude, longitude):
    """Return the standard deviation of each component of the current, m/s, shape (Y, X)."""
    north, east = np.meshgrid(latitude, longitude, indexing="ij")
    return 0.25 * (1 + 0.5 * np.sin(2 * np.pi * east / 9) * np.cos(2 * np.pi * north / 13))


def unit_currents(law, days, north_km, east_km, generator):
    """Return currents of variance one, east and north, shape (2, T, Y, X)."""
    total = np.zeros((2, len(days), len(north_km), len(east_km)))
    for part in law:
        lengths = np.array(part.lengths_km)
        k = generator.normal(size=(2, NUM_WAVES)) / lengths[:, None]
        omega = generator.normal(size=NUM_WAVES) / part.days - np.array(part.drift_km_day) @ k
        phase = np.exp(1j * (2 * np.pi * generator.random(NUM_WAVES)[:, None] + np.outer(omega, days)))
        in_rows = np.exp(1j * np.outer(k[1], north_km))
        in_columns = np.exp(1j * np.outer(k[0], east_km))
        size = math.sqrt(part.share * 2 * lengths.prod() / NUM_WAVES)
        waves = (phase[:, :, None] * in_rows[:, None]).reshape(NUM_WAVES, -1).T  # of time and row
        slopes = [-size * (waves @ (k[axis][:, None] * in_columns)).imag.reshape(total.shape[1:]) for axis in (0, 1)]
        total += [-slopes[1], slopes[0]] if part.kind == "streamfunction" else slopes
    return total


def write_known_law(path, *, law=LAW, days=150, size=41, cell=0.25, hours=24, seed=0, amplitude=amplitude):
    """Write CF NetCDF of a square around the equator, where a degree is as long east as north; return its path."""
    generator, axis = np.random.default_rng(seed), cell * (np.arange(size) - (size - 1) / 2)
    time = np.arange(round(days * 24 / hours)) * hours / 24
    currents = unit_currents(law, time, KM_PER_DEGREE * axis, KM_PER_DEGREE * axis, generator) * amplitude(axis, axis)
    names = {"uo": "eastward_sea_water_velocity", "vo": "northward_sea_water_velocity"}
    variables = {
        name: (("time", "latitude", "longitude"), one.astype(np.float32), {"units": "m s-1", "standard_name": standard})
        for (name, standard), one in zip(names.items(), currents, strict=True)
    }
    coordinates = {
        "time": ("time", time, {"units": "days since 2001-01-01", "calendar": "standard"}),
        "latitude": ("latitude", axis, {"units": "degrees_north"}),
        "longitude": ("longitude", axis, {"units": "degrees_east"}),
    }
    attributes = {"Conventions": "CF-1.8", "title": "Random currents of a known law", "source": "random waves"}
    xr.Dataset(variables, coordinates, attributes).to_netcdf(path, engine="netcdf4")
    return path


def kernel_of(law=LAW):
    """Return the law as the kernel that is learned: exponent one, no noise."""
    import torch

    from pcl.problems.ocean.prior.kernel import DRIFT_SCALE_KM_DAY, CurrentKernel

    kernel = CurrentKernel()
    with torch.no_grad():
        for number, part in enumerate(law):
            kernel.log_lengths[number] = torch.tensor(part.lengths_km).log()
            kernel.log_days[number] = math.log(part.days)
            kernel.log_scales[number] = math.log(part.share) / 2
            kernel.drifts[number] = torch.tensor(part.drift_km_day) / DRIFT_SCALE_KM_DAY
        kernel.log_noise.fill_(math.log(1e-3))
        kernel.exponent.fill_(1.0)
    return kernel
