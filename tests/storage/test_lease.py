"""Leases with real processes: held by one, taken over from the dead, kept by the living."""

import json
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pytest

import pcl.storage.lease
from pcl.errors import BadInputError
from pcl.storage.lease import Holder, Lease
from pcl.storage.place import Place, names, place, read_bytes, write_bytes
from tests.s3 import S3, SLOW_DOWN, s3_server

FORK = get_context("fork")  # a process of its own takes seconds to import
ELSEWHERE = "another machine"


@pytest.fixture(scope="module")
def s3() -> Iterator[S3]:
    with s3_server() as server:
        yield server


@pytest.fixture(params=["folder", "s3"])
def folder(request, tmp_path, s3) -> Place:
    """Where the lease is, in a place of each kind."""
    where = tmp_path if request.param == "folder" else place(f"{s3.address}/{tmp_path.name}-{os.urandom(4).hex()}")
    return where / "lease"


def lease(folder: Place, duration_s: float = 1.0, **options: Any) -> Lease:
    return Lease(folder, "the run", "wait for it", duration_s=duration_s, **options)


def newest(folder: Place) -> Holder:
    return Holder(**json.loads(read_bytes(folder / names(folder)[-1])))


def hold(address: str, events, stop, duration_s: float, machine: str | None) -> None:
    """Hold a lease until told to stop; tell what happens."""
    if machine:
        pcl.storage.lease._machine = lambda: machine
    try:
        with lease(place(address), duration_s, lost=lambda: events.put("lost")):
            events.put("held")
            stop.wait()
    except BadInputError as error:
        events.put(str(error))


class Process:
    """A process that holds a lease, or was refused."""

    def __init__(self, folder: Place, duration_s: float = 1.0, machine: str | None = None) -> None:
        self._events, self._stop = FORK.Queue(), FORK.Event()
        arguments = (str(folder), self._events, self._stop, duration_s, machine)
        self._process = FORK.Process(target=hold, args=arguments, daemon=True)
        self._process.start()

    def event(self, timeout_s: float = 20.0) -> str:
        """Return what happened next."""
        return self._events.get(timeout=timeout_s)

    def send(self, number: int) -> None:
        os.kill(self._process.pid, number)

    def wait(self) -> None:
        """Wait for its end, and let the machine forget its number."""
        self._process.join(20)
        assert self._process.exitcode is not None

    def stop(self) -> None:
        """End it in an orderly way."""
        self._stop.set()
        self.wait()


@pytest.fixture
def start(folder) -> Iterator[Callable[..., Process]]:
    """Return a function that starts a process; all end with the test."""
    with ExitStack() as stack:

        def start(duration_s: float = 1.0, machine: str | None = None) -> Process:
            process = Process(folder, duration_s, machine)
            stack.callback(process.wait)
            stack.callback(process._process.kill)
            return process

        yield start


def seconds_to_enter(entered: Lease) -> float:
    """Take a lease and give it back; return how long that took."""
    started = time.monotonic()
    with entered:
        return time.monotonic() - started


# one holds


def test_a_lease_is_given_back_and_leaves_one_file(folder):
    for _ in range(3):
        assert seconds_to_enter(lease(folder, 60.0)) < 5.0
        assert newest(folder).released
    assert names(folder) == ["00000003.json"]


@pytest.mark.parametrize("machine", [None, ELSEWHERE])
def test_a_second_process_is_refused_in_one_line_within_a_minute(folder, start, machine):
    holder = start(5.0, machine)
    assert holder.event() == "held"
    started = time.monotonic()
    with pytest.raises(BadInputError) as refused, lease(folder, 5.0):
        pass
    assert time.monotonic() - started < 5.0
    assert Lease(folder, "the run", "wait for it").duration_s == 20.0
    pid, host = newest(folder).pid, os.uname().nodename
    assert str(refused.value) == f"the run is in use by process {pid} on {host}, which is alive: wait for it"
    holder.stop()
    assert seconds_to_enter(lease(folder, 60.0)) < 5.0


def test_a_holder_stays_while_it_lives(folder, start):
    holder = start(0.5, ELSEWHERE)
    assert holder.event() == "held"
    for _ in range(5):
        with pytest.raises(BadInputError, match="is alive"), lease(folder, 0.5):
            pass
    holder.stop()


