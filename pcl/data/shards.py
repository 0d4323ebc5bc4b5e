"""Shards: tar files of WebDataset records, each holding many pairs as two .npy arrays.

A record is ``<key>.u.npy`` and ``<key>.v.npy`` with a leading axis of pairs. The bytes of a shard depend on its
source, its range of pairs and the size of its records, on nothing else, so shards can be written by any number of
tasks in any order, and a build that was cut off continues.
"""

__all__ = [
    "ShardPlan",
    "abandon_build",
    "begin_build",
    "build_all",
    "build_shard",
    "claimed",
    "finish_build",
    "plan_shards",
    "to_write",
]

import contextlib
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import webdataset

from pcl.data.manifest import (
    FILE_NAME,
    SCHEMA_VERSION,
    SPLITS,
    ArrayInfo,
    Manifest,
    ShardEntry,
    read_manifest,
)
from pcl.data.records import read_records, to_npy
from pcl.data.source import Source
from pcl.errors import BadInputError, DamagedDataError, printable
from pcl.storage.lease import Holder, Lease
from pcl.storage.place import is_empty
from pcl.storage.stored import differing_keys, read_json, read_sealed, sha256, write_json

BUILD_FILE = "build.json"
LEASE = ".lease"
Differing = Callable[[Mapping[str, Any], Mapping[str, Any]], list[str]]


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


def begin_build(
    root: Path, identity: Mapping[str, Any], *, claim: bool = True, differing: Differing = differing_keys
) -> bool:
    """Claim a folder for the shards of one configuration.

    Args:
        root: the folder, created if needed.
        identity: what the shards are a function of; JSON.
        claim: False only tells whether the folder could be claimed.
        differing: returns the keys in which what is recorded differs from an identity.

    Returns:
        Whether the build is to begin or to go on: False when the folder has the manifest of this very configuration.

    Raises:
        BadInputError: the folder belongs to another configuration, holds files that are not shards, or cannot be one.
        DamagedDataError: what says whose the folder is cannot be read.
    """
    identity = json.loads(json.dumps(identity))
    ground = next(path for path in (root, *root.parents) if path.exists())
    if not ground.is_dir():
        raise BadInputError(f"{ground} is no folder, so {root} can be none: choose another data.shards")
    for name in (FILE_NAME, BUILD_FILE):
        found = read_sealed(root / name, Identity, f"delete the folder {root} and write the shards again")
        if found is not None:
            if keys := printable(", ".join(differing(vars(found[0]), identity))):
                raise BadInputError(
                    f"{root} holds shards of another configuration (differing: {keys[:500]}): "
                    "choose another data.shards or delete that folder"
                )
            return name == BUILD_FILE
    if root.exists() and not is_empty(root):
        raise BadInputError(f"{root} is not empty and has no manifest: choose another data.shards or empty that folder")
    if not os.access(ground, os.W_OK | os.X_OK):
        raise BadInputError(f"{ground} may not be written: choose another data.shards")
    if claim:
        root.mkdir(parents=True, exist_ok=True)
        write_json(root / BUILD_FILE, identity)
    return True


@dataclass(frozen=True)
class Identity:
    """What shards are a function of, as ``build.json`` and the manifest hold it."""

    config: dict[str, Any]
    source: dict[str, Any]


def to_write(
    root: Path, identity: Mapping[str, Any], plans: Sequence[ShardPlan], differing: Differing = differing_keys
) -> list[ShardPlan]:
    """Return the shards that a folder lacks; every shard of a finished build is read to compare its SHA-256.

    Args:
        root: the folder.
        identity: what the shards are a function of; JSON.
        plans: all of its shards.
        differing: see ``begin_build``.

    Returns:
        All of them while there is no manifest, else those that are missing or damaged.

    Raises:
        BadInputError: see ``begin_build``.
        DamagedDataError: the manifest cannot be read.
    """
    if begin_build(root, identity, claim=False, differing=differing):
        return [*plans]
    entries = _entries(read_manifest(root))
    return [plan for plan in plans if plan.name not in entries or not _is_whole(root / plan.name, entries[plan.name])]


def _entries(manifest: Manifest) -> dict[str, ShardEntry]:
    return {shard.name: shard for shards in manifest.splits.values() for shard in shards}


