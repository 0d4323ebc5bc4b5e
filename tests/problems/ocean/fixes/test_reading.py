"""Fixes in the formats that people have: the same tracks, written in many ways, are read alike."""

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from pcl.errors import BadInputError, DamagedDataError
from pcl.problems.ocean.fixes.cleaning import Rules, cleaned
from pcl.problems.ocean.fixes.reading import read_fixes

START = 1_681_985_089  # 2023-04-20T10:04:49Z
NUM = 12


def tracks():
    """Two drifters, each with fixes every ten minutes and some seconds."""
    rng = np.random.default_rng(0)
    rows = []
    for name, lat, lon in (("11", 54.4, 10.2), ("12", 54.6, 10.6)):
        time = START + np.arange(NUM) * 600 + rng.integers(0, 50, NUM)
        step = np.cumsum(rng.normal(0, 1e-3, (NUM, 2)), 0)
        rows += [(name, t, lat + dy, lon + dx) for t, (dy, dx) in zip(time, step.round(5), strict=True)]
    return pd.DataFrame(rows, columns=["id", "s", "lat", "lon"]).round(5)


TRACKS = tracks()


def stamp(form, zone="UTC"):
    return [pd.Timestamp(s, unit="s", tz="UTC").tz_convert(zone).strftime(form) for s in TRACKS.s]


def csv(path, separator=",", **columns):
    table = pd.DataFrame(columns)
    table.to_csv(path, index=False, sep=separator)
    return path


def check(fixes):
    fixes = cleaned(fixes, Rules())
    assert not fixes.left
    np.testing.assert_array_equal(fixes.name, TRACKS.id)
    np.testing.assert_allclose(fixes.time_s, TRACKS.s, atol=1e-3)
    np.testing.assert_allclose(fixes.latitude, TRACKS.lat, atol=1e-9)
    np.testing.assert_allclose((fixes.longitude - TRACKS.lon + 180) % 360 - 180, 0, atol=1e-9)


FORMS = {
    "ISO with Z": (stamp("%Y-%m-%dT%H:%M:%SZ"), {}),
    "ISO with a space": (stamp("%Y-%m-%d %H:%M:%S"), {}),
    "an offset": (stamp("%Y-%m-%dT%H:%M:%S+02:00", "Etc/GMT-2"), {}),
    "months by name": (stamp("%d-%b-%Y %H:%M:%S"), {}),
    "the day first": (stamp("%d/%m/%Y %H:%M:%S"), {}),
    "the month first": (stamp("%m/%d/%Y %H:%M:%S"), {}),
    "dots": (stamp("%d.%m.%Y %H:%M:%S"), {}),
    "slashes, the year first": (stamp("%Y/%m/%d %H:%M:%S"), {}),
    "before noon": (stamp("%m/%d/%Y %I:%M:%S %p"), {}),
    "nothing between": (stamp("%Y%m%d%H%M%S"), {}),
    "said to be UTC": (stamp("%Y-%m-%d %H:%M:%S UTC"), {}),
    "local time": (stamp("%Y-%m-%d %H:%M:%S", "Europe/Berlin"), {"time_zone": "Europe/Berlin"}),
    "seconds": (TRACKS.s, {}),
    "milliseconds": (TRACKS.s * 1000, {}),
    "parts of seconds": (stamp("%d-%b-%Y %H:%M:%S.000"), {}),
    "parts of some seconds": ([one + ".0" * (i % 2) for i, one in enumerate(stamp("%d/%m/%Y %H:%M:%S"))], {}),
    "months in full": (stamp("%d %B %Y %H:%M:%S"), {}),
    "the month by name first": (stamp("%b-%d-%Y %H:%M:%S"), {}),
    "days of the week": (stamp("%a, %d %b %Y %H:%M:%S +0000"), {}),
    "as C writes it": (stamp("%a %b %d %H:%M:%S %Y"), {}),
    "days of the year": (stamp("%Y-%jT%H:%M:%SZ"), {}),
    "a comma": (stamp("%d/%m/%Y, %H:%M:%S"), {}),
    "a zone in brackets": (stamp("%Y-%m-%d %H:%M:%S (UTC)"), {}),
    "said to be UTC, among local times": (stamp("%d.%m.%Y %H:%M:%S UTC"), {"time_zone": "Europe/Berlin"}),
    "UTC by a letter, among local times": (stamp("%d-%b-%Y %H:%M:%SZ"), {"time_zone": "Europe/Berlin"}),
    "a zone that is an offset": (stamp("%Y-%m-%d %H:%M:%S", "Etc/GMT-2"), {"time_zone": "+02:00"}),
    "days of Matlab": ((TRACKS.s / 86400 + 719_529).map("{:.9f}".format), {"time_units": "matlab"}),
    "days of Excel": ((TRACKS.s / 86400 + 25_569).map("{:.9f}".format), {"time_units": "excel"}),
    "days": (TRACKS.s / 86400 + 7305, {"time_units": "days since 1950-01-01"}),
}


