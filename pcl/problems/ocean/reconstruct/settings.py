"""Settings of a reconstruction from tracks."""

__all__ = ["ReconstructSettings", "TrackSettings"]

from dataclasses import dataclass

from pcl.problems.ocean.fixes.names import ROLES
from pcl.settings import setting


@dataclass
class TrackSettings:
    """``tracks``: how files of drifters are read, and what of them counts."""

    latitude: str = setting("name of the column or variable; empty: by its usual names", "")
    longitude: str = setting("likewise", "")
    time: str = setting("likewise", "")
    drifter: str = setting("likewise; a file without one is of one drifter", "")
    drogue: str = setting("likewise: whether the drogue is on", "")
    drogue_lost: str = setting("likewise: when it was lost", "")
    time_units: str = setting(
        "of times that are numbers: days since 1950-01-01, or matlab, excel, julian; empty: seconds since 1970", ""
    )
    time_zone: str = setting("of times that do not say theirs, such as Europe/Berlin or +02:00", "UTC")
    needs_drogue: bool = setting("leave out fixes after the drogue was lost, where that is known", True)
    fastest_m_s: float = setting("a drifter is not faster, m/s: what is was a spike, or on a boat", 3.0, above=0)
    position_error_m: float = setting("standard deviation of each component of a position, m", 10.0, at_least=0)
    still_m: float = setting("a drifter within so many metres for still_hours is ashore or moored", 50.0, at_least=0)
    still_hours: float = setting("see still_m", 6.0, above=0)
    near_km: float = setting("drifters further from the others are of another sea, without --box", 500.0, above=0)
    piece_hours: float | None = setting(
        "a velocity is the displacement over so many hours, at least; null: by the number of fixes", None, above=0
    )
    gap_hours: float | None = setting("without a fix for longer is a gap; null: four pieces", None, above=0)

    @property
    def columns(self) -> dict[str, str]:
        """Named columns by role."""
        return {role: name for role in ROLES if (name := getattr(self, role))}


@dataclass
class ReconstructSettings:
    """What ``pcl reconstruct`` takes as ``key=value``."""

    tracks: TrackSettings = setting(factory=TrackSettings)
    checkpoint: str = setting("of the run: a step, best, or empty for the newest", "")
    to: str = setting("folder of the results; empty: reconstruction_NAME beside the run, or here", "", is_place=True)
    margin_km: float | None = setting(
        "around the tracks, without --box; null: a tenth of their extent", None, at_least=0
    )
    num_points: int = setting("points of the map along its longer side, at most", 60, at_least=4, at_most=1000)
    num_times: int = setting("times of the map, at most", 24, at_least=1, at_most=10_000)
    num_members: int = setting("members of the ensemble", 20, at_least=2, at_most=1000)
    most_measurements: int = setting(
        "velocities that count, at most: of more, longer ones are taken, up to a day, then some, evenly",
        1000,
        at_least=10,
        at_most=4000,
    )
    most_left_out: int = setting("drifters that are left out in turn for the scores, at most", 30, at_least=2)
    adapt: bool = setting("fit the noise, and scales of the generic prior, to the tracks by their likelihood", True)
    score: bool = setting("score by leaving drifters out: needs two", True)
    before_archive: bool = setting("take tracks from before the archive of the run", False)
    seed: int = setting("of the members", 0, at_least=0, at_most=2**63 - 1)