def test_two_leases_of_one_process_exclude_each_other(folder):
    with lease(folder), pytest.raises(BadInputError, match=f"in use by process {os.getpid()}"), lease(folder):
        pass


# the dead


def test_a_process_of_this_machine_that_was_killed_is_replaced_at_once(folder, start):
    holder = start(600.0)
    assert holder.event() == "held"
    holder.send(signal.SIGKILL)
    deadline = time.monotonic() + 10  # it is not waited for: its number is still taken
    while (state := Path(f"/proc/{newest(folder).pid}/stat").read_text().split()[2]) != "Z":
        assert time.monotonic() < deadline, state
        time.sleep(0.01)
    assert seconds_to_enter(lease(folder, 600.0)) < 5.0
    holder.wait()


def test_a_number_that_another_process_has_now_is_not_the_holder(folder):
    """After a restart of a container, say: our parent started at another time than the holder."""
    holder = Holder("token", "host", pcl.storage.lease._machine(), os.getppid(), "1")
    assert pcl.storage.lease._started(holder.pid) not in ("1", "", None)
    write_bytes(folder / "00000007.json", json.dumps(vars(holder)).encode())
    assert seconds_to_enter(lease(folder, 600.0)) < 5.0
    assert names(folder) == ["00000008.json"]


def test_a_living_process_of_somebody_else_is_not_dead(monkeypatch):
    """Its number answers with a refusal, and /proc may hide it."""

    def refuse(pid: int, number: int) -> None:
        raise PermissionError

    monkeypatch.setattr(os, "kill", refuse)
    assert not pcl.storage.lease._has_ended(2**21, "100")
    monkeypatch.undo()
    assert pcl.storage.lease._has_ended(2**22 + 5, None)  # larger than any number of a process
    assert not pcl.storage.lease._has_ended("7; rm", None)
    assert not pcl.storage.lease._has_ended(os.getpid(), pcl.storage.lease._started(os.getpid()))


def test_a_holder_elsewhere_that_stands_still_is_replaced_and_finds_out_when_it_wakes(folder, start):
    holder = start(1.0, ELSEWHERE)
    assert holder.event() == "held"
    holder.send(signal.SIGSTOP)
    started = time.monotonic()
    with lease(folder, 1.0):
        assert 1.0 <= time.monotonic() - started < 5.0
        mine = newest(folder)
        holder.send(signal.SIGCONT)
        assert holder.event(5.0) == "lost"
        assert newest(folder).token == mine.token
        holder.stop()
        assert not newest(folder).released, "who has lost it does not give it back"
        with pytest.raises(BadInputError, match="is alive"), lease(folder, 1.0):
            pass


def race(address: str, rounds: int, barrier, results, machine: str, duration_s: float) -> None:
    """Try to hold a lease in each of some rounds, with all others at once."""
    pcl.storage.lease._machine = lambda: machine
    folder = place(address)
    for _ in range(rounds):
        barrier.wait()
        try:
            with lease(folder, duration_s):
                results.put("held")
                barrier.wait()  # until all others were refused
        except BadInputError:
            results.put("refused")
            barrier.wait()
        barrier.wait()  # until it is given back


@pytest.mark.parametrize(
    "dead",
    ["still", "none", *(pytest.param(dead, marks=pytest.mark.slow) for dead in ("released", "ended", "garbled"))],
)
def test_exactly_one_of_many_gets_a_lease_that_is_free(folder, dead):
    machine = "ours"
    contents = {
        "released": Holder("t", released=True),
        "still": Holder("t", machine=ELSEWHERE, pid=os.getpid()),
        "ended": Holder("t", machine=machine, pid=2**22 + 5),
    }
    rounds = 4 if isinstance(folder, Path) else 2
    barrier, results = FORK.Barrier(7, timeout=60), FORK.Queue()
    arguments = (str(folder), rounds, barrier, results, machine, 1.0)
    racers = [FORK.Process(target=race, args=arguments, daemon=True) for _ in range(6)]
    for racer in racers:
        racer.start()
    for number in range(1, rounds + 1):
        if dead == "garbled":
            write_bytes(folder / f"{10 * number:08d}.json", b'{"token": ')
        elif dead != "none":
            write_bytes(folder / f"{10 * number:08d}.json", json.dumps(vars(contents[dead])).encode())
        for _ in range(3):
            barrier.wait()
        assert sorted(results.get(timeout=5) for _ in racers) == ["held", *["refused"] * 5]
    for racer in racers:
        racer.join(60)
        assert racer.exitcode == 0


