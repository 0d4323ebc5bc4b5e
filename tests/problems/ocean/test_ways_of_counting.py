"""Numbers that are counted from another end, in another unit, calendar or zone: read right, or refused in a line."""

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from pcl.errors import BadInputError
from pcl.problems.ocean.fixes.netcdf import read_trajectories
from pcl.problems.ocean.fixes.tables import read_table
from pcl.problems.ocean.reading.depth import choose_level
from pcl.problems.ocean.reading.names import find_velocity
from pcl.problems.ocean.reading.time import read_times

NUMBER = 6
TIMES = pd.date_range("2023-04-20 10:00", periods=NUMBER, freq="h")
LATITUDE, LONGITUDE = 54.5 + 0.01 * np.arange(NUMBER), 10.5 + 0.01 * np.arange(NUMBER)
SECONDS = (TIMES - pd.Timestamp("1970-01-01")).total_seconds().to_numpy()


@pytest.mark.parametrize("kind", ["height_above_sea_floor", "height_above_sea_bed"])
@pytest.mark.parametrize("heights", [[5.0, 20.0, 60.0], [5.0]])
def test_heights_above_the_sea_floor_are_no_depths(kind, heights):
    axis = ("z", heights, {"standard_name": kind, "units": "m", "positive": "up"})
    grid = xr.Dataset({"u": (("z", "y", "x"), np.zeros((len(heights), 1, 1)))}, {"z": axis})
    with pytest.raises(BadInputError, match="z is a height above the sea floor"):
        choose_level(grid, "a.nc", "u", None)


@pytest.mark.parametrize(
    ("zone", "hours"),
    [
        *((zone, 0.0) for zone in ("", " UTC", " GMT", "Z", " +00:00")),
        *((zone, 6.0) for zone in (" -6:00", " -06:00", " -0600", " -6", "-06:00", " UTC-6")),
        (" +5:30", -5.5),
    ],
)
@pytest.mark.parametrize("clock", ["18:00:00", "18:00", "18"])
def test_offsets_from_utc_are_read_however_they_are_written(zone, hours, clock):
    found, _, _ = read_times(np.array([0.0, 1.0]), {"units": f"days since 2010-1-1 {clock}{zone}"}, "a.nc: time")
    wanted = (pd.Timestamp("2010-01-01 18:00") - pd.Timestamp("1970-01-01")).total_seconds() + 3600 * hours
    assert found.tolist() == [wanted, wanted + 86_400]


@pytest.mark.parametrize(
    "units", ["days since 01-03-2010", "days since 2010-1-1 00:00 CST", "hours since 2010-1-1 CEST"]
)
def test_units_of_time_that_can_be_read_in_two_ways_are_refused(units):
    with pytest.raises(BadInputError, match="an offset from UTC, such as"):
        read_times(np.array([0.0, 1.0]), {"units": units}, "a.nc: time")


@pytest.mark.parametrize(
    "kind",
    [
        "westward_sea_water_velocity",
        "eastward_sea_water_velocity_due_to_tides",
        "eastward_sea_water_velocity_at_sea_floor",
    ],
)
def test_a_usual_name_does_not_make_another_quantity_the_current(kind):
    grid = {"uo": (("y", "x"), [[0.1]], {"standard_name": kind}), "vo": (("y", "x"), [[0.1]])}
    found, lack = find_velocity(xr.Dataset(grid), "a.nc")
    assert "eastward" not in found
    assert "no eastward velocity" in lack


def table(tmp_path, latitude=LATITUDE, longitude=LONGITUDE, names=("time", "lat", "lon"), units=()):
    rows = [",".join(names), *([",".join(units)] if units else [])]
    rows += [f"{t:%Y-%m-%dT%H:%M:%S},{a:.8f},{o:.8f}" for t, a, o in zip(TIMES, latitude, longitude, strict=True)]
    file = tmp_path / "a.csv"
    file.write_text("\n".join(rows) + "\n")
    return read_table(file, {})


