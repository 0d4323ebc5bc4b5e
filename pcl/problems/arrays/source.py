"""Pairs of two arrays of one's own, in files of any size.

Pairs of a split keep the order of their rows, so that a shard reads one range of rows, less those of the other split:
every block of a file is read once for each shard that needs it, and the loader shuffles later. Nothing depends on the
blocks, the tasks or the memory.

Shapes: n rows, one a pair.
"""

__all__ = ["ArraysSource", "arrays_source"]

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from pcl.data.manifest import ArrayInfo
from pcl.data.source import Arrays, Progress, Source, SourceContext, silently
from pcl.errors import BadInputError, printable
from pcl.problems.arrays.content import content_of_file
from pcl.problems.arrays.coordinates import check_aligned, check_in_order
from pcl.problems.arrays.forms import Items, items_of
from pcl.problems.arrays.reading.address import find
from pcl.problems.arrays.reading.opening import KINDS, open_array
from pcl.problems.arrays.reading.stored import Stored
from pcl.problems.arrays.settings import ArraysSettings
from pcl.problems.arrays.splits import NEITHER, TEST, TRAIN, describe_split, divide
from pcl.problems.arrays.survey import Found, count_labels, look_for_missing, measure

MEGABYTE = 1e6
MOST_NAMED = 8  # components in a note
LEAST_LEFT = 4  # pairs, two in each split
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
        keys: what stands before the names of settings in messages.

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
        keys: str = "",
    ) -> None:
        self.keys = keys
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
        found = {name: look_for_missing(items, progress) for name, items in self.items.items()}
        either: np.ndarray = found["u"].rows | found["v"].rows
        self.num_missing = int(either.sum())
        for name, missing in found.items():
            if missing.always:
                self._refuse_always(self.items[name], missing.always)
        for name, missing in found.items():
            if missing.rows.any() and self.settings.missing == "refuse":
                left = len(either) - self.num_missing
                leave_out = f"or leave these pairs out with {self.keys}missing=mask"
                raise BadInputError(
                    f"{self.items[name].stored.label} holds NaN in {int(missing.rows.sum()):,} of {len(either):,} "
                    f"rows, the first is row {int(np.argmax(missing.rows)):,}: fill them in, "
                    + (leave_out if left >= LEAST_LEFT else f"for {left:,} pairs lack no value")
                )
        return either

    def _refuse_always(self, items: Items, always: tuple[int, ...]) -> None:
        """Refuse what no pair has, and no pair can be left out for."""
        label, least = items.stored.label, f"{len(always):,} of {items.num_components:,} components of an item"
        if len(always) == items.num_components:
            raise BadInputError(f"{label} holds nothing but NaN: give another array")
        remedy = "leave these columns out"
        if len(items.stored.names) != items.num_components:
            remedy = "fill them in, such as np.nan_to_num(x) or x.fillna(0)"
            if items.form != "image":
                remedy += ", or keep the others, such as x.reshape(len(x), -1)[:, kept]"
        raise BadInputError(
            f"{label} holds NaN in the same places of every row, {least} ({_components(items, always)}), as land in a "
            f"field of the sea: {remedy}"
        )

    def _check_splits(self, num_rows: int) -> None:
        for name, rows in self.rows.items():
            if len(rows) < 2:
                why = f", and {self.num_missing:,} of all hold NaN" if self.num_missing else ""
                fill = "fill values in, " if self.num_missing else ""
                raise BadInputError(
                    f"the {name} split has {len(rows)} of {num_rows:,} pairs{why}: it needs at least 2, {fill}give "
                    "more pairs or choose another split, test_fraction or gap"
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
        lines = []
        if math.isfinite(self.memory_mb):
            reading_mb = self._bytes_of_reading() / MEGABYTE
            lines.append(
                f"memory of a task beside that: {reading_mb:.1f} MB of blocks of the files (at most "
                f"build.memory_mb={self.memory_mb:g})"
            )
        if self.num_missing:
            lines.append(f"{self.num_missing:,} of {len(self.items['u']):,} pairs hold NaN and are left out")
        for name, found in self.found.items():
            if found.constant:
                lines.append(f"{name} never varies in {_named(self.items[name], found.constant)}: left unscaled")
        return lines


def _named(items: Items, components: tuple[int, ...]) -> str:
    """Return how many components there are of how many, and which."""
    if items.statistics != "component" or not items.shape:
        return "the training split"
    return f"{len(components):,} of {items.num_components:,} components ({_components(items, components)})"


def _components(items: Items, components: tuple[int, ...]) -> str:
    """Return the first of some components by their names, or by their indices."""
    names = items.stored.names
    if len(names) != items.num_components:
        indices = (np.unravel_index(number, items.shape) for number in components[:MOST_NAMED])
        shown = [",".join(map(str, index)) for index in indices]
    else:
        shown = [printable(names[number])[:50] for number in components[:MOST_NAMED]]
    return "; ".join(shown) + (", ..." if len(components) > MOST_NAMED else "")


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
                address,
                settings.sample_dim,
                is_raw=getattr(settings, f"form_{name}", "labels") in ("labels", "text"),
                most_bytes=most_bytes,
                copies=context.copies,
            )
            for name, address in named.items()
        }
        if settings.coordinates == "check":
            found = [one for array in stored.values() if (one := array.coordinate()) is not None]
            check_aligned(found, "pair them by position with data.arrays.coordinates=ignore")
            check_in_order(found if settings.split == "order" else (), "give data.arrays.coordinates=ignore")
        return ArraysSource(
            stored["u"],
            stored["v"],
            settings,
            context.seed,
            files=_contents(named, context),
            groups=stored["groups"].whole() if "groups" in stored else None,
            given=stored["given"].whole() if "given" in stored else None,
            memory_mb=context.memory_mb,
            progress=context.progress,
            keys="data.arrays.",
        )
    except BadInputError as error:
        raise BadInputError(printable(f"data.arrays: {error}")) from error


def _contents(named: Mapping[str, str], context: SourceContext) -> dict[str, Any]:
    """Return what files hold, each looked at once."""
    addresses = {name: find(address, context.copies) for name, address in named.items()}
    known: dict[Any, dict[str, Any]] = {}
    for address in addresses.values():
        key = address if address.path.is_folder else address.path
        if key not in known:
            known[key] = content_of_file(address, context.progress)
    return {
        name: known[address if address.path.is_folder else address.path] | {"of": address.name}
        for name, address in addresses.items()
    }