@pytest.mark.parametrize("form", FORMS)
def test_times_are_read_as_they_are_written(tmp_path, form):
    times, options = FORMS[form]
    check(
        read_fixes(
            [csv(tmp_path / "a.csv", ID=TRACKS.id, Time=times, Latitude=TRACKS.lat, Longitude=TRACKS.lon)],
            {},
            **options,
        )
    )


@pytest.mark.parametrize(
    "names",
    [
        ("D_number", "date_UTC", "Latitude", "Longitude"),
        ("drifter_id", "datetime", "lat", "lon"),
        ("Platform ID", "Timestamp (UTC)", "LAT [deg]", "LONG [deg]"),
        ("imei", "GPS time", "gps_lat", "gps_lon"),
    ],
)
def test_columns_are_found_by_their_usual_names(tmp_path, names):
    columns = dict(zip(names, (TRACKS.id, stamp("%Y-%m-%dT%H:%M:%SZ"), TRACKS.lat, TRACKS.lon), strict=True))
    check(read_fixes([csv(tmp_path / "a.csv", battery="GOOD", **columns)], {}))


def test_columns_of_other_names_are_named(tmp_path):
    file = csv(tmp_path / "a.csv", wer=TRACKS.id, wann=TRACKS.s, nord=TRACKS.lat, ost=TRACKS.lon)
    with pytest.raises(BadInputError, match=r"no column that can be a latitude.*wer, wann.*tracks\.latitude=NAME"):
        read_fixes([file], {})
    roles = {"drifter": "wer", "time": "wann", "latitude": "nord", "longitude": "ost"}
    check(read_fixes([file], roles))
    with pytest.raises(BadInputError, match="no column 'Nord'"):
        read_fixes([file], roles | {"latitude": "Nord"})


def test_a_second_row_of_units_is_no_fix(tmp_path):
    file = csv(tmp_path / "a.csv", ID=TRACKS.id, time=TRACKS.s, latitude=TRACKS.lat, longitude=TRACKS.lon)
    head, *rows = file.read_text().splitlines()
    file.write_text("\n".join([head, ",seconds since 1970-01-01T00:00:00Z,degrees_north,degrees_east", *rows]))
    check(read_fixes([file], {}))


def test_semicolons_decimal_commas_and_comments(tmp_path):
    columns = {"ID": TRACKS.id, "time": stamp("%Y-%m-%d %H:%M:%S")}
    places = {key: [f"{x:.5f}".replace(".", ",") for x in TRACKS[key]] for key in ("lat", "lon")}
    file = csv(tmp_path / "a.csv", ";", **columns, **places)
    file.write_text(f"# of a ship\n{file.read_text()}", encoding="utf-8-sig")
    check(read_fixes([file], {}))


def test_parquet_and_longitudes_of_another_turn(tmp_path):
    table = pd.DataFrame({"id": TRACKS.id.astype(int), "time": pd.to_datetime(TRACKS.s, unit="s"), "lat": TRACKS.lat})
    table.assign(lon=TRACKS.lon + 360).sample(frac=1, random_state=0).to_parquet(tmp_path / "a.parquet")
    check(read_fixes([tmp_path / "a.parquet"], {}))


def test_a_file_a_drifter(tmp_path):
    files = []
    for name, part in TRACKS.groupby("id"):
        files.append(csv(tmp_path / f"{name}.csv", time=part.s, lat=part.lat, lon=part.lon))
    check(read_fixes(files, {}))


def attributes(dataset):
    dataset["time"].attrs["units"] = "seconds since 1970-01-01"
    return dataset


