"""The manifest of a folder of shards: what lies there, what it means and where it came from."""

__all__ = [
    "SCHEMA_VERSION",
    "SPLITS",
    "ArrayInfo",
    "Manifest",
    "ShardEntry",
    "differing_keys",
    "is_empty",
    "load_manifest",
    "manifest_sha256",
    "statistics_shape",
    "write_json",
]

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pcl.errors import BadInputError, DamagedDataError
from pcl.storage import Place, write_bytes

SCHEMA_VERSION = 1
SPLITS = ("train", "test")
FILE_NAME = "manifest.json"


@dataclass(frozen=True)
class ArrayInfo:
    """One array of a pair.

    Attributes:
        dtype: stored numpy dtype.
        shape: shape of one item.
        units: physical units, ``1`` when there are none.
        meaning: a phrase.
        scale_factor: physical units per stored unit.
        statistics: what the manifest keeps of the training split: ``component`` (mean and standard deviation of
            every component), ``scalar`` (one of each), ``channel`` (one of each for every entry of the first axis,
            over what is not missing, given by the source), ``counts`` (of every integer label) or ``none``.
    """

    dtype: str
    shape: tuple[int, ...]
    units: str
    meaning: str
    scale_factor: float = 1.0
    statistics: str = "component"

    @property
    def has_moments(self) -> bool:
        """Whether the statistics follow from the shards."""
        return self.statistics in ("component", "scalar", "counts")


def statistics_shape(info: ArrayInfo) -> tuple[int, ...]:
    """Return the shape of an array's mean and standard deviation: it broadcasts against items.

    Example:
        >>> statistics_shape(ArrayInfo("float32", (2, 7, 16, 16), "m s-1", "currents", statistics="channel"))
        (2, 1, 1, 1)
    """
    if info.statistics == "channel":
        return (info.shape[0], *[1] * (len(info.shape) - 1))
    return info.shape if info.statistics == "component" else ()


@dataclass(frozen=True)
class ShardEntry:
    """One shard file: its name, its number of pairs, its size in bytes and its SHA-256."""

    name: str
    pairs: int
    bytes: int
    sha256: str


@dataclass(frozen=True)
class Manifest:
    """Everything a reader needs to know of a folder of shards; see the fields of ``manifest.json``."""

    schema_version: int
    source: dict[str, Any]
    split_rule: str
    config: dict[str, Any]
    arrays: dict[str, ArrayInfo]
    statistics: dict[str, dict[str, Any]]
    record_pairs: int
    splits: dict[str, list[ShardEntry]]

    def num_pairs(self, split: str) -> int:
        """Return the number of pairs of a split."""
        return sum(shard.pairs for shard in self.shards(split))

    def shards(self, split: str) -> list[ShardEntry]:
        """Return the shards of a split.

        Raises:
            BadInputError: the folder has no such split.
        """
        if split not in self.splits:
            raise BadInputError(f"there is no split {split!r} among the shards; there are {', '.join(self.splits)}")
        return self.splits[split]

    def save(self, root: Path) -> None:
        """Write ``manifest.json`` at once or not at all."""
        write_json(root / FILE_NAME, asdict(self))


def write_json(path: Place, content: Mapping[str, Any], *, allow_nan: bool = False) -> None:
    """Write JSON at once or not at all; numbers that are not finite if allowed."""
    write_bytes(path, f"{json.dumps(content, indent=2, sort_keys=True, allow_nan=allow_nan)}\n".encode())


def differing_keys(found: Mapping[str, Any], wanted: Mapping[str, Any], prefix: str = "") -> list[str]:
    """Return the keys, joined by dots, in which two nested mappings differ.

    Example:
        >>> differing_keys({"a": {"b": 1, "c": 2}}, {"a": {"b": 1, "c": 3}, "d": 0})
        ['a.c', 'd']
    """
    names: list[str] = []
    for key in sorted({*found, *wanted}):
        old, new = found.get(key), wanted.get(key)
        if isinstance(old, dict) and isinstance(new, dict):
            names += differing_keys(old, new, f"{prefix}{key}.")
        elif old != new:
            names.append(f"{prefix}{key}")
    return names


