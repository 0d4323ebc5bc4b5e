"""One run of a sweep, from its configuration to its evaluation, in a task of Ray."""

__all__ = ["Item", "is_evaluated", "is_trained", "whole_run"]

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from pcl.cluster.board import is_asked_to_stop, notice
from pcl.commands import evaluate
from pcl.commands.train import begin
from pcl.config.load import Config, resolved_yaml
from pcl.config.validation import allowed_workers
from pcl.errors import DamagedDataError, RunFailedError
from pcl.plugins.loading import Plugin, run_plugins
from pcl.storage.lease import Lease
from pcl.storage.place import Place, place
from pcl.storage.stored import read_sealed
from pcl.train.checkpoint import checkpoint_name, is_whole
from pcl.train.parts import full_experiment, keep_first_weights
from pcl.train.runs import checkpoints, claim, sweep

if TYPE_CHECKING:
    from pcl.cluster.worker import Asked


@dataclass(frozen=True)
class Item:
    """A run as a task gets it.

    Attributes:
        config: of the run.
        steps: of the whole training.
        plugins: that the configuration names, as they were read.
    """

    config: Config
    steps: int
    plugins: Sequence[Plugin] = ()

    @property
    def name(self) -> str:
        """The name of the run."""
        return self.config.name

    @property
    def num_workers(self) -> int:
        """Workers of the run: the fewest that it allows, as runs share the cluster."""
        return allowed_workers(self.config)[0]

    @property
    def run(self) -> Place:
        """The folder of the run."""
        return place(self.config.storage) / self.config.name


def is_trained(item: Item) -> bool:
    """Return whether a run has its last checkpoint."""
    return checkpoint_name(item.steps) in [path.name for path in checkpoints(item.run) if is_whole(path)]


def is_evaluated(item: Item) -> bool:
    """Return whether the last checkpoint of a run has its evaluation."""
    folder, part = item.run / "evaluations" / checkpoint_name(item.steps), evaluate.part_of(item.config)
    try:
        found = read_sealed((folder / part if part else folder) / "metrics.json", dict[str, Any], "evaluate again")
    except DamagedDataError:
        return False
    return found is not None


def whole_run(_: object, item: Item) -> float | None:
    """Train a run from where it is, and evaluate it; what is done is not done again.

    Returns:
        Seconds that its evaluation took; None where it was told to stop, and is not finished.

    Raises:
        RunFailedError: or whatever else ends a training or an evaluation.
    """
    from pcl.cluster.worker import Asked  # imports ray.train, which takes seconds

    if is_asked_to_stop():
        return None
    run_plugins(item.plugins)
    asked = Asked()
    try:
        if not is_trained(item):
            _train(item, asked)
        if asked.to_stop.is_set():
            return None
        began = time.monotonic()
        if not is_evaluated(item):
            evaluated = replace(item.config.evaluation, checkpoint=checkpoint_name(item.steps))
            evaluate.main(replace(item.config, evaluation=evaluated))
        return time.monotonic() - began
    finally:
        asked.end()


def _train(item: Item, asked: "Asked") -> None:
    """Train a run as the only job of its name, in this process if it has one worker."""
    import torch

    from pcl.cluster.alone import fit_alone
    from pcl.cluster.worker import fit

    config, run, began = item.config, item.run, time.monotonic()
    torch.set_num_threads(config.workers.cpus_per_worker)
    claim(run, full_experiment(config), resolved_yaml(config))
    with Lease(run / "lease", f"the run {item.name}", "wait for its end") as lease:
        keep_first_weights(config, run)
        step = begin(run, lambda line: notice(f"{item.name}: {line}"))
        notice(f"{item.name}: training from step {step} of {item.steps}")
        if item.num_workers == 1:
            fit_alone(config, run, step, lambda: asked.to_stop.is_set() or lease.is_lost, notice)
        else:
            workers = replace(config.workers, num_workers=item.num_workers)
            fit(replace(config, workers=workers), run, step)
        if not lease.is_lost:
            sweep(run)
    if lease.is_lost:
        raise RunFailedError(f"another job trains {item.name} now: this one gives way")
    if is_trained(item):
        notice(f"{item.name}: trained in {time.monotonic() - began:.0f} s")
