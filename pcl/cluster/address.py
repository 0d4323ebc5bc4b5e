"""Where jobs run: on the cluster that the environment names, or on this machine; what it imports takes no time."""

__all__ = ["ADDRESS", "IS_LOCAL", "check_shared"]

import os
from pathlib import Path

from pcl.errors import BadInputError

ADDRESS = os.environ.get("RAY_ADDRESS", "")
# "auto" and "local" are Ray's words for a Ray of this machine; http: an address to submit jobs to, not to connect to
IS_LOCAL = ADDRESS in ("", "auto", "local") or ADDRESS.startswith("http")


def check_shared(**places: str) -> None:
    """Refuse places that a job of a cluster would share with nobody: those in its own copy of the code.

    Args:
        places: folders or addresses by the key that gives them, with ``__`` for a dot.

    Raises:
        BadInputError: one of them lies in the current folder, and this is a job of a cluster.
    """
    for key, found in places.items():
        if not IS_LOCAL and Path(found).is_relative_to(Path.cwd()):
            name = key.replace("__", ".")
            raise BadInputError(
                f"{name}={found} lies in the copy of the code that this job got, which no other job sees: give a "
                f"folder that every node sees, such as {name}=/shared/..."
            )
