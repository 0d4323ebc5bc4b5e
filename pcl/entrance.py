"""The entrance of the Python interface: what is given becomes a tensor that was checked, or one sentence.

Shapes: N items of one modality, of a shape that a rule names.
"""

__all__ = ["Items", "as_generator", "as_tensor", "checked_tensor", "in_kind"]

from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from typing import Any, Concatenate, ParamSpec, TypeVar

import numpy as np
import torch
from torch import Tensor

Shape = tuple[int | str, ...]
S = TypeVar("S")
P = ParamSpec("P")


def in_kind(
    method: Callable[Concatenate[S, Any, P], Tensor | tuple[Tensor, ...]],
) -> Callable[Concatenate[S, Any, P], Any]:
    """Decorator of a method of items or queries that answers in kind: with tensors for one, else with arrays of numpy.

    Example:
        >>> class Double:
        ...     @in_kind
        ...     def of(self, items):
        ...         return 2 * as_tensor("items", items)
        >>> Double().of([1.0, 1.0]), Double().of(torch.ones(2))
        (array([2., 2.]), tensor([2., 2.]))
    """

    @wraps(method)
    def answer(self: S, given: Any, /, *args: P.args, **kwargs: P.kwargs) -> Any:
        result = method(self, given, *args, **kwargs)
        if isinstance(given, Tensor):
            return result
        return tuple(map(_array, result)) if isinstance(result, tuple) else _array(result)

    return answer


def _array(result: Tensor) -> np.ndarray:
    found: np.ndarray = result.detach().cpu().numpy()
    return found


def as_generator(given: Any) -> torch.Generator:
    """Generator of random numbers: one of torch as it is, or that of a seed.

    Raises:
        ValueError: it is neither.

    Example:
        >>> torch.rand(1, generator=as_generator(3)) == torch.rand(1, generator=torch.Generator().manual_seed(3))
        tensor([True])
    """
    if isinstance(given, torch.Generator):
        return given
    if isinstance(given, int | np.integer) and not isinstance(given, bool):
        return torch.Generator().manual_seed(int(given))
    raise ValueError(
        f"generator of type {type(given).__name__}: give a seed such as 0, or torch.Generator().manual_seed(0)"
    )


def as_tensor(name: str, given: Any) -> Tensor:
    """Tensor of what a caller gave: a tensor as it is, or whatever numpy reads.

    Args:
        name: of the argument, for the sentence.
        given: numbers.

    Raises:
        ValueError: it is no array of numbers.

    Example:
        >>> as_tensor("values", np.arange(3)[::-1])
        tensor([2, 1, 0])
    """
    if isinstance(given, Tensor):
        return given
    try:
        array = np.asarray(given)
        # torch reads neither foreign byte orders nor negative strides, and warns of arrays that may not be written
        return torch.from_numpy(np.require(array, array.dtype.newbyteorder("="), ["C", "W"]))
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"{name} of type {type(given).__name__}: needed is an array of numbers; give a tensor or a numpy array"
        ) from error


def checked_tensor(
    name: str,
    given: Any,
    shape: Shape,
    like: Tensor | None = None,
    *,
    more_axes: bool = False,
    finite: bool = True,
    remedy: str = "",
) -> Tensor:
    """Tensor of what a caller gave, a tensor or whatever numpy reads, after a check of shape, dtype and values.

    Args:
        name: of the argument, for the sentence.
        given: numbers.
        shape: wanted; an axis of any length has a letter.
        like: gives the device and, with real numbers, the dtype; unchanged when None.
        more_axes: whether axes may follow those of ``shape``.
        finite: whether NaN and infinite values are refused.
        remedy: for another shape, where there is a better one than to reshape.

    Raises:
        ValueError: the numbers have another shape, are no real numbers, or are not finite.

    Example:
        >>> checked_tensor("queries", np.zeros((2, 3)), ("Q", 3), torch.zeros(1)).dtype
        torch.float32
        >>> checked_tensor("queries", np.zeros(3), ("Q", 3))
        Traceback (most recent call last):
        ValueError: queries of shape (3,): needed is (Q, 3); give a single one as x[None]
    """
    tensor = as_tensor(name, given)
    _check_shape(name, tuple(tensor.shape), shape, more_axes, remedy)
    if tensor.dtype == torch.bool or tensor.is_complex():
        raise ValueError(f"{name} of dtype {_dtype_name(tensor)}: needed are real numbers; convert them to float32")
    if like is not None:
        tensor = tensor.to(like)
    if finite and tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
        _refuse_values(name, tensor)
    return tensor


