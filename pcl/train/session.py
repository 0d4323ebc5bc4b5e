"""From a configuration to a running loop, on one worker; without Ray, so it runs under torchrun or alone."""

__all__ = ["Session"]

import ctypes
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor

from pcl.config.identity import experiment_hash
from pcl.config.schema import Config
from pcl.encoders.build import build_model
from pcl.storage.place import Place
from pcl.train.aside import Aside
from pcl.train.checkpoint import checkpoint_content, restore
from pcl.train.clock import Clock
from pcl.train.collectives import broadcast_state, make_workers
from pcl.train.loop import Scalars, TrainingState, make_optimizer, train
from pcl.train.parts import (
    augmentation_of,
    finite_modalities,
    full_experiment,
    load_shards,
    loss_of,
    make_loader,
    model_spec,
    optimisation_of,
)
from pcl.train.profiler import profiled
from pcl.train.tensorboard import Journal

Batch = tuple[Tensor, Tensor]
Commit = Callable[[int, Scalars, Mapping[str, Any] | None], None]


def keep_freed_memory() -> None:
    """Let glibc keep what is freed: faulting the activations in anew costs up to a fifth of every step on CPUs."""
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError, TypeError):  # another C library
        return
    trim_threshold, mmap_threshold = -1, -3  # M_TRIM_THRESHOLD, M_MMAP_THRESHOLD
    mallopt(trim_threshold, 2**31 - 1)
    mallopt(mmap_threshold, 2**30)


@contextmanager
def same_sums() -> Iterator[None]:
    """Have convolutions of a GPU sum in the same order every time: the quickest do not, for a few percent of a step."""
    before = torch.backends.cudnn.deterministic
    torch.backends.cudnn.deterministic = True
    try:
        yield
    finally:
        torch.backends.cudnn.deterministic = before


class Session:
    """One worker's training of one run.

    Args:
        config: the resolved configuration, with absolute paths.
        device: of this worker.
        resume_from: directory of the checkpoint to go on from.
        recorded: the experiment as the run has it, which some other version of this program may have written.

    Raises:
        BadInputError: the configuration does not fit the data or the number of workers.
        DamagedDataError: shards or checkpoint differ from what was promised.
    """

    def __init__(
        self,
        config: Config,
        device: torch.device,
        resume_from: Place | None = None,
        recorded: Mapping[str, Any] | None = None,
    ) -> None:
        if device.type == "cpu":
            keep_freed_memory()
        self.config, self.device, self.clock = config, device, Clock(device)
        self.workers = make_workers(self.clock, equal_batches=True)  # as the lanes give
        self.manifest = manifest = load_shards(config)
        self.loader = make_loader(config, manifest, self.workers.worker_rank, self.workers.num_workers)
        self.spec = model_spec(config, manifest)
        self.experiment = dict(recorded or full_experiment(config))
        self.experiment_hash = experiment_hash(self.experiment)
        self.optimisation = optimisation_of(config, self.loader)
        self.loss = loss_of(config, manifest, device)
        self.finite = finite_modalities(config, manifest)
        self.augment = augmentation_of(config, manifest)
        model = build_model(self.spec, config.seed).to(device)
        broadcast_state(model, self.workers)
        self.state = TrainingState(model, make_optimizer(model, self.optimisation))
        if resume_from is not None:
            restore(self.state, resume_from, self.experiment_hash, self.optimisation.num_steps)

    def run(self, run: Place, commit: Commit, stop: Callable[[], bool] = lambda: False) -> Scalars:
        """Train to the last step, or until some worker is told to stop; a checkpoint is committed there.

        The steps go on while a checkpoint is written and committed; the next one waits for it.

        Args:
            run: the run's directory, for TensorBoard and the progress file of worker 0.
            commit: takes the step, its scalars and, on worker 0, the content of the checkpoint that it must keep
                (``pcl.train.checkpoint``); called in a thread, once at a time.
            stop: returns whether this worker is told to stop.
        """
        leads = self.workers.worker_rank == 0
        journal = Journal(run, self.state.step, self.optimisation.num_steps, self.experiment) if leads else None

        fit, steps = self.train, self.config.workers.profile_steps
        with ExitStack() as stack:
            aside = stack.enter_context(Aside())
            if steps and leads:
                batches = self.loader.batches(self.state.step)
                profiling = stack.enter_context(closing(profiled(batches, self.state.step, steps, run)))
                fit = partial(self.train, batches=profiling)

            def log(step: int, scalars: Scalars) -> None:
                aside.check()
                if journal:
                    journal.log(step, scalars)

            def report(state: TrainingState, scalars: Scalars) -> None:
                content = checkpoint_content(state, self.spec, self.experiment_hash) if leads else None
                aside.do(partial(commit, state.step, dict(scalars), content))

            return fit(log, report, stop)

    def train(
        self,
        log: Callable[[int, Scalars], None],
        report: Callable[[TrainingState, Scalars], None],
        stop: Callable[[], bool] = lambda: False,
        batches: Iterable[Batch] | None = None,
    ) -> Scalars:
        """Train to the last step, or until some worker is told to stop, and keep nothing.

        Args:
            log: receives the step and its scalars, every ``train.log_every`` steps.
            report: receives the state and its scalars, every ``train.checkpoint_every`` steps and after the last.
            stop: returns whether this worker is told to stop.
            batches: of this worker; None: those of its loader.
        """
        with same_sums():
            return train(
                self.state,
                self.loader.batches(self.state.step) if batches is None else batches,
                self.loss,
                self.optimisation,
                workers=self.workers,
                global_batch=self.config.train.global_batch,
                log_every=self.config.train.log_every,
                checkpoint_every=self.config.train.checkpoint_every,
                log=log,
                report=report,
                stop=stop,
                finite=self.finite,
                clock=self.clock,
                augment=self.augment,
            )
