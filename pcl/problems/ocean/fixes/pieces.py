r"""Velocities between fixes: the displacement of a piece of a track over its time, and how exact that is.

Shapes: n pieces.
"""

__all__ = ["Pieces", "pieces_of"]

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from pcl.problems.ocean.fixes.fixes import Fixes
from pcl.problems.ocean.sphere import METRES_PER_DEGREE


@dataclass(frozen=True, eq=False)
class Pieces:
    """Mean velocities along pieces of tracks.

    Attributes:
        name: of the drifter, shape (n,).
        velocity: m/s, east and north, shape (n, 2).
        latitude: of the middle, degrees, shape (n,).
        longitude: likewise.
        time_s: of the middle, seconds since 1970-01-01 UTC, shape (n,).
        duration_s: shape (n,).
        variance: of the error of each component as a velocity of the current, m^2 s^-2, shape (n,).
    """

    name: np.ndarray
    velocity: np.ndarray
    latitude: np.ndarray
    longitude: np.ndarray
    time_s: np.ndarray
    duration_s: np.ndarray
    variance: np.ndarray

    def __len__(self) -> int:
        return len(self.time_s)

    def __getitem__(self, index: Any) -> "Pieces":
        return Pieces(*(getattr(self, part)[index] for part in self.__dataclass_fields__))


def pieces_of(
    fixes: Fixes,
    *,
    every_s: float,
    longest_s: float,
    position_error_m: float = 10.0,
    unresolved_m_s: float = 0.05,
) -> Pieces:
    r"""Return velocities of pieces of tracks: from a fix to the first one that is late enough.

    .. math:: w = \frac{x_1 - x_0}{t_1 - t_0}, \qquad
        \operatorname{var} w = \frac{2 \varepsilon^2}{(t_1 - t_0)^2} + \sigma^2

    with :math:`\varepsilon` the error of a position and :math:`\sigma` the motion that a map does not resolve.

    Args:
        fixes: cleaned: sorted by drifter and time, each once.
        every_s: least duration of a piece; what is sampled more often is thinned, for errors of positions would grow.
        longest_s: most of it: a longer one is a gap, over which a mean says little.
        position_error_m: standard deviation of each component of a position.
        unresolved_m_s: standard deviation of each component of the motion that is not the current's.

    Example:
        >>> time_s, latitude = np.array([0.0, 100.0, 1000.0]), np.array([0.0, 0.001, 0.009])
        >>> fixes = Fixes(np.array(["a", "a", "a"]), time_s, latitude, np.zeros(3))
        >>> found = pieces_of(fixes, every_s=600, longest_s=3600)
        >>> found.velocity.round(3).tolist(), found.duration_s.tolist()
        ([[0.0, 1.0]], [1000.0])
    """
    first, last = np.array([*_ends(fixes, every_s, longest_s)], int).reshape(-1, 2).T
    duration = fixes.time_s[last] - fixes.time_s[first]
    east = (fixes.longitude[last] - fixes.longitude[first] + 180) % 360 - 180
    latitude = (fixes.latitude[first] + fixes.latitude[last]) / 2
    north = fixes.latitude[last] - fixes.latitude[first]
    metres = METRES_PER_DEGREE * np.stack([east * np.cos(np.deg2rad(latitude)), north], 1)
    return Pieces(
        fixes.name[first],
        metres / duration[:, None],
        latitude,
        fixes.longitude[first] + east / 2,
        (fixes.time_s[first] + fixes.time_s[last]) / 2,
        duration,
        2 * (position_error_m / duration) ** 2 + unresolved_m_s**2,
    )


def _ends(fixes: Fixes, every_s: float, longest_s: float) -> Iterator[tuple[int, int]]:
    """Yield the first and the last fix of every piece; pieces follow each other without overlap."""
    start = 0
    for i in range(1, len(fixes)):
        if fixes.name[i] != fixes.name[start] or fixes.time_s[i] - fixes.time_s[i - 1] > longest_s:
            start = i
        elif fixes.time_s[i] - fixes.time_s[start] >= every_s:
            if fixes.time_s[i] - fixes.time_s[start] <= longest_s:
                yield start, i
            start = i
