"""S3 that fails within a minute, as a file system does: an ``OSError`` that names the address and holds no secret.

``s3fs`` lets botocore's own exceptions through, takes a server that does not answer for a file that is not there, and a
bucket that does not exist for an empty folder.
"""

__all__ = ["Bucket"]

import errno
import re
from typing import Any

from aiohttp import ClientError
from botocore.exceptions import (  # type: ignore[import-untyped]
    BotoCoreError,
    HTTPClientError,
    NoCredentialsError,
    PartialCredentialsError,
)
from s3fs import S3FileSystem  # type: ignore[import-untyped]

CONFIG = {"connect_timeout": 5, "read_timeout": 12, "retries": {"mode": "standard", "total_max_attempts": 3}}
NOT_OS_ERRORS = (BotoCoreError, HTTPClientError, ClientError, ValueError)  # ValueError: an endpoint that is no address
CREATED_BY_ANOTHER = re.compile("PreconditionFailed|ConditionalRequestConflict")


class Bucket(S3FileSystem):  # type: ignore[misc]
    """The file system of ``s3://`` addresses; credentials and endpoint are those of the environment (``AWS_...``)."""

    retries = 1  # botocore's are enough

    def __init__(self, **options: Any) -> None:
        super().__init__(**{"use_listings_cache": False, "config_kwargs": CONFIG} | options)  # others write there too

    async def _call_s3(self, method: str, *arguments: Any, **keywords: Any) -> Any:
        try:
            return await super()._call_s3(method, *arguments, **keywords)
        except (OSError, *NOT_OS_ERRORS) as error:
            raise _located(error, f"{keywords.get('Bucket', '')}/{keywords.get('Key', '')}") from error

    async def _cat_file(self, path: str, *arguments: Any, **keywords: Any) -> bytes:
        try:
            content: bytes = await super()._cat_file(path, *arguments, **keywords)
        except NOT_OS_ERRORS as error:  # the connection broke while the body was read
            raise _located(error, path) from error
        return content

    async def _isfile(self, path: str) -> bool:
        try:
            return bool((await self._info(path))["type"] == "file")
        except FileNotFoundError:
            return False


def _located(error: Exception, path: str) -> OSError:
    """Return the error of a file system for one of S3, with the address and one line of what happened."""
    number = getattr(error, "errno", None) or errno.EIO
    if isinstance(error, FileNotFoundError):
        number = errno.ENXIO if "NoSuchBucket" in repr(error.__cause__) else errno.ENOENT
    elif isinstance(error, PermissionError | NoCredentialsError | PartialCredentialsError):
        number = errno.EACCES
    elif isinstance(error, FileExistsError) or CREATED_BY_ANOTHER.search(repr(error.__cause__)):
        number = errno.EEXIST
    message = re.sub(r"//[^/@\s]*@", "//", " ".join(str(getattr(error, "strerror", None) or error).split()))
    if isinstance(error, NoCredentialsError | PartialCredentialsError):
        message += "; credentials are those of the environment (AWS_...)"
    return OSError(number, message, f"s3://{path.strip('/')}")
