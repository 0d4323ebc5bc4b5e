"""Archives as people have them: folders, groups, components in files of their own, tracks, claims, the globe."""

import math
import warnings
from itertools import pairwise

import netCDF4
import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

from pcl.data.manifest import load_manifest
from pcl.data.shards import abandon_build, begin_build, claimed
from pcl.errors import BadInputError, DamagedDataError
from pcl.problems.ocean.reading.file import open_file
from pcl.problems.ocean.reading.paths import find_files
from pcl.problems.ocean.reanalysis import open_currents
from tests.problems.ocean.archives import DAY_S, Archive, make_archive, write_archive
from tests.problems.ocean.test_reanalysis import ALL, assert_same, clean_field, refuse, write
from tests.problems.ocean.test_source import RECORD_PAIRS, build, open_source, write_here  # noqa: F401 - a fixture

# folders


def test_everything_in_a_folder_is_read_or_named(tmp_path):
    clean = clean_field(6)
    for step, name in enumerate(("a.nc", "b.NC", "c.cdf", "d.nc4", "e.NetCDF")):
        write(clean.isel(time=[step]), tmp_path / name)
    clean.isel(time=[5]).to_zarr(tmp_path / "f.zarr", consolidated=False)
    for other in ("readme.txt", "g.nc.part", ".hidden"):
        (tmp_path / other).write_text("nothing")
    (tmp_path / "2011").mkdir()
    currents = open_currents([str(tmp_path)])
    assert_same(currents, open_currents(write(clean, tmp_path / "2011" / "clean.nc")))
    assert {path.rpartition("/")[2] for path in currents.aside} == {"readme.txt", "g.nc.part", ".hidden", "2011"}
    named = find_files([str(tmp_path), str(tmp_path / "2011")])
    assert len(named[0]) == 7
    assert {path.rpartition("/")[2] for path in named[1]} == {"readme.txt", "g.nc.part", ".hidden", "2011"}
    for path in (tmp_path / "*", tmp_path / "2011"):  # a glob that leads to a folder reads what is in it
        assert str(tmp_path / "2011" / "clean.nc") in find_files([str(path)])[0]


def test_what_is_not_read_is_said(tmp_path):
    archive = make_archive(rows=16, columns=20)
    write_archive(tmp_path / "a.nc", archive)
    (tmp_path / "notes.txt").write_text("...")
    lines = open_source(tmp_path).notes(RECORD_PAIRS)
    assert "not read, beside the files: notes.txt" in lines
    assert any("the last 2, from 2000-02-28 00:00" in line for line in lines)  # of 18 test steps windows use 16
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "a.grib").write_text("...")
    refuse([str(tmp_path / "empty")], "no such file", "it holds a.grib")


# groups and files of one component


@pytest.mark.parametrize("suffix", ["nc", "zarr"])
@pytest.mark.parametrize("group", ["currents", "model/surface"])
def test_variables_in_a_group(tmp_path, suffix, group):
    clean = clean_field()
    path = str(tmp_path / f"a.{suffix}")
    if suffix == "nc":
        clean.to_netcdf(path, group=group)
    else:
        clean.to_zarr(path, group=group, consolidated=False)
    expected = open_currents(write(clean, tmp_path / "clean.nc"))
    assert_same(open_currents([path], group=group), expected)
    assert_same(open_currents([path], group=f"/{group}/"), expected)
    refuse([path], f"has no currents outside its groups {group}", "data.ocean.group")
    refuse([path], f"has no group ice, but {group}", group="ice")


def test_a_group_whose_coordinates_lie_around_it(tmp_path):
    clean, path = clean_field(), tmp_path / "a.nc"
    clean.coords.to_dataset().to_netcdf(path)
    stored = {  # land is the default fill, undeclared
        name: (1024 * clean[name].drop_vars(list(clean.coords))).fillna(-32767).astype(np.int16)
        for name in ("uo", "vo")
    }
    packed = {name: values.assign_attrs(scale_factor=1 / 1024, **clean[name].attrs) for name, values in stored.items()}
    options = {name: {"_FillValue": None} for name in packed}
    xr.Dataset(packed).to_netcdf(path, group="g", mode="a", encoding=options)
    expected = open_currents(write(clean, tmp_path / "clean.nc"))
    assert_same(open_currents([str(path)], group="g"), expected)


