"""Labelled items of a fine-tuning: those of shards, of arrays, or the run's own."""

__all__ = ["Given", "given_labels"]

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pcl.config.load import Config
from pcl.data.manifest import SPLITS, Manifest, load_manifest, manifest_sha256
from pcl.data.source import silently
from pcl.errors import BadInputError, printable
from pcl.evaluation.splits import read_arrays
from pcl.problems.arrays.content import content_of_file
from pcl.problems.arrays.forms import items_of
from pcl.problems.arrays.reading.address import find
from pcl.problems.arrays.reading.opening import open_array, read_whole
from pcl.problems.arrays.source import ArraysSource
from pcl.problems.arrays.splits import TEST, TRAIN, random_split
from pcl.problems.problem import problem
from pcl.storage.place import Place
from pcl.train.parts import make_source
from pcl.train.trained import TrainedModel

MEGABYTE = 1e6

Read = Callable[[str, Tensor], Tensor]
Values = dict[str, np.ndarray]


@dataclass(frozen=True)
class Given:
    """Labels of both splits and how their u are read.

    Attributes:
        read: returns stored u of a split by increasing indices.
        values: of the label of every item by split, a row each: numbers (N,), texts (N,) or stored texts (N, T).
        are_v: whether labels are what the run calls v.
        are_of_run: whether items are those of the run, in its splits.
        about: what is kept with the results: where the labels are from.
        name: of the folder of the results, unless another one is asked for.
    """

    read: Read
    values: Mapping[str, np.ndarray]
    are_v: bool
    are_of_run: bool
    about: dict[str, Any]
    name: str


def given_labels(config: Config, manifest: Manifest, model: TrainedModel) -> Given:
    """Return the labels that a configuration names.

    Args:
        config: with the section ``finetune``.
        manifest: of the run's own shards.
        model: of the run.

    Raises:
        BadInputError: there are none, or they do not fit the run.
        DamagedDataError: a file cannot be read.
    """
    chosen, root = config.finetune, config.shard_root
    if chosen.shards and (chosen.u or chosen.labels):
        raise BadInputError("finetune.shards hold u and labels: leave finetune.u and finetune.labels out, or shards")
    if chosen.u and not chosen.labels:
        raise BadInputError("finetune.u has no labels: give finetune.labels, a label for each row")
    if chosen.shards:
        return _of_shards(config.shards_at(chosen.shards), config, manifest, model)
    if chosen.labels:
        return _of_arrays(chosen.labels, config, manifest, model)
    if (form := _forms(manifest)[1]) != "labels":
        raise BadInputError(
            f"v of the run are no labels but of the form {form}: give finetune.labels=labels.npy, a label for each of "
            "its pairs, or finetune.shards=... with labels or texts as v"
        )
    return Given(_reader(root, manifest), _values(root, manifest), True, True, {"labels": "v of the run"}, "own")


def _of_shards(root: Place, config: Config, manifest: Manifest, model: TrainedModel) -> Given:
    """Return the pairs of a folder of shards whose v are labels, or texts."""
    found = load_manifest(root)
    _check_u(f"u of {root}", found.arrays["u"].shape, found.arrays["u"].dtype, model)
    form, info, of_run = _forms(found)[1], found.arrays["v"], manifest.arrays["v"]
    if form not in ("labels", "text") and (form != "numbers" or info.shape):
        raise BadInputError(
            f"v of {root} are of the form {form} and shape {info.shape}: give shards whose v are labels or texts"
        )
    are_alike = (info.shape, info.dtype) == (of_run.shape, of_run.dtype)
    if config.finetune.are_v and not are_alike:
        raise BadInputError(
            f"finetune.are_v=true: v of {root} are {info.dtype}{list(info.shape)}, those of the run "
            f"{of_run.dtype}{list(of_run.shape)}: make them alike, or leave finetune.are_v out"
        )
    are_texts = are_alike and form == _forms(manifest)[1] == "text"
    are_v = are_texts if config.finetune.are_v is None else config.finetune.are_v
    about = {"labels": str(root), "labels_manifest_sha256": manifest_sha256(root)}
    return Given(_reader(root, found), _values(root, found), are_v, False, about, root.name)


def _of_arrays(address: str, config: Config, manifest: Manifest, model: TrainedModel) -> Given:
    """Return labels of an array, with u of another one or of the run's own pairs."""
    labels, found = _labels(address, config), find(address)
    about = {"labels": found.label, "labels_sha256": content_of_file(found, silently)["sha256"]}
    if config.finetune.u:
        of_u = find(config.finetune.u)
        about |= {"u": of_u.label, "u_sha256": content_of_file(of_u, silently)["sha256"]}
        values, read = _beside(labels, config.finetune.u, config, manifest, model)
    else:
        values, read = _aligned(labels, config, manifest), _reader(config.shard_root, manifest)
    are_v, are_of_run = bool(config.finetune.are_v), not config.finetune.u
    return Given(read, values, are_v, are_of_run, about, found.name or found.path.stem)