def two_dimensional(dims, fill):
    """Arrays of trajectories by observations, the second shorter by what is missing at its end."""
    shape = (2, NUM)
    arrays = {key: TRACKS[key].to_numpy(float).reshape(shape) for key in ("s", "lat", "lon")}
    padded = {key: np.pad(array, ((0, 0), (0, 2)), constant_values=fill) for key, array in arrays.items()}
    named = {"time": padded["s"], "lat": padded["lat"], "lon": padded["lon"]}
    return attributes(xr.Dataset({key: (dims, array) for key, array in named.items()}))


def ragged(**count_attributes):
    data = {"time": ("obs", TRACKS.s.astype(float)), "latitude": ("obs", TRACKS.lat), "longitude": ("obs", TRACKS.lon)}
    data |= {"ID": ("traj", np.array([11, 12])), "rowsize": ("traj", np.array([NUM, NUM]), count_attributes)}
    return attributes(xr.Dataset({key: value for key, value in data.items()}))


@pytest.mark.parametrize(
    "dataset",
    [
        two_dimensional(("trajectory", "obs"), np.nan).assign(trajectory=("trajectory", [11, 12])),
        two_dimensional(("traj", "obs"), 1e36).assign(ID=("traj", [b"11", b"12"])),
        ragged(),
        ragged(sample_dimension="obs"),
        attributes(
            xr.Dataset(
                {
                    "time": ("row", TRACKS.s.astype(float)),
                    "lat": ("row", TRACKS.lat),
                    "lon": ("row", TRACKS.lon),
                    "trajectory": ("row", TRACKS.id.astype(int)),
                }
            )
        ),
    ],
    ids=["Parcels", "filled", "clouddrift", "CF ragged", "an index a row"],
)
def test_trajectories_of_netcdf(tmp_path, dataset):
    dataset.to_netcdf(tmp_path / "a.nc")
    check(read_fixes([tmp_path / "a.nc"], {}))


def test_trajectories_of_a_store(tmp_path):
    two_dimensional(("trajectory", "obs"), np.nan).assign(trajectory=("trajectory", [11, 12])).to_zarr(
        tmp_path / "a.zarr", zarr_format=2
    )
    check(read_fixes([tmp_path / "a.zarr"], {}))


def test_trajectories_by_common_times(tmp_path):
    """OpenDrift: one axis of times, and a status."""
    times = START + 600.0 * np.arange(5)
    place = np.arange(10.0).reshape(2, 5) / 100
    dataset = attributes(
        xr.Dataset(
            {"lat": (("trajectory", "time"), 54 + place), "lon": (("trajectory", "time"), 10 + place)},
            {"time": times, "trajectory": [1, 2]},
        )
    )
    dataset.to_netcdf(tmp_path / "a.nc")
    fixes = read_fixes([tmp_path / "a.nc"], {})
    assert fixes.names == ["1", "2"]
    np.testing.assert_allclose(fixes.time_s, np.tile(times, 2))
    np.testing.assert_allclose(fixes.latitude, 54 + place.ravel())


def test_a_drogue_that_is_lost(tmp_path):
    dataset = ragged()
    dataset["drogue_lost_date"] = ("traj", np.array([np.nan, START + 3000.0]))
    dataset.to_netcdf(tmp_path / "a.nc")
    fixes = read_fixes([tmp_path / "a.nc"], {})
    np.testing.assert_array_equal(fixes.drogued, (TRACKS.id == "11") | (TRACKS.s < START + 3000))
    kept = cleaned(fixes, Rules())
    assert [left.reason for left in kept.left] == ["the drogue was lost"]
    assert len(cleaned(fixes, Rules(needs_drogue=False))) == len(TRACKS)


def test_what_is_no_track_is_refused(tmp_path):
    with pytest.raises(BadInputError, match="is not there"):
        read_fixes([tmp_path / "b.csv"], {})
    (tmp_path / "a.docx").touch()
    with pytest.raises(BadInputError, match="no file of tracks"):
        read_fixes([tmp_path / "a.docx"], {})
    grid = {"time": [0.0], "lat": [0.0, 1.0], "lon": [0.0, 1.0, 2.0]}
    attributes(xr.Dataset({"uo": (("time", "lat", "lon"), np.zeros((1, 2, 3)))}, grid)).to_netcdf(tmp_path / "f.nc")
    with pytest.raises(BadInputError, match="holds fields on a grid and no tracks"):
        read_fixes([tmp_path / "f.nc"], {})
    (tmp_path / "g.nc").write_bytes(b"junk")
    with pytest.raises(DamagedDataError, match="cannot be opened"):
        read_fixes([tmp_path / "g.nc"], {})
    file = csv(tmp_path / "c.csv", id=["a", "b"], time=["01/02/2023 10:00", "03/04/2023 11:00"], lat=[1, 2], lon=[3, 4])
    with pytest.raises(BadInputError, match="day or month first"):
        read_fixes([file], {})
    file = csv(tmp_path / "d.csv", id=["a"], time=["yesterday"], lat=[1], lon=[3])
    with pytest.raises(BadInputError, match="no times that can be read, such as 'yesterday'"):
        read_fixes([file], {})
    file = csv(tmp_path / "e.csv", id=["a"], time=[START], lat=["north"], lon=[3])
    with pytest.raises(BadInputError, match="the column lat holds no numbers, such as 'north'"):
        read_fixes([file], {})
    file = csv(tmp_path / "h.csv", id=["a"], time=[42.0], lat=[1], lon=[3])
    with pytest.raises(BadInputError, match=r"tracks\.time_units"):
        read_fixes([file], {})


