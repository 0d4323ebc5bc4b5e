"""Zarr stores in object storage: each chunk is asked for when it is needed, and asked for again while it is refused."""

__all__ = ["RemoteStore"]

import asyncio
from collections.abc import AsyncIterator, Iterable
from typing import TYPE_CHECKING, Any

from zarr.abc.store import ByteRequest, OffsetByteRequest, RangeByteRequest, Store, SuffixByteRequest
from zarr.core.buffer import Buffer, BufferPrototype

if TYPE_CHECKING:
    from pcl.storage.remote_inputs import RemoteInput


class RemoteStore(Store):
    """A Zarr store that is only read.

    Args:
        root: its address.
    """

    supports_writes = supports_deletes = False

    def __init__(self, root: "RemoteInput") -> None:
        super().__init__(read_only=True)
        self.root = root

    @property
    def supports_listing(self) -> bool:
        """Whether its address can be listed."""
        return self.root.is_listed

    def __eq__(self, other: object) -> bool:
        return isinstance(other, RemoteStore) and other.root == self.root

    def __str__(self) -> str:
        return str(self.root)

    def _content(self, key: str, part: ByteRequest | None) -> bytes | None:
        one = self.root.below(key)
        if part is None:
            return one.whole()
        if not one.exists:
            return None
        match part:
            case RangeByteRequest(start, end):
                return one.read(start, end - start)
            case OffsetByteRequest(offset):
                return one.read(offset, one.num_bytes - offset)
            case SuffixByteRequest(suffix):
                return one.read(max(0, one.num_bytes - suffix), suffix)
        raise ValueError(f"{part}: no part of a file")

    async def get(self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None = None) -> Buffer | None:
        """Return a file of the store or a part of it, None where there is none."""
        content = await asyncio.to_thread(self._content, key, byte_range)
        return None if content is None else prototype.buffer.from_bytes(content)

    async def get_partial_values(
        self, prototype: BufferPrototype, key_ranges: Iterable[tuple[str, ByteRequest | None]]
    ) -> list[Buffer | None]:
        """Return parts of files."""
        return [await self.get(key, prototype, part) for key, part in key_ranges]

    async def exists(self, key: str) -> bool:
        """Return whether there is a file."""
        one = self.root.below(key)
        return await asyncio.to_thread(lambda: one.exists and not one.is_folder)

    async def list(self) -> AsyncIterator[str]:
        """Yield the names of all files."""
        for name in await asyncio.to_thread(self.root.sizes):
            yield name

    async def list_prefix(self, prefix: str) -> AsyncIterator[str]:
        """Yield the names that begin in some way."""
        async for name in self.list():
            if name.startswith(prefix):
                yield name

    async def list_dir(self, prefix: str) -> AsyncIterator[str]:
        """Yield what lies in a folder."""
        folder = self.root.below(prefix.strip("/")) if prefix.strip("/") else self.root
        for one in await asyncio.to_thread(folder.entries):
            yield one.name

    async def set(self, key: str, value: Any) -> None:
        """Refuse to write."""
        self._check_writable()

    async def delete(self, key: str) -> None:
        """Refuse to remove."""
        self._check_writable()
