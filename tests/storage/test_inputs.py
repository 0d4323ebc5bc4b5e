"""Raw inputs: a folder and a bucket behave alike, and refusals are waited out or said in a line."""

import hashlib
import http.server
import os
import pickle
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import boto3
import numpy as np
import pytest
import zarr

import pcl.storage.place as place_module
from pcl.errors import BadInputError, DamagedDataError, RunFailedError
from pcl.storage.copies import Copies
from pcl.storage.inputs import Input, expanded, input_at
from tests.s3 import POLL_S, S3, SECRET, SLOW_DOWN, s3_server, uploaded

FILES = {
    **{"a/x1.nc": b"0123456789", "a/x2.nc": b"01", "a/deep/x3.nc": b"3", "a/y.txt": b"y"},
    **{"b-1.tar": b"b1", "b-2.tar": b"b2"},
}


@pytest.fixture(scope="module")
def s3() -> Iterator[S3]:
    with s3_server() as server:
        yield server


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory, s3: S3) -> dict[str, str]:
    """The same files in a place of each kind."""
    folder = tmp_path_factory.mktemp("inputs") / "files"
    for name, content in FILES.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return {"folder": str(folder), "s3": uploaded(folder)}


@pytest.fixture(params=["folder", "s3"])
def root(request, files: dict[str, str], tmp_path: Path) -> Input:
    copies = Copies(tmp_path / "copies", 10**6) if request.param == "s3" else None
    return input_at(files[request.param], copies)


@pytest.fixture
def client(s3: S3):
    client = boto3.client("s3")
    yield client
    client.close()


def at(address: str, tmp_path: Path, most_bytes: int = 10**6) -> Input:
    return input_at(address, Copies(tmp_path / "copies", most_bytes))


def relative(root: Input, found: list[Input]) -> list[str]:
    return [one.removeprefix(f"{root}/") for one in found]


@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        ("a/x1.nc", ["a/x1.nc"]),
        ("a/*.nc", ["a/x1.nc", "a/x2.nc"]),
        ("a/x[2-9].nc", ["a/x2.nc"]),
        ("a/**/x*.nc", ["a/deep/x3.nc", "a/x1.nc", "a/x2.nc"]),
        ("b-{1..2}.tar", ["b-1.tar", "b-2.tar"]),
        ("b-{2,1}.tar", ["b-2.tar", "b-1.tar"]),
        ("{a/x?,b-*}".replace("?", "[0-9]") + "{.nc,.tar}", ["a/x1.nc", "a/x2.nc", "b-1.tar", "b-2.tar"]),
        ("a", ["a"]),
        ("none*", []),
        ("none/x.nc", []),
        ("b-{7..9}.tar", []),
    ],
)
def test_patterns_lead_to_the_same_files(root, pattern, names):
    found = [one for one in expanded(f"{root}/{pattern}", getattr(root, "copies", None))]
    assert relative(root, found) == names
    assert all(one.exists for one in found)


def test_what_is_told_and_read_is_the_same(root):
    folder, file = root.below("a"), root.below("a", "x1.nc")
    assert (folder.exists, folder.is_folder, file.exists, file.is_folder) == (True, True, True, False)
    assert not root.below("none").exists
    assert relative(root, folder.entries()) == ["a/deep", "a/x1.nc", "a/x2.nc", "a/y.txt"]
    assert [one.is_folder for one in folder.entries()] == [True, False, False, False]
    assert folder.sizes() == {"deep/x3.nc": 1, "x1.nc": 10, "x2.nc": 2, "y.txt": 1}
    assert (file.name, file.suffix, file.num_bytes) == ("x1.nc", ".nc", 10)
    for _ in range(2):  # before there is a copy, and then
        assert [file.read(start, 4) for start in (0, 3, 8, 12)] == [b"0123", b"3456", b"89", b""]
        with pickle.loads(pickle.dumps(file)).held() as path:
            assert path.read_bytes() == b"0123456789"
    assert file.sha256() == hashlib.sha256(b"0123456789").hexdigest()


def test_a_copy_is_fetched_once_and_is_that_of_the_version_that_was_seen(s3, client, tmp_path):
    client.put_object(Bucket="bucket", Key="x", Body=b"1" * 10)
    seen = at("s3://bucket/x", tmp_path)
    for _ in range(3):
        with seen.held() as path:
            assert path.read_bytes() == b"1" * 10
    assert sum(method == "GET" for method, name in s3.requests if name == "/bucket/x") == 1
    client.put_object(Bucket="bucket", Key="x", Body=b"2" * 10)
    with seen.held() as path:  # what was looked at is still there
        assert path.read_bytes() == b"1" * 10
    path.unlink()
    with pytest.raises(DamagedDataError, match="s3://bucket/x has changed since it was first looked at"), seen.held():
        pass
    with at("s3://bucket/x", tmp_path).held() as path:
        assert path.read_bytes() == b"2" * 10
    assert len([name for name in os.listdir(tmp_path / "copies") if not name.startswith(".")]) == 1


def test_large_objects_come_in_pieces(client, tmp_path, monkeypatch):
    monkeypatch.setattr("pcl.storage.remote_inputs.PIECE_BYTES", 7)
    content = np.random.default_rng(0).bytes(100)
    client.put_object(Bucket="bucket", Key="large", Body=content)
    with at("s3://bucket/large", tmp_path).held() as path:
        assert path.read_bytes() == content
    held = at("s3://bucket/large", tmp_path / "other", 90).held()
    assert "a copy of 100 bytes is needed, and data.cache_gb=9e-08" in quickly_refused(held.__enter__)