@given(st.sets(st.integers(1, 11), max_size=3), st.sets(st.integers(1, 11), max_size=3))
@settings(max_examples=15, deadline=None)
def test_components_in_files_of_their_own(tmp_path_factory, cuts_u, cuts_v):
    folder, clean = tmp_path_factory.mktemp("components"), clean_field(12)
    expected = open_currents(write(clean, folder / "clean"))
    for name, cuts in (("uo", cuts_u), ("vo", cuts_v)):
        edges = [0, *sorted(cuts), 12]
        for first, stop in pairwise(edges):
            (folder / name).mkdir(exist_ok=True)
            write(clean[[name]].isel(time=slice(first, stop)), folder / name / f"{stop}.nc")
    assert_same(open_currents([f"{folder}/uo/*.nc", f"{folder}/vo"]), expected)


def test_components_that_do_not_match(tmp_path):
    clean = clean_field(6)
    write(clean[["uo"]], tmp_path / "u.nc")
    write(clean[["vo"]].isel(time=slice(0, 4)), tmp_path / "v.nc")
    refuse([str(tmp_path)], "u.nc: 2 times, the first 1970-01-05 12:00, have eastward but no northward velocity")
    refuse([str(tmp_path / "u.nc")], "u.nc has no northward velocity beside uo", "add the files that hold it")


# what is no field


def test_tracks_are_told_that_they_are_no_fields(tmp_path):
    rows = "".join(f"{i},2020-01-01T00:00:00,{10 + i},{50 + i}\n" for i in range(9))
    (tmp_path / "tracks.csv").write_text("id,time,longitude,latitude\n" + rows)
    refuse([str(tmp_path / "tracks.csv")], "tracks.csv is a table, such as tracks of drifters")
    (tmp_path / "tracks.parquet").write_bytes(b"PAR1" + bytes(100))
    refuse([str(tmp_path / "tracks.parquet")], "tracks.parquet is a table")
    (tmp_path / "a.nc").write_bytes(b"GRIB" + bytes(100))
    refuse([str(tmp_path / "a.nc")], "a.nc is GRIB: convert it")
    along = {name: (("trajectory", "obs"), np.zeros((3, 5))) for name in ("lon", "lat", "z")}
    roles = (
        ({"trajectory": ("trajectory", [1, 2, 3], {"cf_role": "trajectory_id"})}, {}),
        ({}, {"featureType": "trajectory"}),
    )
    for number, (coordinates, attributes) in enumerate(roles):
        path = tmp_path / f"tracks{number}.nc"
        xr.Dataset(along, coordinates, attributes).to_netcdf(path)
        refuse([str(path)], f"tracks{number}.nc holds tracks, not fields")


def test_what_cannot_be_read_is_named(tmp_path):
    (tmp_path / "dead.nc").symlink_to(tmp_path / "nowhere")
    (tmp_path / "login.nc").write_text("<!DOCTYPE html>\n<a>1,2,3</a>\n<a>4,5,6</a>\n")
    for name in ("dead.nc", "login.nc"):
        with pytest.raises(DamagedDataError, match=f"{name} cannot be read"):
            open_file(str(tmp_path / name))


def test_velocities_without_numbers_are_refused(tmp_path):
    clean = clean_field(3)
    words = clean.assign(uo=clean["uo"].astype(str).assign_attrs(clean["uo"].attrs))
    words.to_netcdf(tmp_path / "words.nc")
    refuse([str(tmp_path / "words.nc")], "words.nc: uo is of type", "must hold numbers")
    for name, part in (("time", clean.isel(time=slice(0, 0))), ("rows", clean.isel(latitude=slice(0, 0)))):
        part.to_netcdf(tmp_path / f"{name}.nc")
        refuse([str(tmp_path / f"{name}.nc")], f"{name}.nc: uo has the shape", "leave the file out")


WRONG_TYPES = [5, np.array([1, 2]), "", "nonsense", 1.5]
ATTRIBUTES = ["units", "standard_name", "positive", "axis", "calendar", "_FillValue", "missing_value", "valid_range"]
ATTRIBUTES += ["scale_factor", "add_offset", "coordinates", "grid_mapping", "cell_methods", "_Unsigned", "valid_min"]


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """A file whose variables have no fill values."""
    path, dataset = tmp_path_factory.mktemp("plain") / "a.nc", clean_field(3)
    dataset.to_netcdf(path, encoding={str(key): {"_FillValue": None} for key in dataset.variables})
    return path.read_bytes()


