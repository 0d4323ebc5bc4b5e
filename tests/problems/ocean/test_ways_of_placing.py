"""Places, drifters and flags as other people's files say them: read right, or refused in a line that helps."""

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from pcl.errors import BadInputError
from pcl.problems.ocean.fixes.cleaning import Rules, cleaned
from pcl.problems.ocean.fixes.reading import read_fixes
from pcl.problems.ocean.reading.file import Reading, open_file
from pcl.problems.ocean.reading.names import find_velocity

NUMBER = 6
TIMES = pd.date_range("2023-04-20 10:04:49", periods=NUMBER, freq="6h")
LATITUDE, LONGITUDE = 54.5 + 0.01 * np.arange(NUMBER), 10.25 + 0.01 * np.arange(NUMBER)
SECONDS = (TIMES - pd.Timestamp("1970-01-01")).total_seconds().to_numpy()


def read(tmp_path, head, form, separator=",", **options):
    """Return the fixes of a table of one drifter, whose rows are written by a form of degrees, minutes and seconds."""
    rows = []
    for time, lat, lon in zip(TIMES, LATITUDE, LONGITUDE, strict=True):
        parts = {}
        for key, degrees in (("a", lat), ("o", lon)):
            minutes = round(degrees % 1 * 60, 6)
            parts |= {key: f"{degrees:.4f}", f"{key}d": int(degrees), f"{key}m": f"{minutes:.4f}"}
            parts |= {f"{key}i": int(minutes), f"{key}s": f"{minutes % 1 * 60:.3f}", f"{key}n": f"{minutes:07.4f}"}
        rows.append(f"7{separator}{time}{separator}{form.format(**parts)}")
    (tmp_path / "a.csv").write_text("\n".join([f"id{separator}time{separator}{head}", *rows]) + "\n")
    return read_fixes([tmp_path / "a.csv"], options.pop("columns", {}), **options)


def check(fixes, south=1, west=1, latitude=LATITUDE, longitude=LONGITUDE):
    np.testing.assert_allclose(fixes.latitude, south * latitude, atol=1e-5)
    np.testing.assert_allclose(fixes.longitude, west * longitude, atol=1e-5)


@pytest.mark.parametrize(
    ("head", "form"),
    [
        ("ns,lat,ew,lon", "S,{a},W,{o}"),
        ("N/S,Latitude,E/W,Longitude", "S,{a},W,{o}"),
        ("q,lat,r,lon", "S,{a},W,{o}"),
        ("lat,ns,lon,ew", "{a},South,{o},West"),
        ("lat,lat_ref,lon,lon_ref", "{a},sur,{o},oeste"),
        ("lat,lon,alt,sats,ns,ew", "{a},{o},0,7,S,W"),
        ("lat_deg,lat_min,lat_sec,lat_dir,lon_deg,lon_min,lon_sec,lon_dir", "{ad},{ai},{as},S,{od},{oi},{os},W"),
        ("lat,lon", "-{a}S,-{o}W"),
        ("lat,lon", "South {a},West {o}"),
        ("lat,lon", "{a}-,{o}-"),
        ("lat,lon", "\u2212{a},\u2013{o}"),
        ("lat,ns,lon,ew", "-{a},S,-{o},W"),
        ("lat_S,lon_W", "{a},{o}"),
        ("latS,lonW", "{a},{o}"),
        ("Lat south,longitude_west", "{a},{o}"),
        ("lat (S),Longitude °W", "{a},{o}"),
        ("Lat_deg_S,lon_deg_W", "{a},{o}"),
        ("lat_S,lon_W", "-{a},-{o}"),
    ],
)
def test_south_and_west_count_wherever_they_are_said(tmp_path, head, form):
    check(read(tmp_path, head, form), -1, -1)


@pytest.mark.parametrize(
    ("head", "form"),
    [
        ("lat_N,lon_E", "{a},{o}"),
        ("latitudes,lat,quality,lon", "1,{a},good,{o}"),
        ("quality,lat,lon,flag", "S,{a},{o},ok"),
        ("lat,lon,lat_min,lat_max,lon_min", "{a},{o},{ad},55,75"),
        ("lat,lat_deg,lat_min,lon", "{a},{ad},{am},{o}"),
        ("lat (N negative),lon (west negative)", "{a},{o}"),
    ],
)
def test_what_says_no_direction_turns_nothing(tmp_path, head, form):
    check(read(tmp_path, head, form, columns={"latitude": "lat"} if "latitudes" in head else {}))


