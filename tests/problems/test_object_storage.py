"""Shards of raw data in object storage: byte for byte those of the same files in a folder, for all kinds of pairs."""

import http.server
import io
import itertools
import os
import pickle
import tarfile
import threading
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from PIL import Image

from pcl.data.source import Source, SourceContext
from pcl.errors import BadInputError, DamagedDataError
from pcl.problems.arrays.settings import ArraysSettings
from pcl.problems.arrays.source import arrays_source
from pcl.problems.mnist.source import FILES, MnistSource
from pcl.problems.webdataset.settings import WebdatasetSettings
from pcl.problems.webdataset.source import webdataset_source
from pcl.storage.copies import Copies
from tests.problems.arrays.test_reading import LABELS, VECTORS, folder, pairs  # noqa: F401 - fixtures
from tests.problems.ocean import test_source as ocean
from tests.problems.ocean.archives import make_archive, write_archive
from tests.problems.ocean.test_source import MEASURE, huge, run_code, write_waves  # noqa: F401
from tests.s3 import POLL_S, S3, SLOW_DOWN, s3_server, uploaded
from tests.shards import build_shards

Make = Callable[[str], Source]


@pytest.fixture(scope="module")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3]:
    with s3_server() as server, pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield server


def built(source: Source, root: Path) -> dict[str, bytes]:
    """Return the files of shards that a source gives once it has travelled to another process."""
    build_shards(root, pickle.loads(pickle.dumps(source)), num_shards=2, record_pairs=50)
    return {path.name: path.read_bytes() for path in root.iterdir()}


def assert_same_shards(make: Make, path: Path, tmp_path: Path, pattern: str = "") -> None:
    """Compare shards of a path with those of the same files in the bucket."""
    address = uploaded(path)
    wanted, found = (
        built(make(f"{root}{pattern}"), tmp_path / kind) for kind, root in (("here", path), ("there", address))
    )
    assert found == wanted
    assert b"s3:" not in found["manifest.json"]


# fields of the ocean

open_source = partial(ocean.open_source, window_stride=4, num_releases=1, step_s=21_600.0)  # every step is read once


@pytest.fixture(scope="module")
def archive():
    return make_archive(days=40, rows=16, columns=20)


@pytest.mark.parametrize("format_of", ["NETCDF4", "NETCDF3_CLASSIC"])
def test_currents_of_a_pattern_of_files(s3, archive, tmp_path, format_of):
    (tmp_path / "raw").mkdir()
    write_archive(tmp_path / "whole.nc", archive)
    with xr.open_dataset(tmp_path / "whole.nc", decode_times=False) as whole:
        for number, first in enumerate((0, 13, 30)):
            part = whole.isel(time=slice(first, (13, 30, 40)[number]))
            part.to_netcdf(tmp_path / "raw" / f"c{number}.nc", format=format_of)
    assert_same_shards(open_source, tmp_path / "raw", tmp_path, "/c[0-9]*.nc")


@pytest.mark.parametrize("version", [2, 3])
@pytest.mark.parametrize("consolidated", [False, True])
def test_currents_of_a_zarr_store(s3, archive, tmp_path, version, consolidated):
    write_archive(tmp_path / "whole.nc", archive)
    with xr.open_dataset(tmp_path / "whole.nc", decode_times=False) as whole, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # metadata of the third format are consolidated in a way of its own
        whole.chunk(time=20, latitude=8, longitude=20).to_zarr(
            tmp_path / "c.zarr", zarr_format=version, consolidated=consolidated
        )
    assert_same_shards(open_source, tmp_path / "c.zarr", tmp_path)


def test_currents_of_a_folder_with_other_files(s3, archive, tmp_path):
    (tmp_path / "raw").mkdir()
    write_archive(tmp_path / "raw" / "a.nc", archive, times=slice(0, 20))
    write_archive(tmp_path / "raw" / "b.zarr", archive, times=slice(20, 40))
    (tmp_path / "raw" / "readme.txt").write_text("...")
    assert_same_shards(open_source, tmp_path / "raw", tmp_path)
    assert "not read, beside the files: readme.txt" in open_source(uploaded(tmp_path / "raw")).notes(50)


