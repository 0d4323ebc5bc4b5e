"""A Ray of our own: on loopback, behind a token, in a private folder, and gone when the process that started it is."""

__all__ = ["keep_logs", "own_ray", "private_folder", "signals_wait"]

import atexit
import errno
import fcntl
import functools
import logging
import math
import os
import resource
import secrets
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NoReturn

import psutil  # type: ignore[import-untyped]  # Ray brings it
import ray

from pcl.cluster.ray_insides import kill_at_once, lean_start, say_no_logs
from pcl.cluster.signals import SIGNALS
from pcl.cluster.template import offered
from pcl.errors import RunFailedError, printable

PREFIX = "pcl-ray-"  # and 8 characters
LOCK = "pcl-lock"
YOUNG_S = 5.0
# an address of a socket has at most 107 bytes, and Ray's longest is below
LONGEST_BASE = 107 - len("/pcl-ray-12345678/ray/session_2026-01-01_00-00-00_000000_4194304/sockets/dash_MetricsHead")
LEAST_BYTES = 50_000_000  # for Ray's logs and sockets
START_S = 120.0  # it takes 5 to 15, where all else is busy up to 60
KEPT_S = 86_400.0  # logs that people were told of
LOOK_S = 0.1
END_S = 5.0  # for those that were killed
TRIES = 50
CORE = ("raylet", "gcs_server")  # without one of them nothing works
LEAST_SPACE = 8 << 30  # bytes of addresses of each process
LIMITS = (  # what Ray starts with for certain, and the letter of ulimit
    (resource.RLIMIT_AS, "v", "bytes of address space", 2 * LEAST_SPACE, 1024),
    (resource.RLIMIT_NPROC, "u", "processes and threads", 2048, 1),
    (resource.RLIMIT_NOFILE, "n", "open files", 256, 1),
)


@functools.cache
def private_folder() -> Path:
    """Folder of this process that only its user can read, with a short name; removed when the process ends.

    It lies in ``RAY_TMPDIR``, else in the temporary folder, else where there is room for it. What processes left that
    were killed is removed from there: their folders are those whose lock is free.

    Raises:
        RunFailedError: there is no room for it anywhere.
    """
    refused = {}
    for base in _bases():
        try:
            _remove_leftovers(base)
            return _make_folder(base)
        except OSError as error:
            refused[base] = error.strerror or type(error).__name__
    told = ", ".join(f"{printable(base)}: {why}" for base, why in refused.items())
    raise RunFailedError(
        f"there is no room for Ray's files ({told}): set RAY_TMPDIR to a folder that you may write to, whose name has "
        f"at most {LONGEST_BASE} bytes"
    )


def _bases() -> list[Path]:
    """Return where the private folder may be, the first choice first."""
    with suppress(FileNotFoundError):  # no temporary folder can be written to
        tempfile.gettempdir()
    named = [os.environ.get("RAY_TMPDIR"), tempfile.tempdir, "/tmp", "/var/tmp", "/dev/shm"]
    named.append(os.environ.get("XDG_RUNTIME_DIR"))
    return [Path(name) for name in dict.fromkeys(named) if name and len(os.fsencode(name)) <= LONGEST_BASE]


def _make_folder(base: Path) -> Path:
    if shutil.disk_usage(base).free < LEAST_BYTES:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    folder = Path(tempfile.mkdtemp(prefix=PREFIX, dir=base))
    atexit.register(_remove_folder, folder)
    lock = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)  # open as long as this process lives
    fcntl.flock(lock, fcntl.LOCK_EX)
    (folder / LOCK).stat()  # somebody may have found it in between, and free
    return folder


def _remove_folder(folder: Path) -> None:
    """Remove all but the logs that are to be kept."""
    if _kept:
        with suppress(OSError):
            (folder / "ray" / "session_latest" / "logs").resolve().rename(folder / "logs")
    _remove_all(folder, but=(LOCK, "logs") if _kept else ())


def _remove_all(folder: Path, but: Sequence[str] = ()) -> None:
    """Remove what is in a folder, then its lock: where something still writes in between, the next start goes on."""
    for _ in range(TRIES):
        left = [path for path in folder.iterdir() if path.name not in (LOCK, *but)] if folder.exists() else []
        if not left:
            break
        for path in left:
            with suppress(OSError):
                shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
        time.sleep(0.02)
    if not (left or but):
        shutil.rmtree(folder, ignore_errors=True)


