"""Finished tasks in a folder, a JSON file each, so that what is finished is not done again."""

__all__ = ["Store", "code_version", "import_closure"]

import ast
import hashlib
import json
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

from pcl.errors import DamagedDataError
from pcl.gaussian import GaussianProcessPair
from pcl.storage.place import Place
from pcl.storage.stored import read_sealed, sealed, write_json
from pcl.theory.plan import EXPERIMENTS, Result, Task

FIRST = "pcl.theory.plan"
"""The module that runs a task: results depend on what it imports, and what that imports, on nothing else."""

SAME_NUMBERS = {"c23a705eba43b43d": ("a2ef5914c653b369", "90c31d9a629c0fe5", "b5b6cc107655b19d", "108273a8466eada0")}
"""Versions of the code whose results those of a version are, bit for bit, by that version: seen, not computed."""


@cache
def code_version() -> str:
    """Return a short hash of the code that results depend on: those of other code are not results of this one.

    It is that of all statements of the modules concerned but for imports, docstrings and comments, which change no
    number, and wherever the modules lie.
    """
    statements = sorted(text for module in import_closure(FIRST) for text in _statements(_file_of(module)))
    return hashlib.sha256("\n".join(statements).encode()).hexdigest()[:16]


def import_closure(first: str) -> set[str]:
    """Return a module of this package, those that it imports, and so on.

    Example:
        >>> sorted(import_closure("pcl.precision"))
        ['pcl.precision']
    """
    found, pending = set[str](), [first]
    while pending:
        module = pending.pop()
        if module in found or not _file_of(module).is_file():
            continue
        found.add(module)
        for node in ast.walk(ast.parse(_file_of(module).read_text())):
            if isinstance(node, ast.ImportFrom) and node.module:
                pending += [node.module, *(f"{node.module}.{name.name}" for name in node.names)]
            elif isinstance(node, ast.Import):
                pending += [name.name for name in node.names]
    return found


def _file_of(module: str) -> Path:
    """Return where the source of a module of this package lies; the package itself only says how it begins."""
    first, *rest = module.split(".")
    path = Path(__file__).resolve().parents[1].joinpath(*rest)
    if first != "pcl" or not rest:
        return path / "nowhere.py"
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


def _statements(path: Path) -> list[str]:
    """Return the statements of a module without imports, docstrings and what it exports."""
    tree = ast.parse(path.read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(node) is not None:
            node.body = node.body[1:]
    return [
        ast.dump(node)
        for node in tree.body
        if not isinstance(node, ast.Import | ast.ImportFrom) and "__all__" not in ast.dump(node)
    ]


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

    def path(self, task: Task, version: str | None = None) -> Place:
        """Return the file of a task; tasks of two experiments that compute the same share it."""
        law, function = EXPERIMENTS[task.experiment]
        about = [function.__name__, law, asdict(self.process), asdict(task.cell), version or code_version()]
        name = hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()[:24]
        return self.folder / f"{name}.json"

    def load(self, task: Task) -> Result | None:
        """Return the result of a task, also that of other code with the same numbers; None if missing or damaged."""
        for version in (code_version(), *SAME_NUMBERS.get(code_version(), ())):
            with suppress(DamagedDataError):
                found = read_sealed(self.path(task, version), Stored, "it is computed again")
                if found and found[1]:
                    return found[0].result
        return None

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
