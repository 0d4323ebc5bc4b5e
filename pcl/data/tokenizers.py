"""Tokenizers by name: what makes numbers of a text, where its bytes are not to do."""

__all__ = ["TOKENIZERS", "Tokenizer", "TokenizerKind", "register_tokenizer", "tokenizer_kind"]

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from pcl.errors import BadInputError, printable
from pcl.settings import is_again

Tokenizer = Callable[[str], Sequence[int]]
"""Makes tokens of a text, positive integers: 0 stands after the last one."""


@dataclass(frozen=True)
class TokenizerKind:
    """A tokenizer.

    Attributes:
        function: makes positive integers of a text.
        plugin: SHA-256 of the file that registers it, on which what it makes depends; empty: it comes from no file.
    """

    function: Tokenizer
    plugin: str = ""


TOKENIZERS: dict[str, TokenizerKind] = {}
"""Tokenizers by name."""


def register_tokenizer(name: str, function: Tokenizer, plugin: str = "") -> None:
    """Register a tokenizer, so that a configuration can name it.

    Args:
        name: of the tokenizer.
        function: makes positive integers of a text.
        plugin: SHA-256 of the file that registers it.

    Raises:
        BadInputError: another tokenizer has the name.

    Example:
        >>> register_tokenizer("letters", lambda text: [ord(letter) for letter in text])
        >>> tokenizer_kind("letters").function("ab")
        [97, 98]
    """
    if name in TOKENIZERS and not is_again(TOKENIZERS[name].function, function):
        raise BadInputError(f"two tokenizers are named {name!r}: give one another name")
    TOKENIZERS[name] = TokenizerKind(function, plugin)


def tokenizer_kind(name: str) -> TokenizerKind:
    """Tokenizer that is registered under a name.

    Raises:
        BadInputError: none is.
    """
    if name not in TOKENIZERS:
        known = f"choose one of {', '.join(TOKENIZERS)}" if TOKENIZERS else "there is none"
        raise BadInputError(
            f"{printable(name)[:100]!r} is no tokenizer that is known here: {known}; one of your own needs the file "
            "that registers it, plugins=[that_plugin.py]"
        )
    return TOKENIZERS[name]
