"""How times are told, in windows of days and of hours."""

import pytest

from pcl.problems.ocean.evaluation.leads import lead_times, release_name, release_title, time_unit
from tests.problems.ocean.evaluation.ocean_pairs import HOUR_S
from tests.problems.ocean.evaluation.test_windows import geometry_of

DAILY, HOURLY = geometry_of(24 * HOUR_S, 8, 6 * HOUR_S), geometry_of(HOUR_S, 8, HOUR_S / 4)


@pytest.mark.parametrize(
    ("interval_h", "steps", "record_h", "names", "unit"),
    [
        (24, 8, 6, {"day_1": 4, "day_3": 12, "day_7": 28}, "days"),
        (24, 31, 24, {"day_1": 1, "day_3": 3, "day_7": 7}, "days"),
        (24, 4, 6, {"day_1": 4, "day_3": 12}, "days"),
        (120, 7, 40, {}, "days"),
        (1, 8, 0.25, {"hour_1": 4, "hour_3": 12, "hour_6": 24}, "hours"),
        (1, 25, 1, {"hour_6": 6, "hour_12": 12, "day": 24}, "hours"),
        (3, 57, 3, {"day_1": 8, "day_3": 24, "day_7": 56}, "days"),
        (2, 4, 2, {"hour_6": 3}, "hours"),
        (0.25, 3, 0.25, {}, "hours"),
    ],
)
def test_leads_are_those_that_are_recorded(interval_h, steps, record_h, names, unit):
    geometry = geometry_of(interval_h * HOUR_S, steps, record_h * HOUR_S)
    names = {("hour_24" if name == "day" else name): record for name, record in names.items()}
    assert {lead.name: lead.record for lead in lead_times(geometry)} == names
    assert time_unit(geometry)[0] == unit


def test_titles_and_names_of_days_and_of_hours():
    release = "2002-11-05T12:30:00.000000000"
    assert release_title(release, 4 * 86400.0, DAILY) == "released 2002-11-05,\n4 days later"
    assert release_name(release, DAILY) == "2002-11-05"
    assert release_title(release, 4 * HOUR_S, HOURLY) == "released 2002-11-05 12:30,\n4 h later"
    assert release_title("2002-11-05 12:30:00", 60 * HOUR_S, HOURLY).endswith("2.5 days later")  # as cftime writes
    assert release_name(release, HOURLY) == "2002-11-05T1230"
