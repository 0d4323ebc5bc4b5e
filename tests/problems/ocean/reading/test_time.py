"""Times of ocean files: freed of rounding, in one order whatever the files are called, each once."""

from itertools import pairwise

import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

from pcl.errors import BadInputError
from pcl.problems.ocean.reading.time import read_times, tidy_times
from pcl.problems.ocean.reanalysis import open_currents
from tests.problems.ocean.archives import DAY_S, make_archive, write_archive
from tests.problems.ocean.test_reanalysis import assert_same, clean_field, refuse, write
from tests.problems.ocean.test_source import build, open_source

HOUR_S = 3600.0
UNITS = {"days": DAY_S, "hours": HOUR_S, "minutes": 60.0, "seconds": 1.0}
EPOCHS = {"1970-01-01": 0.0, "1950-01-01": -7305 * DAY_S, "1900-01-01 00:00:00": -25_567 * DAY_S}


def written(seconds, unit, epoch, dtype=np.float64, decimals=None):
    """Return times as a file writes them, and their units."""
    numbers = (seconds - EPOCHS[epoch]) / UNITS[unit]
    numbers = numbers if decimals is None else np.round(numbers, decimals)
    return numbers.astype(dtype), {"units": f"{unit} since {epoch}"}


@given(
    st.sampled_from(sorted(UNITS)),
    st.sampled_from(sorted(EPOCHS)),
    st.sampled_from([np.float32, np.float64]),
    st.sampled_from([900.0, HOUR_S, 3 * HOUR_S, 6 * HOUR_S, DAY_S]),
    st.integers(0, 20_000),
    st.integers(2, 200),
)
@settings(max_examples=200, deadline=None)
def test_times_do_not_depend_on_the_numbers_that_hold_them(unit, epoch, dtype, step_s, day, num_times):
    seconds = day * DAY_S + step_s * np.arange(num_times)
    numbers, attributes = written(seconds, unit, epoch, dtype)
    spacing_s = float(np.spacing(np.abs(numbers).max())) * UNITS[unit]
    found, calendar, precision_s = read_times(numbers, attributes, "a.nc: time")
    assert calendar == "standard"
    if spacing_s * 2 <= step_s:  # else the numbers cannot tell the times apart well
        np.testing.assert_array_equal(found, seconds)
        assert precision_s < 1e-3


@pytest.mark.parametrize(
    ("step_s", "unit", "decimals"), [(HOUR_S, "days", 3), (HOUR_S, "days", 5), (900.0, "hours", 2)]
)
def test_times_cut_to_a_few_decimals(step_s, unit, decimals):
    seconds = 14_000 * DAY_S + step_s * np.arange(100)
    found, _, _ = read_times(*written(seconds, unit, "1950-01-01", decimals=decimals), "a.nc: time")
    np.testing.assert_array_equal(found, seconds)


@given(st.integers(0, 9), st.integers(1, 3), st.sets(st.integers(1, 38), max_size=6))
@settings(max_examples=60, deadline=None)
def test_decimals_that_an_even_axis_needs_are_no_rounding(tenth, step_tenths, holes):
    """Days at 7 h 12 min are written 0.3: they stay there, and a hole stays a hole."""
    kept = np.setdiff1d(np.arange(40), sorted(holes))
    days = np.round(14_000 + tenth / 10 + kept * step_tenths / 10, 1)
    found, _, precision_s = read_times(days, {"units": "days since 1970-01-01"}, "a.nc: time")
    np.testing.assert_allclose(found, days * DAY_S, rtol=0, atol=1e-3)
    assert precision_s < 1e-3
    single, _, _ = read_times(days[:1], {"units": "days since 1970-01-01"}, "a.nc: time")
    np.testing.assert_allclose(single, days[:1] * DAY_S, rtol=0, atol=1e-3)


@given(st.integers(0, 1000), st.floats(5, 400))
@settings(max_examples=60, deadline=None)
def test_what_rounding_does_not_explain_stays(seed, precision_s):
    generator = np.random.default_rng(seed)
    seconds = np.cumsum(generator.uniform(0.6, 1.4, 30) * 12 * precision_s)
    np.testing.assert_array_equal(tidy_times(seconds, precision_s), seconds)
    even = 1234.5 + 7777.7 * np.arange(30)
    moved = even + generator.uniform(-1, 1, 30) * precision_s / 4
    tidy = tidy_times(moved, precision_s)
    if 4 * precision_s < 7777:
        assert np.ptp(np.diff(tidy)) <= 1e-6 * 7777 or np.all(tidy % 10 == 0)
    assert np.abs(tidy - moved).max() <= 2 * precision_s + 0.01


