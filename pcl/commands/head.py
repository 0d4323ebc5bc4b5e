"""Get theory checks and evaluations done while training goes on: run it once on a cluster, beside the head node.

It submits a job for every theory check that its configuration names, anew when that or the code changes, and one for
every checkpoint that any run in the storage commits, the newest first. It may be killed and started again at any time.

--status, the same as status=true, prints what it is doing, or did, and needs no cluster.
"""

import shlex
import time
from datetime import datetime
from functools import partial

from pcl.cluster.address import check_shared
from pcl.cluster.background import jobs_here
from pcl.cluster.connection import connected
from pcl.cluster.package import sent
from pcl.commands.command_line import Guide, job, plugins_in_job
from pcl.config.identity import experiment
from pcl.config.load import load_config, load_head_config
from pcl.config.schema import HeadConfig
from pcl.errors import BadInputError, RunFailedError, printable
from pcl.evaluation.tables import format_table
from pcl.head.head import Head, Options
from pcl.head.status import Status, describe, table
from pcl.head.watch import Theory
from pcl.head.work import Rules
from pcl.plugins.loading import load_plugins
from pcl.storage.events import event_folder
from pcl.storage.lease import Lease
from pcl.storage.place import Place, place
from pcl.storage.stored import read_json
from pcl.theory.store import code_version
from pcl.train.tensorboard import PatientWriter

GUIDE = Guide(
    __doc__,
    examples=(
        "configs/head.yaml storage=/shared/runs",
        "--status configs/head.yaml storage=/shared/runs",
        "configs/head.yaml storage=/shared/runs plugins=[mine.py] evaluation.at_once=4",
    ),
    keys=("head.storage", "head.plugins", "head.theory.files", "head.evaluation.at_once", "head.poll_s"),
    flags={"--status": "status=true"},
    config="a run file of the head",
    page="pcl config head",
)


def theory_of(config: HeadConfig) -> list[Theory]:
    """Return the theory checks that a configuration names."""
    quick = f"theory.quick={str(config.theory.quick).lower()}"
    overrides = (quick, f"theory.num_tasks={config.theory.num_tasks}")
    loaded = [(file, load_config(file, overrides)) for file in config.theory.files]
    code_version.cache_clear()  # the code may change where it is not a copy
    version = code_version()
    return [Theory(run.name, file, experiment(run) | {"quick": quick}, version, overrides) for file, run in loaded]


def lease_of(folder: Place, config: HeadConfig) -> Lease:
    """Return what only one head of a storage holds."""
    return Lease(folder / "lease", f"the head of {config.storage}", "one is enough; stop that one to replace it")


def show_status(folder: Place, lease: Lease) -> None:
    """Print the table of the head's last status."""
    content, now = read_json(folder / "status.json", Status, "a running head writes it anew"), time.time()
    if content is None:
        raise BadInputError(f"{folder}/status.json does not exist: no head has worked here; start one without --status")
    print(describe(content, now, has_ended=lease.has_ended()), f"\n{format_table(table(content, now))}", sep="\n")


def say(line: str) -> None:
    """Print a line with the time."""
    print(f"{datetime.now():%H:%M:%S} {printable(line)}", flush=True)


def main(config: HeadConfig, status: str) -> None:
    """Work until stopped, or show what the head does; ``status`` is the command that does."""
    folder = place(config.storage) / config.name
    if config.status:
        show_status(folder, lease_of(folder, config))
        return
    check_shared(storage=config.storage)
    theory_of(config)  # a mistake in it is met at once, as one in a plugin is
    hashes = [plugin.sha256 for plugin in load_plugins(config.plugins)]
    at_once = {"theory": 1, "evaluation": config.evaluation.at_once}
    rules = Rules(at_once, config.attempts, config.backoff_s, config.timeout_s)
    options = Options(rules, config.poll_s, plugins_in_job(config.plugins), hashes)
    with (
        sent([*config.theory.files, *config.plugins]) as code,
        lease_of(folder, config) as lease,
        connected(num_cpus=1, dashboard=True),
    ):
        draw = PatientWriter(event_folder(folder, folder / "tensorboard")).draw
        head = Head(folder, jobs_here(code), lambda: theory_of(config), options, say=say, draw=draw)
        say(f"watching {config.storage}, {len(head.records)} works known; {status} shows them, as {folder} does")
        while not lease.is_lost:
            head.step()
            time.sleep(config.poll_s)
    raise RunFailedError(f"another head took {config.storage} over: this one gives way")


def command(program: str, given: list[str]) -> None:
    """Start the head, or show what it does, as a command line says."""
    work = partial(main, status=f"{program} {shlex.join([*given, '--status'])}")
    job(work, GUIDE, program, given, load=load_head_config)
