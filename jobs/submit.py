"""Submit a job to a Ray cluster, follow what it prints, and end with its exit code."""

import argparse
import os
import shlex
from pathlib import Path

from pcl.command import finish
from pcl.config import load_config, load_head_config
from pcl.errors import BadInputError
from pcl.submission import ENDED, ROOT, Cluster, attempt_name

JOBS = sorted(path.stem for path in Path(__file__).parent.glob("*.py") if path.stem != "submit")
HEAD = {
    "head": 0.01
}  # a share of the head node, no CPU: there is room for a second head to say that it is one too many
DEFAULT_ADDRESS = "http://127.0.0.1:8265"


def parse() -> argparse.Namespace:
    """Return what the command line says."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--address", help="of the dashboard; else RAY_API_SERVER_ADDRESS, else " + DEFAULT_ADDRESS)
    parser.add_argument("--id", help="name of the job; else <job>-<name of the run>")
    parser.add_argument("--no-wait", action="store_true", help="do not follow the job")
    parser.add_argument("job", help=f"jobs/NAME.py, one of {', '.join(JOBS)}")
    parser.add_argument("config", help="run file, such as configs/mnist.yaml")
    parser.add_argument("arguments", nargs=argparse.REMAINDER, help="key=value ... and flags of the job")
    return parser.parse_args()


def default_name(job: str, given: argparse.Namespace) -> str:
    """Return the name of a job, and refuse a configuration that the job would refuse."""
    overrides = [argument for argument in given.arguments if not argument.startswith("-")]
    load = load_head_config if job == "head" else load_config
    return f"{job}-{load(given.config, overrides).name}".replace(" ", "-")


def needs_of(job: str, resources: dict[str, float]) -> dict[str, float]:
    """Return what the process of a job takes: most only direct others and run, with no CPU, on the head node."""
    if job == "evaluate":
        return {"background": 1} if resources.get("background") else {"CPU": 1}
    if job == "head":
        if not resources.get("head"):
            raise BadInputError(
                "no node of the cluster has the resource 'head': start the head node with --resources='{\"head\": 1}'"
            )
        return HEAD
    return {}


def main(given: argparse.Namespace) -> None:
    """Submit once: a job that is under way is followed, one that has ended is submitted again under a further name."""
    job = Path(given.job).stem
    if job not in JOBS:
        raise BadInputError(f"{given.job} is not a job: choose one of {', '.join(JOBS)}")
    name = given.id or default_name(job, given)
    config = Path(given.config).resolve()
    sent = str(config.relative_to(ROOT)) if config.is_relative_to(ROOT) else given.config  # the project is sent along
    command = shlex.join(["python", f"jobs/{job}.py", sent, *given.arguments])
    cluster = Cluster(given.address or os.environ.get("RAY_API_SERVER_ADDRESS") or DEFAULT_ADDRESS)
    attempt, found = cluster.newest(name)
    if found is not None and str(found.status) not in ENDED:
        name = attempt_name(name, attempt)
        if found.entrypoint != command:
            raise BadInputError(f"the job {name} is under way as {found.entrypoint!r}: choose another --id")
        print(f"job {name} is under way", flush=True)
    else:
        name = attempt_name(name, attempt + 1)
        cluster.submit(name, command, str(ROOT), needs_of(job, cluster.resources()))
        print(f"job {name} is submitted to {cluster.address}; ray job stop {name} ends it", flush=True)
    if not given.no_wait:
        raise SystemExit(cluster.follow(name))


if __name__ == "__main__":
    arguments = parse()
    finish(lambda: main(arguments))
