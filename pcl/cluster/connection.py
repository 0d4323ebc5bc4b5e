"""The connection to Ray: the cluster a job was submitted to, or a Ray of our own on loopback, behind a token.

Import this module before ray: where Ray listens, and whom it lets in, is decided by environment variables that it reads
when imported.
"""

__all__ = [
    "connected",
    "fitting",
    "interface_of",
    "logs",
    "private_folder",
    "room_for",
    "wait_for_room",
]

import logging
import os
import socket
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from pcl.cluster.address import ADDRESS, IS_LOCAL
from pcl.cluster.failures import first_line
from pcl.cluster.signals import interruptible
from pcl.errors import BadInputError, RunFailedError

CONNECT_TIMEOUT_S = 10  # Ray itself tries for minutes
if IS_LOCAL:
    os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"  # every listener on 127.0.0.1
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    os.environ["RAY_AUTH_MODE"] = "token"
    # ports that ask nobody for a token: no metrics, and no such port
    os.environ["RAY_enable_metrics_collection"] = "0"  # noqa: SIM112
    os.environ["AUTOSCALER_METRIC_PORT"] = os.environ["DASHBOARD_METRIC_PORT"] = "65536"
    os.environ["RAY_JOB_STOP_SIGNAL"] = "SIGINT"  # the only one that the jobs of a Ray of our own get
    os.environ.pop("RAY_AUTH_TOKEN", None)  # it would win over the file
    if ADDRESS in ("auto", "local"):
        del os.environ["RAY_ADDRESS"]

import ray  # noqa: E402

from pcl.cluster.own_ray import keep_logs, own_ray, private_folder, signals_wait  # noqa: E402
from pcl.cluster.ray_insides import takes_token  # noqa: E402


@contextmanager
def connected(num_cpus: int, *, dashboard: bool = False) -> Iterator[None]:
    """Connect to Ray for a block.

    A submitted job finds its cluster in ``RAY_ADDRESS``, and its token as Ray does. Otherwise Ray starts on this
    machine, listens on loopback only, lets in only who has a token that it makes up, and ends with the block.

    Args:
        num_cpus: CPUs that the block needs; a Ray of our own offers at least as many.
        dashboard: whether a Ray of our own has one, to which jobs can be submitted.

    Raises:
        RunFailedError: the cluster cannot be reached, or refuses the token.
        Interrupted: in the block, when the process is asked to end.
    """
    with interruptible(), own_ray(num_cpus, dashboard=dashboard) if IS_LOCAL else _submitted():
        yield


@contextmanager
def _submitted() -> Iterator[None]:
    """Connect to the cluster that this job was submitted to."""
    _check_reachable()
    with signals_wait():
        try:
            ray.init(address=ADDRESS, log_to_driver=False, logging_level=logging.ERROR)
        except Exception as error:  # Ray's own is of no narrower kind
            if str(error).startswith("Version mismatch"):
                raise RunFailedError(
                    f"this job's Python, {sys.executable}, is not the one that Ray runs with: start Ray on the nodes "
                    "with that one first on PATH, or pcl submit --install lets it run the job "
                    f"({' '.join(str(error).split())[:300]})"
                ) from error
            raise RunFailedError(f"cannot connect to Ray at {ADDRESS}: {first_line(error)}") from error
    try:
        yield
    finally:
        with signals_wait():
            ray.shutdown()


def logs() -> str:
    """Where people find what Ray wrote about this job: those of a Ray of our own are kept for that."""
    return f"{keep_logs()}" if IS_LOCAL else "/tmp/ray/session_latest/logs of the nodes"


def _check_reachable() -> None:
    """Refuse an address where nobody listens or our token is not known: Ray itself would try for minutes.

    Raises:
        BadInputError: it is no address.
        RunFailedError: it does not answer, or refuses the token.
    """
    host, _, port = ADDRESS.removeprefix("ray://").rpartition(":")
    if not port.isdigit():
        raise BadInputError(f"RAY_ADDRESS={ADDRESS}: give host:port of the cluster's head")
    try:
        socket.create_connection((host.strip("[]"), int(port)), CONNECT_TIMEOUT_S).close()
    except OSError as error:
        raise RunFailedError(
            f"no Ray cluster answers at RAY_ADDRESS={ADDRESS} ({error}): start it, or unset RAY_ADDRESS to run on this "
            "machine alone"
        ) from error
    if not takes_token(f"{host}:{port}"):
        raise RunFailedError(
            f"Ray at {ADDRESS} refuses the token of this process: give the cluster's, with RAY_AUTH_MODE=token and the "
            "file of the token in RAY_AUTH_TOKEN_PATH"
        )


def room_for(each: Mapping[str, float]) -> int:
    """Return how many workers the nodes of the cluster have room for, whatever runs there now.

    Args:
        each: resources of one worker, such as ``{"CPU": 2, "GPU": 1}``, which it needs on one node.
    """
    return sum(fitting(node["Resources"], each) for node in ray.nodes() if node["Alive"])


def fitting(node: Mapping[str, float], each: Mapping[str, float]) -> int:
    """Return how many workers fit on a node.

    Example:
        >>> fitting({"CPU": 7.0, "GPU": 2.0}, {"CPU": 2, "GPU": 1}), fitting({"memory": 1e9}, {"CPU": 1})
        (2, 0)
    """
    return int(min(node.get(resource, 0) // amount for resource, amount in each.items()))


def interface_of(address: str) -> str | None:
    """Return the name of this machine's network interface with an address, None where there is none.

    Example:
        >>> interface_of("203.0.113.1")
    """
    import psutil  # type: ignore[import-untyped]  # Ray brings it, and adds it to the path when it is imported

    interfaces = psutil.net_if_addrs().items()
    return next((name for name, found in interfaces if address in [one.address for one in found]), None)


def wait_for_room(each: Mapping[str, float], num_workers: int, timeout_s: float, what: str = "workers") -> None:
    """Wait until the cluster has room for a number of workers; a cluster that grows is asked to.

    Args:
        each: resources of one worker.
        num_workers: as many as there must be room for.
        timeout_s: seconds to wait; not at all for a Ray of our own, which does not grow.
        what: the word for them.

    Raises:
        BadInputError: there is no such room.
    """
    if room_for(each) >= num_workers:
        return
    wanted = " and ".join(f"{amount:g} {resource}{'s' * (amount != 1)}" for resource, amount in each.items())
    if not IS_LOCAL and timeout_s > 0:
        print(  # noqa: T201
            f"waiting up to {timeout_s:g} s for room for {num_workers} {what} with {wanted} each: there is room "
            f"for {room_for(each)}",
            flush=True,
        )
        ray.autoscaler.sdk.request_resources(bundles=[dict(each)] * num_workers)
        try:
            deadline = time.monotonic() + timeout_s
            while room_for(each) < num_workers and time.monotonic() < deadline:
                time.sleep(1)
        finally:
            ray.autoscaler.sdk.request_resources(bundles=[])  # from here on the run asks for itself
    if (room := room_for(each)) < num_workers:
        smaller = "choose fewer or smaller workers (workers.num_workers, cpus_per_worker, use_gpu) or "
        raise BadInputError(
            f"{num_workers} {what} need {wanted} each, on one node, and the cluster has room for {room} of them: "
            f"{smaller if what == 'workers' else ''}add nodes"
        )
