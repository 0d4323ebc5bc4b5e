"""Ray Train by its public interface alone, for a version of Ray whose insides are not known."""

__all__ = ["PublicTrainer", "PublicWatcher"]

import threading
from collections.abc import Mapping, Sequence
from typing import Any

import ray.train
from ray.train.torch import TorchTrainer

from pcl.cluster.board import notice
from pcl.cluster.failures import what_happened


class PublicTrainer(TorchTrainer):  # type: ignore[misc]
    """A trainer that leaves signals to this process: Ray Train takes Ctrl-C where the main thread calls it."""

    def fit(self) -> Any:
        """Train in another thread, and wait here, where a signal is an exception.

        Raises:
            TrainingFailedError: as Ray Train does.
        """
        done: list[Any] = []
        failed: list[BaseException] = []

        def run() -> None:
            try:
                done.append(super(PublicTrainer, self).fit())
            except BaseException as error:
                failed.append(error)

        thread = threading.Thread(target=run, name="trainer", daemon=True)
        thread.start()
        thread.join()
        if failed:
            raise failed[0]
        return done[0]


class PublicWatcher(ray.train.UserCallback):  # type: ignore[misc]
    """Says which workers died, and ends a run whose error a restart cannot mend.

    Args:
        step: that the run goes on from.
    """

    def __init__(self, step: int) -> None:
        self.step = step

    def after_report(self, run_context: Any, metrics: Sequence[Mapping[str, Any]], checkpoint: Any) -> None:
        """Keep the step of the newest checkpoint."""
        self.step = metrics[0]["step"]

    def after_exception(self, run_context: Any, worker_exceptions: Mapping[int, Exception]) -> None:
        """Raise the first final error, which Ray Train does not retry; say what else happened.

        Raises:
            BadInputError: and other final errors, of a worker.
        """
        for rank, what in what_happened(worker_exceptions).items():
            notice(f"worker {rank} {what}: the newest checkpoint is that of step {self.step}")
