"""Stored data, read as what they must be: nothing from disk is believed before its size, types and ranges are.

A kind of content is a dataclass, or any other type that ``pydantic`` knows, whose fields say what may stand there:
``Annotated[int, Field(ge=0)]``.
"""

__all__ = [
    "Count",
    "Finite",
    "as_kind",
    "differing_keys",
    "json_text",
    "read_array",
    "read_json",
    "read_sealed",
    "sealed",
    "sha256",
    "unzipped",
    "write_json",
]

import functools
import hashlib
import io
import json
import math
import stat
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, TypeVar

import numpy as np
from pydantic import Field, TypeAdapter, ValidationError

from pcl.errors import DamagedDataError, printable
from pcl.storage.place import Place, read_bytes, write_bytes

T = TypeVar("T")

Count = Annotated[int, Field(ge=0, lt=2**53)]
Finite = Annotated[float, Field(allow_inf_nan=False)]

MOST_BYTES = 1 << 26  # of a JSON file: statistics of items with half a million components take less
MOST_VALUES, MOST_NESTED = 1 << 20, 1 << 17  # in it: a wrong value takes some 400 bytes of memory, a list 2000
SEAL = "sha256"


def read_json(path: Place, kind: type[T], remedy: str) -> T | None:
    """Content of a JSON file as a kind, ``None`` where there is no such file.

    Args:
        path: of the file.
        kind: what it must hold; types are strict: ``1`` is no text, ``"1"`` no number.
        remedy: what to do with a file that holds something else.

    Raises:
        DamagedDataError: the file is none, is too large, is not JSON, or holds something else.
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
        found = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    if isinstance(path, Path) and not stat.S_ISREG(found.st_mode):
        raise DamagedDataError(f"{path} cannot be read (it is a folder, or no file at all): {remedy}")
    if found.st_size > MOST_BYTES:
        raise DamagedDataError(
            f"{path} has {found.st_size:,} bytes, more than the {MOST_BYTES:,} of any such file: {remedy}"
        )
    content = read_bytes(path)
    return None if content is None else as_kind(content, kind, path, remedy)


def as_kind(content: bytes, kind: type[T], path: Place, remedy: str) -> T:
    """JSON text as a kind.

    Args:
        content: the text.
        kind: see ``read_json``.
        path: where it is from, for the message.
        remedy: likewise.

    Raises:
        DamagedDataError: it is not JSON, or holds something else.
    """
    if content.count(b",") > MOST_VALUES or content.count(b"[") + content.count(b"{") > MOST_NESTED:
        raise DamagedDataError(
            f"{path} holds more than the {MOST_VALUES:,} values, or {MOST_NESTED:,} lists and mappings, of any such "
            f"file: {remedy}"
        )
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


def json_text(content: Mapping[str, Any], *, allow_nan: bool = False) -> bytes:
    """JSON text of a mapping as it is stored: with sorted keys, indented.

    Raises:
        ValueError: a number is not finite, and that is not allowed.
    """
    return f"{json.dumps(content, indent=2, sort_keys=True, allow_nan=allow_nan)}\n".encode()


def sealed(content: Mapping[str, Any]) -> dict[str, Any]:
    """JSON content with a checksum of itself, ``sha256``: that of the file as it would be without it.

    Example:
        >>> sealed({"step": 3})["sha256"] == hashlib.sha256(json_text({"step": 3})).hexdigest()
        True
    """
    plain = json.loads(json.dumps(content))
    plain.pop(SEAL, None)
    return {**plain, SEAL: _seal_of(plain)}


def _seal_of(content: Mapping[str, Any]) -> str:
    return hashlib.sha256(json_text(content, allow_nan=True)).hexdigest()


def read_sealed(path: Place, kind: type[T], remedy: str) -> tuple[T, bool] | None:
    """Content of a JSON file that ``sealed`` made as a kind, and whether it has a checksum: older files have none.

    Args:
        path: see ``read_json``.
        kind: without the checksum.
        remedy: see ``read_json``.

    Raises:
        DamagedDataError: see ``read_json``, or the content is not what the checksum says.
        OSError: storage refuses.

    Example:
        >>> import pathlib, tempfile
        >>> path = pathlib.Path(tempfile.mkdtemp()) / "metrics.json"
        >>> path.write_text(json.dumps(sealed({"step": 3})).replace("3", "4", 1))
        89
        >>> read_sealed(path, dict[str, Count], "evaluate again")
        Traceback (most recent call last):
        pcl.errors.DamagedDataError: .../metrics.json differs from its own checksum: evaluate again
    """
    content = read_json(path, dict[str, Any], remedy)
    if content is None:
        return None
    seal = content.pop(SEAL, None)
    if seal is not None and seal != _seal_of(content):
        raise DamagedDataError(f"{path} differs from its own checksum: {remedy}")
    text = json.dumps(content).encode()
    del content  # it may be large, and what follows takes as much
    return as_kind(text, kind, path, remedy), seal is not None


def read_array(content: bytes, dtype: str, shape: Sequence[int]) -> np.ndarray:
    """Array of a ``.npy`` file that holds a known dtype and shape: nothing is allocated for another.

    Args:
        content: of the file.
        dtype: that it must have.
        shape: likewise.

    Raises:
        ValueError: it is no such file, or holds another array.

    Example:
        >>> file = io.BytesIO()
        >>> np.save(file, np.arange(3.0))
        >>> read_array(file.getvalue(), "float64", (3,))
        array([0., 1., 2.])
        >>> read_array(file.getvalue(), "float64", (10**30,))
        Traceback (most recent call last):
        ValueError: it is float64[3], not float64[1000000000000000000000000000000]
    """
    file = io.BytesIO(content)
    try:
        major, _ = np.lib.format.read_magic(file)
        read = np.lib.format.read_array_header_1_0 if major == 1 else np.lib.format.read_array_header_2_0
        found, is_fortran, kind = read(file)
    except Exception as error:  # it evaluates a text, and whatever that raises says that it is no header
        raise ValueError(f"it has no header of an array ({type(error).__name__})") from error
    if kind != np.dtype(dtype) or found != tuple(shape) or (is_fortran and len(found) > 1):
        raise ValueError(f"it is {kind}{list(found)}, not {dtype}{list(shape)}"[:200])
    if len(content) - file.tell() != math.prod(shape) * kind.itemsize:
        raise ValueError(f"{len(content) - file.tell():,} bytes follow the header of {kind}{list(found)}")
    return np.frombuffer(content, kind, offset=file.tell()).reshape(shape).copy()


def unzipped(path: Path, size: int) -> bytes:
    """Content of a gzipped file that must have a known size: no more of it is unpacked.

    Args:
        path: of the file.
        size: bytes of its content.

    Raises:
        ValueError: its content has another size, or it is no such file.
        OSError: storage refuses.

    Example:
        >>> import gzip, pathlib, tempfile
        >>> path = pathlib.Path(tempfile.mkdtemp()) / "a.gz"
        >>> path.write_bytes(gzip.compress(b"abc"))
        23
        >>> unzipped(path, 3)
        b'abc'
    """
    if path.stat().st_size > size + (1 << 20):
        raise ValueError(f"a gzipped file of {path.stat().st_size:,} bytes does not hold {size:,}")
    unpack = zlib.decompressobj(wbits=zlib.MAX_WBITS | 16)
    try:
        content = unpack.decompress(path.read_bytes(), size + 1)
    except zlib.error as error:
        raise ValueError(str(error)) from error
    if len(content) != size:
        raise ValueError(f"its content is not {size:,} bytes long")
    return content


def sha256(path: Place) -> str:
    """SHA-256 of a file, in hexadecimal digits.

    Raises:
        OSError: storage refuses.

    Example:
        >>> sha256(Path("/dev/null"))[:8]
        'e3b0c442'
    """
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()  # type: ignore[arg-type]


def write_json(path: Place, content: Mapping[str, Any], *, allow_nan: bool = False) -> None:
    """Write JSON at once or not at all; numbers that are not finite if allowed."""
    write_bytes(path, json_text(content, allow_nan=allow_nan))


def differing_keys(found: Mapping[str, Any], wanted: Mapping[str, Any], prefix: str = "") -> list[str]:
    """Return the keys, joined by dots, in which two nested mappings differ.

    Example:
        >>> differing_keys({"a": {"b": 1, "c": 2}}, {"a": {"b": 1, "c": 3}, "d": 0})
        ['a.c', 'd']
    """
    names: list[str] = []
    for key in sorted({*found, *wanted}):
        old, new = found.get(key), wanted.get(key)
        if isinstance(old, dict) and isinstance(new, dict):
            names += differing_keys(old, new, f"{prefix}{key}.")
        elif old != new:
            names.append(f"{prefix}{key}")
    return names
