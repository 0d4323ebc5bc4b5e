"""Collectives of data-parallel training: gathers and sums whose gradients are exact, and means over workers.

With L = (1/W) sum_r L_r the mean of the workers' gradients is the gradient of L when the backward of every collective
*sums* over workers: each worker's loss sees what all of them gave.

Shapes: b pairs on this worker, B = W b pairs in the global batch.
"""

__all__ = ["GroupWorkers", "average_gradients", "broadcast_state", "make_workers", "mean_over_workers"]

from collections.abc import Iterable
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from pcl.train.clock import Clock
from pcl.workers import OneWorker, Workers


class _GatherRows(torch.autograd.Function):
    """Concatenate the rows of all workers; backward: sum over workers, each keeps the gradient of its own rows."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, clock: Clock) -> Tensor:
        ctx.clock = clock
        with clock.part("gather"):
            gathered = rows.new_empty(dist.get_world_size() * len(rows), *rows.shape[1:])
            dist.all_gather(list(gathered.chunk(dist.get_world_size())), rows.contiguous())
        return gathered

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return _SumOfOwnRows.apply(gradients[0], ctx.clock), None  # type: ignore[no-untyped-call]


class _SumOfOwnRows(torch.autograd.Function):
    """Sum over workers of the rows of all, each keeps its own; backward: concatenate."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, clock: Clock) -> Tensor:
        ctx.clock = clock
        with clock.part("gather"):
            chunks = list(rows.contiguous().chunk(dist.get_world_size()))
            own = torch.empty_like(chunks[0])
            dist.reduce_scatter(own, chunks)
        return own

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return _GatherRows.apply(gradients[0], ctx.clock), None  # type: ignore[no-untyped-call]


class _SumOverWorkers(torch.autograd.Function):
    """All-reduce; its own backward."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, clock: Clock) -> Tensor:
        ctx.clock = clock
        with clock.part("gather"):
            total = values.clone(memory_format=torch.contiguous_format)
            dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return _SumOverWorkers.apply(gradients[0], ctx.clock), None  # type: ignore[no-untyped-call]


class _LogSumExpOverWorkers(torch.autograd.Function):
    """All-reduce of the largest and of the sum of exponentials; backward: sum over workers of the gradient."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, clock: Clock) -> Tensor:
        ctx.clock = clock
        with clock.part("gather"):
            largest = values.clone()
            dist.all_reduce(largest, dist.ReduceOp.MAX)
            total = (values - largest).exp_()
            dist.all_reduce(total)
            result = total.log_().add_(largest)
        ctx.save_for_backward(values, result)
        return result

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        values, result = ctx.saved_tensors
        total: Tensor = _SumOverWorkers.apply(gradients[0], ctx.clock)  # type: ignore[no-untyped-call]
        return total * (values - result).exp(), None


class GroupWorkers:
    """The workers of the default process group, seen from this one.

    Args:
        clock: told of the time in ``gather``, that of all methods in both passes.
        equal_batches: whether the caller knows that every worker has as many pairs, as those of a ``LaneLoader`` do.
            Otherwise workers tell each other before every gather, since a library that gathers rows of unequal
            numbers ends the process.

    Raises:
        RuntimeError: no process group has been initialised.
    """

    def __init__(self, clock: Clock | None = None, *, equal_batches: bool = False) -> None:
        self.clock = clock or Clock()
        self.equal_batches = equal_batches
        self.worker_rank = dist.get_rank()
        self.num_workers = dist.get_world_size()

    def num_rows(self, rows: Tensor) -> int:
        """Return B, the rows of all workers.

        Raises:
            ValueError: workers have rows of different number or size; every one of them says so.
        """
        if not self.equal_batches:
            own = torch.tensor([len(rows), rows.numel(), rows.element_size()], device=rows.device)
            every = own.new_empty(self.num_workers, len(own))
            with self.clock.part("gather"):
                dist.all_gather(list(every), own)
            if bool((every != own).any()):
                found = ", ".join(f"{n} x {total // max(n, 1)} of {size} bytes" for n, total, size in every.tolist())
                raise ValueError(
                    f"workers have different rows ({found}, by rank): a batch needs as many pairs on each of them; "
                    "drop the last batch of an epoch if it is smaller"
                )
        return len(rows) * self.num_workers

    def gather(self, rows: Tensor) -> Tensor:
        """Return (B, ...) from (b, ...); every worker must call it equally often.

        Raises:
            ValueError: as for ``num_rows``.
        """
        self.num_rows(rows)
        gathered: Tensor = _GatherRows.apply(rows, self.clock)  # type: ignore[no-untyped-call]
        return gathered

    def log_sum_exp(self, values: Tensor) -> Tensor:
        """Return the log-sum-exp over workers, element by element, the same on every worker."""
        result: Tensor = _LogSumExpOverWorkers.apply(values, self.clock)  # type: ignore[no-untyped-call]
        return result


def make_workers(clock: Clock | None = None, *, equal_batches: bool = False) -> Workers:
    """Return the workers of the process group this process is in, or the one that it is alone.

    A group of one is no group either: a collective with nobody gives what it was given, for a millisecond each.

    Args:
        clock: see ``GroupWorkers``.
        equal_batches: see ``GroupWorkers``.
    """
    grouped = dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1
    return GroupWorkers(clock, equal_batches=equal_batches) if grouped else OneWorker()


def average_gradients(parameters: Iterable[nn.Parameter], workers: Workers, flag: bool = False) -> Tensor:
    """Replace each worker's gradients by their mean over workers, in one all-reduce per dtype.

    The buffer's layout is that of the parameters, always: summing in another order would change bits on a resume.

    Args:
        parameters: of the model.
        workers: of the training.
        flag: of this worker; it travels at the end of the first buffer, so it costs no collective of its own.

    Returns:
        Whether any worker gave a flag, a scalar that is the same on all of them.
    """
    gradients = [p.grad for p in parameters if p.grad is not None]
    flags = gradients[0].new_full((1,), float(flag))
    if workers.num_workers == 1:
        return flags[0] > 0
    for dtype in {g.dtype: None for g in gradients}:
        group = [g for g in gradients if g.dtype == dtype] + ([flags] if dtype == flags.dtype else [])
        flat = torch.cat([g.flatten() for g in group])
        dist.all_reduce(flat)
        flat /= workers.num_workers
        for gradient, mean in zip(group, torch.split(flat, [g.numel() for g in group]), strict=True):
            gradient.copy_(mean.view_as(gradient))
    return flags[0] > 0


def broadcast_state(module: nn.Module, workers: Workers) -> None:
    """Give every worker the parameters and buffers of worker 0."""
    if workers.num_workers > 1:
        for tensor in module.state_dict().values():
            dist.broadcast(tensor, 0)


def mean_over_workers(values: dict[str, Tensor], workers: Workers) -> dict[str, float]:
    """Return the mean over workers of scalars by name."""
    stacked = torch.stack([value.detach().double().reshape(()) for value in values.values()])
    if workers.num_workers > 1:
        dist.all_reduce(stacked)
        stacked /= workers.num_workers
    return dict(zip(values, stacked.tolist(), strict=True))