def _forms(manifest: Manifest) -> tuple[str, str]:
    return problem(manifest.source["name"]).forms(manifest)


def _reader(root: Place, manifest: Manifest) -> Read:
    def read(split: str, indices: Tensor) -> Tensor:
        return read_arrays(root, manifest, split, {"u": indices})["u"]

    return read


def _values(root: Place, manifest: Manifest) -> Values:
    return {
        split: read_arrays(root, manifest, split, {"v": torch.arange(manifest.num_pairs(split))})["v"].numpy()
        for split in SPLITS
    }


def _labels(address: str, config: Config) -> np.ndarray:
    """Return an array of labels, whole numbers or texts."""
    dim = config.data.sections["arrays"].sample_dim
    found = read_whole(address, dim, most_bytes=config.build.memory_mb * MEGABYTE)
    if found.dtype.kind in "OT" and all(isinstance(one, str) for one in found.flat):
        found = found.astype(np.str_)
    if found.dtype.kind == "S":
        found = np.char.decode(found, "utf-8", "replace")
    if found.ndim != 1 or found.dtype.kind not in "biuU":
        raise BadInputError(
            f"finetune.labels={printable(address)}: it holds {found.dtype} of shape {found.shape}, and labels are "
            "whole numbers or texts of shape (n,)"
        )
    return found.astype(np.int64) if found.dtype.kind in "biu" else found


def _aligned(labels: np.ndarray, config: Config, manifest: Manifest) -> Values:
    """Return labels of the run's own pairs by split: in the order of the rows of arrays, else in that of the shards."""
    sizes = {split: manifest.num_pairs(split) for split in SPLITS}
    number, what = sum(sizes.values()), "pairs of the run, those of training first, in the order of the shards"
    rows = {"train": np.arange(sizes["train"]), "test": np.arange(sizes["train"], number)}
    source = make_source(config) if config.data.source == "arrays" else None
    if isinstance(source, ArraysSource):
        if source.provenance()["files"] != manifest.source["files"]:
            raise BadInputError(
                f"the files of data.arrays are not those of {config.data.shards}: give data.arrays.u and v as they were"
            )
        number, what, rows = len(source.items["u"]), "rows of data.arrays.u", source.rows
    if len(labels) != number:
        raise BadInputError(
            f"finetune.labels has {len(labels):,} labels and there are {number:,} {what}: give a label for each"
        )
    return {split: labels[rows[split]] for split in SPLITS}


def _beside(
    labels: np.ndarray, address: str, config: Config, manifest: Manifest, model: TrainedModel
) -> tuple[Values, Read]:
    """Return labels of an array of other u by split, and what reads these."""
    dim, form = config.data.sections["arrays"].sample_dim, _forms(manifest)[0]
    most_bytes = config.build.memory_mb * MEGABYTE
    items = items_of(open_array(address, dim, is_raw=form in ("labels", "text"), most_bytes=most_bytes), form)
    if len(items) != len(labels):
        raise BadInputError(
            f"finetune.u has {len(items):,} rows and finetune.labels {len(labels):,}: row i of both is an item"
        )
    _check_u(f"finetune.u={printable(address)}", items.shape, str(items.dtype), model)
    split = random_split(len(labels), config.finetune.test_fraction, config.data.seed)
    rows = {"train": np.flatnonzero(split == TRAIN), "test": np.flatnonzero(split == TEST)}
    takes_missing = bool(getattr(getattr(model.encoder_u, "items", None), "may_be_missing", False))

    def read(split: str, indices: Tensor) -> Tensor:
        found = torch.from_numpy(items.take(rows[split][indices.numpy()]))
        if found.is_floating_point() and not takes_missing and not found.isfinite().all():
            raise BadInputError(
                f"finetune.u={printable(address)} holds NaN or infinite numbers: leave those rows and their labels out"
            )
        return found

    return {split: labels[rows[split]] for split in SPLITS}, read


def _check_u(what: str, shape: tuple[int, ...], dtype: str, model: TrainedModel) -> None:
    """Refuse items that are not as the encoder of u takes them."""
    spec = model.spec["encoder_u"]
    takes = tuple(spec["shape"]), spec.get("dtype") or dtype
    if (shape, dtype) != takes:
        raise BadInputError(
            f"{what}: these are {dtype} of shape {shape}, and the encoder of u of the run takes {takes[1]} of shape "
            f"{takes[0]}: give such items as it was trained on"
        )
