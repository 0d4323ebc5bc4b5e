"""Ray Train calls the loop: the function that runs on every worker, and the trainer that starts the workers."""

__all__ = ["check_resources", "fit", "train_function"]

import os
import signal
import threading
from pathlib import Path
from typing import Any

import ray
import ray.train
import torch
from ray.train.torch import TorchConfig, TorchTrainer, get_device

from pcl.config import Config
from pcl.errors import BadInputError, DamagedDataError, RunFailedError
from pcl.train.checkpoint import checkpoint_name
from pcl.train.loop import Scalars
from pcl.train.session import Session

FINAL_ERRORS = (BadInputError, DamagedDataError, FloatingPointError)  # trying again would end the same way


def train_function(arguments: dict[str, Any]) -> None:
    """Train on one worker of Ray Train, from the newest committed checkpoint if there is one."""
    config: Config = arguments["config"]
    torch.set_num_threads(config.workers.cpus_per_worker)
    checkpoint = ray.train.get_checkpoint()
    session = Session(config, get_device(), Path(checkpoint.path) if checkpoint else None)

    def commit(step: int, scalars: Scalars, directory: Path | None) -> None:
        kept = ray.train.Checkpoint.from_directory(directory) if directory else None
        ray.train.report({"step": step, **scalars}, checkpoint=kept, checkpoint_dir_name=checkpoint_name(step))

    session.run(Path(arguments["run"]), commit)


class StopAtFinalErrors(ray.train.UserCallback):  # type: ignore[misc]
    """Ends a run whose error a restart cannot mend, instead of restarting its workers."""

    def after_exception(self, run_context: Any, worker_exceptions: dict[int, Exception]) -> None:
        """Raise the first final error; Ray Train does not retry what a callback raises."""
        for error in worker_exceptions.values():
            if (final := final_error(error)) is not None:
                raise final


def final_error(error: BaseException | None) -> Exception | None:
    """Return the final error that caused an error of Ray's, if any."""
    seen: set[int] = set()
    queue = [error]
    while queue:
        current = queue.pop()
        if current is None or id(current) in seen:
            continue
        seen.add(id(current))
        for kind in FINAL_ERRORS:
            if isinstance(current, kind):
                return kind(str(current)) if type(current) is not kind else current
        queue += [current.__cause__, getattr(current, "controller_failure", None)]
        queue += list(getattr(current, "worker_failures", {}).values())
    return None


def fit(config: Config, run: Path) -> None:
    """Train a run with Ray Train on the cluster this process is connected to.

    Args:
        config: the resolved configuration.
        run: the run's directory; its parent is Ray Train's storage path.

    Raises:
        KeyboardInterrupt: interrupted.
        DamagedDataError: a shard differs from its manifest.
        RunFailedError: workers died more often than ``workers.max_failures``, or did not start in time.
    """
    workers = config.workers
    os.environ.setdefault("RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S", str(workers.start_timeout_s))
    trainer = TorchTrainer(
        train_function,
        train_loop_config={"config": config, "run": str(run)},
        torch_config=TorchConfig(timeout_s=workers.collective_timeout_s),
        scaling_config=ray.train.ScalingConfig(
            num_workers=workers.num_workers,
            use_gpu=workers.use_gpu,
            resources_per_worker={"CPU": workers.cpus_per_worker} | ({"GPU": 1} if workers.use_gpu else {}),
        ),
        run_config=ray.train.RunConfig(
            name=run.name,
            storage_path=str(run.parent),
            checkpoint_config=ray.train.CheckpointConfig(num_to_keep=workers.num_checkpoints),
            failure_config=ray.train.FailureConfig(max_failures=workers.max_failures, controller_failure_limit=1),
            callbacks=[StopAtFinalErrors()],
        ),
    )
    handler = signal.getsignal(signal.SIGINT)
    try:
        trainer.fit()
    except SystemExit as error:  # Ray's own handler of an interruption
        raise KeyboardInterrupt from error
    except ray.train.TrainingFailedError as error:
        if (final := final_error(error)) is not None:
            raise final from error
        raise RunFailedError(
            f"training ended early ({_reason(error)}): Ray's logs, in /tmp/ray/session_latest/logs, hold the "
            "traceback; the same command goes on from the newest checkpoint"
        ) from error
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGINT, handler)


def _reason(error: BaseException) -> str:
    """Return the kind of a failure and the last line of what it says: the exception without its traceback."""
    failures = list(getattr(error, "worker_failures", {}).values())
    cause = failures[0] if failures else error
    lines = [line.strip() for line in str(cause).splitlines() if line.strip()]
    return ": ".join([type(cause).__name__, *lines[-1:]])


def check_resources(config: Config) -> None:
    """Refuse what the cluster has not got.

    Raises:
        BadInputError: fewer CPUs or GPUs than the workers need.
    """
    workers, have = config.workers, ray.cluster_resources()
    need = {"CPU": workers.num_workers * workers.cpus_per_worker}
    need |= {"GPU": workers.num_workers} if workers.use_gpu else {}
    for resource, amount in need.items():
        if have.get(resource, 0) < amount:
            raise BadInputError(
                f"{workers.num_workers} workers need {amount} {resource}s, the cluster has {have.get(resource, 0):g}: "
                "choose fewer workers (workers.num_workers) or a larger cluster"
            )
