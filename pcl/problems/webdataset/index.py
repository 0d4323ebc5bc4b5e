"""The index of tars: where in them the parts of every sample lie, from what the tars say of their files.

A sample is what shares a key, as in WebDataset: the name of a file up to the first dot after the last slash; what
follows that dot, in small letters, is the extension. Samples of different tars are different ones.
"""

__all__ = ["SAMPLE", "Index", "Tar", "find_tars", "read_index"]

import contextlib
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import Path

import numpy as np

from pcl.data.source import Progress
from pcl.data.tars import BoundedFile, headers
from pcl.errors import BadInputError, DamagedDataError, printable
from pcl.problems.webdataset.parts import Part
from pcl.storage.copies import Copies
from pcl.storage.inputs import Input, expanded, input_at
from pcl.storage.stored import sha256

NAME = re.compile(r"((?:.*/)?[^./]+)\.([^/]+)", re.DOTALL)
OF_THE_TAR = re.compile(r"__[^/]*__(/|\Z)")  # keys of files that tell about the tar
MOST_EXTENSIONS = 1000
NOT_PLAIN, TWICE = "is a link, or another file without content of its own", "is there twice"
COMPRESSED = (b"\x1f\x8b", b"BZh", b"\xfd7zXZ", b"\x28\xb5\x2f\xfd")  # how gzip, bzip2, xz and zstd begin
SAMPLE = np.dtype(
    [
        ("tar", np.int32),
        ("at", np.int64, (2,)),  # byte of the tar where u and v begin
        ("bytes", np.int64, (2,)),
        ("hash", np.uint64),  # of the key
        ("digest", np.uint64, (2,)),  # of what u and v are made of
        ("sum", np.uint64, (2,)),  # of the stored values of images, and of their squares: exact, in any order
        ("squares", np.uint64, (2,)),
    ]
)
"""What is kept of a sample."""


@dataclass(frozen=True)
class Tar:
    """A tar file and the SHA-256 of its content."""

    path: Input
    sha256: str


@dataclass
class Index:
    """Samples of tars that have both parts, and how many have not.

    Attributes:
        tars: sorted by name and content: neither their order in a list nor their folder matters.
        samples: of type ``SAMPLE``, in the order of the tars.
        num_samples: all that the tars hold.
        extensions: how often each occurs.
        skipped: samples that are left out, by reason.
        first: of each reason, the first sample.
    """

    tars: list[Tar]
    samples: np.ndarray
    num_samples: int = 0
    extensions: Counter[str] = field(default_factory=Counter)
    skipped: Counter[str] = field(default_factory=Counter)
    first: dict[str, str] = field(default_factory=dict)

    def skip(self, reason: str, where: str) -> None:
        """Count a sample that is left out."""
        self.skipped[reason] += 1
        self.first.setdefault(reason, printable(where)[:200])


def find_tars(paths: Sequence[str], copies: Copies | None = None) -> list[Input]:
    """Return every tar once: those of paths, of patterns and of folders (``*.tar``).

    Args:
        paths: on this machine or in object storage.
        copies: of objects, see ``pcl.storage.inputs``.

    Raises:
        BadInputError: there are none, or a path leads to nothing.
    """
    if not paths:
        raise BadInputError("no paths: data.webdataset.paths must list tar files, globs or folders of them")
    found: dict[str, Input] = {}
    for path in paths:
        tars = _tars_of(path, copies)
        if not tars:
            raise BadInputError(f"{printable(path)}: no tar file there; give tar files, patterns or folders of them")
        for one in tars:
            found.setdefault(one.same, one)
    return list(found.values())


def _tars_of(path: str, copies: Copies | None) -> list[Input]:
    found = expanded(path, copies)
    if found == [input_at(path, copies)] and found[0].is_folder:
        found = [one for one in found[0].entries() if one.name.endswith(".tar")]
    return [one for one in found if not one.is_folder]


