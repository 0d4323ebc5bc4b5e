"""What the motion of drifters tells of their fixes: spikes, standing still, and which are in another sea.

Shapes: n fixes.
"""

__all__ = ["are_carried", "are_near", "are_still", "metres_apart", "without_spikes"]

import itertools
from collections.abc import Iterator

import numpy as np

from pcl.problems.ocean.fixes.fixes import Fixes
from pcl.problems.ocean.sphere import METRES_PER_DEGREE

SOME = 64  # fixes that are looked at together
FEWEST_RIDDEN = 4  # fixes in a row that are left out: fewer are spikes
FEWEST_STILL = 4  # fixes that stay: two of a slow current may be near each other


def without_spikes(fixes: Fixes, fastest_m_s: float, position_error_m: float) -> Fixes:
    """Leave out fixes that a drifter would have to be too fast to reach, from the longest run of its track that is not.

    A track is cut where it is too fast. From its longest run on, forward and backward, every run stays that can be
    reached: a spike, an excursion of several fixes and a bad end are not. Of a ride on a boat some can, where it stops
    or turns back. After a few fixes that are left out, a run stays only if the drifter need not have been faster than
    it ever is in its longest run, and if the run has as many fixes as are left out, or lasts as long as they do.

    Args:
        fixes: sorted by drifter and time, each once.
        fastest_m_s: that a drifter is from one fix to the next,
        position_error_m: but for so many metres.
    """

    def speed(index: np.ndarray, error_m: float) -> np.ndarray:
        apart = np.maximum(metres_apart(fixes, index[:-1], index[1:]) - error_m, 0)
        found: np.ndarray = apart / np.abs(np.diff(fixes.time_s[index]))
        return found

    def lasts(first: int, last: int) -> float:
        return float(np.abs(fixes.time_s[last] - fixes.time_s[first]))

    fast, ridden = np.zeros((2, len(fixes)), bool)
    for start, stop in _tracks(fixes):
        cuts = start + 1 + np.flatnonzero(speed(np.arange(start, stop), position_error_m) > fastest_m_s)
        runs = [np.arange(a, b) for a, b in itertools.pairwise([start, *cuts, stop])]
        longest = int(np.argmax([len(run) for run in runs]))
        own = speed(runs[longest], 0.0).max(initial=0.0) or fastest_m_s
        for direction in (runs[longest:], [run[::-1] for run in runs[longest::-1]]):
            last, lost = direction[0][-1], 0
            for run in direction[1:]:
                needed = speed(np.array([last, run[0]]), position_error_m)[0]
                is_short = len(run) < lost and lasts(run[0], run[-1]) < lasts(last, run[0])
                if needed > fastest_m_s:
                    fast[run] = True
                elif lost >= FEWEST_RIDDEN and (needed > own or is_short):
                    ridden[run] = True
                else:
                    last, lost = run[-1], 0
                    continue
                lost += len(run)
    rest = fixes.only(~fast, f"faster than {fastest_m_s:g} m/s from the rest of the track")
    return rest.only(~ridden[~fast], "on a boat: between such fixes, or after them")


def are_still(fixes: Fixes, within_m: float, least_s: float) -> np.ndarray:
    """Return which fixes belong to a stretch of time in which their drifter stays where it is, shape (n,).

    Args:
        fixes: sorted by drifter and time, each once.
        within_m: from the first fix of the stretch.
        least_s: how long it lasts at least.
    """
    still = np.zeros(len(fixes), bool)
    for start, stop in _tracks(fixes):
        track = np.arange(start, stop)
        later = start + np.searchsorted(fixes.time_s[track], fixes.time_s[track] + least_s)
        may = later < stop
        may[may] = metres_apart(fixes, track[may], later[may]) <= within_m
        for first in track[may]:
            if still[first]:
                continue
            last = _first_away(fixes, int(first), stop, within_m)
            is_long = fixes.time_s[last - 1] - fixes.time_s[first] >= least_s
            still[first:last] |= is_long and last - first >= FEWEST_STILL
    return still


