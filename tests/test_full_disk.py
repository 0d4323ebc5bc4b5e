"""A disk that is full: every writer of stored files says which file it could not write, and the earlier one stays."""

import resource
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from pcl.storage.events import EventFile, scalars
from pcl.storage.place import create, replacing, write_bytes
from pcl.storage.stored import write_json

LARGE = b"x" * 1_000_000


@contextmanager
def small_files(most: int = 100_000) -> Iterator[None]:
    """Let the machine refuse larger files, in the words of a write, which name no file."""
    before, handler = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)


def replace(path: Path) -> None:
    with replacing(path) as temporary, temporary.open("wb") as file:
        file.write(LARGE)


def append(path: Path) -> None:
    written = EventFile(path.parent, list)
    written.path = path
    written.append([scalars({"x" * len(LARGE): 1.0}, 1)])


WRITERS: dict[str, Callable[[Path], object]] = {
    "write_bytes": lambda path: write_bytes(path, LARGE),
    "write_json": lambda path: write_json(path, {"x": LARGE.decode()}),
    "create": lambda path: create(path.with_name("free"), LARGE),
    "replacing": replace,
    "append": append,
    "event file": lambda path: EventFile(path.parent, lambda: [scalars({"x" * len(LARGE): 1.0}, 1)]),
}


@pytest.mark.parametrize("writer", WRITERS)
def test_a_full_disk_is_told_with_the_name_of_the_file(tmp_path, writer):
    path = tmp_path / "file"
    path.write_bytes(b"earlier")
    with small_files(), pytest.raises(OSError, match="File too large") as raised:
        WRITERS[writer](path)
    assert Path(raised.value.filename).parent == tmp_path
    assert not Path(raised.value.filename).name.startswith("."), "a name that people know"
    assert path.read_bytes().startswith(b"earlier")
