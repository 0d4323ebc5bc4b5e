"""The manifest of a folder of shards: what lies there, what it means and where it came from."""

__all__ = [
    "SCHEMA_VERSION",
    "SPLITS",
    "ArrayInfo",
    "Manifest",
    "ShardEntry",
    "bytes_per_pair",
    "load_manifest",
    "manifest_sha256",
    "read_manifest",
    "statistics_shape",
]

import functools
import math
import sys
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import ConfigDict, FailFast, Field

from pcl.errors import BadInputError, DamagedDataError, printable
from pcl.storage.place import Place, is_lasting, patience_of, patiently, sizes
from pcl.storage.stored import Finite, read_json, read_sealed, sealed, sha256, write_json

SCHEMA_VERSION = 1
SPLITS = ("train", "test")
FILE_NAME = "manifest.json"
REMEDY = "delete the folder and write the shards again"
SHARD_REMEDY = "pcl shards with the same config writes it again"
TAR_BLOCK, LONGEST_HEADERS, TAR_END = 512, 1 << 15, 1 << 15  # bytes: least and most of a file's headers, of no file
STRICT = ConfigDict(extra="forbid")

Size = Annotated[int, Field(ge=1, lt=2**53)]
DType = Literal[
    "bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "float16", "float32", "float64"
]
Statistics = Literal["component", "scalar", "channel", "counts", "none"]


@dataclass(frozen=True)
class ArrayInfo:
    """One array of a pair.

    Attributes:
        dtype: stored numpy dtype, of numbers, in this machine's order of bytes.
        shape: shape of one item.
        units: physical units, ``1`` when there are none.
        meaning: a phrase.
        scale_factor: physical units per stored unit, not 0.
        statistics: what the manifest keeps of the training split: ``component`` (mean and standard deviation of
            every component), ``scalar`` (one of each), ``channel`` (one of each for every entry of the first axis,
            over what is not missing, given by the source), ``counts`` (of every integer label) or ``none``.
    """

    dtype: DType
    shape: Annotated[tuple[Size, ...], Field(max_length=32)]
    units: str
    meaning: str
    scale_factor: Finite = 1.0
    statistics: Statistics = "component"

    __pydantic_config__ = STRICT

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
        if not info.shape:
            raise ValueError("a number has no channels")
        return (info.shape[0], *[1] * (len(info.shape) - 1))
    return info.shape if info.statistics == "component" else ()


def bytes_per_pair(arrays: Iterable[ArrayInfo]) -> int:
    """Return the bytes that the values of a pair take.

    Example:
        >>> bytes_per_pair([ArrayInfo("float32", (2, 3), "1", ""), ArrayInfo("uint8", (), "1", "")])
        25
    """
    return sum(math.prod(info.shape) * np.dtype(info.dtype).itemsize for info in arrays)


@dataclass(frozen=True)
class ShardEntry:
    """One shard file: its name, its number of pairs, its size in bytes and its SHA-256."""

    name: str
    pairs: Size
    bytes: Size
    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]

    __pydantic_config__ = STRICT


@dataclass(frozen=True)
class Version:
    """What a manifest of any version says."""

    schema_version: Any = None


@dataclass(frozen=True)
class Manifest:
    """Everything a reader needs to know of a folder of shards; see the fields of ``manifest.json``."""

    schema_version: int
    source: dict[str, Any]
    split_rule: str
    config: dict[str, Any]
    arrays: dict[Annotated[str, Field(pattern="^[a-z0-9_]+$")], ArrayInfo]
    statistics: dict[str, dict[str, Any]]
    record_pairs: Size
    splits: dict[str, Annotated[list[ShardEntry], Field(min_length=1), FailFast()]]

    __pydantic_config__ = STRICT

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

    def save(self, root: Place) -> None:
        """Write ``manifest.json``, with a checksum of itself, at once or not at all."""
        write_json(root / FILE_NAME, sealed(asdict(self)))


def manifest_sha256(root: Place) -> str:
    """Return the SHA-256 of a folder's manifest without its checksum, which stands for all of its shards.

    It is the checksum, and the SHA-256 of a file that has none: the same shards have the same.
    """
    found = read_json(root / FILE_NAME, dict[str, Any], REMEDY) or {}
    return str(found.get("sha256") or sha256(root / FILE_NAME))


def load_manifest(root: Place) -> Manifest:
    """Read and check a folder's manifest, and the presence and size of every shard it names.

    Args:
        root: where the shards lie; ``https://`` tells nothing of them until they are read.

    Raises:
        BadInputError: there is no manifest.
        DamagedDataError: the manifest cannot be read, has another schema, or a shard is missing or has another size.
        OSError: storage refuses.
    """
    manifest = read_manifest(root)
    found = patiently(partial(sizes, root), patience_of(root), gives_up=is_lasting)
    if found is None:
        return manifest
    for shard in (shard for shards in manifest.splits.values() for shard in shards):
        path, size = root / shard.name, found.get(shard.name)
        if size is None:
            raise DamagedDataError(f"{path} is missing: its manifest lists it; {SHARD_REMEDY}")
        if size != shard.bytes:
            raise DamagedDataError(f"{path} has {size} bytes, its manifest says {shard.bytes}: {SHARD_REMEDY}")
    return manifest


