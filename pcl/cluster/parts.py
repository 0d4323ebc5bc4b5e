"""Where the parts of an evaluation are computed: as tasks, where a cluster is named or tasks are asked for."""

__all__ = ["Elsewhere", "elsewhere"]

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

import torch

from pcl.cluster.address import IS_LOCAL
from pcl.cluster.tasks import RunTasks, task_runner
from pcl.errors import RunFailedError

T = TypeVar("T")
R = TypeVar("R")
S = TypeVar("S")


@dataclass(frozen=True)
class Elsewhere:
    """Tasks that compute parts.

    Attributes:
        run_tasks: runs them.
        num_tasks: at a time.
        options: of ``run_tasks``.
    """

    run_tasks: RunTasks
    num_tasks: int
    options: Mapping[str, Any]

    def __call__(self, function: Callable[[S, T], R], shared: S, items: Sequence[T]) -> Iterator[tuple[int, R]]:
        """Yield the number of every item with ``function(shared, item)``, as they finish."""
        numbered = _Numbered(items)
        for (number, _), result in self.run_tasks(
            partial(_of_item, function), shared, numbered, self.num_tasks, **self.options
        ):
            yield number, result


class _Numbered(Sequence[tuple[int, T]]):
    """Items with their numbers, made when they are asked for."""

    def __init__(self, items: Sequence[T]) -> None:
        self.items = items

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, number: Any) -> Any:
        return number, self.items[number]


def _of_item(function: Callable[[S, T], R], shared: S, item: tuple[int, T]) -> R:
    return function(shared, item[1])


@contextmanager
def elsewhere(num_tasks: int, use_gpu: bool, timeout_s: float) -> Iterator[tuple[Elsewhere | None, str]]:
    """Give what computes parts in a block, None for this process alone, and the device where they are computed.

    On a cluster tasks take what is free when the block begins: where nodes have the resource ``background`` one of it
    each, so that training waits for none; elsewhere a GPU, or else a CPU. Where nothing is free, or others take it
    first, this process works alone: a job that holds what it needs itself never waits for more.

    Args:
        num_tasks: at a time; 0: on a cluster as many as are free, elsewhere none.
        use_gpu: where there is one, but for clusters with ``background``.
        timeout_s: seconds to wait for a node that went away.

    Raises:
        RunFailedError: tasks are asked for, and the cluster cannot be reached or refuses the token.
    """
    if IS_LOCAL:
        device = "cuda" if use_gpu and torch.cuda.is_available() else "cpu"
        if not num_tasks:
            yield None, device
            return
        with task_runner() as run_tasks:
            yield Elsewhere(run_tasks, num_tasks, {"timeout_s": timeout_s}), device
        return
    with ExitStack() as stack:
        try:
            run_tasks = stack.enter_context(task_runner())
        except RunFailedError as error:
            if num_tasks:
                raise
            # of several Rays on a machine a job may be told another's address: it can do without
            print(f"evaluating in this process: {error}", flush=True)  # noqa: T201
            yield None, "cuda" if use_gpu and torch.cuda.is_available() else "cpu"
            return
        number, options, device = _free(use_gpu)
        if not number:
            print("the cluster has no room for tasks now: evaluating in this process", flush=True)  # noqa: T201
        options |= {"timeout_s": timeout_s, "here": device == "cpu"}
        yield Elsewhere(run_tasks, min(number, num_tasks or number), options) if number else None, device


def _free(use_gpu: bool) -> tuple[int, dict[str, Any], str]:
    """Return how many tasks the cluster has room for now, what each of them takes, and their device."""
    import ray

    free, aside = ray.available_resources(), "background" in ray.cluster_resources()
    gpus = int(min(free.get("GPU", 0), free.get("CPU", 0)))
    if gpus and use_gpu and not aside:
        return gpus, {"each": {"CPU": 1, "GPU": 1}}, "cuda"
    return int(free.get("background" if aside else "CPU", 0)), {"background": aside}, "cpu"
