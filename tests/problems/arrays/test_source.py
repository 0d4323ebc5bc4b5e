"""Pairs of one's own arrays: forms, statistics, mistakes in a line each, and what shards are a function of."""

import pickle
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
import xarray as xr
import zarr

from pcl.data.source import SourceContext
from pcl.encoders import OneHot, Standardise
from pcl.errors import BadInputError, DamagedDataError
from pcl.problems.arrays.memory import MemoryPairs
from pcl.problems.arrays.settings import ArraysSettings
from pcl.problems.arrays.source import ArraysSource, arrays_source
from pcl.problems.problem import problem
from tests.shards import build_shards

U, V = np.random.default_rng(0).normal(size=(2, 40, 3))
LABELS = np.arange(40) % 4


def memory(u=U, v=V, **settings) -> MemoryPairs:
    return MemoryPairs(u, v, **settings)


def files(folder: Path, u=U, v=V, memory_mb=512.0, **settings) -> ArraysSource:
    """Pairs of addresses, and of arrays that are saved first."""
    addresses = {}
    for name, given in (("u", u), ("v", v)):
        addresses[name] = given if isinstance(given, str) else str(folder / f"{name}.npy")
        if not isinstance(given, str):
            np.save(addresses[name], given)
    return arrays_source(ArraysSettings(**addresses, **settings), SourceContext(memory_mb=memory_mb))


def refused(function, *arguments, kind=BadInputError, **settings) -> str:
    with pytest.raises(kind) as caught:
        function(*arguments, **settings)
    text = str(caught.value)
    assert text.isprintable()
    assert len(text) < 500
    return text


# statistics and forms


def test_statistics_are_those_of_the_training_pairs_in_float64():
    u = np.random.default_rng(1).normal(1e6, 1e-2, (3000, 2, 5))
    source = memory(u, u)
    train = u[source.rows["train"]]
    found = source.statistics()["u"]
    np.testing.assert_allclose(found["mean"], train.mean(0), rtol=1e-12)
    np.testing.assert_allclose(found["std"], train.std(0), rtol=1e-6)


def test_statistics_do_not_depend_on_the_units_of_the_look_but_in_rounding(monkeypatch):
    whole = memory().statistics()["u"]
    monkeypatch.setattr("pcl.problems.arrays.survey.UNIT_BYTES", 8 * 3 * 7)
    np.testing.assert_allclose(memory().statistics()["u"]["std"], whole["std"], rtol=1e-12)


def test_a_component_that_never_varies_has_no_deviation_and_is_named(tmp_path):
    u = U.copy()
    u[:, 1] = 0.1  # whose mean is not exactly 0.1
    source = memory(u)
    assert source.statistics()["u"]["std"][1] == 0.0
    assert source.statistics()["u"]["mean"][1] == 0.1
    assert "u never varies in 1 of 3 components (1): left unscaled" in source.notes(1)
    table = pa.table({f"t{i}": u[:, i] for i in range(3)})
    pa.parquet.write_table(table, tmp_path / "x.parquet")
    source = files(tmp_path, u=f"{tmp_path / 'x.parquet'}:t*")
    assert "u never varies in 1 of 3 components (t1): left unscaled" in source.notes(1)


def test_images_have_one_mean_in_units_of_full_light():
    u = np.random.default_rng(1).integers(0, 256, (50, 3, 4, 5), np.uint8)
    source = memory(u, np.arange(50.0), form_u="image")
    train = u[source.rows["train"]] / 255
    info, found = source.arrays["u"], source.statistics()["u"]
    assert (info.dtype, info.shape, info.scale_factor, info.statistics) == ("uint8", (3, 4, 5), 1 / 255, "scalar")
    np.testing.assert_allclose([found["mean"], found["std"]], [train.mean(), train.std()], rtol=1e-12)


