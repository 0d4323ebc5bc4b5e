"""The look at every sample: which can be decoded, which have the same bytes, which texts are cut."""

__all__ = ["BLOCK_SAMPLES", "Read", "Survey", "digest_of", "opened", "read_ahead", "survey"]

import contextlib
import os
import tarfile
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from hashlib import blake2b
from typing import NamedTuple, Protocol

import numpy as np

from pcl.data.source import Progress
from pcl.errors import BadInputError, DamagedDataError, printable
from pcl.problems.webdataset.decoding import Decoder, Item
from pcl.problems.webdataset.index import Index, Tar

BLOCK_SAMPLES = 256  # read at a time, of which each thread holds one; their tars are open meanwhile
MOST_THREADS = 4
READ_AHEAD = 16  # samples in object storage, that are asked for together


class Read(Protocol):
    """Reads a part, 0: u, 1: v, of a sample."""

    def __call__(self, sample: np.void, part: int) -> bytes:
        """Return its bytes."""
        ...


@dataclass
class Survey:
    """What was seen of the samples of an index.

    Attributes:
        decoders: of u and v, which know the shape of the numbers.
        samples: those that can be decoded, with the digests of their bytes.
        cut: texts of u and v that are longer than the stored ones.
        longest: length of the longest of them.
        largest: token of u and v.
    """

    decoders: list[Decoder]
    samples: np.ndarray
    cut: Counter[str] = field(default_factory=Counter)
    longest: Counter[str] = field(default_factory=Counter)
    largest: Counter[str] = field(default_factory=Counter)


class Told(NamedTuple):
    """What is kept of an item: see ``Item``; of images the sum of their values and of the squares of these."""

    digest: int
    cut_from: int
    largest: int
    sum: int
    squares: int


class Look(NamedTuple):
    """A look at a sample: why it cannot be decoded, or what is kept of u and v."""

    reason: str = ""
    told: tuple[Told, ...] = ()


@contextlib.contextmanager
def opened(tars: Sequence[Tar]) -> Iterator[Read]:
    """Give what reads a part (0: u, 1: v) of a sample from tars, each opened when it is needed.

    Warnings of Pillow, on odd metadata, are not shown meanwhile.
    """
    with contextlib.ExitStack() as stack, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        files: dict[int, int] = {}

        def read(sample: np.void, part: int) -> bytes:
            tar, size, start = int(sample["tar"]), int(sample["bytes"][part]), int(sample["at"][part])
            if tars[tar].path.is_remote:
                content = tars[tar].path.read(start, size)
            else:
                if tar not in files:
                    files[tar] = stack.enter_context(open(tars[tar].path, "rb")).fileno()
                content = os.pread(files[tar], size, start)
            if len(content) != size:
                raise DamagedDataError(f"{printable(tars[tar].path)} has become shorter: write the shards again")
            return content

        yield read


def read_ahead(read: Read, tars: Sequence[Tar], samples: np.ndarray) -> Iterator[tuple[bytes, bytes]]:
    """Yield the parts of samples one after another; those in object storage are asked for some at a time.

    Args:
        read: of ``opened``.
        tars: that hold them.
        samples: in the order in which they are wanted.
    """
    if not any(tars[int(sample["tar"])].path.is_remote for sample in samples):
        yield from ((read(sample, 0), read(sample, 1)) for sample in samples)
        return
    with ThreadPoolExecutor(READ_AHEAD) as pool:
        for start in range(0, len(samples), READ_AHEAD):
            some = samples[start : start + READ_AHEAD]
            yield from zip(*(list(pool.map(partial(read, part=part), some)) for part in (0, 1)), strict=True)


def survey(index: Index, decoders: Sequence[Decoder], progress: Progress) -> Survey:
    """Look at every sample of an index once; those that cannot be decoded are counted there.

    Args:
        index: of the tars.
        decoders: of u and v.
        progress: shows how far the look has come.
    """
    like_first = [_like_first(index, part, decoder) for part, decoder in enumerate(decoders)]
    seen = Survey(like_first, index.samples)
    is_whole = np.zeros(len(index.samples), bool)
    blocks = range(0, len(index.samples), BLOCK_SAMPLES)
    threads = min(MOST_THREADS, len(os.sched_getaffinity(0)))
    with ThreadPoolExecutor(threads) as pool:
        for start in progress(blocks, "block"):
            block = index.samples[start : start + BLOCK_SAMPLES]
            with opened(index.tars) as read:
                looks = pool.map(lambda sample: _look(read, sample, like_first), block)
                for number, (sample, look) in enumerate(zip(block, looks, strict=True), start):
                    is_whole[number] = not look.reason
                    _count(index, seen, sample, look)
    seen.samples = index.samples[is_whole]
    return seen


def _count(index: Index, seen: Survey, sample: np.void, look: Look) -> None:
    if look.reason:
        at = int(sample["at"]["uv".index(look.reason[0])])
        index.skip(look.reason, _name_of(index.tars[sample["tar"]], at))
        return
    for name in ("digest", "sum", "squares"):
        sample[name] = [getattr(told, name) for told in look.told]
    for name, told in zip("uv", look.told, strict=True):
        seen.cut[name] += told.cut_from > 0
        seen.longest[name] = max(seen.longest[name], told.cut_from)
        seen.largest[name] = max(seen.largest[name], told.largest)


def _look(read: Read, sample: np.void, decoders: Sequence[Decoder]) -> Look:
    told = []
    for part, decoder in enumerate(decoders):
        try:
            if sample["bytes"][part] > decoder.most_bytes:
                raise ValueError(f"has more than {decoder.most_bytes:,} bytes")
            item = decoder(read(sample, part))
        except BadInputError:
            raise
        except ValueError as error:
            return Look(f"{'uv'[part]} {error}")
        sums = sums_of(item.array) if decoder.info.statistics == "scalar" else (0, 0)
        told.append(Told(digest_of(item), item.cut_from, item.largest, *sums))
    return Look("", tuple(told))


def digest_of(item: Item) -> int:
    """Return 64 bits that stand for what an item is made of."""
    return int.from_bytes(blake2b(item.told, digest_size=8).digest())


def sums_of(image: np.ndarray) -> tuple[int, int]:
    """Return the sum of the values of an image, and that of their squares."""
    values = image.astype(np.uint32)
    return int(values.sum(dtype=np.uint64)), int(np.square(values).sum(dtype=np.uint64))


def _like_first(index: Index, part: int, decoder: Decoder) -> Decoder:
    """Return the decoder of items like the first that can be decoded."""
    with opened(index.tars) as read:
        for sample in index.samples:
            try:
                if sample["bytes"][part] <= decoder.most_bytes:
                    return decoder.like(read(sample, part))
            except ValueError:
                continue
    return decoder


def _name_of(tar: Tar, at: int) -> str:
    """Return the name of a file in a tar, from its header, which lies before its content."""
    begin = tar.path.read(at - tarfile.BLOCKSIZE, tarfile.BLOCKSIZE)
    header = tarfile.TarInfo.frombuf(begin, "utf-8", "surrogateescape")
    return f"{header.name} in {tar.path.name}"
