"""Shards: tar files of WebDataset records, each holding many pairs as two .npy arrays.

A record is ``<key>.u.npy`` and ``<key>.v.npy`` with a leading axis of pairs. The bytes of a shard depend on its
source, its range of pairs and the size of its records, on nothing else, so shards can be written by any number of
tasks in any order, and a build that was cut off continues.
"""

__all__ = [
    "ShardPlan",
    "Source",
    "abandon_build",
    "begin_build",
    "build_shard",
    "claimed",
    "finish_build",
    "plan_shards",
    "read_records",
    "verify",
]

import contextlib
import hashlib
import io
import json
import os
import tarfile
import tokenize
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import webdataset

from pcl.data.manifest import (
    FILE_NAME,
    SCHEMA_VERSION,
    SPLITS,
    ArrayInfo,
    Manifest,
    ShardEntry,
    differing_keys,
    is_empty,
    write_json,
)
from pcl.errors import BadInputError, DamagedDataError

BUILD_FILE = "build.json"

UNREADABLE = (tarfile.TarError, tokenize.TokenError, SyntaxError, EOFError, OSError, KeyError, ValueError)

Arrays = dict[str, np.ndarray]


class Source(Protocol):
    """Where pairs come from."""

    arrays: dict[str, ArrayInfo]
    split_rule: str

    def provenance(self) -> dict[str, Any]:
        """Return name, hash and licence of the source."""
        ...

    def num_pairs(self, split: str) -> int:
        """Return the number of pairs of a split."""
        ...

    def pairs(self, split: str, start: int, stop: int) -> Arrays:
        """Return pairs start .. stop - 1 as stored arrays: a pure function of its arguments."""
        ...

    def statistics(self) -> dict[str, dict[str, Any]]:
        """Return mean and standard deviation, over the training split, of the arrays that keep them by channel."""
        ...


@dataclass(frozen=True)
class ShardPlan:
    """One shard to write: pairs start .. stop - 1 of a split."""

    split: str
    index: int
    start: int
    stop: int

    @property
    def name(self) -> str:
        """File name of the shard."""
        return f"{self.split}-{self.index:06d}.tar"