def _is_whole(path: Path, shard: ShardEntry) -> bool:
    return path.is_file() and path.stat().st_size == shard.bytes and sha256(path) == shard.sha256


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
def claimed(root: Path, identity: Mapping[str, Any], differing: Differing = differing_keys) -> Iterator[bool]:
    """Hold the claim on a folder, and a lease of it, while its shards are written.

    An error before the first shard gives the claim up. Nothing of the lease is left in the folder.

    Args:
        root: the folder, created if needed.
        identity: what the shards are a function of; JSON.
        differing: see ``begin_build``.

    Yields:
        Whether the build is to begin or to go on, see ``begin_build``.

    Raises:
        BadInputError: see ``begin_build``, or another process writes there.
    """
    begin_build(root, identity, claim=False, differing=differing)
    try:
        with Lease(root / LEASE, f"the folder {root}", "wait until it ends, or choose another data.shards"):
            to_build = begin_build(root, identity, differing=differing)
            try:
                yield to_build
            except BaseException:
                if to_build:
                    abandon_build(root)
                raise
    finally:
        with contextlib.suppress(OSError, DamagedDataError):  # somebody else holds the lease, or files lie there
            for file in (root / LEASE).iterdir():
                holder = read_json(file, Holder, "")
                if holder is not None and holder.released:
                    file.unlink()
            (root / LEASE).rmdir()
            root.rmdir()


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
    if not (path.is_file() and record.is_file() and record.read_text() == sha256(path)):
        temporary = path.with_name(f".{plan.name}.{os.getpid()}")
        with temporary.open("wb") as stream:
            with webdataset.TarWriter(stream, encoder=False, mtime=0.0) as tar:
                for number, start in enumerate(range(plan.start, plan.stop, record_pairs)):
                    arrays = source.pairs(plan.split, start, min(start + record_pairs, plan.stop))
                    encoded = {f"{name}.npy": to_npy(array) for name, array in arrays.items()}
                    tar.write({"__key__": f"{plan.index:06d}-{number:06d}", **encoded})
            stream.flush()
            os.fsync(stream.fileno())
        digest = sha256(temporary)
        os.replace(temporary, path)
        record.write_text(digest)  # a build that continues trusts a shard only if it is what was written
    entry = ShardEntry(plan.name, plan.stop - plan.start, path.stat().st_size, sha256(path))
    counted = source.counted
    records = list(read_records(path, entry, counted, record_pairs)) if counted else []
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
    """Write the manifest, last and at once; one that is there already stays as it is.

    Args:
        root: the folder of shards.
        source: where the pairs came from.
        config: the configuration of the data, with its seed.
        record_pairs: pairs in a record.
        built: shards with their entries and moments, in any order: every one, or those that a manifest's folder lacked.

    Raises:
        DamagedDataError: a shard is not what the manifest that is there says.
    """
    built = sorted(built, key=lambda item: item[0].name)
    if (root / FILE_NAME).is_file():
        return _compare(root, [entry for _, entry, _ in built])
    manifest = Manifest(
        schema_version=SCHEMA_VERSION,
        source=source.provenance(),
        split_rule=source.split_rule,
        config=dict(config),
        arrays=source.arrays,
        statistics={
            name: _statistics([moments.get(name, {}) for plan, _, moments in built if plan.split == "train"], info)
            for name, info in source.arrays.items()
            if name in source.counted or info.statistics == "none"
        }
        | source.statistics(),
        record_pairs=record_pairs,
        splits={split: [entry for plan, entry, _ in built if plan.split == split] for split in SPLITS},
    )
    _tidy(root)
    manifest.save(root)
    (root / BUILD_FILE).unlink(missing_ok=True)
    return manifest


def build_all(root: Path, source: Source, config: Mapping[str, Any], num_shards: int, record_pairs: int) -> Manifest:
    """Write all shards of a source in this process, into a folder that is empty or holds them.

    Args:
        root: the folder, created if needed.
        source: where the pairs come from.
        config: the configuration of the data, with its seed.
        num_shards: of each split.
        record_pairs: pairs in a record.

    Raises:
        BadInputError: see ``begin_build`` and ``plan_shards``.
    """
    plans = plan_shards(source, num_shards)
    begin_build(root, {"config": config, "source": source.provenance()})
    built = [(plan, *build_shard(source, plan, root, record_pairs)) for plan in plans]
    return finish_build(root, source, config, record_pairs, built)


def _compare(root: Path, built: Sequence[ShardEntry]) -> Manifest:
    """Return the manifest of a folder in which shards were written again."""
    manifest = read_manifest(root)
    entries = _entries(manifest)
    _tidy(root)
    for entry in built:
        if entries.get(entry.name) != entry:
            raise DamagedDataError(
                f"{root / entry.name} was written again and is not what its manifest says: the data or the program "
                "have changed since; write the shards to another data.shards"
            )
    return manifest


def _tidy(root: Path) -> None:
    for leftover in root.glob(".*.tar.*"):  # hashes, and temporary files of tasks that were cut off
        leftover.unlink()


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