def _remove_leftovers(base: Path) -> None:
    """Remove the folders of processes that ended without removing them."""
    for folder in base.glob(f"{PREFIX}*"):
        with suppress(OSError):  # somebody else's, or in use
            if folder.lstat().st_uid != os.getuid():
                continue
            made = os.O_CREAT if _has_lost_its_lock(folder) else 0
            lock = os.open(folder / LOCK, os.O_RDWR | os.O_NOFOLLOW | made, 0o600)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                _kill(list(_processes_of(folder / "ray")))  # its agents stay for a minute; some have only begun
                _remove_all(folder, but=(LOCK, "logs") if _has_kept_logs(folder) else ())
            finally:
                os.close(lock)


def _has_kept_logs(folder: Path) -> bool:
    """Return whether a folder holds logs that somebody was told of not long ago."""
    logs = folder / "logs"
    return logs.is_dir() and time.time() - logs.stat().st_mtime < KEPT_S


def _has_lost_its_lock(folder: Path) -> bool:
    """Return whether a folder was left before its lock was made, or written to again after it was removed."""
    is_named_so = len(folder.name) == len(PREFIX) + 8
    is_old = time.time() - folder.lstat().st_mtime > YOUNG_S  # else its process may be about to make the lock
    return is_named_so and is_old and {path.name for path in folder.iterdir()} <= {"ray"}


def _processes_of(folder: Path) -> Iterator[psutil.Process]:
    """Yield the processes of the Ray in a folder: they have a file there open, such as their log, or soon will."""
    program = str(Path(ray.__file__).parent)
    for process in psutil.process_iter():
        with suppress(psutil.Error):  # it has ended, or is somebody else's
            command = " ".join(process.cmdline())
            is_begun = program in command and f"{folder}{os.sep}" in command
            if is_begun or any(Path(file.path).is_relative_to(folder) for file in process.open_files()):
                yield process


_kept: list[Path] = []


def keep_logs() -> Path:
    """Where Ray's logs will be once this process has ended, for people: for a day at least."""
    _kept.append(private_folder() / "logs")
    return _kept[-1]


@contextmanager
def own_ray(num_cpus: int, *, dashboard: bool = False) -> Iterator[None]:
    """Start a Ray for a block: it listens on loopback only, and lets in only who has a token that it makes up.

    Signals that ask this process to end do not reach Ray's processes, whoever sends them to all processes of a job:
    this one has to answer. Ports are free ones, so that there may be many on a machine.

    Args:
        num_cpus: that it offers, at least; not fewer than the machine has.
        dashboard: whether jobs can be submitted to it.

    Raises:
        RunFailedError: it does not start. Where it hangs for a minute, or a part of it ends in the block, this process
            ends, with a line and the same exit code.
    """
    with signals_wait():
        before = _children()
        _make_token()
        try:
            with _exit_after(START_S, before):
                copied = offered(private_folder())
                _start(num_cpus, dashboard=dashboard)
        except Exception as error:  # Ray's own is of no narrower kind
            _kill(_children() - before)
            raise RunFailedError(_no_start(_first_line(error))) from error
        started = _children() - before | ({psutil.Process(copied)} if copied else set())
    try:
        with _watched(started):
            yield
    finally:
        with signals_wait():
            _end(started)


@functools.cache
def _make_token() -> None:
    path = private_folder() / "token"
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(secrets.token_hex(32))
    os.environ["RAY_AUTH_TOKEN_PATH"] = str(path)


def _start(num_cpus: int, *, dashboard: bool) -> None:
    space = _limit(resource.RLIMIT_AS)
    if space < LEAST_SPACE:  # Ray would abort this process
        raise MemoryError(f"each of its processes takes up to {LEAST_SPACE:,} bytes of address space")
    os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])  # python of jobs
    say_no_logs()
    temporary = os.environ.get("TMPDIR")
    if private_folder().parent == Path(tempfile.gettempdir()):  # else there may not be room
        (private_folder() / "tmp").mkdir(exist_ok=True)
        os.environ["TMPDIR"] = str(private_folder() / "tmp")  # Ray's processes leave files of torch and others
    try:
        with lean_start(dashboard=dashboard):
            ray.init(
                address="local",
                num_cpus=max(num_cpus, os.cpu_count() or 1),
                include_dashboard=dashboard,
                log_to_driver=False,
                logging_level=logging.ERROR,
                object_store_memory=None if space == math.inf else int(space) // 8,  # every process maps it
                _temp_dir=str(private_folder() / "ray"),
            )
    finally:
        if temporary is None:
            os.environ.pop("TMPDIR", None)
        else:
            os.environ["TMPDIR"] = temporary
    ray.get(ray.remote(num_cpus=0)(_nothing).remote())  # where no worker can start all would wait, without a word


