"""What a loss needs of the other workers of a data-parallel training: their rows, and sums over them.

Shapes: b rows on this worker, B = W b rows over all workers.
"""

__all__ = ["OneWorker", "Workers"]

from typing import Protocol

from torch import Tensor


class Workers(Protocol):
    """The W workers of a training, seen from one of them; every worker calls the same methods in the same order."""

    worker_rank: int
    num_workers: int

    def gather(self, rows: Tensor) -> Tensor:
        """Return (B, ...) from every worker's (b, ...), in the order of the ranks; its backward sums over workers."""
        ...

    def log_sum_exp(self, values: Tensor) -> Tensor:
        """Return, element by element, the log-sum-exp over workers; its backward sums over workers."""
        ...


class OneWorker:
    """A single process: both methods are the identity.

    Example:
        >>> import torch
        >>> OneWorker().gather(torch.ones(2, 3)).shape
        torch.Size([2, 3])
    """

    worker_rank = 0
    num_workers = 1

    def gather(self, rows: Tensor) -> Tensor:
        """Return the rows as they are."""
        return rows

    def log_sum_exp(self, values: Tensor) -> Tensor:
        """Return the values as they are."""
        return values