def test_hourly_steps_in_single_precision_days_give_the_same_shards(tmp_path):
    archive = make_archive(days=60, rows=16, columns=20)
    archive.time_s = archive.time_s / 24
    options = {"gap_days": 0.5, "record_s": HOUR_S, "step_s": HOUR_S / 2}
    clean = open_source(write_archive(tmp_path / "clean.nc", archive), **options)
    with xr.open_dataset(tmp_path / "clean.nc", decode_times=False) as dataset:
        days = np.float32(archive.time_s / DAY_S + 10_957)
        assert np.ptp(np.diff(days.astype(np.float64))) * DAY_S > 20  # rounding that shows
        dataset["time"] = ("time", days, {"units": "days since 1970-01-01"})
        dataset.to_netcdf(tmp_path / "single.nc")
    single = open_source(tmp_path / "single.nc", **options)
    assert build(single, tmp_path / "one", 2)[0] == build(clean, tmp_path / "other", 2)[0]


def test_irregular_times_are_refused_with_their_intervals_and_precision(tmp_path):
    archive = make_archive(days=60, rows=16, columns=20)
    archive.time_s = np.sort(archive.time_s + np.random.default_rng(0).uniform(0, 0.3 * DAY_S, 60))
    with pytest.raises(BadInputError, match=r"intervals go from [\d,.]+ to [\d,.]+ s.*times are exact to 0\.001 s"):
        open_source(write_archive(tmp_path / "a.nc", archive))


@st.composite
def partitions(draw):
    """Draw where a time axis of 12 steps is cut into files, how many steps each shares with the next, and names."""
    edges = sorted(draw(st.sets(st.integers(1, 11), max_size=4)))
    spans = list(pairwise([0, *edges, 12]))
    shared = [draw(st.integers(0, min(3, 12 - stop))) for _, stop in spans]
    names = draw(st.permutations("abcdefgh"[: len(spans)]))
    bases = [(draw(st.sampled_from(sorted(UNITS))), draw(st.sampled_from(sorted(EPOCHS)))) for _ in spans]
    return [
        (name, slice(first, stop + more), *base)
        for name, (first, stop), more, base in zip(names, spans, shared, bases, strict=True)
    ]


@pytest.fixture(scope="module")
def twelve_steps(tmp_path_factory):
    clean = clean_field(12)
    return clean, open_currents(write(clean, tmp_path_factory.mktemp("clean") / "a.nc"))


@given(partitions())
@settings(max_examples=30, deadline=None)
def test_files_in_any_order_that_share_records_are_one_archive(tmp_path_factory, twelve_steps, parts):
    folder, (clean, expected) = tmp_path_factory.mktemp("parts"), twelve_steps
    for name, steps, unit, epoch in parts:
        part = clean.isel(time=steps)
        numbers, attributes = written(part.time.values, unit, epoch)
        write(part.assign_coords(time=("time", numbers, attributes)), folder / f"{name}.nc")
    assert_same(open_currents([str(folder)]), expected)


def test_records_that_differ_are_refused_with_both_files_and_the_time(tmp_path):
    clean = clean_field(6)
    write(clean.isel(time=slice(0, 4)), tmp_path / "z.nc")
    later = clean.isel(time=slice(3, 6)).copy(deep=True)
    later["vo"][0, 4, 4] = 0.75
    write(later, tmp_path / "a.nc")
    refuse([str(tmp_path)], "a.nc", "z.nc", "1970-01-04 12:00", "two different northward velocities")


def test_a_record_that_a_file_holds_twice(tmp_path):
    clean = clean_field(4)
    twice = clean.isel(time=[0, 1, 1, 2, 3])
    assert_same(open_currents(write(twice, tmp_path / "a.nc")), open_currents(write(clean, tmp_path / "b.nc")))
    changed = twice.copy(deep=True)
    changed["uo"][2] = 0.5
    line = "c.nc: 1970-01-02 12:00 is there with two different eastward"
    refuse(write(changed, tmp_path / "c.nc"), line, "holds it twice")


UNITS_THAT_ARE_NONE = [
    "days since 2010/01/01",
    "days since 01-JAN-1900",
    "days since 2010-1",
    "days since 2010-13-01",
    "days since yesterday",
    "fortnights since 2010-01-01",
    "days since ",
]


@pytest.mark.parametrize("units", UNITS_THAT_ARE_NONE)
def test_units_that_are_none(tmp_path, units):
    clean = clean_field().assign_coords(time=("time", np.arange(6.0), {"units": units}))
    refuse(write(clean, tmp_path / "a.nc"), "a.nc")


@pytest.mark.parametrize("calendar", ["", "lunar", 5, np.array([1, 2])])
def test_calendars_that_are_none(tmp_path, calendar):
    attributes = {"units": "days since 2010-01-01", "calendar": calendar}
    clean = clean_field().assign_coords(time=("time", np.arange(6.0), attributes))
    refuse(write(clean, tmp_path / "a.nc"), "a.nc: time in 'days since 2010-01-01'", "repair its units")
