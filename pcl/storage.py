"""Where runs lie: a folder, or an ``s3://`` address, read and written in the same way.

A folder is a ``pathlib.Path``, an address an ``upath.UPath``: both have ``/``, ``read_bytes``, ``glob`` and the like.
What is written here appears at once or not at all.
"""

__all__ = ["Place", "create", "is_local", "place", "write_bytes"]

import os
from pathlib import Path
from uuid import uuid4

from upath import UPath

from pcl.errors import BadInputError

Place = Path | UPath


def place(address: str) -> Place:
    """Return the place of an address: a folder, made absolute since workers change directory, or ``s3://...``.

    Raises:
        BadInputError: the address is of another kind, or its package is not installed.

    Example:
        >>> place("/shared/runs") / "gaussian"
        PosixPath('/shared/runs/gaussian')
    """
    if "://" not in address:
        return Path(address).expanduser().resolve()
    if not address.startswith("s3://"):
        raise BadInputError(f"{address}: give a folder that every node sees, or s3://bucket/prefix")
    try:
        return UPath(address.rstrip("/"), use_listings_cache=False)  # others write there too
    except ImportError as error:
        raise BadInputError(f"{address}: storage in S3 needs s3fs: pip install 'pcl[s3]'") from error


def is_local(path: Place) -> bool:
    """Return whether a place is a folder."""
    return isinstance(path, Path)


def write_bytes(path: Place, content: bytes) -> None:
    """Write a file at once or not at all.

    Raises:
        OSError: storage refuses; what was there before is still there.
    """
    if not isinstance(path, Path):
        path.fs.pipe_file(path.path, content)  # one request, whole or not at all
        return
    temporary = _temporary(path, content)
    try:
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def create(path: Place, content: bytes) -> bool:
    """Write a file that must not exist, whole, and return whether it was this call that did: one of many callers wins.

    Raises:
        OSError: storage refuses.
    """
    if not isinstance(path, Path):
        try:
            path.fs.pipe_file(path.path, content, mode="create")
        except (FileExistsError, OSError) as error:
            if isinstance(error, FileExistsError) or "PreconditionFailed" in repr(error) or path.exists():
                return False
            raise
        return True
    temporary = _temporary(path, content)
    try:
        os.link(temporary, path)  # unlike a rename it refuses a name that exists
    except FileExistsError:
        return False
    finally:
        temporary.unlink(missing_ok=True)
    return True


def _temporary(path: Path, content: bytes) -> Path:
    """Write a file beside another, under a name of its own, and leave nothing if that fails."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{uuid4().hex}")
    try:
        temporary.write_bytes(content)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise
    return temporary
