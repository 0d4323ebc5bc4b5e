"""Velocities that drifters measured, as a prior of currents takes them.

Shapes: n measurements, D drifters, P recorded positions.
"""

__all__ = ["EVERY", "Measurements", "measurements_of", "of_pieces"]

from dataclasses import dataclass, fields

import torch
from torch import Tensor

from pcl.problems.ocean.contract import Origin
from pcl.problems.ocean.evaluation.windows import Geometry
from pcl.problems.ocean.fixes.pieces import Pieces
from pcl.problems.ocean.tracks import track_pieces

EVERY, LONGEST = 0.5, 1.0  # duration of a piece, in units of ``Geometry.scale_s``


@dataclass(frozen=True, eq=False)
class Measurements:
    """Mean velocities along pieces of tracks: float64.

    Attributes:
        velocity: m/s, east and north, shape (n, 2).
        latitude: of the middle, degrees north, shape (n,).
        longitude: likewise, degrees east.
        time_s: of the middle, seconds since 1970-01-01, shape (n,).
        duration_s: shape (n,).
        variance: of what is known of the error of each component, such as the noise of positions, m^2 s^-2,
            shape (n,); what motion a map does not resolve, a prior learns.
    """

    velocity: Tensor
    latitude: Tensor
    longitude: Tensor
    time_s: Tensor
    duration_s: Tensor
    variance: Tensor

    def __len__(self) -> int:
        return len(self.time_s)

    def __getitem__(self, index: Tensor | slice) -> "Measurements":
        return Measurements(*(getattr(self, part.name)[index] for part in fields(self)))


def measurements_of(v: Tensor, origin: Tensor, geometry: Geometry) -> Measurements:
    """Return what the drifters of a pair measured: pieces of half a day, shorter in windows of hours.

    Args:
        v: as stored, shape (D, P, 4).
        origin: of the pair, shape (6,).
        geometry: of the tiles.
    """
    place = Origin.of(origin.double())
    stride = min(max(1, round(EVERY * geometry.scale_s / geometry.record_s)), v.shape[-2] - 1)
    longest = max(stride, round(LONGEST * geometry.scale_s / geometry.record_s))
    pieces = track_pieces(v.double(), geometry.record_s, stride, longest)
    kept = pieces.valid
    middle, duration_s = pieces.middle[kept], pieces.duration_s.expand(kept.shape)[kept].double()
    return Measurements(
        pieces.velocity[kept],
        place.latitude + middle[:, 1],
        place.longitude + middle[:, 0],
        place.release_s + pieces.time_s.expand(kept.shape)[kept],
        duration_s,
        torch.zeros_like(duration_s),
    )


def of_pieces(pieces: Pieces) -> Measurements:
    """Return pieces of real tracks as measurements."""
    parts = (getattr(pieces, part.name) for part in fields(Measurements))
    return Measurements(*(torch.as_tensor(part, dtype=torch.float64) for part in parts))
