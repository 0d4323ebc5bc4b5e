"""Shards in object storage: fetched whole into copies on this machine, ahead of their use, each checked once."""

__all__ = ["Ahead", "ahead", "opened"]

import hashlib
import os
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import islice
from pathlib import Path
from queue import SimpleQueue
from types import TracebackType
from typing import Self

from upath import UPath

from pcl.data.manifest import SHARD_REMEDY, ShardEntry
from pcl.data.tars import BoundedFile
from pcl.errors import BadInputError, DamagedDataError, RunFailedError
from pcl.storage.copies import Copies
from pcl.storage.place import Place, is_lasting, patience_of, patiently, read_part, say

BLOCK = 1 << 23  # bytes that are asked for at a time: what is tried again
THREADS = 4  # that fetch ahead
LATE_S, PAUSE_S = 5.0, 1.0  # seconds before it is said what is waited for, and between two tries of a thread

Say = Callable[[str], None]


def opened(path: Place, shard: ShardEntry, most: int = 0) -> BoundedFile:
    """Open a shard: a file of a folder as it is, or the copy of an object, fetched and checked where there is none.

    Says in one line what it waits for, where that takes long.

    Args:
        path: of the shard.
        shard: its entry.
        most: see ``BoundedFile``.

    Raises:
        BadInputError: there is no room for a copy.
        DamagedDataError: there is no such object, or its SHA-256 is not that of the manifest.
        OSError: a folder refuses.
        RunFailedError: storage refuses, and goes on to.
    """
    if isinstance(path, Path):
        return BoundedFile(path, most)
    copies = _copies_of(path)
    if (found := copies.find(shard.sha256, shard.bytes)) is not None:
        with found:
            return BoundedFile(Path(found.name), most)
    try:
        with _late(path) as told, copies.held(shard.sha256, shard.bytes, partial(_fetch, path, shard, told)) as copy:
            return BoundedFile(copy, most)
    except FileNotFoundError as error:
        raise DamagedDataError(f"{path} is missing: its manifest lists it; {SHARD_REMEDY}") from error
    except OSError as error:
        raise RunFailedError(f"{path} cannot be read ({error.strerror}): mend it and give the same command") from error


def _copies_of(root: UPath) -> Copies:
    found = root.storage_options.get("copies")
    return found if isinstance(found, Copies) else Copies()


@contextmanager
def _late(path: UPath) -> Iterator[Say]:
    """Say what is waited for if the block takes long, unless it says something itself."""
    timer = threading.Timer(LATE_S, say, [f"waiting for {path}"])
    timer.daemon = True
    timer.start()

    def tell(line: str) -> None:
        timer.cancel()
        say(line)

    try:
        yield tell
    finally:
        timer.cancel()


def _fetch(path: UPath, shard: ShardEntry, tell: Say | None, copy: Path) -> None:
    """Write the content of an object to a file, tried again patiently if there is somebody to tell.

    Raises:
        DamagedDataError: it is not what the manifest says, twice.
        OSError: storage refuses.
    """
    patience_s = patience_of(path) if tell else 0.0
    for _ in range(2):  # what was damaged on its way is not the second time
        digest = hashlib.sha256()
        with copy.open("wb") as file:
            for start in range(0, shard.bytes, BLOCK):
                read = partial(read_part, path, start, min(start + BLOCK, shard.bytes))
                block = patiently(read, patience_s, say=tell or _silent, gives_up=is_lasting)
                digest.update(block)
                file.write(block)
            file.flush()
            os.fsync(file.fileno())  # a machine that dies leaves no empty copy
            num_bytes = file.tell()
        if digest.hexdigest() == shard.sha256 and num_bytes == shard.bytes:
            return
    raise DamagedDataError(
        f"{path} is damaged: its SHA-256 is {digest.hexdigest()[:12]}..., its manifest says {shard.sha256[:12]}...; "
        f"{SHARD_REMEDY}"
    )


def _silent(line: str) -> None:
    """Say nothing."""


class Ahead:
    """A context in which threads fetch the shards that will be read next; of a folder they are all there.

    Args:
        root: where the shards lie.
        upcoming: shards in the order of their use, of which no more are taken than are fetched.
        most: of them that are fetched before they are used.
        num_readers: that share the copies of a machine: all together they fetch at most half of what these hold.
    """

    def __init__(self, root: Place, upcoming: Iterable[ShardEntry], most: int, num_readers: int = 1) -> None:
        self._root, self._upcoming, self._most, self._num_readers = root, iter(upcoming), most, num_readers
        self._wanted: SimpleQueue[ShardEntry | None] = SimpleQueue()
        self._ended, self._threads = threading.Event(), list[threading.Thread]()

    def __enter__(self) -> Self:
        if isinstance(self._root, Path):
            return self
        room = _copies_of(self._root).most_bytes // (2 * self._num_readers)
        for shard in islice(self._upcoming, self._most):
            if (room := room - shard.bytes) < 0:
                break
            self._want(self._root, shard)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        for _ in self._threads:
            self._wanted.put(None)

    def used(self) -> None:
        """Fetch one more: a shard is being read."""
        if not isinstance(self._root, Path) and (shard := next(self._upcoming, None)) is not None:
            self._want(self._root, shard)

    def _want(self, root: UPath, shard: ShardEntry) -> None:
        """Have a shard fetched by a thread, unless there is a copy: threads would only be in the way then."""
        if (_copies_of(root).folder / shard.sha256).exists():
            return
        self._wanted.put(shard)
        if len(self._threads) < THREADS:
            self._threads.append(threading.Thread(target=self._work, args=(root,), name="ahead", daemon=True))
            self._threads[-1].start()

    def _work(self, root: UPath) -> None:
        copies = _copies_of(root)
        while (shard := self._wanted.get()) is not None:
            while not self._ended.is_set():
                try:
                    with copies.held(shard.sha256, shard.bytes, partial(_fetch, root / shard.name, shard, None)):
                        break
                except OSError as refusal:
                    if is_lasting(refusal):
                        break  # who reads it says so
                    self._ended.wait(PAUSE_S)
                except (BadInputError, DamagedDataError):
                    break


def ahead(root: Place, shards: Sequence[ShardEntry]) -> Iterator[ShardEntry]:
    """Yield shards that are read one after another, while the next ones are fetched.

    Args:
        root: where they lie.
        shards: in the order of their use.
    """
    with Ahead(root, shards, THREADS) as fetching:
        for shard in shards:
            fetching.used()
            yield shard
