"""Problems: what a kind of pairs gives, so that whatever is general needs to know none by name."""

__all__ = ["PROBLEMS", "Problem", "problem", "register"]

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor

from pcl.data.augmentation import Symmetry
from pcl.data.manifest import Manifest
from pcl.data.source import Source, SourceContext
from pcl.encoders.registry import EncoderKind, register_encoder
from pcl.errors import BadInputError, printable
from pcl.evaluation.drawing import Drawing, by_form
from pcl.evaluation.forms import forms_of
from pcl.evaluation.result import Evaluation
from pcl.evaluation.splits import Splits
from pcl.evaluation.told import TOLD
from pcl.model import PairModel
from pcl.objective import LossKind, register_loss
from pcl.settings import is_again

if TYPE_CHECKING:
    import xarray as xr


def drawn_by_form(splits: Splits) -> tuple[Drawing, Drawing]:
    """Drawings of u and v as their forms are drawn."""
    u, v = (by_form(form, items) for form, items in zip(forms_of(splits.manifest), splits.items, strict=True))
    return u, v


@dataclass(frozen=True)
class Problem:
    """A kind of pairs.

    Attributes:
        name: of the kind, in ``data.source`` and in manifests.
        settings: a dataclass of its settings (``pcl.settings``): the section ``data.<name>``.
        source: makes the source of its pairs from the settings and what else there is.
        encoders: those that make sense for these pairs only, by name.
        losses: likewise.
        evaluation: a dataclass of settings of what it adds to an evaluation: the section ``evaluation.<name>``.
        evaluate: adds to the general evaluation: metrics, tables, figures, datasets.
        forms: what u and v are to a general evaluation, of a manifest: ``numbers``, ``image``, ``labels`` or ``text``.
        drawings: how u and v are drawn.
        describe_needs: says, in lines, what an evaluation of a split and of so many pairs (0: all) will take.
        has_missing_values: whether items may hold NaN, so that only encoders that know them fit.
        read_item: makes an item of u or v, as the shards hold it, of the settings, ``"u"`` or ``"v"``, and the content
            of a file or a text in UTF-8; ValueError: what is wrong with it. None: as its form is read.
        stands_for: an array that describes a pair, and what tells, of those of other pairs (N, ...) and that of one
            (1, ...), whose items may stand for those of the one, (N,); None: those of all.
        symmetries: makes what ``data.augment.pairs`` may name, by name, of the source in a manifest.
        dataset: makes the dataset of drawn items, of the pairs that hold them, ``"u"`` or ``"v"``, the row of every
            draw among those pairs, and its weight; None: there is no format of its own.
        meaning: a sentence with the unit on each metric that it adds to an evaluation, empty of any other name.
        plugin: SHA-256 of the plugin that registers it, on which its shards depend.

    Example:
        >>> problem("mnist").name
        'mnist'
    """

    name: str
    settings: type
    source: Callable[[Any, SourceContext], Source]
    encoders: Mapping[str, EncoderKind] = field(default_factory=dict)
    losses: Mapping[str, LossKind] = field(default_factory=dict)
    evaluation: type | None = None
    evaluate: Callable[[Evaluation, PairModel, Splits], None] | None = None
    forms: Callable[[Manifest], tuple[str, str]] = forms_of
    drawings: Callable[[Splits], tuple[Drawing, Drawing]] = drawn_by_form
    describe_needs: Callable[[Manifest, str, int], list[str]] = lambda manifest, split, max_pairs: []
    has_missing_values: bool = False
    read_item: Callable[[Any, str, bytes], np.ndarray] | None = None
    stands_for: tuple[str, Callable[[Tensor, Tensor], Tensor]] | None = None
    symmetries: Callable[[Mapping[str, Any]], dict[str, Symmetry]] = lambda source: {}
    dataset: "Callable[[Splits, str, Tensor, Tensor], xr.Dataset] | None" = None
    meaning: Callable[[str], str] = lambda name: ""
    plugin: str = ""


PROBLEMS: dict[str, Problem] = {}
"""Kinds of pairs by name."""


def register(one: Problem) -> None:
    """Register a kind of pairs, its encoders and its losses, so that a configuration can name them.

    Raises:
        BadInputError: another kind, encoder or loss has the name.
    """
    if one.name in PROBLEMS and not is_again(PROBLEMS[one.name].source, one.source):
        raise BadInputError(f"two kinds of pairs are named {one.name!r}: give one another name")
    for name, kind in one.encoders.items():
        register_encoder(name, kind)
    for name, loss in one.losses.items():
        register_loss(name, loss)
    TOLD[one.name] = one.meaning
    PROBLEMS[one.name] = one


def problem(name: str) -> Problem:
    """Return a kind of pairs.

    Raises:
        BadInputError: no such kind is registered.
    """
    if name not in PROBLEMS:
        raise BadInputError(
            f"{printable(name)[:100]!r} is no kind of pairs that is known here: those are {', '.join(PROBLEMS)}"
        )
    return PROBLEMS[name]