def _check_shape(name: str, found: tuple[int, ...], shape: Shape, more_axes: bool, remedy: str) -> None:
    def fits(numbers: tuple[int, ...]) -> bool:
        head = numbers[: len(shape)] if more_axes else numbers
        return len(head) == len(shape) and all(isinstance(w, str) or n == w for n, w in zip(head, shape, strict=True))

    if fits(found):
        return
    wanted = ", ".join(map(str, shape)) + (", ..." if more_axes else "," if len(shape) == 1 else "")
    remedy = "give a single one as x[None]" if not more_axes and fits((1, *found)) else remedy
    raise ValueError(
        f"{name} of shape {found}: needed is ({wanted}); {remedy or 'reshape or choose what belongs there'}"
    )


def _refuse_values(name: str, tensor: Tensor) -> None:
    wrong = (~torch.isfinite(tensor)).flatten(1).any(1) if tensor.ndim > 1 else ~torch.isfinite(tensor)
    raise ValueError(
        f"{name} are not finite, first in number {int(wrong.nonzero()[0])} of {len(tensor)}: leave out or mend those "
        "with NaN or infinite values"
    )


def _dtype_name(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")


@dataclass(frozen=True)
class Items:
    """Items of one modality as an encoder takes them: as they are stored.

    Attributes:
        shape: of one item.
        dtype: stored; None: any numbers.
        scale_factor: physical units per stored unit.
        num_labels: K, where the items are labels 0 .. K - 1.
        may_be_missing: whether NaN marks missing values.

    Example:
        >>> Items((28, 28), "uint8", 1 / 255).checked("u", torch.rand(2, 28, 28))
        Traceback (most recent call last):
        ValueError: u of dtype float32: needed is uint8, as stored; multiply physical values by 255, round and convert
    """

    shape: tuple[int, ...]
    dtype: str | None = None
    scale_factor: float = 1.0
    num_labels: int | None = None
    may_be_missing: bool = False

    def checked(self, name: str, given: Any, like: Tensor | None = None) -> Tensor:
        """Return items (N, *shape) that were checked, on the device of another tensor.

        Raises:
            ValueError: they have another shape, are not as stored, are not finite, or are no labels.
        """
        items = as_tensor(name, given)
        items = items if like is None else items.to(like.device)
        if self.dtype == "bool" and items.dtype == torch.bool:
            items = items.to(torch.uint8)
        if self.num_labels is not None or (self.dtype is not None and np.dtype(self.dtype).kind in "iub"):
            self._check_integers(name, items)
        items = checked_tensor(name, items, ("N", *self.shape), finite=not self.may_be_missing)
        if self.may_be_missing and items.is_floating_point() and bool(torch.isinf(items).any()):
            raise ValueError(f"{name} hold infinite values: needed are finite numbers, NaN where a value is missing")
        return items

    def _check_integers(self, name: str, items: Tensor) -> None:
        if self.num_labels is not None:
            low, high, what, remedy = 0, self.num_labels - 1, "integer labels", "convert whole numbers with .long()"
        else:
            limits = np.iinfo(np.dtype(self.dtype if self.dtype != "bool" else "uint8"))
            low, high = (0, 1) if self.dtype == "bool" else (int(limits.min), int(limits.max))
            what = f"{self.dtype}, as stored"
            unit = "" if self.scale_factor == 1 else f"multiply physical values by {1 / self.scale_factor:g}, "
            remedy = f"{unit}round and convert"
        if items.dtype == torch.bool or items.is_floating_point() or items.is_complex():
            raise ValueError(f"{name} of dtype {_dtype_name(items)}: needed is {what}; {remedy}")
        least, most = (int(value) for value in items.long().aminmax()) if items.numel() else (low, high)
        if least < low or most > high:
            raise ValueError(
                f"{name} with a value of {least if least < low else most}: needed is {what}, {low} to {high}; look "
                "for it in the data"
            )
