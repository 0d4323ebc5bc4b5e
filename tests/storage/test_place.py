"""Places: folders and S3 behave alike, what is written is whole, and storage that refuses says so in one line."""

import contextlib
import errno
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from multiprocessing import get_context
from pathlib import Path

import pytest

import pcl.storage.place as storage
from pcl.errors import BadInputError
from pcl.storage.place import Place, create, is_local, names, patiently, place, read_bytes, replacing, write_bytes
from tests.s3 import S3, SECRET, SLOW_DOWN, WRONG_KEY, s3_environment, s3_server


@pytest.fixture(scope="module")
def s3() -> Iterator[S3]:
    with s3_server() as server:
        yield server


@pytest.fixture(params=["folder", "s3"])
def root(request, tmp_path, s3) -> Place:
    """An empty place of each kind."""
    return tmp_path if request.param == "folder" else place(f"{s3.address}/{tmp_path.name}-{os.urandom(4).hex()}")


# addresses


def test_folders_are_absolute_and_addresses_are_kept(tmp_path, monkeypatch, s3):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/home/someone")
    assert place("a/../b") == tmp_path / "b"
    assert place("~/runs") == Path("/home/someone/runs")
    assert is_local(place("/shared"))
    assert str(place("s3://bucket/runs/") / "run") == "s3://bucket/runs/run"
    assert str(place("s3://bucket/runs") / "run" / "config.yaml") == "s3://bucket/runs/run/config.yaml"
    assert not is_local(place("s3://bucket/runs"))
    assert place(str(place("s3://bucket"))) / "a" == place("s3://bucket/a")


@pytest.mark.parametrize(
    "address",
    [
        *("http://host/runs", "gs://bucket/runs", "file:///runs", "S3://bucket", "://", "memory://runs"),
        *("s3://", "s3:///runs", "s3://bucket/../other", "s3://bucket/a/./b", "s3://bucket/a/.."),
        *("s3://bucket/a?versionId=3", "s3://bucket/a#b", "s3://bucket/a//b", "s3://buc ket/a"),
    ],
)
def test_addresses_of_other_kinds_are_refused(address):
    with pytest.raises(BadInputError, match="give a folder that every node sees, or s3://bucket/prefix") as refused:
        place(address)
    assert address in str(refused.value)


def test_credentials_in_an_address_are_refused_and_not_repeated():
    with pytest.raises(BadInputError, match="holds no credentials") as refused:
        place(f"s3://somebody:{SECRET}@bucket/runs")
    assert SECRET not in str(refused.value)


def test_without_s3fs_the_remedy_is_named():
    code = "import sys; sys.modules['s3fs'] = None\nfrom pcl.storage.place import place\nplace('s3://bucket/runs')"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert found.stderr.splitlines()[-1].endswith("s3://bucket/runs: storage in S3 needs s3fs: pip install 'pcl[s3]'")


@pytest.mark.parametrize(
    "address", ["", "~nobody-of-that-name/x", "/a\0b", "x" * 256, "/" + "x/" * 2100, "ä" * 128, "\ud800", "s3://a\nb"]
)
def test_addresses_that_no_file_can_have_are_refused_in_a_line(address):
    with pytest.raises(BadInputError) as refused:
        place(address)
    assert str(refused.value).isprintable()
    assert len(str(refused.value)) < 250


def test_links_that_lead_to_each_other_are_refused(tmp_path):
    (tmp_path / "a").symlink_to(tmp_path / "b")
    (tmp_path / "b").symlink_to(tmp_path / "a")
    with pytest.raises(BadInputError, match="is no path"):
        place(str(tmp_path / "a"))


def test_the_longest_name_is_a_name(tmp_path):
    write_bytes(place(f"{tmp_path}/{'x' * 200}/{'y' * 200}"), b"z")


# files


