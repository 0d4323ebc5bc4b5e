"""Submit a job to a Ray cluster, follow what it prints, and end with its exit code."""

import argparse
import os
import shlex
from pathlib import Path

from pcl.cluster.jobs import ENDED, attempt_name, slug
from pcl.cluster.submission import ROOT, Cluster, needs_of
from pcl.config.load import load_config, load_head_config
from pcl.errors import BadInputError

JOBS = sorted({path.stem for path in (ROOT / "jobs").glob("*.py")} - {"submit", "benchmark_losses"})
DEFAULT_ADDRESS = "http://127.0.0.1:8265"


def parse(program: str, given: list[str]) -> argparse.Namespace:
    """Return what the command line says."""
    parser = argparse.ArgumentParser(program, description=__doc__)
    parser.add_argument("--address", help="of the dashboard; else RAY_API_SERVER_ADDRESS, else " + DEFAULT_ADDRESS)
    parser.add_argument("--id", help="name of the job; else <job>-<name of the run>")
    parser.add_argument("--no-wait", action="store_true", help="do not follow the job")
    parser.add_argument("job", help=f"jobs/NAME.py, one of {', '.join(JOBS)}")
    parser.add_argument("arguments", nargs=argparse.REMAINDER, help="of the job: CONFIG key=value ... and its flags")
    return parser.parse_args(given)


def check(job: str, arguments: list[str]) -> str:
    """Refuse what the job would refuse, and return the name of its run."""
    given = [argument for argument in arguments if not argument.startswith("-")]
    if not given:
        raise BadInputError(f"jobs/{job}.py needs a run file: such as configs/mnist.yaml")
    return (load_head_config if job == "head" else load_config)(given[0], given[1:]).name


def sent(argument: str) -> str:
    """Return an argument as the job needs it: a file of the project, which is sent along, by its place in it."""
    path = Path(argument).resolve()
    return str(path.relative_to(ROOT)) if path.is_file() and path.is_relative_to(ROOT) else argument


def main(given: argparse.Namespace) -> None:
    """Submit once: a job that is under way is followed, one that has ended is submitted again under a further name."""
    job = Path(given.job).stem
    if job not in JOBS:
        raise BadInputError(f"{given.job} is not a job: choose one of {', '.join(JOBS)}")
    run = check(job, given.arguments)
    name = given.id or f"{job}-{slug(run)}"
    command = shlex.join(["python", f"jobs/{job}.py", *map(sent, given.arguments)])
    cluster = Cluster(given.address or os.environ.get("RAY_API_SERVER_ADDRESS") or DEFAULT_ADDRESS)
    attempt, found = cluster.newest(name)
    if found is not None and str(found.status) not in ENDED:
        name = attempt_name(name, attempt)
        if found.entrypoint != command:
            raise BadInputError(f"the job {name} is under way as {found.entrypoint!r}: choose another --id")
        print(f"job {name} is under way, with the code it began with; ray job stop {name} ends it", flush=True)
    else:
        name = attempt_name(name, attempt + 1)
        resources = cluster.resources()
        needs = needs_of(job, resources)
        cluster.submit(name, command, str(ROOT), needs)
        print(f"job {name} is submitted to {cluster.address}; ray job stop {name} ends it", flush=True)
        if missing := [resource for resource, amount in needs.items() if resources.get(resource, 0) < amount]:
            print(f"no node has {' and '.join(missing)}: Ray waits 15 minutes for one, then the job fails", flush=True)
    if not given.no_wait:
        raise SystemExit(cluster.follow(name))


def command(program: str, given: list[str]) -> None:
    """Submit as a command line says."""
    main(parse(program, given))
