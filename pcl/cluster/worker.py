"""Ray Train calls the loop: the function that runs on every worker, and the trainer that starts the workers."""

__all__ = ["Asked", "check_resources", "fit", "train_function", "worker_resources"]

import pcl.cluster.connection  # noqa: F401 - before ray

# isort: split
import math
import os
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ray
import ray.train
import torch
from ray.train import CheckpointUploadMode
from ray.train.torch import TorchConfig, TorchTrainer, get_device

from pcl.cluster.address import IS_LOCAL
from pcl.cluster.alone import save, with_gpu
from pcl.cluster.board import is_asked_to_stop, notice, open_board
from pcl.cluster.connection import interface_of, logs, private_folder, room_for, wait_for_room
from pcl.cluster.failures import final_error, last_line
from pcl.cluster.files import patient_files
from pcl.cluster.ray_insides import IS_WRITTEN_FOR, missing
from pcl.config.load import Config
from pcl.config.validation import allowed_workers
from pcl.errors import RunFailedError
from pcl.plugins.loading import loaded, run_plugins
from pcl.storage.place import Place
from pcl.train.checkpoint import checkpoint_name
from pcl.train.loop import Scalars
from pcl.train.session import Session

ASK_EVERY_S = 0.5
POLL_S = 0.25  # between two looks of Ray Train at its workers, which commit a checkpoint; its own 2 s make them wait
PLACEMENT_TIMEOUT_S = 10  # then Ray Train looks again at what nodes there are


def train_function(arguments: dict[str, Any]) -> None:
    """Train on one worker of Ray Train, from the newest committed checkpoint if there is one."""
    config: Config = arguments["config"]
    run_plugins(arguments["plugins"])
    torch.set_num_threads(config.workers.cpus_per_worker)
    run: Place = arguments["run"]
    checkpoint = ray.train.get_checkpoint()
    asked = Asked()
    session = Session.of_run(config, get_device(), run, run / Path(checkpoint.path).name if checkpoint else None)
    files, path = patient_files(run, config.workers.storage_timeout_s)

    def commit(step: int, scalars: Scalars, content: Mapping[str, Any] | None) -> None:
        name, kept = checkpoint_name(step), None
        if content is not None:
            save(config, run, step, scalars, content, notice)
            kept = ray.train.Checkpoint(f"{path}/{name}", files)
        ray.train.report(
            {"step": step, **scalars},
            checkpoint=kept,
            checkpoint_dir_name=name,
            checkpoint_upload_mode=CheckpointUploadMode.NO_UPLOAD,
        )

    session.run(run, commit, stop=asked.to_stop.is_set)


class Asked:
    """Looks aside, again and again, whether the job is asked to stop.

    Attributes:
        to_stop: set once it is.
    """

    def __init__(self) -> None:
        self.to_stop, self._over = threading.Event(), threading.Event()
        threading.Thread(target=self._look, name="asked", daemon=True).start()

    def _look(self) -> None:
        while not self._over.is_set() and not is_asked_to_stop():
            self._over.wait(ASK_EVERY_S)
        if not self._over.is_set():
            self.to_stop.set()

    def end(self) -> None:
        """Look no more."""
        self._over.set()


def fit(config: Config, run: Place, step: int = 0) -> None:
    """Train a run with Ray Train on the cluster this process is connected to.

    Args:
        config: the resolved configuration; ``check_resources`` has decided on GPUs.
        run: the run's place; its parent is Ray Train's storage path.
        step: that the run goes on from, for what is said when workers die.

    Raises:
        DamagedDataError: a shard differs from its manifest.
        RunFailedError: workers died more often than ``workers.max_failures``, could not start in time, or storage
            refused for longer than ``workers.storage_timeout_s``.
    """
    os.environ.setdefault("RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S", str(PLACEMENT_TIMEOUT_S))
    os.environ.setdefault("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", str(POLL_S))
    if IS_LOCAL:  # nobody takes this machine away; it is a process more, that looks for that
        os.environ.setdefault("RAY_TRAIN_ENABLE_PREEMPTION_WATCHER", "0")
    open_board()
    try:
        (_elastic if IS_WRITTEN_FOR else _fixed)(config, run, step).fit()
    except (ray.train.TrainingFailedError, ray.exceptions.RayError) as error:  # the latter: the controller died
        if (final := final_error(error)) is not None:
            raise final from error
        failures = list(getattr(error, "worker_failures", {}).values())
        raise RunFailedError(
            f"training ended early ({last_line([*failures, error][0])}): Ray's logs, in {logs()}, "
            "hold the traceback; the same command goes on from the newest checkpoint"
        ) from error


