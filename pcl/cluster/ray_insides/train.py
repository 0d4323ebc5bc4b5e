"""What Ray Train keeps to itself: how many workers there are, how they meet, what is said of those that die.

A run has W workers, W a divisor of its lanes within the bounds that were asked for. When workers die they start again
on as many nodes as are left; when nodes join, the workers grow at the next checkpoint, so that hardly a step is done
twice. The private names, with the methods of each that are overridden or called, and what happens without them:

- ``TorchTrainer._initialize_and_run_controller``: hands the policies below to Ray Train's controller, and runs it in
  this process. ``TrainController`` with ``worker_group_cls``, ``run`` and ``get_result``, and ``WorkerGroup``, whose
  ``_init_train_context_on_workers`` names the actor of the controller. Without: the policies of Ray Train, in an actor,
  whose process takes three seconds of a CPU to start.
- ``TorchTrainer._create_default_callbacks``, of which ``DatasetsCallback`` and ``PlacementGroupCleanerCallback`` are
  left out: each starts a process, for datasets of Ray and for controllers that die before their job, which do not
  occur here. Without: a training starts so much later.
- ``ElasticScalingPolicy`` with its ``ScalingDecision`` and ``NoopDecision``, and ``available_resources_per_node``: as
  many workers as divide the lanes, on what is free. Without: the number of workers stays as it is from begin to end; a
  run that lost nodes waits for others. ``_maybe_send_resource_request``, ``_send_resource_request``,
  ``_cancel_resource_request`` and ``total_resources_per_node``: in a Ray of our own, where nobody else asks for
  workers, there is no actor that shares them out. Without: a training starts a second later.
- ``DefaultFailurePolicy`` with its ``FailureDecision``: workers that could not form a group, since one of them died
  meanwhile, start again. Without: that ends the run, and the same command goes on.
- ``WorkerGroupCallback`` and ``ReportCallback``: on which node a worker died, and how many go on. Without: which worker
  died, by the public ``UserCallback``.
- ``_TorchBackend`` with ``_set_torch_distributed_env_vars`` and ``_setup_torch_process_group``: workers talk by the
  addresses that Ray gave their nodes, and those of one machine meet in a file. Without: by what a host name stands for,
  and where they meet listens on every interface.
"""

__all__ = ["LaneScalingPolicy", "LaneTrainer", "NodeConfig", "Watcher"]

import asyncio
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import ray
import ray.train
from ray._private.state import available_resources_per_node, total_resources_per_node
from ray.train import ControllerError, WorkerGroupError
from ray.train.torch import TorchConfig, TorchTrainer
from ray.train.torch.config import _set_torch_distributed_env_vars, _setup_torch_process_group, _TorchBackend
from ray.train.v2._internal.callbacks.datasets import DatasetsCallback
from ray.train.v2._internal.callbacks.placement_group_callback import PlacementGroupCleanerCallback
from ray.train.v2._internal.execution.callback import ReportCallback, WorkerGroupCallback
from ray.train.v2._internal.execution.controller import TrainController
from ray.train.v2._internal.execution.failure_handling import DefaultFailurePolicy, FailureDecision
from ray.train.v2._internal.execution.scaling_policy import NoopDecision, ScalingDecision
from ray.train.v2._internal.execution.scaling_policy.elastic import ElasticScalingPolicy
from ray.train.v2._internal.execution.worker_group import WorkerGroup

from pcl.cluster.address import IS_LOCAL
from pcl.cluster.board import notice
from pcl.cluster.connection import fitting, interface_of
from pcl.cluster.failures import final_error, last_line, what_happened
from pcl.errors import RunFailedError

SETTLE_S = 5  # nodes that die are noticed one after another, and so is what dead workers set free
ASK_EVERY_S = 0.5


class LaneWorkerGroup(WorkerGroup):  # type: ignore[misc]
    """Workers whose controller is no actor: they never ask it for the checkpoints of others."""

    def _init_train_context_on_workers(
        self, workers: Sequence[Any], sync_actor: Any, train_context_args: Mapping[str, Sequence[Any]]
    ) -> None:
        started = [
            worker.actor.init_train_context.remote(
                train_run_context=self._train_run_context,
                distributed_context=worker.distributed_context,
                synchronization_actor=sync_actor,
                storage_context=self._storage_context,
                worker_callbacks=self._worker_callbacks_to_propagate,
                controller_actor=None,
                **{name: values[number] for name, values in train_context_args.items()},
            )
            for number, worker in enumerate(workers)
        ]
        ray.get(started)
        self._decorate_worker_log_file_paths(workers)


class LaneController(TrainController):  # type: ignore[misc]
    """A controller in the process that started the job: its end is that of the job."""

    worker_group_cls = LaneWorkerGroup