def test_tasks_read_the_chunks_that_they_need(s3, archive, tmp_path):
    write_archive(tmp_path / "c.zarr", archive, encoding={"chunks": (4, 16, 20)})
    source = open_source(uploaded(tmp_path / "c.zarr"))
    number = len(s3.requests)
    source.pairs("train", 0, 1)  # of a window of four steps, in one chunk of both components
    assert len(s3.requests) == number + 2


def test_copies_that_do_not_fit_together_are_fetched_again(s3, archive, tmp_path, monkeypatch):
    (tmp_path / "raw").mkdir()
    for number in range(4):
        write_archive(tmp_path / "raw" / f"{number}.nc", archive, times=slice(10 * number, 10 * number + 10))
    most = max(path.stat().st_size for path in (tmp_path / "raw").iterdir())
    monkeypatch.setattr(Copies.__init__, "__defaults__", (Copies.__init__.__defaults__[0], int(1.5 * most)))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert Copies().most_bytes == int(1.5 * most)
    assert_same_shards(open_source, tmp_path / "raw", tmp_path)
    kept = [path for path in (tmp_path / "cache" / "pcl").iterdir() if not path.name.startswith(".")]
    assert sum(path.stat().st_size for path in kept) <= 1.5 * most


# other kinds


@pytest.mark.parametrize(("u", "v"), [(u, LABELS[i % len(LABELS)]) for i, u in enumerate(VECTORS)])
def test_arrays(s3, folder, addresses, tmp_path, u, v):  # noqa: F811
    def make(root: str) -> Source:
        return arrays_source(ArraysSettings(u=f"{root}/{u}", v=f"{root}/{v}", form_v="labels"), SourceContext())

    here, there = built(make(str(folder)), tmp_path / "here"), built(make(addresses), tmp_path / "there")
    assert there == here


@pytest.fixture(scope="module")
def addresses(s3, folder) -> str:  # noqa: F811
    return uploaded(folder)


def test_images_of_digits(s3, mnist_root, tmp_path):
    raw = tmp_path / "raw"
    raw.mkdir()
    for name in FILES:
        (raw / f"{name}.gz").write_bytes((mnist_root / f"{name}.gz").read_bytes())
    here, there = MnistSource(raw), MnistSource(uploaded(raw))
    assert there.provenance() == here.provenance()
    for split in ("train", "test"):
        wanted, found = (one.pairs(split, 0, here.num_pairs(split)) for one in (here, there))
        for name, values in wanted.items():
            np.testing.assert_array_equal(found[name], values)
    next(raw.iterdir()).unlink()
    with pytest.raises(BadInputError, match=r"MNIST is not in s3://\S+: put there"):
        MnistSource(uploaded(raw))


def tars(root: str, pattern: str = "") -> Source:
    settings = WebdatasetSettings([f"{root}{pattern}"], u="png", v="txt", image_size=8, text_length=16)
    return webdataset_source(settings, SourceContext())


@pytest.mark.parametrize("pattern", ["", "/*.tar", "/{train,test}-{00..01}.tar"])
def test_tars(s3, tmp_path, make_png_tar, pattern):
    (tmp_path / "raw").mkdir()
    for number, name in enumerate(("train-00", "train-01", "test-00", "test-01")):
        make_png_tar(tmp_path / "raw" / f"{name}.tar", number)
    assert_same_shards(lambda root: tars(root), tmp_path / "raw", tmp_path, pattern)


@pytest.fixture
def make_png_tar() -> Callable[[Path, int], None]:
    def make(path: Path, number: int) -> None:
        with tarfile.open(path, "w") as tar:
            for key in range(30):
                picture = io.BytesIO()
                Image.new("RGB", (9, 9), (key, number, 7)).save(picture, "PNG")
                for name, data in (("png", picture.getvalue()), ("txt", f"text {key} of {number}".encode())):
                    member = tarfile.TarInfo(f"{number}-{key:03d}.{name}")
                    member.size = len(data)
                    tar.addfile(member, io.BytesIO(data))

    return make


def test_parts_of_tars_without_a_copy_are_asked_for(s3, tmp_path, make_png_tar):
    make_png_tar(tmp_path / "a.tar", 0)
    source = tars(uploaded(tmp_path / "a.tar"))
    here = tars(str(tmp_path / "a.tar"))
    for path in (Path(os.environ["XDG_CACHE_HOME"]) / "pcl").iterdir():
        path.unlink()
    number = len(s3.requests)
    found, wanted = (one.pairs("train", 0, 20) for one in (source, here))
    np.testing.assert_array_equal(found["u"], wanted["u"])
    np.testing.assert_array_equal(found["v"], wanted["v"])
    assert len(s3.requests) == number + 40


