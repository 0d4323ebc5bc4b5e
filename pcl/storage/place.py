"""Where runs and shards lie: a folder, or an ``s3://`` address, read and written in the same way.

A folder is a ``pathlib.Path``, an address an ``upath.UPath``: both have ``/``, ``is_file``, ``glob`` and the like, and
raise ``OSError``. What is written here appears at once or not at all. ``gs://`` and ``https://`` are only read.
"""

__all__ = [
    "Place",
    "absolute",
    "create",
    "is_empty",
    "is_lasting",
    "is_local",
    "names",
    "naming",
    "patience_of",
    "patiently",
    "place",
    "read_bytes",
    "read_part",
    "remove_temporaries",
    "replacing",
    "say",
    "sizes",
    "write_bytes",
]

import errno
import os
import re
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any, TypeVar
from uuid import uuid4

from upath import UPath

from pcl.errors import BadInputError, printable
from pcl.storage.objects import KINDS, S3Place, WebPlace

Place = Path | UPath
T = TypeVar("T")

LONGEST_PAUSE_S = 5.0
PATIENCE_S = 60.0
TEMPORARY = re.compile(r"\..+\.[0-9a-f]{32}")
LONGEST_NAME, LONGEST_PATH = 255, 4095  # bytes, of a file system
ADDRESS = re.compile(r"[a-z0-9]+://[A-Za-z0-9_.-]+(:[0-9]+)?(/(?!\.\.?(/|$))[^/?#@]+)*/*")
WITHOUT_LINKS = {errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK, errno.EINVAL}


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


def place(address: str, *, only_read: bool = False, **options: Any) -> Place:
    """Return the place of an address: a folder, made absolute since workers change directory, or ``s3://...``.

    Args:
        address: that a person wrote.
        only_read: nothing will be written there: it may be ``gs://...`` or ``https://...`` too.
        options: that stay with an address, see ``ObjectPlace``.

    Raises:
        BadInputError: the address is of another kind, no file can have it, or its package is not installed.

    Example:
        >>> place("/shared/runs") / "gaussian"
        PosixPath('/shared/runs/gaussian')
    """
    if "://" not in address:
        return _resolved(address)
    protocol = address.partition("://")[0]
    if "@" in address:
        raise BadInputError(
            f"{_shown(protocol)}://...@...: an address holds no credentials: they are AWS_... of the environment"
        )
    is_known = (protocol in KINDS if only_read else protocol == "s3") and ADDRESS.fullmatch(address)
    if not is_known or not address.isprintable() or len(address) > LONGEST_PATH:
        others = ", gs://bucket/prefix or https://host/prefix" if only_read else ""
        raise BadInputError(f"{_shown(address)}: give a folder that every node sees, or s3://bucket/prefix{others}")
    kind, package = KINDS[protocol]
    try:
        found = kind(address.rstrip("/"), **options)
        found.fs  # noqa: B018 - imports what it needs
    except ImportError as error:
        if kind is S3Place:
            raise BadInputError(f"{address}: {error}") from error
        raise BadInputError(f"{address}: {protocol}:// needs {package}: pip install {package}") from error
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


def sizes(folder: Place) -> dict[str, int] | None:
    """Return the bytes of the files in a folder by name, None where a place does not tell, as ``https://``.

    Raises:
        OSError: storage refuses.
    """
    found: dict[str, int] = {}
    try:
        if isinstance(folder, Path):
            for file in os.scandir(folder):
                with suppress(FileNotFoundError):  # somebody has just removed it
                    if file.is_file():
                        found[file.name] = file.stat().st_size
        elif isinstance(folder, WebPlace):
            return None
        else:
            prefix = f"{folder.path.rstrip('/')}/"
            for item in folder.fs.ls(prefix, detail=True):
                if item["type"] == "file":
                    found[item["name"].removeprefix(prefix)] = item["size"]
    except (FileNotFoundError, NotADirectoryError):
        return {}
    return found


def read_bytes(path: Place) -> bytes | None:
    """Return a file's content, None where there is no such file; whole, also while others replace it.

    Raises:
        OSError: storage refuses.
    """
    try:
        return path.read_bytes() if isinstance(path, Path) else read_part(path)
    except (FileNotFoundError, NotADirectoryError):
        return None


def read_part(path: UPath, start: int | None = None, stop: int | None = None) -> bytes:
    """Return bytes of an object, all of them where it is not said which.

    Raises:
        OSError: storage refuses.
    """
    try:
        return bytes(path.fs.cat_file(path.path, start=start, end=stop))
    except OSError:
        raise
    except Exception as error:  # file systems of others let through what their libraries raise
        status = getattr(error, "status", None)
        number = errno.EACCES if status in (401, 403) else errno.EIO
        message = " ".join(str(getattr(error, "message", "") or error or type(error).__name__).split())
        raise OSError(number, message, str(path)) from error


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
def replacing(path: Place) -> Iterator[Path]:
    """Give a temporary file to write, which takes a file's place at once when the block has ended well.

    Raises:
        OSError: storage refuses; what was there before is still there.
    """
    if not isinstance(path, Path):
        with tempfile.TemporaryDirectory(prefix="pcl-") as folder:
            temporary = Path(folder) / path.name
            with naming(temporary):
                yield temporary
            upload = partial(path.fs.put_file, str(temporary), path.path)
            patiently(upload, patience_of(path), gives_up=is_lasting)
        return
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


def say(line: str) -> None:
    """Tell people something, on one line."""
    print(printable(line), file=sys.stderr, flush=True)  # noqa: T201


def patience_of(path: Place) -> float:
    """Return for how long is tried again while a place refuses, seconds: a folder tells what is wrong at once."""
    return 0.0 if isinstance(path, Path) else float(path.storage_options.get("patience_s", PATIENCE_S))


def is_lasting(error: OSError) -> bool:
    """Return whether it is of no use to try again: there is no such object or bucket, or no permission."""
    lasting = isinstance(error, FileNotFoundError | PermissionError)
    return lasting or error.errno in (errno.ENXIO, errno.EINVAL)


def patiently(
    function: Callable[[], T],
    timeout_s: float,
    *,
    who: str = "storage",
    say: Callable[[str], None] = say,
    gives_up: Callable[[OSError], bool] = lambda error: False,
) -> T:
    """Call a function that reads or writes, and call it again, after pauses, while storage refuses.

    Says in one line that storage refuses, and in one that it works again.

    Args:
        function: may be called several times.
        timeout_s: seconds after which the last refusal is raised.
        who: refuses, for people.
        say: takes the lines.
        gives_up: returns whether a refusal is raised at once.

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
            if waited_s >= timeout_s or gives_up(error):
                raise
            if pause_s == 0.25:
                say(f"{who} refuses ({error}): trying again for {timeout_s:g} s")
            time.sleep(min(pause_s, timeout_s - waited_s))
            pause_s = min(2 * pause_s, LONGEST_PAUSE_S)
        else:
            if pause_s > 0.25:
                say(f"{who} works again after {time.monotonic() - started:.1f} s")
            return result


def is_empty(path: Place) -> bool:
    """Return whether a path is a folder without files, but for the temporary ones of a process that was cut off."""
    return path.is_dir() and all(file.name.startswith(".") for file in path.iterdir())
