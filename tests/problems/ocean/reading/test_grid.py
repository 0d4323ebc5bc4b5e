"""Latitudes, longitudes and directions: spelled in every way, checked, rectilinear, periodic."""

import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

from pcl.errors import BadInputError
from pcl.problems.ocean.currents import as_slices
from pcl.problems.ocean.reading.grid import check_axis, is_periodic, rectilinear_axes
from pcl.problems.ocean.reanalysis import open_currents
from tests.problems.ocean.test_reanalysis import ALL, assert_same, clean_field, nav_lat, refuse, write

NORTH = ["degrees_north", "degree_north", "degree_N", "degrees_N", "degreeN", "degreesN"]
EAST = [name.replace("north", "east").replace("N", "E") for name in NORTH]


@pytest.mark.parametrize(("north", "east"), zip(NORTH, EAST[2:] + EAST[:2], strict=True))
@pytest.mark.parametrize("names", [("yq", "xq"), ("row", "column"), ("Y", "X")])
def test_every_spelling_of_degrees_tells_what_an_axis_is(tmp_path, clean_currents, north, east, names):
    renamed = clean_field().rename(latitude=names[0], longitude=names[1])
    renamed[names[0]].attrs, renamed[names[1]].attrs = {"units": north}, {"units": east}
    assert_same(open_currents(write(renamed, tmp_path / "a.nc")), clean_currents)


@pytest.mark.parametrize("units", ["degrees", "degree", "", None])
def test_degrees_of_an_axis_with_a_name(tmp_path, clean_currents, units):
    plain = clean_field()
    for axis in ("latitude", "longitude"):
        plain[axis].attrs = {} if units is None else {"units": units}
    assert_same(open_currents(write(plain, tmp_path / "a.nc")), clean_currents)


def changed(axis, change, **attributes):
    clean = clean_field()
    values = np.array(clean[axis].values, np.float64)
    return clean.assign_coords({axis: (axis, change(values), {**clean[axis].attrs, **attributes})})


def at(index, value):
    def change(values):
        values[index] = value
        return values

    return change


BAD_AXES = {
    "radians": (
        changed("latitude", np.radians, units="radians"),
        "latitude is in 'radians': latitude must be in degrees",
    ),
    "rad": (changed("longitude", np.radians, units="rad"), "longitude is in 'rad'"),
    "metres": (changed("longitude", lambda x: 1e5 * x, units="m"), "longitude is in 'm'"),
    "swapped": (changed("latitude", lambda y: y, units="degrees_east"), "latitude is in 'degrees_east'"),
    "beyond the pole": (changed("latitude", lambda y: y + 45), "latitude goes from 90 to 90.6667"),
    "far west": (changed("longitude", lambda x: x - 400), "longitude goes from -401"),
    "missing latitude": (changed("latitude", at(3, np.nan)), "latitude is missing at 1 of 9 points"),
    "missing longitude": (changed("longitude", at(0, np.nan)), "longitude is missing at 1 of 12 points"),
    "infinite": (changed("longitude", at(2, np.inf)), "longitude is missing at 1 of 12 points"),
    "filled": (changed("latitude", at(2, 9.96921e36)), "latitude goes from"),
    "twice": (changed("longitude", at(2, -1.0)), "longitude holds -1 twice"),
    "number for units": (changed("latitude", lambda y: y, units=5), "latitude is in '5'"),
}


@pytest.mark.parametrize("name", BAD_AXES)
def test_axes_that_cannot_be_are_refused(tmp_path, name):
    dataset, message = BAD_AXES[name]
    refuse(write(dataset, tmp_path / "a.nc"), f"a.nc: {message}")


@given(st.lists(st.floats(-90, 90), min_size=2, max_size=6, unique=True), st.data())
@settings(max_examples=60, deadline=None)
def test_an_axis_with_one_bad_value_is_refused(values, data):
    axis = np.array(values)
    check_axis(axis, "latitude", "degrees_north", "a.nc: lat")
    bad = data.draw(
        st.one_of(st.floats(90.1, 1e30), st.floats(-1e30, -90.1), st.sampled_from([np.nan, np.inf, values[0]]))
    )
    axis[-1] = bad
    with pytest.raises(BadInputError, match=r"a\.nc: lat"):
        check_axis(axis, "latitude", "degrees_north", "a.nc: lat")


