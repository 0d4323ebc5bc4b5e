"""What the numbers of single kinds of pairs mean, as these register."""

__all__ = ["TOLD", "own_meaning"]

from collections.abc import Callable

TOLD: dict[str, Callable[[str], str]] = {}
"""By the name of a kind of pairs: a sentence on a metric, empty where it is none of that kind."""


def own_meaning(name: str) -> str:
    """Return what a metric means, empty where no kind of pairs knows it.

    Example:
        >>> own_meaning("nothing_of_the_kind")
        ''
    """
    return next((text for tell in TOLD.values() if (text := tell(name))), "")
