"""Pairs of two arrays in memory."""

__all__ = ["MemoryPairs"]

from typing import Any

import numpy as np

from pcl.errors import BadInputError
from pcl.problems.arrays.content import content_of_array
from pcl.problems.arrays.coordinates import check_aligned, check_in_order, of_memory
from pcl.problems.arrays.reading.stored import Held
from pcl.problems.arrays.settings import ArraysSettings
from pcl.problems.arrays.source import ArraysSource
from pcl.settings import check_settings


class MemoryPairs(ArraysSource):
    """Pairs (u[i], v[i]) of two arrays in memory.

    Args:
        u: items u, numbers of any kind, shape (n, ...); tables of pandas and arrays of xarray with coordinates must
            agree in them.
        v: items v, shape (n, ...).
        form_u: what u are: ``numbers``, ``image``, ``labels`` or ``text``.
        form_v: what v are.
        split: ``random``, ``group``, ``order`` or ``given``.
        test_fraction: share of the pairs that is held out.
        gap: pairs between training and test that are left out, of ``order``.
        seed: of a random split.
        groups: the group of every pair, shape (n,).
        given: the split of every pair, 0 or ``train``, 1 or ``test``, shape (n,).
        missing: pairs with NaN are refused (``refuse``) or left out (``mask``).
        name: of the kind of pairs.

    Raises:
        BadInputError: see ``ArraysSource``.

    Example:
        >>> pairs = MemoryPairs(np.arange(20.0), np.arange(20) % 2, form_v="labels", test_fraction=0.2)
        >>> pairs.num_pairs("train"), pairs.num_pairs("test"), pairs.statistics()["v"]
        (16, 4, {'counts': [7, 9]})
    """

    def __init__(
        self,
        u: Any,
        v: Any,
        *,
        form_u: str = "numbers",
        form_v: str = "numbers",
        split: str = "random",
        test_fraction: float = 0.1,
        gap: int = 0,
        seed: int = 0,
        groups: Any = None,
        given: Any = None,
        missing: str = "refuse",
        name: str = "arrays",
    ) -> None:
        settings = ArraysSettings(
            form_u=form_u, form_v=form_v, split=split, test_fraction=test_fraction, gap=gap, missing=missing
        )
        check_settings(settings)
        all_given = {"u": u, "v": v, "groups": groups, "given": given}
        found = [one for name, array in all_given.items() if (one := of_memory(name, array)) is not None]
        check_aligned(found, "pair them by position as arrays: u.to_numpy(), v.to_numpy()")
        check_in_order(found if split == "order" else (), "take their order as it is: u.to_numpy(), v.to_numpy()")
        held = {name: _array(name, one) for name, one in all_given.items()}
        hashed = (name for name, one in held.items() if one is not None and not one.dtype.hasobject)
        super().__init__(
            Held.of("u", held["u"]),
            Held.of("v", held["v"]),
            settings,
            seed,
            files={name: content_of_array(held[name]) for name in hashed},
            name=name,
            groups=held["groups"],
            given=held["given"],
        )


def _array(name: str, values: Any) -> Any:
    """Return what a person gives as an array; what is masked in it is NaN."""
    if values is None:
        return None
    try:
        if isinstance(values, np.ma.MaskedArray):
            return np.ma.filled(values.astype(np.float64), np.nan) if np.ma.is_masked(values) else values.data
        return np.asarray(values)
    except (TypeError, ValueError) as error:
        reason = " ".join(str(error).split())[:100]
        raise BadInputError(f"{name} is no array ({reason}): give numbers, items of one shape") from error
