"""The depth that is read: metres below the surface, checked against the levels that there are."""

import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

from pcl.errors import BadInputError
from pcl.problems.ocean.reading.depth import choose_level
from pcl.problems.ocean.reanalysis import open_currents
from tests.problems.ocean.test_reanalysis import ALL, both, clean_field, refuse, write

LEVELS = np.array([0.0, 10.0, 50.0])


def with_levels(values, dim="depth", **attributes):
    """Return the clean field at several levels; the current at level k is 1 / 2^k of that at the surface."""
    shares = xr.DataArray(np.float32(0.5) ** np.arange(len(values), dtype=np.float32), dims=dim)
    deep = both(clean_field(), lambda field: (field * shares).transpose("time", dim, "latitude", "longitude"))
    return deep.assign_coords({dim: (dim, values, attributes)})


SPELLINGS = {
    "metres down": ("depth", LEVELS, {"units": "m", "positive": "down"}),
    "metres up": ("depth", -LEVELS, {"units": "m", "positive": "up"}),
    "negative, nothing said": ("z", -LEVELS, {"units": "metres"}),
    "negative though down": ("depth", -LEVELS, {"units": "m", "positive": "down"}),
    "kilometres": ("lev", LEVELS / 1000, {"units": "km", "positive": "down"}),
    "centimetres": ("z_t", LEVELS * 100, {"units": "centimeters", "positive": "down"}),
    "no units": ("depth", LEVELS, {"standard_name": "depth"}),
    "a loose name without units": ("z", -LEVELS, {}),
    "metres below something": ("lev", LEVELS, {"units": "meters below surface"}),
    "single precision": ("depth", np.float32(LEVELS), {"units": "meter"}),
}


@pytest.fixture(scope="module", params=SPELLINGS)
def spelled(request, tmp_path_factory):
    dim, values, attributes = SPELLINGS[request.param]
    return write(with_levels(values, dim, **attributes), tmp_path_factory.mktemp("spelled") / "a.nc")


@pytest.mark.parametrize(("asked", "level"), [(None, 0), (0.0, 0), (4.9, 0), (12.0, 1), (48.0, 2), (70.0, 2)])
def test_the_level_at_a_depth_however_it_is_written(spelled, asked, level):
    currents = open_currents(spelled, depth_m=asked)
    expected = clean_field()["uo"].values * np.float32(0.5) ** level
    np.testing.assert_array_equal(currents.load(ALL, ALL, ALL)[0], expected)
    assert currents.depth_m == pytest.approx(LEVELS[level])


@given(st.lists(st.integers(0, 6000), min_size=2, max_size=8, unique=True), st.floats(0, 8000))
@settings(max_examples=100, deadline=None)
def test_a_level_is_taken_within_half_the_distance_to_its_neighbours(depths, asked):
    dataset = xr.Dataset(
        {"u": ("depth", np.zeros(len(depths)))}, {"depth": ("depth", np.array(depths), {"units": "m"})}
    )
    ordered = np.sort(np.abs(np.array(depths) - asked))
    chosen = depths[int(np.argmin(np.abs(np.array(depths) - asked)))]
    neighbour = min(abs(other - chosen) for other in depths if other != chosen)
    if ordered[0] <= neighbour / 2:
        assert choose_level(dataset, "a.nc", "u", asked).depth_m == chosen
    else:
        with pytest.raises(BadInputError, match=f"no level at .*the nearest is at {chosen} m: choose one of"):
            choose_level(dataset, "a.nc", "u", asked)


def test_a_depth_far_from_every_level_is_refused_with_the_levels(tmp_path):
    paths = write(with_levels(LEVELS, units="m"), tmp_path / "a.nc")
    refuse(paths, "a.nc: depth has no level at data.ocean.depth_m=500", "choose one of 0, 10, 50 m", depth_m=500.0)
    for wrong in (-50.0, np.nan, np.inf):
        refuse(paths, "depth_m", "metres below the surface", depth_m=wrong)
    refuse(paths, "such as 50", depth_m=-50.0)


NO_DEPTHS = {
    "s_rho": (
        [-0.95, -0.5, -0.05],
        {"standard_name": "ocean_s_coordinate_g2", "positive": "up"},
        "ocean_s_coordinate_g2",
    ),
    "sigma": ([0.1, 0.5, 0.9], {"standard_name": "ocean_sigma_coordinate"}, "ocean_sigma_coordinate"),
    "layer": ([1, 2, 3], {"long_name": "layer of the model"}, "layer of the model"),
    "lev": ([1, 2, 3], {}, "no units"),
    "z": ([-0.9, -0.5, -0.1], {}, "no units"),
    "level": ([1.0, 2.0, 3.0], {"units": "1"}, "'1'"),
    "rho": ([20.0, 25.0, 27.0], {"units": "kg m-3", "axis": "Z"}, "kg m-3"),
    "pressure": ([0.0, 10.0, 20.0], {"units": "dbar", "positive": "down"}, "dbar"),
}


@pytest.mark.parametrize("dim", NO_DEPTHS)
@pytest.mark.parametrize("asked", [None, 10.0])
def test_layers_are_no_depths(tmp_path, dim, asked):
    values, attributes, said = NO_DEPTHS[dim]
    paths = write(with_levels(np.array(values), dim, **attributes), tmp_path / "a.nc")
    refuse(paths, f"a.nc: uo has 3 entries along {dim}", said, "no depth in metres", depth_m=asked)


def single(depth_m, **attributes):
    return clean_field().assign_coords(depth=((), depth_m, {"units": "m", "positive": "down", **attributes}))


