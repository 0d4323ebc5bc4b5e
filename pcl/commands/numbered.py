"""Labels of a fine-tuning as numbers of the distinct ones, checked before anything is learned."""

__all__ = ["numbered_labels"]

import difflib
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pcl.commands.labelled import Given
from pcl.config.load import Config
from pcl.config.schema import FinetuneConfig
from pcl.data.manifest import Manifest
from pcl.errors import BadInputError, printable
from pcl.evaluation.finetuning import LabelledItems
from pcl.evaluation.written import text_of

MOST_LABELS = 10_000
MOST_SHOWN = 8


def numbered_labels(given: Given, config: Config, manifest: Manifest) -> LabelledItems:
    """Return labels as numbers of the distinct ones, in increasing order, those of ``finetune.without`` left out.

    Args:
        given: the labels.
        config: with the section ``finetune``.
        manifest: of the run's own shards.

    Raises:
        BadInputError: there are fewer than are asked for, far too many different ones, or a label does not exist.
    """
    counts = manifest.statistics["v"].get("counts")
    atoms, found = np.unique(np.concatenate([*given.values.values()]), axis=0, return_inverse=True)
    found = found.reshape(-1)
    if len(atoms) > MOST_LABELS:
        raise BadInputError(f"there are {len(atoms):,} different labels: give labels of at most {MOST_LABELS:,} kinds")
    if given.are_v and counts is not None:  # in the order of the run, those that nobody has too
        _check_exist(atoms, len(counts))
        atoms, found = np.arange(len(counts)), atoms[found].astype(np.int64)
    names = [_name_of(atom) for atom in atoms]
    is_kept = _is_kept([*map(str, names)], config.finetune.without)
    numbers = np.where(is_kept, is_kept.cumsum() - 1, -1)[found]
    ends = np.cumsum([len(values) for values in given.values.values()])
    labels = dict(zip(given.values, map(torch.from_numpy, np.split(numbers, ends[:-1])), strict=True))
    kept = [name for name, one in zip(names, is_kept, strict=True) if one]
    stored = _as_v(atoms[is_kept], manifest) if given.are_v else None
    prior = None
    if stored is not None and counts is not None:
        prior = torch.tensor(counts, dtype=torch.float64)[stored.long()].clamp(min=1).log()
    _check_numbers(kept, labels, config.finetune)
    return LabelledItems(kept, labels, given.read, stored, prior)


def _name_of(atom: Any) -> Any:
    """Return a whole number as it is, and anything else as a text."""
    if isinstance(atom, np.ndarray) and atom.ndim:
        return text_of(torch.from_numpy(atom))
    return int(atom) if isinstance(atom, np.integer) else printable(atom)


def _is_kept(names: list[str], without: list[str]) -> np.ndarray:
    """Return which labels are not left out, as a mask."""
    for name in without:
        if name not in names:
            nearest = difflib.get_close_matches(name[:100], names, 1, 0.0)[0]
            raise BadInputError(
                f"finetune.without={printable(name)[:100]}: there is no such label, the nearest is {nearest}"
            )
    is_kept = np.array([name not in without for name in names])
    if len(names) < 2:
        raise BadInputError(f"every item has the label {printable(names[0])[:100]}: give labels of at least 2 kinds")
    if is_kept.sum() < 2:
        some = ", ".join(names[:MOST_SHOWN]) + (", ..." if len(names) > MOST_SHOWN else "")
        raise BadInputError(f"{int(is_kept.sum())} of the labels {some} is left: at least 2 can be told apart")
    return is_kept


def _check_exist(atoms: np.ndarray, num_labels: int) -> None:
    """Refuse numbers that are none of the labels of the run."""
    if atoms.dtype.kind in "iu" and not 0 <= int(atoms.min()) <= int(atoms.max()) < num_labels:
        wrong = int(atoms.min() if atoms.min() < 0 else atoms.max())
        raise BadInputError(
            f"there is a label {wrong}, and v of the run are labels 0 to {num_labels - 1}: mend it, or leave "
            "finetune.are_v out if these are other labels"
        )


def _as_v(atoms: np.ndarray, manifest: Manifest) -> Tensor:
    """Return labels as stored v of the run."""
    info = manifest.arrays["v"]
    if atoms.dtype.kind not in "biuf" or atoms.shape[1:] != info.shape:
        raise BadInputError(
            f"finetune.are_v=true: labels of type {atoms.dtype} are none of v of the run, {info.dtype}"
            f"{list(info.shape)}: leave finetune.are_v out, or give them as v of finetune.shards"
        )
    return torch.from_numpy(atoms.astype(info.dtype))


def _check_numbers(names: list[Any], labels: dict[str, Tensor], chosen: FinetuneConfig) -> None:
    """Refuse labels that are too few in training, and a test without any."""
    counts, in_test = (
        torch.bincount(labels[split][labels[split] >= 0], minlength=len(names)) for split in ("train", "test")
    )
    if not int(in_test.sum()):
        raise BadInputError("no test item has a label, so there is nothing to judge by: label test items too")
    least, asked = int(counts.argmin()), max(1, *chosen.per_label)
    if int(counts[least]) < asked:
        raise BadInputError(
            f"the label {names[least]} has {int(counts[least]):,} items in training and finetune.per_label="
            f"{chosen.per_label} asks for {asked:,}: ask for fewer, or leave that label out with finetune.without"
        )
