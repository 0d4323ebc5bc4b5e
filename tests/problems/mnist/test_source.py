"""The MNIST source against the original files, damaged copies of them, and servers good and bad."""

import gzip
import hashlib
import socket
import threading
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from http.server import BaseHTTPRequestHandler, SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

from pcl.errors import BadInputError, DamagedDataError
from pcl.problems.mnist.source import MnistSource, parse_idx
from tests.modest import modest

MD5 = {
    "train-images-idx3-ubyte.gz": "f68b3c2dcbeaaa9fbdd348bbdeb94873",
    "train-labels-idx1-ubyte.gz": "d53e105ee54ea40749a09fcbcd1e9432",
    "t10k-images-idx3-ubyte.gz": "9fb629c4189551a2d022fa330f9573f3",
    "t10k-labels-idx1-ubyte.gz": "ec29112dd5afa0611ce80d1b7f02629c",
}
LABEL_COUNTS = {
    "train": [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949],
    "test": [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009],
}
NO_MIRRORS: tuple[str, ...] = ()


@pytest.fixture(scope="module")
def source(mnist_root: Path) -> MnistSource:
    return MnistSource(mnist_root, NO_MIRRORS)


@pytest.fixture
def copy(mnist_root: Path, tmp_path: Path) -> Callable[[str], Path]:
    """Return a function that makes a folder of links to the original files, but for one that it copies."""

    def make(name: str) -> Path:
        for file in MD5:
            (tmp_path / file).symlink_to(mnist_root / file)
        (tmp_path / name).unlink()
        (tmp_path / name).write_bytes((mnist_root / name).read_bytes())
        return tmp_path / name

    return make


class Quiet(SimpleHTTPRequestHandler):
    """Serves a folder."""

    def log_message(self, *_: object) -> None:
        pass


class WrongBytes(BaseHTTPRequestHandler):
    """Answers like the login page of a captive network."""

    log_message = Quiet.log_message

    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"<html>please log in</html>")


class CutOff(WrongBytes):
    """Closes the connection in the middle of a chunk."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        self.wfile.write(b"400\r\nhalf of it")
        self.close_connection = True


class NotHttp(WrongBytes):
    """Speaks another protocol."""

    def handle(self) -> None:
        self.rfile.readline()
        self.wfile.write(b"220 welcome\r\n")


@contextmanager
def serving(handler: Callable[..., BaseHTTPRequestHandler]) -> Iterator[str]:
    """Serve on a free port of the loopback interface, and give the address."""
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/"
        finally:
            server.shutdown()
            thread.join()


@contextmanager
def closed_port() -> Iterator[str]:
    """Give an address where nobody listens: the port is bound but not listening, so no other process gets it."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{taken.getsockname()[1]}/"


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "127.0.0.1")


@pytest.mark.parametrize(
    ("split", "num_pairs", "first"), [("train", 60_000, [5, 0, 4, 1, 9]), ("test", 10_000, [7, 2, 1, 0, 4])]
)
def test_pairs_are_the_published_ones(source, split, num_pairs, first):
    pairs = source.pairs(split, 0, num_pairs + 1)
    assert source.num_pairs(split) == num_pairs
    assert pairs["u"].shape == (num_pairs, 28, 28)
    assert pairs["v"].shape == (num_pairs,)
    assert pairs["u"].dtype == pairs["v"].dtype == np.uint8
    assert pairs["v"][:5].tolist() == first
    assert np.bincount(pairs["v"]).tolist() == LABEL_COUNTS[split]
    assert {name: array.shape[1:] for name, array in pairs.items()} == {
        name: info.shape for name, info in source.arrays.items()
    }


def test_grey_levels_have_the_published_moments(source):
    weights = np.bincount(source.pairs("train", 0, 60_000)["u"].reshape(-1), minlength=256)
    grey = np.arange(256) * source.arrays["u"].scale_factor
    mean = np.average(grey, weights=weights)
    assert mean == pytest.approx(0.1306604762738429)
    assert np.average((grey - mean) ** 2, weights=weights) ** 0.5 == pytest.approx(0.30810780717887876)


def test_a_range_of_pairs_is_that_part_of_the_files(source, mnist_root):
    content = gzip.decompress((mnist_root / "t10k-images-idx3-ubyte.gz").read_bytes())
    pairs = source.pairs("test", 17, 20)
    assert pairs["u"].tobytes() == content[16 + 17 * 784 : 16 + 20 * 784]
    assert len(pairs["v"]) == 3


def test_unzipped_files_give_the_same_pairs(source, mnist_root, tmp_path):
    for name in MD5:
        (tmp_path / name.removesuffix(".gz")).write_bytes(gzip.decompress((mnist_root / name).read_bytes()))
    unzipped = MnistSource(tmp_path, NO_MIRRORS)
    for split in ("train", "test"):
        for name in ("u", "v"):
            np.testing.assert_array_equal(
                unzipped.pairs(split, 0, 60_000)[name], source.pairs(split, 0, 60_000)[name], strict=True
            )