def test_items_of_very_many_numbers_share_one_mean(monkeypatch):
    monkeypatch.setattr("pcl.problems.arrays.forms.MOST_COMPONENTS", 2)
    assert memory().arrays["u"].statistics == "scalar"


@pytest.mark.parametrize("dtype", [bool, np.int8, np.uint16, np.uint64])
def test_labels_are_small_integers_with_their_frequencies(dtype):
    labels = (np.arange(40) % 2).astype(dtype)
    source = memory(v=labels, form_v="labels")
    assert (source.arrays["v"].dtype, source.arrays["v"].statistics) == ("uint8", "counts")
    train = labels[source.rows["train"]]
    assert source.statistics()["v"] == {"counts": np.bincount(train.astype(int)).tolist()}


def test_many_labels_are_of_four_bytes():
    source = memory(np.arange(3000.0), np.arange(3000) % 300, form_v="labels")
    assert source.arrays["v"].dtype == "int32"


def test_texts_are_bytes_with_zeros_after_their_end():
    texts = np.array([f"wörd {i}".encode() for i in range(40)])
    source = memory(texts, form_u="text")
    assert (source.arrays["u"].dtype, source.arrays["u"].statistics) == ("uint8", "none")
    found = source.pairs("test", 0, 1)["u"][0]
    assert bytes(found).rstrip(b"\0") == texts[source.rows["test"][0]]
    assert memory(np.zeros((40, 7), np.int32), form_u="text").arrays["u"].shape == (7,)


def test_pairs_with_nan_are_left_out_after_the_split_and_counted():
    u, v = U.copy(), V.copy()
    u[7, 1], v[[7, 20]] = np.nan, np.nan
    source, whole = memory(u, v, missing="mask"), memory()
    for split in ("train", "test"):
        assert set(source.rows[split]) == set(whole.rows[split]) - {7, 20}
    assert source.provenance()["missing_pairs"] == 2
    assert "2 of 40 pairs hold NaN and are left out" in source.notes(1)
    np.testing.assert_allclose(source.statistics()["u"]["mean"], u[source.rows["train"]].mean(0))


LAND = np.where(np.arange(6).reshape(2, 3) % 2, np.nan, np.random.default_rng(2).normal(size=(40, 2, 3)))


def test_what_every_pair_lacks_has_a_remedy_that_works(tmp_path):
    """A mask of land: no pair can be left out for it; where it is filled or left out, the others are learned."""
    for missing in ("refuse", "mask"):
        text = refused(memory, LAND, missing=missing)
        assert "in the same places of every row, 3 of 6 components of an item (0,1; 1,0; 1,2)" in text
        assert "missing=" not in text
        assert "x.reshape" not in refused(memory, LAND, form_u="image", missing=missing)
    space = {"x": LAND, "np": np, "kept": ~np.isnan(LAND.reshape(40, -1)[0])}
    for code in ("np.nan_to_num(x)", "x.reshape(len(x), -1)[:, kept]"):
        assert code in text
        assert memory(eval(code, space)).num_pairs("train") == 36
    assert "nothing but NaN" in refused(memory, np.full((40, 3), np.nan))
    one_more = LAND.copy()
    one_more[7] = np.nan
    assert memory(np.where(np.arange(6).reshape(2, 3) % 2, 0.0, one_more), missing="mask").num_missing == 1
    table = pa.table({"t0": U[:, 0], "t1": np.full(40, np.nan)})
    pa.parquet.write_table(table, tmp_path / "x.parquet")
    assert "(t1), as land" in (text := refused(files, tmp_path, u=f"{tmp_path / 'x.parquet'}:t*"))
    assert text.endswith("leave these columns out")


