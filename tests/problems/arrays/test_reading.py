"""Every kind of file against numpy in memory: exact values, rows in any order of chunks, the same statistics."""

import itertools
import pickle
import warnings
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
import pytest
import xarray as xr
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st

from pcl.data.source import SourceContext
from pcl.problems.arrays.forms import items_of
from pcl.problems.arrays.memory import MemoryPairs
from pcl.problems.arrays.reading import stored as stored_module
from pcl.problems.arrays.reading.opening import open_array
from pcl.problems.arrays.reading.stored import Held, merged_edges
from pcl.problems.arrays.settings import ArraysSettings
from pcl.problems.arrays.source import ArraysSource, arrays_source

NUM_PAIRS = 500
LABELS = ("p.npz:v", "c.npz:v", "p.nc:v", "p.zarr:v", "p2.zarr:v", "plain.zarr:v", "p.parquet:v", "p.csv:v", "v.zarr")
VECTORS = (
    "u.npy",
    "fortran.npy",
    "big.npy",
    "p.npz:u",
    "c.npz:u",
    "p.nc:u",
    "p.nc:inner/u",
    "p.nc:turned",
    "p.zarr:u",
    "p.zarr:turned",
    "p2.zarr:u",
    "plain.zarr:u",
    "u.zarr",
    "p.parquet:t_*",
    "p.parquet:t_0,t_1,t_[2-5]",
    "a:b.npy",
)


@pytest.fixture(scope="module")
def pairs() -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(0)
    labels = generator.permutation(np.arange(NUM_PAIRS) % 5)
    return generator.normal(size=(NUM_PAIRS, 6)).astype(np.float32), labels


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, pairs: tuple[np.ndarray, np.ndarray]) -> Path:
    """The same pairs in files of every kind."""
    folder, (u, v) = tmp_path_factory.mktemp("arrays"), pairs
    for name, array in (("u", u), ("a:b", u), ("fortran", np.asfortranarray(u)), ("big", u.astype(">f4"))):
        np.save(folder / f"{name}.npy", array)
    np.savez(folder / "p.npz", u=u, v=v)
    np.savez_compressed(folder / "c.npz", u=u, v=v)
    about = {"units": "m", "long_name": "height"}
    dataset = xr.Dataset({"u": (("n", "k"), u, about), "v": ("n", v), "turned": (("k", "sample"), u.T)})
    dataset.to_netcdf(folder / "p.nc")
    xr.Dataset({"u": (("n", "k"), u)}).to_netcdf(folder / "p.nc", mode="a", group="inner")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        dataset.chunk(n=70, sample=33).to_zarr(folder / "p.zarr")
        dataset.chunk(n=70).to_zarr(folder / "p2.zarr", zarr_format=2)
    plain = zarr.open_group(folder / "plain.zarr", mode="w")
    plain.create_array("u", data=u, chunks=(64, 3))
    plain.create_array("v", data=v)
    zarr.save_array(folder / "u.zarr", u)
    zarr.save_array(folder / "v.zarr", v)
    table = pa.table({**{f"t_{i}": u[:, i] for i in range(6)}, "v": v, "patient": [f"p{i % 7}" for i in v]})
    pa.parquet.write_table(table, folder / "p.parquet", row_group_size=33)
    pa.csv.write_csv(table, folder / "p.csv")
    return folder


def source_of(folder: Path, u: str, v: str, **settings) -> ArraysSource:
    given = ArraysSettings(u=str(folder / u), v=str(folder / v), **settings)
    return pickle.loads(pickle.dumps(arrays_source(given, SourceContext())))


@pytest.mark.parametrize(("u", "v"), [(u, LABELS[i % len(LABELS)]) for i, u in enumerate(VECTORS)])
def test_a_file_gives_the_pairs_and_the_statistics_of_memory(folder, pairs, monkeypatch, u, v):
    monkeypatch.setattr(stored_module, "BLOCK_BYTES", 1000)  # many blocks
    found, wanted = source_of(folder, u, v, form_v="labels"), MemoryPairs(*pairs, form_v="labels")
    assert found.statistics() == wanted.statistics()
    for split in ("train", "test"):
        num_pairs = found.num_pairs(split)
        assert num_pairs == wanted.num_pairs(split)
        for start, stop in ((0, num_pairs), (7, 29)):
            one, other = found.pairs(split, start, stop), wanted.pairs(split, start, stop)
            for name in "uv":
                np.testing.assert_array_equal(one[name], other[name])
                assert one[name].dtype == found.arrays[name].dtype == wanted.arrays[name].dtype
                assert one[name].dtype.isnative
                assert one[name].flags.c_contiguous


