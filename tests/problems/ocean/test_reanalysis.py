"""Currents: real samples against a reading by hand, one field in every layout, and what is refused."""

import pickle
import shutil
from collections.abc import Callable
from pathlib import Path

import dask.callbacks
import netCDF4
import numpy as np
import pytest
import xarray as xr

from pcl.errors import BadInputError, DamagedDataError
from pcl.problems.ocean.reading.grid import arrange_longitude, tidy_degrees
from pcl.problems.ocean.reading.names import units_per_metre_per_second
from pcl.problems.ocean.reanalysis import Currents, chunk_advice, open_currents

ALL = slice(None)
EPOCH = "seconds since 1970-01-01"
FILL = 1e20
SAMPLES = {  # names of both components; first time, in hours since 1950-01-01
    "glo12_natl_20210101.nc": ("uo", "vo", 622392),
    "globcurrent_agulhas_2002_daily.nc": (
        "eastward_eulerian_current_velocity",
        "northward_eulerian_current_velocity",
        455832,
    ),
    "glo12_hourly_channel_20260224.nc": ("uo", "vo", 667512),
    "layouts/glo12_50depth_ionian_20241120.nc": ("uo", "vo", 656460),
    "layouts/glo12_hourly_sicily_20260203.nc": ("uo", "vo", 667008),
    "layouts/glorys12v1_coarse_arco_20210629.nc": ("uo", "vo", 626688),
    "layouts/glorys12v1_copernicusmarine_packed_20241201-02.nc": ("uo", "vo", 656712),
    "layouts/glorys12v1_motu_packed_NA_2012.nc": ("uo", "vo", 543492),
    "layouts/hycom_GOMl0.04_expt31.0_20140830.nc": ("u", "v", 566808),
}
INCOMPLETE = {
    "hycom_MT_style_u.nc": "no northward velocity beside u, but u, MT",
    "hycom_tds_water_u.nc": "no northward velocity beside water_u, but water_u, depth",
    "soda2_temp_celtic_1980.nc": "no eastward and no northward velocity, but thetao",
}


def read_by_hand(path: Path, name: str) -> np.ndarray:
    """Unpack the shallowest level of a variable without xarray."""
    with netCDF4.Dataset(path) as file:
        file.set_auto_maskandscale(False)
        variable = file[name]
        stored = variable[:]
        fill = variable.getncattr("_FillValue")
        values = stored.astype(np.float64)
        if "scale_factor" in variable.ncattrs():
            values = values * variable.getncattr("scale_factor") + variable.getncattr("add_offset")
        values[(stored == fill) | ~(np.abs(values) < 1e10)] = np.nan
        if "depth" in variable.dimensions:
            level = int(np.argmin(file["depth"][:]))
            values = np.take(values, level, axis=variable.dimensions.index("depth"))
    return values.reshape(-1, *values.shape[-2:]).astype(np.float32)


@pytest.mark.parametrize("name", SAMPLES)
def test_samples_open_without_options(ocean_root, name):
    u, v, hours = SAMPLES[name]
    currents = open_currents([str(ocean_root / name)])
    expected = np.stack([read_by_hand(ocean_root / name, component) for component in (u, v)])
    np.testing.assert_array_equal(currents.load(ALL, ALL, ALL), expected)
    np.testing.assert_array_equal(currents.wet, np.isfinite(expected).any(axis=(0, 1)))
    assert currents.wet.any()
    seconds_1950_to_1970 = 7305 * 86400
    assert currents.time_s[0] == hours * 3600 - seconds_1950_to_1970
    assert currents.calendar == "standard"
    assert currents.eastward.attrs["units"] == "m s-1"
    assert currents.northward.attrs["standard_name"] == "northward_sea_water_velocity"


@pytest.mark.parametrize("name", INCOMPLETE)
def test_samples_without_both_components_say_what_is_missing(ocean_root, name):
    with pytest.raises(BadInputError) as caught:
        open_currents([str(ocean_root / "layouts" / name)])
    assert_one_line(caught.value, name, INCOMPLETE[name])


def test_equal_products_have_equal_coordinates(ocean_root):
    natl = open_currents([str(ocean_root / "glo12_natl_20210101.nc")])
    channel = open_currents([str(ocean_root / "glo12_hourly_channel_20260224.nc")])
    for axis in ("latitude", "longitude"):
        assert np.isin(getattr(channel, axis), getattr(natl, axis)).all()


