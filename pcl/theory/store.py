"""Finished tasks in a folder, a JSON file each, so that what is finished is not done again."""

__all__ = ["Store", "code_version"]

import hashlib
import json
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

from pcl.errors import DamagedDataError
from pcl.gaussian import GaussianProcessPair
from pcl.storage.place import Place
from pcl.storage.stored import read_sealed, sealed, write_json
from pcl.theory.experiments import EXPERIMENTS, Result, Task

READERS = ("checks.py", "figures.py", "report.py")  # of this package: they read results and change none


@cache
def code_version() -> str:
    """Return a short hash of the source that results depend on: those of other code are not results of this one."""
    root = Path(__file__).resolve().parents[1]
    content = hashlib.sha256()
    for path in sorted(set(root.rglob("*.py")) - {root / "theory" / name for name in READERS}):
        content.update(str(path.relative_to(root)).encode() + b"\0" + path.read_bytes())
    return content.hexdigest()[:16]


@dataclass(frozen=True)
class Stored:
    """A finished task, as its file holds it."""

    task: dict[str, Any]
    result: dict[str, Any]


class Store:
    """Results by what they are a function of: the task, the law and the code.

    Args:
        folder: of the files; made when the first result is saved.
        process: the law of the tasks.
    """

    def __init__(self, folder: Place, process: GaussianProcessPair) -> None:
        self.folder, self.process = folder, process

    def path(self, task: Task) -> Place:
        """Return the file of a task; tasks of two experiments that compute the same share it."""
        law, function = EXPERIMENTS[task.experiment]
        about = [function.__name__, law, asdict(self.process), asdict(task.cell), code_version()]
        name = hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()[:24]
        return self.folder / f"{name}.json"

    def load(self, task: Task) -> Result | None:
        """Return the result of a task, None where it is missing or damaged."""
        try:
            found = read_sealed(self.path(task), Stored, "it is computed again")
        except DamagedDataError:
            return None
        return found[0].result if found and found[1] else None

    def save(self, task: Task, result: Result) -> None:
        """Write the result of a task, whole or not at all."""
        write_json(self.path(task), sealed({"task": asdict(task), "result": result}), allow_nan=True)

    def pending(self, tasks: list[Task]) -> list[Task]:
        """Return the tasks without a result, one of those that compute the same."""
        missing = {self.path(task): task for task in reversed(tasks) if self.load(task) is None}
        return list(reversed(missing.values()))

    def results(self, tasks: list[Task]) -> list[tuple[Task, Result]]:
        """Return the tasks that have a result, with it."""
        return [(task, result) for task in tasks if (result := self.load(task)) is not None]
