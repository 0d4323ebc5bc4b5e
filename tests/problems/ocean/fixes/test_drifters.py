"""Which drifter a fix is of, where files do not tell or tell wrong."""

from dataclasses import replace

import numpy as np
import pytest
import xarray as xr

from pcl.errors import BadInputError
from pcl.problems.ocean.fixes.cleaning import Rules, cleaned
from pcl.problems.ocean.fixes.drifters import of_several
from pcl.problems.ocean.fixes.fixes import Fixes, joined
from pcl.problems.ocean.fixes.reading import read_fixes


def walk(name, latitude, number=40, seed=0):
    """A drifter at a tenth of a metre per second or so, fixed every ten minutes."""
    north, east = np.cumsum(np.random.default_rng(seed).normal(0, 5e-4, (2, number)), 1)
    return Fixes(np.full(number, name), 1.68e9 + 600.0 * np.arange(number), latitude + north, 10 + east)


def written(path, fixes, **columns):
    import pandas as pd

    known = {"time": fixes.time_s.astype(int), "lat": fixes.latitude, "lon": fixes.longitude}
    pd.DataFrame(columns | known).to_csv(path, index=False)
    return path


def test_one_name_of_two_drifters_in_two_files(tmp_path):
    one, other = walk("1", 54.0), walk("1", 54.5, seed=1)
    files = [written(tmp_path / f"{part}.csv", fixes, id="1") for part, fixes in (("a", one), ("b", other))]
    found = cleaned(read_fixes(files, {}), Rules())
    assert not found.left
    np.testing.assert_array_equal(found.names, ["1 (a)", "1 (b)"])
    np.testing.assert_array_equal(found.latitude, [*one.latitude, *other.latitude])


@pytest.mark.parametrize("second", [slice(20, 40), slice(10, 40), slice(0, 40, 2)], ids=["later", "overlap", "copy"])
def test_one_drifter_in_two_files_keeps_its_name(tmp_path, second):
    one = walk("1", 54.0)
    files = [written(tmp_path / "a.csv", one[:20], id="1"), written(tmp_path / "b.csv", one[second], id="1")]
    assert read_fixes(files, {}).names == ["1"]


@pytest.mark.parametrize("cut", [6, 4])
def test_a_drifter_under_two_names_counts_once(cut):
    one, other = walk("a", 54.0), walk("c", 54.2, seed=1)
    copy = replace(
        one, name=np.full(40, "b"), latitude=one.latitude.round(cut), longitude=one.longitude.round(cut) + 360
    )
    found = cleaned(joined([one, copy, other]), Rules())
    assert found.names == ["a", "c"]
    assert [(left.number, left.drifters) for left in found.left] == [(40, ("b",))]
    assert "another drifter" in found.left[0].reason


def test_drifters_that_meet_are_two():
    """They are released at one place and one time."""
    one, other = walk("a", 54.0), walk("b", 54.0, seed=1)
    other = Fixes(other.name, other.time_s, *(np.r_[getattr(one, key)[:5], getattr(other, key)[5:]] for key in PLACES))
    assert not cleaned(joined([one, other]), Rules(fastest_m_s=100)).left


PLACES = ("latitude", "longitude")


def test_fixes_of_several_without_a_name_are_refused(tmp_path):
    both = joined([walk("a", 54.0), walk("b", 54.3, seed=1)])
    file = written(tmp_path / "a.csv", both, battery=np.resize([3, 4, 5], 80), beacon=np.repeat(["x", "y"], 40))
    with pytest.raises(BadInputError, match=r"names no drifter.*tracks\.drifter=NAME, it may be beacon"):
        read_fixes([file], {})
    assert read_fixes([file], {"drifter": "beacon"}).names == ["x", "y"]
    only = {key: ("obs", getattr(both, key)) for key in ("latitude", "longitude")}
    time = ("obs", both.time_s, {"units": "seconds since 1970-01-01"})
    xr.Dataset(only | {"time": time}).to_netcdf(tmp_path / "a.nc")
    with pytest.raises(BadInputError, match="names no drifter"):
        read_fixes([tmp_path / "a.nc"], {})
    assert read_fixes([written(tmp_path / "one.csv", both[:40])], {}).names == ["one"]


def test_spikes_and_a_boat_are_of_one():
    fixes = walk("a", 54.0)
    latitude = fixes.latitude.copy()
    latitude[[5, 20]] += 1
    assert not of_several(replace(fixes, latitude=latitude))


@pytest.mark.parametrize("kind", ["counts", "index"])
def test_ragged_arrays_without_names_are_numbered(tmp_path, kind):
    both = joined([walk("a", 54.0), walk("b", 54.3, seed=1)])
    data = {key: ("obs", getattr(both, key)) for key in PLACES}
    data["time"] = ("obs", both.time_s, {"units": "seconds since 1970-01-01"})
    data |= {
        "counts": {"n": ("traj", np.array([40, 40]), {"sample_dimension": "obs"})},
        "index": {"i": ("obs", np.repeat([0, 1], 40), {"instance_dimension": "traj"})},
    }[kind]
    xr.Dataset(data).to_netcdf(tmp_path / "a.nc")
    fixes = read_fixes([tmp_path / "a.nc"], {})
    np.testing.assert_array_equal(fixes.name, np.repeat(["a 0", "a 1"], 40))