@given(
    st.sampled_from(["uo", "vo", "time", "latitude", "longitude"]),
    st.sampled_from(ATTRIBUTES),
    st.sampled_from(range(len(WRONG_TYPES))),
)
@settings(max_examples=150, deadline=None)
def test_attributes_of_any_type_open_or_end_in_a_line(tmp_path_factory, plain, variable, name, wrong):
    path = tmp_path_factory.mktemp("types") / "a.nc"
    path.write_bytes(plain)
    with netCDF4.Dataset(path, "a") as file:
        try:
            file[variable].setncattr(name, WRONG_TYPES[wrong])
        except Exception:  # the library does not write such a file
            return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the libraries' own, of the attributes
        found = ""
        try:
            open_currents([str(path)], every_step=True).load(ALL, ALL, ALL)
        except (BadInputError, DamagedDataError) as error:
            found = str(error)
    assert not found or (str(path) in found and "\n" not in found)


# what a dry run finds


def refused_by_both(write_here, tmp_path, *arguments):  # noqa: F811
    """Return the line that a dry run and a build end in; neither leaves anything behind."""
    lines = []
    for flag in ((), ("--dry-run",)):
        code, _, errors = write_here(*flag, f"data.shards={tmp_path / 'shards'}", *arguments)
        assert (code, len(errors.splitlines())) == (2, 1), errors
        assert not (tmp_path / "shards").exists()
        lines.append(errors.strip())
    assert lines[0] == lines[1]
    return lines[0]


def test_a_dry_run_refuses_what_the_build_would(write_here, tmp_path):  # noqa: F811
    archive = make_archive(rows=16, columns=20)
    fast = archive.currents.copy()
    fast[0, 33, 3, 3] = 40.0
    path = write_archive(tmp_path / "speed.nc", archive, values=fast)
    assert f"{path}: 40 m s-1 at time step 33" in refused_by_both(write_here, tmp_path, f"data.ocean.paths=[{path}]")
    path = write_archive(tmp_path / "fast.nc", make_archive(rows=16, columns=20, speed=3000))
    line = refused_by_both(write_here, tmp_path, f"data.ocean.paths=[{path}]", "data.ocean.drifters.step_s=21600")
    assert f"{path}: at" in line
    remedy = float(line.split("choose ")[1].split(" s")[0])
    source = open_source(path, step_s=remedy)
    assert np.isfinite(source.pairs("train", 0, 30)["v"][..., 0, :2]).all()
    with pytest.raises(BadInputError, match="crosses"):
        open_source(path, step_s=remedy * 2 if 21_600 % (remedy * 2) == 0 else 21_600.0)


def polar(top, rows=40):
    latitude = top - 0.25 * np.arange(rows)[::-1]
    archive = make_archive(rows=rows, columns=20, speed=50)
    return Archive(archive.thousandths, np.ones_like(archive.water), latitude, archive.longitude, archive.time_s)


def test_a_row_at_the_pole_is_refused_with_a_remedy_that_works(tmp_path):
    path = write_archive(tmp_path / "pole.nc", polar(90.0))
    with pytest.raises(BadInputError, match=r"pole\.nc: at 90 N a current crosses .*cut the region below") as caught:
        open_source(path)
    reach = float(str(caught.value).split("cut the region below ")[1].split(" N")[0])
    with xr.open_dataset(path, decode_times=False) as dataset:
        dataset.sel(latitude=slice(None, reach)).to_netcdf(tmp_path / "cut.nc")
    assert open_source(tmp_path / "cut.nc").num_pairs("train") > 0


