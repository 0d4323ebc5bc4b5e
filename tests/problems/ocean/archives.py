"""Small archives of currents that tests write, in the many ways in which products write them."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import xarray as xr

DAY_S = 86_400.0


@dataclass
class Archive:
    """Currents in thousandths of m/s, as whole numbers: every encoding can hold them exactly."""

    thousandths: np.ndarray  # (2, T, Y, X) int16
    water: np.ndarray  # (T, Y, X)
    latitude: np.ndarray
    longitude: np.ndarray
    time_s: np.ndarray = field(default_factory=lambda: np.empty(0))

    @property
    def currents(self):
        """Return float32 m/s, NaN on land, shape (2, T, Y, X)."""
        return np.where(self.water, self.thousandths * 0.001, np.nan).astype(np.float32)


def make_archive(days=60, rows=25, columns=33, seed=0, speed=400):
    """Return eddies that drift west, with an island and a coast."""
    latitude, longitude = 30 + 0.25 * np.arange(rows), -20 + 0.25 * np.arange(columns)
    time, north, east = np.meshgrid(np.arange(days), latitude, longitude, indexing="ij")
    generator = np.random.default_rng(seed)
    fields = np.zeros((2, days, rows, columns))
    for _ in range(6):
        a, b, c = generator.normal(size=3)
        phase = 2 * np.pi * (generator.random() + a * east / 3 + b * north / 3 + 0.05 * c * time)
        fields += np.stack([-b * np.cos(phase), a * np.cos(phase)])
    fields += 0.2 * generator.normal(size=fields.shape)
    water = np.ones((days, rows, columns), bool)
    water[:, 9:12, 10:14] = False
    water[:, :, columns - 5 :] &= (east - north / 4 < east.max() - 8.5)[:, :, columns - 5 :]
    return Archive(np.round(fields * speed / 2).astype(np.int16), water, latitude, longitude, time[:, 0, 0] * DAY_S)


def write_archive(
    path, archive, *, values=None, attributes=None, encoding=None, order=1, longitude=None, times=slice(None)
):
    """Write NetCDF, or Zarr where the name ends so; values default to float32 m/s with NaN on land."""
    values = archive.currents if values is None else values
    names = {"uo": "eastward_sea_water_velocity", "vo": "northward_sea_water_velocity"}
    attributes = {"units": "m s-1"} | (attributes or {})
    variables: dict[str, Any] = {
        name: (("time", "latitude", "longitude"), component[times, ::order], attributes | {"standard_name": standard})
        for (name, standard), component in zip(names.items(), values, strict=True)
    }
    coordinates = {
        "time": ("time", archive.time_s[times], {"units": "seconds since 2000-01-01", "calendar": "standard"}),
        "latitude": ("latitude", archive.latitude[::order], {"units": "degrees_north"}),
        "longitude": ("longitude", archive.longitude if longitude is None else longitude, {"units": "degrees_east"}),
    }
    dataset = xr.Dataset(variables, coordinates, {"title": "a test", "license": "none needed"})
    options = {name: encoding or {} for name in names}
    if str(path).endswith(".zarr"):
        dataset.to_zarr(path, encoding=options, consolidated=False)
    else:
        dataset.to_netcdf(path, engine="netcdf4", encoding=options)
    return path