def is_empty(path: Place) -> bool:
    """Return whether a path is a folder without files, but for the temporary ones of a process that was cut off."""
    return path.is_dir() and all(file.name.startswith(".") for file in path.iterdir())


def manifest_sha256(root: Path) -> str:
    """Return the SHA-256 of a folder's manifest, which stands for all of its shards."""
    return hashlib.sha256((root / FILE_NAME).read_bytes()).hexdigest()


def load_manifest(root: Path) -> Manifest:
    """Read and check a folder's manifest, and the presence and size of every shard it names.

    Args:
        root: the folder of shards.

    Raises:
        BadInputError: there is no manifest.
        DamagedDataError: the manifest cannot be read, has another schema, or a shard is missing or has another size.
    """
    path = root / FILE_NAME
    if not path.is_file():
        raise BadInputError(
            f"{path} does not exist: write the shards first, with jobs/write_shards.py and the same config"
        )
    try:
        content = json.loads(path.read_text())
        version = content["schema_version"]
        if version != SCHEMA_VERSION:
            raise DamagedDataError(
                f"{path} has schema version {version}, this program reads {SCHEMA_VERSION}: write the shards again"
            )
        manifest = Manifest(
            **content
            | {
                "arrays": {
                    name: ArrayInfo(**info | {"shape": tuple(info["shape"])})
                    for name, info in content["arrays"].items()
                },
                "splits": {
                    split: [ShardEntry(**shard) for shard in shards] for split, shards in content["splits"].items()
                },
            }
        )
        _check_types(manifest)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DamagedDataError(
            f"{path} cannot be understood ({type(error).__name__}: {error}): "
            "delete the folder and write the shards again"
        ) from error
    _check_files(root, manifest)
    return manifest


def _check_types(manifest: Manifest) -> None:
    if not {"u", "v"} <= set(manifest.arrays) or set(manifest.statistics) != set(manifest.arrays):
        raise ValueError("arrays and statistics are those of u, v and what describes a pair")
    if not isinstance(manifest.config, dict) or "name" not in manifest.source:
        raise ValueError("config is a mapping, and source has a name")
    if type(manifest.record_pairs) is not int or manifest.record_pairs < 1:
        raise ValueError(f"record_pairs is {manifest.record_pairs!r}, not a positive integer")
    for name, info in manifest.arrays.items():
        np.dtype(info.dtype)
        _check_statistics(info, manifest.statistics[name])
    for shards in manifest.splits.values():
        for shard in shards:
            found = (shard.name, shard.pairs, shard.bytes, shard.sha256)
            if tuple(map(type, found)) != (str, int, int, str) or shard.pairs < 1:
                raise TypeError(f"a shard is described by {found}")


def _check_statistics(info: ArrayInfo, statistics: Mapping[str, Any]) -> None:
    if not math.isfinite(info.scale_factor):
        raise ValueError(f"a scale_factor is {info.scale_factor}")
    if info.statistics == "counts":
        if any(type(count) is not int or count < 0 for count in statistics["counts"]):
            raise ValueError("counts are not non-negative integers")
        return
    if info.statistics == "none":
        return
    mean, std = (np.asarray(statistics[name], np.float64) for name in ("mean", "std"))
    wanted = statistics_shape(info)
    if mean.shape != wanted or std.shape != wanted or not (np.isfinite(mean).all() and (std >= 0).all()):
        raise ValueError(f"mean and std are not finite numbers of shape {wanted}")


def _check_files(root: Path, manifest: Manifest) -> None:
    for split, shards in manifest.splits.items():
        for number, shard in enumerate(shards):
            path = root / shard.name
            if shard.name != f"{split}-{number:06d}.tar":
                raise DamagedDataError(
                    f"{root / FILE_NAME} names shard {number} of {split} {shard.name!r}: names are <split>-000000.tar, "
                    "counted from 0; write the shards again"
                )
            if not path.is_file():
                raise DamagedDataError(f"{path} is missing: its manifest lists it; write the shards again")
            if path.stat().st_size != shard.bytes:
                raise DamagedDataError(
                    f"{path} has {path.stat().st_size} bytes, its manifest says {shard.bytes}: "
                    "delete the folder and write the shards again"
                )
