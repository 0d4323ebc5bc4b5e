"""Tasks, where they run: on the cluster that the environment names, else in processes of this machine, without Ray."""

__all__ = ["RunTasks", "run_tasks_here", "task_runner"]

import os
import pickle
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import lru_cache, partial
from itertools import islice
from multiprocessing import get_context, parent_process
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any, Protocol, TypeVar

from pcl.cluster.address import IS_LOCAL
from pcl.cluster.failures import lost_again
from pcl.cluster.signals import interruptible
from pcl.plugins.loading import Plugin, all_loaded, run_plugins

T = TypeVar("T")
R = TypeVar("R")
Start = Callable[[], tuple[Connection, BaseProcess]]
MOST_TRIES = 4  # of a task whose process dies, with the first


class RunTasks(Protocol):
    """What runs ``function(shared, item)`` as one task an item; see ``pcl.cluster.ray_tasks.run_tasks``."""

    def __call__(
        self,
        function: Callable[[Any, T], R],
        shared: Any,
        items: Sequence[T],
        most_at_once: int = 0,
        *,
        timeout_s: float,
        background: bool = False,
        here: bool = False,
    ) -> Iterator[tuple[T, R]]:
        """Yield each item with its result, as they finish."""


@contextmanager
def task_runner() -> Iterator[RunTasks]:
    """Give what runs tasks in a block: on the cluster that the environment names, else in processes of this machine.

    Raises:
        RunFailedError: the cluster cannot be reached, or refuses the token.
        Interrupted: in the block, when the process is asked to end.
    """
    if IS_LOCAL:
        with interruptible(), _processes() as run_tasks:
            yield run_tasks
        return
    from pcl.cluster.connection import connected  # imports ray, which takes longer than many a task
    from pcl.cluster.ray_tasks import run_tasks

    with connected(num_cpus=1):
        yield run_tasks


@dataclass
class _Process:
    """A process that does one task after the other, and the task that it has."""

    process: BaseProcess
    item: Any = None
    num_tries: int = 0

    def give(self, connection: Connection, item: Any, num_tries: int = 1) -> None:
        """Give it a task."""
        self.item, self.num_tries = item, num_tries
        with suppress(OSError):  # it has just died, which is heard where its result is waited for
            connection.send_bytes(_packed(item))


Started = dict[Connection, _Process]


@contextmanager
def _processes() -> Iterator[RunTasks]:
    """Give what runs tasks in processes that end with a block, however it ends."""
    calls: list[Started] = []
    try:
        yield partial(run_tasks_here, calls)
    finally:
        for started in calls:
            _end(started)


def _end(started: Started) -> None:
    """End processes, whatever they do."""
    for one in started.values():
        one.process.kill()
    for one in started.values():
        one.process.join()
    started.clear()


def run_tasks_here(
    calls: list[Started],
    function: Callable[[Any, T], R],
    shared: Any,
    items: Sequence[T],
    most_at_once: int = 0,
    *,
    timeout_s: float = 0.0,
    background: bool = False,
    here: bool = False,
) -> Iterator[tuple[T, R]]:
    """Run ``function(shared, item)`` as one task an item, in processes of this machine, again if a process dies.

    Args:
        calls: takes the processes, for who ends them where this is left before its end.
        function: of a module; it, what is shared, the items and their results are pickled.
        shared: given to every process once.
        items: one task each; each is asked for when its turn comes.
        most_at_once: tasks under way at a time; 0: one a CPU of this machine.
        timeout_s: of no use: nothing is waited for.
        background: of no use: nothing else waits.
        here: of no use: no task waits for room.

    Yields:
        Each item with its result, as they finish.

    Raises:
        RunFailedError: the processes of a task died again and again; else what the function raises.
    """
    started: Started = {}
    calls.append(started)
    start, rest, left = _starter(function, shared), iter(items), len(items)
    try:
        for item in islice(rest, most_at_once or os.cpu_count()):
            _begin(started, start, item)
        while left:
            for connection in _heard_of(started):
                one = started[connection]
                try:
                    has_worked, result = pickle.loads(connection.recv_bytes())
                except (EOFError, OSError):
                    del started[connection]
                    _begin(started, start, one.item, _next_try(one))
                    continue
                if not has_worked:
                    raise result
                item, left = one.item, left - 1
                if following := [*islice(rest, 1)]:
                    one.give(connection, following[0])
                else:
                    _end({connection: started.pop(connection)})
                yield item, result
    finally:
        _end(started)


def _next_try(died: _Process) -> int:
    """Return the number of the next try of a task whose process has died.

    Raises:
        RunFailedError: there is none.
    """
    died.process.join()
    if died.num_tries >= MOST_TRIES:
        why = f"its process ended with exit code {died.process.exitcode}"
        raise lost_again(why, "this machine")
    return died.num_tries + 1


def _heard_of(started: Started) -> list[Connection]:
    """Wait until processes have sent something, or have died."""
    heard = wait(list(started))
    return [one for one in started if one in heard]


def _begin(started: Started, start: Start, item: Any, num_tries: int = 1) -> None:
    """Start a process, and give it a task."""
    connection, process = start()
    started[connection] = _Process(process)
    started[connection].give(connection, item, num_tries)


def _starter(function: Callable[..., Any], shared: Any) -> Start:
    """Return what starts a process for tasks: a copy of one that has imported what they need, and nothing else.

    A copy of this process would have its locks and its connections, and none of the threads that serve them.
    """
    context = get_context("forkserver")
    context.set_forkserver_preload([__name__, *{type(shared).__module__, _module(function)} - {"__main__", "builtins"}])
    given = _packed((function, shared))

    def start() -> tuple[Connection, BaseProcess]:
        here, there = context.Pipe()
        process = context.Process(target=_work, args=(there, all_loaded(), given), name="task", daemon=True)
        threads = os.environ.get("OMP_NUM_THREADS")
        os.environ.setdefault("OMP_NUM_THREADS", "1")  # each has a CPU, as a task of Ray has
        try:
            process.start()
        finally:
            if threads is None:
                del os.environ["OMP_NUM_THREADS"]
        there.close()
        return here, process

    return start


def _packed(content: Any) -> bytes:
    """Return content by value: torch would have it as open files that end with a process."""
    return pickle.dumps(content, pickle.HIGHEST_PROTOCOL)


def _module(function: Callable[..., Any]) -> str:
    return function.func.__module__ if isinstance(function, partial) else function.__module__


def _work(connection: Connection, plugins: Sequence[Plugin], given: bytes) -> None:
    """Do tasks, without a word, until there are no more or the process that gives them is gone."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    nowhere = os.open(os.devnull, os.O_RDWR)
    for stream in range(3):
        os.dup2(nowhere, stream)
    while True:
        try:
            item = pickle.loads(connection.recv_bytes())
        except EOFError:
            return
        try:
            function, shared = _given(tuple(plugins), given)
            connection.send_bytes(_packed((True, function(shared, item))))
        except Exception as error:
            connection.send_bytes(_packed((False, _portable(error))))


@lru_cache(1)
def _given(plugins: Sequence[Plugin], given: bytes) -> Any:
    run_plugins(plugins)
    return pickle.loads(given)


def _portable(error: Exception) -> Exception:
    """Return an error that comes through, whatever it is made of."""
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        return RuntimeError(f"{type(error).__name__}: {error}")
    return error


def _end_with_parent() -> None:
    parent = parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(1)