def test_a_split_keeps_the_order_of_the_rows_and_pairs_stay_together(folder, pairs):
    source = source_of(folder, "p.zarr:u", "p.npz:v")
    rows = {split: source.pairs(split, 0, source.num_pairs(split)) for split in ("train", "test")}
    for found in rows.values():
        where = [int(np.flatnonzero((pairs[0] == one).all(1))[0]) for one in found["u"]]
        assert where == sorted(where)
        np.testing.assert_array_equal(found["v"], pairs[1][where])


def test_csv_gives_decimal_numbers_as_float64(folder, pairs):
    found = source_of(folder, "p.csv:t_*", "p.csv:v")
    wanted = MemoryPairs(*pairs)
    assert found.arrays["u"].dtype == "float64"
    np.testing.assert_allclose(found.pairs("test", 0, 50)["u"], wanted.pairs("test", 0, 50)["u"], rtol=1e-6)
    assert found.arrays["v"].shape == ()


def test_types_of_a_csv_are_those_of_all_its_rows(tmp_path):
    lines = ["a", *["1"] * 300_000, "1.5", "", *["0"] * 10]
    (tmp_path / "x.csv").write_text("\n".join(lines).replace("\n\n", "\nNA\n"))
    values = open_array(str(tmp_path / "x.csv") + ":a").load(299_999, 300_003)
    np.testing.assert_array_equal(values, [1, 1.5, np.nan, 0])


def test_integers_that_lack_values_are_floats(tmp_path):
    table = pa.table({"a": pa.array([1, None, 3], pa.int64()), "b": pa.array([True, False, None])})
    pa.parquet.write_table(table, tmp_path / "x.parquet")
    found = open_array(f"{tmp_path / 'x.parquet'}:a,b").load(0, 3)
    np.testing.assert_array_equal(found, [[1, 1], [np.nan, 0], [3, np.nan]])


def test_packed_values_are_unpacked_and_labels_are_not(tmp_path):
    packed = {"dtype": "i2", "scale_factor": 0.5, "add_offset": 10.0, "_FillValue": -1}
    values, labels = np.array([10.0, 11.5, np.nan]), np.array([0, 1, 2], np.int16)
    dataset = xr.Dataset({"u": ("n", values), "v": ("n", labels, {"_FillValue": np.int16(0)})})
    dataset.to_netcdf(tmp_path / "x.nc", encoding={"u": packed})
    np.testing.assert_array_equal(open_array(f"{tmp_path / 'x.nc'}:u").load(0, 3), values)
    np.testing.assert_array_equal(open_array(f"{tmp_path / 'x.nc'}:v", is_raw=True).load(0, 3), labels)


@pytest.mark.parametrize("dtype", ["?", "i1", "u2", "<i4", ">i8", "u8", "f2", ">f4", "f8"])
@pytest.mark.parametrize("shape", [(), (3,), (2, 1, 3)])
def test_any_number_and_any_shape(tmp_path, dtype, shape):
    values = np.random.default_rng(1).integers(0, 2, (40, *shape)).astype(dtype)
    np.save(tmp_path / "x.npy", values)
    source = source_of(tmp_path, "x.npy", "x.npy", test_fraction=0.25)
    found = source.pairs("train", 0, 30)["u"]
    assert found.dtype == np.dtype(dtype).newbyteorder("=")
    np.testing.assert_array_equal(found, values[source.rows["train"]])


def test_a_dimension_is_named_where_it_does_not_lead(folder, pairs):
    stored = open_array(str(folder / "p.nc:u"), "k")
    np.testing.assert_array_equal(stored.load(0, 6), pairs[0].T)


def test_units_and_meaning_are_those_of_the_file(folder):
    info = source_of(folder, "p.nc:u", "p.nc:v").arrays["u"]
    assert (info.units, info.meaning) == ("m", "height")


@settings(deadline=None)
@given(data=st.data(), num_rows=st.integers(1, 60), chunk=st.integers(1, 20))
def test_any_rows_are_taken_across_blocks(data, num_rows, chunk):
    values = np.arange(2 * num_rows).reshape(num_rows, 2)
    rows = np.array(sorted(data.draw(st.sets(st.integers(0, num_rows - 1)))), int)
    edges = np.append(np.arange(0, num_rows, chunk), num_rows)
    stored = Held(label="x", shape=values.shape, dtype=values.dtype, edges=edges, values=values)
    np.testing.assert_array_equal(items_of(stored, "numbers").take(rows), values[rows])


@given(sizes=st.lists(st.integers(1, 9), min_size=1), item_bytes=st.integers(1, 10**6))
def test_merged_edges_are_edges_and_no_block_is_larger_than_it_must_be(sizes, item_bytes):
    edges = np.cumsum([0, *sizes])
    found = merged_edges(edges, item_bytes)
    assert (found[0], found[-1]) == (0, edges[-1])
    assert set(found.tolist()) <= set(edges.tolist())
    for start, stop in itertools.pairwise(found):
        is_one = stop == edges[np.searchsorted(edges, start, "right")]
        assert is_one or (stop - start) * item_bytes <= stored_module.BLOCK_BYTES
