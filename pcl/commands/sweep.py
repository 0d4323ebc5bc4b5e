"""Train and evaluate every variant of a run file, with every seed, and compare them.

A run file may hold ``variants``, names and the keys in which each differs, and ``seeds``: the runs are named
<name>-<variant>-<seed>. All of them are checked before one is trained; as many are trained at a time as there is room
for, on one Ray. One that fails does not stop the others. The same command goes on from what is finished.
"""

import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import datetime

from pcl.cluster.address import check_shared
from pcl.cluster.connection import connected, room_for
from pcl.cluster.ray_tasks import run_tasks
from pcl.cluster.signals import Interrupted, Stopping
from pcl.commands import shards
from pcl.commands.command_line import Guide, job
from pcl.commands.compare import compare, comparison_folder
from pcl.commands.train import END_S
from pcl.commands.whole_run import Item, is_evaluated, is_trained, whole_run
from pcl.config.identity import data_identity, differing
from pcl.config.load import Config
from pcl.config.validation import allowed_workers
from pcl.config.variants import Planned, Sweep, load_sweep
from pcl.data.manifest import FILE_NAME
from pcl.errors import BadInputError, DamagedDataError, RunFailedError, printable
from pcl.plugins.loading import loaded
from pcl.storage.lease import Lease
from pcl.storage.place import place
from pcl.train.parts import full_experiment, num_steps, pinned, prepare
from pcl.train.runs import recorded_experiment

LOOK_S = 0.5
GUIDE = Guide(
    __doc__,
    examples=(
        "configs/mnist_losses.yaml",
        "configs/mnist_losses.yaml 'seeds=[0]' train.epochs=3",
        "configs/mnist.yaml 'seeds=[0, 1, 2]' 'variants={small: {model.embedding_dim: 4}, large: {}}'",
    ),
    keys=("variants", "seeds", "name", "storage", "data.shards", "workers.num_workers", "workers.cpus_per_worker"),
    config="a run file with variants or seeds",
    takes_variants=True,
)


def main(sweep: Sweep) -> None:
    """Check all runs, do what is not done, compare."""
    configs = [one.config for one in sweep.runs]
    for config in configs:
        check_shared(storage=config.storage, data__shards=config.data.shards)
    write_missing_shards(configs)
    items = checked(sweep.runs)
    open_items = [item for item in items if not (is_trained(item) and is_evaluated(item))]
    print(f"{len(items)} runs, {len(items) - len(open_items)} of them finished, in {sweep.storage}", flush=True)
    failed: dict[str, str] = {}
    if open_items:
        what = f"the sweep {sweep.name}"
        with Lease(comparison_folder(sweep.storage, sweep.name) / "lease", what, "wait for its end"):
            failed = run_all(open_items)
    if finished := [item for item in items if item.name not in failed]:
        compare([item.run for item in finished], comparison_folder(sweep.storage, sweep.name))
    if failed:
        raise RunFailedError(
            f"{len(failed)} of {len(items)} runs failed ({', '.join(failed)}), the others are finished and compared: "
            "the same command tries them again"
        )


def write_missing_shards(configs: Sequence[Config]) -> None:
    """Write the shards that do not exist; refuse runs that mean other pairs by the same folder."""
    first: dict[str, Config] = {}
    for config in configs:
        other = first.setdefault(config.data.shards, config)
        if keys := differing({"data": data_identity(other)}, {"data": data_identity(config)}):
            raise BadInputError(
                f"{other.name} and {config.name} need other pairs (differing: {', '.join(keys)}) from the same "
                f"data.shards={config.data.shards}: give variants with other pairs a data.shards of their own"
            )
    for config in first.values():
        if not (config.shard_root / FILE_NAME).is_file():
            print(f"writing shards: {config.data.shards}", flush=True)
            shards.main(config)


