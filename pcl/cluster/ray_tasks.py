"""Tasks of Ray: the calls of a function, wherever the cluster has room, again where a worker dies or a node goes away.

Ray may leave a task waiting for ever: one that it sends to a node which has just died is asked for again and again,
and answered by nobody (https://github.com/ray-project/ray/issues/63405). So where nothing ends for a while, tasks for
which Ray still looks for a node are taken back and handed in again.
"""

__all__ = ["run_tasks"]

import pcl.cluster.connection  # noqa: F401 - before ray

# isort: split
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any, TypeVar

import ray

from pcl.cluster.address import IS_LOCAL
from pcl.cluster.connection import wait_for_room
from pcl.cluster.failures import first_line, lost_again
from pcl.plugins.loading import modules

T = TypeVar("T")
R = TypeVar("R")
LOOK_S = 20.0  # in which nothing ends, after which it is asked where tasks are; twice as long each time
ANSWER_S = 10
MOST_TOLD = 10_000  # tasks of which Ray tells


def run_tasks(
    function: Callable[..., R],
    shared: Any,
    items: Sequence[T],
    most_at_once: int = 0,
    *,
    timeout_s: float,
    each: Mapping[str, float] | None = None,
    background: bool = False,
    here: bool = False,
    otherwise: Callable[[Exception], R] | None = None,
) -> Iterator[tuple[T, R]]:
    """Run ``function(shared, item)`` as one Ray task an item, retried if a worker dies or a node goes away.

    Args:
        function: importable on every node.
        shared: put into the object store once.
        items: one task each.
        most_at_once: tasks under way at a time; 0: one a CPU of the cluster.
        timeout_s: seconds to wait for a node with room for a task.
        each: resources of a task, such as ``{"CPU": 2, "GPU": 1}``; None: a CPU, empty: none.
        background: take one of the cluster's ``background`` resources each instead of a CPU, where it has any, so that
            nothing waits for these tasks.
        here: this process does a task where no other is under way, for others have taken all room: what it holds
            itself may be what they wait for.
        otherwise: gives the result of a task that fails, and the others go on; None: the failure ends them all.

    Yields:
        Each item with its result, as they finish.

    Raises:
        BadInputError: the cluster has no room for a task.
        RunFailedError: the workers of a task died again and again; else what the function raises.
    """
    aside = background and ray.cluster_resources().get("background", 0) >= 1
    needs = {"background": 1} if aside else {"CPU": 1} if each is None else dict(each)
    if items and needs:
        wait_for_room(needs, 1, timeout_s, "tasks")
    for module in modules():  # which no other process can import
        ray.cloudpickle.register_pickle_by_value(module)
    call, reference = _task(function, needs), ray.put(shared)
    rest, waiting, patience_s = iter(items), dict[Any, T](), LOOK_S

    def begin(some: Iterator[T]) -> None:
        waiting.update((call.remote(reference, item), item) for item in some)

    begin(islice(rest, most_at_once or None))
    while waiting:
        done, _ = ray.wait(list(waiting), timeout=patience_s)
        if done:
            yield waiting.pop(done[0]), _result(done[0], otherwise)
            begin(islice(rest, 1))
            patience_s = LOOK_S
            continue
        patience_s *= 2
        again = iter(_taken_back(waiting, _without_node(list(waiting))))
        own = [*islice(again, 1)] if here and not waiting else []
        begin(again)
        for item in own:
            yield item, function(shared, item)
            begin(islice(rest, 1))


def _without_node(tasks: list[Any]) -> list[Any]:
    """Return those of some tasks for which Ray still looks for a node; none where it does not tell."""
    if IS_LOCAL:  # of one node
        return []
    from ray.util.state import list_tasks  # its imports take as long as many a task
    from ray.util.state.exception import RayStateApiException

    of_job = ("job_id", "=", ray.get_runtime_context().get_job_id())
    state = ("state", "=", "PENDING_NODE_ASSIGNMENT")
    try:
        told = list_tasks(filters=[of_job, state], limit=MOST_TOLD, timeout=ANSWER_S, raise_on_missing_output=False)
    except (OSError, RuntimeError, ValueError, ray.exceptions.RayError, RayStateApiException):
        return []
    pending = {one.task_id for one in told}
    return [task for task in tasks if task.task_id().hex() in pending]


def _taken_back(waiting: dict[Any, T], tasks: list[Any]) -> list[T]:
    """Take tasks back from Ray, and return their items."""
    for task in tasks:
        ray.cancel(task)
    return [waiting.pop(task) for task in tasks]


def _task(function: Callable[..., Any], needs: Mapping[str, float]) -> Any:
    """Return a function as a task of Ray that reserves what it needs."""
    own = {name: amount for name, amount in needs.items() if name not in ("CPU", "GPU")}

    @ray.remote(max_retries=3, num_cpus=needs.get("CPU", 0), num_gpus=needs.get("GPU", 0), resources=own or None)  # type: ignore[untyped-decorator]
    def call(shared: Any, item: Any) -> Any:
        return function(shared, item)

    return call


def _result(task: Any, otherwise: Callable[[Exception], R] | None) -> R:
    """Return the result of a task that has ended."""
    try:
        return ray.get(task)  # type: ignore[no-any-return]
    except Exception as error:
        if otherwise is not None:
            return otherwise(_cause(error))
        raise _cause(error) from None


def _cause(error: Exception) -> Exception:
    """Return what happened to a task, without its traceback."""
    if isinstance(error, ray.exceptions.RayTaskError):
        return error.cause  # type: ignore[no-any-return]
    if isinstance(error, ray.exceptions.RayError):
        return lost_again(first_line(error), "a node")
    return error