def test_what_is_written_is_read_and_listed(root):
    assert names(root / "run") == []
    assert read_bytes(root / "run" / "a.json") is None
    for content in (b"first", b"second, longer", b""):
        write_bytes(root / "run" / "a.json", content)
        assert read_bytes(root / "run" / "a.json") == content
    write_bytes(root / "run" / "folder" / "b", b"")
    assert names(root / "run") == ["a.json", "folder"]
    assert names(root / "run" / "folder") == ["b"]
    assert names(root / "run" / "a.json") == []
    assert (root / "run" / "a.json").is_file()
    assert not (root / "run").is_file()
    assert (root / "run").is_dir()
    assert not (root / "nowhere").exists()
    assert read_bytes(root / "run" / "a.json" / "below") is None


def test_a_folder_is_no_file(tmp_path):
    with pytest.raises(IsADirectoryError):
        read_bytes(tmp_path)


def test_a_name_is_created_once(root):
    path = root / "run" / "name"
    assert create(path, b"first")
    assert not create(path, b"second")
    assert read_bytes(path) == b"first"
    assert names(root / "run") == ["name"]


def create_at_once(address: str, barrier, wins) -> None:
    path = place(address) / "name"
    read_bytes(path)  # connect
    barrier.wait()
    if create(path, str(os.getpid()).encode()):
        wins.put(os.getpid())


def test_one_of_many_processes_creates_a_name(root):
    fork = get_context("fork")  # a process of its own takes seconds to import
    barrier, wins = fork.Barrier(5), fork.Queue()
    workers = [fork.Process(target=create_at_once, args=(str(root), barrier, wins)) for _ in range(5)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
        assert worker.exitcode == 0
    winner = wins.get(timeout=10)
    assert wins.empty()
    assert int(read_bytes(root / "name")) == winner


WITHOUT_LINKS = ("EPERM", "ENOTSUP", "EOPNOTSUPP", "ENOSYS", "EMLINK")


@pytest.fixture(params=WITHOUT_LINKS)
def without_links(request, monkeypatch) -> int:
    """A file system without hard links, as gcsfuse and some NFS: the number of what it answers."""
    number = getattr(errno, request.param)

    def refuse(source: str, target: str) -> None:
        raise OSError(number, os.strerror(number), str(source), None, str(target))

    monkeypatch.setattr(os, "link", refuse)
    return number


def test_a_name_is_created_once_without_hard_links(without_links, tmp_path):
    path = tmp_path / "run" / "name"
    assert create(path, b"first")
    assert not create(path, b"second")
    assert path.read_bytes() == b"first"
    assert names(path.parent) == ["name"]


def test_one_of_many_processes_creates_a_name_without_hard_links(without_links, tmp_path):
    test_one_of_many_processes_creates_a_name(tmp_path)


def test_a_name_that_cannot_be_completed_without_hard_links_is_free_again(without_links, tmp_path, monkeypatch):
    def fail(source: str, target: str) -> None:
        raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", fail)
        with pytest.raises(OSError, match="Input/output"):
            create(tmp_path / "name", b"first")
    assert names(tmp_path) == []
    assert create(tmp_path / "name", b"second")


def test_other_refusals_of_a_link_are_refusals(tmp_path, monkeypatch):
    def refuse(source: str, target: str) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "link", refuse)
    with pytest.raises(OSError, match="No space"):
        create(tmp_path / "name", b"first")
    assert names(tmp_path) == []


def test_readers_see_one_content_or_the_other(root):
    """A reader never sees half a file, nor none, while a writer replaces it."""
    path, stop = root / "file", threading.Event()
    contents = [letter * 300_000 for letter in (b"a", b"b")]
    write_bytes(path, contents[0])

    def write() -> None:
        number = 0
        while not stop.is_set():
            number += 1
            write_bytes(path, contents[number % 2])

    writer = threading.Thread(target=write)
    writer.start()
    try:
        seen = {read_bytes(path) for _ in range(60)}
    finally:
        stop.set()
        writer.join()
    assert seen <= set(contents)


def test_a_block_that_fails_leaves_the_file_and_nothing_else(tmp_path):
    path = tmp_path / "file"
    write_bytes(path, b"old")

    def fail() -> None:
        with replacing(path) as temporary:
            temporary.write_bytes(b"half of the n")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert path.read_bytes() == b"old"
    assert names(tmp_path) == ["file"]