def test_who_was_slow_does_not_take_a_generation_that_came_and_went(folder, monkeypatch):
    """Generation 1 was dead when it looked; before it created 2, that came, went and was removed by 3, which lives."""
    write_bytes(folder / "00000001.json", json.dumps(vars(Holder("one", released=True))).encode())
    create = pcl.storage.lease.create
    with ExitStack() as stack:

        def slow(path: Place, content: bytes) -> bool:
            monkeypatch.setattr(pcl.storage.lease, "create", create)
            with lease(folder):
                pass
            stack.enter_context(lease(folder))
            assert not (folder / "00000002.json").exists()
            assert path.name == "00000002.json"
            return create(path, content)

        monkeypatch.setattr(pcl.storage.lease, "create", slow)
        with pytest.raises(BadInputError, match="is alive"), lease(folder):
            pass


# storage that refuses


@pytest.fixture
def full_disk(tmp_path) -> Iterator[Callable[[bool], None]]:
    """Return a function that makes a folder's file system full, or not; the lease goes there."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(disk)]
    mounted = subprocess.run(mount, capture_output=True, check=False)
    if mounted.returncode:
        pytest.skip(f"mounting is not permitted: {mounted.stderr.decode()}")

    def fill(full: bool) -> None:
        subprocess.run(["mount", "-o", f"remount,{'ro' if full else 'rw'}", str(disk)], check=True)

    try:
        yield fill
    finally:
        fill(False)
        subprocess.run(["umount", str(disk)], check=True)


@pytest.mark.parametrize("kind", ["folder", "s3"])
def test_a_holder_keeps_its_lease_while_storage_refuses_everybody(kind, tmp_path, full_disk, s3):
    """Storage refuses writes for much longer than the lease lasts."""
    where = tmp_path / "disk" / "lease" if kind == "folder" else place(f"{s3.address}/{tmp_path.name}/lease")
    s3.refuses = lambda method, path: method == "PUT"
    lost: list[bool] = []

    def refuse(on: bool) -> None:
        s3.refusal = SLOW_DOWN if on else None
        full_disk(on)

    with lease(where, 1.0, lost=lambda: lost.append(True)) as held:
        refuse(True)
        try:
            with pytest.raises(OSError, match=r"Read-only|request rate"), lease(where, 1.0):
                pass
        finally:
            refuse(False)
        deadline, count = time.monotonic() + 10, newest(where).count
        while newest(where).count <= count + 1:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        with pytest.raises(BadInputError, match="is alive"), lease(where, 1.0):
            pass
        assert not held.is_lost
    assert not lost
    assert newest(where).released


def test_a_holder_that_storage_refuses_alone_is_replaced_and_finds_out(folder, monkeypatch):
    """Its machine was cut off: the others can write."""
    found_out, cut_off = threading.Event(), threading.Event()

    held = lease(folder, 1.0, lost=found_out.set)

    def cut(function: Callable[..., Any]) -> Callable[..., Any]:
        def called(*arguments: Any) -> Any:
            if cut_off.is_set() and threading.current_thread() is held._thread:
                raise OSError(5, "Input/output error")
            return function(*arguments)

        return called

    for name in ("names", "read_json", "write_bytes"):
        monkeypatch.setattr(pcl.storage.lease, name, cut(getattr(pcl.storage.lease, name)))
    with held:
        cut_off.set()
        time.sleep(0.5)  # a write that was under way ends
        other = lease(folder, 1.0)
        other._me = Holder(other._me.token, machine=ELSEWHERE)
        with other:
            assert not held.is_lost
            cut_off.clear()
            assert found_out.wait(5.0)
            assert held.is_lost
            assert newest(folder).token == other._me.token
        assert newest(folder).released


def test_storage_that_refuses_at_the_beginning_is_an_error(s3, tmp_path):
    s3.refuses, s3.refusal = (lambda method, path: True), SLOW_DOWN
    try:
        with pytest.raises(OSError, match="request rate"), lease(place(f"{s3.address}/{tmp_path.name}")):
            pass
    finally:
        s3.refusal = None
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="file"), lease(tmp_path / "file" / "lease"):
        pass


def test_a_lease_that_cannot_be_given_back_ends_quietly(s3, tmp_path):
    where = place(f"{s3.address}/{tmp_path.name}/lease")
    try:
        with lease(where, 0.5):
            s3.refuses, s3.refusal = (lambda method, path: True), SLOW_DOWN
    finally:
        s3.refusal = None
    assert not newest(where).released
    assert seconds_to_enter(lease(where, 0.5)) < 5.0


# odd contents


def test_an_answer_that_was_lost_does_not_lose_the_lease(s3, tmp_path, monkeypatch):
    """The name was created, but the caller heard that somebody had: the file says who."""
    create = pcl.storage.lease.create
    monkeypatch.setattr(pcl.storage.lease, "create", lambda path, content: create(path, content) and False)
    assert seconds_to_enter(lease(place(f"{s3.address}/{tmp_path.name}/lease"), 60.0)) < 5.0


def test_other_files_are_left_alone_and_a_link_to_nowhere_does_not_hang(tmp_path):
    for name in ("notes.json", "00000009", ".00000009.json.abc", "00000009.json.bak", "²²²²²²²².json"):
        (tmp_path / name).touch()
    before = set(names(tmp_path))
    (tmp_path / "00000004.json").symlink_to(tmp_path / "nowhere")
    assert seconds_to_enter(lease(tmp_path, 0.2)) < 30.0
    assert set(names(tmp_path)) - before == {"00000005.json"}


@pytest.mark.parametrize("number", [10**8 - 1, 10**8 - 2])
def test_the_last_generation_ends_in_a_line(folder, number):
    """Somebody wrote it by hand: no lease is taken so often."""
    write_bytes(folder / f"{number:08d}.json", b"{}")
    started = time.monotonic()
    if number < 10**8 - 1:
        assert seconds_to_enter(lease(folder, 0.5)) < 5.0
    with (
        pytest.raises(BadInputError, match=r"99999999\.json is the last lease .* delete that file"),
        lease(folder, 0.5),
    ):
        pass
    assert time.monotonic() - started < 10.0
    (folder / "99999999.json").unlink()
    assert seconds_to_enter(lease(folder, 0.5)) < 5.0


@pytest.mark.parametrize(
    "content",
    [
        *(b"", b"{", b"[]", b"null", b"3", b"\xff", b"{}", b"[" * 100_000, b'{"pid": "7; rm"}', b'{"count": 1e400}'),
        *(b'{"released": "yes"}', b'{"pid": ' + b"9" * 5000 + b"}", b'{"host": "\x1b[2J"}', b'{"a": ' * 5000),
    ],
)
def test_a_lease_that_holds_anything_else_runs_out(tmp_path, content):
    (tmp_path / "00000003.json").write_bytes(content)
    assert seconds_to_enter(lease(tmp_path, 0.2)) < 5.0
    assert names(tmp_path) == ["00000004.json"]


def test_what_a_holder_calls_itself_does_not_reach_the_terminal(tmp_path):
    other = lease(tmp_path, 1.0)
    other._me = Holder(other._me.token, "\x1b]0;owned\x07" + "x" * 5000, ELSEWHERE)
    with other, pytest.raises(BadInputError, match="is alive") as refused, lease(tmp_path, 1.0):
        pass
    assert str(refused.value).isprintable()
    assert len(str(refused.value)) < 300


def test_a_lease_needs_no_hard_links(tmp_path, monkeypatch):
    def refuse(source: str, target: str) -> None:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(os, "link", refuse)
    with lease(tmp_path, 1.0), pytest.raises(BadInputError, match="is alive"), lease(tmp_path, 1.0):
        pass
    assert seconds_to_enter(lease(tmp_path, 60.0)) < 5.0
    assert names(tmp_path) == ["00000002.json"]


def test_a_lease_whose_folder_was_deleted_is_lost(tmp_path):
    found_out = threading.Event()
    with lease(tmp_path / "lease", 0.5, lost=found_out.set):
        (tmp_path / "lease").rename(tmp_path / "deleted")
        assert found_out.wait(5.0)
    assert names(tmp_path) == ["deleted"]