def read_manifest(root: Place) -> Manifest:
    """Read and check a folder's manifest, and nothing else; one without a checksum is said to be so, once.

    Args:
        root: where the shards lie.

    Raises:
        BadInputError: there is no manifest.
        DamagedDataError: the manifest cannot be read, has another schema, or promises what cannot be.
        OSError: storage refuses.
    """
    path = root / FILE_NAME
    found = patiently(partial(read_json, path, Version, REMEDY), patience_of(root), gives_up=is_lasting)
    if found is None:
        raise BadInputError(f"{path} does not exist: write the shards first, with pcl shards and the same config")
    if found.schema_version not in (None, SCHEMA_VERSION):
        raise DamagedDataError(
            f"{path} has schema version {printable(found.schema_version)[:20]}, this program reads {SCHEMA_VERSION}: "
            "write the shards again"
        )
    read = read_sealed(path, Manifest, REMEDY)
    assert read is not None
    manifest, has_seal = read
    try:
        _check(manifest)
    except (ValueError, OverflowError) as error:
        raise DamagedDataError(f"{path} cannot be understood ({printable(error)}): {REMEDY}") from error
    if not has_seal:
        _say_once(f"{path} is of an earlier version and has no checksum of itself: damage to it may go unnoticed")
    return manifest


@functools.cache
def _say_once(line: str) -> None:
    print(printable(line), file=sys.stderr, flush=True)  # noqa: T201


def _check(manifest: Manifest) -> None:
    """Raise ``ValueError`` where a manifest contradicts itself."""
    if not {"u", "v"} <= set(manifest.arrays) or set(manifest.statistics) != set(manifest.arrays):
        raise ValueError("arrays and statistics are those of u, v and what describes a pair")
    if set(manifest.splits) != set(SPLITS):
        raise ValueError(f"the splits are {' and '.join(SPLITS)}")
    if not isinstance(manifest.source.get("name"), str):
        raise ValueError("source has a name")
    for split, shards in manifest.splits.items():
        for number, shard in enumerate(shards):
            if shard.name != f"{split}-{number:06d}.tar":
                raise ValueError(
                    f"it names shard {number} of {split} {shard.name[:100]!r}: names are <split>-000000.tar, from 0 on"
                )
            sizes = _sizes(manifest, shard)
            if shard.bytes not in sizes:
                raise ValueError(
                    f"it says that {shard.name} has {shard.pairs:,} pairs in {shard.bytes:,} bytes: these take "
                    f"{sizes.start:,} to {sizes.stop:,}"
                )
    for name, info in manifest.arrays.items():
        _check_statistics(name, info, manifest.statistics[name], manifest.num_pairs("train"))


def _sizes(manifest: Manifest, shard: ShardEntry) -> range:
    """Return the sizes that a shard may have: of its values, of the headers of its records, and of the tar's end."""
    values = shard.pairs * bytes_per_pair(manifest.arrays.values())
    num_files = -(-shard.pairs // manifest.record_pairs) * len(manifest.arrays)
    return range(values + num_files * TAR_BLOCK, values + num_files * LONGEST_HEADERS + TAR_END)


def _check_statistics(name: str, info: ArrayInfo, statistics: Mapping[str, Any], num_pairs: int) -> None:
    if info.scale_factor == 0:
        raise ValueError(f"the scale_factor of {name} is 0")
    if info.statistics == "counts":
        counts = statistics.get("counts")
        if not isinstance(counts, list) or any(type(count) is not int or count < 0 for count in counts):
            raise ValueError(f"the counts of {name} are not non-negative integers")
        if sum(counts) != num_pairs * math.prod(info.shape):
            raise ValueError(f"the counts of {name} are {sum(counts)} in all, of {num_pairs} pairs")
    elif info.statistics != "none":
        wanted = statistics_shape(info)
        mean, std = (np.asarray(statistics.get(key)) for key in ("mean", "std"))
        are_numbers = {mean.dtype.kind, std.dtype.kind} <= set("if") and mean.shape == std.shape == wanted
        # a component that never varies, such as the border of MNIST's images, has 0: it is centred and not divided
        if not (are_numbers and np.isfinite(mean).all() and np.isfinite(std).all() and (std >= 0).all()):
            raise ValueError(f"mean and std of {name} are not finite numbers of shape {wanted}, std at least 0")