def _nothing() -> None:
    pass


@contextmanager
def _exit_after(seconds: float, before: set[psutil.Process]) -> Iterator[None]:
    """End this process, with a line, where a block takes longer: it may hang where no exception can reach it."""

    def end() -> None:
        _exit(_no_start(f"nothing happened for {seconds:g} s"), _children() - before)

    timer = threading.Timer(seconds, end)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _no_start(reason: str) -> str:
    """Return what keeps Ray from starting, and what to do."""
    tight = [
        (f"at most {soft:,.0f} {what}", f"ulimit -{letter} {least // unit}")
        for kind, letter, what, least, unit in LIMITS
        if (soft := _limit(kind)) < least
    ]
    found = "".join(f", and this process may have {what}" for what, _ in tight)
    remedy = " and ".join(command for _, command in tight)
    logs = f"; Ray's logs are in {printable(keep_logs())}" if (private_folder() / "ray").exists() else ""
    return (
        f"Ray does not start on this machine ({printable(reason)}{found}): "
        f"{f'allow more, {remedy}' if tight else 'see whether memory, processes and disk are free'}, and run the same "
        f"command again{logs}"
    )


def _limit(kind: int) -> float:
    soft, _ = resource.getrlimit(kind)
    return math.inf if soft == resource.RLIM_INFINITY else soft


@contextmanager
def signals_wait() -> Iterator[None]:
    """Let signals that ask this process to end wait until the end of a block; processes that it starts never get them.

    They come in at the end, also where this process was itself started without them, as jobs of a Ray of our own are.
    """
    in_main_thread = threading.current_thread() is threading.main_thread()
    handlers = {number: signal.getsignal(number) for number in SIGNALS if in_main_thread}
    signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        yield
    finally:
        for number, handler in handlers.items():  # ray sets its own
            signal.signal(number, handler)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)


@contextmanager
def _watched(started: Iterable[psutil.Process]) -> Iterator[None]:
    """End this process, with a line, when one ends without which nothing works: Ray would, later and without a word."""
    core = {process: process.name() for process in started if process.name() in CORE}
    over = threading.Event()

    def look() -> None:
        while not over.wait(LOOK_S):
            for process in filter(_has_ended, core):
                _exit(
                    f"{core[process]}, a part of Ray, was killed, by hand or because the machine has no memory left: "
                    f"the same command goes on from what is finished; Ray's logs are in {printable(keep_logs())}",
                    started,
                )

    looking = threading.Thread(target=look, name="ray", daemon=True)
    looking.start()
    try:
        yield
    finally:
        over.set()
        looking.join()


def _exit(line: str, started: Iterable[psutil.Process]) -> NoReturn:
    """End this process and Ray's from any thread, wherever the others are: no exception gets out of Ray's own code."""
    os.write(sys.stderr.fileno(), f"error: {line}\n".encode())
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (1, 2):  # Ray would tell at length how it is killed
        os.dup2(nowhere, stream)
    _kill(started)
    _remove_folder(private_folder())
    os._exit(RunFailedError.exit_code)


def _end(started: Iterable[psutil.Process]) -> None:
    """End Ray's processes with all that they started."""
    left = [process for root in started for process in (root, *_descendants(root))]
    kill_at_once()
    ray.shutdown()
    _kill(left)


def _kill(processes: Iterable[psutil.Process]) -> None:
    processes = [process for root in processes for process in (root, *_descendants(root))]
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            process.kill()
    deadline = time.monotonic() + END_S
    while not all(map(_has_ended, processes)) and time.monotonic() < deadline:
        time.sleep(0.01)
    psutil.wait_procs(processes, timeout=0)  # children of this process leave no zombies


def _children() -> set[psutil.Process]:
    return set(psutil.Process().children())


def _descendants(process: psutil.Process) -> list[psutil.Process]:
    with suppress(psutil.NoSuchProcess):
        found: list[psutil.Process] = process.children(recursive=True)
        return found
    return []


def _has_ended(process: psutil.Process) -> bool:
    with suppress(psutil.NoSuchProcess):
        ended: bool = process.status() == psutil.STATUS_ZOMBIE
        return ended
    return True


def _first_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return ": ".join([type(error).__name__, *lines[:1]])[:300]