def beside(dataset, north=0.0, east=0.0, fill=None):
    """Return a dataset with true 2-D coordinates beside its axes, shifted by so many degrees."""
    y, x = np.meshgrid(dataset.latitude, dataset.longitude, indexing="ij")
    y, x = y + north, x + east
    if fill is not None:
        y[:2, :3], x[:2, :3] = fill, fill
    dims = ("latitude", "longitude")
    return dataset.assign(
        geolat=(dims, y, {"units": "degrees_north"}), geolon=(dims, (x + 180) % 360 - 180, {"units": "degrees_east"})
    )


def test_nominal_axes_are_those_of_a_curvilinear_grid(tmp_path):
    clean = clean_field(west=179.5)
    expected = open_currents(write(clean, tmp_path / "clean.nc"))
    for number, fill in enumerate((None, np.nan, 0.0)):
        assert_same(open_currents(write(beside(clean, fill=fill), tmp_path / f"{number}.nc")), expected)
    for name, shift in (("north", {"north": 0.05}), ("east", {"east": -0.3})):
        paths = write(beside(clean, **shift), tmp_path / f"{name}.nc")
        refuse(paths, f"{name}.nc: geolat and geolon lie up to", "a curvilinear grid whose axes are nominal")


ALONG_GRID = [
    "sea_water_{}_velocity",
    "{}_sea_water_velocity",
    "surface_sea_water_{}_velocity",
    "grid_{}ward_sea_water_velocity",
]


def along_grid(form, mapping=None):
    clean = clean_field()
    ends = ("east", "north") if "grid" in form else ("x", "y")
    for name, end in zip(("uo", "vo"), ends, strict=True):
        clean[name].attrs["standard_name"] = form.format(end)
        if mapping:
            clean[name].attrs["grid_mapping"] = "crs"
    return clean.assign(crs=((), 0, {"grid_mapping_name": mapping})) if mapping else clean


@pytest.mark.parametrize("form", ALONG_GRID)
def test_velocities_along_the_grid_need_a_geographic_one(tmp_path, form):
    remedy = "rotate it to east and north first"
    paths = write(along_grid(form), tmp_path / "a.nc")
    refuse(paths, "a.nc: uo is", "along the lines of the model's grid", remedy)
    named = open_currents(paths, eastward="uo", northward="vo")
    np.testing.assert_array_equal(named.load(ALL, ALL, ALL)[0], clean_field()["uo"])
    geographic = open_currents(write(along_grid(form, "latitude_longitude"), tmp_path / "b.nc"))
    np.testing.assert_array_equal(geographic.load(ALL, ALL, ALL)[0], clean_field()["uo"])
    rotated = write(along_grid(form, "rotated_latitude_longitude"), tmp_path / "c.nc")
    refuse(rotated, "c.nc: uo lies on a rotated_latitude_longitude grid", eastward="uo", northward="vo")


def two_dimensional(dataset, order=("y", "x"), fill=None):
    flat = nav_lat(dataset)
    y, x = np.meshgrid(flat.nav_lat.values, flat.nav_lon.values, indexing="ij")
    if fill is not None:
        y[2:5, 3:6], x[2:5, 3:6] = fill, fill
    values = {"nav_lat": xr.DataArray(y, dims=("y", "x")), "nav_lon": xr.DataArray(x, dims=("y", "x"))}
    units = {"nav_lat": "degrees_north", "nav_lon": "degrees_east"}
    return flat.drop_vars(list(values)).assign_coords(
        {name: value.transpose(*order).assign_attrs(units=units[name]) for name, value in values.items()}
    )


@pytest.mark.parametrize("order", [("y", "x"), ("x", "y")])
@pytest.mark.parametrize("fill", [None, np.nan, 0.0])
def test_constant_rows_and_columns_are_a_rectilinear_grid(tmp_path, clean_currents, order, fill):
    assert_same(open_currents(write(two_dimensional(clean_field(), order, fill), tmp_path / "a.nc")), clean_currents)


def test_rows_that_bend_are_no_rectilinear_grid():
    y, x = np.meshgrid(np.arange(4.0), np.arange(5.0), indexing="ij")
    assert rectilinear_axes(y, x) is not None
    assert rectilinear_axes(y + 0.02 * x, x) is None
    assert rectilinear_axes(y, x + 0.02 * y) is None
    y[1] = np.nan
    assert rectilinear_axes(y, x) is None


