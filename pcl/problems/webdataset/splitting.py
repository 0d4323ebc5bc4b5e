"""Splits of samples: held out by a hash of the key or by tar, in an order of hashes; pairs of the same bytes."""

__all__ = ["Division", "divide", "hash_key"]

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import PurePath

import numpy as np

from pcl.errors import BadInputError, printable
from pcl.problems.webdataset.index import Tar
from pcl.problems.webdataset.settings import WebdatasetSettings


@dataclass(frozen=True)
class Division:
    """Samples of both splits.

    Attributes:
        samples: of each split, in the order in which they are numbered.
        repeated: samples whose u and v have the bytes of another one before.
        shared: held-out samples whose u, and whose v, have the bytes of one of the training split.
    """

    samples: dict[str, np.ndarray]
    repeated: int
    shared: tuple[int, int]


def hash_key(seed: int) -> bytes:
    """Return the key of the hashes of keys and contents.

    Example:
        >>> hash_key(1)[-1]
        1
    """
    return seed.to_bytes(8)


def divide(samples: np.ndarray, tars: Sequence[Tar], settings: WebdatasetSettings, seed: int) -> Division:
    """Divide samples into splits, and order each by the hash of the keys: that of the tars is forgotten.

    With ``split=key`` a sample is held out if the hash of its key is less than a bound, samples of the same bytes all
    if that of the bytes is, so that none of them is on either side.

    Args:
        samples: of type ``SAMPLE``, with digests.
        tars: in which they lie.
        settings: how they are divided, and whether repeated ones are dropped.
        seed: of the hashes.

    Raises:
        BadInputError: the patterns of tars hold out none, or all.
    """
    order = np.lexsort((samples["at"][:, 0], samples["tar"], samples["hash"], *samples["digest"].T))
    samples, digest = samples[order], samples["digest"][order]
    is_first = np.ones(len(samples), bool)
    is_first[1:] = (digest[1:] != digest[:-1]).any(1)
    if settings.split == "tar":
        is_test = _is_test(tars, settings.test_tars)[samples["tar"]]
    else:
        bound = np.uint64(int(settings.test_fraction * 2**64))
        is_test = _side_hash(samples, is_first, seed) < bound
    repeated = int((~is_first).sum())
    if settings.duplicates == "drop":
        samples, is_test = samples[is_first], is_test[is_first]
    numbered = np.lexsort((samples["at"][:, 0], samples["tar"], *samples["digest"].T, samples["hash"]))
    samples, is_test = samples[numbered], is_test[numbered]
    splits = {"train": samples[~is_test], "test": samples[is_test]}
    shared = (np.isin(splits["test"]["digest"][:, part], splits["train"]["digest"][:, part]).sum() for part in (0, 1))
    u, v = map(int, shared)
    return Division(splits, repeated, (u, v))


def _side_hash(samples: np.ndarray, is_first: np.ndarray, seed: int) -> np.ndarray:
    """Return the hashes by which sorted samples are held out: of the key, or of bytes that several have."""
    hashed: np.ndarray = samples["hash"].copy()
    starts = np.flatnonzero(is_first)
    for start, stop in zip(starts, [*starts[1:], len(samples)], strict=True):
        if stop - start > 1:
            content = samples["digest"][start].astype(">u8").tobytes()
            hashed[start:stop] = int.from_bytes(blake2b(content, digest_size=8, key=hash_key(seed)).digest())
    return hashed


def _is_test(tars: Sequence[Tar], patterns: Sequence[str]) -> np.ndarray:
    matched = [[bool(pattern) and PurePath(tar.path).match(pattern) for pattern in patterns] for tar in tars]
    is_test = np.array([any(of_tar) for of_tar in matched], bool)
    if is_test.all() or not is_test.any():
        names = ", ".join(printable(tar.path.name) for tar in tars[:3])
        raise BadInputError(
            f"data.webdataset.test_tars={printable(list(patterns))[:200]} matches {'all' if is_test.any() else 'none'} "
            f"of {len(tars)} tars ({names}{', ...' if len(tars) > 3 else ''}): give patterns of those that are held "
            "out, or split=key"
        )
    return is_test
