"""Copies of objects: fetched once, within their bound, the least recently used go first, held ones stay."""

import errno
import functools
import hashlib
import os
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import pcl.storage.copies as module
from pcl.errors import BadInputError
from pcl.storage.copies import Copies, default_folder


def writes(content: bytes, calls: list[str] | None = None, name: str = ""):
    def fetch(part: Path) -> None:
        if calls is not None:
            calls.append(name)
        part.write_bytes(content)

    return fetch


@functools.cache
def key(name: str) -> str:
    return hashlib.sha256(name.encode()).hexdigest()


NAMES = {key(name): name for name in (*"abcdef", "first", "second", "key")}


def kept(folder: Path) -> set[str]:
    return {NAMES.get(name, name) for name in os.listdir(folder) if name != ".room"}


def test_a_copy_that_is_finished_while_room_is_made_counts(tmp_path, monkeypatch):
    copies, listed, finished = Copies(tmp_path / "pcl", 5), threading.Event(), threading.Event()

    def slowly(folder):
        entries = list(os.scandir(folder))
        if any(entry.name.endswith(module.PART) for entry in entries) and not listed.is_set():
            listed.set()
            finished.wait(0.5)  # in vain: a copy takes its name when nobody looks
        return entries

    def fetch_slowly(part: Path) -> None:
        assert listed.wait(20)
        part.write_bytes(b"12345")

    def first() -> None:
        with copies.held(key("first"), 5, fetch_slowly):
            finished.set()

    monkeypatch.setattr(module, "os", SimpleNamespace(**{**vars(os), "scandir": slowly}))
    copies.folder.mkdir()
    with ThreadPoolExecutor(1) as pool:
        ended = pool.submit(first)
        while not any(
            name.startswith(f".{key('first')}.") and name.endswith(module.PART) for name in kept(copies.folder)
        ):
            time.sleep(0.01)
        with copies.held(key("second"), 5, writes(b"67890")):
            assert kept(copies.folder) == {"second"}
        ended.result()


@given(st.lists(st.sampled_from("abcdef"), max_size=30))
@settings(max_examples=60, deadline=None)
def test_copies_are_those_of_a_plain_list_of_the_last_used(tmp_path_factory, names):
    sizes = {name: 1 + "abcdef".index(name) for name in "abcdef"}
    copies, calls = Copies(tmp_path_factory.mktemp("copies") / "pcl", 10), []
    model: list[str] = []  # the most recently used last
    wanted: list[str] = []
    for number, name in enumerate(names):
        with copies.held(key(name), sizes[name], writes(name.encode() * sizes[name], calls, name)) as path:
            assert path.read_bytes() == name.encode() * sizes[name]
        os.utime(path, ns=(number, number))  # clocks are too coarse for a test
        if name not in model:
            wanted.append(name)
            while sum(map(sizes.get, model)) + sizes[name] > 10:
                model.pop(0)
        model = [one for one in model if one != name] + [name]
        assert kept(copies.folder) == set(model)
    assert calls == wanted


@given(st.lists(st.sampled_from("abcdef"), min_size=3, max_size=12))
@settings(max_examples=20, deadline=None)
def test_what_other_people_keep_in_the_folder_stays(tmp_path_factory, names):
    folder = tmp_path_factory.mktemp("copies")
    others = ["thesis.txt", "poetry.lock", "film.part", ".hidden.lock", ".a.0123.8.part", key("a")[:40], "x" + key("a")]
    for number, other in enumerate(others):
        (folder / other).write_bytes(b"x" * (10 + number))
    (folder / "photos").mkdir()
    (folder / "photos" / key("b")).write_bytes(b"mine")
    for name in names:
        with Copies(folder, 10).held(key(name), 5, writes(b"12345")):
            pass
    assert {path.name for path in folder.iterdir()} >= {*others, "photos"}
    assert (folder / "photos" / key("b")).read_bytes() == b"mine"
    assert len(kept(folder) & set("abcdef")) <= 2