# https://


class Silent(http.server.SimpleHTTPRequestHandler):
    """Serves a folder."""

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def web(tmp_path: Path) -> Iterator[str]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(Silent, directory=str(tmp_path)))
    threading.Thread(target=server.serve_forever, args=(POLL_S,), daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def test_currents_of_the_web(s3, archive, tmp_path, web):
    write_archive(tmp_path / "a.nc", archive)
    here, there = open_source(tmp_path / "a.nc"), open_source(f"{web}/a.nc")
    assert built(there, tmp_path / "there") == built(here, tmp_path / "here")
    with xr.open_dataset(tmp_path / "a.nc", decode_times=False) as whole:
        whole.to_zarr(tmp_path / "a.zarr", zarr_format=2, consolidated=True)
    found = open_source(f"{web}/a.zarr").pairs("train", 0, 20)
    for name, values in here.pairs("train", 0, 20).items():
        np.testing.assert_array_equal(found[name], values)
    (tmp_path / "login.nc").write_text("<html>please log in</html>")
    for name, message in (("login.nc", "no NetCDF or Zarr"), ("none.nc", "no such file"), ("*.nc", "cannot be listed")):
        with pytest.raises((BadInputError, DamagedDataError), match=message) as refused:
            open_source(f"{web}/{name}")
        assert f"{web}/{name}" in str(refused.value)
        assert str(refused.value).isprintable()


# what goes wrong


def test_a_server_that_fails_for_a_while_changes_nothing(s3, archive, tmp_path, capsys):
    (tmp_path / "raw").mkdir()
    write_archive(tmp_path / "raw" / "a.nc", archive, times=slice(0, 20))
    write_archive(tmp_path / "raw" / "b.zarr", archive, times=slice(20, 40))
    address = uploaded(tmp_path / "raw")
    asked = itertools.count()
    s3.refusal, s3.refuses = SLOW_DOWN, lambda method, path: next(asked) in range(8, 17)  # a request is tried thrice
    try:
        found = built(open_source(address), tmp_path / "there")
    finally:
        s3.refusal = None
    assert "storage works again after" in capsys.readouterr().err
    assert found == built(open_source(tmp_path / "raw"), tmp_path / "here")


@pytest.mark.parametrize("name", ["a.nc", "a.npy", "a.npz", "a.tar", "a.zarr/zarr.json", "a.parquet"])
def test_an_object_that_is_no_such_file_ends_in_a_line(s3, tmp_path, name):
    path = tmp_path / "raw" / name
    path.parent.mkdir(parents=True)
    path.write_bytes(b"<html>please log in</html>")
    address = f"{uploaded(tmp_path / 'raw')}/{name.partition('/')[0]}"
    for make in (
        open_source,
        lambda one: arrays_source(ArraysSettings(u=one, v=one), SourceContext()),
        lambda one: tars(one),
    ):
        with pytest.raises((BadInputError, DamagedDataError)) as refused:
            make(address)
        assert address in str(refused.value) or "no tar file there" in str(refused.value)
        assert str(refused.value).isprintable()


def test_patterns_and_addresses_without_a_match_end_in_a_line(s3):
    for address in ("s3://bucket/gone/*.nc", "s3://bucket/gone.nc"):
        with pytest.raises(BadInputError, match="no such file"):
            open_source(address)
        with pytest.raises(BadInputError, match="no tar file there"):
            tars(address)
        with pytest.raises(BadInputError, match="does not exist"):
            arrays_source(ArraysSettings(u=address, v=address), SourceContext())


@pytest.mark.slow
def test_a_store_of_ten_times_the_memory_is_cut_within_it(s3, huge, tmp_path):  # noqa: F811
    small, _ = write_waves(tmp_path, 64)
    printed = run_code(MEASURE, uploaded(huge), tmp_path / "shards", uploaded(small))
    peak_mb, train, test = map(float, printed.split())
    assert (train, test) == (4 * 9, 2 * 9)
    assert peak_mb < 32, peak_mb