class LaneTrainer(TorchTrainer):  # type: ignore[misc]
    """A trainer that scales by a policy, and leaves interruptions to Python.

    Args:
        policy: replaces the policy that Ray Train would choose.
        arguments: of ``TorchTrainer``.
    """

    def __init__(self, *arguments: Any, policy: "LaneScalingPolicy", **keywords: Any) -> None:
        super().__init__(*arguments, **keywords)
        self._policy = policy

    def _initialize_and_run_controller(self, **keywords: Any) -> Any:
        failure_policy = LaneFailurePolicy(self.run_config.failure_config)
        policies = {"scaling_policy": self._policy, "failure_policy": failure_policy}
        controller = LaneController(**keywords | policies)
        asyncio.run(controller.run())
        return controller.get_result()

    def _create_default_callbacks(self) -> list[Any]:
        """Return what Ray Train calls, but for what starts processes that have nothing to do."""
        idle = (DatasetsCallback, PlacementGroupCleanerCallback)
        return [one for one in super()._create_default_callbacks() if not isinstance(one, idle)]


class LaneScalingPolicy(ElasticScalingPolicy):  # type: ignore[misc]
    """Starts the largest allowed number of workers that there is room for; gives up when there is none for too long.

    Args:
        scaling_config: of the trainer.
        allowed: numbers of workers, ascending.
        timeout_s: seconds after the start, or after workers died, in which others must run.
    """

    def __init__(self, scaling_config: ray.train.ScalingConfig, allowed: Sequence[int], timeout_s: float) -> None:
        super().__init__(scaling_config)
        self.allowed, self.timeout_s = list(allowed), timeout_s
        self._is_own = IS_LOCAL  # here: processes of a cluster are not told its address
        self._stopped_at: float | None = None  # since when no workers run
        self._said = False
        self._num_reports = 0
        self._own: Mapping[str, int] = {}  # workers by node, dead ones too: they go when others start

    def _maybe_send_resource_request(self) -> None:
        if not self._is_own:
            super()._maybe_send_resource_request()

    def _send_resource_request(self) -> None:
        if not self._is_own:
            super()._send_resource_request()

    def _cancel_resource_request(self) -> None:
        if not self._is_own:
            super()._cancel_resource_request()

    def _get_reserved_resources(self) -> Any:
        """Return the share of this run in the cluster, as it is now and not as it was at the last tick."""
        if self._is_own:
            return total_resources_per_node()
        coordinator = self._autoscaling_coordinator.get_reserved_resources
        try:
            return ray.get(coordinator.remote(self._requester_id, recompute=True), timeout=10)
        except ray.exceptions.RayError:
            return None

    def _count_possible_workers(self, reserved_resources: Mapping[str, Mapping[str, float]]) -> int:
        """Return the largest allowed number that fits on what is reserved and not taken by others, 0 if none does."""
        each, free = self.scaling_config._resources_per_worker_not_none, available_resources_per_node()
        room = 0
        for node, resources in reserved_resources.items():
            room += min(fitting(resources, each), fitting(free.get(node, {}), each) + self._own.get(node, 0))
        return max((w for w in self.allowed if w <= room), default=0)

    def make_decision_for_non_running_worker_group(self) -> ScalingDecision:
        """Start as many workers as possible, once nodes have settled.

        Raises:
            RunFailedError: none could be started in time.
        """
        now, self._num_reports = time.monotonic(), 0
        self._stopped_at = now if self._stopped_at is None else self._stopped_at
        waited_s = now - self._stopped_at
        decision = super().make_decision_for_non_running_worker_group()
        if waited_s > self.timeout_s:
            raise RunFailedError(
                f"no {self._asked()} could be started within {self.timeout_s:g} s: add nodes, or choose fewer "
                "(workers.num_workers) or more patience (workers.resources_timeout_s); the same command goes on from "
                "the newest checkpoint"
            )
        if isinstance(decision, NoopDecision) and not self._said and waited_s > SETTLE_S:
            notice(f"waiting up to {self.timeout_s:g} s for room for {self._asked()}")
            self._said = True
        is_settled = waited_s > SETTLE_S or getattr(decision, "num_workers", 0) == self.allowed[-1]
        if isinstance(decision, NoopDecision) or not is_settled:
            time.sleep(ASK_EVERY_S)  # the controller itself would ask again at once
            return NoopDecision()
        self._own = {}
        return decision

    def make_decision_for_running_worker_group(
        self, worker_group_state: Any, worker_group_status: Any
    ) -> ScalingDecision:
        """Grow right after a checkpoint, which every worker reports once."""
        self._maybe_send_resource_request()
        self._stopped_at, self._said = None, False
        nodes = [worker.metadata.node_id for worker in worker_group_state.workers]
        self._own = {node: nodes.count(node) for node in nodes}
        reports = [status.training_report for status in worker_group_status.worker_statuses.values()]
        self._num_reports += len(reports) - reports.count(None)
        if self._num_reports < worker_group_state.num_workers:
            return NoopDecision()
        self._num_reports = 0
        decision = super().make_decision_for_running_worker_group(worker_group_state, worker_group_status)
        return decision if getattr(decision, "num_workers", 0) > worker_group_state.num_workers else NoopDecision()

    def _asked(self) -> str:
        return f"{self.allowed[0]} worker{'s' * (self.allowed[0] > 1)}"


