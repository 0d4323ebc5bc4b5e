"""Missing values: what netCDF4-python masks is missing, in every type and packing."""

import warnings

import netCDF4
import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st

from pcl.errors import BadInputError
from pcl.problems.ocean.reanalysis import open_currents

ALL = slice(None)
DTYPES = ("i2", "i4", "u2", "f4", "f8")
TIMES, ROWS, COLUMNS = 3, 6, 8


def write(path, stored, attributes, *, dtype, fill=None, **options):
    """Write a field as it is stored, and its attributes; the northward velocity is 0.25 m/s everywhere."""
    sizes = dict(zip(("time", "lat", "lon"), stored.shape, strict=True))
    with netCDF4.Dataset(path, "w", **options) as file:
        for dim, size in sizes.items():
            file.createDimension(dim, size)
            axis = file.createVariable(dim, "f8", (dim,))
            axis.units = {"time": "days since 2010-01-01", "lat": "degrees_north", "lon": "degrees_east"}[dim]
            axis[:] = np.arange(size)
        for name, towards in (("uo", "eastward"), ("vo", "northward")):
            kind = dtype if name == "uo" else "f4"
            variable = file.createVariable(
                name, kind, ("time", "lat", "lon"), fill_value=fill if name == "uo" else None
            )
            variable.set_auto_maskandscale(False)
            variable.setncatts({"units": "m s-1", "standard_name": f"{towards}_sea_water_velocity"})
            variable.setncatts(attributes if name == "uo" else {})
            variable[:] = stored if name == "uo" else 0.25
    return str(path)


def missing(path, **options):
    """Return where our reading has no value; the northward velocity has one everywhere."""
    return np.isnan(open_currents([path], **options).load(ALL, ALL, ALL)[0])


def masked(path):
    """Return where netCDF4-python has no value, and the values."""
    with netCDF4.Dataset(path) as file, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of attributes that it does not use
        found = np.ma.masked_invalid(file["uo"][:])
    return np.ma.getmaskarray(found), found.filled(np.nan)


@st.composite
def stored_fields(draw):
    """Draw a type, a packing, values that stand for missing ones, and a field with some of them."""
    dtype = np.dtype(draw(st.sampled_from(DTYPES)))
    is_integer = dtype.kind in "iu"
    packing = {"scale_factor": 1e-3} if is_integer else {}
    if dtype.kind == "u":
        packing["add_offset"] = -30.0
    generator = np.random.default_rng(draw(st.integers(0, 1000)))
    physical = generator.uniform(-2, 2, (TIMES, ROWS, COLUMNS))
    raw = np.round((physical - packing.get("add_offset", 0)) / packing.get("scale_factor", 1), 0 if is_integer else 3)
    attributes, marks = dict(packing), [netCDF4.default_fillvals[dtype.str[1:]]]
    special = [-9999, -32768, 12345] if dtype.kind == "i" else [1, 7, 65534] if is_integer else [-9.5, 7.25, -99.0]
    if draw(st.booleans()):
        chosen = draw(st.lists(st.sampled_from(special), min_size=1, max_size=3, unique=True))
        other = draw(st.sampled_from([dtype, np.dtype("f8")] if dtype.kind != "u" else [dtype]))
        attributes["missing_value"] = np.array(chosen, other) if len(chosen) > 1 else other.type(chosen[0])
        marks += chosen
    limit = 1.5 / packing.get("scale_factor", 1)
    middle = -packing.get("add_offset", 0) / packing.get("scale_factor", 1)
    low, high = (dtype.type(round(middle + side * limit, 3)) for side in (-1, 1))
    rule = draw(st.sampled_from(["none", "range", "min", "max", "both"]))
    attributes |= {"valid_range": np.array([low, high])} if rule == "range" else {}
    attributes |= {"valid_min": low} if rule in ("min", "both") else {}
    attributes |= {"valid_max": high} if rule in ("max", "both") else {}
    fill = draw(st.sampled_from([None, special[0]]))
    marks += [] if fill is None else [fill]
    raw = raw.astype(dtype)
    where = generator.random(raw.shape) < 0.2
    raw[where] = generator.choice(np.array(marks).astype(dtype), where.sum())
    raw[:, 0] = raw[:, 0] if generator.random() < 0.5 else dtype.type(marks[-1])  # land
    return raw, attributes, dtype, fill


