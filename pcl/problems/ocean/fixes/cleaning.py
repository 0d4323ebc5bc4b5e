"""Cleaning of fixes: what cannot be a drifter's place is left out and counted, with a reason.

Shapes: n fixes.
"""

__all__ = ["Box", "Rules", "cleaned"]

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from pcl.errors import BadInputError
from pcl.problems.ocean.fixes.drifters import without_copies
from pcl.problems.ocean.fixes.fixes import Fixes
from pcl.problems.ocean.fixes.motion import are_carried, are_near, are_still, metres_apart, without_spikes

STILL = "within {:g} m for {:g} hours or more: aground, ashore or moored"
DAY_S = 86_400.0
RECOVERY_S = DAY_S  # from the shore to the end of a track: who recovers a drifter carries it
MOST = 0.5  # of the fixes: then it is no exception
APART_M = 2000.0  # no two positions of one drifter at one time


@dataclass(frozen=True)
class Box:
    """A region: degrees north and degrees east, the western edge first; it may span the date line.

    Example:
        >>> Box(-10.0, 10.0, 170.0, -170.0).holds(np.array([0.0, 0.0]), np.array([539.0, 160.0]))
        array([ True, False])
    """

    south: float
    north: float
    west: float
    east: float

    def __post_init__(self) -> None:
        if not (-90 <= self.south < self.north <= 90 and self.width > 0):
            raise BadInputError(
                f"box [{self.south:g}, {self.north:g}, {self.west:g}, {self.east:g}]: give the southern, northern, "
                "western and eastern edge, degrees, the southern below the northern"
            )

    @property
    def width(self) -> float:
        """Degrees of longitude from the western edge to the eastern one."""
        return (self.east - self.west) % 360 or (360.0 if self.east != self.west else 0.0)

    def turned(self, longitude: np.ndarray) -> np.ndarray:
        """Return longitudes on the turn that begins half of what is outside before the western edge."""
        before = (360 - self.width) / 2
        turned: np.ndarray = self.west - before + (longitude - self.west + before) % 360
        return turned

    def holds(self, latitude: np.ndarray, longitude: np.ndarray) -> np.ndarray:
        """Return where places are within, shape (n,)."""
        east = (longitude - self.west) % 360
        found: np.ndarray = (latitude >= self.south) & (latitude <= self.north) & (east <= self.width)
        return found


@dataclass(frozen=True)
class Rules:
    """What a fix must obey.

    Attributes:
        box: that it lies in; None: anywhere.
        archive: the region of which currents are known; None: everywhere.
        first_s: seconds since 1970-01-01 UTC that it is not before; None: any.
        last_s: likewise that it is not after.
        fastest_m_s: a drifter is not faster from one fix to the next,
        position_error_m: but for so many metres, which the errors of two positions are at most.
        needs_drogue: whether fixes after the drogue was lost are left out, where that is known.
        is_land: of latitudes and longitudes, which places are known to be land; None: nothing is known.
        still_m: a drifter that stays within so many metres
        still_s: for so many seconds, by four fixes at least, is aground, ashore or moored.
        near_km: drifters that no chain of fixes so far apart leads to are in another sea.
    """

    box: Box | None = None
    archive: Box | None = None
    first_s: float | None = None
    last_s: float | None = None
    fastest_m_s: float = 3.0
    position_error_m: float = 100.0
    needs_drogue: bool = True
    is_land: Callable[[np.ndarray, np.ndarray], np.ndarray] | None = None
    still_m: float = 50.0
    still_s: float = 21_600.0
    near_km: float = 500.0


def cleaned(fixes: Fixes, rules: Rules) -> Fixes:
    """Return fixes sorted by drifter and time, each once, without what cannot be; ``left`` counts the others.

    Args:
        fixes: as read.
        rules: see there.

    Raises:
        BadInputError: latitude and longitude are exchanged, or nothing is left.
    """
    number = len(fixes)
    fixes = _placed(fixes, rules)
    if rules.is_land is not None and len(fixes):
        fixes = fixes.only(~rules.is_land(fixes.latitude, fixes.longitude), "on land")
    if rules.needs_drogue and fixes.drogued is not None:
        fixes = fixes.only(fixes.drogued, "the drogue was lost")
    fixes = without_copies(_each_once(fixes))
    fixes = without_spikes(fixes, rules.fastest_m_s, rules.position_error_m)
    still = are_still(fixes, rules.still_m, rules.still_s)
    carried = are_carried(fixes, still, RECOVERY_S)[~still]
    fixes = fixes.only(~still, STILL.format(rules.still_m, rules.still_s / 3600))
    fixes = fixes.only(~carried, "carried away after that, to the end of the track")
    if rules.box is None and rules.archive is None:
        fixes = fixes.only(are_near(fixes, rules.near_km), f"further than {rules.near_km:g} km from most drifters")
    _, which, counts = np.unique(fixes.name, return_inverse=True, return_counts=True)
    fixes = fixes.only(counts[which] > 1, "the only fix of a drifter")
    if not len(fixes):
        reasons = "; ".join(f"{left.number:,}: {left.reason}" for left in fixes.left)
        raise BadInputError(f"none of {number:,} fixes is left ({reasons}): check the box, the times and the columns")
    return fixes


