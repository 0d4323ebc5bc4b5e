"""The jobs of the head on a cluster: beside training, never in its way."""

__all__ = ["BackgroundJobs", "jobs_here"]

import pcl.cluster.connection  # noqa: F401 - before ray

# isort: split
import shlex
from collections.abc import Mapping
from typing import Any

import ray

from pcl.cluster.jobs import Job
from pcl.cluster.submission import NEVER_STARTED, JobServer, needs_of

CODE = ("working_dir", "pip")


class BackgroundJobs:
    """Jobs that take of the nodes what ``needs_of`` says.

    Args:
        server: of the cluster where they run.
        code: what they are sent: ``working_dir`` and ``pip`` of ``JobServer.submit``.
    """

    def __init__(self, server: JobServer, code: Mapping[str, Any]) -> None:
        self.server, self.code = server, code

    def look(self, name: str) -> Job | None:
        """Return what is known of a job."""
        details = self.server.job(name)
        if details is None:
            return None
        started = str(details.error_type or "").rsplit(".", 1)[-1] not in NEVER_STARTED
        return Job(str(details.status), _reason(details.message or ""), started)

    def submit(self, name: str, command: str) -> None:
        """Start a job, ``python -m pcl <job> ...``."""
        job = shlex.split(command)[3]
        self.server.submit(name, command, self.code, needs_of(job, self.server.resources()))

    def stop(self, name: str) -> None:
        """End a job."""
        self.server.stop(name)


def jobs_here(folder: str) -> BackgroundJobs:
    """Return the jobs of the cluster that this process is connected to, with the code that this process runs.

    Args:
        folder: of the code, where this process is no job of a cluster itself.
    """
    context = ray.get_runtime_context()
    code = {"working_dir": folder} | {key: context.runtime_env[key] for key in CODE if context.runtime_env.get(key)}
    return BackgroundJobs(JobServer(context.gcs_address), code)


def _reason(message: str) -> str:
    r"""Return the line of a job's end that says why: its own error, or the last.

    Example:
        >>> _reason("Job failed, last available logs: ...\nerror: the disk is full\n")
        'error: the disk is full'
    """
    lines = [line.strip() for line in message.splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith("error:")]
    return (errors or lines or [""])[-1][:300]
