"""How times are told: lead times, titles and file names, by the day where fields are daily, by the hour where not."""

__all__ = ["Lead", "lead_times", "release_name", "release_title", "time_unit"]

from typing import NamedTuple

from pcl.problems.ocean.evaluation.windows import Geometry
from pcl.problems.ocean.tiles import DAY_S, HOUR_S

LEAD_DAYS = (1, 3, 7)
LEAD_HOURS = (1, 3, 6, 12)
MOST_LEADS = 3


class Lead(NamedTuple):
    """A time after the release.

    Attributes:
        number: of the unit.
        unit: ``day`` or ``hour``.
        record: of the drifters, at that time.
    """

    number: int
    unit: str
    record: int

    @property
    def name(self) -> str:
        """As in the names of metrics."""
        return f"{self.unit}_{self.number}"

    @property
    def head(self) -> str:
        """As in the heads of tables."""
        return f"{self.unit} {self.number}"


def lead_times(geometry: Geometry) -> list[Lead]:
    """Return the lead times that scores are given for, where drifters are recorded.

    For fields a day or more apart 1, 3 and 7 days; for others the longest three of 1, 3, 6, 12 hours and these days,
    told in hours if they are not all whole days.

    Args:
        geometry: of the windows.
    """
    days = [24 * count for count in LEAD_DAYS]
    hours = days if geometry.interval_s >= DAY_S else [*LEAD_HOURS, *days]
    last = round(geometry.duration_s / geometry.record_s)
    records = {count: count * HOUR_S / geometry.record_s for count in hours}
    found = {count: round(x) for count, x in records.items() if abs(x - round(x)) < 1e-6 and 1 <= round(x) <= last}
    kept = sorted(found)[-MOST_LEADS:]
    if all(count % 24 == 0 for count in kept):
        return [Lead(count // 24, "day", found[count]) for count in kept]
    return [Lead(count, "hour", found[count]) for count in kept]


def time_unit(geometry: Geometry) -> tuple[str, float]:
    """Return what times after the release are told in, and its seconds."""
    leads = lead_times(geometry)
    if geometry.interval_s >= DAY_S or (leads and leads[-1].unit == "day"):
        return "days", DAY_S
    return "hours", HOUR_S


def release_name(release: str, geometry: Geometry) -> str:
    """Return the date of a release, and the time where several can be of one day, for names of files.

    Args:
        release: as xarray writes times.
        geometry: of the windows.
    """
    date, clock = release[:10], release[11:16].replace(":", "")
    return date if geometry.interval_s >= DAY_S else f"{date}T{clock}"


def release_title(release: str, later_s: float, geometry: Geometry) -> str:
    """Return when drifters were released and how much later a map is, for titles.

    Args:
        release: as xarray writes times.
        later_s: seconds after the release.
        geometry: of the windows.
    """
    if geometry.interval_s >= DAY_S:
        return f"released {release[:10]},\n{later_s / DAY_S:g} days later"
    hours = later_s / HOUR_S
    later = f"{hours:g} h" if hours < 48 else f"{hours / 24:g} days"
    return f"released {release[:10]} {release[11:16]},\n{later} later"