def test_date_and_time_of_day_have_columns_of_their_own(tmp_path):
    places = {"id": TRACKS.id, "lat": TRACKS.lat, "lon": TRACKS.lon}
    file = csv(tmp_path / "a.csv", Date=stamp("%Y-%m-%d"), Time=stamp("%H:%M:%S"), **places)
    check(read_fixes([file], {}))
    file = csv(tmp_path / "b.csv", date=stamp("%d.%m.%Y"), time=stamp("%I:%M:%S %p"), **places)
    file.write_text(file.read_text().replace("AM", "").replace(" ,", ","))  # all are before noon
    check(read_fixes([file], {}))
    parts = {"year": "%Y", "month": "%m", "day": "%d", "hour": "%H", "min": "%M", "sec": "%S"}
    file = csv(tmp_path / "c.csv", **{name: stamp(form) for name, form in parts.items()}, **places)
    check(read_fixes([file], {}))


@pytest.mark.parametrize("form", ["%H%M%S", "%H%M", "hours"])
def test_times_of_day_that_are_numbers(tmp_path, form):
    """Leading zeros are lost on the way: 905 is five past nine."""
    day = TRACKS.s % 86_400 // 60 * 60 if form == "%H%M" else TRACKS.s % 86_400
    clocks = (day / 3600).round(6) if form == "hours" else [int(one) for one in stamp(form)]
    columns = {"id": TRACKS.id, "date": stamp("%Y-%m-%d"), "time": clocks, "lat": TRACKS.lat, "lon": TRACKS.lon}
    fixes = read_fixes([csv(tmp_path / "a.csv", **columns)], {})
    np.testing.assert_allclose(fixes.time_s, TRACKS.s - TRACKS.s % 86_400 + day)


def test_days_without_a_time_of_day_are_told(tmp_path):
    file = csv(tmp_path / "a.csv", id=TRACKS.id, date=stamp("%Y-%m-%d"), beat=range(24), lat=TRACKS.lat, lon=TRACKS.lon)
    with pytest.raises(BadInputError, match="the time of day is missing"):
        cleaned(read_fixes([file], {}), Rules())


def test_the_six_hourly_files_of_the_global_drifter_program_have_no_head(tmp_path):
    """Days have decimals: https://www.aoml.noaa.gov/phod/gdp/."""
    file = tmp_path / "buoydata_1_100.dat"
    rows = [
        f" 7702192  3  {1 + i / 4:.3f} 1992  -5.{i:03d}  271.{i:03d} 26.4 1.0 2.0 2.2 1e-6 999.999 1e-4" for i in (0, 1)
    ]
    file.write_text("\n".join(rows))
    fixes = read_fixes([file], {})
    assert fixes.names == ["7702192"]
    start = pd.Timestamp("1992-03-01T00Z").timestamp()
    np.testing.assert_allclose(fixes.time_s, [start, start + 21_600])
    np.testing.assert_allclose(fixes.latitude, [-5.0, -5.001])
    np.testing.assert_allclose(fixes.longitude, [271.0, 271.001])
    file.write_text("1 2 3\n4 5 6\n")
    with pytest.raises(BadInputError, match="no line that names its columns"):
        read_fixes([file], {})


def test_degrees_minutes_and_letters(tmp_path):
    def written(values, letters):
        return [f"{int(x)}° {(x - int(x)) * 60:.8f}' {letters[0]}" for x in values]

    file = csv(
        tmp_path / "a.csv", id=TRACKS.id, time=TRACKS.s, lat=written(TRACKS.lat, "NS"), lon=written(TRACKS.lon, "EW")
    )
    check(read_fixes([file], {}))