@pytest.mark.parametrize(
    ("unit", "turn"),
    [
        *((unit, 1) for unit in ("degrees", "degree", "deg", "degs", "Degrees", "°", "degrees_{}", "[deg {}]")),
        *((unit, -1) for unit in ("degrees_back", "degreesBack", "deg_back", "deg B", "degB", "[°B]", "°B")),
    ],
)
def test_units_of_degrees(tmp_path, unit, turn):
    """The s of degrees is no south."""
    back = [unit.replace("back", word).replace("Back", word[0].upper()) for word in ("south", "west")]
    lat, lon = (one.replace("B", word) for one, word in zip(back, "SW", strict=True))
    lat, lon = lat.format("N"), lon.format("E")
    check(read(tmp_path, f"lat,lon\n,UTC,{lat},{lon}", "{a},{o}"), turn, turn)
    check(netcdf(tmp_path, lat=("obs", LATITUDE, {"units": lat}), lon=("obs", LONGITUDE, {"units": lon})), turn, turn)
    if lat[0] != "[":
        check(read(tmp_path, f"lat ({lat}),lon ({lon})", "{a},{o}"), turn, turn)


@pytest.mark.parametrize(
    ("head", "form"),
    [
        ("lat_deg,lat_min,lat_sec,lon_deg,lon_min,lon_sec", "{ad},{ai},{as},{od},{oi},{os}"),
        ("Lat (deg),Lat (min),Lon (deg),Lon (min)", "{ad},{am},{od},{om}"),
        ("Lat (min),Lat (deg),Lon (min),Lon (deg)", "{am},{ad},{om},{od}"),
        ("Lat [°],Lat ['],Lon [°],Lon [']", "{ad},{am},{od},{om}"),
        ("LAT_DD,LAT_MM,LON_DD,LON_MM", "{ad},{am},{od},{om}"),
        ("lat_d,lat_m,lat_s,lon_d,lon_m,lon_s", "{ad},{ai},{as},{od},{oi},{os}"),
        ("lat,latmin,lon,lonmin", "{ad},{am},{od},{om}"),
        ("gps lat deg,gps lat min,gps lon deg,gps lon min", "{ad},{am},{od},{om}"),
    ],
)
def test_minutes_and_seconds_have_columns_of_their_own(tmp_path, head, form):
    check(read(tmp_path, head, form))
    check(read(tmp_path, head, form.replace("{ad}", "-{ad}").replace("{od}", "-{od}")), -1, -1)


def test_minutes_may_have_decimal_commas(tmp_path):
    found = read(tmp_path, "lat_deg,lat_min,lon_deg,lon_min", '{ad},"{am}",{od},"{om}"'.replace(".", ","))
    check(found)


@pytest.mark.parametrize("turn", [-1, 1])
def test_a_minus_before_zero_counts(tmp_path, turn):
    sign = "-" if turn < 0 else ""
    found = read(tmp_path, "lat_deg,lat_min,lon_deg,lon_min", f"{{ad}},{{am}},{sign}0,{{om}}")
    check(found, west=turn, longitude=LONGITUDE - 10)
    found = read(tmp_path, "lat_deg,lat_min,lon_deg,lon_min", f"{{ad}},{{am}},0,{sign}{{om}}")
    check(found, west=turn, longitude=LONGITUDE - 10)


@pytest.mark.parametrize(
    ("head", "form"),
    [
        ("lat,lon", "00{an}N,003{on}E"),
        ("lat,ns,lon,ew", "00{an},N,003{on},E"),
        ("lat,lon", "-00{an},-003{on}"),
        ("lat,ns,lon,ew", "00{an},S,003{on},W"),
    ],
)
def test_degrees_and_minutes_of_receivers_near_the_equator(tmp_path, head, form):
    turn = -1 if "-" in form or "S" in form else 1
    check(read(tmp_path, head, form), turn, turn, LATITUDE - 54, LONGITUDE - 7)


