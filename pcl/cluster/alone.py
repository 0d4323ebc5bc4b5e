"""A training whose only worker is this process: starting Ray takes longer than many a training."""

__all__ = ["Here", "fit_alone", "is_alone", "save", "until_it_works", "with_gpu"]

import posixpath
import threading
import traceback
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import replace
from functools import partial
from typing import Any, TypeVar

import torch

from pcl.cluster.address import IS_LOCAL
from pcl.cluster.failures import FINAL_ERRORS, last_line
from pcl.cluster.signals import interruptible
from pcl.cluster.template import end_template
from pcl.config.load import Config
from pcl.config.validation import allowed_workers
from pcl.errors import BadInputError, RunFailedError
from pcl.plugins.loading import place_of
from pcl.storage.place import Place, patiently
from pcl.train.best import keep_best
from pcl.train.checkpoint import FILE_NAME, checkpoint_name, save_checkpoint
from pcl.train.loop import Scalars
from pcl.train.runs import SNAPSHOT, checkpoints, mend_record, remove_checkpoint
from pcl.train.session import Session
from pcl.train.validation import HELD_OUT_LOSS

T = TypeVar("T")
Say = Callable[[str], None]
Ask = Callable[[], bool]


def is_alone(config: Config) -> bool:
    """Return whether a run is trained in the process that is asked to: it has one worker, and no cluster is named."""
    return IS_LOCAL and list(allowed_workers(config)) == [1]


class Here:
    """A training in this process, with the faults handled that the workers of Ray Train have handled.

    What it offers ``pcl.cluster.on_ray.OnRay`` offers too.

    Args:
        patience_s: seconds after it is asked to stop in which storage that refuses is waited for.
    """

    def __init__(self, patience_s: float) -> None:
        self._lines: list[str] = []
        self._asked, self._given_up = threading.Event(), threading.Event()
        self._timer = threading.Timer(patience_s, self.give_up)
        self._timer.daemon = True

    def connected(self, config: Config) -> AbstractContextManager[None]:
        """Return the context of a training."""
        end_template()
        print("one worker, and no cluster is asked for: training in this process, without Ray", flush=True)  # noqa: T201
        return interruptible()

    def ask_to_stop(self) -> None:
        """Ask for a checkpoint and the end."""
        self._asked.set()
        self._timer.start()

    def give_up(self) -> None:
        """Write nothing more."""
        self._given_up.set()

    def notices(self) -> list[str]:
        """Return what was said since this was last called."""
        lines, self._lines = self._lines, []
        return lines

    def check_resources(self, config: Config) -> Config:
        """Decide on a GPU, and return the configuration with ``workers.use_gpu`` true or false.

        Raises:
            BadInputError: one is asked for, and there is none.
        """
        if config.workers.use_gpu and not torch.cuda.is_available():
            raise BadInputError("workers.use_gpu=true, and torch sees no GPU on this machine: choose false")
        return with_gpu(config, torch.cuda.is_available())

    def fit(self, config: Config, run: Place, step: int) -> None:
        """Train a run, from its newest checkpoint again where that fails, ``workers.max_failures`` times.

        Raises:
            DamagedDataError: a shard differs from its manifest.
            RunFailedError: it failed more often, or storage refused for longer than ``workers.storage_timeout_s``.
        """
        failures = 0
        while True:
            try:
                return fit_alone(config, run, step, self._asked.is_set, self._lines.append, self._given_up.is_set)
            except FINAL_ERRORS:
                raise
            except Exception as error:
                failures += 1
                if 0 <= config.workers.max_failures < failures:
                    raise RunFailedError(
                        f"training ended early ({_where(error)}): the same command {_what_it_does(run)}"
                    ) from error
                self._lines.append(f"worker 0 failed ({_where(error)})")
            mend_record(run)
            step = max((int(path.name.removeprefix("checkpoint_")) for path in checkpoints(run)), default=0)
            self._lines.append(f"going on from step {step} on 1 worker")