@pytest.mark.parametrize("turn", [1, -1])
def test_letters_and_minutes_in_columns_of_their_own(tmp_path, turn):
    points, rows = ("NE", "SW")[turn < 0], {"id": TRACKS.id, "time": TRACKS.s}
    letters = {"": TRACKS.lat, "ns": [points[0]] * len(TRACKS), "lon": TRACKS.lon, "ew": [points[1]] * len(TRACKS)}
    file = csv(tmp_path / "a.csv", **rows, **{name or "lat": value for name, value in letters.items()})
    found = read_fixes([file], {})
    np.testing.assert_allclose(found.latitude, turn * TRACKS.lat)
    np.testing.assert_allclose(found.longitude, turn * TRACKS.lon)
    degrees = {f"{key}_deg": turn * TRACKS[key].astype(int) for key in ("lat", "lon")}
    minutes = {f"{key}_min": (TRACKS[key] % 1 * 60).round(6) for key in ("lat", "lon")}
    found = read_fixes([csv(tmp_path / "b.csv", **rows, **degrees, **minutes)], {})
    np.testing.assert_allclose(found.latitude, turn * TRACKS.lat)
    np.testing.assert_allclose(found.longitude, turn * TRACKS.lon)


def test_places_that_are_no_degrees_are_told(tmp_path):
    """Integers of 1e-7 degrees, and degrees and minutes without anything between them."""
    file = csv(tmp_path / "a.csv", id=TRACKS.id, time=TRACKS.s, lat=TRACKS.lat * 1e7, lon=TRACKS.lon * 1e7)
    with pytest.raises(BadInputError, match=r"such as latitude 5\.4\d*e\+08.*write decimal degrees"):
        cleaned(read_fixes([file], {}), Rules())


def test_radians_of_netcdf(tmp_path):
    dataset = ragged()
    for name, values in (("latitude", TRACKS.lat), ("longitude", TRACKS.lon)):
        dataset[name] = ("obs", np.deg2rad(values.to_numpy()), {"units": "radians"})
    dataset.to_netcdf(tmp_path / "a.nc")
    check(read_fixes([tmp_path / "a.nc"], {}))


def test_other_separators_and_pressed_files(tmp_path):
    columns = {"id": TRACKS.id, "time": TRACKS.s, "lat": TRACKS.lat, "lon": TRACKS.lon}
    for separator, name in ((" ", "a.txt"), ("\t", "a.tsv"), ("|", "b.csv")):
        check(read_fixes([csv(tmp_path / name, separator, **columns)], {}))
    pd.DataFrame(columns).to_csv(tmp_path / "c.csv.gz", index=False)
    check(read_fixes([tmp_path / "c.csv.gz"], {}))
    file = csv(tmp_path / "d.csv", **columns | {"id": "#" + TRACKS.id})
    assert read_fixes([file], {}).names == ["#11", "#12"]
    file = csv(tmp_path / "e.csv", **columns)
    file.write_text(f"# {file.read_text()}")
    check(read_fixes([file], {}))


def test_a_number_of_the_row_is_no_drifter(tmp_path):
    table = {"id": range(len(TRACKS)), "buoy": TRACKS.id, "time": TRACKS.s, "lat": TRACKS.lat, "lon": TRACKS.lon}
    check(read_fixes([csv(tmp_path / "a.csv", **table)], {}))


def test_a_drogue_in_a_table(tmp_path):
    columns = {"ID": TRACKS.id, "time": stamp("%Y-%m-%dT%H:%M:%SZ"), "latitude": TRACKS.lat, "longitude": TRACKS.lon}
    lost = np.where(TRACKS.id == "12", pd.Timestamp(START + 3000, unit="s").strftime("%Y-%m-%dT%H:%M:%SZ"), None)
    fixes = read_fixes([csv(tmp_path / "a.csv", drogue_lost_date=lost, **columns)], {})
    np.testing.assert_array_equal(fixes.drogued, (TRACKS.id == "11") | (TRACKS.s < START + 3000))
    other = read_fixes([tmp_path / "a.csv", csv(tmp_path / "b.csv", **columns)], {})
    np.testing.assert_array_equal(other.drogued, [*fixes.drogued, *[True] * len(TRACKS)])
    flags = np.resize(["1", "0", ""], len(TRACKS))
    fixes = read_fixes([csv(tmp_path / "c.csv", drogue_status=flags, **columns)], {})
    np.testing.assert_array_equal(fixes.drogued, flags != "0")  # what is not known is not left out


