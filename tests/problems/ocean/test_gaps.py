"""Values that are missing for a moment: bridged in time, never land; drifters in longer gaps are lost."""

import math
from dataclasses import replace

import numpy as np
import pytest
import xarray as xr
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st

from pcl.problems.ocean.gaps import bridge
from tests.problems.ocean.archives import DAY_S, make_archive, write_archive
from tests.problems.ocean.test_source import RECORD_PAIRS, build, open_source

HOUR_S = 3600.0


def bridged_one_by_one(values, time_s, longest_s):
    """Return a series with its short gaps filled, value by value."""
    filled, there = values.copy(), np.flatnonzero(np.isfinite(values))
    for step in np.flatnonzero(np.isnan(values)):
        before, after = there[there < step], there[there > step]
        if len(before) and len(after) and time_s[after[0]] - time_s[before[-1]] <= longest_s:
            filled[step] = np.interp(time_s[step], time_s[there], values[there])
    return filled


@given(st.integers(0, 10_000), st.floats(0, 0.9), st.floats(0, 8), st.integers(1, 12))
@settings(max_examples=60, deadline=None)
def test_gaps_are_bridged_as_one_by_one(seed, share, longest_s, num_times):
    generator = np.random.default_rng(seed)
    time_s = np.cumsum(generator.uniform(0.5, 2, num_times))
    field = generator.normal(size=(2, num_times, 3, 4))
    field[:, generator.random(field.shape[1:]) < share] = np.nan
    water = generator.random((3, 4)) < 0.8
    found = bridge(field, time_s, water, longest_s)
    for component in range(2):
        for row, column in np.ndindex(3, 4):
            series = field[component, :, row, column]
            expected = bridged_one_by_one(series, time_s, longest_s) if water[row, column] else series
            np.testing.assert_allclose(found[component, :, row, column], expected, rtol=1e-12, atol=1e-12)


@pytest.fixture(scope="module")
def steady():
    """Currents that are linear in time: what is interpolated in time is what was there."""
    archive = make_archive(days=50, rows=20, columns=24)
    slope, start = archive.currents[:, 10] - archive.currents[:, 20], archive.currents[:, 0]
    rates = slope[:, None] * np.linspace(0, 1, 50, dtype=np.float32)[:, None, None]
    return archive, start[:, None] / 2 + rates / 2


def with_gaps(values, gaps):
    damaged = values.copy()
    damaged[:, gaps] = np.nan
    return damaged


def km_apart(one, other):
    """Return how far drifters of the same pairs are apart, km, NaN where one is missing."""
    moved = (one["v"] - other["v"])[..., :2].astype(np.float64) * 111.12
    moved[..., 0] *= np.cos(np.radians(one["v"][..., 2]))
    return np.hypot(moved[..., 0], moved[..., 1])


@given(st.integers(0, 10_000), st.sampled_from([0.01, 0.05, 0.3]))
@settings(max_examples=8, deadline=None)
def test_pairs_with_momentary_gaps_are_those_of_the_clean_archive(tmp_path_factory, steady, seed, share):
    archive, values = steady
    folder = tmp_path_factory.mktemp("gaps")
    gaps = np.random.default_rng(seed).random(archive.water.shape) < share
    gaps[[0, -1]] = gaps[::5] = False  # nothing lies beyond the ends, and no gap is longer than five days
    clean = open_source(write_archive(folder / "clean.nc", archive, values=values))
    damaged = open_source(
        write_archive(folder / "damaged.nc", archive, values=with_gaps(values, gaps)), max_gap_hours=24 * 6
    )
    np.testing.assert_array_equal(damaged.currents.wet, archive.water[0])
    np.testing.assert_array_equal(damaged.cut.tiles, clean.cut.tiles)
    expected, found = clean.pairs("train", 0, 60), damaged.pairs("train", 0, 60)
    np.testing.assert_array_equal(found["wet"], expected["wet"])
    np.testing.assert_array_equal(found["origin"], expected["origin"])
    np.testing.assert_allclose(found["u"], expected["u"], rtol=0, atol=1e-6)
    np.testing.assert_array_equal(found["v"][..., 3], expected["v"][..., 3])
    assert np.nanmax(km_apart(found, expected)) < 0.01
    share_printed = 1 - np.isfinite(with_gaps(values, gaps)[0][:, archive.water[0]]).mean()
    assert damaged.currents.survey.gaps == pytest.approx(share_printed, abs=1e-9)
    assert f"gaps: {100 * share_printed:.2g} % of the values in water" in "\n".join(damaged.notes(RECORD_PAIRS))


