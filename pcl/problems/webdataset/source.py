"""Pairs from the tars of other people: two parts of every sample, decoded to items of one shape."""

__all__ = ["WebdatasetSource", "webdataset_source"]

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from pcl.data.manifest import ArrayInfo
from pcl.data.source import Arrays, Source, SourceContext
from pcl.data.tokenizers import tokenizer_kind
from pcl.errors import BadInputError, DamagedDataError, printable
from pcl.problems.webdataset.decoding import decoder_of
from pcl.problems.webdataset.index import Index, find_tars, read_index
from pcl.problems.webdataset.parts import Part, part_of
from pcl.problems.webdataset.settings import WebdatasetSettings
from pcl.problems.webdataset.splitting import Division, divide, hash_key
from pcl.problems.webdataset.survey import BLOCK_SAMPLES, Survey, digest_of, opened, read_ahead, survey

MOST_SHOWN = 10


def webdataset_source(settings: WebdatasetSettings, context: SourceContext) -> "WebdatasetSource":
    """Look through the tars that settings name, and return where their pairs come from.

    Every sample is read and decoded once, so that what is left out is known before anything is written. Held are some
    100 bytes a sample, the names in one tar, and the few samples under way.

    Args:
        settings: which tars, which parts of a sample, and how they are decoded and divided.
        context: with the seed of the splits and of the order.

    Raises:
        BadInputError: tars and settings do not fit together.
        DamagedDataError: a tar is none, or was cut off.
    """
    parts = [part_of(f"data.webdataset.{name}", getattr(settings, name), settings.json_numbers) for name in "uv"]
    if parts[0] == parts[1]:
        raise BadInputError(f"data.webdataset.u and v are both {printable(parts[0].name)[:100]}: name two parts")
    decoders = [decoder_of(part, settings) for part in parts]
    index = read_index(find_tars(settings.paths, context.copies), parts, hash_key(context.seed), context.progress)
    seen = survey(index, decoders, context.progress)
    if not len(seen.samples):
        raise BadInputError(_no_pairs(index, parts))
    division = divide(seen.samples, index.tars, settings, context.seed)
    _check_labels(division, parts)
    return WebdatasetSource(settings, parts, seen, index, division)


def _no_pairs(index: Index, parts: Sequence[Part]) -> str:
    """Return what is wrong with tars of which no sample is a pair."""
    names = " and ".join(printable(part.name)[:100] for part in parts)
    reasons = "; ".join(_left_out(index))
    found = [f"{printable(name)[:50]} ({number:,})" for name, number in index.extensions.most_common(MOST_SHOWN)]
    return (
        f"none of {index.num_samples:,} samples in {len(index.tars)} tars is a pair of {names}"
        f"{f' ({reasons})' if reasons else ''}: data.webdataset.u and v name two of the extensions there: "
        f"{', '.join(found) or 'none'}"
    )


def _check_labels(division: Division, parts: Sequence[Part]) -> None:
    for name, part, shared in zip("uv", parts, division.shared, strict=True):
        unknown = len(division.samples["test"]) - shared
        if part.form == "labels" and unknown:
            raise BadInputError(
                f"{unknown:,} held-out pairs have a label {name} that no training pair has: choose another split or "
                "data.seed, or leave these pairs out"
            )


def _left_out(index: Index) -> list[str]:
    """Return why samples were left out, the most frequent reasons first."""
    return [
        f"{reason}: {number:,} (first: {index.first[reason]})"
        for reason, number in sorted(index.skipped.items(), key=lambda item: (-item[1], item[0]))[:MOST_SHOWN]
    ]


