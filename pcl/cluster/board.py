"""The board of a job: what its processes have to say to people, and whether they are asked to stop."""

__all__ = ["ask_to_stop", "is_asked_to_stop", "notice", "notices", "open_board"]

import pcl.cluster.connection  # noqa: F401 - before ray

# isort: split
from contextlib import suppress
from typing import Any

import ray
import ray.exceptions
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

NAME = "pcl-board"  # every job has names of its own
ANSWER_S = 10
_held: dict[str, Any] = {}  # by job: an actor ends with its last handle


class Board:
    """An actor that all processes of a job reach."""

    def __init__(self) -> None:
        self._lines: list[str] = []
        self._stops = False

    def write(self, line: str) -> None:
        """Keep a line."""
        self._lines.append(line)

    def take(self) -> list[str]:
        """Return the lines that were not yet taken."""
        lines, self._lines = self._lines, []
        return lines

    def ask_to_stop(self) -> None:
        """Keep that the job is asked to stop."""
        self._stops = True

    def is_asked_to_stop(self) -> bool:
        """Return whether the job is asked to stop."""
        return self._stops


def open_board() -> Any:
    """Return the board of this job, which the process that started the job opens, on its own node."""
    job = ray.get_runtime_context().get_job_id()
    if job not in _held:
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        options = {"name": NAME, "get_if_exists": True, "max_restarts": -1, "scheduling_strategy": here}
        _held[job] = ray.remote(num_cpus=0)(Board).options(**options).remote()
    return _held[job]


def notice(line: str) -> None:
    """Say a line, from any process of this job, to the people who watch the job; without a board nobody hears it."""
    with suppress(ValueError, ray.exceptions.RayError):
        ray.get_actor(NAME).write.remote(line)


def notices() -> list[str]:
    """Return what the processes of this job said since this was last called."""
    lines: list[str] = ray.get(open_board().take.remote(), timeout=ANSWER_S)
    return lines


def ask_to_stop() -> None:
    """Ask all processes of this job to stop, from the one that started it."""
    open_board().ask_to_stop.remote()


def is_asked_to_stop() -> bool:
    """Return whether the processes of this job are asked to stop; a cluster that does not answer asks for nothing."""
    try:
        return bool(ray.get(ray.get_actor(NAME).is_asked_to_stop.remote(), timeout=ANSWER_S))
    except (RuntimeError, ValueError, ray.exceptions.RayError):
        return False
