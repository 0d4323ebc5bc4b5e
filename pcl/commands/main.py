"""The command ``pcl``, and the same commands as scripts."""

__all__ = ["script"]

import sys
from importlib import import_module

from pcl.commands.ending import finish


def script(name: str) -> None:
    """Run a command as the script of ``jobs/`` that was started, and exit; its imports can be interrupted too."""
    finish(lambda: import_module(f"pcl.commands.{name}").command(f"python {sys.argv[0]}", sys.argv[1:]))