def test_no_drifter_runs_aground_in_open_ocean(tmp_path):
    archive = make_archive(rows=20, columns=24)
    open_ocean = replace(archive, water=np.ones_like(archive.water))
    gaps = np.random.default_rng(0).random(archive.water.shape) < 0.05
    path = write_archive(tmp_path / "radar.nc", open_ocean, values=with_gaps(open_ocean.currents, gaps))
    source = open_source(path, halo_degrees=6.0)
    assert source.currents.wet.all()
    pairs = source.pairs("train", 0, 60)
    assert pairs["wet"].all()
    assert np.nansum(pairs["v"][..., 3]) == 0
    without = open_source(path, halo_degrees=6.0, max_gap_hours=0.0).pairs("train", 0, 60)
    assert np.nansum(without["v"][..., 3]) == 0
    assert np.isnan(without["u"]).mean() == pytest.approx(0.05, abs=0.01)


def test_a_patch_that_is_missing_for_long_loses_drifters_and_strands_none(tmp_path):
    archive = make_archive(rows=20, columns=24)
    open_ocean = replace(archive, water=np.ones_like(archive.water))
    gaps = np.zeros(archive.water.shape, bool)
    gaps[4:20, 8:14, 8:16] = True
    clean = open_source(write_archive(tmp_path / "clean.nc", open_ocean), window_stride=1)
    path = write_archive(tmp_path / "ice.nc", open_ocean, values=with_gaps(open_ocean.currents, gaps))
    damaged = open_source(path, window_stride=1)
    expected, found = (source.pairs("train", 0, source.num_pairs("train")) for source in (clean, damaged))
    assert np.nansum(found["v"][..., 3]) == 0
    assert found["wet"].all()
    lost = np.isnan(found["v"][..., 0])
    assert lost.any()
    assert not lost.all()
    assert (np.diff(lost.astype(int), axis=2) >= 0).all()  # for good
    places = expected["v"][..., :2] + expected["origin"][:, None, None, 1:3]
    cells = (places - [archive.longitude[0], archive.latitude[0]]) / 0.25
    beside = (cells >= [8 - 2, 8 - 2]) & (cells <= [15 + 2, 13 + 2])
    near = beside.all(-1).any(-1) & (found["v"][:, :, 0, :2] == expected["v"][:, :, 0, :2]).all(-1)
    far = ~beside.all(-1).any(-1) & (found["v"][:, :, 0, :2] == expected["v"][:, :, 0, :2]).all(-1)
    assert far.sum() > 200
    np.testing.assert_array_equal(
        found["v"][far], expected["v"][far]
    )  # every bit: what is missing elsewhere is nothing
    assert (lost.any(-1) & ~np.isnan(expected["v"][..., -1, 0]) & near).any()


@given(st.sets(st.integers(0, 59), min_size=1, max_size=4), st.sampled_from([np.nan, 0.0, 1e20]))
@settings(max_examples=8, deadline=None)
def test_a_missing_day_breaks_the_time_axis_as_a_hole_does(tmp_path_factory, days, value):
    folder, archive = tmp_path_factory.mktemp("day"), make_archive(rows=16, columns=20, speed=100)
    values = archive.currents.copy()
    values[:, sorted(days)] = value
    settings = {"window_steps": 3, "window_stride": 3, "gap_days": 4.0, "test_fraction": 0.4}
    settings |= {"num_drifters": 1, "num_releases": 1, "record_s": DAY_S, "step_s": DAY_S}
    damaged = open_source(write_archive(folder / "damaged.nc", archive, values=values), **settings)
    kept = np.setdiff1d(np.arange(60), sorted(days))
    holes = open_source(write_archive(folder / "holes.nc", archive, times=kept), **settings)
    assert build(damaged, folder / "one", 2)[0] == build(holes, folder / "other", 2)[0]
    line = next(line for line in damaged.notes(RECORD_PAIRS) if "no point has a current" in line)
    for day in sorted(days):
        date = np.datetime64("2000-01-01") + day
        assert f"{date} 00:00 in {folder / 'damaged.nc'}" in line


def test_a_day_of_zeros_is_missing_where_a_mask_is_given_as_well(tmp_path):
    archive = make_archive(rows=16, columns=20)
    zeros = np.where(archive.water, archive.currents, np.float32(0))
    zeros[:, 7] = 0
    path = write_archive(tmp_path / "zeros.nc", archive, values=zeros)
    mask = (("latitude", "longitude"), archive.water[0].astype(np.int8), {"standard_name": "sea_binary_mask"})
    with xr.open_dataset(path, decode_times=False) as dataset:
        dataset.assign(mask=mask).to_netcdf(tmp_path / "masked.nc")
    source = open_source(tmp_path / "masked.nc")
    assert [time_s for _, time_s in source.currents.survey.left_out] == [946_684_800.0 + 7 * DAY_S]
    np.testing.assert_array_equal(source.currents.wet, archive.water[0])