def assert_one_line(error: Exception, *parts: str) -> None:
    assert "\n" not in str(error)
    for part in parts:
        assert part in str(error)


# one field in every layout


def clean_field(num_times: int = 6, west: float = -1.0) -> xr.Dataset:
    """Multiples of 1/1024 m s-1, which every encoding below holds exactly, on 1/12 degree; land is NaN."""
    rng = np.random.default_rng(0)
    stored = rng.integers(1, 1000, (2, num_times, 9, 12)) * rng.choice([-1, 1], (2, num_times, 9, 12))
    stored = np.where(rng.random((9, 12)) < 0.3, np.nan, stored / 1024).astype(np.float32)
    grid = ("time", "latitude", "longitude")
    variables = {
        name: (grid, values, {"units": "m s-1", "standard_name": f"{towards}_sea_water_velocity"})
        for name, towards, values in zip(("uo", "vo"), ("eastward", "northward"), stored, strict=True)
    }
    axes = {
        "time": ("time", 86400.0 * np.arange(num_times) + 43200, {"units": EPOCH, "calendar": "standard"}),
        "latitude": ("latitude", 45 + np.arange(9) / 12, {"units": "degrees_north"}),
        "longitude": ("longitude", west + np.arange(12) / 12, {"units": "degrees_east"}),
    }
    return xr.Dataset(variables, axes)


def write(dataset: xr.Dataset, path: Path, **encoding: object) -> list[str]:
    """Write a file whose components are encoded alike, without a fill value unless one is given."""
    per_variable = {str(name): {"_FillValue": None} for name in dataset.variables}
    per_variable |= {name: {"_FillValue": np.float32(np.nan), **encoding} for name in ("uo", "vo") if name in dataset}
    dataset.to_netcdf(path, encoding=per_variable)
    return [str(path)]


def both(dataset: xr.Dataset, change: Callable[[xr.DataArray], xr.DataArray]) -> xr.Dataset:
    """Change both components, and keep their attributes."""
    return dataset.assign({name: change(dataset[name]).assign_attrs(dataset[name].attrs) for name in ("uo", "vo")})


def with_units(dataset: xr.Dataset, units: str) -> xr.Dataset:
    return both(dataset, lambda values: values * np.float32(100)).pipe(
        lambda scaled: scaled.assign({name: scaled[name].assign_attrs(units=units) for name in ("uo", "vo")})
    )


def with_mask(dataset: xr.Dataset, land: float, standard_name: str, name: str = "mask") -> xr.Dataset:
    water = dataset["uo"].notnull().any("time").astype(np.int8)
    values = 1 - water if standard_name == "land_binary_mask" else water
    attributes = {"standard_name": standard_name} if standard_name else {}
    return both(dataset, lambda component: component.fillna(land)).assign({name: values.assign_attrs(attributes)})


def renamed(dataset: xr.Dataset) -> xr.Dataset:
    dataset = dataset.rename(uo="U", vo="V", time="MT", latitude="Latitude", longitude="Longitude")
    for name in ("U", "V"):
        del dataset[name].attrs["standard_name"]
    return dataset.transpose("Longitude", "MT", "Latitude")


def with_depth(dataset: xr.Dataset, positive: str = "down") -> xr.Dataset:
    levels = xr.DataArray([50.0, 0.5, 10.0], dims="lev", attrs={"positive": positive, "units": "m"})
    levels = levels if positive == "down" else (-levels).assign_attrs(levels.attrs)
    factors = xr.DataArray(np.float32([7, 1, 3]), dims="lev", coords={"lev": levels})
    return both(dataset, lambda values: (values * factors).transpose("time", "lev", "latitude", "longitude"))


def nav_lat(dataset: xr.Dataset) -> xr.Dataset:
    return (
        dataset.rename_dims(latitude="y", longitude="x")
        .reset_index(["latitude", "longitude"])
        .rename(latitude="nav_lat", longitude="nav_lon")
    )


def scalar_times(dataset: xr.Dataset, folder: Path) -> list[str]:
    for step in range(dataset.sizes["time"]):
        write(dataset.isel(time=step).rename(time="MT"), folder / f"{'dbface'[step]}.nc")
    return [str(folder)]


