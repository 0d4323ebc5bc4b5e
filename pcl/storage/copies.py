"""Copies of objects on the disk of this machine: bounded, shared by its processes, the least recently used go first.

A process that is killed leaves nothing that counts: what it held or had begun is locked by the kernel, not by a name.
"""

__all__ = ["Copies", "default_folder"]

import contextlib
import errno
import fcntl
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import BinaryIO
from uuid import uuid4

from pcl.errors import BadInputError
from pcl.storage.place import patiently

ROOM, LOCK, PART = ".room", ".lock", ".part"  # one locks the folder, one a name; a part is called .KEY.UUID.BYTES.part
KEY = "[0-9a-f]{64}"
COPY, LOCK_NAME = re.compile(KEY), re.compile(rf"\.{KEY}\{LOCK}")  # only what has such a name is ours
PART_NAME = re.compile(rf"\.{KEY}\.[0-9a-f]{{32}}\.(\d+)\{PART}")
WAIT_S = 600.0  # while others read all that would have to go
REMEDY = "choose another data.cache, or another data.cache_gb"


def default_folder() -> Path:
    """Folder of copies where none is given: ``pcl`` in the cache of the user.

    Example:
        >>> default_folder().name
        'pcl'
    """
    cache = os.path.expanduser(os.environ.get("XDG_CACHE_HOME") or "~/.cache")
    if cache.startswith("~"):  # a user without a home, as in some containers
        cache = os.path.join(tempfile.gettempdir(), f"cache-{os.getuid()}")
    return Path(cache).absolute() / "pcl"