@pytest.mark.parametrize(
    ("turned", "given"),
    [
        (-1, {"names": ("time", "lat", "lon (W)")}),
        (-1, {"names": ("time", "lat", "lon"), "units": ("UTC", "degrees_north", "degrees_west")}),
        (1, {"names": ("time", "lat", "lon (E)")}),
        (1, {"names": ("time", "lat", "lon"), "units": ("UTC", "Grad", "Grad")}),
    ],
)
def test_columns_say_which_way_longitudes_are_counted(tmp_path, turned, given):
    found = table(tmp_path, **given)
    np.testing.assert_allclose(found.longitude, turned * LONGITUDE)
    np.testing.assert_allclose(found.latitude, LATITUDE)


def test_numbers_with_a_sign_stay_as_they_are(tmp_path):
    np.testing.assert_allclose(
        table(tmp_path, longitude=-LONGITUDE, names=("time", "lat", "lon (W)")).longitude, -LONGITUDE
    )


@pytest.mark.parametrize(
    "given",
    [
        {"names": ("time", "lat_rad", "lon_rad")},
        {"names": ("time", "lat", "lon"), "units": ("UTC", "radians", "radians")},
    ],
)
def test_columns_in_radians_are_turned_into_degrees(tmp_path, given):
    found = table(tmp_path, np.deg2rad(LATITUDE), np.deg2rad(LONGITUDE), **given)
    np.testing.assert_allclose(found.latitude, LATITUDE, atol=1e-5)
    np.testing.assert_allclose(found.longitude, LONGITUDE, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "hours"), [("time (GMT+2)", -2), ("time [+02:00]", -2), ("time (UTC)", 0), ("time", 0)]
)
def test_a_zone_in_the_name_of_a_column_counts(tmp_path, name, hours):
    found = table(tmp_path, names=(name, "lat", "lon"))
    np.testing.assert_allclose(found.time_s, SECONDS + 3600 * hours)


@pytest.mark.parametrize("name", ["time [CEST]", "time (EST)", "time (local)"])
def test_a_zone_that_is_not_known_is_asked_for(tmp_path, name):
    with pytest.raises(BadInputError, match=r"say which that is, such as tracks\.time_zone=Europe/Berlin"):
        table(tmp_path, names=(name, "lat", "lon"))


def tracks(tmp_path, calendar="standard", units="degrees_east", feature="trajectory"):
    hours = np.arange(NUMBER, dtype=np.float64)
    about = {"units": "hours since 2023-04-20 10:00", "calendar": calendar}
    data = {
        "time": ("obs", hours, about),
        "latitude": ("obs", LATITUDE, {"units": "degrees_north"}),
        "longitude": ("obs", LONGITUDE, {"units": units}),
    }
    xr.Dataset(data, attrs={"featureType": feature}).to_netcdf(tmp_path / "a.nc")
    return read_trajectories(tmp_path / "a.nc", {})


def test_variables_say_which_way_longitudes_are_counted(tmp_path):
    np.testing.assert_allclose(tracks(tmp_path).longitude, LONGITUDE)
    np.testing.assert_allclose(tracks(tmp_path, units="degrees_west").longitude, -LONGITUDE)


@pytest.mark.parametrize("calendar", ["noleap", "360_day", "365_day", "all_leap"])
def test_tracks_in_the_calendar_of_a_model_are_refused(tmp_path, calendar):
    with pytest.raises(BadInputError, match="whose days are not those of drifters"):
        tracks(tmp_path, calendar=calendar)


@pytest.mark.parametrize("feature", ["profile", "timeSeries", "timeSeriesProfile", "trajectoryProfile"])
def test_profiles_and_moorings_are_no_tracks(tmp_path, feature):
    with pytest.raises(BadInputError, match=f"holds featureType '{feature}' and no tracks"):
        tracks(tmp_path, feature=feature)
