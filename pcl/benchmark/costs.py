"""Costs of a conditional loss and of ClipLoss, as flops and bytes count them; ClipLoss itself.

Shapes: b pairs on a worker, B = W b pairs in the global batch, embedding E.
"""

__all__ = ["LOSSES", "clip_loss", "clip_loss_bytes", "flops", "load_clip_loss", "sent_bytes"]

import importlib.util
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

LOSSES = ("ours", "ClipLoss")


def load_clip_loss(name: str = "ClipLoss") -> Any:
    """Return a loss of open_clip, its file loaded alone as the package needs torchvision; None without."""
    try:
        path = Path(str(distribution("open_clip_torch").locate_file("open_clip/loss.py")))
    except PackageNotFoundError:
        return None
    spec = importlib.util.spec_from_file_location("open_clip_loss", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return getattr(module, name)


def clip_loss(u: Tensor, v: Tensor, scale: Tensor) -> Tensor:
    """Return ClipLoss of one worker, written out: both logit matrices, a cross entropy of each.

    Args:
        u: unit vectors, shape (B, E).
        v: those of their partners, shape (B, E).
        scale: one over the temperature.
    """
    labels = torch.arange(len(u), device=u.device)
    return (cross_entropy(scale * u @ v.T, labels) + cross_entropy(scale * v @ u.T, labels)) / 2


def flops(loss: str, batch: int, num_workers: int, dim: int) -> int:
    """Return the floating-point operations of a worker in products of matrices.

    A score matrix takes 2bBE, its two gradients 4bBE; forming it again in the backward pass another 2bBE. ClipLoss
    forms a matrix for each direction.
    """
    return {"ours": 8, "ClipLoss": 12}[loss] * batch // num_workers * batch * dim


def sent_bytes(loss: str, batch: int, num_workers: int, dim: int) -> float:
    """Return the bytes that a worker sends in single precision.

    A ring that gathers or reduce-scatters B numbers sends B (W - 1)/W of them, an all-reduce twice that. Ours gathers
    one modality and reduce-scatters its gradient, and all-reduces three vectors of columns; ClipLoss moves both.
    """
    rings = {"ours": 2 * dim + 6, "ClipLoss": 4 * dim}[loss]
    return 4 * rings * batch * (num_workers - 1) / num_workers


def clip_loss_bytes(batch: int) -> int:
    """Return the memory of all workers that ClipLoss needs: four copies of the scores, single precision."""
    return 4 * 4 * batch**2