def _placed(fixes: Fixes, rules: Rules) -> Fixes:
    """Leave out fixes without a place, a time or a drifter, and those outside the box and the time."""
    known = np.isfinite(fixes.time_s) & np.isfinite(fixes.latitude) & np.isfinite(fixes.longitude) & (fixes.name != "")
    fixes = fixes.only(known, "no time, no place or no drifter")
    on_earth = (np.abs(fixes.latitude) <= 90) & (np.abs(fixes.longitude) <= 720)
    if len(fixes) and (~on_earth).mean() > MOST and (np.abs(fixes.longitude) <= 90).mean() > MOST:
        raise BadInputError(
            "most latitudes are beyond 90 degrees and longitudes are not: they are exchanged, name them right"
        )
    if len(fixes) and (~on_earth).mean() > MOST:
        first = int(np.flatnonzero(~on_earth)[0])
        raise BadInputError(
            f"most places, such as latitude {fixes.latitude[first]:g} and longitude {fixes.longitude[first]:g}, are "
            "none on the Earth: write decimal degrees, and name the columns right"
        )
    fixes = fixes.only(on_earth, "no place on the Earth")
    away = (fixes.latitude != 0) | (fixes.longitude != 0)
    fixes = fixes.only(away, "latitude and longitude zero, which receivers give that have no fix")
    for box, of in ((rules.box, "the box"), (rules.archive, "the region of the archive")):
        fixes = fixes if box is None else _within(fixes, box, of)
    if rules.first_s is not None:
        fixes = fixes.only(fixes.time_s >= rules.first_s, "before the time")
    if rules.last_s is not None:
        fixes = fixes.only(fixes.time_s <= rules.last_s, "after the time")
    return fixes


def _within(fixes: Fixes, box: Box, of: str) -> Fixes:
    inside = box.holds(fixes.latitude, fixes.longitude)
    if len(fixes) and not inside.any() and box.holds(fixes.longitude, fixes.latitude).mean() > MOST:
        raise BadInputError(
            f"no fix is in {of}, and most would be with latitude and longitude exchanged: name the columns right"
        )
    return fixes.only(inside, f"outside {of}")


def _each_once(fixes: Fixes) -> Fixes:
    """Sort by drifter and time, and leave out what is there again; of two places at one time the first counts."""
    # places break ties, so that the order of a file's rows does not matter
    order = np.lexsort((fixes.longitude % 360, fixes.latitude, fixes.time_s, fixes.name))
    fixes = fixes[order]
    same = np.r_[False, (fixes.name[1:] == fixes.name[:-1]) & (fixes.time_s[1:] == fixes.time_s[:-1])]
    elsewhere = same & np.r_[False, (np.diff(fixes.latitude) != 0) | (np.diff(fixes.longitude) != 0)]
    if len(fixes) and elsewhere.mean() > MOST and not (fixes.time_s % DAY_S).any():
        raise BadInputError(
            "all times are days, and most fixes of a drifter share one with others: the time of day is missing, name "
            "a column that has both with tracks.time=NAME"
        )
    if len(fixes) and _share_elsewhere(fixes, same) > MOST:
        raise BadInputError(
            "at most of its times a drifter is at two places or more: their names do not part drifters, name a column "
            "that does with tracks.drifter=NAME"
        )
    return fixes.only(~same, "there again, or another place at the same time")


def _share_elsewhere(fixes: Fixes, same: np.ndarray) -> float:
    """Return the share of the times of drifters at which one is at places too far apart to be one, of sorted fixes."""
    again = np.flatnonzero(same)
    far = again[metres_apart(fixes, again - 1, again) > APART_M]
    moment = np.cumsum(~same)
    return len(np.unique(moment[far])) / int(moment[-1])
