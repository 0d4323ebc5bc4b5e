"""The mean of the workers' gradients, in fixed buckets whose sums start while the backward pass goes on."""

__all__ = ["GradientAverage", "bucketed"]

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from pcl.workers import Workers

PARTS = 8  # buckets that a model is cut into, where they are not
SMALLEST = 1 << 16  # bytes: a shorter message costs more than what it carries, nor
LARGEST = 1 << 25  # bytes: that of a long one is waited for


def bucketed(parameters: Sequence[nn.Parameter]) -> list[list[nn.Parameter]]:
    """Parameters in buckets of one dtype: by nothing but their order, sizes and dtypes, so that sums keep their order.

    The last parameters come first, as their gradients do; a bucket is ready when its last gradient is. The bucket that
    nothing hides, that of the first parameters, is what remains.

    Args:
        parameters: in the order of the forward pass.

    Example:
        >>> layers = [nn.Linear(100, n) for n in (10, 400, 100)]
        >>> weights = [layer.weight for layer in layers]
        >>> [[parameter.numel() for parameter in bucket] for bucket in bucketed(weights)]
        [[10000, 40000], [1000]]
    """
    size = min(max(sum(p.nbytes for p in parameters) // PARTS, SMALLEST), LARGEST)
    buckets: list[list[nn.Parameter]] = []
    growing: dict[torch.dtype, list[nn.Parameter]] = {}
    for parameter in reversed(parameters):
        bucket = growing.get(parameter.dtype, [])
        if not bucket or sum(p.nbytes for p in bucket) >= size:
            buckets.append(bucket := [])
            growing[parameter.dtype] = bucket
        bucket.append(parameter)
    place = {parameter: index for index, parameter in enumerate(reversed(parameters))}
    return sorted(buckets, key=lambda bucket: place[bucket[-1]])


@dataclass(eq=False)
class _Bucket:
    """Gradients that travel together.

    Attributes:
        flat: the buffer that is summed over the workers.
        views: where each parameter's gradient lies in it, in the parameter's own memory format.
        taken: parameters whose gradients are in it.
        work: the sum that is under way.
    """

    flat: Tensor
    views: dict[nn.Parameter, Tensor]
    taken: set[nn.Parameter] = field(default_factory=set)
    work: "dist.Work | None" = None

    @classmethod
    def of(cls, parameters: Sequence[nn.Parameter], tail: int) -> "_Bucket":
        """Return the bucket of some parameters, with room for other numbers at its end."""
        flat = parameters[0].new_zeros(sum(p.numel() for p in parameters) + tail, requires_grad=False)
        views, offset = {}, 0
        for p in parameters:
            strides = torch.empty_like(p, device="meta").stride()
            views[p] = flat[offset : offset + p.numel()].as_strided(p.shape, strides)
            offset += p.numel()
        return cls(flat, views)

    def take(self, parameter: nn.Parameter) -> None:
        """Bring a gradient in, zeros if there is none; the parameter has it there from now on."""
        view = self.views[parameter]
        if parameter.grad is None:
            view.zero_()
        else:
            view.copy_(parameter.grad)
            parameter.grad = view
        self.taken.add(parameter)

    @property
    def is_full(self) -> bool:
        """Whether every gradient is in it."""
        return len(self.taken) == len(self.views)

    def start(self) -> None:
        """Start the sum over workers."""
        self.work = dist.all_reduce(self.flat, async_op=True)

    def wait(self, num_workers: int) -> None:
        """Wait for the sum, and make it a mean."""
        assert self.work is not None
        self.work.wait()
        self.flat /= num_workers
        self.taken, self.work = set(), None


class GradientAverage:
    """The mean of gradients over workers: buckets are summed while the backward pass computes what is before them.

    Buckets are always the same and start always in the same order, whichever gradient comes first, so the same numbers
    are summed in the same order in every step and after every resume. One worker has nothing to wait for: its
    gradients are left as they are.

    Args:
        parameters: of the model, in the order of the forward pass; those that need no gradient are left out.
        workers: of the training.

    Example:
        >>> from pcl.workers import OneWorker
        >>> layer = nn.Linear(2, 1)
        >>> average = GradientAverage(layer.parameters(), OneWorker())
        >>> average.begin()
        >>> layer(torch.ones(1, 2)).sum().backward()
        >>> average.finish(flag=True).item()
        True
    """

    def __init__(self, parameters: Iterable[nn.Parameter], workers: Workers) -> None:
        self.parameters = [p for p in parameters if p.requires_grad]
        self.num_workers = workers.num_workers
        self._hooks: list[RemovableHandle] = []
        self._started = 0
        groups = bucketed(self.parameters) if self.num_workers > 1 else []
        # at the end of the last one: the flag, and which parameters have a gradient
        self._buckets = [_Bucket.of(group, 1 + len(self.parameters) if group is groups[-1] else 0) for group in groups]
        self._bucket_of = {p: bucket for bucket in self._buckets for p in bucket.views}

    def begin(self, complete: Iterable[nn.Parameter] = ()) -> None:
        """Start the sum of each bucket as soon as its gradients are there; call it before the step's last backward.

        Args:
            complete: parameters that get nothing from that pass, since their gradients are whole: none is waited for.
        """
        for parameter in complete:
            if (bucket := self._bucket_of.get(parameter)) is not None:
                bucket.take(parameter)
        self._hooks = [
            p.register_post_accumulate_grad_hook(self._arrived)  # type: ignore[no-untyped-call]
            for p in self._bucket_of
        ]

    def _arrived(self, parameter: nn.Parameter) -> None:
        bucket = self._bucket_of[parameter]
        if parameter in bucket.taken:
            raise RuntimeError(
                "a parameter got its gradient in two parts of one backward pass, the first of which is on its way to "
                "the other workers: checkpoint activations with use_reentrant=False"
            )
        bucket.take(parameter)
        while self._started < len(self._buckets) - 1 and self._buckets[self._started].is_full:
            self._start_next()

    def _start_next(self) -> None:
        self._buckets[self._started].start()
        self._started += 1

    def finish(self, flag: bool = False) -> Tensor:
        """Wait for every sum, and leave each parameter the mean of its gradients.

        A parameter that has none on any worker keeps none; one that has none on this worker gets that of the others.

        Args:
            flag: of this worker; it travels at the end of the last bucket, so it costs no collective of its own.

        Returns:
            Whether any worker gave a flag, a scalar that is the same on all of them.
        """
        if not self._buckets:
            return torch.full((), flag, device=self.parameters[0].device)
        for hook in self._hooks:
            hook.remove()
        absent = [index for index, p in enumerate(self.parameters) if p.grad is None]
        tail = self._buckets[-1].flat[-1 - len(self.parameters) :]
        anybody, present = tail[0], tail[1:]
        anybody.fill_(float(flag))
        present.fill_(1)
        for index in absent:
            present[index] = 0
        for bucket in self._buckets[self._started :]:
            for parameter in bucket.views.keys() - bucket.taken:
                bucket.take(parameter)
            self._start_next()
        for bucket in self._buckets:
            bucket.wait(self.num_workers)
        self._hooks, self._started = [], 0
        for parameter in [self.parameters[index] for index in absent if present[index] > 0]:
            parameter.grad = self._bucket_of[parameter].views[parameter]
        return anybody > 0
