r"""Show that our drifters and those of Parcels part by less than a metre in a week.

Both follow the classical Runge-Kutta method with the same step in the same daily fields, linear in space and time, with
60 nautical miles a degree. Parcels 4 (van Sebille and others, https://parcels-code.org) computes positions in float64
(its default particle is float32), with the fields loaded. Drifters start on a lattice over the open water of the
Agulhas region; those that come near land or leave the grid are left out, and counted. Run this by hand
in an environment of its own::

    python3.11 -m venv parcels-venv
    parcels-venv/bin/pip install -c constraints.txt torch "parcels>=4"
    parcels-venv/bin/pip install --no-deps -e .
    parcels-venv/bin/python tests/golden/check_parcels.py FOLDER/ocean/globcurrent_agulhas_2002_daily.nc
"""

# Expected output (the exit code is 1 if the separation is above TOLERANCE_M):
#
# parcels 4.0.2, 293 of 512 drifters, 7 days, step 3600 s
# displacement: median 137 km, largest 793 km
# separation: largest 8.7e-09 m

import sys

import numpy as np
import parcels
import torch
import xarray as xr

from pcl.problems.ocean.drifters import advect
from pcl.problems.ocean.sphere import METRES_PER_DEGREE

DAYS, STEP_S, TOLERANCE_M, FIRST = 7, 3600.0, 1.0, 100
NAMES = {"U": "eastward_eulerian_current_velocity", "V": "northward_eulerian_current_velocity"}


def lattice(latitude, longitude):
    """Return longitude and latitude of starts between the points of the grid."""
    north, east = np.meshgrid(np.arange(latitude[2], latitude[-2], 0.61), np.arange(longitude[2], longitude[-2], 0.61))
    return np.column_stack([east.ravel(), north.ravel()]) + 0.017


def theirs(dataset, start):
    fields = {name: dataset[long] for name, long in NAMES.items()}
    grid = parcels.convert.copernicusmarine_to_sgrid(fields=fields)
    fieldset = parcels.FieldSet.from_sgrid_conventions(grid, mesh="spherical", skip_field_data_validation=True)
    particle = parcels._core.particle.get_default_particle(np.float64)
    drifters = parcels.ParticleSet(fieldset, pclass=particle, x=start[:, 0], y=start[:, 1], z=np.zeros(len(start)))
    drifters.execute(parcels.kernels.AdvectionRK4, dt=STEP_S, runtime=DAYS * 86_400.0, verbose_progress=False)
    return np.column_stack([drifters.x, drifters.y])


def ours(dataset, start):
    field = torch.from_numpy(np.stack([dataset[name].values for name in NAMES.values()]))
    time_s = 86_400.0 * torch.arange(DAYS + 1)
    axes = (torch.tensor(dataset[name].values) for name in ("lat", "lon"))
    path, aground = advect(field, time_s, *axes, torch.from_numpy(start), step_s=STEP_S, record_s=STEP_S)
    return path.numpy(), aground.numpy()


def near_land(dataset, path):
    """Return which paths come within a cell and a half of a dry point, or leave the grid."""
    spacing = float(dataset.lat[1] - dataset.lat[0])
    wet = np.isfinite(dataset[NAMES["U"]].values).all(0)
    near = ~np.isfinite(path).all((1, 2))
    for row, column in np.argwhere(~wet):
        away = np.maximum(abs(path[..., 0] - float(dataset.lon[column])), abs(path[..., 1] - float(dataset.lat[row])))
        near |= (away < 1.5 * spacing).any(1)
    return near


def main(path):
    """Print the largest separation in metres, and return it."""
    dataset = xr.open_dataset(path).isel(time=slice(FIRST, FIRST + DAYS + 1)).load()
    start = lattice(dataset.lat.values, dataset.lon.values)
    followed, _ = ours(dataset, start)
    chosen = ~near_land(dataset, followed)
    found, expected = followed[chosen, -1], theirs(dataset, start[chosen])
    parallel = np.cos(np.radians(found[:, 1]))
    apart = METRES_PER_DEGREE * np.hypot((found[:, 0] - expected[:, 0]) * parallel, found[:, 1] - expected[:, 1])
    moved = METRES_PER_DEGREE * np.hypot((found - start[chosen])[:, 0] * parallel, (found - start[chosen])[:, 1])
    print(f"parcels {parcels.__version__}, {chosen.sum()} of {len(start)} drifters, {DAYS} days, step {STEP_S:g} s")  # noqa: T201
    print(f"displacement: median {np.median(moved) / 1000:.0f} km, largest {moved.max() / 1000:.0f} km")  # noqa: T201
    print(f"separation: largest {np.max(apart):.1e} m")  # noqa: T201
    return np.max(apart)


if __name__ == "__main__":
    sys.exit(not main(sys.argv[1]) <= TOLERANCE_M)
