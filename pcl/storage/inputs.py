"""Raw inputs: files, folders and Zarr stores of others, on this machine or in object storage, opened in the same way.

An input is its address, so that messages, sorting and records are those of texts. Here alone is decided what an address
that a person wrote can be opened as: a path of this machine, or ``pcl.storage.remote_inputs``.
"""

__all__ = ["Input", "expanded", "input_at", "is_address"]

import itertools
import re

from braceexpand import braceexpand

from pcl.errors import BadInputError, printable
from pcl.storage.copies import Copies
from pcl.storage.local_input import Input
from pcl.storage.place import absolute

MOST_ALTERNATIVES = 10**6  # of a pattern with braces
RANGE = re.compile(r"\{(-?\d+)\.\.(-?\d+)(?:\.\.-?\d+)?\}")
LONGEST_RANGE = 7  # digits


def is_address(text: str) -> bool:
    """Return whether a text is the address of an object rather than a path."""
    return "://" in text


def input_at(address: str, copies: Copies | None = None) -> Input:
    """Input of an address that a person wrote: a path, ``s3://``, ``gs://`` or ``https://``.

    Args:
        address: likewise a pattern, see ``expanded``.
        copies: where objects that can only be read whole are kept on this machine; None: in the usual folder.

    Raises:
        BadInputError: nothing can have that address, or its package is not installed.

    Example:
        >>> input_at("/archive/*.nc")
        '/archive/*.nc'
        >>> input_at("ftp://archive/a.nc")
        Traceback (most recent call last):
        pcl.errors.BadInputError: ftp://archive/a.nc: give ...
    """
    if isinstance(address, Input):
        return address
    if is_address(address):
        from pcl.storage.remote_inputs import remote_input  # what only addresses need

        return remote_input(address, copies or Copies())
    return Input(absolute(address))


def expanded(address: str, copies: Copies | None = None) -> list[Input]:
    """Inputs that an address leads to, in order: what lies there, else what matches it as a pattern.

    Patterns have ``{a,b}`` and ``{000..099}``, of which each is looked for, and ``*``, ``?``, ``[...]`` and ``**``.

    Args:
        address: that a person wrote.
        copies: see ``input_at``.

    Raises:
        BadInputError: see ``input_at``, or its braces stand for over a million addresses.

    Example:
        >>> expanded(__file__.replace("inputs", "{inputs,outputs}")) == [__file__]
        True
    """
    one = input_at(address, copies)
    found = one.matches()
    if found or "{" not in one:
        return found
    return [match for text in _alternatives(one) for match in input_at(text, copies).matches()]


def _alternatives(pattern: str) -> list[str]:
    """Return the texts that braces stand for."""
    try:
        is_long = any(len(end) > LONGEST_RANGE for ends in RANGE.findall(pattern) for end in ends)
        texts = [] if is_long else list(itertools.islice(braceexpand(pattern), MOST_ALTERNATIVES + 1))
    except ValueError:  # a brace without the other
        return []
    if is_long or len(texts) > MOST_ALTERNATIVES:
        raise BadInputError(f"{printable(pattern)[:100]}: braces stand for a million addresses at most")
    return texts
