"""Submit a job to a Ray cluster, follow what it prints, and end with its exit code."""

__all__ = ["command"]

import argparse
import os
import shlex
from pathlib import Path

from pcl.cluster.jobs import ENDED, attempt_name, slug
from pcl.cluster.package import path_in_job, sent
from pcl.cluster.submission import JobServer, needs_of
from pcl.commands.command_line import check_is_one_run, plugins_in_job
from pcl.commands.compare import asked
from pcl.commands.required import pins
from pcl.config.load import load_config, load_head_config
from pcl.config.stored import run_of
from pcl.config.variants import load_sweep
from pcl.errors import BadInputError
from pcl.storage.place import place

JOBS = (
    *("shards", "train", "sweep", "compare", "evaluate", "finetune", "draw", "export"),
    *("theory", "head", "benchmark"),
)
SCRIPTS = {"write_shards": "shards", "check_theory": "theory"}  # of jobs/, where they have other names
DEFAULT_ADDRESS = "http://127.0.0.1:8265"


def parse(program: str, given: list[str]) -> argparse.Namespace:
    """Return what the command line says."""
    examples = f"such as {program} train configs/mnist.yaml data.shards=/shared/mnist storage=/shared/runs"
    parser = argparse.ArgumentParser(program, description=__doc__, epilog=examples)
    parser.add_argument("--address", help="of the dashboard; else RAY_API_SERVER_ADDRESS, else " + DEFAULT_ADDRESS)
    parser.add_argument("--id", help="name of the job; else <job>-<name of the run>")
    parser.add_argument("--no-wait", action="store_true", help="do not follow the job")
    text = "bring what pcl requires, as it is installed here, to a cluster that has ray[default,train] and torch alone"
    parser.add_argument("--install", action="store_true", help=text)
    parser.add_argument("job", help=f"one of {', '.join(JOBS)}; its script in jobs/ is a name of it too")
    text = "of the job: a run file or the folder of a run, key=value ... and its flags"
    parser.add_argument("arguments", nargs=argparse.REMAINDER, metavar="...", help=text)
    return parser.parse_args(given)


def check(job: str, arguments: list[str]) -> tuple[str, list[str], list[str]]:
    """Refuse what the job would refuse, and return the name of its run, the files that it reads, and its plugins."""
    given = [argument for argument in arguments if not argument.startswith("-")]
    if not given:
        raise BadInputError(f"the job {job} needs a run file: such as configs/mnist.yaml")
    if job == "head":
        head = load_head_config(given[0], given[1:])
        return head.name, [given[0], *head.theory.files], head.plugins
    if job == "sweep":
        sweep = load_sweep(given[0], given[1:])
        return sweep.name, given[:1], sweep.runs[0].config.plugins
    if job == "compare":
        runs, folder, overrides = asked(f"pcl {job}", given)
        return folder.name, [], load_config(str(runs[0]), overrides).plugins
    config = load_config(given[0], given[1:])
    if job != "shards":
        check_is_one_run(config, given[0], job)
    return config.name, given[:1] if run_of(place(given[0])) is None else [], config.plugins


def in_job(argument: str) -> str:
    """Return an argument as a job finds what it names from the folder that it is sent; a run stays where it lies."""
    is_key = "=" in argument and "/" not in argument.partition("=")[0]
    if argument.startswith("-") or is_key or run_of(place(argument)) is None:
        return path_in_job(argument)
    return str(place(argument))


def main(given: argparse.Namespace) -> None:
    """Submit once: a job that is under way is followed, one that has ended is submitted again under a further name."""
    job = SCRIPTS.get(stem := Path(given.job).stem, stem)
    if job not in JOBS:
        raise BadInputError(f"{given.job} is not a job: choose one of {', '.join(JOBS)}")
    run, files, plugins = check(job, given.arguments)
    name = given.id or f"{job}-{slug(run)}"
    arguments = [*map(in_job, given.arguments), *plugins_in_job(plugins)]
    command = shlex.join(["python", "-m", "pcl", job, *arguments])
    pip = pins() if given.install else []
    server = JobServer(given.address or os.environ.get("RAY_API_SERVER_ADDRESS") or DEFAULT_ADDRESS)
    attempt, found = server.newest(name)
    if found is not None and str(found.status) not in ENDED:
        name = attempt_name(name, attempt)
        if found.entrypoint != command:
            raise BadInputError(f"the job {name} is under way as {found.entrypoint!r}: choose another --id")
        print(f"job {name} is under way, with the code it began with; ray job stop {name} ends it", flush=True)
    else:
        name = attempt_name(name, attempt + 1)
        resources = server.resources()
        needs = needs_of(job, resources)
        with sent([*files, *plugins]) as folder:
            server.submit(name, command, {"working_dir": folder, "pip": pip}, needs)
        print(f"job {name} is submitted to {server.address}; ray job stop {name} ends it", flush=True)
        if missing := [resource for resource, amount in needs.items() if resources.get(resource, 0) < amount]:
            print(f"no node has {' and '.join(missing)}: Ray waits 15 minutes for one, then the job fails", flush=True)
    if not given.no_wait:
        raise SystemExit(server.follow(name))


def command(program: str, given: list[str]) -> None:
    """Submit as a command line says."""
    main(parse(program, given))
