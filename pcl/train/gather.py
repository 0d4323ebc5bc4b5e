"""Collectives of data-parallel training: the gather with a summing backward, and means over workers.

Shapes: b pairs on this worker, B = W b pairs in the global batch.
"""

__all__ = ["AllGather", "average_gradients", "broadcast_state", "make_gather", "mean_over_workers"]

from collections.abc import Iterable
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from pcl.losses import Gather, OneWorker


class _GatherRows(torch.autograd.Function):
    """Concatenate the rows of all workers; backward: sum over workers, each keeps the gradient of its own rows.

    The *sum* is what makes the mean of the workers' gradients exact (THEORY 7): every worker's loss sees all rows.
    """

    @staticmethod
    def forward(ctx: Any, rows: Tensor) -> Tensor:
        gathered = [torch.empty_like(rows) for _ in range(dist.get_world_size())]
        dist.all_gather(gathered, rows.contiguous())
        return torch.cat(gathered)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        (gradient,) = gradients
        chunks = [chunk.contiguous() for chunk in gradient.chunk(dist.get_world_size())]
        own = torch.empty_like(chunks[0])
        dist.reduce_scatter(own, chunks)
        return own


class AllGather:
    """The gather of the default process group: rows in the order of the workers' ranks.

    Raises:
        RuntimeError: no process group has been initialised.
    """

    def __init__(self) -> None:
        self.worker_rank = dist.get_rank()
        self.num_workers = dist.get_world_size()

    def __call__(self, rows: Tensor) -> Tensor:
        """Return (B, ...) from (b, ...); every worker must call it equally often and with equal b."""
        gathered: Tensor = _GatherRows.apply(rows)  # type: ignore[no-untyped-call]
        return gathered


def make_gather() -> Gather:
    """Return the gather of this process: over the process group when there is one."""
    return AllGather() if dist.is_available() and dist.is_initialized() else OneWorker()


def average_gradients(parameters: Iterable[nn.Parameter], gather: Gather) -> None:
    """Replace each worker's gradients by their mean over workers, in one all-reduce per dtype.

    The buffer's layout is that of the parameters, always: summing in another order would change bits on a resume.
    """
    if gather.num_workers == 1:
        return
    gradients = [p.grad for p in parameters if p.grad is not None]
    for dtype in {g.dtype: None for g in gradients}:
        group = [g for g in gradients if g.dtype == dtype]
        flat = torch.cat([g.flatten() for g in group])
        dist.all_reduce(flat)
        flat /= gather.num_workers
        for gradient, mean in zip(group, torch.split(flat, [g.numel() for g in group]), strict=True):
            gradient.copy_(mean.view_as(gradient))


def broadcast_state(module: nn.Module, gather: Gather) -> None:
    """Give every worker the parameters and buffers of worker 0."""
    if gather.num_workers > 1:
        for tensor in module.state_dict().values():
            dist.broadcast(tensor, 0)


def mean_over_workers(values: dict[str, Tensor], gather: Gather) -> dict[str, float]:
    """Return the mean over workers of scalars by name."""
    stacked = torch.stack([value.detach().double().reshape(()) for value in values.values()])
    if gather.num_workers > 1:
        dist.all_reduce(stacked)
        stacked /= gather.num_workers
    return dict(zip(values, stacked.tolist(), strict=True))