@pytest.mark.parametrize("missing", ["", "-", "?"])
def test_a_fix_without_its_letter_has_no_place_and_others_keep_theirs(tmp_path, missing):
    rows = [
        f"7,{t},{a},{'S' if i else missing},{o},W"
        for i, (t, a, o) in enumerate(zip(TIMES, LATITUDE, LONGITUDE, strict=True))
    ]
    (tmp_path / "a.csv").write_text("\n".join(["id,time,lat,ns,lon,ew", *rows]))
    found = read_fixes([tmp_path / "a.csv"], {})
    np.testing.assert_allclose(found.latitude, [np.nan, *-LATITUDE[1:]])
    np.testing.assert_allclose(found.longitude, -LONGITUDE)


def test_a_receiver_without_a_fix_makes_no_second_drifter(tmp_path):
    rows = [
        f"7,{t},{a},S,{o},W" if i != 2 else f"7,{t},0,-,0,-"
        for i, (t, a, o) in enumerate(zip(TIMES, LATITUDE, LONGITUDE, strict=True))
    ]
    (tmp_path / "a.csv").write_text("\n".join(["id,time,lat,ns,lon,ew", *rows]))
    kept = cleaned(read_fixes([tmp_path / "a.csv"], {}), Rules())
    np.testing.assert_allclose(kept.latitude, -LATITUDE[np.arange(NUMBER) != 2])
    assert [left.number for left in kept.left] == [1]


@pytest.mark.parametrize(
    ("head", "form", "east"),
    [
        ("latitud,longitud", "{a}N,{o}O", -1),
        ("breite,länge", "{a}N,{o}O", 1),
        ("breite,ns,länge,eo", "{a},N,{o},O", 1),
    ],
)
def test_the_letter_o_is_of_the_language_of_the_head(tmp_path, head, form, east):
    columns = {"longitude": "länge"} if "länge" in head else {}
    check(read(tmp_path, head, form, columns=columns), west=east)


@pytest.mark.parametrize(
    ("head", "form", "said"),
    [
        ("lat,lon", "{a}N,{o}O", r"the letter O, which is east in German and west in Spanish.*: write E or W"),
        ("lat,ns,lon,ew", "{a},N,{o},O", "the letter O"),
        ("lat,lon", "{o}E,{a}N", r"the letter E, which no latitude has: name the columns right, tracks\.latitude=NAME"),
        ("lat,lat_dir,lon,lon_dir", "{o},E,{a},N", "lat_dir has the letter E, which no latitude has"),
        ("lat_deg,lat_min,lon", "{ad},75,{o}", "lat_min holds 75 beside whole degrees"),
        ("lat,lon_W [degrees_east]", "{a},{o}", "counts west by its name and east by its units"),
    ],
)
def test_places_that_contradict_themselves_are_refused(tmp_path, head, form, said):
    with pytest.raises(BadInputError, match=said):
        read(tmp_path, head, form)


def test_exchanged_columns_are_named_right(tmp_path):
    check(read(tmp_path, "lat,lon", "{o}E,{a}N", columns={"latitude": "lon", "longitude": "lat"}))


def test_rows_of_blanks_that_lack_a_value_are_counted(tmp_path):
    rows = ["7 2023-04-20 1{i}:00 11.2 54.{i} 10.{i} 1", "7 2023-04-20 1{i}:00  54.{i} 10.{i} 1"]
    lines = [rows[i == 1].format(i=i) for i in range(5)]
    (tmp_path / "a.txt").write_text("\n".join(["id date time temp lat lon drogue", *lines]))
    found = read_fixes([tmp_path / "a.txt"], {})
    np.testing.assert_allclose(found.latitude, [54.0, np.nan, 54.2, 54.3, 54.4])
    kept = cleaned(found, Rules(fastest_m_s=1000.0))
    assert (len(kept), kept.left[0].number) == (4, 1)
    (tmp_path / "b.txt").write_text("\n".join(["id date time temp lat lon drogue", rows[1].format(i=1)]))
    with pytest.raises(BadInputError, match="have fewer values than the 7 of its head: write something, such as nan"):
        read_fixes([tmp_path / "b.txt"], {})
    (tmp_path / "c.txt").write_text("id time lat lon note\n7 2023-04-20T10:00Z 54.5 10.5\n")  # behind the places
    assert read_fixes([tmp_path / "c.txt"], {}).longitude.tolist() == [10.5]