def _elastic(config: Config, run: Place, step: int) -> TorchTrainer:
    """Return the trainer that all is known of: the number of workers follows the nodes."""
    from pcl.cluster.ray_insides.train import LaneScalingPolicy, LaneTrainer, NodeConfig, Watcher

    workers, allowed = config.workers, allowed_workers(config)
    scaling = ray.train.ScalingConfig(
        num_workers=(allowed[0], allowed[-1]),
        elastic_resize_monitor_interval_s=0,  # the policy looks after every checkpoint
        **_resources(config),
    )
    return LaneTrainer(
        train_function,
        policy=LaneScalingPolicy(scaling, allowed, workers.start_timeout_s + workers.resources_timeout_s),
        train_loop_config=_arguments(config, run),
        torch_config=NodeConfig(
            timeout_s=workers.collective_timeout_s, folder=str(private_folder()) if IS_LOCAL else ""
        ),
        scaling_config=scaling,
        # the policy limits the time without workers, so there is no need to count what keeps them from starting
        run_config=_run_config(
            config,
            run,
            callbacks=[Watcher(step)],
            controller_failure_limit=-1,
            logging_config=ray.train.LoggingConfig(log_level="CRITICAL"),  # in files is all
        ),
    )


def _fixed(config: Config, run: Place, step: int) -> TorchTrainer:
    """Return a trainer by the public interface: as many of the allowed workers as there is room for, until the end."""
    from pcl.cluster.public_train import PublicTrainer, PublicWatcher

    workers, allowed = config.workers, allowed_workers(config)
    room = room_for(worker_resources(config))
    num_workers = max((number for number in allowed if number <= room), default=allowed[0])
    print(missing(num_workers), flush=True)  # noqa: T201
    patience_s = workers.start_timeout_s + workers.resources_timeout_s
    loopback = interface_of("127.0.0.1") if IS_LOCAL else None
    return PublicTrainer(
        train_function,
        train_loop_config=_arguments(config, run),
        torch_config=TorchConfig(timeout_s=workers.collective_timeout_s),
        scaling_config=ray.train.ScalingConfig(num_workers=num_workers, **_resources(config)),
        run_config=_run_config(
            config,
            run,
            callbacks=[PublicWatcher(step)],
            controller_failure_limit=math.ceil(patience_s / PLACEMENT_TIMEOUT_S),
            worker_runtime_env={"env_vars": {"GLOO_SOCKET_IFNAME": loopback}} if loopback else None,
        ),
    )


def _arguments(config: Config, run: Place) -> dict[str, Any]:
    """Return what both trainers give to every worker."""
    return {"config": config, "run": run, "plugins": loaded(config.plugins)}


def _resources(config: Config) -> dict[str, Any]:
    """Return what both trainers ask for each worker."""
    return {"use_gpu": bool(config.workers.use_gpu), "resources_per_worker": worker_resources(config)}


def _run_config(config: Config, run: Place, *, controller_failure_limit: int, **other: Any) -> ray.train.RunConfig:
    """Return what both trainers are told of the run."""
    workers, has_ray_name = config.workers, run.name.isascii()
    # Ray's metrics cannot have another name, and "." is the run's own folder
    files, path = patient_files(run.parent if has_ray_name else run, workers.storage_timeout_s)
    return ray.train.RunConfig(
        name=run.name if has_ray_name else ".",
        storage_path=path,
        storage_filesystem=files,
        checkpoint_config=ray.train.CheckpointConfig(num_to_keep=workers.num_checkpoints),
        failure_config=ray.train.FailureConfig(
            max_failures=workers.max_failures, controller_failure_limit=controller_failure_limit
        ),
        **other,
    )


def worker_resources(config: Config) -> dict[str, int]:
    """Return what one worker reserves, on one node."""
    return {"CPU": config.workers.cpus_per_worker} | ({"GPU": 1} if config.workers.use_gpu else {})


def check_resources(config: Config) -> Config:
    """Decide on GPUs, and wait for a cluster to have what the fewest allowed workers need.

    Returns:
        The configuration with ``workers.use_gpu`` true or false.

    Raises:
        BadInputError: the cluster has not got it within ``workers.resources_timeout_s``.
    """
    workers = config.workers
    config = with_gpu(config, workers.use_gpu is None and room_for({"GPU": 1}) > 0)
    wait_for_room(worker_resources(config), allowed_workers(config)[0], workers.resources_timeout_s)
    return config
