"""Fixes of drifters: where each was, and when.

Shapes: n fixes.
"""

__all__ = ["Fixes", "Left", "joined"]

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Left:
    """What was left out: how many fixes, why, and of which drifters."""

    number: int
    reason: str
    drifters: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class Fixes:
    """Fixes of drifters, in any order.

    Attributes:
        name: of the drifter, texts, shape (n,).
        time_s: seconds since 1970-01-01 UTC, NaN where there is none, float64, shape (n,).
        latitude: degrees north, float64, shape (n,).
        longitude: degrees east, any turn, float64, shape (n,).
        drogued: whether the drogue was on, shape (n,); None: not known.
        left: what was left out on the way here.
    """

    name: np.ndarray
    time_s: np.ndarray
    latitude: np.ndarray
    longitude: np.ndarray
    drogued: np.ndarray | None = None
    left: tuple[Left, ...] = ()

    def __len__(self) -> int:
        return len(self.time_s)

    @property
    def names(self) -> list[str]:
        """The names of the drifters, sorted."""
        return [str(name) for name in np.unique(self.name)]

    def __getitem__(self, index: Any) -> "Fixes":
        drogued = None if self.drogued is None else self.drogued[index]
        return Fixes(
            self.name[index], self.time_s[index], self.latitude[index], self.longitude[index], drogued, self.left
        )

    def only(self, kept: np.ndarray, reason: str) -> "Fixes":
        """Return the fixes that are kept, and count the others under a reason.

        Example:
            >>> fixes = Fixes(np.array(["a", "b"]), np.zeros(2), np.zeros(2), np.zeros(2))
            >>> fixes.only(np.array([True, False]), "out of the box").left
            (Left(number=1, reason='out of the box', drifters=('b',)),)
        """
        if bool(kept.all()):
            return self
        of = tuple(str(name) for name in np.unique(self.name[~kept]))
        return replace(self[kept], left=(*self.left, Left(int((~kept).sum()), reason, of)))


def joined(parts: Sequence[Fixes]) -> Fixes:
    """Return fixes of several files as one; where a file knows nothing of drogues, none is known to be lost."""
    if len(parts) == 1:
        return parts[0]
    is_known = any(part.drogued is not None for part in parts)
    drogues = [np.ones(len(part), bool) if part.drogued is None else part.drogued for part in parts]
    return Fixes(
        np.concatenate([part.name for part in parts]),
        np.concatenate([part.time_s for part in parts]),
        np.concatenate([part.latitude for part in parts]),
        np.concatenate([part.longitude for part in parts]),
        np.concatenate(drogues) if is_known else None,
        tuple(left for part in parts for left in part.left),
    )