@pytest.mark.parametrize("row", ["7 2023 4 20 10 4 9 54.5 10.5 1 2 3 4", "7 4 20 2023 10 4 54.5 10.5 1 2 3 4 5"])
def test_thirteen_columns_of_another_kind_need_names(tmp_path, row):
    (tmp_path / "a.txt").write_text(f"{row}\n{row}\n")
    with pytest.raises(BadInputError, match="no line that names its columns"):
        read_fixes([tmp_path / "a.txt"], {})


def drifters(tmp_path, head, form, columns=None, later="0h", apart=0.15, number=12):
    """Return the fixes of a table of two drifters, A and B, which go north together."""
    rows = [
        form.format(i=i, k="AB"[k], n=k, t=time + k * pd.Timedelta(later)) + f",{54 + 0.003 * i + apart * k:.4f},10.5"
        for k in range(2)
        for i, time in enumerate(pd.date_range("2023-04-20", periods=number, freq="h"))
    ]
    (tmp_path / "a.csv").write_text("\n".join([f"{head},lat,lon", *rows]))
    return read_fixes([tmp_path / "a.csv"], columns or {})


@pytest.mark.parametrize(
    ("head", "form", "later", "apart"),
    [
        ("id,buoy,time", "{i},{k},{t}", "0h", 0.15),
        ("id,buoy,time", "{i},{k},{t}", "24h", 0.15),
        ("trajectory,buoy,time", "{i},{k},{t}", "30min", 0.15),
        ("platform,imei,time", "SVP,{k},{t}", "30min", 0.15),
        ("platform,imei,time", "SVP,{k},{t}", "30min", 0.03),
        ("id,buoy,time", "EXP1,{k},{t}", "30min", 0.15),
        ("buoy,station,time", "{k},Kiel,{t}", "30min", 0.03),
        ("buoy,station,time", "{k},,{t}", "30min", 0.03),
        ("buoy,name,time", "{k},drifter {k},{t}", "30min", 0.03),
    ],
)
def test_the_column_that_parts_drifters_names_them(tmp_path, head, form, later, apart):
    assert drifters(tmp_path, head, form, later=later, apart=apart).names == ["A", "B"]


def test_pieces_of_the_track_of_a_drifter_are_no_drifters(tmp_path):
    rows = [
        f"7,{i // 4},{t},{54 + 0.003 * i:.4f},10.5" for i, t in enumerate(pd.date_range("2023", periods=12, freq="h"))
    ]
    (tmp_path / "a.csv").write_text("\n".join(["id,track,time,lat,lon", *rows]))
    assert read_fixes([tmp_path / "a.csv"], {}).names == ["7"]


def test_names_that_some_rows_lack_do_not_contradict_others(tmp_path):
    rows = [f"{k},{'' if i % 3 else 'AB'[k]},{t},{54 + 0.003 * i + k}" for k in (0, 1) for i, t in enumerate(TIMES)]
    (tmp_path / "a.csv").write_text("\n".join(["imei,name,time,lat,lon", *(f"{row},10" for row in rows)]))
    assert read_fixes([tmp_path / "a.csv"], {}).names == ["0", "1"]


def test_two_columns_that_name_a_drifter_together_are_told(tmp_path):
    rows = [
        f"{k % 2},{'north' if k > 1 else 'south'},{t + k * pd.Timedelta('5min')},{54 + 0.003 * i + 0.2 * k:.4f},10.5"
        for k in range(4)
        for i, t in enumerate(TIMES)
    ]
    (tmp_path / "a.csv").write_text("\n".join(["id,platform,time,lat,lon", *rows]))
    with pytest.raises(BadInputError, match="neither by id nor by platform alone: write both into one column"):
        read_fixes([tmp_path / "a.csv"], {})


def test_a_class_of_fixes_is_no_drifter(tmp_path):
    """Spikes are named so."""
    rows = [
        f"{k},{'BAD' if i == 4 else 'OK'},{t},{54 + 0.003 * i + k + 0.5 * (i == 4):.4f},10.5"
        for k in range(2)
        for i, t in enumerate(pd.date_range("2023", periods=12, freq="h"))
    ]
    (tmp_path / "a.csv").write_text("\n".join(["id,name,time,lat,lon", *rows]))
    assert read_fixes([tmp_path / "a.csv"], {}).names == ["0", "1"]


