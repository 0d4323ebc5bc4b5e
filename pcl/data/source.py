"""Sources of pairs: what a kind of pairs gives so that shards can be written of it."""

__all__ = ["Arrays", "Progress", "Source", "SourceContext", "silently"]

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from pcl.data.manifest import ArrayInfo
from pcl.storage.copies import Copies
from pcl.storage.inputs import Input

Arrays = dict[str, np.ndarray]
Progress = Callable[[Sequence[Any], str], Iterable[Any]]
"""Called with many items and the name of one: yields them, and shows how far it has come."""


def silently(items: Sequence[Any], unit: str) -> Iterable[Any]:
    """Yield items and show nothing."""
    return items


@dataclass(frozen=True)
class SourceContext:
    """What a source may need beside its own settings.

    Attributes:
        seed: of generated pairs.
        root: folder of raw files; an ``Input`` where it lies in object storage.
        memory_mb: that a task may fill with raw data, MB; the pairs do not depend on it.
        progress: shows how far a long look at the raw data has come.
        copies: where raw files in object storage are kept on a machine.
    """

    seed: int = 0
    root: Path | Input = Path("data")
    memory_mb: float = 512.0
    progress: Progress = silently
    copies: Copies = field(default_factory=Copies)


class Source(Protocol):
    """Where pairs come from.

    A source that inherits from it counts all statistics but those of channels, and has no notes unless it gives them.
    """

    @property
    def arrays(self) -> dict[str, ArrayInfo]:
        """The arrays of a pair: u, v, and what else describes it."""
        ...

    @property
    def split_rule(self) -> str:
        """How pairs were divided into the splits, a phrase."""
        ...

    @property
    def counted(self) -> dict[str, ArrayInfo]:
        """The arrays whose statistics are taken as their shards are written, which holds a shard of them at a time."""
        return {name: info for name, info in self.arrays.items() if info.has_moments}

    def provenance(self) -> dict[str, Any]:
        """Return name, hash and licence of the source, and the facts that encoders and evaluations need."""
        ...

    def num_pairs(self, split: str) -> int:
        """Return the number of pairs of a split."""
        ...

    def pairs(self, split: str, start: int, stop: int) -> Arrays:
        """Return pairs start .. stop - 1 as stored arrays: a pure function of its arguments."""
        ...

    def statistics(self) -> dict[str, dict[str, Any]]:
        """Return what the manifest keeps of the training split, of the arrays that are not counted."""
        return {}

    def notes(self, record_pairs: int) -> list[str]:
        """Return lines for people: what a task holds of the raw data, and what these are.

        Args:
            record_pairs: pairs in a record.
        """
        return []
