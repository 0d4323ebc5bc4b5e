"""Where runs lie: a folder, or an ``s3://`` address, read and written in the same way.

A folder is a ``pathlib.Path``, an address an ``upath.UPath``: both have ``/``, ``is_file``, ``glob`` and the like, and
raise ``OSError``. What is written here appears at once or not at all.
"""

__all__ = [
    "Place",
    "absolute",
    "create",
    "is_empty",
    "is_local",
    "names",
    "naming",
    "patiently",
    "place",
    "read_bytes",
    "remove_temporaries",
    "replacing",
    "write_bytes",
]

import errno
import os
import re
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self, TypeVar
from uuid import uuid4

from upath import UPath
from upath.implementations.cloud import S3Path

from pcl.errors import BadInputError, printable

Place = Path | UPath
T = TypeVar("T")

LONGEST_PAUSE_S = 5.0
TEMPORARY = re.compile(r"\..+\.[0-9a-f]{32}")
LONGEST_NAME, LONGEST_PATH = 255, 4095  # bytes, of a file system
S3_ADDRESS = re.compile(r"s3://[A-Za-z0-9_.-]+(/(?!\.\.?(/|$))[^/?#@]+)*/*")
WITHOUT_LINKS = {errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK, errno.EINVAL}


class S3Place(S3Path):
    """An ``s3://`` address that ``pcl.storage.s3.Bucket`` serves; those of others in this process stay theirs."""

    __slots__ = ()

    def __new__(cls, *arguments: Any, **options: Any) -> Self:
        """Make a place of this kind: ``UPath`` makes the kind that is registered for ``s3``."""
        return object.__new__(cls)

    @classmethod
    def _fs_factory(cls, urlpath: str, protocol: str, storage_options: Any) -> Any:
        try:
            from pcl.storage.s3 import Bucket
        except ImportError as error:
            raise ImportError("storage in S3 needs s3fs: pip install 'pcl[s3]'") from error
        return Bucket(**storage_options)


def absolute(address: str) -> Path:
    """Absolute path of a file or folder that a person wrote, ``~`` and ``~user`` expanded.

    Raises:
        BadInputError: no file can have that path: it is empty or too long, holds a NUL, or its user is not known.

    Example:
        >>> absolute("/data/*.nc")
        PosixPath('/data/*.nc')
    """
    try:
        path = Path(address).expanduser().absolute()
        lengths = [len(os.fsencode(part)) for part in path.parts]
    except RuntimeError as error:
        raise BadInputError(f"{_shown(address)} is no path: no user here has that name") from error
    except ValueError as error:
        raise BadInputError(f"{_shown(address)} is no path: {printable(error)}") from error
    if not address or "\0" in address:
        raise BadInputError(f"{_shown(address)} is no path: a path has at least one character, and no NUL")
    if max(lengths) > LONGEST_NAME or len(os.fsencode(path)) > LONGEST_PATH:
        raise BadInputError(
            f"{_shown(address)} is no path: a name has at most {LONGEST_NAME} bytes, a path {LONGEST_PATH}"
        )
    return path


def _shown(address: str) -> str:
    return printable(address if len(address) <= 100 else f"{address[:80]}...") or "''"


def place(address: str) -> Place:
    """Return the place of an address: a folder, made absolute since workers change directory, or ``s3://...``.

    Raises:
        BadInputError: the address is of another kind, no file can have it, or its package is not installed.

    Example:
        >>> place("/shared/runs") / "gaussian"
        PosixPath('/shared/runs/gaussian')
    """
    if "://" not in address:
        return _resolved(address)
    if "@" in address:
        raise BadInputError("s3://...@...: an address holds no credentials: they are AWS_... of the environment")
    if not S3_ADDRESS.fullmatch(address) or not address.isprintable() or len(address) > LONGEST_PATH:
        raise BadInputError(f"{_shown(address)}: give a folder that every node sees, or s3://bucket/prefix")
    try:
        found = S3Place(address.rstrip("/"))
        found.fs  # noqa: B018 - imports what it needs
    except ImportError as error:
        raise BadInputError(f"{address}: {error}") from error
    return found


def _resolved(address: str) -> Path:
    try:
        return absolute(address).resolve()
    except RuntimeError as error:  # links that lead to each other
        raise BadInputError(f"{_shown(address)} is no path: {printable(error)}") from error


def is_local(path: Place) -> bool:
    """Return whether a place is a folder."""
    return isinstance(path, Path)