@dataclass(frozen=True, eq=False)
class WebdatasetSource(Source):
    """Pairs of two parts of the samples of tars.

    Attributes:
        settings: how they are decoded and divided.
        parts: of a sample, u and v.
        seen: what the look at every sample has found: decoders, and how many texts are cut.
        index: tars, and what was left out.
        division: the samples of each split in their order.
    """

    settings: WebdatasetSettings
    parts: list[Part]
    seen: Survey
    index: Index
    division: Division

    def __post_init__(self) -> None:
        # the samples of the splits are all that tasks need
        self.index.samples = self.seen.samples = self.seen.samples[:0]

    @property
    def arrays(self) -> dict[str, ArrayInfo]:
        """The arrays of a pair."""
        return {
            name: replace(decoder.info, meaning=f"{decoder.info.meaning} ({printable(part.name)[:100]})")
            for name, part, decoder in zip("uv", self.parts, self.seen.decoders, strict=True)
        }

    @property
    def counted(self) -> dict[str, ArrayInfo]:
        """Labels and numbers: the statistics of images follow from the look at every sample."""
        return {name: info for name, info in self.arrays.items() if info.statistics in ("counts", "component")}

    def statistics(self) -> dict[str, dict[str, Any]]:
        """Return mean and standard deviation of the images of the training split, exact but for the last rounding."""
        train, found = self.division.samples["train"], {}
        for part, (name, info) in enumerate(self.arrays.items()):
            if info.statistics == "scalar":
                number = len(train) * math.prod(info.shape)
                total, squares = (int(train[sums][:, part].sum()) for sums in ("sum", "squares"))
                variance = (squares * number - total**2) / number**2
                found[name] = {
                    "mean": info.scale_factor * (total / number),
                    "std": info.scale_factor * math.sqrt(variance),
                }
        return found

    @property
    def split_rule(self) -> str:
        """How samples were divided into the splits."""
        settings = self.settings
        if settings.split == "tar":
            chosen = f"tars that match {printable(', '.join(settings.test_tars))} are held out"
        else:
            chosen = f"{settings.test_fraction:g} is held out by a hash of the key, pairs of the same bytes together"
        return f"{chosen}; each split in the order of that hash"

    def provenance(self) -> dict[str, Any]:
        """Return name and hashes of the tars, the forms of the pairs, and how many were left out, repeated and cut."""
        name = self.settings.tokenizer
        return {
            "name": "webdataset",
            "forms": [part.form for part in self.parts],
            "tars": [f"{tar.sha256}  {printable(tar.path.name)}" for tar in self.index.tars],
            "licence": "not stated in tars",
            "samples": self.index.num_samples,
            "skipped": dict(sorted(self.index.skipped.items())),
            "repeated": self.division.repeated,
            "shared": self.division.shared,
            "cut": {name: self.seen.cut[name] for name in "uv"},
        } | ({"tokenizer": {"name": name, "plugin": tokenizer_kind(name).plugin}} if name else {})

    def num_pairs(self, split: str) -> int:
        """Return the number of pairs of a split."""
        return len(self.division.samples[split])

    def pairs(self, split: str, start: int, stop: int) -> Arrays:
        """Decode the pairs of a range, one after another, in the order in which the tars hold them."""
        chosen = self.division.samples[split][start:stop]
        arrays = {name: np.zeros((len(chosen), *info.shape), info.dtype) for name, info in self.arrays.items()}
        order = np.lexsort((chosen["at"][:, 0], chosen["tar"]))
        for block in np.split(order, range(BLOCK_SAMPLES, len(order), BLOCK_SAMPLES)):
            with opened(self.index.tars) as read:
                contents = read_ahead(read, self.index.tars, chosen[block])
                for number, parts in zip(block, contents, strict=True):
                    for part, name in enumerate("uv"):
                        arrays[name][number] = self._item(parts[part], chosen[number], part)
        return arrays

    def _item(self, content: bytes, sample: np.void, part: int) -> np.ndarray:
        try:
            item = self.seen.decoders[part](content)
            if digest_of(item) == sample["digest"][part]:
                return item.array
        except BadInputError:
            raise
        except ValueError:
            pass
        path = printable(self.index.tars[sample["tar"]].path)
        raise DamagedDataError(f"{path} has changed since its samples were counted: write the shards again")

    def notes(self, record_pairs: int) -> list[str]:
        """Return how many samples there are, and which were left out, repeated and cut, as lines."""
        index, division = self.index, self.division
        kept = self.num_pairs("train") + self.num_pairs("test")
        lines = [f"samples: {index.num_samples:,} in {len(index.tars)} tars, of which {kept:,} are kept as pairs"]
        lines += [f"left out: {line}" for line in _left_out(index)]
        if division.repeated:
            what = "kept" if self.settings.duplicates == "keep" else "dropped"
            lines.append(f"repeated: {division.repeated:,} pairs have the bytes of another: {what}")
        for name, part, shared in zip("uv", self.parts, division.shared, strict=True):
            if self.seen.cut[name]:
                lines.append(
                    f"cut: {self.seen.cut[name]:,} texts of {name} are longer than text_length="
                    f"{self.settings.text_length}, the longest has {self.seen.longest[name]:,}"
                )
            if self.seen.largest[name]:
                lines.append(f"tokens: the largest of {name} is {self.seen.largest[name]:,}")
            if shared and part.form != "labels":
                lines.append(f"shared: {shared:,} held-out pairs have the {name} of a training pair, byte by byte")
        return lines
