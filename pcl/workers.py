"""What a loss needs of the other workers of a data-parallel training: their rows, and sums over them.

Shapes: b rows on this worker, B = W b rows over all workers.
"""

__all__ = ["OneWorker", "Workers", "given_or_alone"]

import warnings
from functools import cache
from typing import Protocol

import torch.distributed as dist
from torch import Tensor


class Workers(Protocol):
    """The W workers of a training, seen from one of them; every worker calls the same methods in the same order."""

    worker_rank: int
    num_workers: int

    def num_rows(self, rows: Tensor) -> int:
        """Return B, the rows of all workers; ValueError on every one of them if one has others than (b, ...)."""
        ...

    def gather(self, rows: Tensor) -> Tensor:
        """Return (B, ...) from every worker's (b, ...), in the order of the ranks; its backward sums over workers."""
        ...

    def log_sum_exp(self, values: Tensor) -> Tensor:
        """Return, element by element, the log-sum-exp over workers; its backward sums over workers."""
        ...


class OneWorker:
    """A single process: its rows are all rows.

    Example:
        >>> import torch
        >>> OneWorker().gather(torch.ones(2, 3)).shape
        torch.Size([2, 3])
    """

    worker_rank = 0
    num_workers = 1

    def num_rows(self, rows: Tensor) -> int:
        """Return the number of rows."""
        return len(rows)

    def gather(self, rows: Tensor) -> Tensor:
        """Return the rows as they are."""
        return rows

    def log_sum_exp(self, values: Tensor) -> Tensor:
        """Return the values as they are."""
        return values


def given_or_alone(workers: Workers | None) -> Workers:
    """Return the workers that a loss was given, or this process alone.

    A warning says once if the process belongs to a group and was not told of it: its loss would be that of its own
    pairs, without the negatives of the others.

    Args:
        workers: of the training, or None.
    """
    if workers is not None:
        return workers
    if dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1:
        _warn_that_others_are_left_out(dist.get_world_size())
    return OneWorker()


@cache
def _warn_that_others_are_left_out(num_processes: int) -> None:
    warnings.warn(
        f"a loss without workers= in a group of {num_processes} processes: it knows the pairs of this one alone; give "
        "workers=pcl.train.collectives.make_workers(), or workers=pcl.workers.OneWorker() if that is meant",
        UserWarning,
        stacklevel=6,  # who called the loss
    )