def test_a_training_period_without_a_current_is_refused_when_files_are_opened(tmp_path):
    archive = make_archive(rows=17, columns=21)
    open_ocean = replace(archive, water=np.ones_like(archive.water))
    gaps = np.zeros(archive.water.shape, bool)
    gaps[:45, :16, :20] = True  # until then only the last row and column, which are in no tile, are known
    path = write_archive(tmp_path / "late.nc", open_ocean, values=with_gaps(open_ocean.currents, gaps))
    with pytest.raises(ValueError, match=r"late\.nc: no tile has a current in the training period"):
        open_source(path, tile_stride=4)


def test_windows_need_no_step_beyond_them_where_nothing_is_missing(tmp_path):
    source = open_source(write_archive(tmp_path / "clean.nc", make_archive(rows=16, columns=20)))
    assert source.cut.margin == 0


def test_the_longest_gap_stays_within_the_gap_between_training_and_test(tmp_path):
    path = write_archive(tmp_path / "clean.nc", make_archive(rows=16, columns=20))
    with pytest.raises(ValueError, match=r"max_gap_hours=145 is longer than data\.ocean\.gap_days=6"):
        open_source(path, max_gap_hours=145.0)


def test_zeros_of_a_zarr_store_are_water_though_its_fill_value_is_zero(tmp_path):
    """The second format has a fill value always: an exact zero of one component is a current like any other."""
    archive = make_archive(rows=16, columns=20)
    archive.thousandths[0, 5:50:3, 2:9] = 0
    clean = write_archive(tmp_path / "clean.nc", archive)
    zeros = np.where(archive.water, archive.currents, np.float32(0))
    write_archive(tmp_path / "fill.zarr", archive, values=zeros, encoding={"chunks": (10, 8, 10)})
    root = zarr.open_group(tmp_path / "fill.v2.zarr", mode="w", zarr_format=2)
    with xr.open_dataset(tmp_path / "fill.zarr", engine="zarr", decode_cf=False, consolidated=False) as dataset:
        for name, variable in dataset.variables.items():
            array = root.create_array(name, shape=variable.shape, dtype=variable.dtype, fill_value=0)
            array[...] = variable.values
            attributes = {key: value for key, value in variable.attrs.items() if key != "_FillValue"}
            array.attrs.update({"_ARRAY_DIMENSIONS": list(variable.dims), **attributes})
    source = open_source(tmp_path / "fill.v2.zarr")
    assert source.currents.survey.gaps == 0
    assert build(source, tmp_path / "one")[0] == build(open_source(clean), tmp_path / "other")[0]


def test_statistics_are_of_what_is_known(tmp_path, steady):
    archive, values = steady
    gaps = np.random.default_rng(1).random(archive.water.shape) < 0.1
    damaged = with_gaps(values, gaps)
    source = open_source(write_archive(tmp_path / "damaged.nc", archive, values=damaged))
    stop = int(source.cut.windows["train"][-1]) + 4
    used = np.zeros(archive.water.shape[1:], bool)
    for row, column in source.cut.tiles:
        used[row : row + 8, column : column + 8] = True
    known = damaged[:, :stop][:, np.isfinite(damaged[0, :stop]) & used].astype(np.float64)
    np.testing.assert_allclose(np.ravel(source.statistics()["u"]["mean"]), known.mean(1), rtol=1e-9)
    np.testing.assert_allclose(np.ravel(source.statistics()["u"]["std"]), known.std(1), rtol=1e-9)


def test_hourly_gaps_are_bridged_by_hours(tmp_path, steady):
    archive, values = steady
    hourly = replace(archive, time_s=archive.time_s / 24)
    gaps = np.zeros(archive.water.shape, bool)
    gaps[10], gaps[20:22], gaps[30:33] = True, True, True
    gaps[:, ::2] = False  # other rows are known: no step is wholly missing
    path = write_archive(tmp_path / "hourly.nc", hourly, values=with_gaps(values, gaps))
    options = {"window_steps": 4, "gap_days": 0.3, "record_s": HOUR_S, "step_s": HOUR_S / 2}
    source = open_source(path, **options)
    assert math.isclose(source.cut.longest_gap_s, 3 * HOUR_S)
    box = slice(0, 8), slice(0, 8)
    field = source.cut.bridged(19, box, source.cut.water(box))
    np.testing.assert_allclose(field, values[:, 19:23, :8, :8], rtol=0, atol=1e-6)
    assert np.isnan(source.cut.bridged(29, box, np.ones((8, 8), bool))[:, 1:, 1]).any()
    assert DAY_S == 24 * HOUR_S