def plan_shards(source: Source, num_shards: int) -> list[ShardPlan]:
    """Divide every split into shards whose sizes differ by at most one pair.

    Args:
        source: where the pairs come from.
        num_shards: shards of each split.

    Raises:
        BadInputError: a split has fewer pairs than shards.
    """
    plans = []
    for split in SPLITS:
        num_pairs = source.num_pairs(split)
        if num_pairs < num_shards:
            raise BadInputError(
                f"the {split} split has {num_pairs} pairs, fewer than data.num_shards={num_shards}: "
                "ask for fewer shards"
            )
        edges = [num_pairs * i // num_shards for i in range(num_shards + 1)]
        plans += [ShardPlan(split, i, edges[i], edges[i + 1]) for i in range(num_shards)]
    return plans


def begin_build(root: Path, identity: Mapping[str, Any], *, claim: bool = True) -> bool:
    """Claim a folder for the shards of one configuration.

    Args:
        root: the folder, created if needed.
        identity: what the shards are a function of; JSON.
        claim: False only tells whether the folder could be claimed.

    Returns:
        Whether there is anything to do: False when the folder holds the finished shards of this very configuration.

    Raises:
        BadInputError: the folder belongs to another configuration, or holds files that are not shards.
    """
    identity = json.loads(json.dumps(identity))
    for name in (FILE_NAME, BUILD_FILE):
        if (root / name).is_file():
            differing = differing_keys(_identity_of(root / name), identity)
            if differing:
                raise BadInputError(
                    f"{root} holds shards of another configuration (differing: {', '.join(differing)}): "
                    "choose another data.shards or delete that folder"
                )
            return name == BUILD_FILE
    if root.exists() and not is_empty(root):
        raise BadInputError(f"{root} is not empty and has no manifest: choose another data.shards or empty that folder")
    if claim:
        root.mkdir(parents=True, exist_ok=True)
        write_json(root / BUILD_FILE, identity)
    return True


def abandon_build(root: Path) -> None:
    """Give up the claim on a folder in which no shard has been written, so that another configuration may have it.

    Args:
        root: the folder.
    """
    if any(root.glob("*.tar")):
        return  # the same command goes on from there
    for leftover in (*root.glob(".*.tar.*"), root / BUILD_FILE):
        leftover.unlink(missing_ok=True)
    with contextlib.suppress(OSError):  # others keep files there
        root.rmdir()


@contextlib.contextmanager
def claimed(root: Path, identity: Mapping[str, Any]) -> Iterator[bool]:
    """Hold the claim on a folder while its shards are written; an error before the first shard gives it up.

    Args:
        root: the folder, created if needed.
        identity: what the shards are a function of; JSON.

    Yields:
        Whether there is anything to do.

    Raises:
        BadInputError: see ``begin_build``.
    """
    to_build = begin_build(root, identity)
    try:
        yield to_build
    except BaseException:
        if to_build:
            abandon_build(root)
        raise


def _identity_of(path: Path) -> dict[str, Any]:
    try:
        content: dict[str, Any] = json.loads(path.read_text())
        return {"config": content["config"], "source": content["source"]}
    except (ValueError, KeyError, TypeError) as error:
        raise DamagedDataError(
            f"{path} cannot be read: delete the folder {path.parent} and write the shards again"
        ) from error


def build_shard(source: Source, plan: ShardPlan, root: Path, record_pairs: int) -> tuple[ShardEntry, dict[str, Any]]:
    """Write one shard unless it is there, then read it back for its entry and its share of the statistics.

    Args:
        source: where the pairs come from.
        plan: which pairs.
        root: the folder of shards.
        record_pairs: pairs in a record; the last record of a shard may hold fewer.

    Returns:
        The manifest's entry, and for each array its count, mean and sum of squared deviations (or label counts).
    """
    path, record = root / plan.name, root / f".{plan.name}.sha256"
    if not (path.is_file() and record.is_file() and record.read_text() == _sha256(path)):
        temporary = path.with_name(f".{plan.name}.{os.getpid()}")
        with temporary.open("wb") as stream:
            with webdataset.TarWriter(stream, encoder=False, mtime=0.0) as tar:
                for number, start in enumerate(range(plan.start, plan.stop, record_pairs)):
                    arrays = source.pairs(plan.split, start, min(start + record_pairs, plan.stop))
                    encoded = {f"{name}.npy": _to_npy(array) for name, array in arrays.items()}
                    tar.write({"__key__": f"{plan.index:06d}-{number:06d}", **encoded})
            stream.flush()
            os.fsync(stream.fileno())
        digest = _sha256(temporary)
        os.replace(temporary, path)
        record.write_text(digest)  # a build that continues trusts a shard only if it is what was written
    entry = ShardEntry(plan.name, plan.stop - plan.start, path.stat().st_size, _sha256(path))
    counted = {name: info for name, info in source.arrays.items() if info.has_moments}
    records = list(read_records(path, entry, counted, record_pairs))
    moments = {
        name: _moments(np.concatenate([record[name] for record in records]), info) for name, info in counted.items()
    }
    return entry, moments


def finish_build(
    root: Path,
    source: Source,
    config: Mapping[str, Any],
    record_pairs: int,
    built: Sequence[tuple[ShardPlan, ShardEntry, dict[str, Any]]],
) -> Manifest:
    """Write the manifest, last and at once.

    Args:
        root: the folder of shards.
        source: where the pairs came from.
        config: the configuration of the data, with its seed.
        record_pairs: pairs in a record.
        built: every shard with its entry and moments, in any order.
    """
    built = sorted(built, key=lambda item: item[0].name)
    manifest = Manifest(
        schema_version=SCHEMA_VERSION,
        source=source.provenance(),
        split_rule=source.split_rule,
        config=dict(config),
        arrays=source.arrays,
        statistics={
            name: _statistics([moments.get(name, {}) for plan, _, moments in built if plan.split == "train"], info)
            for name, info in source.arrays.items()
            if info.statistics != "channel"
        }
        | source.statistics(),
        record_pairs=record_pairs,
        splits={split: [entry for plan, entry, _ in built if plan.split == split] for split in SPLITS},
    )
    for leftover in root.glob(".*.tar.*"):  # hashes, and temporary files of tasks that were cut off
        leftover.unlink()
    manifest.save(root)
    (root / BUILD_FILE).unlink(missing_ok=True)
    return manifest


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _to_npy(array: np.ndarray) -> bytes:
    stream = io.BytesIO()
    np.lib.format.write_array(stream, np.ascontiguousarray(array), version=(1, 0), allow_pickle=False)
    return stream.getvalue()


def _moments(array: np.ndarray, info: ArrayInfo) -> dict[str, Any]:
    if info.statistics == "counts":
        return {"counts": np.bincount(array.reshape(-1).astype(np.int64))}
    physical = array.astype(np.float64) * info.scale_factor
    if info.statistics == "scalar":
        physical = physical.reshape(-1)
    mean = physical.mean(0)
    return {"count": len(physical), "mean": mean, "squares": np.square(physical - mean).sum(0)}


def _statistics(parts: Sequence[dict[str, Any]], info: ArrayInfo) -> dict[str, Any]:
    """Merge the shards' moments in their order (Chan, Golub, LeVeque 1979)."""
    if info.statistics == "none":
        return {}
    if info.statistics == "counts":
        counts = np.zeros(max(len(part["counts"]) for part in parts), np.int64)
        for part in parts:
            counts[: len(part["counts"])] += part["counts"]
        return {"counts": counts.tolist()}
    count, mean, squares = 0, 0.0, 0.0
    for part in parts:
        total = count + part["count"]
        shift = part["mean"] - mean
        squares = squares + part["squares"] + np.square(shift) * count * part["count"] / total
        mean = mean + shift * part["count"] / total
        count = total
    return {"mean": np.asarray(mean).tolist(), "std": np.sqrt(np.asarray(squares) / count).tolist()}


def verify(path: Path, shard: ShardEntry) -> None:
    """Compare a shard's SHA-256 with its manifest's.

    Raises:
        DamagedDataError: they differ, or the file cannot be read.
    """
    try:
        found = _sha256(path)
    except OSError as error:
        raise DamagedDataError(f"{path} cannot be read ({error.strerror}): write the shards again") from error
    if found != shard.sha256:
        raise DamagedDataError(
            f"{path} is damaged: its SHA-256 is {found[:12]}..., its manifest says {shard.sha256[:12]}...; "
            "delete the folder and write the shards again"
        )


def read_records(path: Path, shard: ShardEntry, arrays: Mapping[str, ArrayInfo], record_pairs: int) -> Iterator[Arrays]:
    """Read a shard's records in order, each checked against what the manifest promises.

    Args:
        path: the tar file.
        shard: its entry.
        arrays: dtype and shape of every array.
        record_pairs: pairs in a record.

    Yields:
        Arrays of shape (pairs, *shape) by name.

    Raises:
        DamagedDataError: the tar cannot be read, or holds other arrays or another number of pairs.
    """
    remaining = shard.pairs
    try:
        with path.open("rb") as stream:
            files = webdataset.tariterators.tar_file_expander([{"url": str(path), "stream": stream}])
            for sample in webdataset.tariterators.group_by_keys(files):
                record = {name: _from_npy(sample[f"{name}.npy"]) for name in arrays}
                for name, info in arrays.items():
                    found, wanted = record[name], (min(record_pairs, remaining), *info.shape)
                    if remaining == 0 or found.shape != wanted or found.dtype != np.dtype(info.dtype):
                        raise DamagedDataError(
                            f"{path}, record {sample['__key__']}: {name} is {found.dtype}{list(found.shape)}, "
                            f"the manifest promises {info.dtype}{list(wanted)}; write the shards again"
                        )
                remaining -= min(record_pairs, remaining)
                yield record
    except UNREADABLE as error:
        raise DamagedDataError(f"{path} cannot be read ({type(error).__name__}): write the shards again") from error
    if remaining:
        raise DamagedDataError(
            f"{path} holds {shard.pairs - remaining} pairs, its manifest says {shard.pairs}: write the shards again"
        )


def _from_npy(content: bytes) -> np.ndarray:
    return np.lib.format.read_array(io.BytesIO(content), allow_pickle=False)