def test_a_server_that_fails_for_a_while_is_waited_out(s3, client, tmp_path, capsys):
    client.put_object(Bucket="bucket", Key="x", Body=b"x")
    s3.refusal = SLOW_DOWN
    threading.Timer(1.0, lambda: setattr(s3, "refusal", None)).start()
    with at("s3://bucket/x", tmp_path).held() as path:
        assert path.read_bytes() == b"x"
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].startswith("storage refuses (")
    assert lines[-1].startswith("storage works again after ")


def test_a_server_that_goes_on_failing_ends_in_a_line(s3, client, tmp_path, monkeypatch):
    client.put_object(Bucket="bucket", Key="x", Body=b"x")
    monkeypatch.setattr(place_module, "PATIENCE_S", 0.5)
    s3.refusal = SLOW_DOWN
    try:
        with pytest.raises(RunFailedError) as failed:
            at("s3://bucket/x", tmp_path).read(0, 1)
    finally:
        s3.refusal = None
    assert str(failed.value).startswith("s3://bucket/x cannot be read (")
    assert str(failed.value).isprintable()


def quickly_refused(function) -> str:
    began = time.monotonic()
    with pytest.raises(BadInputError) as refused:
        function()
    assert time.monotonic() - began < 5
    assert str(refused.value).isprintable()
    assert SECRET not in str(refused.value)
    return str(refused.value)


def test_what_it_is_of_no_use_to_wait_for_is_said_at_once(s3, tmp_path, monkeypatch):
    for address in ("s3://gone/x.nc", "s3://gone/*.nc"):
        assert "there is no such bucket" in quickly_refused(lambda address=address: expanded(address))
    held = at("s3://bucket/none.nc", tmp_path).held()
    assert "s3://bucket/none.nc: there is no such object" in quickly_refused(held.__enter__)
    s3.refusal = (403, "AccessDenied", "Access Denied")
    try:
        message = quickly_refused(lambda: expanded("s3://bucket/a*"))
        assert message.startswith("s3://bucket/a* may not be read (")
        assert message.endswith("credentials are those of the environment")
    finally:
        s3.refusal = None
    assert "braces stand for a million" in quickly_refused(lambda: expanded("s3://bucket/{0..99999999}"))
    assert "holds no credentials" in quickly_refused(lambda: input_at(f"s3://me:{SECRET}@bucket/x"))
    monkeypatch.setitem(sys.modules, "gcsfs", None)
    assert "gs:// needs gcsfs: pip install gcsfs" in quickly_refused(lambda: input_at("gs://bucket/x"))


# https://


class Web(http.server.BaseHTTPRequestHandler):
    """Serves one file, refuses another, and says nothing of the length of a third."""

    def do_GET(self) -> None:
        self.do_HEAD()
        if self.path == "/x.bin" and self.command == "GET":
            self.wfile.write(b"0123456789")

    def do_HEAD(self) -> None:
        self.send_response({"/x.bin": 200, "/long": 200, "/secret": 403}.get(self.path, 404))
        if self.path != "/long":
            self.send_header("Content-Length", "10" if self.path == "/x.bin" else "0")
        self.send_header("ETag", '"1"')
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def web() -> Iterator[str]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Web)
    threading.Thread(target=server.serve_forever, args=(POLL_S,), daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def test_files_of_the_web_are_read_whole(web, tmp_path):
    file = at(f"{web}/x.bin", tmp_path)
    assert (file.exists, file.num_bytes, file.is_folder) == (True, 10, False)
    assert file.read(3, 4) == b"3456"
    with file.held() as path:
        assert path.read_bytes() == b"0123456789"
    assert not at(f"{web}/none.bin", tmp_path).exists


def test_what_the_web_refuses_is_a_line(web, tmp_path, monkeypatch):
    assert "may not be read" in quickly_refused(lambda: at(f"{web}/secret", tmp_path).exists)
    assert "does not say how large it is" in quickly_refused(lambda: at(f"{web}/long", tmp_path).exists)
    assert "cannot be listed: name every file" in quickly_refused(lambda: expanded(f"{web}/*.nc"))
    monkeypatch.setattr(place_module, "PATIENCE_S", 0.3)
    with pytest.raises(RunFailedError, match="cannot be read"):
        _ = at("http://127.0.0.1:9/x.bin", tmp_path).exists


# Zarr


@pytest.mark.parametrize("version", [2, 3])
def test_chunks_are_asked_for_one_by_one_and_again_while_they_are_refused(s3, tmp_path, version):
    values = np.arange(80.0).reshape(10, 8)
    array = zarr.create_array(tmp_path / "z.zarr", shape=(10, 8), chunks=(2, 8), dtype="f8", zarr_format=version)
    array[:] = values
    store = at(uploaded(tmp_path / "z.zarr"), tmp_path).store()
    opened = pickle.loads(pickle.dumps(zarr.open_array(store, mode="r")))
    number = len(s3.requests)
    np.testing.assert_array_equal(opened[4:6], values[4:6])
    assert len(s3.requests) == number + 1
    s3.refusal = SLOW_DOWN
    threading.Timer(0.5, lambda: setattr(s3, "refusal", None)).start()
    np.testing.assert_array_equal(opened[:], values)
    with pytest.raises(ValueError, match="read-only"):
        zarr.open_array(store, mode="r+")[0] = 1


def test_a_shard_of_zarr_is_read_in_parts(s3, tmp_path):
    array = zarr.create_array(tmp_path / "s.zarr", shape=(64, 8), chunks=(2, 8), shards=(32, 8), dtype="f8")
    array[:] = values = np.random.default_rng(0).normal(size=(64, 8))
    opened = zarr.open_array(at(uploaded(tmp_path / "s.zarr"), tmp_path).store(), mode="r")
    np.testing.assert_array_equal(opened[3:5], values[3:5])
    np.testing.assert_array_equal(opened[:], values)
