"""Stored JSON, read as what it must be: nothing that comes from disk is believed before its size, types and ranges are.

A kind of content is a dataclass, or any other type that ``pydantic`` knows, whose fields say what may stand there:
``Annotated[int, Field(ge=0)]``.
"""

__all__ = ["Count", "Finite", "read_json"]

import functools
from typing import Annotated, Any, TypeVar

from pydantic import Field, TypeAdapter, ValidationError

from pcl.errors import DamagedDataError, printable
from pcl.storage import Place, read_bytes

T = TypeVar("T")

Count = Annotated[int, Field(ge=0, lt=2**53)]
Finite = Annotated[float, Field(allow_inf_nan=False)]

MOST_BYTES = 1 << 26  # of a JSON file: statistics of items with a million components take less


def read_json(path: Place, kind: type[T], remedy: str) -> T | None:
    """Content of a JSON file as a kind, ``None`` where there is no such file.

    Args:
        path: of the file.
        kind: what it must hold; types are strict: ``1`` is no text, ``"1"`` no number.
        remedy: what to do with a file that holds something else.

    Raises:
        DamagedDataError: the file is too large, is not JSON, or holds something else.
        OSError: storage refuses.

    Example:
        >>> import pathlib, tempfile
        >>> path = pathlib.Path(tempfile.mkdtemp()) / "progress.json"
        >>> path.write_text('{"step": -1}')
        12
        >>> read_json(path, dict[str, Count], "delete it")
        Traceback (most recent call last):
        pcl.errors.DamagedDataError: .../progress.json cannot be read (step: input should be greater than or equal to 0): delete it
    """  # noqa: E501
    try:
        size = path.stat().st_size
    except (FileNotFoundError, NotADirectoryError):
        return None
    if size > MOST_BYTES:
        raise DamagedDataError(f"{path} has {size:,} bytes, more than the {MOST_BYTES:,} of any such file: {remedy}")
    content = read_bytes(path)
    if content is None:
        return None
    try:
        found: T = _reader(kind).validate_json(content, strict=True)  # type: ignore[arg-type]
    except ValidationError as error:
        raise DamagedDataError(f"{path} cannot be read ({_first(error)}): {remedy}") from error
    return found


@functools.cache
def _reader(kind: Any) -> TypeAdapter[Any]:
    return TypeAdapter(kind)


def _first(error: ValidationError) -> str:
    """Return where and why, of the first thing that is wrong."""
    wrong = error.errors(include_url=False, include_context=False, include_input=False)[0]
    where = ".".join(map(str, wrong["loc"]))
    return printable(f"{where}: {wrong['msg'][0].lower()}{wrong['msg'][1:]}" if where else wrong["msg"])[:200]