def test_pairs_are_not_to_be_left_out_where_none_would_be_left(tmp_path):
    u = np.where(np.arange(3) == np.arange(40)[:, None] % 3, np.nan, U)  # in another place of each
    for function, arguments in ((memory, ()), (files, (tmp_path,))):
        text = refused(function, *arguments, u=u)
        assert text.endswith("fill them in, for 0 pairs lack no value")
        assert "fill values in" in refused(function, *arguments, u=u, missing="mask")
        u_once = np.where(np.arange(40)[:, None] == 3, np.nan, U)
        prefix = "data.arrays." if function is files else ""
        assert f" {prefix}missing=mask" in refused(function, *arguments, u=u_once)


def test_what_is_masked_is_missing():
    u = np.ma.masked_greater(U, 1.5)
    assert memory(u, missing="mask").num_missing == (U > 1.5).any(1).sum()


def test_every_split_is_that_of_its_function(tmp_path):
    groups = np.array([f"patient {i // 4}" for i in range(40)])
    np.save(tmp_path / "groups.npy", groups)
    by_group = files(tmp_path, split="group", groups=str(tmp_path / "groups.npy"), test_fraction=0.3)
    assert not set(groups[by_group.rows["train"]]) & set(groups[by_group.rows["test"]])
    np.testing.assert_array_equal(
        by_group.rows["test"], memory(split="group", groups=groups, test_fraction=0.3).rows["test"]
    )
    table = pa.table({"fold": ["test" if i % 4 == 0 else "train" for i in range(40)]})
    pa.parquet.write_table(table, tmp_path / "x.parquet")
    stated = files(tmp_path, split="given", given=f"{tmp_path / 'x.parquet'}:fold")
    assert stated.rows["test"].tolist() == list(range(0, 40, 4))
    ordered = files(tmp_path, split="order", gap=5, test_fraction=0.25)
    assert (ordered.num_pairs("train"), ordered.rows["test"].tolist()) == (25, list(range(30, 40)))
    for source in (by_group, stated, ordered):
        assert source.split_rule


def test_texts_that_are_python_objects_are_groups():
    groups = np.array(["a", "b"] * 20, object)
    assert memory(split="group", groups=groups, test_fraction=0.5).num_pairs("test") == 20


def test_encoders_take_what_is_stored(tmp_path):
    import torch

    for dtype in (bool, np.uint16, np.uint32, np.int64, np.float16):
        source = memory(np.random.default_rng(0).integers(0, 2, (40, 3)).astype(dtype), LABELS, form_v="labels")
        stored, found = source.pairs("train", 0, 36), source.statistics()["u"]
        values = Standardise(1.0, found["mean"], found["std"])(torch.from_numpy(stored["u"]))
        np.testing.assert_allclose(values.mean(0), 0, atol=1e-6)
        np.testing.assert_allclose(values.std(0, correction=0), 1, rtol=1e-5)
        assert OneHot((), 4)(torch.from_numpy(stored["v"])).sum() == 36


# shards


def test_shards_hold_the_pairs_the_statistics_and_the_forms(tmp_path):
    source = files(tmp_path, v=LABELS, form_v="labels")
    manifest = build_shards(tmp_path / "shards", source, 2, 7)
    assert manifest.statistics == source.statistics()
    assert manifest.split_rule == "at random: 0.1 of the pairs are for the test, seed 0"
    assert problem("arrays").forms(manifest) == ("numbers", "labels")


@pytest.mark.parametrize("order", [(0, 1, 2, 3, 4, 5), (5, 2, 0, 3, 1, 4)])
def test_bytes_are_those_of_any_order_after_any_kill(tmp_path, order):
    wanted = build_shards(tmp_path / "whole", memory(test_fraction=0.3), 3, 5)
    source = files(tmp_path, test_fraction=0.3)
    root = tmp_path / "killed"
    from pcl.data.shards import begin_build, build_shard, plan_shards

    begin_build(root, {"config": {}, "source": source.provenance()})
    plans = plan_shards(source, 3)
    for number in order[:2]:
        build_shard(pickle.loads(pickle.dumps(source)), plans[number], root, 5)
    (root / f".{plans[order[2]].name}.123").write_bytes(b"half a shard")
    again = files(tmp_path, test_fraction=0.3)
    found = build_shards(root, again, 3, 5, order=order)
    assert found.splits == wanted.splits
    assert found.statistics == wanted.statistics
    assert not list(root.glob(".*"))