@pytest.mark.long
@given(stored_fields(), st.sampled_from(["NETCDF4", "NETCDF4_CLASSIC"]))
@settings(max_examples=120, deadline=None)
def test_what_netcdf_masks_is_missing(tmp_path_factory, field, form):
    raw, attributes, dtype, fill = field
    unsigned = dtype.kind == "u" and form == "NETCDF4_CLASSIC"  # a type that this form does not have
    path = tmp_path_factory.mktemp("values") / "a.nc"
    path = write(path, raw, attributes, dtype=dtype, fill=fill, format="NETCDF4" if unsigned else form)
    mask, values = masked(path)
    ours = open_currents([path]).read(ALL, ALL, ALL)[0]
    assert np.isnan(ours[mask]).all()
    plausible = ~mask & (np.abs(values) < 10)  # what is no current is refused, or known as a fill by habit
    np.testing.assert_allclose(ours[plausible], values[plausible], rtol=1e-6, atol=1e-6)


def field():
    return np.round(np.random.default_rng(0).uniform(-1, 1, (TIMES, ROWS, COLUMNS)), 3)


BOX = (ALL, slice(0, 2), slice(0, 3))


@pytest.mark.parametrize(
    ("dtype", "land", "attributes"),
    [
        ("i2", -32767, {"scale_factor": 1e-3}),  # the default fill, undeclared
        ("i2", -30000, {"scale_factor": 1e-3, "missing_value": np.array([-30000.0, -32768.0])}),
        ("i2", 4000, {"scale_factor": 1e-3, "missing_value": 4.0000001}),  # unpacked: no whole number
        ("i2", 4000, {"scale_factor": 1e-3, "valid_max": np.int16(3000)}),
        ("i2", 4000, {"scale_factor": 1e-3, "valid_range": np.int16([-3000, 3000])}),
        ("i2", 4000, {"scale_factor": 1e-3, "valid_range": np.float64([-3000, 3000])}),
        ("i2", -4000, {"scale_factor": -1e-3, "valid_min": np.int16(-3000)}),  # turned round
        ("f4", 9.0, {"valid_max": 5.0}),
        ("f4", -9.99, {"missing_value": -9.99}),  # double: no number of single precision equals it
        ("f4", -9.99, {"missing_value": "-9.99"}),
        ("f4", 7.5, {"valid_range": np.float32([-1.23456789, 1.23456789])}),
        ("f8", 8.0, {"missing_value": np.array([1e20, 8.0])}),
    ],
)
def test_land_that_is_marked_is_land(tmp_path, dtype, land, attributes):
    stored = field() / (attributes.get("scale_factor", 1) if "scale_factor" in attributes else 1)
    stored[BOX] = land
    path = write(tmp_path / "a.nc", stored, attributes, dtype=dtype)
    expected = np.zeros(stored.shape, bool)
    expected[BOX] = True
    np.testing.assert_array_equal(missing(path), expected)
    np.testing.assert_array_equal(open_currents([path], every_step=True).wet, ~expected[0])


def test_the_extremes_of_some_field_are_no_limits(tmp_path):
    """HYCOM writes as valid_range what one field went from and to: faster currents than those are currents."""
    stored = field()
    stored[0, 0, 0] = -1.8722398
    path = write(tmp_path / "a.nc", stored, {"valid_range": np.float32([-1.0337982, 2.039324])}, dtype="f4")
    assert not missing(path).any()
    (note,) = open_currents([path]).notes
    assert note.startswith(f"{path}: the valid range of uo, -1.033798 to 2.039324, looks like extremes")
    stored[0, 0, 1] = -9.0
    limits = {"valid_range": np.float32([-1.0337982, 2.0])}
    assert missing(write(tmp_path / "b.nc", stored, limits, dtype="f4")).sum() == 2


def test_a_file_that_was_told_not_to_fill_may_hold_the_number(tmp_path):
    stored = np.round(field() / 1e-3)
    stored[BOX] = -32767
    path = write(
        tmp_path / "a.nc", stored * 0 - 32767 + np.arange(COLUMNS), {"scale_factor": 1e-5}, dtype="i2", fill=False
    )
    assert not missing(path).any()


@pytest.mark.parametrize(
    ("attributes", "parts"),
    [
        ({"scale_factor": "a thousandth"}, ("scale_factor is 'a thousandth'", "must be a number")),
        ({"scale_factor": np.array([1.0, 2.0])}, ("scale_factor", "must be a number")),
        ({"scale_factor": 0.0}, ("scale_factor is", "no scale is 0")),
        ({"scale_factor": np.nan}, ("scale_factor is", "must be a number")),
        (
            {"scale_factor": 1e-3, "valid_range": np.float64([-5, 5])},
            ("valid range is -0.005 to 0.005", "stored units"),
        ),
    ],
)
def test_attributes_that_cannot_be_are_named(tmp_path, attributes, parts):
    path = write(tmp_path / "a.nc", field() * 100, attributes, dtype="i2")
    with pytest.raises(BadInputError) as caught:
        open_currents([path])
    for part in (f"{path}: uo", *parts):
        assert part in str(caught.value)


