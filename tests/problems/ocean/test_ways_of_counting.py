"""Numbers that are counted from another end, in another unit, calendar or zone: read right, or refused in a line."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from pcl.errors import BadInputError
from pcl.problems.ocean.fixes.cleaning import Rules, cleaned
from pcl.problems.ocean.fixes.fixes import Fixes, joined
from pcl.problems.ocean.fixes.netcdf import read_trajectories
from pcl.problems.ocean.fixes.tables import read_table
from pcl.problems.ocean.reading.depth import choose_level
from pcl.problems.ocean.reading.file import Reading, open_file
from pcl.problems.ocean.reading.names import find_velocity
from pcl.problems.ocean.reading.time import read_times
from pcl.problems.ocean.reading.values import conform, to_metres_per_second

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


def rows_of(tmp_path, head, form, name="a.csv"):
    """Return the fixes of a table of one drifter of which each row is written as ``form`` writes a time."""
    places = zip(TIMES, LATITUDE, LONGITUDE, strict=True)
    (tmp_path / name).write_text("\n".join([head, *(f"{form(t)},{a:.4f},{o:.4f}" for t, a, o in places)]))
    return read_table(tmp_path / name, {})


LATER = pd.Timedelta("2h")


@pytest.mark.parametrize(
    ("head", "form"),
    [
        ("time,time_utc", lambda t: f"{t + LATER},{t}"),
        ("datetime,datetime_gmt", lambda t: f"{t + LATER},{t}"),
        ("date,time,date_utc,time_utc", lambda t: f"{t + LATER:%Y-%m-%d,%H:%M},{t:%Y-%m-%d,%H:%M}"),
        ("local_time,utc", lambda t: f"{t + LATER},{t}"),
        ("local_time", lambda t: f"{t + LATER}+02:00"),
    ],
)
def test_of_two_times_that_of_utc_counts(tmp_path, head, form):
    np.testing.assert_allclose(rows_of(tmp_path, f"{head},lat,lon", form).time_s, SECONDS)


def test_a_local_time_alone_is_asked_for_its_zone(tmp_path):
    with pytest.raises(BadInputError, match=r"local time.*tracks\.time_zone=Europe/Berlin"):
        rows_of(tmp_path, "local_time,lat,lon", str)


@pytest.mark.parametrize(
    ("head", "form"),
    [
        ("YYYY,MM,DD,HH,MI,SS", "{t:%Y,%m,%d,%H,%M,%S}"),
        ("YYYY,MM,DD,hh,mm", "{t:%Y,%m,%d,%H,%M}"),
        ("yyyy,mm,dd,hh,mm,ss", "{t:%Y,%m,%d,%H,%M,%S}"),
        ("year,doy,hour,minute", "{t.year},{t.day_of_year},{t.hour},{t.minute}"),
        ("year,day of year,hh,mm", "{t.year},{t.day_of_year},{t.hour},{t.minute}"),
        ("year,day_of_year", "{t.year},{day:.7f}"),
        ("date,hour,minute", "{t:%Y-%m-%d},{t.hour},{t.minute}"),
        ("yyyymmdd,hh,mm", "{t:%Y%m%d},{t.hour},{t.minute}"),
        ("year,month,day,hour,minute", "{t.year},{t.month},{t.day},{t.hour},{t.minute}"),
    ],
)
def test_parts_of_a_time_in_columns_of_their_own_are_put_together(tmp_path, head, form):
    found = rows_of(
        tmp_path, f"{head},lat,lon", lambda t: form.format(t=t, day=t.day_of_year + t.hour / 24 + t.minute / 1440)
    )
    np.testing.assert_allclose(found.time_s, SECONDS, atol=0.01)


@pytest.mark.parametrize("zone", [" +02:00", "+0200", " UTC+2", " GMT+02:00", "+02"])
@pytest.mark.parametrize("form", ["%d-%b-%Y %H:%M:%S", "%Y-%m-%d %H:%M:%S", "%Y/%m/%d %H:%M", "%d.%m.%Y %H:%M:%S"])
def test_times_may_end_with_their_offset_however_they_are_written(tmp_path, form, zone):
    found = rows_of(tmp_path, "time,lat,lon", lambda t: f"{t + LATER:{form}}{zone}")
    np.testing.assert_allclose(found.time_s, SECONDS)


def test_names_that_a_spreadsheet_has_rounded_are_refused(tmp_path):
    with pytest.raises(BadInputError, match=r"imei has '3\.00234E\+14', of which a spreadsheet has rounded"):
        rows_of(tmp_path, "imei,time,lat,lon", lambda t: f"3.00234E+14,{t}")


@pytest.mark.parametrize("number", [2, 3])
def test_a_name_that_several_drifters_share_is_no_drifter(number):
    one = Fixes(np.full(NUMBER, "a"), SECONDS, LATITUDE, LONGITUDE)
    with pytest.raises(BadInputError, match="their names do not part drifters"):
        cleaned(joined([replace(one, latitude=LATITUDE + 0.1 * i) for i in range(number)]), Rules())
    near = replace(one, latitude=LATITUDE + 0.001)  # what a receiver tells of one place twice
    assert len(cleaned(joined([one, near]), Rules())) == NUMBER


@pytest.mark.parametrize(("per_s", "units"), [(1.0, ""), (1e3, ""), (1 / 86_400, "days since 1970-01-01")])
def test_variables_of_times_without_units_are_of_1970_or_what_the_user_says(tmp_path, per_s, units):
    places = {"lat": ("obs", LATITUDE), "lon": ("obs", LONGITUDE), "time": ("obs", SECONDS * per_s)}
    xr.Dataset(places).to_netcdf(tmp_path / "a.nc")
    np.testing.assert_allclose(read_trajectories(tmp_path / "a.nc", {}, time_units=units).time_s, SECONDS, atol=0.01)
    if units:
        with pytest.raises(BadInputError, match=r"tracks\.time_units='days since 1950-01-01'"):
            read_trajectories(tmp_path / "a.nc", {})


def test_a_table_that_is_indexed_by_time_needs_no_name(tmp_path):
    pd.DataFrame({"lat": LATITUDE, "lon": LONGITUDE}, index=TIMES).to_parquet(tmp_path / "a.parquet")
    np.testing.assert_allclose(read_table(tmp_path / "a.parquet", {}).time_s, SECONDS)


@pytest.mark.parametrize("content", ["", "\n \n", "time,lat,lon\n"])
def test_a_file_without_fixes_is_said_to_be_empty(tmp_path, content):
    (tmp_path / "a.csv").write_text(content)
    with pytest.raises(BadInputError, match=r"a\.csv (is empty|holds no rows): give files of tracks"):
        read_table(tmp_path / "a.csv", {})


@pytest.mark.parametrize("scale", [1e-4, np.float32(1e-4)])
@pytest.mark.parametrize("fill", [2**31 - 1, -(2**31 - 1), -(2**31), -99_999])
def test_the_fill_of_wide_integers_is_no_current(fill, scale):
    stored = xr.Variable("x", np.array([fill, 5000], np.int32), {"_FillValue": np.int32(fill), "scale_factor": scale})
    conforming, valid = conform(stored, "a.nc: u", lambda: None)
    values = xr.conventions.decode_cf_variable("u", conforming).values
    np.testing.assert_allclose(to_metres_per_second(values, 1.0, valid), [np.nan, 0.5], rtol=1e-6)


@pytest.mark.parametrize("of_anomalies", [True, False])
def test_anomalies_of_sea_level_are_said_to_lack_the_mean_current(tmp_path, of_anomalies):
    kind = "surface_geostrophic_{}_sea_water_velocity" + "_assuming_sea_level_for_geoid" * of_anomalies
    grid = {"latitude": [0.0, 1.0], "longitude": [0.0, 1.0], "time": ("time", [0.0], {"units": "days since 2010-1-1"})}
    given = {
        name: (("time", "latitude", "longitude"), np.ones((1, 2, 2)), {"standard_name": kind.format(towards)})
        for name, towards in (("ugosa", "eastward"), ("vgosa", "northward"))
    }
    xr.Dataset(given, grid).to_netcdf(tmp_path / "a.nc")
    notes = open_file(str(tmp_path / "a.nc"), Reading(units="m/s")).notes
    told = ("ugosa and vgosa are anomalies of the sea level's currents: the mean current is not in them",)
    assert notes == told * of_anomalies