@dataclass(frozen=True)
class Copies:
    """A bounded folder of copies.

    Attributes:
        folder: on a disk of this machine.
        most_bytes: of all copies; a disk that has less room holds fewer.

    Example:
        >>> import tempfile
        >>> copies = Copies(Path(tempfile.mkdtemp()), most_bytes=8)
        >>> for key in ("1" * 64, "2" * 64, "1" * 64):
        ...     with copies.held(key, 5, lambda part: print("fetched", part.write_bytes(b"12345"))) as path:
        ...         print(path.name[0])
        fetched 5
        1
        fetched 5
        2
        fetched 5
        1
    """

    folder: Path = field(default_factory=default_folder)
    most_bytes: int = 20 * 10**9

    @contextmanager
    def held(self, key: str, num_bytes: int, fetch: Callable[[Path], None]) -> Iterator[Path]:
        """Hold a copy, fetched if there is none: it stays while the block runs, and a file that is open beyond that.

        Blocks that hold several copies at a time can wait for each other: hold one after another.

        Args:
            key: name of the copy, 64 hexadecimal digits that stand for its content.
            num_bytes: of the copy.
            fetch: writes it to a path; called by one process at a time.

        Raises:
            BadInputError: it is larger than all copies together may be, or the disk has no room for it.
            OSError: what ``fetch`` raises, or all copies were in use for ten minutes.
        """
        path = self.folder / key
        while (stream := _hold(path, num_bytes)) is None:
            self._fetch(path, num_bytes, fetch)
        with stream:
            yield path

    def find(self, key: str, num_bytes: int) -> BinaryIO | None:
        """Open a copy that is there, None where there is none; it stays while the file is open."""
        return _hold(self.folder / key, num_bytes)

    def _fetch(self, path: Path, num_bytes: int, fetch: Callable[[Path], None]) -> None:
        """Fetch a copy, unless another process just has."""
        if num_bytes > self.most_bytes:
            raise BadInputError(
                f"a copy of {num_bytes:,} bytes is needed, and data.cache_gb={self.most_bytes / 1e9:g} allows "
                f"{self.most_bytes:,} in all: give more"
            )
        with self._refusals(), contextlib.ExitStack() as stack:
            self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            name = self.folder / f".{path.name}{LOCK}"
            stack.enter_context(_locked(name))
            stack.callback(name.unlink, missing_ok=True)
            if path.exists():
                return
            part = stack.enter_context(self._reserved(path.name, num_bytes))
            fetch(part)
            if part.stat().st_size != num_bytes:
                raise OSError(errno.EIO, f"{part.stat().st_size:,} of {num_bytes:,} bytes came", str(path))
            with _locked(self.folder / ROOM):  # a scan of the folder meets the part or the copy, never neither
                os.replace(part, path)

    @contextmanager
    def _refusals(self) -> Iterator[None]:
        """Say in one line that the disk refuses, and what to do."""
        try:
            yield
        except OSError as error:
            where = str(error.filename or "")
            if error.errno in (errno.ENOSPC, errno.EDQUOT) or (
                error.errno in (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST)
                and (where.startswith(str(self.folder)) or str(self.folder).startswith(where or "\0"))
            ):
                raise BadInputError(f"copies cannot be kept in {self.folder} ({error.strerror}): {REMEDY}") from error
            raise

    @contextmanager
    def _reserved(self, key: str, num_bytes: int) -> Iterator[Path]:
        """Give the name of a part for which there is room, and leave none behind."""
        part = self.folder / f".{key}.{uuid4().hex}.{num_bytes}{PART}"
        reserve, refuses = partial(self._reserve, part, num_bytes), lambda error: error.errno != errno.EBUSY
        with patiently(reserve, WAIT_S, who="data.cache", gives_up=refuses):
            try:
                yield part
            finally:
                part.unlink(missing_ok=True)

    def _reserve(self, part: Path, num_bytes: int) -> BinaryIO:
        """Make room for a part, and begin it: locked, so that others know that it is being written."""
        with _locked(self.folder / ROOM):
            in_use = self._make_room(num_bytes)
            if in_use is None:
                stream = part.open("xb+")
                fcntl.flock(stream, fcntl.LOCK_EX)
                return stream
        if not in_use:
            free = shutil.disk_usage(self.folder).free
            raise BadInputError(
                f"a copy of {num_bytes:,} bytes is needed, and the disk of {self.folder} has {free:,} free: {REMEDY}"
            )
        raise OSError(errno.EBUSY, "all copies of objects are in use, and another has no room", str(self.folder))

    def _make_room(self, num_bytes: int) -> int | None:
        """Remove copies until there is room; None, or where there is none the bytes that are in use."""
        copies, reserved, unwritten = [], 0, 0
        for entry in os.scandir(self.folder):
            path, part = Path(entry.path), PART_NAME.fullmatch(entry.name)
            if (part or LOCK_NAME.fullmatch(entry.name)) and _remove(path):
                continue  # of a process that was killed
            with contextlib.suppress(FileNotFoundError):
                if part:
                    promised = int(part[1])
                    reserved, unwritten = reserved + promised, unwritten + max(0, promised - entry.stat().st_size)
                elif COPY.fullmatch(entry.name):
                    copies.append((entry.stat().st_mtime_ns, entry.stat().st_size, path))
        used = reserved + sum(size for _, size, _ in copies)

        def fits() -> bool:
            free = shutil.disk_usage(self.folder).free - unwritten
            return used + num_bytes <= self.most_bytes and num_bytes <= free

        for _, size, path in sorted(copies):
            if fits():
                return None
            used -= size if _remove(path) else 0
        return None if fits() else used


def _hold(path: Path, num_bytes: int) -> BinaryIO | None:
    """Open a copy that nobody removes meanwhile, as used now; None where there is none."""
    try:
        stream = path.open("rb")
    except (FileNotFoundError, NotADirectoryError):
        return None
    fcntl.flock(stream, fcntl.LOCK_SH)
    found = os.fstat(stream.fileno())
    if found.st_nlink and found.st_size == num_bytes:
        os.utime(stream.fileno())
        return stream
    stream.close()
    if found.st_nlink:
        _remove(path)  # a machine that went down had not written it all
    return None


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Be the only one who has locked a name."""
    while True:
        with path.open("ab") as stream:
            fcntl.flock(stream, fcntl.LOCK_EX)
            if os.fstat(stream.fileno()).st_nlink:
                yield
                return


def _remove(path: Path) -> bool:
    """Remove a file unless somebody holds it, and return whether it is gone."""
    try:
        with path.open("rb+") as stream:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            path.unlink()
    except BlockingIOError:
        return False
    except FileNotFoundError:
        pass
    return True
