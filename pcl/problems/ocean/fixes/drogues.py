"""Flags of drogues: on, lost, or not known, whatever a file calls it.

Shapes: n fixes.
"""

__all__ = ["attached", "means_attached"]

import re
from typing import Any

import numpy as np

from pcl.errors import BadInputError, printable

YES = ("1", "true", "t", "yes", "y")
NO = ("0", "false", "f", "no", "n")
ON = {"on", "attached", "present", "drogued", "intact", "with", "ok"}
OFF = {"off", "lost", "detached", "absent", "undrogued", "missing", "removed", "without", "loss"}
NOT = {"no", "not", "un", "never"}
NUMBER = r"[-+]?\d+(?:\.\d*)?"
MISSING = r"-9{2,}(?:\.0*)?|[-+]?\d(?:\.\d+)?e\+?\d\d"  # numbers that stand for a missing one


def attached(flags: Any, where: str, *, of_loss: bool = False) -> np.ndarray | None:
    """Return where the drogue is not known to be lost, None where flags tell nothing of it.

    Args:
        flags: a column of texts, numbers or truths.
        where: file and column, for messages.
        of_loss: whether yes means that the drogue is lost.

    Raises:
        BadInputError: there are numbers beside 0 and 1.

    Example:
        >>> attached(["1", "drogue lost", "", "no drogue"], "a.csv: drogue").tolist()
        [True, False, True, False]
        >>> attached([True, False], "a.csv: undrogued", of_loss=True).tolist()
        [False, True]
    """
    import pandas as pd

    texts = pd.Series(flags).astype("string").str.strip().str.lower().str.replace(r"\.0*$", "", regex=True)
    known = {text: means_attached(text, of_loss=of_loss) for text in texts.dropna().unique()}
    if all(one is None for one in known.values()):
        return None
    if odd := [one for one in known if known[one] is None and re.fullmatch(NUMBER, one) and not _is_missing(one)]:
        raise BadInputError(
            printable(
                f"{where} has {odd[0][:20]!r} beside flags of a drogue: write 1 where it is on, 0 where it is lost, "
                "and nothing where that is not known"
            )
        )
    off = [text for text, one in known.items() if one is False]
    on: np.ndarray = ~texts.isin(off).to_numpy(bool, na_value=False)
    return on


def means_attached(text: str, *, of_loss: bool = False) -> bool | None:
    """Return whether a flag in small letters says that the drogue is on, None if it does not say.

    Args:
        text: the flag, or what it means.
        of_loss: whether yes means that the drogue is lost.
    """
    if text in YES or text in NO:
        return (text in YES) != of_loss
    said = {*re.findall(r"[a-z]+", text)}
    on, off, negated = bool(said & ON), bool(said & OFF), bool(said & NOT)
    if on == off:
        return False if negated and "drogue" in said and not on else None
    return on != negated


def _is_missing(text: str) -> bool:
    return re.fullmatch(MISSING, text) is not None
