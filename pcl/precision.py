"""Full precision: what is computed outside autocast, half-precision tensors in single precision.

Autocast rounds the factors of every product of matrices to 8 or 11 bits. Scores are exponentiated, so those bits are
percents of a loss: the mathematics leaves autocast, in both passes, and gives gradients in the dtype of its arguments.
"""

__all__ = ["differentiable_gradients", "in_full_precision"]

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import fields, is_dataclass, replace
from functools import wraps
from typing import Any, ParamSpec, TypeVar

import torch
from torch import Tensor

HALVES = (torch.float16, torch.bfloat16)

P = ParamSpec("P")
R = TypeVar("R")


def in_full_precision(function: Callable[P, R]) -> Callable[P, R]:
    """Decorator that runs a function outside autocast, in both passes, with half-precision tensors as float32.

    Tensors are looked for in tuples, lists, dicts and dataclasses. Outside autocast, and without half precision, the
    function is called as it is.

    Args:
        function: of tensors that are all among its arguments, since gradients reach no others under autocast.

    Example:
        >>> product = in_full_precision(torch.matmul)
        >>> with torch.autocast("cpu", torch.bfloat16):
        ...     product(torch.tensor([[1.001]]), torch.tensor([[1.0]])).item()
        1.00...
    """

    @wraps(function)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> R:
        given = _tensors(args) + _tensors(kwargs.values())
        if any(tensor.dtype in HALVES for tensor in given):
            args, kwargs = _mapped(lambda t: t.float() if t.dtype in HALVES else t, (args, kwargs))
        devices = [device for device in {"cpu", *(t.device.type for t in given)} if _is_autocast(device)]
        if not devices:
            return function(*args, **kwargs)
        if not torch.is_grad_enabled():
            with _without_autocast(devices):
                return function(*args, **kwargs)
        return _apart(function, devices, args, kwargs)

    return wrapped


def _is_autocast(device: str) -> bool:
    try:
        return torch.is_autocast_enabled(device)
    except RuntimeError:  # meta tensors and the like know no autocast
        return False


@contextlib.contextmanager
def _without_autocast(devices: list[str]) -> Iterator[None]:
    with contextlib.ExitStack() as stack:
        for device in devices:
            stack.enter_context(torch.autocast(device, enabled=False))
        yield


def _tensors(nested: Any) -> list[Tensor]:
    """Return the tensors in nested containers."""
    found: list[Tensor] = []
    for part in nested:
        if isinstance(part, Tensor):
            found.append(part)
        elif part is None or isinstance(part, str | float | int):
            continue
        elif isinstance(part, tuple | list):
            found += _tensors(part)
        elif isinstance(part, dict):
            found += _tensors(part.values())
        elif is_dataclass(part) and not isinstance(part, type):
            found += _tensors([getattr(part, field.name) for field in fields(part)])
    return found


def _mapped(function: Callable[[Tensor], Tensor], nested: Any) -> Any:
    """Return nested containers with every tensor replaced by a function of it, in the order of ``_tensors``."""
    if isinstance(nested, Tensor):
        return function(nested)
    if isinstance(nested, tuple | list):
        return type(nested)(_mapped(function, part) for part in nested)
    if isinstance(nested, dict):
        return {key: _mapped(function, part) for key, part in nested.items()}
    if _tensors((nested,)):
        return replace(
            nested, **{field.name: _mapped(function, getattr(nested, field.name)) for field in fields(nested)}
        )
    return nested


def _apart(function: Callable[..., R], devices: list[str], args: Any, kwargs: Any) -> R:
    """Call a function whose backward leaves autocast too: autograd would run it in that of the call of backward."""
    shape: Any = None

    def of_tensors(*given: Tensor) -> list[Tensor]:
        nonlocal shape
        queue = iter(given)
        again_args, again_kwargs = _mapped(lambda _: next(queue), (args, kwargs))
        shape = function(*again_args, **again_kwargs)
        return _tensors((shape,))

    results = iter(_Apart.apply(of_tensors, devices, *_tensors((args, kwargs))))  # type: ignore[no-untyped-call]
    returned: R = _mapped(lambda _: next(results), shape)
    return returned


class _Apart(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, function: Callable[..., list[Tensor]], devices: list[str], *tensors: Tensor
    ) -> tuple[Tensor, ...]:
        with _without_autocast(devices), torch.enable_grad():
            leaves = [tensor.detach().requires_grad_(tensor.requires_grad) for tensor in tensors]
            results = function(*leaves)
        ctx.function, ctx.devices, ctx.leaves, ctx.results = function, devices, leaves, results
        ctx.save_for_backward(*tensors)
        returned = tuple(result.detach() for result in results)
        ctx.mark_non_differentiable(
            *(r for r, result in zip(returned, results, strict=True) if not result.requires_grad)
        )
        return returned

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        with _without_autocast(ctx.devices):
            if torch.is_grad_enabled():  # second derivatives need the function of the tensors themselves
                return None, None, *differentiable_gradients(ctx.function, ctx.saved_tensors, gradients)
            used = [(r, g) for r, g in zip(ctx.results, gradients, strict=True) if r.requires_grad]
            results, given = ([pair[i] for pair in used] for i in (0, 1))
            wanted = [leaf for leaf in ctx.leaves if leaf.requires_grad]
            found = iter(torch.autograd.grad(results, wanted, given, retain_graph=True, allow_unused=True))
        return None, None, *(next(found) if leaf.requires_grad else None for leaf in ctx.leaves)


def differentiable_gradients(
    function: Callable[..., Sequence[Tensor]], inputs: Sequence[Tensor], gradients: Sequence[Tensor | None]
) -> tuple[Tensor | None, ...]:
    """Gradients by the inputs of a function that can be differentiated again.

    Args:
        function: of the inputs; its first results belong to the gradients.
        inputs: tensors; for those that require no gradient there is None.
        gradients: of the results; None where a result was not used.
    """
    aliases = [part.view_as(part) for part in inputs]  # one input may be made of another
    used = [(r, g) for r, g in zip(function(*aliases), gradients, strict=False) if g is not None and r.requires_grad]
    wanted = [alias for alias in aliases if alias.requires_grad]
    found = iter(
        torch.autograd.grad(
            [result for result, _ in used],
            wanted,
            [gradient for _, gradient in used],
            create_graph=True,
            allow_unused=True,
        )
    )
    return tuple(next(found) if alias.requires_grad else None for alias in aliases)
