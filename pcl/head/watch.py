"""What is to be done: the theory checks of this code, and the evaluation of every committed checkpoint in storage."""

__all__ = ["Theory", "evaluations", "result_of", "theory_checks"]

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import Field
from typing_extensions import TypedDict

from pcl.cluster.jobs import Job, slug
from pcl.config.identity import experiment_hash
from pcl.errors import DamagedDataError
from pcl.head.work import Work
from pcl.storage.place import Place
from pcl.storage.stored import read_json
from pcl.train.runs import commit_times

Share = Annotated[float, Field(ge=0, le=1)]
Metrics = TypedDict(
    "Metrics",
    {
        "checks": list["Check"],
        "u_given_v_recall@1": Share,
        "v_given_u_recall@1": Share,
        "u_to_v_recall@1": Share,  # of evaluations that version 0.1 wrote, and the next
        "v_to_u_recall@1": Share,
    },
    total=False,
)


class Check(TypedDict):
    """What a report says of a theory check."""

    passed: bool


class Provenance(TypedDict):
    """What a run says of itself."""

    experiment: dict[str, Any]
    started: str


@dataclass(frozen=True)
class Theory:
    """A theory check to run.

    Attributes:
        name: of its configuration: it reports to ``<storage>/<name>_theory``.
        file: the run file, as the job will find it.
        identity: all that its result is a function of, but for the code.
        version: of the code that its result is a function of.
        overrides: of the run file.
    """

    name: str
    file: str
    identity: Mapping[str, Any]
    version: str
    overrides: Sequence[str]


def theory_checks(storage: Place, checks: Sequence[Theory]) -> Iterator[Work]:
    """Yield a theory check for every configuration; another configuration or another code gives another work."""
    for check in checks:
        about = _hash([str(storage), dict(check.identity), check.version])
        command = ["python", "-m", "pcl", "theory", check.file, _override("storage", storage), *check.overrides]
        name = f"theory-{slug(check.name)}-{about}"
        result = f"{check.name}_theory/metrics.json"
        yield Work(name, "theory", f"{check.name}, code {check.version[:8]}", tuple(command), result)


def evaluations(storage: Place, overrides: Sequence[str] = (), about: Sequence[str] = ()) -> Iterator[Work]:
    """Yield the evaluation of every committed checkpoint of every run; the newest has the highest priority.

    A run that cannot be read is left out: it may be half written, or on its way out. No plugin that it names is run.

    Args:
        storage: of the runs.
        overrides: of every evaluation, such as plugins.
        about: what they lead to, such as the hashes of plugins: another one gives other works, so that what could not
            be done is tried again.
    """
    for run in sorted((path.parent for path in storage.glob("*/provenance.json")), key=str):
        try:
            provenance = read_json(run / "provenance.json", Provenance, "")
            if provenance is None:
                continue
            of_run = [str(run), experiment_hash(provenance["experiment"]), provenance["started"]]
            found = commit_times(run)
        except (DamagedDataError, FileNotFoundError, PermissionError):
            continue
        for checkpoint, committed in found.items():
            # the run's own settings, but for what would leave the evaluation elsewhere
            own = (
                *overrides,
                f"evaluation.checkpoint={checkpoint}",
                "evaluation.split=test",
                "evaluation.max_pairs=0",
            )
            yield Work(
                f"evaluate-{slug(run.name)}-{checkpoint.removeprefix('checkpoint_')}-{_hash([*of_run, *about])}",
                "evaluation",
                f"{run.name} {checkpoint}",
                ("python", "-m", "pcl", "evaluate", str(run), *own),
                f"{run.name}/evaluations/{checkpoint}/metrics.json",
                committed,
            )


def result_of(storage: Place, work: Work, job: Job | None) -> str | None:
    """Return, in short, what the result of a work says; None where there is none.

    Args:
        storage: of the runs.
        work: which.
        job: its newest job. The report of a theory check may be that of another code, so it counts only once the job
            has ended well; an evaluation counts whoever made it.
    """
    if work.kind == "theory" and (job is None or job.status != "SUCCEEDED"):
        return None
    try:
        metrics = read_json(storage / work.result, Metrics, "")
    except DamagedDataError:
        return None
    if metrics is None:
        return None
    if "checks" in metrics:
        return f"{sum(check['passed'] for check in metrics['checks'])} of {len(metrics['checks'])} checks passed"
    recalls = [f"{name} {value:.4f}" for name, value in sorted(metrics.items())]
    return ", ".join(recalls) or "done"


def _override(key: str, value: object) -> str:
    """Return an override that gives a text, which is used as it is.

    Example:
        >>> _override("name", "3.10")
        'name=3.10'
    """
    return f"{key}={value}"


def _hash(about: Sequence[Any]) -> str:
    return hashlib.sha256(json.dumps(about, sort_keys=True, default=str).encode()).hexdigest()[:8]
