"""Coordinates of the pairs: in every kind of array that has them, those that differ or are out of order are refused."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from pcl.data.source import SourceContext
from pcl.errors import BadInputError
from pcl.problems.arrays.memory import MemoryPairs
from pcl.problems.arrays.settings import ArraysSettings
from pcl.problems.arrays.source import arrays_source

NUM = 40
VALUES = np.random.default_rng(0).normal(size=(NUM, 3))
ORDER = np.random.default_rng(1).permutation(NUM)
COORDINATES = {
    "dates": pd.date_range("2000-01-01", periods=NUM, freq="6h"),
    "numbers": np.arange(NUM) * 0.1,
    "texts": np.array([f"station {i:02d}" for i in range(NUM)]),
    "noleap": xr.date_range("2000-01-01", periods=NUM, calendar="noleap", use_cftime=True),
}
KINDS = ("nc", "zarr", "parquet", "xarray", "pandas")
PAIRS = [(kind, name) for kind in KINDS for name in COORDINATES if name != "noleap" or kind in ("nc", "zarr", "xarray")]


def kept(folder: Path, kind: str, name: str, values: np.ndarray, index, start: str | None = None):
    """One array with a coordinate, as a person has it: in memory, or the address of a file."""
    if kind in ("pandas", "parquet"):
        table = pd.DataFrame({"x": values[:, 0]}, pd.Index(index, name="time"))
        if kind == "pandas":
            return table
        table.to_parquet(folder / f"{name}.parquet")
        return f"{folder / name}.parquet:x"
    array = xr.DataArray(values, {"time": index}, ("time", "k"), name="x")
    if kind == "xarray":
        return array
    dataset = array.to_dataset()
    if start:
        dataset.time.encoding["units"] = f"minutes since {start}"
    dataset.to_netcdf(folder / f"{name}.nc") if kind == "nc" else dataset.to_zarr(
        folder / f"{name}.zarr", zarr_format=2
    )
    return f"{folder / name}.{kind}:x"


def pairs(u, v, **settings):
    if isinstance(u, str):
        return arrays_source(ArraysSettings(u=u, v=v, **settings), SourceContext())
    return MemoryPairs(u, v, **settings)


def refused(u, v, **settings) -> str:
    with pytest.raises(BadInputError) as caught:
        pairs(u, v, **settings)
    text = str(caught.value)
    assert text.isprintable()
    assert len(text) < 500
    return text


@pytest.mark.parametrize(("kind", "name"), PAIRS)
def test_rows_that_are_other_pairs_are_refused(tmp_path, kind, name):
    index = COORDINATES[name]
    u = kept(tmp_path, kind, "u", VALUES, index)
    v = kept(tmp_path, kind, "v", VALUES[ORDER], index[ORDER])
    text = refused(u, v)
    assert f"in their coordinate time in {np.count_nonzero(np.arange(NUM) != ORDER)} of {NUM} rows" in text
    assert f"first in row {np.flatnonzero(np.arange(NUM) != ORDER)[0]}" in text
    again = kept(tmp_path, kind, "again", VALUES, index)
    assert pairs(u, again).num_pairs("train") == 36


@pytest.mark.parametrize("kind", KINDS)
def test_groups_must_be_of_the_same_pairs_too(tmp_path, kind):
    index, groups = COORDINATES["dates"], np.stack([np.arange(NUM) // 4], 1)
    u = kept(tmp_path, kind, "u", VALUES, index)
    known = kept(tmp_path, kind, "groups", groups[ORDER], index[ORDER])
    known = known if isinstance(known, str) else known["x"] if kind == "pandas" else known[:, 0]
    assert "u" in (text := refused(u, u, split="group", groups=known))
    assert "in their coordinate time" in text


@pytest.mark.parametrize(("kind", "name"), PAIRS)
def test_an_ordered_split_takes_rows_in_order(tmp_path, kind, name):
    index = COORDINATES[name][ORDER]
    u = kept(tmp_path, kind, "u", VALUES, index)
    assert pairs(u, u).num_pairs("train") == 36
    if name == "texts":
        assert pairs(u, u, split="order").num_pairs("test") == 4
        return
    falls = int(np.argmax(np.diff(ORDER) < 0))
    assert f"the coordinate time of {'u' if not isinstance(u, str) else u} goes back after row {falls}:" in refused(
        u, u, split="order"
    )
    in_order = kept(tmp_path, kind, "sorted", VALUES, COORDINATES[name])
    assert pairs(in_order, in_order, split="order").rows["test"].tolist() == [36, 37, 38, 39]


@pytest.mark.parametrize("kind", KINDS)
def test_the_remedies_work(tmp_path, kind):
    index = COORDINATES["dates"]
    arguments = (VALUES, index), (VALUES[ORDER][5:], index[ORDER][5:])
    in_memory = "pandas" if kind in ("pandas", "parquet") else "xarray"
    u, v = (kept(tmp_path, in_memory, "", *one) for one in arguments)
    named = zip("uv", arguments, strict=True)
    text = refused(*(kept(tmp_path, kind, name, values[:35], index[:35]) for name, (values, index) in named))
    space = {"u": u, "v": v, "xarray": xr}
    line = text.partition("such as ")[2].partition(", or ")[0]
    exec(line, space)
    aligned = MemoryPairs(space["u"], space["v"])
    np.testing.assert_array_equal(np.asarray(space["u"]), np.asarray(space["v"]))
    assert len(aligned.items["u"]) == 35
    if kind in ("pandas", "xarray"):
        assert "u.to_numpy()" in text
        assert pairs(u[:35].to_numpy(), v.to_numpy()).num_pairs("test") == 4
    else:
        assert "data.arrays.coordinates=ignore" in text
        addresses = (f"{tmp_path / name}.{kind}:x" for name in "uv")
        assert pairs(*addresses, coordinates="ignore").num_pairs("test") == 4


@pytest.mark.parametrize("kind", ["nc", "zarr"])
def test_one_time_in_other_units_is_the_same(tmp_path, kind):
    index = COORDINATES["dates"]
    u = kept(tmp_path, kind, "u", VALUES, index, "1990-01-01")
    v = kept(tmp_path, kind, "v", VALUES, index, "2000-01-01")
    assert pairs(u, v).num_pairs("train") == 36


def of_days(values=ORDER, name="day"):
    return xr.DataArray(VALUES, {name: values, "k": range(3)}, (name, "k"))


TENTHS = np.float32(0.1) * np.arange(NUM, dtype=np.float32)
HARMLESS = [
    (pd.Series(VALUES[:, 0]), pd.Series(VALUES[:, 0], COORDINATES["dates"])),  # the first is only numbered
    (pd.Series(VALUES[:, 0]), pd.Series(VALUES[:, 0], COORDINATES["texts"])),
    (pd.Series(VALUES[:, 0]), pd.Series(VALUES[:, 0])),
    (pd.Series(VALUES[:, 0]), VALUES),
    (pd.Series(VALUES[:, 0], ORDER), VALUES),
    (of_days(), of_days(ORDER[::-1], "hour")),
    (of_days(), of_days().assign_coords(k=[4, 5, 6])),
    (of_days(TENTHS), of_days(TENTHS.astype(float))),
]


@pytest.mark.parametrize(("one", "other"), HARMLESS)
def test_what_says_nothing_of_the_pairs_is_no_obstacle(one, other):
    assert pairs(one, other).num_pairs("train") == 36


@pytest.mark.parametrize("kind", ["pandas", "parquet"])
@pytest.mark.parametrize("rows", [ORDER, np.arange(NUM)[::-1], np.arange(NUM) + 10, np.arange(NUM) * 2])
def test_rows_that_nobody_numbered_are_those_of_a_table_that_was_sorted_or_filtered(tmp_path, kind, rows):
    given = [pd.DataFrame({"x": VALUES[:, 0]}), pd.DataFrame({"x": VALUES[:, 1]}, index=rows)]
    if kind == "parquet":
        for number, table in enumerate(given):
            table.to_parquet(tmp_path / f"{number}.parquet")
        given = [f"{tmp_path / str(number)}.parquet:x" for number in range(2)]
    first = np.flatnonzero(rows != np.arange(NUM))[0]
    for one, other in (given, given[::-1]):
        assert f"differ in their coordinate index in {np.count_nonzero(rows != np.arange(NUM))} of {NUM} rows" in (
            text := refused(one, other)
        )
        assert f"first in row {first}: " in text
    assert pairs(given[0], given[0], split="order").num_pairs("test") == 4
