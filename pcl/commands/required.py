"""Packages that this one requires: which a job's Python lacks, and which versions are installed here."""

__all__ = ["check_job", "is_job", "lacks", "pins"]

import os
import re
import shlex
import sys
import tomllib
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path

from pcl.errors import BadInputError, RunFailedError

PROJECT = Path(__file__).resolve().parents[2] / "pyproject.toml"
OF_THE_CLUSTER = ("ray", "torch")  # what every node has, built for it: never installed beside it
S3 = "s3fs"


def is_job() -> bool:
    """Whether this process is a job that was submitted to a cluster."""
    return "RAY_JOB_CONFIG_JSON_ENV_VAR" in os.environ


def check_job() -> None:
    """Refuse to be a job whose Python lacks a package, before an import fails halfway.

    Raises:
        RunFailedError: it lacks some.
    """
    if is_job() and (missing := [name for name in _required() if _version(name) is None]):
        raise RunFailedError(lacks(missing))


def lacks(missing: list[str]) -> str:
    """Return the line that says what this Python lacks, and the remedy."""
    found = f"this {'job' if is_job() else 'process'}'s Python, {sys.executable}, has no {', '.join(missing)}"
    if not is_job():
        return f"{found}: install pcl into it with what it requires, pip install {shlex.quote(str(PROJECT.parent))}"
    if "ray" in missing:
        return (
            f"{found}, so it is not the one that Ray runs with: start Ray on the nodes with that one first on PATH, or "
            "pcl submit --install lets it run the job"
        )
    if "torch" in missing:
        return f"{found}: install torch on every node, for its devices; pcl submit --install brings the job the others"
    return f"{found}: pcl submit --install brings the job what it requires"


def pins() -> list[str]:
    """Return what a cluster that has Ray and torch needs, in the versions that are installed here.

    Raises:
        BadInputError: a package is not installed here.
    """
    names = [name for name in (*_required(), S3) if name not in OF_THE_CLUSTER]
    found = {name: _version(name) for name in names}
    if missing := [name for name, number in found.items() if number is None and name != S3]:
        raise BadInputError(f"--install brings a cluster the versions that are installed here: {lacks(missing)}")
    return [f"{name}=={number}" for name, number in found.items() if number is not None]


def _required() -> list[str]:
    """Return the names of the packages that this one requires, but for its extras."""
    if PROJECT.is_file():
        requirements = tomllib.loads(PROJECT.read_text())["project"]["dependencies"]
    else:
        requirements = [text for text in requires("pcl") or () if "extra ==" not in text]
    return [re.split(r"[^\w.-]", text, maxsplit=1)[0] for text in requirements]


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