@pytest.mark.parametrize("never", ["", "0000/00/00 00:00", "1970-01-01T00:00:00Z", "-1e34", "NaT"])
def test_a_drogue_that_is_not_lost(tmp_path, never):
    """As files of the Global Drifter Program have it."""
    columns = {"ID": TRACKS.id, "time": TRACKS.s, "latitude": TRACKS.lat, "longitude": TRACKS.lon}
    lost = np.where(TRACKS.id == "12", pd.Timestamp(START + 3000, unit="s").strftime("%Y-%m-%dT%H:%M:%SZ"), never)
    fixes = read_fixes([csv(tmp_path / "a.csv", drogue_lost_date=lost, **columns)], {})
    np.testing.assert_array_equal(fixes.drogued, (TRACKS.id == "11") | (TRACKS.s < START + 3000))
    check(read_fixes([csv(tmp_path / "b.csv", drogue_lost_date=never, **columns)], {}))
    dataset = ragged()
    dataset["drogue_lost_date"] = ("traj", np.array([0.0, -1e34]))
    dataset.to_netcdf(tmp_path / "a.nc")
    check(read_fixes([tmp_path / "a.nc"], {}))


@pytest.mark.parametrize("unit", [1e-9, 1e-3, 3600.0])
def test_times_of_netcdf_in_any_unit(tmp_path, unit):
    name = {1e-9: "nanoseconds", 1e-3: "milliseconds", 3600.0: "hours"}[unit]
    dataset = ragged()
    dataset["time"] = ("obs", TRACKS.s.to_numpy() / unit, {"units": f"{name} since 1970-01-01"})
    dataset.to_netcdf(tmp_path / "a.nc")
    check(read_fixes([tmp_path / "a.nc"], {}))


def test_an_indexed_ragged_array_in_any_order(tmp_path):
    order = np.random.default_rng(1).permutation(len(TRACKS))
    rows = TRACKS.iloc[order]
    data = {name: ("obs", rows[key].to_numpy(float)) for name, key in (("t", "s"), ("phi", "lat"), ("lam", "lon"))}
    data["index"] = ("obs", (rows.id == "12").to_numpy(np.int32), {"instance_dimension": "buoys"})
    data["who"] = ("buoys", ["11", "12"], {"cf_role": "trajectory_id"})
    dataset = xr.Dataset(data)
    dataset["t"].attrs |= {"units": "seconds since 1970-01-01", "standard_name": "time"}
    dataset["phi"].attrs["units"], dataset["lam"].attrs["units"] = "degrees_north", "degreeE"
    dataset.to_netcdf(tmp_path / "a.nc")
    check(read_fixes([tmp_path / "a.nc"], {}))


def test_times_may_come_before_trajectories(tmp_path):
    place = np.arange(10.0).reshape(5, 2) / 100
    dims = ("time", "drifter")
    dataset = attributes(
        xr.Dataset({"lat": (dims, 54 + place), "lon": (dims, 10 + place)}, {"time": START + 600.0 * np.arange(5)})
    )
    dataset.to_netcdf(tmp_path / "a.nc")
    fixes = read_fixes([tmp_path / "a.nc"], {})
    assert fixes.names == ["a 0", "a 1"]
    np.testing.assert_allclose(fixes.latitude[fixes.name == "a 1"], 54 + place[:, 1])


@pytest.mark.parametrize("name", ["f.nc", "f.zarr"])
@pytest.mark.parametrize("dims", [("time", "lat", "lon"), ("time", "depth", "lat", "lon"), ("lat", "lon"), ("y", "x")])
def test_fields_are_no_tracks(tmp_path, dims, name):
    shape = [{"time": 1, "depth": 1}.get(dim, 3) for dim in dims]
    dataset = xr.Dataset({"uo": (dims, np.zeros(shape))})
    if "y" in dims:
        places = {"nav_lat": (dims, np.zeros(shape)), "nav_lon": (dims, np.zeros(shape))}
        units = {"nav_lat": "degrees_north", "nav_lon": "degrees_east"}
        dataset = dataset.expand_dims(time=[0.0]).assign_coords(places)
        for place, unit in units.items():
            dataset[place].attrs["units"] = unit
    else:
        dataset = dataset.assign_coords(lat=[0.0, 1.0, 2.0], lon=[0.0, 1.0, 2.0])
    dataset.to_netcdf(tmp_path / name) if name.endswith("nc") else dataset.to_zarr(tmp_path / name, zarr_format=2)
    with pytest.raises(BadInputError, match="holds fields on a grid and no tracks"):
        read_fixes([tmp_path / name], {})


