"""The jobs of the head on a cluster: beside training, never in its way."""

__all__ = ["BackgroundJobs", "jobs_here"]

import shlex
from pathlib import Path

import ray
from ray.dashboard.utils import ray_address_to_api_server_url

from pcl.cluster.jobs import Job
from pcl.cluster.submission import NEVER_STARTED, ROOT, Cluster, needs_of


class BackgroundJobs:
    """Jobs that take of the nodes what ``needs_of`` says.

    Args:
        cluster: where they run.
        working_dir: folder or address of the code.
    """

    def __init__(self, cluster: Cluster, working_dir: str) -> None:
        self.cluster, self.working_dir = cluster, working_dir

    def look(self, name: str) -> Job | None:
        """Return what is known of a job."""
        details = self.cluster.job(name)
        if details is None:
            return None
        started = str(details.error_type or "").rsplit(".", 1)[-1] not in NEVER_STARTED
        return Job(str(details.status), _reason(details.message or ""), started)

    def submit(self, name: str, command: str) -> None:
        """Start a job, ``python jobs/<job>.py ...``."""
        job = Path(shlex.split(command)[1]).stem
        self.cluster.submit(name, command, self.working_dir, needs_of(job, self.cluster.resources()))

    def stop(self, name: str) -> None:
        """End a job."""
        self.cluster.stop(name)


def jobs_here() -> BackgroundJobs:
    """Return the jobs of the cluster that this process is connected to, with the code that this process runs."""
    context = ray.get_runtime_context()
    address = ray_address_to_api_server_url(context.gcs_address)
    return BackgroundJobs(Cluster(address), context.runtime_env.get("working_dir") or str(ROOT))


def _reason(message: str) -> str:
    r"""Return the line of a job's end that says why: its own error, or the last.

    Example:
        >>> _reason("Job failed, last available logs: ...\nerror: the disk is full\n")
        'error: the disk is full'
    """
    lines = [line.strip() for line in message.splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith("error:")]
    return (errors or lines or [""])[-1][:300]
