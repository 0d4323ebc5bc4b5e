"""Jobs of a Ray cluster: submitted under names that stay the same, followed, and ended."""

__all__ = ["JobServer", "JobServerError", "needs_of"]

import asyncio
import logging
import os
import time
from collections.abc import Mapping
from typing import Any

import aiohttp
import requests
from ray.exceptions import RayError
from ray.job_submission import JobDetails
from ray.util.state import list_nodes
from ray.util.state.exception import RayStateApiException

from pcl.cluster.jobs import ENDED, attempt_name
from pcl.cluster.ray_insides import TIMEOUT_S, job_client
from pcl.errors import BadInputError, RunFailedError, printable

STOP_S = 60  # for a job that is told to stop, before it is killed: Ray's own 3 s are too few to commit a checkpoint
LOST_S = 60  # without an answer, after which a job is followed no longer
SILENT_S = 60  # without a line of a job, after which the connection is made anew
REFUSALS = (OSError, RuntimeError, RayError, RayStateApiException)  # those of requests are OSErrors
IN_ITS_OWN_PROCESS = ("evaluate", "compare", "finetune", "draw", "export")
BACKGROUND = "background"  # resource of nodes that have room for work that reserves no CPU
NEVER_STARTED = (
    "JOB_SUPERVISOR_ACTOR_START_TIMEOUT",
    "JOB_SUPERVISOR_ACTOR_START_FAILURE",
    "JOB_SUPERVISOR_ACTOR_UNSCHEDULABLE",
)


class JobServerError(RunFailedError):
    """The cluster does not answer, or not as it should."""


def needs_of(job: str, resources: Mapping[str, float]) -> dict[str, float]:
    """Return what the process of a job takes of a node; most only direct others, with no CPU, on the head node.

    Those that work in their own process do so beside training, where the cluster has the resource ``background``.

    Args:
        job: name of its command.
        resources: of the cluster.

    Raises:
        BadInputError: the cluster has no node for the head.
    """
    if job in IN_ITS_OWN_PROCESS:
        return {BACKGROUND: 1} if resources.get(BACKGROUND) else {"CPU": 1}
    if job == "head":
        if not resources.get("head"):
            raise BadInputError(
                "no node of the cluster has the resource 'head': start the head node with --resources='{\"head\": 1}'"
            )
        return {"head": 0.01}  # a share, so that there is room for a second to say that it is one too many
    return {}