def test_the_identity_is_what_files_hold_not_where_they_lie(tmp_path):
    first = files(tmp_path).provenance()
    (tmp_path / "other").mkdir()
    assert files(tmp_path / "other").provenance() == first
    changed = U.copy()
    changed[39, 2] += 1e-9
    assert files(tmp_path, u=changed).provenance() != first


@pytest.mark.parametrize("name", ["p.zarr", "plain.zarr"])
def test_the_identity_of_a_store_is_its_arrays_chunks_and_metadata(tmp_path, name):
    group = zarr.open_group(tmp_path / name, mode="w")
    for key, values in (("u", U), ("v", V)):
        dims = ["n", "k"] if name == "p.zarr" else None
        group.create_array(key, data=values, chunks=(7, 3), dimension_names=dims)
    settings = {"u": f"{tmp_path / name}:u", "v": f"{tmp_path / name}:v"}
    first = files(tmp_path, **settings).provenance()
    (tmp_path / name / "u" / ".DS_Store").write_bytes(b"of a file browser")
    group.create_array("other", data=V, dimension_names=["n", "k"] if name == "p.zarr" else None)
    assert files(tmp_path, **settings).provenance() == first
    group["u"][20, 1] = 0.5
    second = files(tmp_path, **settings).provenance()
    assert second["files"]["u"] != first["files"]["u"]
    assert second["files"]["v"] == first["files"]["v"]


def test_two_arrays_of_a_file_are_told_apart(tmp_path):
    np.savez(tmp_path / "p.npz", a=U, b=V)
    one = files(tmp_path, u=f"{tmp_path / 'p.npz'}:a", v=f"{tmp_path / 'p.npz'}:b").provenance()
    other = files(tmp_path, u=f"{tmp_path / 'p.npz'}:b", v=f"{tmp_path / 'p.npz'}:a").provenance()
    assert one != other


# mistakes: a line each