class LaneFailurePolicy(DefaultFailurePolicy):  # type: ignore[misc]
    """Takes workers that could not form a group, since one of them died meanwhile, for workers that died."""

    def make_decision(self, training_failed_error: Exception) -> FailureDecision:
        """Try again, as often as after other failures, unless that would end the same way."""
        error = training_failed_error
        if isinstance(error, ControllerError) and not self._is_retryable_error(error) and final_error(error) is None:
            notice(f"the workers could not start ({last_line(error)})")
            error = WorkerGroupError(str(error), {0: error})
        return super().make_decision(error)


class Watcher(WorkerGroupCallback, ReportCallback):  # type: ignore[misc]
    """Says which workers died and what comes next, and ends a run whose error a restart cannot mend.

    Args:
        step: that the run goes on from.
    """

    def __init__(self, step: int) -> None:
        self.step = step
        self._nodes: dict[str, str] = {}  # names by id
        self._where: list[str] = []  # ids by rank

    def after_report(self, training_report: Any, metrics: Sequence[Mapping[str, Any]]) -> None:
        """Keep the step of the newest checkpoint."""
        self.step = metrics[0]["step"]

    def after_worker_group_start(self, worker_group: Any) -> None:
        """Say how many workers there are, if there were others before."""
        before, alive = self._nodes, {node["NodeID"] for node in ray.nodes() if node["Alive"]}
        workers = [worker.metadata for worker in worker_group.get_workers()]
        self._nodes = {worker.node_id: f"{worker.node_ip} ({worker.node_id[:8]})" for worker in workers}
        self._where, num_before = [worker.node_id for worker in workers], len(self._where)
        if before:
            gone = "".join(f", node {name} is gone" for node, name in before.items() if node not in alive)
            change = f"{num_before} -> {len(workers)}" if num_before != len(workers) else f"{num_before}"
            notice(f"going on from step {self.step} on {change} worker{'s' * (len(workers) > 1)}{gone}")

    def after_worker_group_poll_status(self, worker_group_status: Any) -> None:
        """Raise the first final error, which Ray Train does not retry; say what else happened.

        Raises:
            BadInputError: and other final errors, of a worker.
        """
        for rank, what in what_happened(worker_group_status.errors).items():
            notice(f"worker {rank} on node {self._nodes[self._where[rank]]} {what}")


class NodeBackend(_TorchBackend):  # type: ignore[misc]
    """Lets the workers talk by the addresses that Ray gave their nodes, and not by what a host name stands for.

    Workers of one machine meet in a file: the store of Ray Train's backend listens on every interface.
    """

    def on_start(self, worker_group: Any, backend_config: "NodeConfig") -> None:
        """Form the process group."""
        worker_group.execute(_use_interface_of_node)
        if not backend_config.folder:
            super().on_start(worker_group, backend_config)
            return
        file = Path(backend_config.folder) / f"group-{uuid4().hex}"
        worker_group.execute(_set_torch_distributed_env_vars)
        started = [
            worker_group.execute_single_async(
                rank,
                _setup_torch_process_group,
                backend="nccl" if worker_group.get_resources_per_worker().get("GPU") else "gloo",
                world_rank=rank,
                world_size=len(worker_group),
                init_method=file.as_uri(),
                timeout_s=backend_config.timeout_s,
            )
            for rank in range(len(worker_group))
        ]
        ray.get(started)


@dataclass
class NodeConfig(TorchConfig):  # type: ignore[misc]
    """Process groups by the addresses of the nodes.

    Args:
        folder: where workers of one machine meet; empty: they are on several.
    """

    folder: str = ""

    @property
    def backend_cls(self) -> type:
        """The backend."""
        return NodeBackend


def _use_interface_of_node() -> None:
    address = ray.util.get_node_ip_address()
    if interface := interface_of(address):
        os.environ.setdefault("GLOO_SOCKET_IFNAME", interface)
        if address.startswith("127."):
            os.environ["NCCL_SOCKET_IFNAME"] = interface