UNSIGNED = {"scale_factor": 0.01, "add_offset": -1.0, "_Unsigned": "true"}


@pytest.mark.parametrize(
    ("dtype", "land", "attributes", "fill"),
    [
        ("u1", 128, {"scale_factor": 0.01, "_Unsigned": "false"}, np.uint8(128)),  # signed bytes as OPeNDAP has them
        (
            "i1",
            -1,
            {"scale_factor": 0.01, "add_offset": -1.0, "_Unsigned": "true", "missing_value": np.int16(255)},
            None,
        ),
        ("i1", -1, {"scale_factor": 0.01, "add_offset": -1.0, "_Unsigned": "true"}, np.int8(-1)),
    ],
)
def test_integers_that_are_meant_to_have_another_sign(tmp_path, dtype, land, attributes, fill):
    physical = np.round(field(), 2)
    raw = np.round((physical - attributes.get("add_offset", 0)) / 0.01)
    stored = raw.astype("i1" if attributes["_Unsigned"] == "false" else "u1").view(dtype).copy()
    stored[BOX] = np.array(land).astype(dtype)
    path = write(tmp_path / "a.nc", stored, attributes, dtype=dtype, fill=fill)
    ours = open_currents([path]).load(ALL, ALL, ALL)[0]
    expected = physical.copy()
    expected[BOX] = np.nan
    np.testing.assert_allclose(ours, expected, rtol=0, atol=1e-6)


def test_a_scale_that_is_text_is_a_number(tmp_path):
    stored = np.round(field() / 1e-3)
    texts = write(tmp_path / "a.nc", stored, {"scale_factor": "0.001"}, dtype="i2")
    numbers = write(tmp_path / "b.nc", stored, {"scale_factor": 0.001}, dtype="i2")
    ours, theirs = (open_currents([path]).load(ALL, ALL, ALL) for path in (texts, numbers))
    np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("form", [2, 3])
@pytest.mark.parametrize("packed", [False, True])
def test_a_chunk_of_a_store_that_was_never_written_is_missing(tmp_path, form, packed):
    """Its fill value is 0, as it is unless somebody chooses another: no current, where chunks are lacking."""
    root = zarr.open_group(tmp_path / "a.zarr", mode="w", zarr_format=form)
    fields = {name: np.round(field() / (1e-3 if packed else 1)) for name in ("uo", "vo")} if packed else None
    fields = fields or {name: field().astype(np.float32) for name in ("uo", "vo")}
    fields["uo"][0, 0, :3] = fields["vo"][0, 0, 2] = 0  # written: currents like others
    axes = {"time": np.arange(TIMES), "lat": np.arange(ROWS), "lon": np.arange(COLUMNS)}
    units = {"time": "days since 2010-01-01", "lat": "degrees_north", "lon": "degrees_east"}
    for name, values in (axes | fields).items():
        dims = [name] if name in axes else ["time", "lat", "lon"]
        chunks = values.shape if name in axes else (1, 3, 4)
        dtype = np.float64 if name in axes else np.int16 if packed else np.float32
        extra = {"dimension_names": dims} if form == 3 else {}
        array = root.create_array(name, shape=values.shape, chunks=chunks, dtype=dtype, fill_value=0, **extra)
        array[...] = values.astype(dtype)
        array.attrs.update({"units": units.get(name, "m s-1")} | ({"_ARRAY_DIMENSIONS": dims} if form == 2 else {}))
        array.attrs.update({"scale_factor": 1e-3} if packed and name in fields else {})
    whole = open_currents([str(tmp_path / "a.zarr")]).load(ALL, ALL, ALL)
    assert np.isfinite(whole).all()
    assert (whole[0, 0, 0, :3] == 0).all()
    lacking = tmp_path / "a.zarr" / "uo" / ("1.0.1" if form == 2 else "c/1/0/1")
    lacking.unlink()
    cut = open_currents([str(tmp_path / "a.zarr")]).load(ALL, ALL, ALL)
    assert np.isnan(cut[:, 1, :3, 4:]).all()
    np.testing.assert_array_equal(cut[:, 2], whole[:, 2])
