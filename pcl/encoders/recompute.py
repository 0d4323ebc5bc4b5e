"""Activation checkpointing: blocks of encoders compute their activations again in the backward pass."""

__all__ = ["blocks_of", "recompute_blocks"]

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint


def blocks_of(module: nn.Module) -> list[nn.Module]:
    """Blocks of a network: the smallest items of its lists and sequences of layers that have layers of their own.

    Example:
        >>> from pcl.encoders import make_encoder
        >>> transformer = make_encoder("text", (16,), 8, architecture="transformer", depth=3)
        >>> [type(block).__name__ for block in blocks_of(transformer)]
        ['Block', 'Block', 'Block']
    """
    found: list[nn.Module] = []
    for child in module.children():
        inner = blocks_of(child)
        is_item = isinstance(module, nn.Sequential | nn.ModuleList) and next(child.children(), None) is not None
        found += inner or ([child] if is_item else [])
    return found


def recompute_blocks(model: nn.Module) -> int:
    """Have every block of a model keep what goes in and nothing else of a forward pass, in place.

    The backward pass runs a block again, with the random numbers that it drew, so no number of a training changes, nor
    the names of its weights.

    Args:
        model: whose encoders hold the blocks; a network that both share counts once.

    Returns:
        The number of blocks.

    Example:
        >>> from pcl.encoders import make_encoder
        >>> recompute_blocks(make_encoder("mlp", (3,), 8, widths=[4, 4]))
        2
    """
    blocks = list(dict.fromkeys(blocks_of(model)))
    for block in blocks:
        setattr(block, "forward", partial(_again, block.forward))  # noqa: B010 - mypy takes no assignment to a method
    return len(blocks)


def _again(forward: Callable[..., Any], *given: Any, **options: Any) -> Any:
    if not torch.is_grad_enabled():
        return forward(*given, **options)
    return checkpoint(forward, *given, use_reentrant=False, **options)