def test_a_file_that_cannot_tell_which_column_names_drifters_is_refused_and_told(tmp_path):
    """Two devices, each of which was let go twice, under names that were given twice."""
    rows = [
        f"{device},{name},{pd.Timestamp('2023-04-01') + pd.Timedelta(f'{240 * j + i}h')},{54 + 0.003 * i:.4f},10.5"
        for j, (device, name) in enumerate([(1, "a"), (1, "b"), (2, "a"), (2, "b")])
        for i in range(12)
    ]
    (tmp_path / "a.csv").write_text("\n".join(["imei,name,time,lat,lon", *rows]))
    with pytest.raises(BadInputError, match=r"tracks\.drifter=imei or tracks\.drifter=name"):
        read_fixes([tmp_path / "a.csv"], {})
    assert read_fixes([tmp_path / "a.csv"], {"drifter": "name"}).names == ["a", "b"]


@pytest.mark.parametrize("names", [("007", "7"), ("1E5", "10E4")])
@pytest.mark.parametrize("head", ["drifter no", "drifter code", "buoy_nr"])
def test_names_of_drifters_stay_as_they_are_written(tmp_path, head, names):
    rows = [f"{names[k]},{t},{54 + k},10" for k in range(2) for t in TIMES]
    (tmp_path / "a.csv").write_text("\n".join([f"{head},time,lat,lon", *rows]))
    assert read_fixes([tmp_path / "a.csv"], {}).names == sorted(names)


FLAG = np.arange(NUMBER) < 3


@pytest.mark.parametrize(
    ("head", "on", "off"),
    [
        ("drogue", "drogued", "undrogued"),
        ("drogue_status", "drogue on", "drogue off"),
        ("drogue_status", "OK", "LOST"),
        ("drogue", "attached", "not attached"),
        ("drogue", "yes", "no drogue"),
        ("undrogued", "0", "1"),
        ("undrogued", "false", "true"),
        ("drogue_lost", "False", "True"),
        ("drogue", "", "0"),
        ("drogue", "1", "0"),
    ],
)
def test_flags_of_drogues(tmp_path, head, on, off):
    rows = [f"7,{t},54.5,10.5,{on if flag else off}" for t, flag in zip(TIMES, FLAG, strict=True)]
    (tmp_path / "a.csv").write_text("\n".join([f"id,time,lat,lon,{head}", *rows]))
    np.testing.assert_array_equal(read_fixes([tmp_path / "a.csv"], {}).drogued, FLAG)


def test_numbers_that_are_no_flags_are_refused(tmp_path):
    (tmp_path / "a.csv").write_text("id,time,lat,lon,drogue\n7,2023-04-20,54,10,1\n7,2023-04-21,54,10,-1\n")
    with pytest.raises(BadInputError, match="drogue has '-1' beside flags of a drogue: write 1 where it is on, 0"):
        read_fixes([tmp_path / "a.csv"], {})
    (tmp_path / "a.csv").write_text("id,time,lat,lon,drogue\n7,2023-04-20,54,10,15 m sock\n7,2023-04-21,54,10,\n")
    assert read_fixes([tmp_path / "a.csv"], {}).drogued is None


def netcdf(tmp_path, columns=None, time_units="", time_zone="UTC", **variables):
    given = {
        "lat": ("obs", LATITUDE, {"units": "degrees_north"}),
        "lon": ("obs", LONGITUDE, {"units": "degrees_east"}),
        "time": ("obs", SECONDS, {"units": "seconds since 1970-01-01"}),
    } | variables
    xr.Dataset({key: value for key, value in given.items() if value}).to_netcdf(tmp_path / "a.nc")
    return read_fixes([tmp_path / "a.nc"], columns or {}, time_units=time_units, time_zone=time_zone)


@pytest.mark.parametrize(
    "flags",
    [
        ([1, 1, 1, 2, 2, 2], {"flag_values": np.int8([1, 2]), "flag_meanings": "drogue_attached drogue_lost"}),
        ([0, 0, 0, 1, 1, 1], {"flag_values": np.int8([0, 1]), "flag_meanings": "attached lost"}),
        ([1, 1, 1, 0, 0, 0], {}),
        (["yes", "yes", "", "no", "no", "no"], {}),
        ([np.nan, 1.0, 1e36, 0.0, 0.0, 0.0], {}),
    ],
)
def test_flags_of_netcdf_mean_what_their_attributes_say(tmp_path, flags):
    np.testing.assert_array_equal(netcdf(tmp_path, drogue=("obs", np.array(flags[0]), flags[1])).drogued, FLAG)


