"""Raw inputs in object storage: listed, read by range, held as copies on this machine; Zarr is read chunk by chunk.

What libraries only read from a file of this machine, NetCDF, numpy's files, tables, is fetched whole into a bounded
folder (``pcl.storage.copies``): so the values are those that the same file gives in a folder, a task's memory is too,
and tasks of one machine fetch it once. Storage that refuses is waited for; what is not there, or may not be read, is
said at once.
"""

__all__ = ["RemoteInput", "remote_input"]

import errno
import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

from upath import UPath

from pcl.errors import BadInputError, DamagedDataError, RunFailedError, printable
from pcl.storage.copies import Copies
from pcl.storage.local_input import Input
from pcl.storage.place import is_lasting, patience_of, patiently, place

T = TypeVar("T")

MAGIC = set("*?[")
PIECE_BYTES = 1 << 23  # of a copy, fetched at a time
OURS = (BadInputError, DamagedDataError, RunFailedError)
TAGS = ("ETag", "etag", "generation", "Content-MD5", "Last-Modified", "LastModified")
STORE_FILES = ("zarr.json", ".zmetadata", ".zgroup", ".zarray")


@dataclass(frozen=True)
class Found:
    """What storage says of an address: whether others lie below it, its bytes, and a tag that changes with content."""

    is_folder: bool
    num_bytes: int
    tag: str