def test_rows_that_no_tile_needs_are_not_looked_at(tmp_path):
    archive = polar(90.0, rows=41)
    few = {"tile_points": 8, "tile_stride": 100, "halo_degrees": 1.0, "num_drifters": 1, "num_releases": 1}
    path = write_archive(tmp_path / "pole.nc", archive)
    wanted, _ = build(open_source(path, **few), tmp_path / "clean", 2)
    values = archive.currents.copy()
    values[:, 20, 35:] = 44.0  # no current, in rows that tiles do not see
    wild = write_archive(tmp_path / "wild.nc", archive, values=values)
    assert build(open_source(wild, **few), tmp_path / "one", 2)[0] == wanted
    irregular = archive.latitude.copy()
    irregular[-1] = 89.9
    last = write_archive(
        tmp_path / "last.nc", Archive(archive.thousandths, archive.water, irregular, archive.longitude, archive.time_s)
    )
    assert build(open_source(last, **few), tmp_path / "other", 2)[0] == wanted


def test_a_refusal_leaves_no_claim(tmp_path):
    assert begin_build(tmp_path / "shards", {"config": {"a": 1}, "source": {}})
    with pytest.raises(BadInputError, match="another configuration"):
        begin_build(tmp_path / "shards", {"config": {"a": 2}, "source": {}}, claim=False)
    (tmp_path / "shards" / ".train-000000.tar.17").write_bytes(b"half")
    abandon_build(tmp_path / "shards")
    assert not (tmp_path / "shards").exists()
    assert begin_build(tmp_path / "shards", {"config": {"a": 2}, "source": {}}, claim=False)
    assert not (tmp_path / "shards").exists()
    assert begin_build(tmp_path / "shards", {"config": {"a": 2}, "source": {}})
    (tmp_path / "shards" / "train-000000.tar").write_bytes(b"whole")
    abandon_build(tmp_path / "shards")  # a shard is there: the same command goes on from it
    assert (tmp_path / "shards" / "build.json").is_file()


def test_an_error_before_the_first_shard_gives_the_claim_up(tmp_path):
    def stopped():
        with claimed(tmp_path / "shards", {"config": {}, "source": {}}) as to_build:
            assert to_build
            assert (tmp_path / "shards" / "build.json").is_file()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stopped()
    assert not (tmp_path / "shards").exists()


# around the globe


