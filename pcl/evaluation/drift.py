"""Drifters released in estimated windows, all at once.

Shapes: Q windows, D drifters, P records, T times, H x W grid points.
"""

__all__ = ["drift", "release_points"]

import math

import torch
from torch import Tensor

from pcl.advection import integrate
from pcl.evaluation.interpolation import interpolate
from pcl.evaluation.windows import LATITUDE, Geometry
from pcl.sphere import METRES_PER_DEGREE

LONGEST_STEP_S = 10800.0  # an eighth of a day: fields are at most daily


def release_points(geometry: Geometry, per_side: int = 4) -> Tensor:
    """Return a regular grid of places inside a tile, degrees east and north of its centre, shape (per_side^2, 2)."""
    rows, columns = geometry.cell_degrees
    inside = (torch.arange(per_side, dtype=torch.float64) + 0.5) / per_side - 0.5
    north, east = torch.meshgrid(inside * rows * geometry.height, inside * columns * geometry.width, indexing="ij")
    return torch.stack([east.flatten(), north.flatten()], -1)


def drift(fields: Tensor, origins: Tensor, geometry: Geometry, start: Tensor) -> Tensor:
    """Follow drifters through windows, from the first field to the last.

    Land has no current of its own here, the water beside it goes on; so does the edge of the tile beyond the tile. A
    drifter that comes to where there is no water around is aground and stays: it must not drop out of the scores.

    Args:
        fields: velocity in m/s, NaN where there is no water, shape (Q, 2, T, H, W).
        origins: of the windows, shape (Q, 6).
        geometry: of the tiles.
        start: degrees east and north of the centres, shape (D, 2).

    Returns:
        Degrees east and north of the centres, float64, shape (Q, D, P, 2); NaN for drifters that start without water
        around.
    """
    duration_s = float(geometry.time_s[-1] - geometry.time_s[0])
    substeps = math.ceil(geometry.record_s / min(LONGEST_STEP_S, _seconds_in_a_cell(fields, origins, geometry)))
    num_steps = round(duration_s / geometry.record_s) * substeps
    centre = origins[:, LATITUDE, None]
    fields = fields.double()

    def current(time_s: float, place: Tensor) -> Tensor:
        east, north = place.unbind(-1)
        index = geometry.index(torch.full_like(east, time_s), east, north)
        metre = METRES_PER_DEGREE * torch.cos(torch.deg2rad(centre + north))
        eastward, northward = interpolate(fields, index).unbind(1)
        return torch.stack([eastward / metre, northward / METRES_PER_DEGREE], -1)

    places = start.double().expand(len(fields), *start.shape).clone()

    def velocity(time_s: float, place: Tensor) -> Tensor:
        return current(time_s, place).nan_to_num()

    first_s = float(geometry.time_s[0])
    dry = current(first_s, places).isnan().any(-1)
    path = integrate(velocity, places, first_s, geometry.record_s / substeps, num_steps, substeps)
    return path.movedim(0, -2).masked_fill(dry[..., None, None], torch.nan)


def _seconds_in_a_cell(fields: Tensor, origins: Tensor, geometry: Geometry) -> float:
    """Return how long the fastest current of all windows takes to cross a cell: a step must not be longer."""
    rows, columns = geometry.cell_degrees
    cosine = torch.cos(torch.deg2rad(origins[:, LATITUDE].abs().max()))
    fastest = fields.nan_to_num().abs().max().clamp(min=1e-6)
    return float(METRES_PER_DEGREE * min(rows, columns * float(cosine)) / fastest)