def _first_away(fixes: Fixes, first: int, stop: int, within_m: float) -> int:
    """Return the first fix of a track that is away from another one, its end if there is none."""
    start, size = first, SOME
    while start < stop:  # ever more at a time: what comes back after six hours is away soon
        rest = np.arange(start, min(start + size, stop))
        away = np.flatnonzero(metres_apart(fixes, np.full_like(rest, first), rest) > within_m)
        if len(away):
            return start + int(away[0])
        start, size = start + size, 2 * size
    return stop


def are_carried(fixes: Fixes, still: np.ndarray, most_s: float) -> np.ndarray:
    """Return which fixes follow on lying still, up to the end of a track that comes soon, shape (n,): of a recovery.

    Args:
        fixes: sorted by drifter and time, each once.
        still: which belong to a stretch in which the drifter stays where it is, shape (n,).
        most_s: from the last of these to the end of the track, at most.
    """
    carried = np.zeros(len(fixes), bool)
    for start, stop in _tracks(fixes):
        lying = start + np.flatnonzero(still[start:stop])
        if len(lying) and fixes.time_s[stop - 1] - fixes.time_s[lying[-1]] <= most_s:
            carried[lying[-1] + 1 : stop] = True
    return carried


def are_near(fixes: Fixes, reach_km: float) -> np.ndarray:
    """Return which fixes are of the group with most drifters, shape (n,): all that chains of near fixes lead to.

    Args:
        fixes: of drifters.
        reach_km: that fixes of a group are apart at most, about.
    """
    if not len(fixes):
        return np.zeros(0, bool)
    size = reach_km * 500 / METRES_PER_DEGREE  # degrees of a cell: those that touch, but for one, are within reach
    row = np.floor((fixes.latitude + 90) / size).astype(int)
    cosine = np.maximum(np.cos(np.deg2rad((row + 0.5) * size - 90)), 0.05)
    columns = np.maximum(1, np.round(360 * cosine / size)).astype(int)  # cells of a row
    column = np.floor(fixes.longitude % 360 / 360 * columns).astype(int) % columns
    cells, of_fix = np.unique(np.stack([row, column, columns], 1), axis=0, return_inverse=True)
    group = _groups(cells, size)[of_fix.ravel()]
    _, drifter = np.unique(fixes.name, return_inverse=True)
    weight = {one: (len(np.unique(drifter[group == one])), int((group == one).sum())) for one in np.unique(group)}
    best: np.ndarray = group == max(weight, key=lambda one: weight[one])
    return best


def _groups(cells: np.ndarray, size: float) -> np.ndarray:
    """Number groups of cells that touch, or lie with one between them: rows, columns and columns of the row (c, 3)."""
    latitude = (cells[:, 0] + 0.5) * size
    longitude = (cells[:, 1] + 0.5) * 360 / cells[:, 2]
    group = np.full(len(cells), -1)
    for number in range(len(cells)):
        if group[number] >= 0:
            continue
        edge = [number]
        group[number] = number
        while edge:
            one = edge.pop()
            east = np.abs((longitude - longitude[one] + 180) % 360 - 180) * np.cos(np.deg2rad(latitude - 90))
            near = (group < 0) & (np.abs(latitude - latitude[one]) < 2.5 * size) & (east < 2.5 * size)
            group[near] = number
            edge.extend(np.flatnonzero(near))
    return group


def _tracks(fixes: Fixes) -> Iterator[tuple[int, int]]:
    """Yield where each drifter's fixes begin and end."""
    starts = np.flatnonzero(np.r_[len(fixes) > 0, fixes.name[1:] != fixes.name[:-1]])
    yield from itertools.pairwise([*(int(start) for start in starts), len(fixes)])


def metres_apart(fixes: Fixes, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Return the distance of fixes, by their indices, m."""
    north = fixes.latitude[second] - fixes.latitude[first]
    east = (fixes.longitude[second] - fixes.longitude[first] + 180) % 360 - 180
    middle = np.deg2rad((fixes.latitude[second] + fixes.latitude[first]) / 2)
    apart: np.ndarray = METRES_PER_DEGREE * np.hypot(north, east * np.cos(middle))
    return apart
