"""A process whose copies the workers of a Ray of our own are: torch is imported there already.

A worker that begins from nothing imports for three seconds of a CPU, and so does each that comes in place of one that
was killed. The template branches off while this process has one thread, no file of ours, and has imported torch but
nothing of Ray, whose code reads the environment of its process when it is imported: a copy reads its own.
"""

__all__ = ["end_at_once", "end_template", "offered", "template"]

import atexit
import importlib
import json
import os
import random
import runpy
import selectors
import signal
import socket
import sys
import threading
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from pcl.cluster.address import IS_LOCAL
from pcl.cluster.begin_worker import LENGTH, NAME
from pcl.cluster.signals import SIGNALS

IMPORTED: tuple[str, ...] = (
    "PIL.Image",
    "jsonschema",
    "omegaconf",
    "pandas",
    "psutil",
    "pyarrow",
    "pydantic",
    "requests",
    "upath",
    "webdataset",
)
IMPORTED += ("torch.utils.tensorboard.summary",)
ENDED_FIRST = "1000"  # of all processes, where memory runs out: what Ray asks for its workers


@dataclass
class Template:
    """The template of this process.

    Attributes:
        pid: its number.
        control: it ends with this connection.
    """

    pid: int
    control: socket.socket


_template: Template | None = None


@contextmanager
def template() -> Iterator[None]:
    """Keep a template during a block: before it nothing has been calculated, and nothing but torch is imported.

    Without a Ray of our own, and on systems where a copy of a process is not safe, there is none.
    """
    global _template
    if not IS_LOCAL or sys.platform != "linux" or _template is not None:
        yield
        return
    mine, there = socket.socketpair()
    pid = os.fork()
    if pid == 0:
        try:
            mine.close()
            _serve(there)
        finally:  # it never goes on as this process
            os._exit(1)
    there.close()
    _template = Template(pid, mine)
    try:
        yield
    finally:
        end_template()


def end_template() -> None:
    """End the template of this process, if there is one: nobody wants a copy."""
    global _template
    found, _template = _template, None
    if found is not None:
        found.control.close()
        with suppress(ChildProcessError):  # it was ended with its Ray
            os.waitpid(found.pid, 0)


def offered(folder: Path) -> int | None:
    """Let the template give copies to who asks in a folder; return its process, None where there is none.

    Args:
        folder: that only this user can enter, with a short name.
    """
    if _template is None:
        return None
    with suppress(OSError):  # it was killed
        _template.control.sendall(json.dumps([str(folder / NAME), dict(os.environ)]).encode() + b"\n")
        if _template.control.recv(1):
            return _template.pid
    return None


def _serve(control: socket.socket) -> NoReturn:
    """Be the template: wait until copies are wanted, then give them, as long as the process lives that it is for."""
    signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)  # that process answers them
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # copies that have ended leave nothing
    with control.makefile("rb") as reader:
        line = reader.readline()
    if not line:
        os._exit(0)
    address, environment = json.loads(line)
    os.environ.clear()
    os.environ.update(environment)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(address)
        listener.listen(256)
        control.sendall(b".")
        for name in IMPORTED:
            with suppress(ImportError):
                importlib.import_module(name)
        job = _asked(control, listener)
    control.close()
    _become(*job)


def _asked(control: socket.socket, listener: socket.socket) -> tuple[dict[str, Any], list[int]]:
    """Return in each copy what it is to become, and its streams."""
    with selectors.DefaultSelector() as selector:
        for one in (control, listener):
            selector.register(one, selectors.EVENT_READ)
        while True:
            if any(key.fileobj is control for key, _ in selector.select()):
                os._exit(0)
            connection, _ = listener.accept()
            with connection, suppress(OSError, ValueError):  # who asked was ended, before it said for what
                size, streams, _, _ = socket.recv_fds(connection, LENGTH, 3)
                content = b""
                while len(content) < int.from_bytes(size, "big") and (part := connection.recv(1 << 20)):
                    content += part
                job = json.loads(content)
                pid = os.fork()
                if pid == 0:
                    return job, streams
                for stream in streams:
                    os.close(stream)
                connection.sendall(pid.to_bytes(LENGTH, "big"))


def _become(job: dict[str, Any], streams: list[int]) -> NoReturn:
    """Be the worker that Ray wants, from its first line to its end."""
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    for told in SIGNALS:
        signal.signal(told, signal.SIG_DFL)
    os.environ.clear()
    os.environ.update(job["environment"])
    for name in [name for name in sys.modules if name.partition(".")[0] == "pcl"]:
        del sys.modules[name]  # some read the environment when they are imported
    os.chdir(job["folder"])
    with suppress(OSError):
        os.nice(job["niceness"] - os.nice(0))
        Path("/proc/self/oom_score_adj").write_text(ENDED_FIRST)
    _begin_anew()
    code: Any = 0
    try:
        sys.argv = job["words"]
        sys.path[0] = str(Path(sys.argv[0]).parent)
        runpy.run_path(sys.argv[0], run_name="__main__")
    except SystemExit as end:
        code = end.code
    except BaseException:
        traceback.print_exc()
        code = 1
    end_at_once(code)


def end_at_once(code: str | int | None) -> NoReturn:
    """End this process with the code of a ``SystemExit``, without taking torch and others apart, for a second."""
    threading._shutdown()  # type: ignore[attr-defined]  # as processes of multiprocessing end; it ends idle pools too
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):  # the terminal is gone
            stream.flush()
    os._exit(code if isinstance(code, int) else int(code is not None))


def _begin_anew() -> None:
    """Draw other random numbers than other copies, and calculate with one thread, as a worker that Ray begins does.

    Generators of whole packages, which ours never use, begin by chance in every process; a variable says how many
    threads there are when torch and numpy are imported.
    """
    import numpy as np
    import torch
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]  # scikit-learn brings it

    random.seed()
    np.random.seed()  # noqa: NPY002
    torch.seed()
    threadpool_limits(int(os.environ.get("OMP_NUM_THREADS", "1")))
