"""Programs of encoders: what ``torch.export`` makes of one, compared with it on random items.

A program is for whoever runs an encoder without this package. None is ever loaded from a model's folder here.
"""

__all__ = ["BATCHES", "Program", "program_of", "random_items"]

import io
import logging
import textwrap
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from pcl.encoders.basic import Standardise
from pcl.entrance import Items
from pcl.errors import BadInputError, printable

BATCHES = (1, 2, 7)  # sizes of the batches on which a program is compared
TOLERANCE = {torch.float32: 1e-5, torch.float64: 1e-12}  # of a difference, over the largest component
MISSING_SHARE = 0.1
LARGEST = 1000  # of integers that are drawn: items hold such numbers, whatever else their dtype may
LONGEST_REASON = 200


@dataclass(frozen=True)
class Program:
    """A program of an encoder.

    Attributes:
        content: of its file, which ``torch.export.load`` reads.
        dtype: of the items that it takes, as they are stored.
        difference: the largest from the encoder, over the largest component of an embedding.
    """

    content: bytes
    dtype: str
    difference: float


def program_of(encoder: nn.Module, items: Items, seed: int = 0) -> Program:
    """Program of an encoder in evaluation mode for batches of any size, on the CPU.

    Args:
        encoder: maps stored items (B, ...) to embeddings.
        items: that it takes.
        seed: of the random items on which both are compared.

    Raises:
        BadInputError: it cannot be exported, or its program gives other embeddings; the message says why.

    Example:
        >>> from pcl.encoders import make_encoder
        >>> encoder = make_encoder("linear", (3,), 2).eval().requires_grad_(False)
        >>> program_of(encoder, encoder.items).difference
        0.0
    """
    generator = torch.Generator().manual_seed(seed)
    batches = [random_items(encoder, items, size, generator) for size in BATCHES]
    try:
        with _silence(), torch.no_grad():
            exported = torch.export.export(encoder, (batches[-1],), dynamic_shapes=({0: torch.export.Dim("batch")},))
            file = io.BytesIO()
            torch.export.save(exported, file)
            module = torch.export.load(io.BytesIO(file.getvalue())).module()
            pairs = [(encoder(batch), module(batch)) for batch in batches]
    except Exception as error:  # whatever the network does may be what cannot be exported
        reason = printable(textwrap.shorten(str(error), LONGEST_REASON, placeholder=" ..."))
        raise BadInputError(f"torch.export cannot export it ({type(error).__name__}: {reason})") from error
    difference = max(((one - other).abs().max() / one.abs().max().clamp(min=1e-30)).item() for one, other in pairs)
    if not difference <= TOLERANCE.get(pairs[0][0].dtype, 0.0):
        raise BadInputError(f"its program gives other embeddings, by {difference:.1e} of the largest component")
    return Program(file.getvalue(), str(batches[0].dtype).removeprefix("torch."), difference)


def random_items(encoder: nn.Module, items: Items, number: int, generator: torch.Generator) -> Tensor:
    """Random items that an encoder takes, of order one once they are standardised, shape (number, ...).

    Args:
        encoder: that takes them.
        items: what it takes.
        number: of items.
        generator: of the random numbers.
    """
    size = (number, *items.shape)
    if items.num_labels is not None:
        return torch.randint(0, items.num_labels, size, generator=generator).to(_dtype(items.dtype, torch.int64))
    if items.dtype is not None and np.dtype(items.dtype).kind in "iub":
        most = 1 if items.dtype == "bool" else min(int(np.iinfo(items.dtype).max), LARGEST)
        vocabularies = [getattr(module, "vocabulary", None) for module in encoder.modules()]
        most = min([most, *(number - 1 for number in vocabularies if isinstance(number, int))])
        return torch.randint(0, most + 1, size, generator=generator).to(_dtype(items.dtype, torch.int64))
    standardise = next((module for module in encoder.modules() if isinstance(module, Standardise)), None)
    found = torch.randn(size, generator=generator, dtype=torch.float64)
    if standardise is not None:
        found = (found - standardise.shift.double()) / standardise.scale.double()
    if items.may_be_missing:
        found[torch.rand(size, generator=generator) < MISSING_SHARE] = torch.nan
    return found.to(_dtype(items.dtype, torch.float32 if standardise is None else standardise.scale.dtype))


def _dtype(stored: str | None, otherwise: torch.dtype) -> torch.dtype:
    """Return the dtype in which a tensor holds what is stored."""
    if stored is None:
        return otherwise
    dtype: torch.dtype = getattr(torch, "uint8" if stored == "bool" else stored)
    return dtype


@contextmanager
def _silence() -> Iterator[None]:
    """Keep the compiler from printing whole graphs where an export fails: the error says what is wrong."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
