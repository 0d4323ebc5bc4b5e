"""The connection to Ray: the cluster a job was submitted to, or a Ray of our own on loopback.

Import this module before ray: where Ray listens is decided by an environment variable that it reads when imported.
"""

__all__ = ["connected", "run_tasks"]

import itertools
import logging
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

ADDRESS = os.environ.get("RAY_ADDRESS", "")
IS_LOCAL = not ADDRESS or ADDRESS.startswith("http")  # http: an address to submit jobs to, not one to connect to
if IS_LOCAL:
    os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"  # every listener on 127.0.0.1
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"

import ray  # noqa: E402

T = TypeVar("T")
R = TypeVar("R")


@contextmanager
def connected(num_cpus: int) -> Iterator[None]:
    """Connect to Ray for a block.

    A submitted job finds its cluster in ``RAY_ADDRESS``. Otherwise Ray starts on this machine, listens on loopback
    only, and ends with the block.

    Args:
        num_cpus: CPUs that the block needs; a Ray of our own offers at least as many.
    """
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    if IS_LOCAL:
        options |= {"num_cpus": max(num_cpus, os.cpu_count() or 1), "include_dashboard": False}
    ray.init(address="local" if IS_LOCAL else ADDRESS, **options)
    try:
        yield
    finally:
        ray.shutdown()


def run_tasks(
    function: Callable[..., R], shared: Any, items: Sequence[T], most_at_once: int = 0
) -> Iterator[tuple[T, R]]:
    """Run ``function(shared, item)`` as one Ray task an item, retried if a worker dies.

    Args:
        function: importable on every node.
        shared: put into the object store once.
        items: one task each.
        most_at_once: tasks under way at a time; 0: one a CPU of the cluster.

    Yields:
        Each item with its result, as they finish.
    """

    @ray.remote(num_cpus=1, max_retries=3)  # type: ignore[untyped-decorator]
    def call(shared: Any, item: T) -> R:
        return function(shared, item)

    reference = ray.put(shared)
    rest, waiting = iter(items), {}
    for item in itertools.islice(rest, most_at_once or None):
        waiting[call.remote(reference, item)] = item
    while waiting:
        (done,), _ = ray.wait(list(waiting))
        try:
            result = ray.get(done)
        except ray.exceptions.RayTaskError as error:
            raise error.cause from None  # what happened, without the traceback of the task
        yield waiting.pop(done), result
        for item in itertools.islice(rest, 1):
            waiting[call.remote(reference, item)] = item
