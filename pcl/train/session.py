"""From a configuration to a running loop, on one worker; without Ray, so it runs under torchrun or alone."""

__all__ = ["Session"]

import ctypes
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import replace
from functools import cached_property, partial
from typing import Any

import torch
from torch import Tensor

from pcl.config.identity import experiment_hash
from pcl.config.schema import Config
from pcl.encoders.build import build_model
from pcl.encoders.compiled import compiled
from pcl.encoders.recompute import recompute_blocks
from pcl.model import PairModel
from pcl.storage.place import Place
from pcl.train.ahead import gathers_ahead
from pcl.train.aside import Aside
from pcl.train.checkpoint import checkpoint_content, restore
from pcl.train.clock import Clock
from pcl.train.collectives import broadcast_state, make_workers
from pcl.train.first import FirstWeights, begin_with
from pcl.train.gradient import Encoders
from pcl.train.longer import earlier_hashes
from pcl.train.loop import Scalars, TrainingState, make_optimizer, train
from pcl.train.loss import known_marginals, loss_of
from pcl.train.parts import (
    augmentation_of,
    begin_encoders,
    first_weights,
    full_experiment,
    load_shards,
    make_loader,
    model_spec,
    optimisation_of,
)
from pcl.train.profiler import profiled
from pcl.train.runs import recorded_experiment
from pcl.train.tensorboard import Journal
from pcl.train.tried import tried_model, try_loss
from pcl.train.validation import Validation, plan_validation

Batch = Sequence[Tensor]
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
        earlier: hashes of that experiment as it was with fewer epochs.
        first: weights of another model to begin with; None: those that the configuration names, if it does.

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
        earlier: Collection[str] = (),
        first: FirstWeights | None = None,
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
        if resume_from is None:
            try_loss(config.loss.kind, self.loss, self.spec, config.train.global_batch // self.workers.num_workers)
        self.marginals = known_marginals(config, manifest, device)
        self.augment = augmentation_of(config, manifest)
        model = (tried_model if resume_from is None else build_model)(self.spec, config.seed)
        self.begun_with: list[str] = []  # lines on what of the first weights is another model's
        if resume_from is None and (first := first or first_weights(config)) is not None:
            self.begun_with = begin_with(model, first)
        if resume_from is None and self.workers.worker_rank == 0:
            begin_encoders(model, config, manifest)  # after the first weights: what is kept is of these data
        model.to(device)
        broadcast_state(model, self.workers)
        self.optimisation = replace(self.optimisation, v_first=self._gathers_ahead(model))
        if config.train.recompute:
            recompute_blocks(model)
        self.state = TrainingState(model, make_optimizer(model, self.optimisation), encoders=self._compiled(model))
        if resume_from is not None:
            restore(self.state, resume_from, self.experiment_hash, self.optimisation.num_steps, earlier)

    def _gathers_ahead(self, model: PairModel) -> bool:
        """Return whether v is encoded first, so that its features are gathered meanwhile."""
        train, loss, num_workers = self.config.train, self.config.loss, self.workers.num_workers
        if train.chunk_pairs or self.marginals:
            return False
        return gathers_ahead(model, loss.kind, loss.mode, train.global_batch // num_workers, num_workers)

    def _compiled(self, model: PairModel) -> Encoders | None:
        """Return what a step runs instead of the encoders: these, compiled, if that is asked for."""
        if not self.config.train.compile:
            return None
        return compiled(model.encoder_u, self.device), compiled(model.encoder_v, self.device)

    @classmethod
    def of_run(cls, config: Config, device: torch.device, run: Place, resume_from: Place | None) -> "Session":
        """Return the session of a run: its experiment as it is recorded, and the first weights that it keeps.

        Raises:
            BadInputError: the run has another experiment by now, or see ``Session``.
        """
        recorded = recorded_experiment(run, full_experiment(config))
        first = first_weights(config, run) if resume_from is None else None
        return cls(config, device, resume_from, recorded, earlier_hashes(run), first)

    @cached_property
    def validation(self) -> Validation:
        """The held-out loss; on the test split where nothing is held out."""
        config = self.config
        return Validation(
            config.shard_root,
            self.manifest,
            plan_validation(self.manifest, config.train.validation_fraction, config.train.global_batch),
            config.train.global_batch,
            config.seed,
            self.loss,
            marginals=self.marginals,
            bf16=self.optimisation.bf16,
            workers=self.workers,
            device=self.device,
        )

    def is_validated(self, step: int) -> bool:
        """Return whether the held-out loss is taken after a step: as often as asked, and to choose a checkpoint by."""
        train = self.config.train
        every = [train.validate_every] if train.validate_every else []
        if train.validation_fraction:
            every.append(train.checkpoint_every)
        return any(step % some == 0 or step == self.optimisation.num_steps for some in every)

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
                marginals=self.marginals,
                clock=self.clock,
                augment=self.augment,
                validate=lambda model: self.validation(model),
                is_validated=self.is_validated,
            )