class JobServer:
    """The server of a cluster's jobs.

    Args:
        address: ``http://host:port`` of its dashboard, or ``host:port`` of the cluster itself.

    Raises:
        BadInputError: nothing answers there, or it refuses the token.
    """

    def __init__(self, address: str) -> None:
        self._shown: dict[str, int] = {}  # characters of a job's log that were printed
        os.environ["RAY_API_SERVER_ADDRESS"] = address  # it would win over what Ray's clients are given
        _silence()
        try:
            self._client = job_client(address)
            self.address: str = self._client.get_address()
        except (RayError, requests.HTTPError) as error:
            raise BadInputError(
                f"the cluster at {address} refuses the token: RAY_AUTH_MODE=token and RAY_AUTH_TOKEN_PATH=<file> must "
                "give the one that the cluster was started with"
            ) from error
        except (OSError, RuntimeError, ValueError) as error:
            raise BadInputError(
                f"no Ray cluster answers at {address}: give the address of its dashboard, --address http://host:8265 "
                "or RAY_API_SERVER_ADDRESS; from elsewhere through an SSH tunnel"
            ) from error

    def job(self, name: str) -> JobDetails | None:
        """Return what the cluster says of a job, None where it knows of none.

        Raises:
            JobServerError: it does not answer.
        """
        try:
            return self._client.get_job_info(name)
        except REFUSALS as error:
            if "status code 404" in str(error):
                return None
            raise JobServerError(f"{self.address} does not answer: {_first_line(error)}") from error

    def newest(self, name: str) -> tuple[int, JobDetails | None]:
        """Return the number of a name's attempts, and the newest."""
        attempt, found = 0, None
        while (job := self.job(attempt_name(name, attempt + 1))) is not None:
            attempt, found = attempt + 1, job
        return attempt, found

    def resources(self) -> dict[str, float]:
        """Return the resources of all living nodes together."""
        total: dict[str, float] = {}
        try:
            nodes = list_nodes(address=self.address, limit=10_000, timeout=TIMEOUT_S, raise_on_missing_output=False)
        except REFUSALS as error:
            raise JobServerError(f"{self.address} does not tell its resources: {_first_line(error)}") from error
        for node in nodes:
            if node.state == "ALIVE":
                for name, amount in node.resources_total.items():
                    total[name] = total.get(name, 0.0) + amount
        return total

    def submit(self, name: str, command: str, code: Mapping[str, Any], needs: Mapping[str, float]) -> None:
        """Submit a job.

        Args:
            name: that no job has.
            command: of a shell.
            code: ``working_dir``, a folder that is sent along, or the address of one that was; and ``pip``, packages
                that are installed for this job alone.
            needs: resources of the node where it runs; none: it runs on the head node.

        Raises:
            JobServerError: the cluster does not take it.
        """
        needs = dict(needs)
        cpus = needs.pop("CPU", None)
        try:
            self._client.submit_job(
                entrypoint=command,
                submission_id=name,
                runtime_env=dict(code) | {"env_vars": {"RAY_JOB_STOP_WAIT_TIME_S": str(STOP_S)}},
                entrypoint_num_cpus=cpus,
                entrypoint_resources=needs or None,
            )
        except (*REFUSALS, ValueError) as error:
            raise JobServerError(f"{self.address} does not take the job {name}: {_first_line(error)}") from error

    def stop(self, name: str) -> None:
        """End a job, if it runs."""
        try:
            self._client.stop_job(name)
        except REFUSALS as error:
            raise JobServerError(f"{self.address} does not stop {name}: {_first_line(error)}") from error

    def follow(self, name: str) -> int:
        """Print what a job prints until it ends, and return its exit code.

        Raises:
            JobServerError: the cluster has not answered for a minute.
        """
        answered = time.monotonic()
        while True:
            try:
                asyncio.run(self._tail(name))
                job = self.job(name)
            except (*REFUSALS, aiohttp.ClientError) as error:
                if time.monotonic() - answered > LOST_S:
                    raise JobServerError(
                        f"{self.address} no longer answers ({_first_line(error)}): {name} may go on"
                    ) from error
                time.sleep(2)
                continue
            answered = time.monotonic()
            if job is None:
                raise JobServerError(f"{self.address} knows no job {name}: the cluster may have been started again")
            if str(job.status) in ENDED:
                return self._exit_code(name, job)
            time.sleep(1)

    async def _tail(self, name: str) -> None:
        """Print what was not yet printed of a job's log, until it ends or is silent."""
        position, lines = 0, self._client.tail_job_logs(name)
        while True:
            try:
                text = await asyncio.wait_for(anext(lines), SILENT_S)
            except (StopAsyncIteration, TimeoutError):
                return
            shown, position = self._shown.get(name, 0), position + len(text)
            fresh = text[len(text) - max(0, position - shown) :] if position > shown else ""
            print("\n".join(map(printable, fresh.split("\n"))), end="", flush=True)  # noqa: T201
            self._shown[name] = max(shown, position)

    @staticmethod
    def _exit_code(name: str, job: JobDetails) -> int:
        if str(job.status) == "SUCCEEDED":
            return 0
        if str(job.status) == "STOPPED":
            raise JobServerError(f"{name} was stopped")
        if job.driver_exit_code is None:
            lines = (job.message or "").splitlines()
            of_pip = [line for line in lines if line.lstrip().startswith("ERROR:")]  # below a traceback of Ray's
            raise JobServerError(f"{name} failed: {' '.join(' '.join(of_pip or lines).split())[:500]}")
        return int(job.driver_exit_code)


def _silence() -> None:
    """Keep Ray from telling which files it leaves out and when a connection was closed; its modules set own levels."""
    for name in logging.root.manager.loggerDict:
        if name.startswith("ray."):
            logging.getLogger(name).setLevel(logging.ERROR)


def _first_line(error: BaseException) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)[:300]
