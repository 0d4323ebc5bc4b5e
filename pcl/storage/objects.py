"""Addresses of objects, by their kinds: paths that keep to themselves, whatever else is registered in this process."""

__all__ = ["KINDS", "ObjectPlace", "S3Place", "WebPlace"]

from typing import Any, Self

from upath import UPath
from upath.implementations.cloud import GCSPath, S3Path
from upath.implementations.http import HTTPPath


class ObjectPlace(UPath):
    """An address of objects; those of others in this process stay theirs.

    Options that it is given stay with it and with what lies below it: ``copies``, where on this machine copies of its
    objects go, and ``patience_s``, how long is tried again while storage refuses.
    """

    __slots__ = ()

    def __new__(cls, *arguments: Any, **options: Any) -> Self:
        """Make a place of this kind: ``UPath`` makes the kind that is registered for its protocol."""
        return object.__new__(cls)

    @classmethod
    def _fs_factory(cls, urlpath: str, protocol: str, storage_options: Any) -> Any:
        return super()._fs_factory(urlpath, protocol, {})


class S3Place(ObjectPlace, S3Path):
    """An ``s3://`` address that ``pcl.storage.s3.Bucket`` serves."""

    __slots__ = ()

    @classmethod
    def _fs_factory(cls, urlpath: str, protocol: str, storage_options: Any) -> Any:
        try:
            from pcl.storage.s3 import Bucket
        except ImportError as error:
            raise ImportError("storage in S3 needs s3fs: pip install 'pcl[s3]'") from error
        return Bucket()


class GSPlace(ObjectPlace, GCSPath):
    """A ``gs://`` address, which is only read."""

    __slots__ = ()


class WebPlace(ObjectPlace, HTTPPath):
    """An ``https://`` address, which is only read, and not listed."""

    __slots__ = ()


KINDS: dict[str, tuple[type[ObjectPlace], str]] = {
    "s3": (S3Place, "s3fs"),
    "gs": (GSPlace, "gcsfs"),
    "https": (WebPlace, "aiohttp"),
    "http": (WebPlace, "aiohttp"),
}
"""Kinds of addresses, and the package that each needs."""
