"""Drifters released in estimated windows, all at once.

Shapes: Q windows, D drifters, P records, T times, H x W grid points.
"""

__all__ = ["drift", "fastest_current", "release_points", "unknown_current"]

import math

import torch
from torch import Tensor

from pcl.advection import integrate
from pcl.evaluation.blocks import Items, walk
from pcl.problems.ocean.contract import Origin
from pcl.problems.ocean.evaluation.interpolation import Interpolator, interpolate
from pcl.problems.ocean.evaluation.windows import Geometry
from pcl.problems.ocean.sphere import METRES_PER_DEGREE
from pcl.problems.ocean.tiles import DAY_S

STEPS = 8  # at least, from a field to the next, and in a day


def release_points(geometry: Geometry, per_side: int = 4) -> Tensor:
    """Return a regular grid of places inside a tile, degrees east and north of its centre, shape (per_side^2, 2)."""
    rows, columns = geometry.cell_degrees
    inside = (torch.arange(per_side, dtype=torch.float64) + 0.5) / per_side - 0.5
    north, east = torch.meshgrid(inside * rows * geometry.height, inside * columns * geometry.width, indexing="ij")
    return torch.stack([east.flatten(), north.flatten()], -1)


def fastest_current(*fields: Items) -> float:
    """Return the largest component of all velocities, m/s; what is missing is left out."""
    return max((float(block.nan_to_num().abs().max()) for part in fields for _, block in walk(part)), default=0.0)


def drift(fields: Tensor, origins: Tensor, geometry: Geometry, start: Tensor, fastest: float | None = None) -> Tensor:
    """Follow drifters through windows, from the first field to the last.

    Land has no current of its own here, the water beside it goes on; so does the edge of the tile beyond the tile. A
    drifter that comes to where there is no water around is aground and stays: it must not drop out of the scores.

    Args:
        fields: velocity in m/s, NaN where there is no value, shape (Q, 2, T, H, W).
        origins: of the windows, shape (Q, 6).
        geometry: of the tiles.
        start: degrees east and north of the centres, shape (D, 2).
        fastest: m/s; in a step it goes no further than a cell. None: that of the fields.

    Returns:
        Degrees east and north of the centres, float64, shape (Q, D, P, 2); NaN for drifters that start without water
        around.
    """
    cell_s = _seconds_in_a_cell(fastest_current(fields) if fastest is None else fastest, origins, geometry)
    substeps = math.ceil(geometry.record_s / min(DAY_S / STEPS, geometry.interval_s / STEPS, cell_s))
    num_steps = round(geometry.duration_s / geometry.record_s) * substeps
    centre = Origin.of(origins).latitude[:, None]
    interpolator = Interpolator(fields)

    def current(time_s: float, place: Tensor) -> Tensor:
        east, north = place.unbind(-1)
        index = geometry.index(torch.full_like(east, time_s), east, north)
        metre = METRES_PER_DEGREE * torch.cos(torch.deg2rad(centre + north))
        eastward, northward = interpolator(index).double().unbind(1)
        return torch.stack([eastward / metre, northward / METRES_PER_DEGREE], -1)

    places = start.double().expand(len(fields), *start.shape).clone()

    def velocity(time_s: float, place: Tensor) -> Tensor:
        return current(time_s, place).nan_to_num()

    first_s = float(geometry.time_s[0])
    dry = current(first_s, places).isnan().any(-1)
    path = integrate(velocity, places, first_s, geometry.record_s / substeps, num_steps, substeps)
    return path.movedim(0, -2).masked_fill(dry[..., None, None], torch.nan)


def _seconds_in_a_cell(fastest: float, origins: Tensor, geometry: Geometry) -> float:
    """Return how long a current takes to cross a cell: a step must not be longer."""
    rows, columns = geometry.cell_degrees
    cosine = torch.cos(torch.deg2rad(Origin.of(origins).latitude.abs().max()))
    return METRES_PER_DEGREE * min(rows, columns * float(cosine)) / max(fastest, 1e-6)


def unknown_current(fields: Tensor, wet: Tensor, paths: Tensor, geometry: Geometry) -> Tensor:
    """Tell where drifters are in water without a value, shape (Q, D, P): nobody knows where they go from there.

    Args:
        fields: velocity in m/s, NaN where there is no value, shape (Q, 2, T, H, W).
        wet: where there is water, shape (Q, T, H, W).
        paths: degrees east and north of the centres, shape (Q, D, P, 2).
        geometry: of the tiles.
    """
    time_s = geometry.record_s * torch.arange(paths.shape[2], dtype=torch.float64)
    index = geometry.index(time_s.expand(paths.shape[:-1]), *paths.unbind(-1)).flatten(1, 2)
    water = torch.where(wet, 1.0, torch.nan)[:, None].to(fields)
    current, near = interpolate(fields, index), interpolate(water, index)
    return (current.isnan().any(1) & ~near.isnan()[:, 0]).reshape(paths.shape[:-1])