def globe(first, days=60, cell=2.0, rows=20):
    """Return currents that are smooth around the globe: 1 m/s to the east, and waves."""
    longitude = first + cell * np.arange(round(360 / cell))
    latitude = cell * (np.arange(rows) - rows // 2) + 1
    time, north, east = np.meshgrid(np.arange(days), latitude, longitude, indexing="ij")
    wave = np.round(200 * np.cos(np.radians(3 * east) + 0.1 * time) * np.cos(np.radians(4 * north)))
    thousandths = np.stack([1000 + wave, wave]).astype(np.int16)
    return Archive(thousandths, np.ones(time.shape, bool), latitude, longitude, np.arange(days) * DAY_S)


GLOBAL = {
    "tile_points": 8,
    "tile_stride": 6,
    "halo_degrees": 8.0,
    "num_drifters": 4,
    "step_s": 21_600.0,
    "window_stride": 12,
}


@pytest.fixture(scope="module")
def around(tmp_path_factory):
    folder = tmp_path_factory.mktemp("globe")
    return {
        first: open_source(write_archive(folder / f"{first}.nc", globe(first)), **GLOBAL) for first in (0, -180, 24)
    }


def test_tiles_straddle_the_seam_and_drifters_cross_it(around):
    source = around[0]
    assert source.currents.is_periodic
    columns = np.unique(source.cut.tiles[:, 1])
    np.testing.assert_array_equal(columns, np.arange(0, 180, 6))
    pairs = source.pairs("train", 0, source.pairs_per_window)
    assert np.nansum(pairs["v"][..., 3]) == 0
    inside = pairs["origin"][:, 3] == 6  # elsewhere drifters leave the grid to the north and south
    assert not np.isnan(pairs["v"][inside]).any()  # 3 days at 1.2 m/s are 2.8 degrees: nobody leaves the halo
    straddling = pairs["origin"][:, 4] + 8 > 180
    assert straddling.sum() == 2 * 3  # of columns 174, in three rows of tiles, two releases each
    archive = globe(0)
    for u, origin in zip(pairs["u"], pairs["origin"], strict=True):
        row, column, first = origin[3:].astype(int)
        index = (column + np.arange(8)) % 180
        np.testing.assert_array_equal(u, archive.currents[:, first : first + 4, row : row + 8][..., index])
        assert origin[1] == pytest.approx(column * 2.0 + 7)


def by_hand(longitude, latitude, seconds):
    """Return the velocity of the globe between its points, degrees per second."""
    step, row, column = seconds / DAY_S, (latitude + 19) / 2, (longitude % 360) / 2
    archive = by_hand.archive
    total = np.zeros(2)
    corners = [(int(np.floor(value)), value - np.floor(value)) for value in (step, row, column)]
    for k in (0, 1):
        for i in (0, 1):
            for j in (0, 1):
                weight = math.prod(
                    share if up else 1 - share for (_, share), up in zip(corners, (k, i, j), strict=True)
                )
                if weight:
                    total += (
                        weight * archive.currents[:, corners[0][0] + k, corners[1][0] + i, (corners[2][0] + j) % 180]
                    )
    return total / [111_120 * math.cos(math.radians(latitude)), 111_120]


by_hand.archive = globe(0)


def test_tracks_across_the_seam_are_those_of_a_plain_loop(around):
    source = around[0]
    pairs = source.pairs("train", 0, source.pairs_per_window)
    seam = np.flatnonzero(pairs["origin"][:, 4] + 8 > 180)
    crossed = 0
    for pair in seam:
        origin = pairs["origin"][pair]
        for drifter in pairs["v"][pair].astype(np.float64):
            position, seconds = drifter[0, :2] + origin[1:3], origin[0] - 946_684_800.0
            for record in drifter[1:] if origin[3] == 6 else ():
                k1 = by_hand(*position, seconds)
                k2 = by_hand(*(position + 10_800 * k1), seconds + 10_800)
                k3 = by_hand(*(position + 10_800 * k2), seconds + 10_800)
                k4 = by_hand(*(position + 21_600 * k3), seconds + 21_600)
                position, seconds = position + 3600 * (k1 + 2 * k2 + 2 * k3 + k4), seconds + 21_600
                km = 111.12 * np.abs(record[:2] + origin[1:3] - position).max()
                assert km < 0.01
            crossed += drifter[0, 0] + origin[1] < 360 <= position[0]
    assert crossed > 0


def test_the_first_column_does_not_matter(around):
    """The same water from 0, -180 and 24 degrees east on: the same tiles, wherever they lie against the seam."""
    expected = None
    for first, source in around.items():
        pairs = source.pairs("train", 0, source.pairs_per_window)
        east = np.round(pairs["origin"][:, 1] % 360, 6)
        order = np.lexsort((east, pairs["origin"][:, 2]))[::2]  # two releases share a field
        assert (np.diff(source.currents.longitude) > 0).all(), first
        found = (east[order], pairs["u"][order], source.statistics()["u"])
        if expected is None:
            expected = found
        np.testing.assert_array_equal(found[0], expected[0])
        np.testing.assert_array_equal(found[1], expected[1])
        np.testing.assert_allclose(np.ravel(found[2]["std"]), np.ravel(expected[2]["std"]), rtol=1e-12)


def test_the_manifest_says_that_the_grid_goes_around(around, tmp_path):
    build(around[24], tmp_path / "shards", 2)
    assert load_manifest(tmp_path / "shards").source["grid"]["periodic"] is True
    regional = open_source(write_archive(tmp_path / "a.nc", make_archive(rows=16, columns=20)))
    assert "periodic" not in regional.provenance()["grid"]


def test_land_at_the_seam(tmp_path):
    archive = globe(0)
    archive.water[:, 5:15, :3] = False
    archive.water[:, 5:15, -2:] = False
    source = open_source(write_archive(tmp_path / "a.nc", archive), **GLOBAL)
    pairs = source.pairs("train", 0, source.pairs_per_window)
    seam = pairs["origin"][:, 4] + 8 > 180
    assert np.nansum(pairs["v"][seam][..., 3]) > 0  # drifters that come from the west strand on it
    for wet, origin in zip(pairs["wet"], pairs["origin"], strict=True):
        row, column = origin[3:5].astype(int)
        np.testing.assert_array_equal(wet[0], archive.water[0, row : row + 8][:, (column + np.arange(8)) % 180])


def test_open_file_reads_one_component(tmp_path):
    (path,) = write(clean_field()[["uo"]], tmp_path / "u.nc")
    assert set(open_file(path).components) == {"eastward"}