@pytest.mark.parametrize(("depth_m", "asked", "opens"), [(541.0, 0, False), (541.0, 500, True), (0.494, 0, True)])
def test_a_scalar_depth_is_checked(tmp_path, depth_m, asked, opens):
    paths = write(single(depth_m), tmp_path / "a.nc")
    if opens:
        assert open_currents(paths, depth_m=asked).depth_m == depth_m
    else:
        refuse(paths, "a.nc: uo is at 541 m only, and data.ocean.depth_m=0", depth_m=asked)


def test_a_scalar_depth_that_is_missing_is_not_known(tmp_path):
    paths = write(single(np.nan), tmp_path / "a.nc")
    assert open_currents(paths).depth_m is None
    refuse(paths, "a.nc: uo", "depth", depth_m=10.0)


def test_a_depth_that_is_an_attribute_only(tmp_path):
    clean = clean_field()
    stated = clean.assign({name: clean[name].assign_attrs(depth="15 m") for name in ("uo", "vo")})
    for number, dataset in enumerate(
        (stated, clean.assign_attrs(depth=15.0), clean.assign_attrs(depth_m=np.float32(15)))
    ):
        paths = write(dataset, tmp_path / f"{number}.nc")
        assert open_currents(paths).depth_m == open_currents(paths, depth_m=15.0).depth_m == 15
        refuse(paths, "uo is at 15 m only", depth_m=100.0)
    acdd = clean.assign_attrs(geospatial_vertical_min=0.5, geospatial_vertical_max=0.5)
    assert open_currents(write(acdd, tmp_path / "acdd.nc")).depth_m == 0.5
    refuse(write(clean, tmp_path / "none.nc"), "uo has no depth to compare data.ocean.depth_m=50 with", depth_m=50.0)
    surface = clean.assign(
        uo=clean.uo.assign_attrs(standard_name="surface_eastward_sea_water_velocity"),
        vo=clean.vo.assign_attrs(standard_name="surface_northward_sea_water_velocity"),
    )
    assert open_currents(write(surface, tmp_path / "surface.nc"), depth_m=0.0).depth_m == 0


def test_files_of_one_archive_have_one_depth_and_one_quantity(tmp_path):
    early, late = clean_field().isel(time=slice(3)), clean_field().isel(time=slice(3, 6))
    depth = {"units": "m", "positive": "down"}
    (tmp_path / "depths").mkdir()
    write(early.assign_coords(depth=((), 0.494, depth)), tmp_path / "depths" / "a.nc")
    write(late.assign_coords(depth=((), 541.0, depth)), tmp_path / "depths" / "b.nc")
    refuse([str(tmp_path / "depths")], "b.nc is at 541 m", "a.nc at 0.494 m")
    (tmp_path / "noise").mkdir()
    write(early.assign_coords(depth=((), 0.494, depth)), tmp_path / "noise" / "a.nc")
    write(late.assign_coords(depth=((), np.float32(0.49402), depth)), tmp_path / "noise" / "b.nc")
    assert len(open_currents([str(tmp_path / "noise")]).time_s) == 6
    (tmp_path / "kinds").mkdir()
    geostrophic = {
        name: late[name].assign_attrs(standard_name=f"surface_geostrophic_{towards}_sea_water_velocity")
        for name, towards in (("uo", "eastward"), ("vo", "northward"))
    }
    write(early, tmp_path / "kinds" / "a.nc")
    write(late.assign(geostrophic), tmp_path / "kinds" / "b.nc")
    refuse([str(tmp_path / "kinds")], "b.nc holds surface_geostrophic_eastward_sea_water_velocity", "a.nc eastward_sea")


def test_the_depth_of_the_sea_floor_is_no_level(tmp_path):
    clean = clean_field()
    floor = clean["uo"].isel(time=0, drop=True).fillna(0) * 0 + 4000
    deep = clean.assign(
        depth=floor.assign_attrs(units="m", positive="down", standard_name="sea_floor_depth_below_geoid")
    )
    assert open_currents(write(deep, tmp_path / "a.nc")).depth_m is None


def test_levels_that_go_both_ways_must_say_what_is_up(tmp_path):
    mixed = np.array([-2.0, 10.0, 50.0])
    refuse(write(with_levels(mixed, units="m"), tmp_path / "a.nc"), "a.nc: depth goes from -2 to 50 m", "positive")
    assert (
        open_currents(write(with_levels(mixed, units="m", positive="down"), tmp_path / "b.nc"), depth_m=40.0).depth_m
        == 50
    )
    missing = np.array([0.0, np.nan, 50.0])
    refuse(write(with_levels(missing, units="m"), tmp_path / "c.nc"), "c.nc: depth is missing at some levels")


def test_components_with_axes_of_depth_of_their_own(tmp_path):
    deep = with_levels(LEVELS, units="m", positive="down")
    own = deep[["uo"]].rename(depth="depthu").merge(deep[["vo"]].rename(depth="depthv"))
    found, expected = (
        open_currents(write(dataset, tmp_path / name), depth_m=10.0)
        for name, dataset in (("a.nc", own), ("b.nc", deep))
    )
    np.testing.assert_array_equal(found.load(ALL, ALL, ALL), expected.load(ALL, ALL, ALL))
    shifted = own.assign_coords(depthv=("depthv", LEVELS + 2, {"units": "m"}))
    refuse(write(shifted, tmp_path / "c.nc"), "c.nc: uo is at 10.0 m and vo at 12.0 m", depth_m=10.0)
