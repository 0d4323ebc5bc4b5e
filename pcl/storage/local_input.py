"""A file, a folder or a Zarr store of others on this machine; what lies in object storage is opened in the same way."""

__all__ = ["Input"]

import glob
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pcl.storage.stored import sha256


class Input(str):
    """A path of this machine that can be opened, and an address that can where it is a ``RemoteInput``.

    Example:
        >>> Input("/archive/2010.nc").name, Input(__file__).read(0, 3)
        ('2010.nc', b'\"\"\"')
    """

    is_remote = False

    @property
    def name(self) -> str:
        """What follows the last slash."""
        return self.rstrip("/").rpartition("/")[2]

    @property
    def stem(self) -> str:
        """The name without its suffix."""
        return Path(self.name).stem

    @property
    def suffix(self) -> str:
        """What follows the last dot of the name, with it, in small letters."""
        return Path(self.name).suffix.lower()

    @property
    def exists(self) -> bool:
        """Whether there is a file or a folder."""
        return os.path.exists(self)

    @property
    def is_folder(self) -> bool:
        """Whether it holds others."""
        return os.path.isdir(self)

    @property
    def is_listed(self) -> bool:
        """Whether what lies below it is told."""
        return True

    @property
    def num_bytes(self) -> int:
        """Bytes of a file."""
        return os.path.getsize(self)

    @property
    def same(self) -> str:
        """What is equal for two addresses of one thing."""
        return os.path.realpath(self)

    @contextmanager
    def held(self) -> Iterator[Path]:
        """Give the file as one of this machine while the block runs; hold one after another, not several at a time."""
        yield Path(self)

    def read(self, start: int, size: int) -> bytes:
        """Return bytes of a file, fewer where it ends."""
        with open(self, "rb") as stream:
            return os.pread(stream.fileno(), size, start)

    def sha256(self) -> str:
        """Return the SHA-256 of a file, in hexadecimal digits."""
        return sha256(Path(self))

    def store(self) -> Any:
        """Return what Zarr opens."""
        return str(self)

    def below(self, *names: str) -> "Input":
        """Return what lies in a folder by these names."""
        return Input(os.path.join(self, *names))

    def entries(self) -> "list[Input]":
        """Return what lies in a folder, sorted."""
        return [self.below(name) for name in sorted(os.listdir(self))]

    def matches(self) -> "list[Input]":
        """Return what there is at the address, or what a pattern with ``*``, ``?``, ``[...]`` or ``**`` leads to."""
        found = [self] if self.exists else [Input(one) for one in sorted(glob.glob(self, recursive=True))]
        return [one for one in found if one.exists]

    def sizes(self) -> dict[str, int]:
        """Return the bytes of all files below a folder, by their names relative to it, in order."""
        files = [os.path.join(root, name) for root, _, names in os.walk(self) for name in names]
        kept = {os.path.relpath(file, self): file for file in files if os.path.isfile(file)}
        return {name: os.path.getsize(kept[name]) for name in sorted(kept, key=lambda one: one.split("/"))}
