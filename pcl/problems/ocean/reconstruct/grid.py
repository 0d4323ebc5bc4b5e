"""Where and when a map of currents is made: a regular grid around the tracks, at regular times.

Shapes: T times, H latitudes, W longitudes.
"""

__all__ = ["MapGrid", "clipped", "map_grid", "region_of"]

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from pcl.errors import BadInputError
from pcl.problems.ocean.fixes.cleaning import Box
from pcl.problems.ocean.fixes.fixes import Fixes
from pcl.problems.ocean.sphere import METRES_PER_DEGREE

KM = METRES_PER_DEGREE / 1000
STEPS_DEGREES = tuple(m * 10.0**e for e in range(-4, 2) for m in (1.0, 2.0, 2.5, 5.0))
STEPS_HOURS = (0.25, 0.5, 1, 2, 3, 4, 6, 8, 12, 18, 24, 36, 48, 72, 96, 120, 168, 336, 672)
WIDEST = 60.0  # degrees of a region: its plane is no longer one
MARGIN = 0.1
SMALLEST_KM = 5.0  # of a margin, and of a region


@dataclass(frozen=True)
class MapGrid:
    """Points and times of a map.

    Attributes:
        latitude: degrees north, increasing, shape (H,).
        longitude: degrees east, increasing, shape (W,).
        time_s: seconds since 1970-01-01 UTC, increasing, shape (T,).
    """

    latitude: np.ndarray
    longitude: np.ndarray
    time_s: np.ndarray

    @property
    def shape(self) -> tuple[int, int, int]:
        """T, H, W."""
        return len(self.time_s), len(self.latitude), len(self.longitude)

    @property
    def centre(self) -> tuple[float, float]:
        """Latitude and longitude of the middle, degrees."""
        return float(self.latitude[[0, -1]].mean()), float(self.longitude[[0, -1]].mean())

    @cached_property
    def places(self) -> tuple[Tensor, Tensor]:
        """Latitude and longitude of every point, shape (H W,) each."""
        both = np.meshgrid(self.latitude, self.longitude, indexing="ij")
        north, east = (torch.from_numpy(one.ravel()) for one in both)
        return north, east


def region_of(fixes: Fixes, margin_km: float | None) -> Box:
    """Return the box around fixes, with a margin.

    Args:
        fixes: cleaned.
        margin_km: None: a tenth of the larger extent.

    Example:
        >>> fixes = Fixes(np.array(["a", "a"]), np.zeros(2), np.array([0.0, 1.0]), np.array([179.5, -179.5]))
        >>> region_of(fixes, 55.56)
        Box(south=-0.5, north=1.5, west=178.999981, east=181.000019)
    """
    latitude, longitude = fixes.latitude, np.deg2rad(fixes.longitude)
    middle = np.rad2deg(np.angle(np.exp(1j * longitude).mean()))
    east = middle + (fixes.longitude - middle + 180) % 360 - 180
    cosine = max(math.cos(math.radians(float(latitude.mean()))), 0.02)
    extent = max(np.ptp(latitude) * KM, np.ptp(east) * KM * cosine)
    margin = max(MARGIN * extent, SMALLEST_KM) if margin_km is None else margin_km
    south, north = float(latitude.min()) - margin / KM, float(latitude.max()) + margin / KM
    west, east_edge = float(east.min()) - margin / KM / cosine, float(east.max()) + margin / KM / cosine
    return Box(max(round(south, 6), -90.0), min(round(north, 6), 90.0), round(west, 6), round(east_edge, 6))


def clipped(box: Box, within: Box) -> Box:
    """Return what two boxes share, on the turn of the second.

    Example:
        >>> clipped(Box(-10.0, 10.0, 350.0, 370.0), Box(-5.0, 90.0, -5.0, 60.0))
        Box(south=-5.0, north=10.0, west=-5.0, east=10.0)
    """
    south, north = max(box.south, within.south), min(box.north, within.north)
    if within.width >= 360:
        return Box(south, north, box.west, box.east)
    start = float(within.turned(np.array([box.west + box.width / 2]))[0]) - box.width / 2
    west, east = max(start, within.west), min(start + box.width, within.west + within.width)
    return Box(south, north, round(west, 6), round(east, 6))


def map_grid(box: Box, first_s: float, last_s: float, num_points: int, num_times: int) -> MapGrid:
    """Return a grid of round degrees within a box, and round times from the first to the last.

    Args:
        box: of the map.
        first_s: seconds since 1970-01-01 UTC.
        last_s: likewise.
        num_points: along the longer side, at most.
        num_times: at most.

    Raises:
        BadInputError: the box is too wide for one plane, or smaller than a point.

    Example:
        >>> grid = map_grid(Box(54.0, 55.0, 10.0, 12.0), 0.0, 86_400.0, 10, 5)
        >>> grid.latitude.tolist(), grid.longitude[:3].tolist(), grid.time_s.tolist()
        ([54.0, 54.2, 54.4, 54.6, 54.8, 55.0], [10.0, 10.2, 10.4], [0.0, 21600.0, 43200.0, 64800.0, 86400.0])
    """
    if box.width > WIDEST or box.north - box.south > WIDEST:
        raise BadInputError(
            f"the region is {box.north - box.south:.0f} by {box.width:.0f} degrees: it must be {WIDEST:g} at most, "
            "choose a part with --box SOUTH NORTH WEST EAST"
        )
    cosine = max(math.cos(math.radians((box.south + box.north) / 2)), 0.02)
    need = max(box.north - box.south, box.width * cosine) / num_points
    step = next(step for step in STEPS_DEGREES if step >= need)
    across = next(step for step in STEPS_DEGREES if step >= min(need / cosine, WIDEST / 3))
    latitude, longitude = _round(box.south, box.north, step), _round(box.west, box.west + box.width, across)
    if len(latitude) < 2 or len(longitude) < 2:
        raise BadInputError(
            f"the region holds {len(latitude)} by {len(longitude)} points of a map: choose a larger --box"
        )
    hours = (last_s - first_s) / 3600
    every = next((one for one in STEPS_HOURS if hours / one <= max(num_times - 1, 1)), math.ceil(hours / num_times))
    time_s = _round(first_s, last_s, every * 3600)
    if num_times == 1 or not len(time_s):
        time_s = np.array([(first_s + last_s) / 2])
    return MapGrid(latitude, longitude, time_s)


def _round(first: float, last: float, step: float) -> np.ndarray:
    """Return the multiples of a step between two numbers."""
    return np.round(np.arange(math.ceil(first / step - 1e-9), math.floor(last / step + 1e-9) + 1) * float(step), 6)