# refusals


def refused(path: Place) -> set[str]:
    """Use a place in every way; return what the errors say, one line each."""
    uses = (
        lambda: write_bytes(path, b"x"),
        lambda: create(path, b"x"),
        lambda: read_bytes(path),
        lambda: names(path.parent),
        lambda: path.is_file(),
        lambda: path.exists(),
        lambda: path.is_dir(),
        lambda: list(path.parent.glob("*/x")),
        lambda: path.unlink(missing_ok=True),
    )
    messages = set()
    for use in uses:
        with pytest.raises(OSError) as caught:  # noqa: PT011
            use()
        assert not isinstance(caught.value, (FileNotFoundError, FileExistsError))
        assert caught.value.filename.startswith("s3://")
        messages.add(caught.value.strerror)
    assert not any("\n" in message or SECRET in message for message in messages)
    return messages


def test_a_bucket_that_does_not_exist_is_no_empty_folder(s3):
    assert refused(place("s3://nobucket/runs/run/name")) == {"The specified bucket does not exist"}


def test_wrong_credentials_are_named(s3):
    s3.refusal = WRONG_KEY
    try:
        messages = refused(place(f"{s3.address}/runs/run/name"))
    finally:
        s3.refusal = None
    assert messages == {WRONG_KEY[2], "Forbidden"}


def test_no_credentials_are_named(s3, monkeypatch):
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    path = place(f"{s3.address}/runs/run/name")
    path.fs.clear_instance_cache()
    assert refused(place(str(path))) == {
        "Unable to locate credentials; credentials are those of the environment (AWS_...)"
    }
    path.fs.clear_instance_cache()


def test_an_endpoint_that_is_not_there_or_no_address_is_named():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        endpoint = f"http://127.0.0.1:{free.getsockname()[1]}"
    with s3_environment(endpoint), pytest.raises(OSError, match="Could not connect to the endpoint URL"):
        write_bytes(place("s3://bucket/a"), b"")
    with s3_environment("localhost:9000"), pytest.raises(OSError, match="Invalid endpoint: localhost:9000"):
        write_bytes(place("s3://bucket/a"), b"")
    with (
        s3_environment(endpoint.replace("//", f"//somebody:{SECRET}@")),
        pytest.raises(OSError, match="credentials encoded in URL") as caught,
    ):
        write_bytes(place("s3://bucket/a"), b"")
    assert SECRET not in str(caught.value)


@pytest.mark.slow
def test_an_endpoint_that_never_answers_ends_within_a_minute():
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen(50)
        started = time.monotonic()
        with s3_environment(f"http://127.0.0.1:{silent.getsockname()[1]}"), pytest.raises(OSError, match="time"):
            (place("s3://bucket/a") / "b").is_file()
    assert time.monotonic() - started < 60


# patience


class Clock:
    """Time that passes where somebody sleeps."""

    def __init__(self) -> None:
        self.now, self.pauses = 1000.0, []

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.pauses.append(seconds)
        self.now += seconds