def two_files(dataset: xr.Dataset, folder: Path) -> list[str]:
    write(dataset.isel(time=slice(2, None)), folder / "a.nc")
    write(dataset.isel(time=slice(2)), folder / "b.nc")
    return [str(folder / "*.nc")]


def packed(dataset: xr.Dataset, path: Path, scale: float) -> list[str]:
    return write(dataset, path, dtype="int16", scale_factor=scale, _FillValue=np.int16(-32767))


def zarr(dataset: xr.Dataset, path: Path, version: int, **encoding: object) -> list[str]:
    options = {name: {"chunks": (2, 3, 4), **encoding} for name in ("uo", "vo")}
    dataset.to_zarr(path, zarr_format=version, consolidated=version == 2, encoding=options)
    return [str(path)]


LAYOUTS: dict[str, Callable[[xr.Dataset, Path], list[str]]] = {
    "cm s-1": lambda clean, root: write(with_units(clean, "cm s-1"), root / "a.nc"),
    "centimeter/second": lambda clean, root: write(with_units(clean, "centimeter/second"), root / "a.nc"),
    "0..360": lambda clean, root: write(
        clean.assign_coords(longitude=clean.longitude.copy(data=np.float32(clean.longitude % 360))), root / "a.nc"
    ),
    "noisy coordinates": lambda clean, root: write(
        clean.assign_coords(latitude=clean.latitude.copy(data=np.float32(clean.latitude + 1e-5))), root / "a.nc"
    ),
    "north first": lambda clean, root: write(clean.isel(latitude=slice(None, None, -1)), root / "a.nc"),
    "int16": lambda clean, root: packed(clean, root / "a.nc", 1 / 1024),
    "int16 in cm s-1": lambda clean, root: packed(with_units(clean, "cm/s"), root / "a.nc", 100 / 1024),
    "fill 1e20": lambda clean, root: write(clean, root / "a.nc", _FillValue=np.float32(FILL)),
    "undeclared 1e20": lambda clean, root: write(both(clean, lambda u: u.fillna(FILL)), root / "a.nc"),
    "undeclared -9.99e33": lambda clean, root: write(both(clean, lambda u: u.fillna(-9.99e33)), root / "a.nc"),
    "undeclared -30000": lambda clean, root: write(both(clean, lambda u: u.fillna(-30000.0)), root / "a.nc"),
    "undeclared -30000 scaled": lambda clean, root: write(both(clean, lambda u: u.fillna(-30.0)), root / "a.nc"),
    "classic": lambda clean, root: (clean.to_netcdf(root / "a.nc", format="NETCDF3_CLASSIC"), [str(root)])[1],
    "land 0": lambda clean, root: write(both(clean, lambda u: u.fillna(0.0)), root / "a.nc"),
    "land 0, sea mask": lambda clean, root: write(with_mask(clean, 0.0, "sea_binary_mask"), root / "a.nc"),
    "land 99, land mask": lambda clean, root: write(with_mask(clean, 99.0, "land_binary_mask"), root / "a.nc"),
    "land 1e20, sea mask": lambda clean, root: write(with_mask(clean, 1e20, "sea_binary_mask"), root / "a.nc"),
    "renamed, transposed": lambda clean, root: write(renamed(clean), root / "a.nc"),
    "nav_lat": lambda clean, root: write(nav_lat(clean), root / "a.nc"),
    "depths": lambda clean, root: write(with_depth(clean), root / "a.nc"),
    "heights": lambda clean, root: write(with_depth(clean, "up"), root / "a.nc"),
    "scalar time": scalar_times,
    "files out of order": two_files,
    "chunks": lambda clean, root: write(clean, root / "a.nc", chunksizes=(2, 4, 5), zlib=True),
    "zarr 2": lambda clean, root: zarr(clean, root / "a.zarr", 2),
    "zarr 3": lambda clean, root: zarr(clean, root / "a.zarr", 3),
    "zarr 3 shards": lambda clean, root: zarr(clean, root / "a.zarr", 3, shards=(4, 6, 8)),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_gives_the_same_currents(tmp_path, clean_currents, layout):
    clean, expected = clean_field(), clean_currents
    (tmp_path / "layout").mkdir()
    currents = open_currents(LAYOUTS[layout](clean, tmp_path / "layout"))
    assert_same(currents, expected)
    np.testing.assert_array_equal(expected.load(ALL, ALL, ALL), np.stack([clean["uo"], clean["vo"]]))
    np.testing.assert_array_equal(
        currents.load(slice(1, 4), slice(2, 7), slice(3, 5)), expected.load(ALL, ALL, ALL)[:, 1:4, 2:7, 3:5]
    )


def assert_same(currents: Currents, expected: Currents) -> None:
    assert currents.load(ALL, ALL, ALL).tobytes() == expected.load(ALL, ALL, ALL).tobytes()
    for name in ("wet", "time_s", "latitude", "longitude"):
        np.testing.assert_array_equal(getattr(currents, name), getattr(expected, name), err_msg=name)
    for ours, theirs in ((currents.eastward, expected.eastward), (currents.northward, expected.northward)):
        assert ours.dims == ("time", "latitude", "longitude")
        assert ours.dtype == np.float32
        assert ours.attrs["units"] == theirs.attrs["units"] == "m s-1"
        assert ours.attrs["standard_name"] == theirs.attrs["standard_name"]
        assert ours.compute(scheduler="threads").equals(theirs.compute(scheduler="threads"))


def test_decimal_packing_rounds_once(tmp_path):
    thousandths = np.random.default_rng(1).integers(-2000, 2000, (2, 9, 12))
    clean = clean_field(2)
    clean = both(clean, lambda values: values.copy(data=thousandths.astype(np.float32)))
    in_m = both(clean, lambda values: values.copy(data=(thousandths * 0.001).astype(np.float32)))
    expected = open_currents(write(in_m, tmp_path / "m.nc"))
    as_cm = with_units(both(clean, lambda values: values.copy(data=thousandths * 0.001)), "cm/s")
    assert_same(open_currents(packed(as_cm, tmp_path / "cm.nc", 0.1)), expected)
    in_double = as_cm.assign({name: as_cm[name].copy(data=thousandths * 0.1) for name in ("uo", "vo")})
    assert_same(open_currents(write(in_double, tmp_path / "double.nc", _FillValue=np.nan)), expected)


def test_explicit_mask_units_names_and_depth(tmp_path):
    clean = clean_field()
    expected = open_currents(write(clean, tmp_path / "clean.nc"))
    masked = write(with_mask(clean, 5.0, "", "tmask"), tmp_path / "mask.nc")
    assert_same(open_currents(masked, mask="tmask"), expected)
    bare = with_units(clean, "cm/s")
    for name in ("uo", "vo"):
        del bare[name].attrs["units"]
    assert_same(open_currents(write(bare, tmp_path / "bare.nc"), units="cm s-1"), expected)
    beside = clean.assign(a=clean["vo"] * 0.5, b=clean["uo"] * 0.5)
    for name in ("a", "b"):
        beside[name].attrs["units"] = "m/s"
    named = open_currents(write(beside, tmp_path / "named.nc"), eastward="b", northward="a")
    np.testing.assert_array_equal(named.load(ALL, ALL, ALL), expected.load(ALL, ALL, ALL) / 2)
    deep = open_currents(write(with_depth(clean), tmp_path / "deep.nc"), depth_m=12.0)
    np.testing.assert_array_equal(deep.load(ALL, ALL, ALL), expected.load(ALL, ALL, ALL) * 3)


def test_zero_for_a_moment_is_water(tmp_path):
    clean = both(clean_field(), lambda values: values.fillna(0.0))
    clean["uo"][2, 4, 4] = clean["vo"][2, 4, 4] = 0.0
    clean["uo"][3, 4, 4] = 0.5
    assert open_currents(write(clean, tmp_path / "a.nc")).wet[4, 4]
    one = open_currents(write(clean.isel(time=[0]), tmp_path / "one.nc"))
    assert one.wet.all()  # one step of zeros tells nothing


def test_a_mask_of_every_step_is_one_where_it_does_not_change(tmp_path):
    clean = clean_field()
    expected = open_currents(write(clean, tmp_path / "clean.nc"))
    masked = with_mask(clean, 0.5, "sea_binary_mask")
    steps = masked.mask.expand_dims(time=clean.sizes["time"]).assign_attrs(masked.mask.attrs)
    land = steps.where(steps == 1, 5).astype(np.int8).assign_attrs(steps.attrs, valid_range=np.int8([0, 1]))
    for name, mask in (("constant.nc", steps), ("marked.nc", land)):
        assert_same(open_currents(write(masked.assign(mask=mask), tmp_path / name)), expected)


def test_a_mask_that_changes_is_not_used_and_that_is_said(tmp_path):
    masked = with_mask(clean_field(), np.nan, "sea_binary_mask")
    steps = masked.mask.expand_dims(time=6).copy(deep=True).assign_attrs(masked.mask.attrs)
    steps[3, 4, 4] = 1 - steps[3, 4, 4]
    (note,) = open_currents(write(masked.assign(mask=steps), tmp_path / "a.nc")).notes
    assert "a.nc: mask changes in time and is not used" in note


def test_what_a_few_steps_lack_others_may_have(tmp_path):
    clean = clean_field(60)
    seen = np.linspace(0, 59, 8).round().astype(int)
    row, column = np.argwhere(clean["uo"][0].notnull().values)[0]
    for name in ("uo", "vo"):
        clean[name][seen, row, column] = np.nan
    currents = open_currents(write(clean, tmp_path / "a.nc"))
    assert not currents.wet[row, column]
    np.testing.assert_array_equal(currents.load(ALL, ALL, ALL), np.stack([clean["uo"], clean["vo"]]))
    assert open_currents([str(tmp_path / "a.nc")], every_step=True).wet[row, column]


def test_zero_on_land_is_land_even_if_something_else_is_missing(tmp_path):
    clean = clean_field()
    expected = open_currents(write(clean, tmp_path / "clean.nc"))
    zero = both(clean, lambda values: values.fillna(0.0))
    row, column = np.argwhere(expected.wet)[0]
    for name in ("uo", "vo"):
        zero[name][0, row, column] = np.nan
    found = open_currents(write(zero, tmp_path / "zero.nc"))
    np.testing.assert_array_equal(found.wet, expected.wet)
    assert np.isnan(found.load(ALL, ALL, ALL)[:, :, ~expected.wet]).all()


def test_one_missing_component_is_missing_in_both(tmp_path):
    clean = both(clean_field(), lambda values: values.fillna(0.25))
    clean["uo"][2, 4, 4] = np.nan
    window = open_currents(write(clean, tmp_path / "a.nc")).load(ALL, ALL, ALL)
    assert np.isnan(window[:, 2, 4, 4]).all()
    assert np.isnan(window).sum() == 2


@pytest.mark.parametrize("calendar", ["360_day", "noleap"])
def test_model_calendars(tmp_path, calendar):
    clean = clean_field()
    clean["time"] = ("time", 240.5 + np.arange(6), {"units": "months since 1960-01-01", "calendar": calendar})
    if calendar == "noleap":
        clean["time"] = ("time", 7300.0 + np.arange(6), {"units": "days since 1960-01-01", "calendar": "365_day"})
    currents = open_currents(write(clean, tmp_path / "a.nc"))
    assert currents.calendar == calendar
    year, step = (360, 30) if calendar == "360_day" else (365, 1)
    np.testing.assert_array_equal(currents.time_s / 86400, year * 10 + step * (np.arange(6) + (step == 30) / 2))
    np.testing.assert_array_equal(currents.load(ALL, ALL, ALL)[0], clean["uo"])


@pytest.mark.parametrize("convention", [0, -180])
def test_window_across_the_dateline_stays_in_one_piece(tmp_path, convention):
    clean = clean_field(west=179.5)
    expected = open_currents(write(clean, tmp_path / "clean.nc"))
    np.testing.assert_array_equal(expected.longitude, (np.arange(12) + 179.5 * 12) / 12)
    moved = clean.assign_coords(longitude=(clean.longitude - convention) % 360 + convention)
    moved.longitude.attrs["units"] = "degrees_east"
    assert_same(open_currents(write(moved.sortby("longitude"), tmp_path / "a.nc")), expected)


def test_longitudes_of_the_globe_keep_their_first_column():
    for west in (-180.0, -179.5, 0.0, 74.0):
        order, longitude = arrange_longitude(west + np.arange(360.0))
        np.testing.assert_array_equal(order, np.arange(360))
        np.testing.assert_array_equal(longitude, west + np.arange(360.0))
    assert len(arrange_longitude(np.arange(361.0))[1]) == 360  # the column repeated at 360
    np.testing.assert_array_equal(arrange_longitude(np.array([-20.0]))[1], [-20.0])


def test_tidy_degrees_leaves_irregular_grids_alone():
    mercator = np.degrees(np.arctan(np.sinh(np.radians(np.arange(20, 40, 0.04)))))
    np.testing.assert_allclose(tidy_degrees(mercator), mercator, rtol=0, atol=5e-6)
    np.testing.assert_array_equal(tidy_degrees(mercator.astype(np.float32)), tidy_degrees(mercator))


METRES_PER_SECOND = (
    "m/s;m s-1;m s^-1;m s**-1;m.s-1;ms-1;m s⁻¹;M/S;m sec-1;meter second-1;meters/second;metres per second"
)
CENTIMETRES_PER_SECOND = "cm/s;cm s-1;cm s^{-1};cm.s^-1;centimeter/s;centimeter/second;centimetres s-1;cm per sec"


def test_spellings_of_units():
    assert {units_per_metre_per_second(spelling) for spelling in METRES_PER_SECOND.split(";")} == {1.0}
    assert {units_per_metre_per_second(spelling) for spelling in CENTIMETRES_PER_SECOND.split(";")} == {100.0}
    for spelling in ("knots", "m", "s-1", "km/h", "mm s-1", "1", "m2 s-1", "m s-2"):
        assert units_per_metre_per_second(spelling) is None


# what is refused


def refuse(paths: list[str], *parts: str, error: type[Exception] = BadInputError, **options: object) -> None:
    with pytest.raises(error) as caught:
        open_currents(paths, **options).load(ALL, ALL, ALL)
    assert_one_line(caught.value, *parts)


def test_paths_that_lead_nowhere(tmp_path):
    (tmp_path / "empty").mkdir()
    for path in ("missing.nc", "*.nc", "empty"):
        refuse([str(tmp_path / path)], str(tmp_path / path), "no such file")
    refuse([], "no paths")


def test_a_component_that_is_missing(tmp_path):
    clean = clean_field()
    refuse(write(clean.drop_vars("vo"), tmp_path / "a.nc"), "a.nc", "no northward velocity beside uo", "latitude")
    refuse(write(clean, tmp_path / "b.nc"), "b.nc has no variable w", "uo, vo", eastward="w")
    twice = clean.assign(a=clean["uo"], b=clean["uo"]).drop_vars("uo")
    refuse(write(twice, tmp_path / "c.nc"), "c.nc holds several eastward velocities, a, b", "data.ocean.eastward")
    assert open_currents(
        write(clean.assign(other=clean["uo"] * 2), tmp_path / "d.nc")
    ).wet.any()  # uo is the usual name
    refuse(write(clean, tmp_path / "e.nc"), "e.nc has no variable tmask", "data.ocean.mask", mask="tmask")
    refuse(write(clean.assign(tmask=clean["uo"]), tmp_path / "f.nc"), "f.nc", "tmask changes in time", mask="tmask")


def test_units_that_are_missing_or_unknown(tmp_path):
    clean = clean_field()
    clean["vo"].attrs["units"] = "knots"
    refuse(write(clean, tmp_path / "a.nc"), "a.nc", "vo is in 'knots'")
    del clean["vo"].attrs["units"]
    refuse(write(clean, tmp_path / "b.nc"), "b.nc", "vo has no units", "data.ocean.units")
    refuse(write(clean, tmp_path / "c.nc"), "c.nc", "'furlongs'", units="furlongs")


def test_speeds_that_are_no_current(tmp_path):
    clean = clean_field()
    clean["uo"][4, 3, 3] = 40.0
    clean["vo"][4, 3, 3] = 0.0
    write(clean.isel(time=slice(0, 3)), tmp_path / "a.nc")
    write(clean.isel(time=slice(3, 6)), tmp_path / "b.nc")
    refuse([str(tmp_path)], "b.nc: 40 m s-1 at time step 4", "below 10 m s-1")


def test_grids_that_are_not_rectilinear_or_differ(tmp_path):
    clean = clean_field()
    curved = nav_lat(clean)
    curved["nav_lat"] = curved["nav_lat"] + 0.1 * curved["nav_lon"]
    refuse(write(curved, tmp_path / "a.nc"), "a.nc: nav_lat has dimensions ('y', 'x'), a curvilinear grid")
    mesh = clean.isel(
        latitude=xr.DataArray(np.arange(9), dims="node"), longitude=xr.DataArray(np.arange(9), dims="node")
    )
    refuse(write(mesh, tmp_path / "b.nc"), "b.nc", "unstructured grid")
    refuse(write(clean.drop_vars("latitude"), tmp_path / "c.nc"), "c.nc: uo", "has no latitude")
    members = both(clean, lambda values: values.expand_dims(member=3))
    refuse(write(members, tmp_path / "d.nc"), "d.nc: uo has 3 entries along member")
    (tmp_path / "e").mkdir()
    write(clean.isel(time=slice(3)), tmp_path / "e" / "a.nc")
    write(clean.isel(time=slice(3, 6), longitude=slice(1, None)), tmp_path / "e" / "b.nc")
    refuse([str(tmp_path / "e")], "b.nc has another longitude (11 points", "a.nc")


def test_times_that_are_missing_or_out_of_order(tmp_path):
    clean = clean_field()
    refuse(write(clean.isel(time=0).drop_vars("time"), tmp_path / "a.nc"), "a.nc has no time")
    refuse(write(clean.drop_vars("time"), tmp_path / "b.nc"), "b.nc")
    refuse(write(clean.isel(time=[0, 2, 1]), tmp_path / "c.nc"), "c.nc: time does not increase from step 1 to 2")
    write(clean.isel(time=slice(0, 3)), tmp_path / "e.nc")
    monthly = clean.assign_coords(time=("time", np.arange(6.0), {"units": "months since 1960-01-01"}))
    refuse(write(monthly, tmp_path / "g.nc"), "g.nc: time in 'months since 1960-01-01'")
    holes = clean.assign_coords(time=("time", [0, 1, np.nan, 3, 4, 5], {"units": EPOCH}))
    refuse(write(holes, tmp_path / "h.nc"), "h.nc: time is missing at some steps")
    later = clean.assign_coords(time=("time", 1e7 + np.arange(6.0), {"units": EPOCH, "calendar": "noleap"}))
    write(later, tmp_path / "i.nc")
    refuse([str(tmp_path / name) for name in ("e.nc", "i.nc")], "i.nc has the calendar noleap", "e.nc")


@pytest.mark.parametrize("damage", ["text", "empty", "cut", "cut classic", "cut classic header", "no metadata"])
def test_damaged_file_among_good_ones(tmp_path, damage):
    clean = clean_field(12)
    for step, name in enumerate("abc"):
        write(clean.isel(time=slice(4 * step, 4 * step + 4)), tmp_path / f"{name}.nc")
    bad = tmp_path / "b.nc"
    if "classic" in damage:
        bad.unlink()
        clean.isel(time=slice(4, 8)).to_netcdf(bad, format="NETCDF3_CLASSIC", unlimited_dims=["time"])
    content = bad.read_bytes()
    cut = {"cut classic": len(content) - 8, "cut classic header": 100}.get(damage, len(content) * 2 // 3)
    if damage == "no metadata":
        bad.unlink()
        bad = tmp_path / "b.zarr"
        bad.mkdir()
    else:
        bad.write_bytes({"text": b"not found", "empty": b""}.get(damage, content[:cut]))
    refuse([str(tmp_path)], f"{bad} cannot be read", error=DamagedDataError)


@pytest.mark.parametrize("store", ["zarr", "netcdf"])
def test_damaged_chunk_is_named_by_load(tmp_path, store):
    clean = clean_field(24)
    first = write(clean.isel(time=slice(12)), tmp_path / "a.nc")[0]
    late = clean.isel(time=slice(12, 24))
    if store == "zarr":
        path = zarr(late, tmp_path / "b.zarr", 3, chunks=(1, 9, 12))[0]
        damaged = [tmp_path / "b.zarr" / "uo" / "c" / f"{step}" / "0" / "0" for step in range(1, 6)]
    else:
        path = write(late, tmp_path / "b.nc", zlib=True, chunksizes=(1, 9, 12))[0]
        damaged = [tmp_path / "b.nc"]
    currents = open_currents([first, path])
    assert currents.files == ((first, 0), (path, 12))
    assert [currents.file_of(step) for step in (0, 11, 12, 23)] == [first, first, path, path]
    expected = currents.load(slice(0, 12), ALL, ALL)
    for file in damaged:
        content = file.read_bytes()
        middle = len(content) // 2
        file.write_bytes(content[:-7] if store == "zarr" else content[:middle] + bytes(4000) + content[middle + 4000 :])
    np.testing.assert_array_equal(currents.load(slice(0, 12), ALL, ALL), expected)
    with pytest.raises(DamagedDataError) as caught:
        currents.load(slice(8, 24), ALL, ALL)
    assert_one_line(caught.value, f"{path} cannot be read")


def test_a_field_without_water(tmp_path):
    refuse(write(both(clean_field(), lambda values: values * np.nan), tmp_path / "a.nc"), "a.nc holds no water")
    still = both(clean_field(), lambda values: xr.zeros_like(values))
    refuse(write(still, tmp_path / "b.nc"), "b.nc holds no water")


# laziness and chunks


class CountTasks(dask.callbacks.Callback):
    """Count the tasks that Dask runs."""

    def __init__(self) -> None:
        self.num_tasks = 0

    def _pretask(self, key: object, dask: object, state: object) -> None:
        self.num_tasks += 1


def test_opening_reads_a_few_steps_only(tmp_path):
    num_times = 400
    clean = clean_field(num_times)
    paths = zarr(clean, tmp_path / "a.zarr", 3, chunks=(1, 9, 12))
    for chunk in (tmp_path / "a.zarr" / "uo" / "c").iterdir():
        if int(chunk.name) not in np.linspace(0, num_times - 1, 8).round():
            shutil.rmtree(chunk)
            chunk.write_text("never read")
    with CountTasks() as count:
        currents = open_currents(paths)
    assert currents.wet.any()
    assert count.num_tasks < 8 * 20
    assert currents.eastward.shape[0] == num_times
    assert currents.eastward.chunks is not None


def test_a_window_reads_its_own_files_only(tmp_path):
    clean = clean_field(6)
    for step in range(6):
        zarr(clean.isel(time=[step]), tmp_path / f"{step}.zarr", 3, chunks=(1, 9, 12))
    currents = open_currents([str(tmp_path)])
    for step in (0, 4, 5):
        (tmp_path / f"{step}.zarr" / "vo" / "c" / "0" / "0" / "0").write_bytes(b"damaged")
    window = currents.load(slice(1, 4), ALL, slice(3, 7))
    np.testing.assert_array_equal(window[1], clean["vo"][1:4, :, 3:7])
    assert currents.load(slice(3, 3), ALL, ALL).shape == (2, 0, 9, 12)
    with pytest.raises(DamagedDataError, match=r"4\.zarr cannot be read"):
        currents.load(slice(2, 6), ALL, ALL)


def test_chunks_are_those_of_the_file(tmp_path):
    clean = clean_field()
    paths = write(clean, tmp_path / "a.nc", chunksizes=(2, 4, 5))
    assert open_currents(paths).eastward.chunks == ((2, 2, 2), (4, 4, 1), (5, 5, 2))
    shards = zarr(clean, tmp_path / "a.zarr", 3, shards=(4, 6, 8))
    assert open_currents(shards).eastward.chunks == ((4, 2), (6, 3), (8, 4))


def test_currents_travel_to_other_processes(tmp_path):
    currents = open_currents(write(clean_field(), tmp_path / "a.nc"))
    assert_same(pickle.loads(pickle.dumps(currents)), currents)


def test_chunk_advice(tmp_path, ocean_root):
    suits = chunk_advice(open_currents([str(ocean_root / "globcurrent_agulhas_2002_daily.nc")]), 8, 16)
    assert suits.endswith("chunks of 73 x 41 x 81 (time x latitude x longitude): the chunks suit.")
    currents = open_currents([str(ocean_root / "glo12_natl_20210101.nc")])
    assert ".chunk(time=8, latitude=" in chunk_advice(currents, 8, 16)
    # what it advises holds the same currents
    rechunked = xr.Dataset({"uo": currents.eastward, "vo": currents.northward}).chunk(
        time=8, latitude=176, longitude=176
    )
    rechunked.to_zarr(tmp_path / "currents.zarr", consolidated=False)
    again = open_currents([str(tmp_path / "currents.zarr")])
    assert_same(again, currents)
    assert chunk_advice(again, 8, 16).endswith("the chunks suit.")