@pytest.mark.parametrize("name", ["train-images-idx3-ubyte.gz", "t10k-labels-idx1-ubyte.gz"])
@pytest.mark.parametrize("damage", ["truncated", "bit flipped", "empty", "not gzip"])
def test_a_damaged_file_is_named(copy, name, damage):
    path = copy(name)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(
        {"truncated": content[: len(content) // 2], "bit flipped": content, "empty": b"", "not gzip": b"MNIST"}[damage]
    )
    with pytest.raises(DamagedDataError, match=name):
        MnistSource(path.parent, NO_MIRRORS)


def test_a_damaged_unzipped_file_is_named(mnist_root, tmp_path):
    name = "train-images-idx3-ubyte"
    content = gzip.decompress((mnist_root / f"{name}.gz").read_bytes())
    (tmp_path / name).write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(DamagedDataError, match=str(tmp_path / name)):
        MnistSource(tmp_path, NO_MIRRORS)


def zeros(num_bytes: int) -> bytes:
    """Return a gzipped file of zeros, made of one block that is said again and again."""
    begin = zlib.compressobj(9, wbits=31)
    block = zlib.compressobj(9, wbits=-15)
    million = block.compress(bytes(10**6)) + block.flush(zlib.Z_FULL_FLUSH)
    return begin.compress(b"") + begin.flush(zlib.Z_FULL_FLUSH) + million * (num_bytes // 10**6)


@pytest.mark.parametrize("size", [4 * 10**9, 19 * 10**9])
def test_a_gzipped_file_that_unpacks_to_gigabytes_is_not_unpacked(copy, size):
    path = copy("train-images-idx3-ubyte.gz")
    path.write_bytes(zeros(size))
    assert size / 1100 < path.stat().st_size < size / 900
    unpack = zlib.decompressobj(wbits=31)
    assert len(unpack.decompress(path.read_bytes(), 10**7)) == 10**7
    with modest(), pytest.raises(DamagedDataError, match=path.name) as noticed:
        MnistSource(path.parent, NO_MIRRORS)
    assert str(noticed.value).isprintable()


@pytest.mark.parametrize("name", ["train-images-idx3-ubyte", "train-images-idx3-ubyte.gz"])
def test_a_file_of_a_terabyte_is_not_read(copy, name):
    path = copy("train-images-idx3-ubyte.gz").with_name(name)
    with path.open("ab") as stream:
        stream.truncate(10**12)
    with modest(), pytest.raises(DamagedDataError, match=name):
        MnistSource(path.parent, NO_MIRRORS)


def test_missing_files_are_downloaded_once(source, mnist_root, tmp_path):
    folder = tmp_path / "new" / "mnist"
    with serving(WrongBytes) as bad, serving(partial(Quiet, directory=str(mnist_root))) as good, closed_port() as dead:
        downloaded = MnistSource(folder, (dead, bad, good))
        MnistSource(folder, (dead,))
    assert {path.name: hashlib.md5(path.read_bytes()).hexdigest() for path in folder.iterdir()} == MD5
    np.testing.assert_array_equal(downloaded.pairs("test", 0, 10_000)["u"], source.pairs("test", 0, 10_000)["u"])


def refusal(folder: Path, mirror: str) -> str:
    with pytest.raises(BadInputError) as refused:
        MnistSource(folder, (mirror,))
    return str(refused.value)


def check_refusal(message: str, folder: Path) -> None:
    assert "\n" not in message
    assert str(folder) in message
    assert all(name in message and md5 in message for name, md5 in MD5.items())
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize("handler", [WrongBytes, CutOff, NotHttp])
def test_a_bad_mirror_leaves_nothing_behind(handler, tmp_path):
    with serving(handler) as mirror:
        check_refusal(refusal(tmp_path, mirror), tmp_path)


def test_a_mirror_without_the_files_leaves_nothing_behind(tmp_path):
    empty, folder = tmp_path / "served", tmp_path / "mnist"
    empty.mkdir()
    folder.mkdir()
    with serving(partial(Quiet, directory=str(empty))) as mirror:
        check_refusal(refusal(folder, mirror), folder)


def test_an_unreachable_mirror_leaves_nothing_behind(tmp_path):
    with closed_port() as mirror:
        check_refusal(refusal(tmp_path, mirror), tmp_path)


@pytest.mark.parametrize("shape", [(), (0,), (5,), (2, 3), (2, 1, 4)])
def test_parse_idx_inverts_the_format(shape):
    values = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    content = bytes([0, 0, 8, len(shape)]) + np.array(shape, ">u4").tobytes() + values.tobytes()
    np.testing.assert_array_equal(parse_idx(content), values, strict=True)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        bytes([0, 0, 8]),
        bytes([0, 0, 9, 1, 0, 0, 0, 1, 7]),
        bytes([1, 0, 8, 1, 0, 0, 0, 1, 7]),
        bytes([0, 0, 8, 2, 0, 0, 0, 1]),
        bytes([0, 0, 8, 1, 0, 0, 0, 2, 7]),
        bytes([0, 0, 8, 1, 0, 0, 0, 1, 7, 7]),
        bytes([0, 0, 8, 3, *[255] * 12, 7]),
        bytes([0, 0, 8, 255, *[255] * 1020, 7]),
        bytes([0, 0, 8, 255, *[0, 0, 0, 1] * 255, 7]),
    ],
    ids=[
        "empty",
        "no rank",
        "signed",
        "magic",
        "header cut",
        "value missing",
        "value too many",
        "sizes",
        "axes",
        "ones",
    ],
)
def test_parse_idx_refuses(content):
    with pytest.raises(ValueError, match=r"magic|values follow|offset"):
        parse_idx(content)