@pytest.fixture
def clock(monkeypatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(storage, "time", clock)
    return clock


def test_a_call_that_works_is_made_once_and_silently(clock, capsys):
    assert patiently(lambda: 3, 10.0) == 3
    assert clock.pauses == []
    assert capsys.readouterr() == ("", "")


def test_refusals_are_waited_out_with_growing_pauses_and_two_lines(clock, capsys):
    def write() -> str:
        if clock.now < 1012.0:
            raise OSError(28, "No space left on device", "/runs/a")
        return "written"

    assert patiently(write, 60.0) == "written"
    assert clock.pauses == sorted(clock.pauses)
    assert clock.pauses[0] <= 0.5
    assert max(clock.pauses) <= 5.0
    assert clock.now < 1012.0 + 5.0
    first, last = capsys.readouterr().err.splitlines()
    assert first == "storage refuses ([Errno 28] No space left on device: '/runs/a'): trying again for 60 s"
    assert last == f"storage works again after {clock.now - 1000:.1f} s"


@pytest.mark.parametrize("timeout_s", [0.0, 0.1, 7.0, 60.0])
def test_the_last_refusal_is_raised_at_the_end_of_the_time(clock, timeout_s):
    times, lines = [], []

    def write() -> None:
        times.append(clock.now - 1000)
        raise PermissionError(13, f"refusal {len(times)}")

    with pytest.raises(PermissionError) as raised:
        patiently(write, timeout_s, say=lines.append)
    assert times[-1] == pytest.approx(timeout_s)
    assert raised.value.strerror == f"refusal {len(times)}"
    assert len(lines) == (timeout_s > 0)


def test_other_errors_are_raised_at_once(clock):
    with pytest.raises(ZeroDivisionError):
        patiently(lambda: 1 / 0, 60.0)
    assert clock.pauses == []


@pytest.fixture
def small_disk(tmp_path) -> Iterator[Path]:
    """A file system of 1 MB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(disk)]
    try:
        mounted = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        pytest.skip("there is no mount")
    if mounted.returncode:
        pytest.skip(f"mounting is not permitted: {mounted.stderr}")
    try:
        yield disk
    finally:
        subprocess.run(["umount", str(disk)], check=True)


@contextlib.contextmanager
def later(seconds: float, do) -> Iterator[None]:
    timer = threading.Timer(seconds, do)
    timer.start()
    try:
        yield
    finally:
        timer.join()


def test_a_full_disk_is_waited_out_and_leaves_what_was_there(small_disk, capsys):
    path, ballast = small_disk / "file", small_disk / "ballast"
    write_bytes(path, b"old")
    with contextlib.suppress(OSError):
        ballast.write_bytes(bytes(2**21))
    for write in (write_bytes, create):
        with pytest.raises(OSError, match="No space left"):
            write(path if write is write_bytes else small_disk / "new", bytes(2**18))
        assert names(small_disk) == ["ballast", "file"]
        assert path.read_bytes() == b"old"
    with later(0.5, ballast.unlink):
        patiently(lambda: write_bytes(path, bytes(2**18)), 20.0)
    assert path.read_bytes() == bytes(2**18)
    first, last = capsys.readouterr().err.splitlines()
    assert first.startswith("storage refuses ([Errno 28] No space left on device")
    assert last.startswith("storage works again after ")


def test_s3_that_answers_503_is_waited_out(s3, capsys):
    path = place(f"{s3.address}/slow/file")
    write_bytes(path, b"old")
    s3.refusal = SLOW_DOWN
    with pytest.raises(OSError, match="reduce your request rate"):
        write_bytes(path, b"new")
    with later(1.0, lambda: setattr(s3, "refusal", None)):
        patiently(lambda: write_bytes(path, b"new"), 30.0)
    assert read_bytes(path) == b"new"
    first, last = capsys.readouterr().err.splitlines()
    assert first.startswith("storage refuses ([Errno 16] Please reduce your request rate.: 's3://bucket/slow/file')")
    assert last.startswith("storage works again after ")


def test_a_created_name_whose_answer_was_lost_counts_as_not_created_here(s3):
    """The caller must look who is there: a lease does."""
    path = place(f"{s3.address}/lost/name")
    lost = iter([True])
    answer = s3._app

    def lose(environ, start_response):
        body = answer(environ, start_response)
        if environ["REQUEST_METHOD"] == "PUT" and next(lost, False):
            list(body)
            start_response("500 InternalError", [("Content-Length", "0")])
            return []
        return body

    s3._app = lose
    try:
        assert not create(path, b"mine")
    finally:
        s3._app = answer
    assert read_bytes(path) == b"mine"


def test_an_object_that_stands_for_a_folder_is_no_name(s3):
    """Ray Train makes such objects."""
    folder = place(f"{s3.address}/marked")
    for name in ("marked/", "marked/below/", "marked/below/file"):
        folder.fs.call_s3("put_object", Bucket="bucket", Key=name, Body=b"")
    assert names(folder) == ["below"]
    assert names(folder / "below") == ["file"]
    assert not folder.is_file()
    assert folder.is_dir()