def test_variables_that_cannot_be_read_are_named(tmp_path):
    meanings = {"flag_values": np.int8([0, 1]), "flag_meanings": "red blue"}
    with pytest.raises(BadInputError, match=r"a\.nc: drogue has flag_values 0, 1 and flag_meanings 'red blue'"):
        netcdf(tmp_path, drogue=("obs", np.int8([0, 0, 0, 1, 1, 1]), meanings))
    check(netcdf(tmp_path, lat=("obs", [f"{one:.4f}" for one in LATITUDE])))


def test_the_name_of_a_variable_says_which_way_it_counts(tmp_path):
    check(netcdf(tmp_path, lon=(), lon_w=("obs", LONGITUDE)), west=-1)
    check(netcdf(tmp_path, lon=(), lon_w=("obs", LONGITUDE, {"units": "degrees_west"})), west=-1)
    with pytest.raises(BadInputError, match="lon_w counts west by its name and east by its units"):
        netcdf(tmp_path, lon=(), lon_w=("obs", LONGITUDE, {"units": "degrees_east"}))


def test_numbers_with_decimals_are_names_of_their_own(tmp_path):
    assert netcdf(tmp_path, id=("obs", [2023.01] * 3 + [2023.02] * 3)).names == ["2023.01", "2023.02"]
    assert netcdf(tmp_path, id=("obs", [300234010000001.0] * NUMBER)).names == ["300234010000001"]


@pytest.mark.parametrize("units", [None, "days", "1", "datenum", "s"])
@pytest.mark.parametrize(
    ("named", "day"), [("matlab", 719_529), ("excel", 25_569), ("julian", 2_440_587.5), ("modified julian", 40_587)]
)
def test_days_of_netcdf_without_a_beginning_are_what_the_user_says(tmp_path, named, day, units):
    time = ("obs", SECONDS / 86_400 + day, {"units": units} if units else {})
    np.testing.assert_allclose(netcdf(tmp_path, time=time, time_units=named).time_s, SECONDS, atol=0.01)
    since = f"days since {pd.Timestamp('1970-01-01') + pd.Timedelta(days=3)}"
    later = ("obs", SECONDS / 86_400 - 3, {"units": units} if units else {})
    np.testing.assert_allclose(netcdf(tmp_path, time=later, time_units=since).time_s, SECONDS, atol=0.01)
    with pytest.raises(BadInputError, match=r"tracks\.time_units="):
        netcdf(tmp_path, time=time)


def test_texts_of_netcdf_are_of_the_zone_that_is_given(tmp_path):
    time = ("obs", [str(one) for one in TIMES])
    np.testing.assert_allclose(netcdf(tmp_path, time=time, time_zone="Europe/Berlin").time_s, SECONDS - 7200)
    zoned = ("obs", [f"{one}Z" for one in TIMES])
    np.testing.assert_allclose(netcdf(tmp_path, time=zoned, time_zone="Europe/Berlin").time_s, SECONDS)


@pytest.mark.parametrize(
    ("dims", "later_s"),
    [
        *((("obs", name), later_s) for name in ("n_float", "ndrifters", "member") for later_s in (0.0, 60.0, 86_400.0)),
        *((("n", "m"), later_s) for later_s in (0.0, 60.0)),  # days apart, either may be: the first, as CF has it
    ],
)
def test_trajectories_may_come_second(tmp_path, dims, later_s):
    hours, which = np.arange(24)[:, None], np.arange(3)[None]
    lat, lon = 54 + 0.003 * hours + 0.2 * which, 10 + 0.003 * hours + 0 * which
    time = (dims, SECONDS[0] + 3600.0 * hours + later_s * which, {"units": "seconds since 1970-01-01"})
    for order in (dims, dims[::-1]):
        data = xr.Dataset({"lat": (dims, lat), "lon": (dims, lon), "time": time}).transpose(*order)
        data.to_netcdf(tmp_path / "a.nc")
        found = read_fixes([tmp_path / "a.nc"], {})
        assert found.names == ["a 0", "a 1", "a 2"]
        np.testing.assert_allclose(np.sort(found.latitude[found.name == "a 1"]), lat[:, 1])


