"""Pairs of two arrays of one's own, in files of any size.

Pairs of a split keep the order of their rows, so that a shard reads one range of rows, less those of the other split:
every block of a file is read once for each shard that needs it, and the loader shuffles later. Nothing depends on the
blocks, the tasks or the memory.

Shapes: n rows, one a pair.
"""

__all__ = ["ArraysSource", "arrays_source"]

from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np

from pcl.data.manifest import ArrayInfo
from pcl.data.source import Arrays, Progress, Source, SourceContext, silently
from pcl.errors import BadInputError, printable
from pcl.problems.arrays.content import content_of_file
from pcl.problems.arrays.forms import Items, items_of
from pcl.problems.arrays.reading.address import find
from pcl.problems.arrays.reading.opening import KINDS, open_array, read_whole
from pcl.problems.arrays.reading.stored import Stored
from pcl.problems.arrays.settings import ArraysSettings
from pcl.problems.arrays.splits import NEITHER, TEST, TRAIN, describe_split, divide
from pcl.problems.arrays.survey import Found, count_labels, measure, missing_rows

MEGABYTE = 1e6
MOST_NAMED = 8  # components in a note
SMALL_LABELS = 256  # that one byte tells apart


class ArraysSource(Source):
    """Pairs (u[i], v[i]) of two stored arrays.

    All values are looked at when it is made: they are checked, and the statistics of the training split are taken.

    Args:
        u: items u, shape (n, ...).
        v: items v, shape (n, ...).
        settings: forms, split, and what to do about missing values.
        seed: of a random split.
        files: what the arrays are, for the record: name, bytes and SHA-256.
        name: of the kind of pairs.
        groups: the group of every pair, shape (n,).
        given: the split of every pair, shape (n,).
        memory_mb: that reading may fill, MB.
        progress: shows how far a long look is.

    Raises:
        BadInputError: the arrays are no pairs, hold what cannot be learned from, or cannot be split.
        DamagedDataError: a file cannot be read.
    """

    def __init__(
        self,
        u: Stored,
        v: Stored,
        settings: ArraysSettings,
        seed: int = 0,
        *,
        files: Mapping[str, Any],
        name: str = "arrays",
        groups: np.ndarray | None = None,
        given: np.ndarray | None = None,
        memory_mb: float = float("inf"),
        progress: Progress = silently,
    ) -> None:
        self.settings, self.seed, self.files, self.name, self.memory_mb = settings, seed, dict(files), name, memory_mb
        self.items = {"u": items_of(u, settings.form_u), "v": items_of(v, settings.form_v)}
        if len(self.items["u"]) != len(self.items["v"]):
            raise BadInputError(
                f"{u.label} has {len(self.items['u']):,} rows and {v.label} {len(self.items['v']):,}: row i of both "
                "is a pair, so give as many of each"
            )
        self._check_memory()
        split = divide(settings, len(self.items["u"]), seed, groups, given)
        split[self._missing(progress)] = NEITHER
        self.rows = {"train": np.flatnonzero(split == TRAIN), "test": np.flatnonzero(split == TEST)}
        self._check_splits(len(split))
        self.found = {name: self._look(name, split, progress) for name in self.items}

    def _check_memory(self) -> None:
        if (needed := self._bytes_of_reading() / MEGABYTE) > self.memory_mb:
            largest = max(self.items.values(), key=lambda items: items.stored.bytes_at_once).stored
            raise BadInputError(
                f"build.memory_mb={self.memory_mb:g} and reading needs {needed:,.3g} MB, most of it for a block of "
                f"{largest.label}: give at least that, or store it in smaller chunks along the pairs"
            )

    def _bytes_of_reading(self) -> int:
        return sum(items.stored.bytes_at_once for items in self.items.values())

    def _missing(self, progress: Progress) -> np.ndarray:
        """Return the rows of which a value is NaN."""
        missing = {name: missing_rows(items, progress) for name, items in self.items.items()}
        for name, rows in missing.items():
            if rows.any() and self.settings.missing == "refuse":
                raise BadInputError(
                    f"{self.items[name].stored.label} holds NaN in {int(rows.sum()):,} of {len(rows):,} rows, the "
                    f"first is row {int(np.argmax(rows)):,}: fill them in, or leave these pairs out with "
                    "data.arrays.missing=mask"
                )
        either: np.ndarray = missing["u"] | missing["v"]
        self.num_missing = int(either.sum())
        return either

    def _check_splits(self, num_rows: int) -> None:
        for name, rows in self.rows.items():
            if len(rows) < 2:
                why = f", {self.num_missing:,} of them with NaN" if self.num_missing else ""
                raise BadInputError(
                    f"the {name} split has {len(rows)} of {num_rows:,} pairs{why}: it needs at least 2, give more "
                    "pairs or choose another split, test_fraction or gap"
                )

    def _look(self, name: str, split: np.ndarray, progress: Progress) -> Found:
        """Take the statistics of one array, and store labels as small integers."""
        items = self.items[name]
        if items.statistics == "none":
            return Found({})
        if items.form != "labels":
            return measure(items, split == TRAIN, progress)
        found = count_labels(items, split == TRAIN, split != NEITHER, progress)
        is_small = len(found.statistics["counts"]) <= SMALL_LABELS
        self.items[name] = items.with_dtype(np.uint8 if is_small else np.int32)
        return found

    @property
    def arrays(self) -> dict[str, ArrayInfo]:
        """The arrays of a pair."""
        return {
            name: ArrayInfo(
                str(items.dtype),  # type: ignore[arg-type]
                items.shape,
                items.stored.units,
                items.stored.meaning or items.form,
                items.scale_factor,
                items.statistics,  # type: ignore[arg-type]
            )
            for name, items in self.items.items()
        }

    @property
    def counted(self) -> dict[str, ArrayInfo]:
        """None: the statistics are known before shards are written."""
        return {}

    @property
    def split_rule(self) -> str:
        """How pairs were divided."""
        return describe_split(self.settings, self.seed)

    def provenance(self) -> dict[str, Any]:
        """Return the forms, what the files hold, and how many pairs lack values."""
        return {
            "name": self.name,
            "forms": [self.settings.form_u, self.settings.form_v],
            "files": self.files,
            "missing_pairs": self.num_missing,
            "licence": "that of the files",
        }

    def num_pairs(self, split: str) -> int:
        """Return the number of pairs of a split."""
        return len(self.rows[split])

    def pairs(self, split: str, start: int, stop: int) -> Arrays:
        """Return the pairs of a range, in the order of their rows."""
        rows = self.rows[split][start:stop]
        return {name: items.take(rows) for name, items in self.items.items()}

    def statistics(self) -> dict[str, dict[str, Any]]:
        """Return mean and standard deviation, or the frequencies of labels, over the training split."""
        return {name: found.statistics for name, found in self.found.items()}

    def notes(self, record_pairs: int) -> list[str]:
        """Return what reading holds, which pairs are left out, and what never varies."""
        lines = [
            f"memory of a task: {self._bytes_of_reading() / MEGABYTE:.1f} MB of blocks of the files (at most "
            f"build.memory_mb={self.memory_mb:g})"
        ]
        if self.num_missing:
            lines.append(f"{self.num_missing:,} of {len(self.items['u']):,} pairs hold NaN and are left out")
        for name, found in self.found.items():
            if found.constant:
                lines.append(f"{name} never varies in {_named(self.items[name], found.constant)}: left unscaled")
        return lines