def test_archives_at_hand_are_no_tracks(data_root):
    for path in sorted((data_root / "ocean").glob("*.nc")):
        with pytest.raises(BadInputError, match="holds fields on a grid and no tracks"):
            read_fixes([path], {})


ROWS = "\n".join(
    f"{name},{time},{lat},{lon}"
    for name, time, lat, lon in zip(TRACKS.id, stamp("%Y-%m-%dT%H:%M:%SZ"), TRACKS.lat, TRACKS.lon, strict=True)
)
HEAD = "id,time,lat,lon"
DIALECTS = {
    "lines that end with a carriage return": f"{HEAD}\n{ROWS}\n".replace("\n", "\r"),
    "a title and who made it": f"Drifters of 2023\nInstitute: A, B\n\n{HEAD}\n{ROWS}",
    "comments of another kind": f"% made, by: hand\n// lat and lon\n{HEAD}\n{ROWS}",
    "a head that is a comment": f"% {HEAD}\n{ROWS}",
    "PANGAEA": f"/* DATA:\tLATITUDE: 54 * LONGITUDE: 10\n*/\n{HEAD}\n{ROWS}".replace(",", "\t"),
    "Excel's line of the separator": f"sep=;\n{HEAD}\n{ROWS}".replace(",", ";"),
    "names that hold the separator of others": f"id;time, UTC;lat, deg, N;lon, deg, E\n{ROWS.replace(',', ';')}",
    "separators at the end": f"{HEAD},\n{ROWS}".replace("\n", ",\n"),
    "units in short": f"{HEAD}\n-,UTC,deg,deg\n{ROWS}",
    "units in brackets": f"{HEAD}\n[],[UTC],[°N],[°E]\n{ROWS}",
}


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("dialect", DIALECTS)
def test_dialects_of_text(tmp_path, dialect):
    (tmp_path / "a.csv").write_text(DIALECTS[dialect], newline="")
    names = {"latitude": "lat, deg, N", "longitude": "lon, deg, E"} if "deg, N" in DIALECTS[dialect] else {}
    check(read_fixes([tmp_path / "a.csv"], names))


def test_rows_with_more_values_than_names_are_refused(tmp_path):
    """Decimal commas between commas."""
    rows = "\n".join(f"{row.id},{row.s},{row.lat},{row.lon}".replace(".", ",") for row in TRACKS.itertuples())
    (tmp_path / "a.csv").write_text(f"{HEAD}\n{rows}")
    with pytest.raises(BadInputError, match="its rows have 6, more than the 4 of its head"):
        read_fixes([tmp_path / "a.csv"], {})
    for units in ("", "-,UTC,degrees_north,degrees_east\n"):
        (tmp_path / "b.csv").write_text(f"{HEAD}\n{units}")
        with pytest.raises(BadInputError, match="holds no rows"):
            read_fixes([tmp_path / "b.csv"], {})


def test_units_of_time_in_the_name_of_its_column(tmp_path):
    columns = {"time [days since 1950-01-01]": (TRACKS.s / 86400 + 7305).map("{:.8f}".format)}
    check(read_fixes([csv(tmp_path / "a.csv", id=TRACKS.id, lat=TRACKS.lat, lon=TRACKS.lon, **columns)], {}))


def test_names_of_drifters_are_texts(tmp_path):
    """Twenty digits are more than a number holds, and one name is missing."""
    names = TRACKS.id.map(lambda one: f"890141032111185107{one}").where(TRACKS.index > 0)
    fixes = read_fixes([csv(tmp_path / "a.csv", id=names, time=TRACKS.s, lat=TRACKS.lat, lon=TRACKS.lon)], {})
    assert fixes.names == ["", "89014103211118510711", "89014103211118510712"]
    decimals = csv(tmp_path / "b.csv", id=TRACKS.id + ".0", time=TRACKS.s, lat=TRACKS.lat, lon=TRACKS.lon)
    check(read_fixes([decimals], {}))
