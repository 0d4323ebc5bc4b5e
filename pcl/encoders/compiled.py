"""Encoders compiled by torch.compile: the same functions and the same parameters, other kernels."""

__all__ = ["compiled"]

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from pcl.encoders.frozen import Frozen
from pcl.errors import BadInputError, printable

MOST_KERNELS = 64  # of one function: it is compiled for each size of a batch, with a graph and without, for u and for v


def compiled(encoder: nn.Module, device: torch.device) -> Callable[[Tensor], Tensor]:
    """Encoder whose calls run kernels that are compiled at the first call for each size of a batch.

    Random numbers are drawn as without, so numbers differ by rounding alone; kernels hang on nothing but the sizes, so
    a training that is resumed has the bits of one that was not stopped. The module itself is left as it is, with the
    names of its weights.

    Args:
        encoder: of u or of v.
        device: where it is.

    Raises:
        BadInputError: torch.compile does not work on this machine.
    """
    if not any(True for _ in encoder.parameters()):
        return encoder
    _check(device)
    for part in encoder.modules():
        if isinstance(part, Frozen):  # what torch.export wrote is run as it is
            disabled = torch.compiler.disable(part.features)  # type: ignore[no-untyped-call]
            setattr(part, "features", disabled)  # noqa: B010 - mypy takes no assignment to a method
    torch._dynamo.config.recompile_limit = max(MOST_KERNELS, torch._dynamo.config.recompile_limit)
    function: Any = torch.compile(encoder, dynamic=False, options={"fallback_random": True})
    return partial(_called, function)


def _called(function: Callable[[Tensor], Tensor], items: Tensor) -> Tensor:
    try:
        return function(items)
    except torch._dynamo.exc.TorchDynamoException as error:
        raise BadInputError(
            f"train.compile=true: torch.compile does not take an encoder of this model ({_first_words(error)}): leave "
            "it out"
        ) from error


def _first_words(error: Exception) -> str:
    return printable(" ".join(str(error).split("\n\n")[0].split()))[:150]


def _check(device: torch.device) -> None:
    """Refuse a machine on which nothing can be compiled, such as one without a compiler of C++."""
    try:
        torch.compile(lambda x: x.sin() + 1, dynamic=False)(torch.ones(2, device=device))
    except Exception as error:
        needed = "Triton and a C compiler" if device.type == "cuda" else "a C++ compiler, such as g++"
        raise BadInputError(
            f"train.compile=true: torch.compile does not work here ({_first_words(error)}): install {needed}, or leave "
            "it out"
        ) from error
