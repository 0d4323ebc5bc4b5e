"""What needs no learning, beside a learned model on the same pairs: the linear optimum and raw similarity.

Shapes: N pairs, F features, d components.
"""

__all__ = ["Baselines", "baselines_of"]

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import reduce
from operator import add

import torch
from torch import Tensor

from pcl.data.manifest import bytes_per_pair
from pcl.evaluation.blocks import num_at_once
from pcl.evaluation.forms import Vectors, may_lack_values
from pcl.evaluation.splits import Splits, read_arrays
from pcl.gaussian.regularised import LinearOptimum, Moments, principal_basis, regularised_plug_in

MOST_PAIRS, MOST_BYTES = 20_000, 256_000_000  # of the training split that are read
MOST_COMPONENTS = 20_000  # of a vector
MOST_DIRECT = 1024  # components whose covariance is taken; of more, their principal components
MOST_PRINCIPAL, BASIS_PAIRS = 768, 1500  # principal components that are kept, and pairs that they are computed from
BLOCK_BYTES = 32_000_000

Items = tuple[Tensor, Tensor]
Map = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Baselines:
    """Feature maps that need no learning, of the pairs that are judged.

    Attributes:
        features: of u and of v, shape (N, F) each, by name: ``linear`` and ``raw``, where there are such.
        titles: what tables call them, by name.
        labels: feature maps of all labels by the linear optimum, shape (K, F), where v are labels.
        notes: why there is no linear optimum, or of which pairs it is, a sentence.
    """

    features: dict[str, Items] = field(default_factory=dict)
    titles: dict[str, str] = field(default_factory=dict)
    labels: Tensor | None = None
    notes: tuple[str, ...] = ()


def baselines_of(splits: Splits, forms: tuple[str, str], embedding_dim: int) -> Baselines:
    """Return the linear optimum of rank E, and raw similarity where u and v are of one kind.

    Both are of the training split alone: of 20,000 pairs at most, evenly spread over it, of 256 MB at most.

    Args:
        splits: the pairs that are judged, and the way to the training split.
        forms: of u and v.
        embedding_dim: E.

    Raises:
        DamagedDataError: a shard differs from its manifest.
    """
    manifest = splits.manifest
    u, v = (
        Vectors(form, manifest.arrays[name], manifest.statistics[name]) for name, form in zip("uv", forms, strict=True)
    )
    try:
        for name, rule, items in zip("uv", (u, v), splits.items, strict=True):
            _check(name, rule, items)
        train = _training_pairs(splits)
        for name, rule, items in zip("uv", (u, v), train, strict=True):
            _check(name, rule, items)
        linear = _linear_optimum((u, v), train, embedding_dim)
    except _NoVectorsError as error:
        return Baselines(notes=(f"No linear optimum stands beside what is learned: {error}.",))
    number, of_all = len(train[0]), manifest.num_pairs("train")
    notes = (f"The linear optimum is that of {number:,} of {of_all:,} training pairs.",) if number < of_all else ()
    labels = linear.features_v(v(torch.arange(v.num_components))).float() if v.are_labels else None
    found = Baselines(labels=labels, notes=notes)
    maps: dict[str, tuple[Map, Map]] = {"linear": (linear.features_u, linear.features_v)}
    found.titles["linear"] = "linear optimum"
    if u.form == v.form in ("image", "numbers") and u.info.shape == v.info.shape and u.info.units == v.info.units:
        maps["raw"] = (_centred_cosine(u, train[0]), _centred_cosine(v, train[1]))
        found.titles["raw"] = "raw pixels" if u.form == "image" else "raw numbers"
    for name, (of_u, of_v) in maps.items():
        one, other = splits.items
        found.features[name] = _mapped(of_u, u, one), _mapped(of_v, v, other)
    return found


class _NoVectorsError(ValueError):
    """Items have no covariance: the message says which and why."""


def _check(name: str, rule: Vectors, items: Tensor) -> None:
    """Raise where items are not vectors of numbers that are all there."""
    if rule.num_components > MOST_COMPONENTS:
        raise _NoVectorsError(f"{name} has {rule.num_components:,} components, more than {MOST_COMPONENTS:,}")
    blocks = torch.split(items, num_at_once(items[:1].nbytes, BLOCK_BYTES))
    if may_lack_values(rule.info) or not all(bool(torch.isfinite(block).all()) for block in blocks):
        raise _NoVectorsError(f"values of {name} are missing")


def _training_pairs(splits: Splits) -> Items:
    """Return stored u and v of training pairs, evenly spread over the split."""
    infos = {name: splits.manifest.arrays[name] for name in "uv"}
    number = splits.manifest.num_pairs("train")
    kept = max(1, min(number, MOST_PAIRS, MOST_BYTES // bytes_per_pair(infos.values())))
    places = torch.arange(kept) * number // kept
    arrays = read_arrays(splits.root, splits.manifest, "train", dict.fromkeys(infos, places))
    return arrays["u"], arrays["v"]


def _blocks(rule: Vectors, items: Tensor) -> Iterator[Tensor]:
    for block in torch.split(items, num_at_once(8 * rule.num_components, BLOCK_BYTES)):
        yield rule(block).double()


def _mapped(map_of: Map, rule: Vectors, items: Tensor) -> Tensor:
    return torch.cat([map_of(block).float() for block in _blocks(rule, items)])


def _linear_optimum(rules: tuple[Vectors, Vectors], train: Items, rank: int) -> LinearOptimum:
    """Return the canonical pairs of training pairs, of principal components where there are very many."""
    bases: list[Tensor | None] = []
    for rule, items in zip(rules, train, strict=True):
        few = items[torch.arange(min(len(items), BASIS_PAIRS)) * len(items) // min(len(items), BASIS_PAIRS)]
        large = rule.num_components > MOST_DIRECT
        bases.append(principal_basis(torch.cat([*_blocks(rule, few)]), MOST_PRINCIPAL) if large else None)
    length = num_at_once(8 * max(rule.num_components for rule in rules), BLOCK_BYTES)
    blocks = zip(*(torch.split(items, length) for items in train), strict=True)

    def moments(block: Items) -> Moments:
        vectors = (rule(items).double() for rule, items in zip(rules, block, strict=True))
        u, v = (x if basis is None else x @ basis for x, basis in zip(vectors, bases, strict=True))
        return Moments.of(u, v)

    try:
        return regularised_plug_in(reduce(add, map(moments, blocks)), rank, bases=(bases[0], bases[1]))
    except ValueError as error:
        raise _NoVectorsError(str(error)) from error


def _centred_cosine(rule: Vectors, train: Tensor) -> Map:
    """Return the map to unit vectors without the mean of training items."""
    mean = torch.stack([block.sum(0) for block in _blocks(rule, train)]).sum(0) / len(train)
    return lambda vectors: torch.nn.functional.normalize(vectors - mean)
