"""Train a run with Ray Train workers, or alone; the same command goes on after an interruption."""

import shlex
import threading
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from typing import TYPE_CHECKING

from pcl.cluster.address import check_shared
from pcl.cluster.alone import Here, is_alone
from pcl.cluster.signals import Interrupted, Stopping
from pcl.commands.command_line import Guide, job, watch
from pcl.config.load import Config, resolved_yaml
from pcl.config.validation import allowed_workers
from pcl.data.held_out import num_held_out
from pcl.data.manifest import Manifest
from pcl.errors import RunFailedError
from pcl.storage.lease import Lease
from pcl.storage.place import Place, place
from pcl.train.best import best_checkpoint
from pcl.train.checkpoint import checkpoint_name, is_whole
from pcl.train.follow import follow
from pcl.train.longer import has_other_epochs, lengthen
from pcl.train.parts import first_lines, full_experiment, keep_first_weights, num_steps, pinned, prepare
from pcl.train.runs import checkpoints, claim, mend_record, sweep
from pcl.train.validation import plan_validation

if TYPE_CHECKING:
    from pcl.cluster.on_ray import OnRay

OF_THE_TEST_SPLIT = (
    "the held-out loss is that of the test split, a curve and no more: no checkpoint is chosen by the pairs that it is "
    "judged on; train.validation_fraction=0.1 holds out others"
)
END_S = 5  # of the time to stop in, for Ray to end
GUIDE = Guide(
    __doc__,
    examples=(
        "configs/mnist.yaml",
        "configs/mnist.yaml name=short train.epochs=3 workers.num_workers=1",
        "runs/mnist                                 # go on with a run as it was configured",
        "runs/mnist train.epochs=40                 # and with more epochs, where train.schedule=constant",
        "configs/mnist.yaml name=more train.init_from=runs/mnist",
    ),
    keys=(
        "name",
        "storage",
        "data.shards",
        "train.epochs",
        "train.learning_rate",
        "train.init_from",
        "workers.num_workers",
    ),
)


def main(config: Config) -> None:
    """Check everything that can be checked, then train."""
    check_shared(storage=config.storage, data__shards=config.data.shards)
    allowed, run = allowed_workers(config), place(config.storage) / config.name
    config = pinned(config, run)
    manifest, loader = prepare(config, allowed[-1], run)
    steps = num_steps(config, loader)
    goes_on = has_other_epochs(run, full_experiment(config), loader.steps_per_epoch)
    used = loader.steps_per_epoch * config.train.global_batch
    print(
        f"training {config.name}: {steps} steps = {config.train.epochs} epochs of {loader.steps_per_epoch} steps of "
        f"{config.train.global_batch} pairs on {' or '.join(map(str, allowed))} workers; each epoch uses {used:,} of "
        f"{loader.num_pairs:,} pairs, the others differ from epoch to epoch",
        flush=True,
    )
    if line := held_out_line(config, manifest):
        print(line, flush=True)
    done = [path.name for path in checkpoints(run) if is_whole(path)]
    for line in first_lines(config, manifest, run) if not done else ():
        print(line, flush=True)
    if checkpoint_name(steps) in done and not goes_on:
        print("this run is finished")
    else:
        fit_with_progress(config, run, steps, goes_on=goes_on)
    if best := best_checkpoint(run):
        print(f"best checkpoint by held-out loss ({best.loss:.4f}): {best.name}; evaluation.checkpoint=best takes it")
    print(f"run: {run}\nevaluate: pcl evaluate {shlex.quote(str(run))}\n{watch(config.storage)}")


def held_out_line(config: Config, manifest: Manifest) -> str:
    """Return what is said of the held-out loss of a training, nothing where there is none."""
    train = config.train
    if not train.validation_fraction:
        return OF_THE_TEST_SPLIT if train.validate_every else ""
    pairs = plan_validation(manifest, train.validation_fraction, train.global_batch)
    of_shards = {num_held_out(shard.pairs, train.validation_fraction) for shard in manifest.shards("train")}
    number, size = pairs.batches(train.global_batch, config.seed).shape
    return (
        f"{len(pairs.numbers):,} of {manifest.num_pairs('train'):,} training pairs are held out, the last "
        f"{' or '.join(f'{number:,}' for number in sorted(of_shards))} of every shard; the checkpoint with the least "
        f"loss on {number * size:,} of them, in batches of {size:,}, is kept as the best"
    )


def fit_with_progress(config: Config, run: Place, steps: int, *, goes_on: bool) -> None:
    """Train as the only job of this name, and follow the file in which worker 0 writes how far it is.

    Args:
        config: of the run.
        run: its place.
        steps: in all.
        goes_on: whether the run has recorded other epochs (``pcl.train.longer``).
    """
    patience_s = max(1.0, config.workers.stop_timeout_s - END_S)
    workers = Here(patience_s) if is_alone(config) else _on_ray()
    over = threading.Event()
    watcher = threading.Thread(target=follow, args=(run / "progress.json", steps, over, workers.notices), daemon=True)
    told = Stopping(workers.ask_to_stop, patience_s)
    lease = _lease(config, run, workers.give_up, told.insist)
    with ExitStack() as held, workers.connected(config):  # the name is given back once no worker is left
        config = workers.check_resources(config)
        experiment, yaml = full_experiment(config), resolved_yaml(config)
        if not goes_on:
            claim(run, experiment, yaml)
        held.enter_context(lease)
        if goes_on:
            lengthen(run, experiment, yaml)
        keep_first_weights(config, run)
        step = begin(run, partial(print, flush=True))
        held.enter_context(told)
        watcher.start()
        try:
            workers.fit(config, run, step)
        except Interrupted:
            if lease.is_lost:
                raise RunFailedError(f"another job trains {config.name} now: this one gives way") from None
            raise
        finally:
            over.set()
            watcher.join()
        sweep(run)
    newest = checkpoints(run)[-1].name
    if told.number and newest != checkpoint_name(steps):
        raise Interrupted(told.number, f"{newest} of {steps} steps is committed, the same command goes on from there")


def _lease(config: Config, run: Place, *lost: Callable[[], None]) -> Lease:
    """Return the lease of a run's name, and what is called in turn where another job has taken it."""

    def give_way() -> None:
        for one in lost:
            one()

    return Lease(run / "lease", f"the run {config.name}", "choose another name, or wait for its end", lost=give_way)


def _on_ray() -> "OnRay":
    from pcl.cluster.on_ray import OnRay  # imports ray: after the checks

    return OnRay()


def begin(run: Place, say: Callable[[str], None]) -> int:
    """Mend and sweep a run whose name this process holds, and return the step from which it goes on."""
    for line in mend_record(run):
        say(line)
    done = checkpoints(run)
    if done:
        say(f"going on from {done[-1].name}")
    sweep(run)
    (run / "progress.json").unlink(missing_ok=True)
    return int(done[-1].name.removeprefix("checkpoint_")) if done else 0


def command(program: str, given: list[str]) -> None:
    """Train as a command line says."""
    job(main, GUIDE, program, given)
