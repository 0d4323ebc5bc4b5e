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
    Manifest,
    ShardEntry,
    read_manifest,
)
from pcl.data.moments import merged, moments_of
from pcl.data.records import read_records, to_npy
from pcl.data.source import Source
from pcl.errors import BadInputError, DamagedDataError, printable
from pcl.storage.lease import Holder, Lease
from pcl.storage.objects import S3Place
from pcl.storage.place import Place, names, read_bytes, replacing, sizes, write_bytes
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
    root: Place, identity: Mapping[str, Any], *, claim: bool = True, differing: Differing = differing_keys
) -> bool:
    """Claim a folder for the shards of one configuration.

    Args:
        root: the folder or address, created if needed.
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
    _check_ground(root)
    remedy = f"choose another data.shards, or delete the folder {root} if it holds shards alone"
    for name in (FILE_NAME, BUILD_FILE):
        found = read_sealed(root / name, Identity, remedy)
        if found is not None:
            if keys := printable(", ".join(differing(vars(found[0]), identity))):
                raise BadInputError(
                    f"{root} holds shards of another configuration (differing: {keys[:500]}): "
                    "choose another data.shards or delete that folder"
                )
            return name == BUILD_FILE
    if any(not name.startswith(".") for name in names(root)):
        raise BadInputError(f"{root} is not empty and has no manifest: choose another data.shards or empty that folder")
    _check_writable(root)
    if claim:
        write_json(root / BUILD_FILE, identity)
    return True


def _ground(root: Path) -> Path:
    """Return the nearest thing that there is, a folder or what lies beneath."""
    return next(path for path in (root, *root.parents) if path.exists())


def _check_ground(root: Place) -> None:
    """Refuse what can be no folder of shards."""
    if isinstance(root, Path) and not (ground := _ground(root)).is_dir():
        raise BadInputError(f"{ground} is no folder, so {root} can be none: choose another data.shards")


def _check_writable(root: Place) -> None:
    """Refuse a place where nothing can be written; of an address the first write tells it."""
    if isinstance(root, Path):
        if not os.access(ground := _ground(root), os.W_OK | os.X_OK):
            raise BadInputError(f"{ground} may not be written: choose another data.shards")
    elif not isinstance(root, S3Place):
        raise BadInputError(f"{root} can only be read: write shards to a folder or to s3://bucket/prefix")


@dataclass(frozen=True)
class Identity:
    """What shards are a function of, as ``build.json`` and the manifest hold it."""

    config: dict[str, Any]
    source: dict[str, Any]


def to_write(
    root: Place, identity: Mapping[str, Any], plans: Sequence[ShardPlan], differing: Differing = differing_keys
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
    entries, found = _entries(read_manifest(root)), sizes(root) or {}
    return [plan for plan in plans if not _is_whole(root, entries.get(plan.name), found)]


def _entries(manifest: Manifest) -> dict[str, ShardEntry]:
    return {shard.name: shard for shards in manifest.splits.values() for shard in shards}


def _is_whole(root: Place, shard: ShardEntry | None, found: Mapping[str, int]) -> bool:
    """Return whether a shard is there, of the bytes that were found and of its SHA-256."""
    if shard is None or found.get(shard.name) != shard.bytes:
        return False
    return sha256(root / shard.name) == shard.sha256


def abandon_build(root: Place) -> None:
    """Give up the claim on a folder in which no shard has been written, so that another configuration may have it.

    Args:
        root: the folder.
    """
    if any(name.endswith(".tar") for name in names(root)):
        return  # the same command goes on from there
    _tidy(root)
    (root / BUILD_FILE).unlink(missing_ok=True)
    _remove_if_empty(root)


def _remove_if_empty(folder: Place) -> None:
    if isinstance(folder, Path):  # an address without objects is nothing
        with contextlib.suppress(OSError):  # others keep files there
            folder.rmdir()


@contextlib.contextmanager
def claimed(root: Place, identity: Mapping[str, Any], differing: Differing = differing_keys) -> Iterator[bool]:
    """Hold the claim on a folder, and a lease of it, while its shards are written.

    An error before the first shard gives the claim up. Nothing of the lease is left in the folder.

    Args:
        root: the folder or address, created if needed.
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
            for name in names(root / LEASE):
                holder = read_json(root / LEASE / name, Holder, "")
                if holder is not None and holder.released:
                    (root / LEASE / name).unlink()
            _remove_if_empty(root / LEASE)
            _remove_if_empty(root)


def build_shard(source: Source, plan: ShardPlan, root: Place, record_pairs: int) -> tuple[ShardEntry, dict[str, Any]]:
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
    num_pairs = plan.stop - plan.start
    if (entry := _written(path, record, num_pairs)) is not None:
        return entry, _moments_of(path, entry, source, record_pairs)
    with replacing(path) as temporary:
        with temporary.open("wb") as stream, webdataset.TarWriter(stream, encoder=False, mtime=0.0) as tar:
            for number, start in enumerate(range(plan.start, plan.stop, record_pairs)):
                arrays = source.pairs(plan.split, start, min(start + record_pairs, plan.stop))
                encoded = {f"{name}.npy": to_npy(array) for name, array in arrays.items()}
                tar.write({"__key__": f"{plan.index:06d}-{number:06d}", **encoded})
        entry = ShardEntry(plan.name, num_pairs, temporary.stat().st_size, sha256(temporary))
        moments = _moments_of(temporary, entry, source, record_pairs)
    write_bytes(record, entry.sha256.encode())  # a build that continues trusts a shard only if it is what was written
    return entry, moments


def _written(path: Place, record: Place, num_pairs: int) -> ShardEntry | None:
    """Return the entry of a shard that is there and is what was written, None where it is not."""
    if (told := read_bytes(record)) is None:
        return None
    try:
        digest = sha256(path)
        size = path.stat().st_size
    except FileNotFoundError:
        return None
    return ShardEntry(path.name, num_pairs, size, digest) if told.decode(errors="replace") == digest else None


def _moments_of(path: Place, entry: ShardEntry, source: Source, record_pairs: int) -> dict[str, Any]:
    """Return a shard's share of the statistics, from what its file holds."""
    counted = source.counted
    records = list(read_records(path, entry, counted, record_pairs)) if counted else []
    return {
        name: moments_of(np.concatenate([record[name] for record in records]), info) for name, info in counted.items()
    }


def finish_build(
    root: Place,
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
    if FILE_NAME in names(root):
        return _compare(root, [entry for _, entry, _ in built])
    manifest = Manifest(
        schema_version=SCHEMA_VERSION,
        source=source.provenance(),
        split_rule=source.split_rule,
        config=dict(config),
        arrays=source.arrays,
        statistics={
            name: merged([moments.get(name, {}) for plan, _, moments in built if plan.split == "train"], info)
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


def build_all(root: Place, source: Source, config: Mapping[str, Any], num_shards: int, record_pairs: int) -> Manifest:
    """Write all shards of a source in this process, into a folder that is empty or holds them.

    Args:
        root: the folder or address, created if needed.
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


def _compare(root: Place, built: Sequence[ShardEntry]) -> Manifest:
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


def _tidy(root: Place) -> None:
    for name in names(root):
        if name.startswith(".") and ".tar." in name:  # hashes, and temporary files of tasks that were cut off
            (root / name).unlink(missing_ok=True)
