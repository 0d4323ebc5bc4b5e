"""Decoders: from the bytes of a part to an item of a modality, or the reason why not.

A reason is a phrase that follows ``u`` or ``v``. Manifests count samples by reason: with another wording, shards that
were written before are those of another source. Whatever a file claims, no more is allocated than it holds.
"""

__all__ = ["Decoder", "Item", "decoder_of"]

import io
import json
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, NamedTuple, Protocol

import numpy as np

from pcl.data.manifest import ArrayInfo
from pcl.data.tokenizers import Tokenizer, tokenizer_kind
from pcl.errors import BadInputError, printable
from pcl.problems.webdataset.images import decoded_image
from pcl.problems.webdataset.parts import Part
from pcl.problems.webdataset.settings import WebdatasetSettings

MOST_LABELS = 1 << 18  # a manifest counts each, up to the largest
MOST_SIDE = 1 << 13  # pixels
MOST_AXES = 32  # that a manifest knows
STORED = {"bool": "uint8", "uint16": "int32", "uint32": "int64"}  # torch does little with these


class Item(NamedTuple):
    """An item of a modality.

    Attributes:
        array: as it is stored.
        told: the bytes that it is made of: those of two items are the same only if these are repeated.
        cut_from: bytes or tokens that its text had, if it was cut; else 0.
        largest: token; 0 where there are none.
    """

    array: np.ndarray
    told: bytes
    cut_from: int = 0
    largest: int = 0


class Decoder(Protocol):
    """What makes items of the bytes of a part.

    Attributes:
        most_bytes: that a part may have: it is held whole.
    """

    most_bytes: int

    @property
    def info(self) -> ArrayInfo:
        """The array of the modality."""
        ...

    def like(self, content: bytes) -> "Decoder":
        """Return the decoder of items of the shape and type that a first one has."""
        return self

    def __call__(self, content: bytes) -> Item:
        """Decode a part.

        Raises:
            ValueError: it cannot be decoded: the message is the reason.
        """
        ...


@dataclass(frozen=True)
class Images(Decoder):
    """Images of one size and mode."""

    shape: tuple[int, int]
    mode: str
    fit: str
    most_bytes = 1 << 28

    @property
    def info(self) -> ArrayInfo:
        """Of bytes: colours first."""
        shape = self.shape if self.mode == "L" else (3, *self.shape)
        return ArrayInfo("uint8", shape, "1", "image", 1 / 255, "scalar")

    def __call__(self, content: bytes) -> Item:
        """Decode an image."""
        return Item(decoded_image(content, self.shape, self.mode, self.fit), content)


@dataclass(frozen=True)
class Texts(Decoder):
    """Texts as bytes of UTF-8, or as a tokenizer's tokens, 0 after the end."""

    text: Callable[[bytes], str]
    length: int
    name: str = ""
    tokenize: Tokenizer | None = None
    most_bytes = 1 << 22

    @property
    def info(self) -> ArrayInfo:
        """Of bytes or tokens, whose mean means nothing."""
        if self.tokenize is None:
            return ArrayInfo("uint8", (self.length,), "1", "text, bytes of UTF-8", 1.0, "none")
        return ArrayInfo("int32", (self.length,), "1", f"text, tokens of {printable(self.name)}", 1.0, "none")

    def __call__(self, content: bytes) -> Item:
        """Decode a text without the blanks around it, and cut it between two characters or tokens."""
        text = self.text(content).strip()
        if not text:
            raise ValueError("is empty")
        if "\0" in text:
            raise ValueError("holds a character 0, which stands after the end of a text")
        item = np.zeros(self.length, self.info.dtype)
        length, kept = self._bytes(text) if self.tokenize is None else self._tokens(self.tokenize, text)
        item[: len(kept)] = kept
        largest = 0 if self.tokenize is None else int(item.max())
        return Item(item, text.encode(), length if length > self.length else 0, largest)

    def _bytes(self, text: str) -> tuple[int, np.ndarray]:
        encoded = text.encode()
        kept = encoded[: self.length].decode(errors="ignore").encode()
        if not kept:
            raise ValueError(f"begins with a character of more than {self.length} bytes")
        return len(encoded), np.frombuffer(kept, np.uint8)

    def _tokens(self, tokenize: Tokenizer, text: str) -> tuple[int, np.ndarray]:
        try:
            tokens = np.asarray(tokenize(text))
        except Exception as error:  # it is somebody else's
            raise BadInputError(
                f"the tokenizer {self.name} fails on {printable(text)[:100]!r} "
                f"({type(error).__name__}: {printable(error)[:200]}): mend it"
            ) from error
        if tokens.size == 0:
            raise ValueError("has no tokens")
        if tokens.ndim != 1 or tokens.dtype.kind not in "iu" or tokens.min() < 1 or tokens.max() >= 1 << 31:
            raise BadInputError(
                f"the tokenizer {self.name} makes {printable(tokens.tolist())[:100]} of {printable(text)[:100]!r}: a "
                "list of integers from 1 to 2^31 - 1 is needed, as 0 stands after the last token"
            )
        return len(tokens), tokens[: self.length].astype(np.int32)


