"""Train a run with Ray Train workers; the same command goes on after an interruption."""

import threading
from contextlib import ExitStack

from pcl.cluster.connection import check_shared, connected
from pcl.cluster.signals import Interrupted, Stopping
from pcl.commands.command_line import Guide, job, watch
from pcl.config.load import Config, resolved_yaml
from pcl.config.validation import allowed_workers
from pcl.errors import RunFailedError
from pcl.storage.lease import Lease
from pcl.storage.place import Place, place
from pcl.train.checkpoint import checkpoint_name, is_whole
from pcl.train.follow import follow
from pcl.train.parts import full_experiment, num_steps, prepare
from pcl.train.runs import checkpoints, claim, mend_record, recorded_experiment, sweep

END_S = 5  # of the time to stop in, for Ray to end
GUIDE = Guide(
    __doc__,
    examples=(
        "configs/mnist.yaml",
        "configs/mnist.yaml name=short train.epochs=3 workers.num_workers=1",
        "runs/mnist                                 # go on with a run as it was configured",
    ),
    keys=("name", "storage", "data.shards", "train.epochs", "train.learning_rate", "workers.num_workers"),
)


def main(config: Config) -> None:
    """Check everything that can be checked, then train."""
    check_shared(storage=config.storage, data__shards=config.data.shards)
    allowed = allowed_workers(config)
    manifest, loader = prepare(config, allowed[-1])
    steps, run = num_steps(config, loader), place(config.storage) / config.name
    recorded_experiment(run, full_experiment(config))
    used = loader.steps_per_epoch * config.train.global_batch
    print(
        f"training {config.name}: {steps} steps = {config.train.epochs} epochs of {loader.steps_per_epoch} steps of "
        f"{config.train.global_batch} pairs on {' or '.join(map(str, allowed))} workers; each epoch uses {used:,} of "
        f"{manifest.num_pairs('train'):,} pairs, the others differ from epoch to epoch",
        flush=True,
    )
    if checkpoint_name(steps) in [path.name for path in checkpoints(run) if is_whole(path)]:
        print("this run is finished")
    else:
        fit_with_progress(config, run, steps)
    print(f"run: {run}\n{watch(config.storage)}")


def fit_with_progress(config: Config, run: Place, steps: int) -> None:
    """Train as the only job of this name, and follow the file in which worker 0 writes how far it is."""
    from pcl.cluster.board import ask_to_stop, notices
    from pcl.cluster.worker import check_resources, fit  # imports ray.train, which takes seconds: after the checks

    over = threading.Event()
    watcher = threading.Thread(target=follow, args=(run / "progress.json", steps, over, notices), daemon=True)
    told = Stopping(ask_to_stop, max(1.0, config.workers.stop_timeout_s - END_S))
    lease = Lease(run / "lease", f"the run {config.name}", "choose another name, or wait for its end", lost=told.insist)
    cpus = allowed_workers(config)[0] * config.workers.cpus_per_worker
    with ExitStack() as held, connected(cpus):  # the name is given back once no worker is left
        config = check_resources(config)
        claim(run, full_experiment(config), resolved_yaml(config))
        held.enter_context(lease)
        for line in mend_record(run):
            print(line, flush=True)
        if done := checkpoints(run):
            print(f"going on from {done[-1].name}", flush=True)
        sweep(run)
        (run / "progress.json").unlink(missing_ok=True)
        held.enter_context(told)
        watcher.start()
        try:
            fit(config, run, int(done[-1].name.removeprefix("checkpoint_")) if done else 0)
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


def command(program: str, given: list[str]) -> None:
    """Train as a command line says."""
    job(main, GUIDE, program, given)