def test_the_variable_that_parts_drifters_names_them(tmp_path):
    hours = np.tile(np.arange(12.0), 2)
    data = {
        "lat": ("obs", 54 + 0.003 * hours + 0.2 * (np.arange(24) > 11)),
        "lon": ("obs", np.full(24, 10.5)),
        "time": ("obs", SECONDS[0] + 3600 * hours, {"units": "seconds since 1970-01-01"}),
        "id": ("obs", np.tile(np.arange(12), 2)),
        "buoy": ("obs", np.repeat([5, 6], 12)),
    }
    assert netcdf(tmp_path, **data).names == ["5", "6"]
    assert len(netcdf(tmp_path, **data | {"id": (*data["id"], {"cf_role": "trajectory_id"})}).names) == 12


def test_a_scalar_platform_names_no_trajectories(tmp_path):
    found = netcdf(tmp_path, platform=((), 0), rowsize=("traj", [2, 4]))
    assert found.names == ["a 0", "a 1"]


def archive(tmp_path, about=None, mask=None, names=("uo", "vo")):
    axes = {"latitude": [0.0, 1.0], "longitude": [0.0, 1.0], "time": ("time", [0.0], {"units": "days since 2010-1-1"})}
    dims, speed = ("time", "latitude", "longitude"), np.full((1, 2, 2), 0.5)
    grid = {name: (dims, speed, {"units": "m s-1", **(about or {})}) for name in names}
    if mask:
        grid["lsm"] = (dims[1:], np.array([[1, 0], [0, 0]], np.int8), mask)
    xr.Dataset(grid, axes).to_netcdf(tmp_path / "a.nc")
    return str(tmp_path / "a.nc")


@pytest.mark.parametrize(
    ("mask", "is_named", "water"),
    [
        ({"flag_values": np.int8([0, 1]), "flag_meanings": "sea land"}, True, False),
        ({"flag_values": np.int8([1, 0]), "flag_meanings": "ocean land"}, True, True),
        ({"standard_name": "land_area_fraction"}, True, False),
        ({"standard_name": "land_binary_mask"}, False, False),
        ({"standard_name": "sea_binary_mask"}, False, True),
        (
            {"standard_name": "sea_binary_mask", "flag_values": np.int8([0, 1]), "flag_meanings": "land sea"},
            False,
            True,
        ),
        ({}, True, True),
    ],
)
def test_masks_have_water_where_their_attributes_say_so(tmp_path, mask, is_named, water):
    found = open_file(archive(tmp_path, mask=mask or {"long_name": "mask"}), Reading(mask="lsm" if is_named else ""))
    np.testing.assert_array_equal(found.mask, np.array([[True, False], [False, False]]) == water)


def test_a_mask_that_contradicts_itself_is_refused(tmp_path):
    mask = {"standard_name": "sea_binary_mask", "flag_values": np.int8([0, 1]), "flag_meanings": "sea land"}
    with pytest.raises(BadInputError, match="which exchange land and sea: repair one of them"):
        open_file(archive(tmp_path, mask=mask))


@pytest.mark.parametrize(
    "about",
    [
        {"long_name": "10 metre U wind component"},
        {"long_name": "Stokes drift U"},
        {"standard_name": "eastward_sea_water_velocity standard_error"},
        {"standard_name": "eastward_sea_water_velocity", "cell_methods": "time: standard_deviation"},
    ],
)
def test_spreads_and_winds_are_no_currents_unless_they_are_named(about):
    grid = xr.Dataset({name: (("y", "x"), [[0.1]], about) for name in ("u", "v")})
    with pytest.raises(BadInputError, match=r"data\.ocean\.eastward and data\.ocean\.northward"):
        find_velocity(grid, "a.nc")
    assert find_velocity(grid, "a.nc", "u", "v")[0]["eastward"].name == "u"


@pytest.mark.parametrize("about", [{"cell_methods": "time: mean"}, {"long_name": "wind-driven and other current"}, {}])
def test_means_are_currents(about):
    grid = xr.Dataset({name: (("y", "x"), [[0.1]], about) for name in ("u", "v")})
    assert find_velocity(grid, "a.nc")[0]["northward"].name == "v"