def read_index(paths: Sequence[Input], parts: Sequence[Part], hash_key: bytes, progress: Progress) -> Index:
    """Return where the parts of the samples of tars lie, after one look at what the tars say of their files.

    Args:
        paths: of the tars.
        parts: u and v.
        hash_key: of the hash of the keys.
        progress: shows how far the look has come.

    Raises:
        DamagedDataError: a tar is none, or was cut off.
    """
    found = [_index_of(path, parts, hash_key) for path in progress(paths, "tar")]
    found.sort(key=lambda one: (one.tars[0].path.name, one.tars[0].sha256))
    whole = Index([tar for one in found for tar in one.tars], np.concatenate([one.samples for one in found]))
    whole.samples["tar"] = np.repeat(np.arange(len(found)), [len(one.samples) for one in found])
    for one in found:
        whole.num_samples += one.num_samples
        whole.extensions += one.extensions
        whole.skipped += one.skipped
        whole.first = one.first | whole.first
    return whole


def _index_of(path: Input, parts: Sequence[Part], hash_key: bytes) -> Index:
    """Return the index of one tar."""
    extensions = Counter[str]()
    with path.held() as file:
        members = _members(path, file, {part.extension for part in parts}, extensions)  # it may not be worth a hash
        index = Index([Tar(path, sha256(file))], np.zeros(len(members), SAMPLE), len(members), extensions)
    num_pairs = 0
    for key, places in members.items():
        if reason := _wrong(parts, places):
            index.skip(reason, f"{key} in {path.name}")
            continue
        at, size = zip(*(places[part.extension] for part in parts), strict=True)
        hashed = blake2b(key.encode(errors="surrogateescape"), digest_size=8, key=hash_key).digest()
        index.samples[num_pairs] = (0, at, size, int.from_bytes(hashed), *[(0, 0)] * 3)
        num_pairs += 1
    index.samples = index.samples[:num_pairs].copy()
    return index


Place = tuple[int, int] | str  # where a file begins and how long it is, or what is wrong with it


def _wrong(parts: Sequence[Part], places: dict[str, Place]) -> str:
    """Return why a sample is no pair; empty where it is one."""
    missing = [name for name, part in zip("uv", parts, strict=True) if part.extension not in places]
    if missing:
        return f"{' and '.join(missing)} {'is' if len(missing) == 1 else 'are'} missing"
    of_parts = zip("uv", (places[part.extension] for part in parts), strict=True)
    return next((f"{name} {place}" for name, place in of_parts if isinstance(place, str)), "")


def _members(path: Input, file: Path, wanted: set[str], extensions: Counter[str]) -> dict[str, dict[str, Place]]:
    """Return by key where those files of a tar lie that are wanted, by extension."""
    found: dict[str, dict[str, Place]] = {}
    try:
        with BoundedFile(file) as stream:
            for member in headers(stream):
                name = NAME.fullmatch(member.name)
                if name is None or member.isdir() or OF_THE_TAR.match(member.name):
                    continue
                extension, places = name[2].lower(), found.setdefault(name[1], {})
                if extension in extensions or len(extensions) < MOST_EXTENSIONS:
                    extensions[extension] += 1
                if extension in wanted:
                    is_plain = member.isreg() and not member.issparse()
                    place: Place = (member.offset_data, member.size) if is_plain else NOT_PLAIN
                    places[extension] = place if extension not in places else TWICE
    except Exception as error:  # of a tar that somebody else made anything may be raised
        raise _unreadable(path, error) from error
    return found


def _unreadable(path: Input, error: Exception) -> Exception:
    shown = printable(path)
    if isinstance(error, PermissionError | FileNotFoundError):
        return BadInputError(f"{shown} cannot be read ({error.strerror}): give a file that can")
    with contextlib.suppress(OSError):
        begin = path.read(0, max(map(len, COMPRESSED)))
        if any(begin.startswith(magic) for magic in COMPRESSED):
            return BadInputError(f"{shown} is compressed, and its samples are read in any order: unpack it to a .tar")
    return DamagedDataError(
        f"{shown} is no tar, or was cut off or damaged ({printable(error)[:100]}): fetch or write it again"
    )
