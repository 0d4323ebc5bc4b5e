"""What the head gets done, and what became of it: values, and the rules by which they change; no clock, no cluster."""

__all__ = [
    "DONE",
    "GIVEN_UP",
    "GONE",
    "RUNNING",
    "STATES",
    "WAITING",
    "Record",
    "Rules",
    "State",
    "Time",
    "Work",
    "choose",
    "settle",
]

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Annotated, Literal, get_args

from pydantic import Field

from pcl.cluster.jobs import Job, attempt_name
from pcl.storage.stored import Count, Finite

State = Literal["waiting", "running", "done", "given up", "gone"]
STATES: tuple[State, ...] = get_args(State)
WAITING, RUNNING, DONE, GIVEN_UP, GONE = STATES
LONGEST_BACKOFF_S = 3600.0
NO_ROOM = "waits for room in the cluster"
MOST_S = 1e11  # of a clock on the wall, in the year 5138


Name = Annotated[str, Field(max_length=1000)]
Time = Annotated[float, Field(ge=0, le=MOST_S)]


@dataclass(frozen=True)
class Work:
    """One thing to do once.

    Attributes:
        name: of it and of nothing else: its jobs are called ``<name>``, ``<name>-a2``, ``<name>-a3``.
        kind: ``evaluation`` or ``theory``.
        what: for people.
        command: of the job.
        result: file below the storage that its job writes last.
        priority: the largest goes first.
    """

    name: Name
    kind: Name
    what: str
    command: tuple[str, ...]
    result: str = ""
    priority: Finite = 0.0


@dataclass(frozen=True)
class Record:
    """What became of a work; times are seconds of the clock on the wall.

    Attributes:
        work: what.
        state: one of ``STATES``.
        submissions: jobs so far, also those that the cluster never started.
        failures: jobs that failed.
        not_before: time of the next attempt.
        since: time of the last change of ``state``.
        message: for people.
    """

    work: Work
    state: State = WAITING
    submissions: Count = 0
    failures: Count = 0
    not_before: Time = 0.0
    since: Time = 0.0
    message: str = ""

    @property
    def job(self) -> str:
        """The name of the newest job."""
        return attempt_name(self.work.name, self.submissions)

    @property
    def shown(self) -> State:
        """The state, for people: a job that the cluster has not started yet does not run."""
        return WAITING if self.state == RUNNING and self.message == NO_ROOM else self.state

    @property
    def has_ended(self) -> bool:
        """Whether nothing more is done about it."""
        return self.state in (DONE, GIVEN_UP, GONE)


@dataclass(frozen=True)
class Rules:
    """How works are done.

    Attributes:
        at_once: jobs of each kind at a time.
        attempts: failures after which a work is given up.
        backoff_s: seconds to wait after the first failure; doubled by each further one.
        timeout_s: longest time of a job; longer ones are stopped and have failed.
    """

    at_once: dict[str, int]
    attempts: int
    backoff_s: float
    timeout_s: float


def settle(record: Record, job: Job | None, *, wanted: bool, result: str | None, now: float, rules: Rules) -> Record:
    """Return what became of a work.

    Args:
        record: what was known.
        job: its newest job, None where the cluster knows of none.
        wanted: whether it is still to be done.
        result: what its finished result says, None where there is none.
        now: time.
        rules: for failures.

    Example:
        >>> rules = Rules({"evaluation": 1}, attempts=2, backoff_s=10, timeout_s=60)
        >>> record = Record(Work("a", "evaluation", "", ()), RUNNING, submissions=1)
        >>> failed = settle(record, Job("FAILED"), wanted=True, result=None, now=100, rules=rules)
        >>> failed.state, failed.failures, failed.not_before
        ('waiting', 1, 110.0)
    """
    if record.state == GIVEN_UP and result is not None:  # somebody else has done it
        return replace(record, state=DONE, since=now, message=result)
    if record.state == GONE and wanted:  # it could not be read for a while
        return replace(record, state=WAITING, since=now, message="")
    if record.has_ended:
        return record
    if record.state == RUNNING and job is not None and not job.has_ended:
        return _goes_on(record, job, now, rules)
    if result is not None:
        return replace(record, state=DONE, since=now, message=result)
    if not wanted:
        return replace(record, state=GONE, since=now, message="its checkpoint or configuration is no longer there")
    if record.state == WAITING:
        return record
    if job is None:  # it was about to be submitted when the head died, or the cluster is another one
        return replace(record, state=WAITING, submissions=max(0, record.submissions - 1), since=now, message="")
    if not job.started:
        return replace(record, state=WAITING, since=now, not_before=now + rules.backoff_s, message=job.message)
    message = job.message if job.status != "SUCCEEDED" else "the job ended well but left no result"
    return _failed(record, message, now, rules)


def _goes_on(record: Record, job: Job, now: float, rules: Rules) -> Record:
    """Return what became of a work whose job has not ended."""
    if job.status == "PENDING":
        return replace(record, message=NO_ROOM)
    if record.message == NO_ROOM:
        return replace(record, since=now, message="")
    if now - record.since > rules.timeout_s:
        return _failed(record, f"stopped after {rules.timeout_s:g} s", now, rules)
    return record


def _failed(record: Record, message: str, now: float, rules: Rules) -> Record:
    failures = record.failures + 1
    wait_s = min(rules.backoff_s * 2.0 ** (failures - 1), LONGEST_BACKOFF_S)
    state = GIVEN_UP if failures >= rules.attempts else WAITING
    return replace(record, state=state, failures=failures, since=now, not_before=now + wait_s, message=message)


def choose(records: Iterable[Record], now: float, rules: Rules) -> list[Record]:
    """Return the works to submit now, as running: the first by priority for which there is room.

    Args:
        records: of all works.
        now: time.
        rules: for what runs at a time.

    Example:
        >>> rules = Rules({"evaluation": 1}, attempts=2, backoff_s=10, timeout_s=60)
        >>> works = [Work(name, "evaluation", "", (), priority=i) for i, name in enumerate(("old", "new"))]
        >>> [record.job for record in choose([Record(work) for work in works], 0, rules)]
        ['new']
    """
    records = list(records)
    room = {
        kind: most - sum(record.state == RUNNING and record.work.kind == kind for record in records)
        for kind, most in rules.at_once.items()
    }
    chosen = []
    ready = [record for record in records if record.state == WAITING and not _waits(record, now)]
    for record in sorted(ready, key=lambda record: -record.work.priority):
        if room.get(record.work.kind, 0) > 0:
            room[record.work.kind] -= 1
            started = replace(record, state=RUNNING, submissions=record.submissions + 1, since=now)
            chosen.append(replace(started, message=NO_ROOM))  # until the cluster says otherwise
    return chosen


def _waits(record: Record, now: float) -> bool:
    """Return whether it is not yet time; no wait is longer than the longest, whatever becomes of the clock."""
    return now < record.not_before <= now + LONGEST_BACKOFF_S