def _named(items: Items, components: tuple[int, ...]) -> str:
    """Return components by their names, or by their indices."""
    if items.statistics != "component" or not items.shape:
        return "the training split"
    names = items.stored.names
    if len(names) != items.num_components:
        indices = (np.unravel_index(number, items.shape) for number in components[:MOST_NAMED])
        shown = [",".join(map(str, index)) for index in indices]
    else:
        shown = [names[number] for number in components[:MOST_NAMED]]
    more = ", ..." if len(components) > MOST_NAMED else ""
    return f"{len(components):,} of {items.num_components:,} components ({'; '.join(shown)}{more})"


def arrays_source(settings: ArraysSettings, context: SourceContext) -> ArraysSource:
    """Source of the pairs whose files settings name.

    Args:
        settings: ``data.arrays``.
        context: with the seed of a random split, and the memory for reading.

    Raises:
        BadInputError: a file is missing or does not fit, see ``ArraysSource``.
        DamagedDataError: a file cannot be read.
    """
    try:
        addresses = {name: getattr(settings, name) for name in ("u", "v", "groups", "given")}
        for name in ("u", "v"):
            if not addresses[name]:
                raise BadInputError(f"{name} is not given: give the array of the items {name}, in {KINDS}")
        named = {name: address for name, address in addresses.items() if address}
        most_bytes = context.memory_mb * MEGABYTE
        stored = {
            name: open_array(
                named[name],
                settings.sample_dim,
                is_raw=getattr(settings, f"form_{name}") in ("labels", "text"),
                most_bytes=most_bytes,
            )
            for name in ("u", "v")
        }
        whole = partial(read_whole, dim=settings.sample_dim, most_bytes=most_bytes)
        return ArraysSource(
            stored["u"],
            stored["v"],
            settings,
            context.seed,
            files=_contents(named, context.progress),
            groups=whole(settings.groups) if settings.groups else None,
            given=whole(settings.given) if settings.given else None,
            memory_mb=context.memory_mb,
            progress=context.progress,
        )
    except BadInputError as error:
        raise BadInputError(printable(f"data.arrays: {error}")) from error


def _contents(named: Mapping[str, str], progress: Progress) -> dict[str, Any]:
    """Return what files hold, each looked at once."""
    addresses = {name: find(address) for name, address in named.items()}
    known: dict[Any, dict[str, Any]] = {}
    for address in addresses.values():
        key = address if address.path.is_dir() else address.path
        if key not in known:
            known[key] = content_of_file(address, progress)
    return {
        name: known[address if address.path.is_dir() else address.path] | {"of": address.name}
        for name, address in addresses.items()
    }
