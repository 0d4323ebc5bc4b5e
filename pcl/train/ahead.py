"""The gather of v's features while u is encoded, and the sum of their gradients while u's encoder has its backward."""

__all__ = ["Underway", "finish_gather", "gather_into", "gathers_ahead", "start_gather", "sum_into"]

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from pcl.model import PairModel
from pcl.scores import choose_mode
from pcl.train.clock import Clock

GATHER_V_ALONE = ("conditional", "joint", "logistic")  # kinds of losses, where scores are formed one-sidedly


def gathers_ahead(model: PairModel, kind: str, mode: str, local_batch: int, num_workers: int) -> bool:
    """Whether v can be encoded first, and its features be gathered meanwhile, without another bit in any number.

    The loss must gather nothing else, the encoder of v draw no random numbers (it would draw those of u), and the
    encoders share nothing.

    Args:
        model: whose features are gathered.
        kind: of the loss.
        mode: how its scores are formed, see ``pcl.scores.choose_mode``.
        local_batch: b.
        num_workers: W.

    Example:
        >>> from pcl.tilting import Temperature
        >>> tau = Temperature(1.0, learned=False, minimum=0.1, maximum=10.0)
        >>> model = PairModel(nn.Linear(3, 2), nn.Linear(4, 2), "cosine", tau)
        >>> [gathers_ahead(model, "joint", "auto", b, 2) for b in (64, 4096)]
        [False, True]
    """
    one_sided = num_workers > 1 and choose_mode(mode, local_batch, num_workers) == "one_sided"
    sides = [set(encoder.parameters()) for encoder in (model.encoder_u, model.encoder_v)]
    return one_sided and kind in GATHER_V_ALONE and sides[0].isdisjoint(sides[1]) and not _may_draw(model.encoder_v)


def _may_draw(encoder: nn.Module) -> bool:
    """Whether a module drops something, or is of other people, who may draw what they like."""
    parts = list(encoder.modules())
    is_ours = all(type(part).__module__.split(".")[0] in ("torch", "pcl") for part in parts)
    return not is_ours or any(isinstance(part, nn.modules.dropout._DropoutNd) and part.p > 0 for part in parts)


def gather_into(gathered: Tensor, rows: Tensor, *, async_op: bool = False) -> "dist.Work | None":
    """Gather into one tensor: a list would be copied into one. torch 2.13 has another name for it, as for the sum."""
    gather = getattr(dist, "all_gather_single", None) or dist.all_gather_into_tensor
    work: dist.Work | None = gather(gathered, rows, async_op=async_op)
    return work


def sum_into(own: Tensor, rows: Tensor, *, async_op: bool = False) -> "dist.Work | None":
    """Sum rows over workers into one tensor, each its own."""
    scatter = getattr(dist, "reduce_scatter_single", None) or dist.reduce_scatter_tensor
    work: dist.Work | None = scatter(own, rows, async_op=async_op)
    return work


class Underway:
    """A gather, and later the sum that is its backward, that goes on beside what is computed.

    Args:
        clock: told of the time in which it is waited for.
    """

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self._result: Tensor | None = None
        self._work: dist.Work | None = None

    def gather(self, rows: Tensor) -> None:
        """Start to gather the rows of all workers."""
        self._result = rows.new_empty(dist.get_world_size() * len(rows), *rows.shape[1:])
        self._work = gather_into(self._result, rows.contiguous(), async_op=True)

    def sum(self, rows: Tensor) -> Tensor:
        """Start to sum the rows of all over workers; what is returned is its own rows of the sum, once waited for."""
        self._result = rows.new_empty(len(rows) // dist.get_world_size(), *rows.shape[1:])
        self._work = sum_into(self._result, rows.contiguous(), async_op=True)
        return self._result

    def wait(self) -> Tensor:
        """Return the rows of what was started last."""
        assert self._work is not None
        assert self._result is not None
        with self.clock.part("gather"):
            self._work.wait()
        result, self._work, self._result = self._result, None, None
        return result


def start_gather(rows: Tensor, clock: Clock) -> tuple[Tensor, Tensor, Underway]:
    """Start to gather rows; return what to use in their place, what ``finish_gather`` takes for them, and the gather.

    The gradient of both comes together at last, when that of all that was computed in between is known.
    """
    underway = Underway(clock)
    own, given = _Start.apply(rows, underway)  # type: ignore[no-untyped-call]
    return own, given, underway


def finish_gather(given: Tensor, underway: Underway) -> Tensor:
    """Return the rows of all workers; their backward starts the sum over workers, which ``start_gather`` waits for."""
    gathered: Tensor = _Finish.apply(given, underway)  # type: ignore[no-untyped-call]
    return gathered


class _Start(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows: Tensor, underway: Underway) -> tuple[Tensor, Tensor]:
        ctx.underway = underway
        underway.gather(rows)
        return rows.view_as(rows), rows.view_as(rows)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, own: Tensor, given: Tensor) -> tuple[Tensor, None]:
        return ctx.underway.wait() + own, None


class _Finish(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, given: Tensor, underway: Underway) -> Tensor:
        ctx.underway = underway
        return underway.wait()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return ctx.underway.sum(gradient), None  # not there yet: nobody but the backward of _Start looks at it