@pytest.mark.parametrize(
    ("arrays", "settings", "message"),
    [
        ({"u": U[:30]}, {}, "u has 30 rows and v 40: row i of both is a pair"),
        ({"u": U + 1j}, {}, "u holds complex numbers: give np.stack"),
        ({"u": np.array([{}] * 40)}, {}, "u holds Python objects: give an array of numbers"),
        ({"u": np.array(["a"] * 40)}, {}, "u holds texts: give np.char.encode"),
        ({"u": np.array([b"a"] * 40)}, {}, "u holds texts: choose form text"),
        ({"u": np.arange(40).astype("M8[D]")}, {}, "u holds dates: give numbers"),
        ({"u": np.zeros(40, [("a", "f4")])}, {}, "u holds records"),
        ({"u": U.astype(np.longdouble)}, {}, "give numbers of at most 64 bits"),
        ({"u": np.zeros((40, 0))}, {}, "u has shape (40, 0): an item must hold at least one number"),
        ({"u": np.float64(3)}, {}, "u is a single value"),
        ({"u": [[1.0], [1.0, 2.0]]}, {}, "u is no array"),
        ({"u": U[:1], "v": V[:1]}, {}, "the train split has 1 of 1 pairs: it needs at least 2"),
        ({"u": U[:9], "v": V[:9]}, {}, "the test split has 1 of 9 pairs: it needs at least 2"),
        ({}, {"test_fraction": 0.01}, "the test split has 0 of 40 pairs: it needs at least 2"),
        ({}, {"split": "order", "gap": 50}, "the train split has 0 of 40 pairs"),
        ({"u": np.where(np.arange(40) == 7, np.nan, 1.0)}, {}, "u holds NaN in 1 of 40 rows, the first is row 7:"),
        ({"u": np.full(40, np.nan)}, {"missing": "mask"}, "u holds nothing but NaN: give another array"),
        ({"u": np.where(np.arange(40) == 7, -np.inf, 1.0)}, {"missing": "mask"}, "u is infinite in row 7"),
        ({"v": LABELS - 1}, {"form_v": "labels"}, "v holds the label -1: labels are 0 .. K-1"),
        ({"v": LABELS + 1}, {"form_v": "labels"}, "of which 0 never occurs: number them from 0"),
        ({"v": LABELS * 10**12}, {"form_v": "labels"}, "v holds the label 3000000000000: labels are 0 .. K-1"),
        ({"v": LABELS.astype(np.uint64) + np.uint64(2**63)}, {"form_v": "labels"}, "v holds the label 92233720368547"),
        ({"v": LABELS * 1.0}, {"form_v": "labels"}, "v holds float64: labels are integers"),
        ({"v": V}, {"form_v": "labels"}, "v has items of shape (3,): a label is one integer"),
        ({"v": np.arange(40)}, {"form_v": "labels"}, "in the test split only (1 pairs)"),
        ({"u": np.zeros((40, 8, 9, 3), np.uint8)}, {"form_u": "image"}, "channels last: give np.moveaxis(x, -1, 1)"),
        ({"u": np.zeros((40, 8, 9), int)}, {"form_u": "image"}, "an image is uint8 from 0 to 255 or of floats"),
        ({"u": np.zeros((40, 8))}, {"form_u": "image"}, "an image is (H, W) or (C, H, W)"),
        ({"u": np.zeros((40, 8))}, {"form_u": "text"}, "a text is T bytes of UTF-8 (uint8) or T tokens"),
        ({}, {"form_u": "numbrs"}, "choose one of numbers, image, labels, text"),
        ({}, {"test_fraction": 0.0}, "test_fraction=0.0: it must be more than 0"),
    ],
)
def test_arrays_that_are_no_pairs_are_refused_in_a_line(arrays, settings, message):
    assert message in refused(memory, **arrays, **settings)


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    """Files of several kinds, sound and not."""
    np.savez(tmp_path / "p.npz", height=U, width=V)
    np.savez(tmp_path / "objects.npz", u=np.array([{}] * 40))
    np.save(tmp_path / "objects.npy", np.array([{}] * 40))
    np.save(tmp_path / "u.npy", U)
    (tmp_path / "cut.npy").write_bytes((tmp_path / "u.npy").read_bytes()[:500])
    (tmp_path / "no.npy").write_bytes(b"no numbers")
    (tmp_path / "no.npz").write_bytes(b"no numbers")
    (tmp_path / "no.nc").write_bytes(b"no numbers")
    (tmp_path / "no.parquet").write_bytes(b"no numbers")
    (tmp_path / "no.txt").write_bytes(b"no numbers")
    (tmp_path / "no.zarr").mkdir()
    xr.Dataset({"height": (("n", "k"), U), "when": ("n", np.arange(40))}).to_netcdf(tmp_path / "p.nc")
    group = zarr.open_group(tmp_path / "p.zarr", mode="w")
    group.create_array("height", data=U, chunks=(40, 3))
    group.create_array("width", data=V)
    table = pa.table({"t_1": U[:, 0], "t_2": U[:, 1], "who": ["a"] * 40})
    pa.parquet.write_table(table, tmp_path / "p.parquet")
    (tmp_path / "p.csv").write_text("a,b\n" + "\n".join(f"{i},{i}" for i in range(40)))
    (tmp_path / "broken.csv").write_text("a,b\n1,2\n3\n")
    return tmp_path