def _what_it_does(run: Place) -> str:
    """Return what the command of a run that failed does when it is given again."""
    return "goes on from the newest checkpoint" if checkpoints(run) else "begins anew, for there is no checkpoint yet"


def _where(error: Exception) -> str:
    """Return an error with the line that raised it, or led to it from a plugin: nothing else keeps the traceback."""
    last = traceback.extract_tb(error.__traceback__)[-1]
    return last_line(error) + (place_of(error) or f", in {last.filename}, line {last.lineno}")


def never() -> bool:
    """Return that it is not so."""
    return False


def fit_alone(config: Config, run: Place, step: int, stop: Ask, say: Say, given_up: Ask = never) -> None:
    """Train a run in this process, its only worker.

    Without Ray Train's record, which ``mend_record`` writes once the training has ended, every whole checkpoint counts.

    Args:
        config: the resolved configuration, which has decided on GPUs.
        run: the run's place.
        step: that the run goes on from, 0: from the beginning.
        stop: returns whether to commit a checkpoint and end.
        say: takes what people are told.
        given_up: returns whether to write nothing more.

    Raises:
        DamagedDataError: a shard differs from its manifest.
        RunFailedError: storage refuses for longer than ``workers.storage_timeout_s``.
    """
    torch.set_num_threads(config.workers.cpus_per_worker)
    device = torch.device("cuda" if config.workers.use_gpu else "cpu")
    session = Session.of_run(config, device, run, run / checkpoint_name(step) if step else None)
    (run / SNAPSHOT).unlink(missing_ok=True)

    def commit(step: int, scalars: Scalars, content: Mapping[str, Any] | None) -> None:
        save(config, run, step, scalars, content or {}, say, given_up)
        for old in checkpoints(run)[: -config.workers.num_checkpoints]:
            remove_checkpoint(old)

    session.run(run, commit, stop)
    mend_record(run)


def with_gpu(config: Config, is_there: bool) -> Config:
    """Return a configuration that has decided on GPUs: as asked, or where there are some.

    Raises:
        BadInputError: bf16 is asked for without.
    """
    use_gpu = is_there if config.workers.use_gpu is None else config.workers.use_gpu
    if config.train.precision == "bf16" and not use_gpu:
        raise BadInputError("train.precision=bf16 needs GPUs, and the cluster has none: choose float32")
    return replace(config, workers=replace(config.workers, use_gpu=use_gpu))


def save(
    config: Config,
    run: Place,
    step: int,
    scalars: Scalars,
    content: Mapping[str, Any],
    say: Say,
    given_up: Ask = never,
) -> None:
    """Write a checkpoint, and keep it as the best if its held-out loss is; storage that refuses is waited for."""
    name, timeout_s = checkpoint_name(step), config.workers.storage_timeout_s
    until_it_works(partial(save_checkpoint, run / name, content), f"{name}/{FILE_NAME}", timeout_s, say, given_up)
    if config.train.validation_fraction and HELD_OUT_LOSS in scalars:
        best = partial(keep_best, run, step, scalars[HELD_OUT_LOSS], content)
        until_it_works(best, f"best/{name}", timeout_s, say, given_up)


def until_it_works(function: Callable[[], T], path: str, timeout_s: float, say: Say, given_up: Ask = never) -> T:
    """Call a function that reads or writes a path until storage no longer refuses; people hear of it.

    Raises:
        RunFailedError: storage refused for as long as that, or it was given up before.
    """

    def attempt() -> T:
        if given_up():
            raise RunFailedError(f"{path} is not written: the job ends before storage works again")
        return function()

    try:
        return patiently(attempt, timeout_s, say=say)
    except OSError as error:
        raise RunFailedError(
            f"storage refused {posixpath.basename(path)} for {timeout_s:g} s ({error}): mend it, and the same command "
            "goes on from the newest checkpoint"
        ) from error
