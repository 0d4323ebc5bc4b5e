"""Collectives of data-parallel training: gathers and sums whose gradients are exact, and means over workers.

With L = (1/W) sum_r L_r the mean of the workers' gradients is the gradient of L when the backward of every collective
*sums* over workers: each worker's loss sees what all of them gave.

Shapes: b pairs on this worker, B = W b pairs in the global batch.
"""

__all__ = [
    "GroupWorkers",
    "broadcast_state",
    "make_workers",
    "mean_over_workers",
    "sum_over_workers",
]

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from pcl.train.ahead import Underway, finish_gather, gather_into, start_gather, sum_into
from pcl.train.clock import Clock
from pcl.workers import OneWorker, Workers


class _GatherRows(torch.autograd.Function):
    """Concatenate the rows of all workers; backward: sum over workers, each keeps the gradient of its own rows."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, clock: Clock) -> Tensor:
        ctx.clock = clock
        with clock.part("gather"):
            gathered = rows.new_empty(dist.get_world_size() * len(rows), *rows.shape[1:])
            gather_into(gathered, rows.contiguous())
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
            own = rows.new_empty(len(rows) // dist.get_world_size(), *rows.shape[1:])
            sum_into(own, rows.contiguous())
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
        self._ahead: tuple[Tensor, Tensor, Underway] | None = None
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

    def ahead(self, rows: Tensor) -> Tensor:
        """Start to gather rows, and return what to use in their place: ``gather`` of that very tensor is the end of it.

        Raises:
            ValueError: as for ``num_rows``.
        """
        self.num_rows(rows)
        self._ahead = start_gather(rows, self.clock)
        return self._ahead[0]

    def gather(self, rows: Tensor) -> Tensor:
        """Return (B, ...) from (b, ...); every worker must call it equally often.

        Raises:
            ValueError: as for ``num_rows``.
        """
        if self._ahead is not None and self._ahead[0] is rows:
            (_, given, underway), self._ahead = self._ahead, None
            return finish_gather(given, underway)
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


def broadcast_state(module: nn.Module, workers: Workers) -> None:
    """Give every worker the parameters and buffers of worker 0."""
    if workers.num_workers > 1:
        for tensor in module.state_dict().values():
            dist.broadcast(tensor, 0)


def mean_over_workers(values: dict[str, Tensor], workers: Workers) -> dict[str, float]:
    """Return the mean over workers of scalars by name."""
    stacked = torch.stack([value.detach().double().reshape(()) for value in values.values()])
    total = sum_over_workers(stacked, workers)
    return dict(zip(values, (total / workers.num_workers).tolist(), strict=True))


def sum_over_workers(values: Tensor, workers: Workers) -> Tensor:
    """Return the sum over workers of a tensor, element by element and without a gradient, the same on all of them."""
    total = values.detach().clone()
    if workers.num_workers > 1:
        dist.all_reduce(total)
    return total
