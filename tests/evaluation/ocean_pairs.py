"""Small ocean shards: currents of a random streamfunction with a coast, cut and drifted by the real source."""

from pathlib import Path

import numpy as np
import xarray as xr

from pcl.config import load_config
from pcl.data.manifest import Manifest, load_manifest
from pcl.data.ocean import ocean_source
from pcl.data.shards import begin_build, build_shard, finish_build, plan_shards

ROOT = Path(__file__).resolve().parents[2]
ROWS, COLUMNS, STEPS = 12, 16, 60


def currents(seed: int = 0) -> xr.Dataset:
    """Daily eddies that turn and drift on a grid of a quarter of a degree, with land in the north-west."""
    generator = np.random.default_rng(seed)
    latitude, longitude = -36 + 0.25 * np.arange(ROWS), 14 + 0.25 * np.arange(COLUMNS)
    y, x = np.meshgrid(np.arange(ROWS), np.arange(COLUMNS), indexing="ij")
    day = np.arange(STEPS)[:, None, None]
    u, v = np.zeros((2, STEPS, ROWS, COLUMNS))
    for _ in range(12):
        k, m = generator.normal(size=2) * 0.5
        frequency, phase = generator.normal() * 0.3, generator.uniform(0, 2 * np.pi)
        slope = 0.25 * np.cos(k * x + m * y + frequency * day + phase)
        u, v = u - m * slope, v + k * slope  # of psi = sin / 4: -dpsi/dy, dpsi/dx
    dry = (x < 4) & (y > 7)
    u, v = (np.where(dry, np.nan, part).astype(np.float32) for part in (u, v))
    names = {"u": "eastward_sea_water_velocity", "v": "northward_sea_water_velocity"}
    grid = ("time", "latitude", "longitude")
    return xr.Dataset(
        {name: (grid, part, {"units": "m s-1", "standard_name": names[name]}) for name, part in (("u", u), ("v", v))},
        {
            "time": ("time", np.arange(STEPS), {"units": "days since 2002-01-01", "calendar": "standard"}),
            "latitude": ("latitude", latitude, {"units": "degrees_north", "standard_name": "latitude"}),
            "longitude": ("longitude", longitude, {"units": "degrees_east", "standard_name": "longitude"}),
        },
    )


def make_ocean_shards(folder: Path, *overrides: str) -> tuple[Path, Manifest]:
    """Write a file of currents and shards of it in a folder; return the folder of the shards and their manifest."""
    path = folder / "currents.nc"
    currents().to_netcdf(path)
    small = ("tile_points=8", "tile_stride=4", "window_steps=4", "window_stride=1", "gap_days=6")
    settings = [f"data.ocean.{key}" for key in small] + ["data.drifters.num_drifters=5", *overrides]
    config = load_config(ROOT / "configs" / "ocean.yaml", [f"data.ocean.paths=[{path}]", *settings])
    source = ocean_source(vars(config.data.ocean), vars(config.data.drifters), seed=0)
    root = folder / "shards"
    begin_build(root, {"config": {}, "source": source.provenance()})
    built = [(plan, *build_shard(source, plan, root, 16)) for plan in plan_shards(source, 2)]
    finish_build(root, source, {}, 16, built)
    return root, load_manifest(root)