def test_staggered_and_unstructured_grids_are_refused_by_name(tmp_path):
    clean = clean_field()
    y, x = np.meshgrid(clean.latitude, clean.longitude, indexing="ij")
    u, v = (clean[name].values for name in ("uo", "vo"))
    roms = xr.Dataset(
        {
            "u": (("time", "eta_u", "xi_u"), u[:, :, 1:], {"units": "m s-1"}),
            "v": (("time", "eta_v", "xi_v"), v[:, 1:], {"units": "m s-1"}),
            "lat_u": (("eta_u", "xi_u"), y[:, 1:], {"units": "degree_north"}),
            "lon_u": (("eta_u", "xi_u"), x[:, 1:], {"units": "degree_east"}),
            "lat_v": (("eta_v", "xi_v"), y[1:], {"units": "degree_north"}),
            "lon_v": (("eta_v", "xi_v"), x[1:], {"units": "degree_east"}),
        },
        {"time": clean.time},
    )
    roms.to_netcdf(tmp_path / "roms.nc")
    refuse([str(tmp_path / "roms.nc")], "roms.nc: u lies on lat_u x lon_u, v on lat_v x lon_v, a staggered grid")
    bent = roms[["u", "lat_u", "lon_u"]]
    bent["lat_u"] = bent.lat_u + 0.01 * bent.lon_u
    bent.to_netcdf(tmp_path / "u.nc")
    refuse([str(tmp_path / "u.nc")], "u.nc: lat_u has dimensions", "a staggered grid")
    half = clean["vo"].to_dataset().assign_coords(longitude=clean.longitude + 1 / 24)
    half.longitude.attrs = clean.longitude.attrs
    (tmp_path / "parts").mkdir()
    write(clean[["uo"]], tmp_path / "parts" / "u.nc")
    write(half, tmp_path / "parts" / "v.nc")
    refuse([str(tmp_path / "parts")], "v.nc has another longitude", "u.nc", "a staggered grid")
    nodes = xr.DataArray(np.arange(9), dims="node")
    mesh = clean.isel(latitude=nodes, longitude=nodes)
    refuse(write(mesh, tmp_path / "mesh.nc"), "mesh.nc", "both lie along node, an unstructured grid")


def test_rotated_axes_are_refused_by_name(tmp_path):
    rotated = clean_field().rename(latitude="rlat", longitude="rlon")
    for name, kind in (("rlat", "grid_latitude"), ("rlon", "grid_longitude")):
        rotated[name].attrs = {"units": "degrees", "standard_name": kind}
    refuse(write(rotated, tmp_path / "a.nc"), "a.nc: uo lies along rlat, which is grid_latitude, a rotated")


@given(st.floats(-360, 360), st.sampled_from([0.25, 1 / 12, 1.0, 2.0]))
@settings(max_examples=40, deadline=None)
def test_a_grid_around_the_globe_is_periodic_whatever_its_first_column(west, cell):
    around = west + cell * np.arange(round(360 / cell))
    assert is_periodic(around)
    assert not is_periodic(around[:-1])
    assert not is_periodic(around[: len(around) // 2])


@given(st.integers(-30, 30), st.integers(1, 40), st.integers(3, 12))
@settings(max_examples=100, deadline=None)
def test_columns_beyond_the_seam_are_those_on_the_other_side(first, number, num_columns):
    blocks = as_slices(slice(first, first + number), num_columns, periodic=True)
    found = np.concatenate([np.arange(num_columns)[block] for block in blocks])
    np.testing.assert_array_equal(found, np.arange(first, first + number) % num_columns)


def test_a_window_across_the_seam(tmp_path):
    clean = clean_field(2)
    wide = clean.isel(longitude=slice(None, None, 1)).assign_coords(
        longitude=("longitude", 30.0 * np.arange(12) - 180, {"units": "degrees_east"})
    )
    currents = open_currents(write(wide, tmp_path / "a.nc"))
    assert currents.is_periodic
    whole = currents.load(ALL, ALL, ALL)
    np.testing.assert_array_equal(currents.load(ALL, ALL, slice(10, 15)), np.roll(whole, 2, axis=-1)[..., :5])
    np.testing.assert_array_equal(
        currents.load(ALL, slice(2, 5), slice(-3, 2)), np.roll(whole, 3, axis=-1)[:, :, 2:5, :5]
    )
    np.testing.assert_array_equal(currents.longitudes(slice(-1, 14)), 30.0 * np.arange(-1, 14) - 180)