@dataclass(frozen=True)
class Numbers(Decoder):
    """Arrays of numbers, all of the shape and type that the first has."""

    array: Callable[[bytes], np.ndarray]
    dtype: Any = ""
    shape: tuple[int, ...] = ()
    most_bytes = 1 << 28

    @property
    def info(self) -> ArrayInfo:
        """Of the numbers as they are."""
        return ArrayInfo(self.dtype, self.shape, "1", "numbers", 1.0, "component")

    def like(self, content: bytes) -> "Numbers":
        """Return the decoder of arrays like a first one."""
        found = self._finite(content)
        if not found.size or found.ndim > MOST_AXES:
            raise ValueError(f"holds no number, or has more than {MOST_AXES} axes")
        return replace(self, dtype=found.dtype.name, shape=found.shape)

    def _finite(self, content: bytes) -> np.ndarray:
        found = self.array(content)
        if found.dtype.kind not in "biuf" or found.dtype.itemsize > 8 or found.dtype == np.uint64:
            raise ValueError(f"holds {found.dtype.name}, not numbers of up to 64 bits")
        if not np.isfinite(found).all():
            raise ValueError("holds NaN or infinite numbers")
        return found.astype(STORED.get(found.dtype.name, found.dtype.name))

    def __call__(self, content: bytes) -> Item:
        """Decode an array."""
        found = self._finite(content)
        if found.dtype.name != self.dtype or found.shape != self.shape:
            raise ValueError(f"is not {self.dtype}{list(self.shape)}, as the first is")
        return Item(found, found.tobytes())


@dataclass(frozen=True)
class Labels(Decoder):
    """Labels: integers from 0 on, written as text."""

    most_bytes = 1 << 10

    @property
    def info(self) -> ArrayInfo:
        """Of labels, of which each is counted."""
        return ArrayInfo("int32", (), "1", "label", 1.0, "counts")

    def __call__(self, content: bytes) -> Item:
        """Decode a label."""
        digits = content.strip()
        if not digits.isdigit() or len(digits) > 9 or int(digits) >= MOST_LABELS:
            raise ValueError(f"is no integer from 0 to {MOST_LABELS - 1:,}")
        return Item(np.array(int(digits), np.int32), b"%d" % int(digits))


def decoder_of(part: Part, settings: WebdatasetSettings) -> Decoder:
    """Return what decodes a part.

    Args:
        part: of a sample.
        settings: how its items are to be.

    Raises:
        BadInputError: an image has no such size, or no tokenizer has such a name.
    """
    if part.form == "image":
        return Images(_image_shape(settings.image_size), settings.image_mode, settings.image_fit)
    if part.form == "labels":
        return Labels()
    if part.form == "numbers":
        return Numbers(partial(_json_numbers, part.field) if part.field else _npy)
    text = partial(_json_text, part.field) if part.field else _utf8
    name = settings.tokenizer
    return Texts(text, settings.text_length, name, tokenizer_kind(name).function if name else None)


def _image_shape(size: int | list[int]) -> tuple[int, int]:
    height, width = (size, size) if isinstance(size, int) else size if len(size) == 2 else (0, 0)
    if not (1 <= height <= MOST_SIDE and 1 <= width <= MOST_SIDE):
        raise BadInputError(
            f"data.webdataset.image_size={size}: give pixels, 1 to {MOST_SIDE}, or [height, width] of them"
        )
    return height, width


def _utf8(content: bytes) -> str:
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError("is no UTF-8") from error


def _json(field: str, content: bytes) -> Any:
    try:
        return _within(json.loads(content), field)
    except KeyError as error:
        raise ValueError("has no such field") from error
    except (ValueError, RecursionError) as error:
        raise ValueError("is no JSON") from error


def _within(found: Any, field: str) -> Any:
    """Return a field, or one of a field, and so on: ``a.b`` is the field b of a where no field has that very name."""
    if not isinstance(found, dict):
        raise KeyError(field)
    if field in found:
        return found[field]
    name, dot, rest = field.partition(".")
    return _within(found[name], rest) if dot else found[name]


def _json_text(field: str, content: bytes) -> str:
    found = _json(field, content)
    items = found if isinstance(found, list) else [found]
    if not all(isinstance(item, str | int | float) and not isinstance(item, bool) for item in items):
        raise ValueError("is no text, and no list of texts")
    text = " ".join(map(str, items))
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ValueError("holds half a character") from error
    return text


def _json_numbers(field: str, content: bytes) -> np.ndarray:
    found = _json(field, content)
    items = found if isinstance(found, list) else [found]
    if not all(isinstance(item, int | float) and not isinstance(item, bool) for item in items):
        raise ValueError("is no number, and no list of numbers")
    try:
        return np.asarray(found, np.float64)
    except OverflowError as error:
        raise ValueError("holds NaN or infinite numbers") from error


def _npy(content: bytes) -> np.ndarray:
    file = io.BytesIO(content)
    try:
        version = np.lib.format.read_magic(file)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, is_fortran, dtype = read(file)
        if dtype.hasobject or math.prod(shape) * dtype.itemsize != len(content) - file.tell():
            raise ValueError("another size")
        found = np.frombuffer(content, dtype, offset=file.tell())
        return found.reshape(shape, order="F" if is_fortran else "C")
    except Exception as error:  # reading a header evaluates a text
        raise ValueError("is no .npy file of numbers, or a damaged one") from error
