"""Small ocean shards: currents of a random streamfunction with a coast, cut and drifted by the real source."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xarray as xr

from pcl.config.load import load_config
from pcl.data.manifest import ArrayInfo, Manifest
from pcl.data.source import Source, SourceContext
from pcl.evaluation.splits import read_arrays
from pcl.problems.ocean.evaluation.windows import Windows
from pcl.problems.ocean.source import ocean_source
from tests.shards import build_shards

ROOT = Path(__file__).resolve().parents[4]
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
    drifters = ("num_drifters=5", "step_s=21600")
    settings = [f"data.ocean.{key}" for key in (*small, *(f"drifters.{key}" for key in drifters))] + [*overrides]
    config = load_config(ROOT / "configs" / "ocean.yaml", [f"data.ocean.paths=[{path}]", *settings])
    source = ocean_source(config.data.sections["ocean"], SourceContext(seed=0))
    root = folder / "shards"
    return root, build_shards(root, source, 2, 16)


HOUR_S = 3600.0


@dataclass
class MadePairs(Source):
    """Pairs made of waves, stored as the source of the ocean stores its own: any tiles, times and holes.

    Attributes:
        num: pairs of each split.
        origins: first row and column of each tile; pairs go through them.
        points: H = W.
        steps: T.
        interval_s: between two fields.
        record_s: between two positions.
        grid: latitude, longitude, ``periodic``.
        holes: probability of a value in water to be missing.
        land: columns of land, in the west of every tile.
        num_drifters: D.
        num_releases: pairs that share a field.
    """

    num: dict[str, int]
    origins: Sequence[tuple[int, int]] = ((0, 0),)
    points: int = 8
    steps: int = 4
    interval_s: float = 24 * HOUR_S
    record_s: float = 6 * HOUR_S
    grid: dict[str, Any] = field(
        default_factory=lambda: {
            "latitude": (-36 + 0.25 * np.arange(24)).tolist(),
            "longitude": (14 + 0.25 * np.arange(24)).tolist(),
            "cell_degrees": [0.25, 0.25],
        }
    )
    holes: float = 0.0
    land: int = 2
    num_drifters: int = 5
    num_releases: int = 1
    split_rule: str = "none"

    @property
    def num_records(self):
        return 1 + round((self.steps - 1) * self.interval_s / self.record_s)

    @property
    def arrays(self):
        window = (self.steps, self.points, self.points)
        return {
            "u": ArrayInfo("float32", (2, *window), "m s-1", "currents", statistics="channel"),
            "wet": ArrayInfo("uint8", window, "1", "water", statistics="none"),
            "v": ArrayInfo("float32", (self.num_drifters, self.num_records, 4), "degree", "drifters", 1.0, "none"),
            "origin": ArrayInfo("float64", (6,), "1", "origin", statistics="none"),
        }

    def provenance(self):
        about = {
            "record_s": self.record_s,
            "window_time_s": [self.interval_s * step for step in range(self.steps)],
            "cell_degrees": self.grid["cell_degrees"],
            "height": self.points,
            "width": self.points,
        }
        return {"name": "ocean", "licence": "none", "calendar": "standard", "grid": self.grid, "drifters": about}

    def num_pairs(self, split):
        return self.num[split]

    def statistics(self):
        return {"u": {"mean": np.zeros((2, 1, 1, 1)).tolist(), "std": np.full((2, 1, 1, 1), 0.2).tolist()}}

    def centre(self, row, column):
        longitude, latitude = np.array(self.grid["longitude"]), np.array(self.grid["latitude"])
        half = (self.points - 1) / 2 * np.array(self.grid["cell_degrees"])
        return longitude[column] + half[1], latitude[row] + half[0]

    def pairs(self, split, start, stop):
        made = [self.pair(split, number) for number in range(start, stop)]
        return {name: np.stack([pair[name] for pair in made]).astype(info.dtype) for name, info in self.arrays.items()}

    def pair(self, split, number):
        window = number // self.num_releases
        own, releases = (
            np.random.default_rng([split == "test", kind, seed]) for kind, seed in ((0, window), (1, number))
        )
        t, y, x = np.meshgrid(*(np.arange(n) for n in (self.steps, self.points, self.points)), indexing="ij")
        k, m, frequency, phase = (
            own.normal(size=(4, 3, 1, 1, 1)) * np.array([0.5, 0.5, 0.3, 3.0])[:, None, None, None, None]
        )
        slope = 0.3 * np.cos(k * x + m * y + frequency * t + phase)
        u = np.stack([-(m * slope).sum(0), (k * slope).sum(0)])
        wet = np.broadcast_to(x >= self.land, t.shape)
        u[:, ~wet | (own.uniform(size=t.shape) < self.holes)] = np.nan
        row, column = self.origins[window % len(self.origins)]
        longitude, latitude = self.centre(row, column)
        place = releases.uniform(-0.5, 0.5, (self.num_drifters, 1, 2)) * self.points * self.grid["cell_degrees"][0]
        steps = releases.normal(size=(self.num_drifters, self.num_records - 1, 2)) * 0.02
        path = np.concatenate([place, place + steps.cumsum(1)], 1)
        v = np.concatenate([path, path[..., 1:] + latitude, np.zeros_like(path[..., :1])], -1)
        origin = [1e9 + self.interval_s * window, longitude, latitude, row, column, window // len(self.origins)]
        return {"u": u, "wet": wet, "v": v, "origin": np.array(origin)}


def write_pairs(source: MadePairs, root: Path, num_shards: int = 2, record_pairs: int = 16) -> Manifest:
    """Write shards of made pairs."""
    config = {"ocean": {"drifters": {"num_releases": source.num_releases}}}
    return build_shards(root, source, num_shards, record_pairs, config)


def read_windows(root: Path, manifest: Manifest, split: str, *, unique: bool = False) -> Windows:
    """Read a split, or the first pair of every tile and time in it."""
    pairs = torch.arange(manifest.num_pairs(split))
    found = read_arrays(root, manifest, split, dict.fromkeys(("u", "v", "wet", "origin"), pairs))
    windows = Windows(**found | {"wet": found["wet"].bool()})
    seen = [tuple(origin[3:].tolist()) for origin in windows.origin]
    return windows[torch.tensor([i for i in pairs.tolist() if not unique or seen.index(seen[i]) == i])]