class RemoteInput(Input):
    """An address in object storage.

    Attributes:
        copies: where objects are kept on this machine.
    """

    copies: Copies
    is_remote = True

    @cached_property
    def place(self) -> UPath:
        """Where it lies."""
        found = place(self, only_read=True)
        assert isinstance(found, UPath)
        return found

    def __getstate__(self) -> dict[str, Any]:
        """Leave connections to this process."""
        return {name: value for name, value in self.__dict__.items() if name != "place"}

    @property
    def is_listed(self) -> bool:
        """Whether storage tells what lies below an address, and gives parts of objects."""
        return not self.startswith("http")

    @cached_property
    def found(self) -> Found | None:
        """What storage says, None where there is nothing; once, so that changes are seen later."""
        if not self.is_listed and self.suffix == ".zarr":
            return Found(True, 0, "")
        said = self.ask(lambda: self.place.fs.info(self.place.path))
        return None if said is None else _found(said)

    @property
    def exists(self) -> bool:
        """Whether there is an object, or others below it."""
        return self.found is not None

    @property
    def is_folder(self) -> bool:
        """Whether others lie below it."""
        return self.found is not None and self.found.is_folder

    @property
    def num_bytes(self) -> int:
        """Bytes of the object."""
        return self._file.num_bytes

    @property
    def same(self) -> str:
        """The address."""
        return str(self)

    @property
    def _file(self) -> Found:
        if self.found is None or self.found.is_folder:
            raise BadInputError(f"{printable(self)}: there is no such object")
        return self.found

    @property
    def _key(self) -> str:
        told = f"{self}\0{self._file.num_bytes}\0{self._file.tag}"
        return hashlib.sha256(told.encode()).hexdigest()

    @contextmanager
    def held(self) -> Iterator[Path]:
        """Give a copy of the object on this machine while the block runs.

        Raises:
            BadInputError: it is not there, may not be read, or is larger than all copies may be.
            DamagedDataError: it is another one by now.
            RunFailedError: storage refused for as long as is waited.
        """
        with self.copies.held(self._key, self.num_bytes, self._fetch) as path:
            yield path

    def _fetch(self, path: Path) -> None:
        size = self.num_bytes
        if not self.is_listed:
            self.ask(lambda: self.place.fs.get_file(self.place.path, str(path)))
        else:
            with path.open("wb") as stream:
                for start in range(0, size, PIECE_BYTES):
                    stream.write(self._part(start, min(PIECE_BYTES, size - start)))
        if self._at(self).found != self.found:
            raise DamagedDataError(
                f"{printable(self)} has changed since it was first looked at: write the shards again"
            )

    def read(self, start: int, size: int) -> bytes:
        """Return bytes of the object: of a copy where there is one, else those alone are asked for."""
        copy = self.copies.find(self._key, self.num_bytes)
        if copy is None and self.is_listed:
            return self._part(start, min(size, max(0, self.num_bytes - start)))
        if copy is None:
            with self.held() as path:
                return Input(path).read(start, size)
        with copy:
            copy.seek(start)
            return copy.read(size)

    def _part(self, start: int, size: int) -> bytes:
        if not size:
            return b""
        content: bytes | None = self.ask(lambda: self._exactly(start, size))
        if content is None:
            raise DamagedDataError(f"{printable(self)} is not there any more: write the shards again")
        return content

    def _exactly(self, start: int, size: int) -> bytes:
        content: bytes = self.place.fs.cat_file(self.place.path, start=start, end=start + size)
        if len(content) != size:
            raise OSError(errno.EIO, f"{len(content):,} of {size:,} bytes came", str(self))
        return content

    def whole(self) -> bytes | None:
        """Return the content of the object, None where there is none."""
        alone = {"max_concurrency": 1} if self.startswith("s3:") else {}  # else its size would be asked for before
        return self.ask(lambda: bytes(self.place.fs.cat_file(self.place.path, **alone)))

    def sha256(self) -> str:
        """Return the SHA-256 of a small object."""
        content = self.whole()
        if content is None:
            raise DamagedDataError(f"{printable(self)} is not there any more: write the shards again")
        return hashlib.sha256(content).hexdigest()

    def store(self) -> Any:
        """Return what Zarr opens: a store of which each task reads the chunks that it needs."""
        from pcl.storage.remote_zarr import RemoteStore  # Zarr is slow to import

        return RemoteStore(self)

    def below(self, *names: str) -> "RemoteInput":
        """Return what lies below the address by these names."""
        return self._at("/".join([self, *names]))

    def entries(self) -> list[Input]:
        """Return what lies below the address, sorted."""
        listed = self.ask(lambda: self.place.fs.ls(self.place.path, detail=True))
        return self._of({item["name"]: item for item in listed or []})

    def matches(self) -> list[Input]:
        """Return what there is at the address, or what a pattern leads to; see ``Input``."""
        if not MAGIC & set(self):
            return [self] if self.exists else []
        if not self.is_listed:
            raise BadInputError(f"{printable(self)}: what https:// serves cannot be listed: name every file")
        return self._of(self.ask(lambda: self.place.fs.glob(self.place.path, detail=True)) or {})

    def _of(self, listed: dict[str, Any]) -> list[Input]:
        """Return the inputs of a listing, which says of each what it is."""
        scheme = self.partition("://")[0]
        own = self.place.path.rstrip("/")
        inputs: list[Input] = []
        for name in sorted(listed):
            if name.rstrip("/") != own:  # some tools keep an object for the folder itself
                one = self._at(f"{scheme}://{name.strip('/')}")
                one.__dict__["found"] = _found(listed[name])
                inputs.append(one)
        return inputs

    def sizes(self) -> dict[str, int]:
        """Return the bytes of all objects below the address, by their names relative to it, in order.

        Of what is not listed only the metadata of a Zarr store is known.
        """
        if not self.is_listed:
            metadata = {name: self.below(name) for name in STORE_FILES}
            return {name: one.num_bytes for name, one in sorted(metadata.items()) if one.exists}
        listed = self.ask(lambda: self.place.fs.find(self.place.path, detail=True)) or {}
        prefix = f"{self.place.path.rstrip('/')}/"
        sizes = {name.removeprefix(prefix): int(item["size"]) for name, item in listed.items() if name != prefix}
        return {name: sizes[name] for name in sorted(sizes, key=lambda one: one.split("/"))}

    def ask(self, function: Callable[[], T]) -> T | None:
        """Call a function that reads, again while storage refuses; None where there is no such object.

        Raises:
            BadInputError: it may not be read, and waiting is of no use.
            RunFailedError: storage refused for as long as is waited.
        """
        try:
            return patiently(lambda: self._attempt(function), patience_of(self.place), gives_up=is_lasting)
        except OSError as error:
            raise RunFailedError(
                f"{printable(self)} cannot be read ({_reason(error)}): run the same command again once storage works"
            ) from error

    def _attempt(self, function: Callable[[], T]) -> T | None:
        try:
            return function()
        except (*OURS, MemoryError):
            raise
        except Exception as error:  # libraries of storage raise anything
            if not self.is_listed and isinstance(error.__cause__, Exception):
                error = error.__cause__  # whatever goes wrong there is called a missing file
            status = getattr(error, "status", None) or getattr(error, "code", None)
            if status in (404, 410) or isinstance(error, FileNotFoundError):
                return None
            raise self._refusal(error, status) from error

    def _refusal(self, error: Exception, status: Any) -> Exception:
        """Return what an error means: no hope, or another try."""
        reason, where = _reason(error), printable(self)
        if status in (401, 403) or isinstance(error, PermissionError):
            return BadInputError(f"{where} may not be read ({reason}): credentials are those of the environment")
        if getattr(error, "errno", None) == errno.ENXIO:
            return BadInputError(f"{where}: there is no such bucket")
        if isinstance(status, int) and 400 <= status < 500 and status not in (408, 429):
            return BadInputError(f"{where} is refused ({status} {reason}): give another address")
        return error if isinstance(error, OSError) else OSError(errno.EIO, reason, str(self))

    def _at(self, address: str) -> "RemoteInput":
        """Return another input of the same copies."""
        found = RemoteInput(address)
        found.copies = self.copies
        return found


def _reason(error: Exception) -> str:
    text = str(getattr(error, "strerror", None) or getattr(error, "message", None) or error)
    return printable(" ".join(text.split()))[:150] or type(error).__name__


def _found(said: dict[str, Any]) -> Found:
    if said["type"] == "directory":
        return Found(True, 0, "")
    if said.get("size") is None:
        raise BadInputError(f"{printable(said['name'])[:200]}: its server does not say how large it is: fetch it first")
    return Found(False, int(said["size"]), next((str(said[tag]) for tag in TAGS if said.get(tag)), ""))


def remote_input(address: str, copies: Copies) -> RemoteInput:
    """Return the input of an address.

    Raises:
        BadInputError: nothing can have that address, or its package is not installed.
    """
    found = RemoteInput(address.rstrip("/"))
    found.copies = copies
    _ = found.place  # it raises what does not fit
    return found
