"""The command ``pcl``: the jobs by name, each with the same help, exit codes and arguments as its script in jobs/."""

__all__ = ["COMMANDS", "main", "script"]

import ast
import difflib
import sys
from collections.abc import Sequence
from pathlib import Path

import pcl
from pcl.cluster.signals import Interrupted
from pcl.cluster.template import template
from pcl.commands.ending import end_process, imported
from pcl.commands.required import check_job
from pcl.errors import BadInputError

COMMANDS = (
    "shards",
    "train",
    "sweep",
    "compare",
    "evaluate",
    "finetune",
    "draw",
    "reconstruct",
    "export",
    "theory",
    "head",
    "submit",
    "config",
    "benchmark",
    "benchmark-losses",
)
KEEPING = ("shards", "train", "sweep", "theory", "head")
"""Commands that keep what they have finished when they are told to end."""
ON_RAY = ("train", "sweep")
"""Commands that start workers which import torch, on a Ray of their own where there is none."""


def main() -> None:
    """Run the command that the command line names, and exit."""
    end_process(lambda: _choose("python -m pcl" if Path(sys.argv[0]).stem == "__main__" else "pcl", sys.argv[1:]))


def script(name: str) -> None:
    """Run a command as the script of jobs/ that was started, and exit."""
    end_process(lambda: _run(name, f"python {sys.argv[0]}", sys.argv[1:]))


def _choose(program: str, given: Sequence[str]) -> None:
    name, *arguments = given or ("",)
    if name in ("", "-h", "--help"):
        lines = [f"  {command:18}{_summary(command)}" for command in COMMANDS]
        print(f"usage: {program} COMMAND ...\n\n{pcl.__doc__}\n", *lines, sep="\n")
        print(f"\n{program} COMMAND --help tells more, {program} --version the version.")
        sys.exit(0 if name else 2)
    if name == "--version":
        print(pcl.__version__)
        return
    if name not in COMMANDS:
        near = difflib.get_close_matches(name[:100], COMMANDS, 1, 0.5)
        nearest = f": the nearest is {near[0]}" if near else ""
        raise BadInputError(f"{name[:100]!r} is not a command{nearest}; {program} --help lists them all")
    _run(name, f"{program} {name}", arguments)


def _run(name: str, program: str, given: Sequence[str]) -> None:
    check_job()
    try:
        if name not in ON_RAY:
            imported(_module(name)).command(program, list(given))
            return
        imported("torch")
        with template():
            imported(_module(name)).command(program, list(given))
    except Interrupted as told:
        if name in KEEPING or str(told) != str(Interrupted(told.number)):
            raise
        raise Interrupted(told.number, "the same command begins again") from told


def _module(name: str) -> str:
    return f"pcl.commands.{name.replace('-', '_')}"


def _summary(name: str) -> str:
    """Return the first line of a command's description, read from its file: an import would take seconds."""
    file = Path(__file__).with_name(f"{_module(name).rpartition('.')[2]}.py")
    return (ast.get_docstring(ast.parse(file.read_text())) or "").partition("\n")[0]
