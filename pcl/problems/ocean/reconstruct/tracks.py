"""Tracks for a map: read, cleaned, cut into pieces whose velocities count, with what was left out and why."""

__all__ = ["Tracks", "tracks_of", "when"]

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np

from pcl.errors import BadInputError, printable
from pcl.problems.ocean.fixes.cleaning import Box, Rules, cleaned
from pcl.problems.ocean.fixes.fixes import Fixes
from pcl.problems.ocean.fixes.pieces import Pieces, pieces_of
from pcl.problems.ocean.fixes.reading import read_fixes
from pcl.problems.ocean.fixes.times import to_seconds
from pcl.problems.ocean.reconstruct.grid import STEPS_HOURS
from pcl.problems.ocean.reconstruct.settings import TrackSettings

HOUR_S = 3600.0
LEAST_HOURS = 1.0  # of a piece: errors of positions count in shorter ones
MOST_HOURS = 24.0  # of a piece that is chosen here: over longer ones currents change
GAP_PIECES, GAP_INTERVALS = 4, 3  # longer than so many pieces, and so many usual intervals of fixes, is a gap
LONGEST_GAP_HOURS = 168.0  # of what is chosen here


@dataclass(frozen=True, eq=False)
class Tracks:
    """What drifters measured.

    Attributes:
        fixes: that are kept, sorted by drifter and time.
        pieces: of their tracks that count, each with its velocity.
        number: of fixes that were read.
        num_pieces: of all their tracks.
        piece_hours: that a piece takes at least.
        gap_hours: that it takes at most.
    """

    fixes: Fixes
    pieces: Pieces
    number: int
    num_pieces: int
    piece_hours: float
    gap_hours: float

    @property
    def names(self) -> list[str]:
        """The drifters with a piece, sorted."""
        return [str(name) for name in np.unique(self.pieces.name)]

    @cached_property
    def parts(self) -> dict[str, slice]:
        """Where the fixes of each drifter lie."""
        starts = np.flatnonzero(np.r_[len(self.fixes) > 0, self.fixes.name[1:] != self.fixes.name[:-1]])
        ends = [*starts[1:].tolist(), len(self.fixes)]
        return {str(self.fixes.name[i]): slice(i, end) for i, end in zip(starts.tolist(), ends, strict=True)}


def tracks_of(
    paths: Sequence[Path],
    settings: TrackSettings,
    box: Box | None,
    first_s: float | None,
    last_s: float | None,
    is_land: Callable[[np.ndarray, np.ndarray], np.ndarray] | None = None,
    most_pieces: int = 1000,
    archive: Box | None = None,
) -> Tracks:
    """Read and clean tracks, and cut them into pieces.

    Args:
        paths: of the files.
        settings: how they are read, and what counts.
        box: that fixes lie in; None: anywhere near most drifters.
        first_s: seconds since 1970-01-01 UTC that they are not before; None: any.
        last_s: likewise that they are not after.
        is_land: of latitudes and longitudes, which are known to be land.
        most_pieces: that count: of more, some, evenly along the tracks.
        archive: the region of which currents are known; None: everywhere.

    Raises:
        BadInputError: nothing is left, or no two fixes follow each other.
        DamagedDataError: a file cannot be read.
    """
    read = read_fixes(paths, settings.columns, time_units=settings.time_units, time_zone=settings.time_zone)
    rules = Rules(
        box=box,
        archive=archive,
        first_s=first_s,
        last_s=last_s,
        fastest_m_s=settings.fastest_m_s,
        position_error_m=max(100.0, 5 * settings.position_error_m),
        needs_drogue=settings.needs_drogue,
        is_land=is_land,
        still_m=settings.still_m,
        still_s=settings.still_hours * HOUR_S,
        near_km=settings.near_km,
    )
    fixes = cleaned(read, rules)
    piece_hours, gap_hours = _hours(fixes, settings, most_pieces)
    error_m = settings.position_error_m
    pieces = pieces_of(
        fixes, every_s=piece_hours * HOUR_S, longest_s=gap_hours * HOUR_S, position_error_m=error_m, unresolved_m_s=0.0
    )
    if not len(pieces):
        raise BadInputError(
            f"no fix of a drifter follows another within {gap_hours:g} hours: give tracks.gap_hours, or longer tracks"
        )
    lone = ~np.isin(fixes.name, pieces.name)
    fixes = fixes.only(~lone, f"no other fix of the drifter within {gap_hours:g} hours")
    fixes = replace(fixes, longitude=(fixes.longitude + 180) % 360 - 180)
    some = np.unique(np.linspace(0, len(pieces) - 1, min(most_pieces, len(pieces))).round().astype(int))
    return Tracks(fixes, pieces[some], len(read), len(pieces), piece_hours, gap_hours)


def _hours(fixes: Fixes, settings: TrackSettings, most_pieces: int) -> tuple[float, float]:
    """Return how long a piece takes at least, and at most, hours."""
    follows = fixes.name[1:] == fixes.name[:-1]
    intervals = np.diff(fixes.time_s)[follows] / HOUR_S
    # of fixes that are a piece apart: those of a moment, sent again, tell nothing of how often there is one
    apart = pieces_of(fixes, every_s=LEAST_HOURS * HOUR_S, longest_s=np.inf).duration_s / HOUR_S
    usual = float(np.median(apart)) if len(apart) else LEAST_HOURS
    need = float(intervals[intervals <= max(GAP_INTERVALS * usual, GAP_PIECES * LEAST_HOURS)].sum()) / most_pieces
    rounded = next(one for one in STEPS_HOURS if one >= min(max(need, LEAST_HOURS), MOST_HOURS))
    piece = rounded if settings.piece_hours is None else settings.piece_hours
    chosen = min(max(GAP_PIECES * piece, GAP_INTERVALS * usual), LONGEST_GAP_HOURS)
    gap = chosen if settings.gap_hours is None else settings.gap_hours
    return piece, max(gap, piece)


def when(text: str, flag: str, time_zone: str) -> float | None:
    """Return a time of the command line, seconds since 1970-01-01 UTC; None of an empty text.

    Raises:
        BadInputError: it is no time.

    Example:
        >>> when("2023-04-20T10:04:49Z", "--from", "UTC"), when("2023-04-20", "--to", "Europe/Berlin")
        (1681985089.0, 1681941600.0)
    """
    if not text:
        return None
    seconds = to_seconds([text], printable(flag), time_zone=time_zone)
    if not np.isfinite(seconds[0]):
        raise BadInputError(printable(f"{flag} {text[:60]} is no time: write it as 2023-04-20T10:04:49Z"))
    return float(seconds[0])