def names(folder: Place) -> list[str]:
    """Return the sorted names in a folder, none where there is no folder.

    Raises:
        OSError: storage refuses.
    """
    try:
        if isinstance(folder, Path):
            return sorted(os.listdir(folder))
        prefix = f"{folder.path.rstrip('/')}/"
        found = (name.removeprefix(prefix) for name in folder.fs.ls(prefix, detail=False) if name.startswith(prefix))
        return sorted(filter(None, found))  # some tools keep an object for the folder itself
    except (FileNotFoundError, NotADirectoryError):
        return []


def read_bytes(path: Place) -> bytes | None:
    """Return a file's content, None where there is no such file; whole, also while others replace it.

    Raises:
        OSError: storage refuses.
    """
    try:
        return path.read_bytes() if isinstance(path, Path) else bytes(path.fs.cat_file(path.path))
    except (FileNotFoundError, NotADirectoryError):
        return None


def write_bytes(path: Place, content: bytes) -> None:
    """Write a file at once or not at all.

    Raises:
        OSError: storage refuses; what was there before is still there.
    """
    if not isinstance(path, Path):
        path.fs.pipe_file(path.path, content)  # whole or not at all
        return
    with replacing(path) as temporary:
        temporary.write_bytes(content)


def create(path: Place, content: bytes) -> bool:
    """Write a file that must not exist, whole, and return whether it was this call that did: one of many callers wins.

    On a file system without hard links (``gcsfuse``, some NFS) others may see the file empty, never in part, before it
    is whole, and it stays empty if this process is killed in that moment.

    Raises:
        OSError: storage refuses.
    """
    try:
        if not isinstance(path, Path):
            path.fs.pipe_file(path.path, content, mode="create")
        else:
            with _beside(path) as temporary:
                temporary.write_bytes(content)
                _name(temporary, path)
    except FileExistsError:
        return False
    return True


def _name(temporary: Path, path: Path) -> None:
    """Give a file a name that nobody has."""
    try:
        os.link(temporary, path)  # unlike a rename it refuses a name that exists
    except OSError as error:
        if error.errno not in WITHOUT_LINKS:
            raise
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY))  # the name is taken: nobody else replaces it
        try:
            os.replace(temporary, path)
        except BaseException:
            path.unlink(missing_ok=True)
            raise


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a temporary file to write, which takes a file's place at once when the block has ended well.

    Raises:
        OSError: storage refuses; what was there before is still there.
    """
    with _beside(path) as temporary:
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())  # a full or broken disk says so now, and a machine that dies leaves no empty file
        os.replace(temporary, path)


@contextmanager
def _beside(path: Path) -> Iterator[Path]:
    """Give a name of its own beside a file, and leave nothing there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{uuid4().hex}")
    try:
        with naming(path):
            yield temporary
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def naming(path: Place) -> Iterator[None]:
    """Give an ``OSError`` that names no file, such as that of a full disk, the name of what is written.

    Example:
        >>> with naming(Path("metrics.json")):
        ...     raise OSError(errno.ENOSPC, "No space left on device")
        Traceback (most recent call last):
        OSError: [Errno 28] No space left on device: 'metrics.json'
    """
    try:
        yield
    except OSError as error:
        if error.errno is not None and error.filename is None:
            error.filename = str(path)
        raise


def remove_temporaries(folder: Place) -> None:
    """Remove the temporary files of processes that were killed while they wrote into a folder.

    Raises:
        OSError: storage refuses.
    """
    if isinstance(folder, Path):  # an address has none
        for name in filter(TEMPORARY.fullmatch, names(folder)):
            (folder / name).unlink(missing_ok=True)


def _say(line: str) -> None:
    print(printable(line), file=sys.stderr, flush=True)  # noqa: T201


def patiently(function: Callable[[], T], timeout_s: float, *, say: Callable[[str], None] = _say) -> T:
    """Call a function that writes, and call it again, after pauses, while storage refuses.

    Says in one line that storage refuses, and in one that it works again.

    Args:
        function: may be called several times.
        timeout_s: seconds after which the last refusal is raised.
        say: takes the lines.

    Returns:
        What the function returns.

    Raises:
        OSError: storage refused for as long as that.
    """
    started, pause_s = time.monotonic(), 0.25
    while True:
        try:
            result = function()
        except OSError as error:
            waited_s = time.monotonic() - started
            if waited_s >= timeout_s:
                raise
            if pause_s == 0.25:
                say(f"storage refuses ({error}): trying again for {timeout_s:g} s")
            time.sleep(min(pause_s, timeout_s - waited_s))
            pause_s = min(2 * pause_s, LONGEST_PAUSE_S)
        else:
            if pause_s > 0.25:
                say(f"storage works again after {time.monotonic() - started:.1f} s")
            return result


def is_empty(path: Place) -> bool:
    """Return whether a path is a folder without files, but for the temporary ones of a process that was cut off."""
    return path.is_dir() and all(file.name.startswith(".") for file in path.iterdir())
