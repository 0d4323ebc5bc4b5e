"""A lease: one process at a time may hold a name in storage, and others find out whether it still lives.

A holder creates ``<folder>/<generation>.json``, which only one process can, and counts up a number in it while it
lives. Whoever finds a lease watches that number: if it stands still for longer than the lease lasts, the holder is dead
and the next generation may be created. No clocks are compared, and a holder that was only asleep finds a newer
generation when it wakes up, and gives way.
"""

__all__ = ["Lease", "LeaseLostError"]

import json
import os
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType
from typing import Any, Self
from uuid import uuid4

from pcl.errors import BadInputError, RunFailedError
from pcl.storage import Place, create, write_bytes


class LeaseLostError(RunFailedError):
    """Another process holds the lease now."""


class Lease:
    """A context in which this process holds a name.

    Args:
        folder: of the lease; holds nothing else.
        what: is held, for messages.
        remedy: what to do where somebody else holds it.
        duration_s: seconds after which a holder that does not renew counts as dead.
        lost: called, in a thread, when another process took the lease over.

    Raises:
        BadInputError: on entry, if another process holds the lease and lives.
        OSError: on entry, if storage refuses.

    Example:
        >>> import tempfile, pathlib
        >>> folder = pathlib.Path(tempfile.mkdtemp()) / "lease"
        >>> with Lease(folder, "the name", "choose another", duration_s=0.2):
        ...     with Lease(folder, "the name", "choose another", duration_s=0.2):
        ...         pass
        Traceback (most recent call last):
        pcl.errors.BadInputError: the name is in use by process ... choose another
    """

    def __init__(
        self,
        folder: Place,
        what: str,
        remedy: str,
        *,
        duration_s: float = 20.0,
        lost: Callable[[], None] = lambda: None,
    ) -> None:
        self.folder, self.what, self.remedy, self.duration_s, self._lost = folder, what, remedy, duration_s, lost
        self._me = {"host": socket.gethostname(), "pid": os.getpid(), "token": uuid4().hex, "boot": _boot()}
        self._count, self._generation = 0, 0
        self._stop = threading.Event()
        self.is_lost = False

    def __enter__(self) -> Self:
        while True:
            found = self._newest()
            if found and not self._is_dead(*found):
                _, holder = found
                who = f"process {holder.get('pid')} on {holder.get('host')}"
                raise BadInputError(f"{self.what} is in use by {who}, which is alive: {self.remedy}")
            self._generation = found[0] + 1 if found else 1
            if create(self._path(self._generation), self._content()):
                break  # else somebody was faster: look again
        for old in self._generations():
            if old < self._generation:
                self._path(old).unlink(missing_ok=True)
        self._thread = threading.Thread(target=self._renew, name="lease", daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()
        if not self.is_lost:
            with suppress(OSError):  # a lease that cannot be given back runs out by itself
                write_bytes(self._path(self._generation), self._content(released=True))

    def _path(self, generation: int) -> Place:
        return self.folder / f"{generation:08d}.json"

    def _content(self, *, released: bool = False) -> bytes:
        return json.dumps(self._me | {"count": self._count, "released": released}).encode()

    def _generations(self) -> list[int]:
        names = [path.name for path in self.folder.glob("*.json")]
        return sorted(int(name[:8]) for name in names if name[:8].isdigit())

    def _newest(self) -> tuple[int, dict[str, Any]] | None:
        """Return the newest generation and what its holder wrote, None where nobody ever held the lease."""
        for generation in reversed(self._generations()):
            try:
                return generation, dict(json.loads(self._path(generation).read_bytes()))
            except FileNotFoundError:
                continue  # removed by a newer holder
            except (ValueError, TypeError):
                return generation, {"released": False}
        return None

    def _is_dead(self, generation: int, holder: dict[str, Any]) -> bool:
        """Return whether a holder gave the lease back, is a process of this machine that ended, or stands still."""
        if holder.get("released"):
            return True
        if holder.get("boot") == self._me["boot"] and not _exists(holder.get("pid")):
            return True
        deadline = time.monotonic() + self.duration_s
        while time.monotonic() < deadline:
            time.sleep(self.duration_s / 20)
            found = self._newest()
            if found is None or found[1].get("released"):
                return True
            if found != (generation, holder):
                return False
        return True

    def _renew(self) -> None:
        """Count up, five times as often as needed; while storage refuses, try again: nobody else can take over then."""
        while not self._stop.wait(self.duration_s / 5):
            self._count += 1
            try:
                if self._generations()[-1:] != [self._generation]:
                    self.is_lost = True
                    self._lost()
                    return
                write_bytes(self._path(self._generation), self._content())
            except OSError:
                continue


def _boot() -> str:
    """Return what tells this machine, since its start, and its process numbers from others."""
    try:
        with open("/proc/sys/kernel/random/boot_id") as file:
            return f"{file.read().strip()} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return uuid4().hex


def _exists(pid: Any) -> bool:
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return False
    except (OSError, TypeError, ValueError):
        return True
    return True
