"""Addresses of arrays: a file, and what of it, such as ``pairs.nc:temperature``."""

__all__ = ["Address", "choose", "find"]

import difflib
from collections.abc import Sequence
from dataclasses import dataclass

from pcl.errors import BadInputError, printable
from pcl.storage.copies import Copies
from pcl.storage.inputs import Input, input_at, is_address

MOST_SHOWN = 8  # names in a message


@dataclass(frozen=True)
class Address:
    """Where an array lies.

    Attributes:
        path: of the file or folder, on this machine or in object storage.
        name: of what it holds, empty where it is not given.
    """

    path: Input
    name: str

    @property
    def label(self) -> str:
        """The address as people write it."""
        return printable(f"{self.path}:{self.name}" if self.name else self.path)


def find(address: str, copies: Copies | None = None) -> Address:
    """Address of a file that exists, from the text ``file`` or ``file:name``; both may hold colons.

    Args:
        address: the text.
        copies: of objects, see ``pcl.storage.inputs``.

    Raises:
        BadInputError: there is no such file.

    Example:
        >>> find("/dev/null:temperature").name
        'temperature'
    """
    text = str(input_at(address, copies))
    first = text.find("/", text.find("://") + 3) if is_address(text) else 0  # a colon before it is of the host
    for end in (len(text), *(i for i in reversed(range(first, len(text))) if text[i] == ":")):
        if (path := input_at(text[:end], copies)).exists:
            return Address(path, text[end + 1 :])
    file = text[: text.find(":", text.rfind("/"))] if ":" in text[text.rfind("/") :] else text
    raise BadInputError(f"{printable(file)} does not exist: give the path of a file that does, file or file:name")


def choose(address: Address, known: Sequence[str], what: str) -> str:
    """Name of what an address names, or of the only thing that there is.

    Args:
        address: of the array.
        known: names in the file.
        what: they are names of.

    Raises:
        BadInputError: there is no such thing, or none is named and there are several.

    Example:
        >>> choose(Address(Input("x.npz"), "tempratur"), ["time", "temperature"], "array")
        Traceback (most recent call last):
        pcl.errors.BadInputError: x.npz has no array tempratur: the nearest is temperature
    """
    where, name = printable(address.path), address.name
    if name in known:
        return name
    if not known:
        raise BadInputError(f"{where} holds no {what}: give another file")
    if not name and len(known) == 1:
        return known[0]
    if not name:
        some = ", ".join(known[:MOST_SHOWN]) + (", ..." if len(known) > MOST_SHOWN else "")
        raise BadInputError(printable(f"{where} holds the {what}s {some}: name one, such as {where}:{known[0]}"))
    nearest = difflib.get_close_matches(name, known, 1, 0.0)[0]
    raise BadInputError(printable(f"{where} has no {what} {name}: the nearest is {nearest}"))
