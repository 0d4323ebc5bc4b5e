"""What draws are given: a label, an item of a run's pairs or of a file, or a text, as shards of the run hold such."""

__all__ = ["Query", "query_of"]

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pcl.config.load import Config
from pcl.config.schema import GivenConfig
from pcl.config.values import short
from pcl.data.manifest import Manifest
from pcl.errors import BadInputError, printable
from pcl.evaluation.splits import read_arrays
from pcl.problems.arrays.reading.address import find
from pcl.problems.arrays.reading.opening import open_array
from pcl.problems.problem import problem
from pcl.problems.webdataset.images import decoded_image
from pcl.storage.place import absolute

IMAGES = (".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".ppm", ".pgm")
MOST_BYTES = 1 << 28  # of an image
MEGABYTE = 1e6
AUTO = "auto"


@dataclass(frozen=True)
class Query:
    """What draws are given.

    Attributes:
        name: of the modality that is given, ``u`` or ``v``.
        item: as stored, shape (1, ...).
        called: what it is, in a few words.
        about: what is kept with the draws.
        pair: number in ``given.split`` of the pair that it belongs to, or None.
    """

    name: str
    item: Tensor
    called: str
    about: dict[str, Any]
    pair: int | None = None

    @property
    def predicted(self) -> str:
        """The name of the modality that is drawn."""
        return "v" if self.name == "u" else "u"

    @property
    def direction(self) -> str:
        """The direction of the conditional."""
        return f"{self.predicted}_given_{self.name}"


@dataclass(frozen=True)
class _Run:
    config: Config
    manifest: Manifest

    @property
    def given(self) -> GivenConfig:
        return self.config.given

    @property
    def forms(self) -> dict[str, str]:
        """The forms of u and v."""
        return dict(zip("uv", problem(self.config.data.source).forms(self.manifest), strict=True))

    @property
    def told(self) -> str:
        """The modality that is given as ``draw.direction`` tells, empty where it does not."""
        return "" if self.config.draw.direction == AUTO else self.config.draw.direction[-1]

    def modality(self, key: str, what: str, fits: Callable[[str], bool]) -> str:
        """Return the modality that something is an item of.

        Raises:
            BadInputError: none is, or both are and ``draw.direction`` does not tell, or it tells the other one.
        """
        found = [name for name in "uv" if fits(name)]
        described = " and ".join(f"{name} is {self.described(name)}" for name in "uv")
        if not found:
            raise BadInputError(f"{key}: neither u nor v of this run are {what}: {described}")
        if self.told and self.told not in found:
            raise BadInputError(
                f"{key}: with draw.direction={self.config.draw.direction} {self.told} is given, which is "
                f"{self.described(self.told)}, not {what}: leave draw.direction out"
            )
        if len(found) == 2 and not self.told:
            raise BadInputError(
                f"{key}: both u and v of this run are {what}: give draw.direction=u_given_v, if it is a v, or "
                "draw.direction=v_given_u"
            )
        return self.told or found[0]

    def described(self, name: str) -> str:
        """Return what a modality is."""
        info = self.manifest.arrays[name]
        return f"{self.forms[name]}, {info.dtype}{list(info.shape)}"


def query_of(config: Config, manifest: Manifest) -> Query:
    """Return what a configuration gives.

    Raises:
        BadInputError: it gives nothing, more than one thing, or what is no item of this run.
        DamagedDataError: a file or a shard is damaged.
    """
    run, given = _Run(config, manifest), config.given
    asked = {
        "label": given.label is not None,
        "item": given.item is not None,
        "file": bool(given.file),
        "text": bool(given.text),
    }
    if sum(asked.values()) != 1:
        found = " and ".join(f"given.{name}" for name, is_asked in asked.items() if is_asked) or "nothing is given"
        raise BadInputError(f"{found}: give one of given.label=7, given.item=0, given.file=x.npy and given.text='...'")
    if given.row is not None and not given.file:
        raise BadInputError(f"given.row={given.row}: it is a row of given.file, give that too")
    return next(make for name, make in MAKE.items() if asked[name])(run)


def _label(run: _Run) -> Query:
    label, key = run.given.label, f"given.label={run.given.label}"
    name = run.modality(key, "labels", lambda one: "counts" in run.manifest.statistics[one])
    number = len(run.manifest.statistics[name]["counts"])
    if label is None or label >= number:
        raise BadInputError(f"{key}: the labels of this run are 0 to {number - 1}")
    dtype = getattr(torch, run.manifest.arrays[name].dtype)
    return Query(name, torch.tensor([label], dtype=dtype), f"label {label}", {"label": label})


def _item(run: _Run) -> Query:
    pair, split, name = run.given.item, run.given.split, run.told or "v"
    number = run.manifest.num_pairs(split)
    if pair is None or pair >= number:
        raise BadInputError(f"given.item={pair}: the {split} split has {number:,} pairs, from 0 on")
    root = run.config.shard_root
    item = read_arrays(root, run.manifest, split, {name: torch.tensor([pair])})[name]
    return Query(name, item, f"{name} of {split} pair {pair}", {"split": split, "item": pair}, pair)


def _text(run: _Run) -> Query:
    text, key = run.given.text, f"given.text={printable(short(run.given.text))}"
    name = run.modality(key, "texts", lambda one: run.forms[one] == "text")
    return Query(name, _read(run, key, name, text.encode()), f"the text {printable(short(text))!r}", {"text": text})


def _file(run: _Run) -> Query:
    address, key = run.given.file, f"given.file={printable(short(run.given.file))}"
    if Path(address).suffix.lower() in IMAGES:
        return _image(run, key, absolute(address))
    name, item, row = _row(run, key)
    called = f"{Path(address).name}" + ("" if row is None else f", row {row}")
    return Query(name, item, printable(called), {"file": str(find(address).path), "row": row})


def _image(run: _Run, key: str, path: Path) -> Query:
    if run.given.row is not None:
        raise BadInputError(f"given.row={run.given.row}: {printable(path)} is one image, leave given.row out")
    if not path.is_file() or path.stat().st_size > MOST_BYTES:
        raise BadInputError(f"{key}: there is no such file, or it has more than {MOST_BYTES:,} bytes")
    name = run.modality(key, "images", lambda one: run.forms[one] == "image")
    return Query(name, _read(run, key, name, path.read_bytes()), printable(path.name), {"file": str(path), "row": None})


def _row(run: _Run, key: str) -> tuple[str, Tensor, int | None]:
    """Return the modality, the item (1, ...), and the number of its row in a file; None where the file is the item."""
    given, arrays = run.given, run.manifest.arrays
    sample_dim = run.config.data.sections["arrays"].sample_dim
    stored = open_array(given.file, sample_dim, most_bytes=run.config.build.memory_mb * MEGABYTE)
    wholes = [name for name in "uv" if stored.shape == arrays[name].shape] if given.row is None else []
    if wholes:
        name = run.modality(key, f"of shape {stored.shape}", lambda one: one in wholes)
        return name, _tensor(key, stored.load(0, stored.shape[0]).reshape(1, *stored.shape)), None
    shape = stored.shape[1:]
    name = run.modality(key, f"of shape {shape}, as its rows are", lambda one: arrays[one].shape == shape)
    row = 0 if given.row is None and stored.shape[0] == 1 else given.row
    if row is None or row >= stored.shape[0]:
        asked = "" if row is None else f" and no row {row}"
        raise BadInputError(f"{key} has {stored.shape[0]:,} rows{asked}: give given.row, from 0 on")
    first = int(np.searchsorted(stored.edges, row, "right")) - 1
    start, stop = stored.edges[first : first + 2].tolist()
    block = stored.load(start, stop)
    return name, _tensor(key, np.asarray(block[row - start])[None]), row


def _tensor(key: str, array: np.ndarray) -> Tensor:
    if array.dtype.kind not in "biuf" or array.dtype.itemsize > 8:
        raise BadInputError(f"{key} holds {array.dtype}: needed are numbers")
    return torch.from_numpy(np.array(array, array.dtype.newbyteorder("="), order="C"))


def _read(run: _Run, key: str, name: str, content: bytes) -> Tensor:
    """Return the stored item (1, ...) that the content of a file, or a text, is."""
    kind, info = problem(run.config.data.source), run.manifest.arrays[name]
    try:
        if kind.read_item is not None:
            array = kind.read_item(run.config.data.sections[kind.name], name, content)
        elif run.forms[name] == "text":
            array = _bytes_of_text(content, info.shape, info.dtype)
        else:
            array = _pixels(content, info.shape, info.dtype)
    except BadInputError:
        raise
    except ValueError as error:
        raise BadInputError(f"{key} {printable(error)}: give another") from error
    return torch.from_numpy(np.array(array, order="C"))[None]


def _bytes_of_text(content: bytes, shape: tuple[int, ...], dtype: str) -> np.ndarray:
    """Return a text as bytes of UTF-8, cut between two characters, with zeros after its end."""
    if dtype != "uint8":
        raise BadInputError("given.text: texts of this run are tokens: give given.file=tokens.npy, tokens of one text")
    kept = content[: shape[0]].decode(errors="ignore").encode()
    return np.frombuffer(kept.ljust(shape[0], b"\0"), np.uint8)


def _pixels(content: bytes, shape: tuple[int, ...], dtype: str) -> np.ndarray:
    """Return an image, cut around its centre, in the shape of stored ones; those of floats go from 0 to 1."""
    channels = shape[0] if len(shape) == 3 else 0
    if channels not in (0, 1, 3):
        raise BadInputError(f"given.file: images of this run have {channels} channels: give an array, x.npy")
    mode = "RGB" if channels == 3 else "L"
    pixels = decoded_image(content, (shape[-2], shape[-1]), mode, "crop").reshape(shape)
    return pixels if dtype == "uint8" else (pixels / 255).astype(dtype)


MAKE = {"label": _label, "item": _item, "file": _file, "text": _text}