def test_many_threads_fetch_a_copy_once(tmp_path):
    copies, calls = Copies(tmp_path / "pcl", 100), []

    def fetch(part: Path) -> None:
        calls.append(part)
        time.sleep(0.1)
        part.write_bytes(b"12345")

    def read(_: int) -> bytes:
        with copies.held(key("key"), 5, fetch) as path:
            return path.read_bytes()

    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(read, range(16))) == {b"12345"}
    assert len(calls) == 1
    assert kept(copies.folder) == {"key"}


def test_a_copy_that_is_held_stays_and_another_waits_for_its_room(tmp_path, capsys):
    copies, order = Copies(tmp_path / "pcl", 8), []

    def other() -> None:
        with copies.held(key("b"), 5, writes(b"bbbbb")) as path:
            order.append(path.read_bytes())

    with copies.held(key("a"), 5, writes(b"aaaaa")) as path:
        thread = threading.Thread(target=other)
        thread.start()
        time.sleep(0.4)
        order.append(path.read_bytes())
    thread.join(10)
    assert order == [b"aaaaa", b"bbbbb"]
    assert kept(copies.folder) == {"b"}
    assert "all copies of objects are in use" in capsys.readouterr().err


def test_what_a_killed_process_left_counts_no_more(tmp_path):
    folder = tmp_path / "pcl"
    folder.mkdir()
    (folder / f".{key('z')}.{'0' * 32}.8.part").write_bytes(b"123")
    (folder / f".{key('z')}.lock").touch()
    with Copies(folder, 8).held(key("b"), 8, writes(b"12345678")):
        pass
    assert kept(folder) == {"b"}


def test_a_copy_that_is_cut_off_is_fetched_again(tmp_path):
    copies = Copies(tmp_path / "pcl", 8)
    copies.folder.mkdir()
    (copies.folder / key("a")).write_bytes(b"12")
    assert copies.find(key("a"), 5) is None
    with copies.held(key("a"), 5, writes(b"12345")) as path:
        assert path.read_bytes() == b"12345"


def test_a_fetch_that_fails_leaves_nothing(tmp_path):
    copies = Copies(tmp_path / "pcl", 8)

    def fail(part: Path) -> None:
        part.write_bytes(b"1")
        raise OSError(errno.EIO, "no answer", "s3://bucket/a")

    for fetch, message in ((fail, "no answer"), (writes(b"123"), "3 of 5 bytes came")):
        with pytest.raises(OSError, match=message), copies.held(key("a"), 5, fetch):
            pass
        assert kept(copies.folder) == set()


def refused(copies: Copies, fetch, num_bytes: int = 5) -> str:
    with pytest.raises(BadInputError) as error, copies.held(key("a"), num_bytes, fetch):
        pass
    assert "\n" not in str(error.value)
    return str(error.value)


def test_what_cannot_be_kept_is_refused_in_a_line_that_names_the_keys(tmp_path, monkeypatch):
    copies = Copies(tmp_path / "pcl", 8)
    assert "9 bytes is needed, and data.cache_gb=8e-09 allows 8 in all" in refused(copies, writes(b""), 9)
    (tmp_path / "file").touch()
    for folder in (tmp_path / "file", tmp_path / "file" / "pcl"):
        assert f"copies cannot be kept in {folder} (" in refused(Copies(folder, 8), writes(b""))

    def full(part: Path) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", str(part))

    assert "(No space left on device): choose another data.cache, or another data.cache_gb" in refused(copies, full)
    monkeypatch.setattr(module.shutil, "disk_usage", lambda _: SimpleNamespace(free=4))
    assert "has 4 free: choose another data.cache" in refused(copies, writes(b"12345"))


def test_the_usual_folder_is_there_for_a_user_without_a_home(monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", "/cache")
    assert default_folder() == Path("/cache/pcl")
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", "/home/me")
    assert default_folder() == Path("/home/me/.cache/pcl")
    monkeypatch.setattr("os.path.expanduser", lambda path: path)
    assert default_folder().parent.parent == Path(tempfile.gettempdir())
