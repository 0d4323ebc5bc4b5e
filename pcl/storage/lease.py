"""A lease: one process at a time may hold a name in storage, and others find out whether it still lives.

A holder creates ``<folder>/<generation>.json``, which only one process can, and counts up a number in it while it
lives. Whoever finds a lease watches that number: if it stands still for as long as the lease lasts, the holder is dead
and the next generation may be created. The newest generation is the lease. No clocks are compared.

What is promised, for a file system or for S3 with conditional writes (those of AWS, MinIO and Ceph have them):

- Of many processes that ask for a free lease, or for one whose holder died, exactly one gets it.
- A lease is free at once where its holder gave it back, or was a process of this machine that ended; else
  ``duration_s`` after its last sign of life.
- A holder keeps its lease while it runs and storage takes its writes at least once in ``duration_s``. While storage
  refuses everybody, nobody can take it over either: the first to reach storage again has it.
- A holder that stood still, or was cut off from storage, for ``duration_s`` or longer may have been taken over. It
  finds out, and ``lost`` is called, within ``duration_s / 5`` (and the time of a look at storage) after it runs and
  reaches storage again. Until then there are two, so what a holder writes must do no harm in that time.
"""

__all__ = ["Lease"]

import json
import os
import re
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Self
from uuid import uuid4

from pcl.errors import BadInputError, DamagedDataError, printable
from pcl.storage.place import Place, create, names, write_bytes
from pcl.storage.stored import read_json

GENERATION = re.compile(r"[0-9]{8}\.json")
LAST_GENERATION = 10**8 - 1  # no lease is taken so often: a person wrote that name


@dataclass(frozen=True)
class Holder:
    """What a holder writes: who it is, which nobody else is, and a number that it counts up."""

    token: str = ""
    host: str = "a machine that is not known"
    machine: str = ""
    pid: int = 0
    started: str | None = None
    count: int = 0
    released: bool = False


class Lease:
    """A context in which this process holds a name.

    Args:
        folder: of the lease; holds nothing else.
        what: is held, for messages.
        remedy: what to do where somebody else holds it.
        duration_s: seconds without a sign of life after which a holder counts as dead.
        lost: called once, in a thread, when another process took the lease over.

    Attributes:
        is_lost: whether another process took the lease over.

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
        pid = os.getpid()
        self._me = Holder(uuid4().hex, socket.gethostname(), _machine(), pid, _started(pid))
        self._generation = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._renew, name="lease", daemon=True)
        self.is_lost = False

    def __enter__(self) -> Self:
        while not self._is_mine():
            generation, holder = self._newest()
            if generation and not self._is_dead(generation, holder):
                raise BadInputError(
                    f"{self.what} is in use by process {holder.pid} on {printable(holder.host[:100])}, which is alive: "
                    f"{self.remedy}"
                )
            if generation >= LAST_GENERATION:
                raise BadInputError(f"{self._path(generation)} is the last lease that can be counted: delete that file")
            self._generation = generation + 1
            create(self._path(self._generation), self._content())  # whether it was this call that did, the file says
        self._thread.start()
        with suppress(OSError):  # the next holder removes them
            for name in names(self.folder):
                if GENERATION.fullmatch(name) and name < self._path(self._generation).name:
                    (self.folder / name).unlink(missing_ok=True)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()
        if not self.is_lost:
            self._me = replace(self._me, released=True)
            with suppress(OSError):  # a lease that cannot be given back runs out by itself
                write_bytes(self._path(self._generation), self._content())

    def _path(self, generation: int) -> Place:
        return self.folder / f"{generation:08d}.json"

    def _content(self) -> bytes:
        return json.dumps(asdict(self._me)).encode()

    def _newest(self) -> tuple[int, Holder]:
        """Return the newest generation and what its holder wrote, generation 0 where nobody ever held the lease."""
        deadline = time.monotonic() + self.duration_s
        while generations := [name for name in names(self.folder) if GENERATION.fullmatch(name)]:
            newest = generations[-1]
            try:
                holder = read_json(self.folder / newest, Holder, "wait for its end")
            except DamagedDataError:
                holder = Holder()  # half written, or by somebody else: it stands still, or is written again
            if holder is None and time.monotonic() < deadline:  # a newer holder has just removed it
                time.sleep(self.duration_s / 100)
                continue
            return int(newest[:8]), holder or Holder()
        return 0, Holder()

    def _is_mine(self) -> bool:
        """Return whether the newest generation is this holder's: it is not, however it was created, if a newer one is.

        Somebody who was slow may create a generation that came, went and was removed in the meantime.
        """
        return self._newest()[1].token == self._me.token

    def has_ended(self) -> bool:
        """Return, at once, whether nobody holds it for certain: who did gave it back, or ended on this machine."""
        generation, holder = self._newest()
        return generation == 0 or self._is_over(holder)

    def _is_over(self, holder: Holder) -> bool:
        return holder.released or (holder.machine == self._me.machine and _has_ended(holder.pid, holder.started))

    def _is_dead(self, generation: int, holder: Holder) -> bool:
        """Return whether a holder gave the lease back, is a process of this machine that ended, or stands still."""
        if self._is_over(holder):
            return True
        deadline = time.monotonic() + self.duration_s
        while time.monotonic() < deadline:
            time.sleep(self.duration_s / 20)
            now = self._newest()
            if now != (generation, holder):
                return now[1].released or now[0] == 0
        return True

    def _renew(self) -> None:
        """Count up at once, for those who are watching, and then five times as often as needed."""
        while True:
            with suppress(OSError):  # storage refuses: try again
                if not self._is_mine():
                    self.is_lost = True
                    self._lost()
                    return
                self._me = replace(self._me, count=self._me.count + 1)
                write_bytes(self._path(self._generation), self._content())
            if self._stop.wait(self.duration_s / 5):
                return


def _machine() -> str:
    """Return what tells this machine, since its start, and its process numbers from others."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return uuid4().hex


def _started(pid: int) -> str | None:
    """Return when a process started, in ticks since the start of the machine; None if that is not to be seen.

    It tells a process from a later one with the same number, and is empty for one that has ended and whose parent has
    not noticed.
    """
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return "" if fields[0] in "ZX" else fields[19]


def _has_ended(pid: int, started: str | None) -> bool:
    """Return whether a process of this machine has certainly ended."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except (OSError, OverflowError, TypeError):
        return False  # somebody else's, or no number
    return _started(pid) not in (started, None)
