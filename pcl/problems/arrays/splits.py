"""Splits of pairs into training and test, chosen by their numbers, groups or order, never by their values.

Shapes: n pairs.
"""

__all__ = ["NEITHER", "TEST", "TRAIN", "by_group", "by_order", "describe_split", "divide", "random_split", "stated"]

import numpy as np

from pcl.errors import BadInputError, printable
from pcl.problems.arrays.settings import ArraysSettings

TRAIN, TEST, NEITHER = 0, 1, 2
STREAM = 3  # of random numbers, beside those of pcl.data
STATED = {"0": TRAIN, "1": TEST, "False": TRAIN, "True": TEST, "train": TRAIN, "test": TEST, "0.0": TRAIN, "1.0": TEST}


def random_split(num_pairs: int, fraction: float, seed: int) -> np.ndarray:
    """Random split without replacement: the split of every pair, shape (n,).

    Args:
        num_pairs: n.
        fraction: of the pairs for the test.
        seed: of the choice.

    Example:
        >>> np.bincount(random_split(100, 0.1, seed=0)).tolist()
        [90, 10]
    """
    chosen = np.random.default_rng([seed, STREAM]).permutation(num_pairs)[: round(num_pairs * fraction)]
    split = np.full(num_pairs, TRAIN, np.uint8)
    split[chosen] = TEST
    return split


def by_group(groups: np.ndarray, fraction: float, seed: int) -> np.ndarray:
    """Group split (grouped hold-out), no group on both sides: the split of every pair, shape (n,).

    Groups come in random order, and each is taken for the test that still fits the fraction; at least one, the
    smallest, is taken.

    Args:
        groups: the group of every pair, numbers or texts, shape (n,).
        fraction: of the pairs for the test.
        seed: of the order.

    Raises:
        BadInputError: there are fewer than two groups.

    Example:
        >>> by_group(np.array(["a", "a", "b", "c", "c"]), 0.4, seed=1).tolist()
        [1, 1, 0, 0, 0]
    """
    found, number, sizes = np.unique(groups, return_inverse=True, return_counts=True)
    if len(found) < 2:
        raise BadInputError(
            "split=group and all pairs are of one group: give groups with at least two, or split=random"
        )
    target, taken, total = round(len(groups) * fraction), list[int](), 0
    for group in np.random.default_rng([seed, STREAM]).permutation(len(found)).tolist():
        if total + sizes[group] <= target:
            taken, total = [*taken, group], total + int(sizes[group])
    is_test = np.isin(number, taken or [int(np.argmin(sizes))])
    return np.where(is_test, TEST, TRAIN).astype(np.uint8)


def by_order(num_pairs: int, fraction: float, gap: int) -> np.ndarray:
    """Ordered split with a gap, of pairs in the order of time: the split of every pair, shape (n,).

    Args:
        num_pairs: n.
        fraction: of the pairs, the last ones, for the test.
        gap: pairs before them that belong to neither.

    Example:
        >>> by_order(10, 0.3, gap=2).tolist()
        [0, 0, 0, 0, 0, 2, 2, 1, 1, 1]
    """
    first = num_pairs - round(num_pairs * fraction)
    split = np.full(num_pairs, TRAIN, np.uint8)
    split[max(0, first - gap) : first] = NEITHER
    split[first:] = TEST
    return split


def stated(given: np.ndarray) -> np.ndarray:
    """Split as an array says, 0 or ``train`` and 1 or ``test``: the split of every pair, shape (n,).

    Raises:
        BadInputError: it says something else.

    Example:
        >>> stated(np.array(["train", "test"])).tolist(), stated(np.array([False, True])).tolist()
        ([0, 1], [0, 1])
    """
    found, number = np.unique(given, return_inverse=True)
    names = [str(one) for one in found]
    if strange := [name for name in names if name not in STATED]:
        raise BadInputError(
            f"split=given and a pair is said to be in {printable(strange[0])[:50]!r}: give 0 or train, and 1 or test"
        )
    split: np.ndarray = np.array([STATED[name] for name in names], np.uint8)[number]
    return split


def divide(
    settings: ArraysSettings, num_pairs: int, seed: int, groups: np.ndarray | None, given: np.ndarray | None
) -> np.ndarray:
    """Return the split of every pair, shape (n,).

    Args:
        settings: of the split.
        num_pairs: n.
        seed: of a random choice.
        groups: the group of every pair, shape (n,).
        given: the split of every pair, shape (n,).

    Raises:
        BadInputError: what a split needs is not given, what is given is not needed, or it has another length.
    """
    groups, given = (None if one is None else _as_texts(one) for one in (groups, given))
    for name, rule, array in (("groups", "group", groups), ("given", "given", given)):
        if (array is None) == (settings.split == rule):
            what = f"needs {name}" if array is None else f"does not use {name}"
            raise BadInputError(f"split={settings.split} {what}: give both {name} and split={rule}, or neither")
    for name, array in (("groups", groups), ("given", given)):
        if array is not None:
            _check(name, array, num_pairs)
    if settings.gap and settings.split != "order":
        raise BadInputError(f"gap={settings.gap} and split={settings.split}: only split=order leaves a gap")
    if groups is not None:
        return by_group(groups, settings.test_fraction, seed)
    if given is not None:
        return stated(given)
    if settings.split == "order":
        return by_order(num_pairs, settings.test_fraction, settings.gap)
    return random_split(num_pairs, settings.test_fraction, seed)


def _as_texts(array: np.ndarray) -> np.ndarray:
    """Return Python's texts as those of numpy."""
    is_text = array.dtype.kind in "OT" and all(isinstance(one, str) for one in array.flat)
    return array.astype(np.str_) if is_text else array


def _check(name: str, array: np.ndarray, num_pairs: int) -> None:
    if array.shape != (num_pairs,):
        raise BadInputError(
            f"{name} has shape {array.shape} and there are {num_pairs:,} pairs: give one value for each"
        )
    if array.dtype.kind not in "biufUS" or (array.dtype.kind == "f" and np.isnan(array).any()):
        lack = "lacks values, or holds objects" if array.dtype.kind in "fO" else f"holds {array.dtype}"
        raise BadInputError(f"{name} {lack}: give a number or a text for every pair")


def describe_split(settings: ArraysSettings, seed: int) -> str:
    """Return how pairs were divided, a phrase.

    Example:
        >>> describe_split(ArraysSettings(split="order", gap=24), seed=0)
        'by order: the last 0.1 of the pairs are for the test, 24 before them belong to neither'
    """
    share = f"{settings.test_fraction:g} of the pairs"
    return {
        "random": f"at random: {share} are for the test, seed {seed}",
        "group": f"by group: no group on both sides, {share} at most are for the test, seed {seed}",
        "order": f"by order: the last {share} are for the test, {settings.gap} before them belong to neither",
        "given": "as was given",
    }[settings.split]
