"""All that Ray does not promise: the private names that are used, each with why, and what happens without it.

They were written for one minor version of Ray, ``WRITTEN_FOR``. Under another none of them is touched, the public
interface alone is used, and ``missing`` says in a line what that costs. Those of Ray Train stand in ``train``, which is
imported where a training starts. Two things that are no names of Python stand elsewhere: environment variables, which
another version ignores (``pcl.cluster.connection``), and the record of committed checkpoints, whose JSON is that of
Ray 2.58 to 2.60 and which counts as lost where it is another (``pcl.train.runs``).

Of Ray itself:

- ``ray._private.parameter.RayParams``: the port of the agent that runs jobs is the same for all Rays of a machine, and
  ``ray.init`` has no argument for it. Without: jobs run in one Ray of a machine only, so a second head waits. Nor has
  it one for the monitor of a cluster that grows and that of logs that nobody is shown. Without: two processes more.
  Nor for the program that begins a worker (``pcl.cluster.begin_worker``). Without: each imports for three seconds.
- ``ray._private.services.start_api_server``: starts the dashboard, also where there is to be none. Without: a process
  more, that Ray waits for.
- ``ray._private.worker.print_to_stdstream``: without, pages of logs when a part of Ray is killed.
- ``ray._private.worker._global_node.kill_all_processes``: ends a Ray of our own at once. Without: Ray asks each of its
  processes by a signal that none gets, and waits; it ends a second later.
- ``get_auth_headers_if_auth_enabled`` and the service ``CheckAlive``: whether a cluster takes our token. Without: Ray
  itself finds out, after minutes, in its own words.
- ``JobSubmissionClient._do_request``: gives requests an end. Without: a silent server is waited for for ever.
"""

__all__ = [
    "IS_WRITTEN_FOR",
    "WRITTEN_FOR",
    "job_client",
    "kill_at_once",
    "lean_start",
    "missing",
    "say_no_logs",
    "takes_token",
]

import functools
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import ray
import ray.exceptions

from pcl.cluster import begin_worker

WRITTEN_FOR = "2.60"
IS_WRITTEN_FOR = ray.__version__.startswith(f"{WRITTEN_FOR}.")
TIMEOUT_S = 20  # of a request about jobs
ANSWER_S = 10  # of a cluster that is asked whether it takes a token


def missing(num_workers: int) -> str:
    """Return what people are told of a training under another version of Ray.

    Args:
        num_workers: that it has.
    """
    return (
        f"Ray {ray.__version__} is not {WRITTEN_FOR}: its public interface alone is used, with {num_workers} "
        f"worker{'s' * (num_workers > 1)} from begin to end (no elastic workers), by the addresses that host names "
        "stand for, on a port of every interface, and without the names of nodes that go; the weights are the same"
    )


@contextmanager
def lean_start(*, dashboard: bool) -> Iterator[None]:
    """Let a Ray that starts in a block take a free port for its agent, begin copies as workers, and nothing unneeded.

    Args:
        dashboard: whether it has one.
    """
    if not IS_WRITTEN_FOR:
        yield
        return
    from ray._private import parameter, services

    parameters, start_api_server = parameter.RayParams, services.start_api_server
    needed: dict[str, Any] = {"dashboard_agent_listen_port": 0, "no_monitor": True, "include_log_monitor": False}
    needed["setup_worker_path"] = begin_worker.__file__
    parameter.RayParams = functools.partial(parameters, **needed)
    if not dashboard:
        services.start_api_server = lambda *_, **__: ("", None)
    try:
        yield
    finally:
        parameter.RayParams, services.start_api_server = parameters, start_api_server


def say_no_logs() -> None:
    """Keep Ray from printing the logs of its parts when one is killed."""
    if IS_WRITTEN_FOR:
        ray._private.worker.print_to_stdstream = lambda *_, **__: None


def kill_at_once() -> None:
    """Let the Ray that this process started end without asking its processes, at its shutdown."""
    if IS_WRITTEN_FOR:
        node = ray._private.worker._global_node
        kill = node.kill_all_processes
        node.kill_all_processes = lambda **_: kill(check_alive=False, allow_graceful=False)


def takes_token(address: str) -> bool:
    """Return whether a cluster takes the token of this process; True where that cannot be asked.

    Args:
        address: ``host:port`` of its control service.
    """
    if not IS_WRITTEN_FOR:
        return True
    import grpc  # type: ignore[import-untyped]  # Ray brings it
    from ray._private.authentication.http_token_authentication import get_auth_headers_if_auth_enabled

    try:
        headers = get_auth_headers_if_auth_enabled({})
        with grpc.insecure_channel(address) as channel:
            check = channel.unary_unary("/ray.rpc.NodeInfoGcsService/CheckAlive")
            check(b"", timeout=ANSWER_S, metadata=[(name.lower(), text) for name, text in headers.items()])
    except grpc.RpcError as error:
        return bool(error.code() != grpc.StatusCode.UNAUTHENTICATED)  # of all else Ray has more to say
    except (RuntimeError, ray.exceptions.RayError):  # there is no token
        return False
    return True


def job_client(address: str) -> Any:
    """Return Ray's client of the jobs of a cluster, whose requests end.

    Args:
        address: of its dashboard, or of the cluster itself.
    """
    from ray.job_submission import JobSubmissionClient

    if not IS_WRITTEN_FOR:
        return JobSubmissionClient(address)

    class Client(JobSubmissionClient):  # type: ignore[misc]
        def _do_request(self, method: str, endpoint: str, **options: Any) -> Any:
            return super()._do_request(method, endpoint, timeout=TIMEOUT_S, **options)

    return Client(address)