@pytest.mark.parametrize(
    ("u", "message"),
    [
        ("gone.npy", "gone.npy does not exist"),
        ("gone.npz:u", "gone.npz does not exist"),
        ("u.npy:u", "a .npy file holds one array, without a name"),
        ("p.npz", "p.npz holds the arrays height, width: name one, such as"),
        ("p.npz:heigth", "has no array heigth: the nearest is height"),
        ("objects.npy", "objects.npy holds Python objects"),
        ("objects.npz:u", "objects.npz:u holds Python objects"),
        ("no.txt", "is of no kind that is read: those are .npy"),
        ("p.nc:hight", "has no variable hight: the nearest is height"),
        ("p.nc", "p.nc holds the variables height, when: name one"),
        ("p.zarr:hight", "has no variable hight: the nearest is height"),
        ("p.zarr", "p.zarr holds the variables height, width: name one"),
        ("p.parquet:t_3", "has no column t_3: the nearest is t_"),
        ("p.parquet:x_*", "has no column x_*: the nearest is"),
        ("p.parquet:t_1,t_1", "names the column t_1 twice"),
        ("p.parquet:t_1,who", "the column who holds texts: leave it out"),
        ("p.parquet:who", "holds texts: give np.char.encode"),
        ("p.csv:c", "has no column c: the nearest is"),
    ],
)
def test_files_that_do_not_fit_are_refused_in_a_line(archive, u, message):
    text = refused(files, archive, u=str(archive / u))
    assert text.startswith("data.arrays: ")
    assert message in text


@pytest.mark.parametrize("u", ["cut.npy", "no.npy", "no.npz:u", "no.nc:u", "no.parquet:u", "broken.csv:a", "no.zarr:u"])
def test_files_that_are_damaged_are_named_in_a_line(archive, u):
    text = refused(files, archive, kind=DamagedDataError, u=str(archive / u))
    assert u.partition(":")[0] in text


def test_a_dimension_that_is_not_there_is_refused(archive):
    text = refused(files, archive, u=f"{archive / 'p.nc'}:height", sample_dim="time")
    assert "has no dimension time, but n, k: sample_dim must name one" in text
    text = refused(files, archive, u=f"{archive / 'p.zarr'}:height", sample_dim="time")
    assert "names no dimensions, so none is time" in text


def test_a_group_in_which_only_some_arrays_name_dimensions_is_refused(archive):
    group = zarr.open_group(archive / "p.zarr", mode="a")
    group.create_array("named", data=U, dimension_names=["n", "k"])
    text = refused(files, archive, u=f"{archive / 'p.zarr'}:named")
    assert "beside it names no dimensions" in text


def test_arrays_that_are_not_named_are_asked_for():
    text = refused(arrays_source, ArraysSettings(u="/dev/null"), SourceContext())
    assert text.startswith("data.arrays: v is not given")


def test_what_needs_more_memory_than_there_may_be_is_refused_before_it_is_read(archive, monkeypatch):
    text = refused(files, archive, u=f"{archive / 'p.zarr'}:height", memory_mb=1e-3)
    assert "build.memory_mb=0.001 and reading needs" in text
    assert "p.zarr:height: give at least that, or store it in smaller chunks along the pairs" in text
    text = refused(files, archive, u=f"{archive / 'p.csv'}:a", memory_mb=1e-4)
    assert "a CSV file is held in memory" in text
    np.savez_compressed(archive / "c.npz", u=U)
    text = refused(files, archive, u=f"{archive / 'c.npz'}:u", memory_mb=1e-4)
    assert "c.npz:u is compressed and has" in text


def test_a_file_that_is_gone_when_its_task_begins_is_named(tmp_path):
    source = files(tmp_path)
    shutil.move(tmp_path / "u.npy", tmp_path / "elsewhere.npy")
    source = pickle.loads(pickle.dumps(source))
    assert "u.npy" in refused(source.pairs, "train", 0, 3, kind=DamagedDataError)


def test_a_table_without_its_package_says_which_to_install(archive, monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "pyarrow", None)
    assert "pip install pyarrow" in refused(files, archive, u=f"{archive / 'p.csv'}:a")