def checked(planned: Sequence[Planned]) -> list[Item]:
    """Return the runs as tasks get them, after all that can be checked of them.

    Raises:
        BadInputError: runs cannot be trained, one line each, or their names are in use by others.
        DamagedDataError: shards are damaged.
    """
    items, wrong = list[Item](), dict[str, BadInputError | DamagedDataError]()
    for one in planned:
        config, run = one.config, place(one.config.storage) / one.config.name
        if one.variant in wrong:
            continue
        try:
            config = pinned(config, run)
            _, loader = prepare(config, allowed_workers(config)[0], run)
            item = Item(config, num_steps(config, loader), loaded(config.plugins))
            recorded_experiment(item.run, full_experiment(config))
            items.append(item)
        except (BadInputError, DamagedDataError) as error:
            wrong[one.variant] = type(error)(f"{config.name}: {error}")
    others = [*wrong.values()]
    for other in others[:-1]:
        print(f"error: {printable(other)}", file=sys.stderr, flush=True)
    if others:
        raise others[-1]
    return items


def run_all(items: Sequence[Item]) -> dict[str, str]:
    """Train and evaluate runs, as many at a time as there is room for, and return what those said that failed.

    Raises:
        Interrupted: a signal asked to end; runs under way commit a checkpoint first.
    """
    from pcl.cluster.board import ask_to_stop, notices, open_board
    from pcl.cluster.worker import check_resources, worker_resources

    widest = max(items, key=lambda item: item.num_workers * item.config.workers.cpus_per_worker)
    workers, number = widest.config.workers, widest.num_workers
    told = Stopping(ask_to_stop, max(1.0, workers.stop_timeout_s - END_S))
    failed, done = dict[str, str](), 0
    with connected(number * workers.cpus_per_worker):
        items = [replace(item, config=check_resources(item.config)) for item in items]
        each = worker_resources(check_resources(widest.config))
        at_once = max(1, room_for(each) // number)
        say(f"{len(items)} to do, {at_once} at a time, each on {number} worker{'s' * (number > 1)}")
        needs = each if number == 1 else {}  # else Ray Train takes what its workers need
        wait_s = workers.resources_timeout_s
        open_board()
        with told, printed(notices):
            for item, ended in run_tasks(
                whole_run, None, items, at_once, timeout_s=wait_s, each=needs, otherwise=lambda error: error
            ):
                done += isinstance(ended, float)
                if isinstance(ended, Exception):
                    failed[item.name] = reason(ended)
                    say(f"{item.name}: FAILED: {failed[item.name]}")
                elif ended is not None:
                    say(f"{item.name}: evaluated in {ended:.0f} s; {done} of {len(items)} are finished")
    if told.number:
        raise Interrupted(told.number, f"{done} of {len(items)} runs finished, the same command goes on from there")
    return failed


def reason(error: Exception) -> str:
    """Return why a run failed, in a line."""
    from pcl.cluster.failures import last_line

    is_ours = isinstance(error, BadInputError | DamagedDataError | RunFailedError | FloatingPointError)
    return " ".join(str(error).split()) if is_ours else last_line(error)


@contextmanager
def printed(heard: Callable[[], list[str]]) -> Iterator[None]:
    """Print, while a block runs, what its tasks say."""
    over = threading.Event()

    def look() -> None:
        last = False
        while not last:
            last = over.wait(LOOK_S)
            with suppress(Exception):  # of Ray: of a cluster that does not answer the end tells
                for line in heard():
                    say(line)

    looking = threading.Thread(target=look, name="printed", daemon=True)
    looking.start()
    try:
        yield
    finally:
        over.set()
        looking.join()


def say(line: str) -> None:
    """Print a line with the time."""
    print(f"{datetime.now():%H:%M:%S} {printable(line)}", flush=True)


def command(program: str, given: list[str]) -> None:
    """Train, evaluate and compare as a command line says."""
    job(main, GUIDE, program, given, load=load_sweep)
