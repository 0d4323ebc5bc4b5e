"""The head at work: look at storage and cluster, decide, write down, act; again and again."""

__all__ = ["Head", "Options"]

import os
import shlex
import socket
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Protocol

from pcl.cluster.jobs import Job
from pcl.errors import BadInputError
from pcl.head.status import About, scalars, status, table
from pcl.head.watch import Theory, evaluations, result_of, theory_checks
from pcl.head.work import DONE, GIVEN_UP, GONE, RUNNING, Record, Rules, Work, choose, settle
from pcl.storage.place import Place
from pcl.storage.stored import Count, read_json, write_json

STATUS_EVERY_S = 20.0  # also when nothing changes: a sign of life


class Jobs(Protocol):
    """What the head needs of a cluster; all of it may raise ``RuntimeError`` when the cluster does not answer."""

    def look(self, name: str) -> Job | None:
        """Return what is known of a job."""
        ...

    def submit(self, name: str, command: str) -> None:
        """Start a job."""
        ...

    def stop(self, name: str) -> None:
        """End a job."""
        ...


@dataclass(frozen=True)
class Options:
    """Of a head.

    Attributes:
        rules: how works are done.
        poll_s: seconds between two looks.
        overrides: of every evaluation, such as plugins.
        about: what they lead to, such as the hashes of plugins.
    """

    rules: Rules
    poll_s: float
    overrides: Sequence[str] = ()
    about: Sequence[str] = ()


@dataclass(frozen=True)
class State:
    """What a head keeps in ``state.json``."""

    changes: Count
    records: dict[str, Record]


class Head:
    """Gets theory checks and evaluations done, each once; all that it knows lies in storage, so that it may die.

    A job's name is written down before the job is submitted, and the cluster is asked for it before it is submitted
    again: a head that dies in between repeats nothing and forgets nothing.

    Args:
        folder: of the head itself; its parent is the storage with the runs.
        jobs: of the cluster.
        theory: returns the theory checks to run; asked at every look, as configurations may change.
        options: see there.
        say: prints a line.
        draw: shows scalars and a table at a step, in TensorBoard.
        clock: seconds.

    Raises:
        DamagedDataError: the head's own record cannot be read.
    """

    def __init__(
        self,
        folder: Place,
        jobs: Jobs,
        theory: Callable[[], Sequence[Theory]],
        options: Options,
        *,
        say: Callable[[str], None],
        draw: Callable[[int, dict[str, float], list[list[str]]], None] = lambda *_: None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.folder, self.storage, self.jobs, self.theory = folder, folder.parent, jobs, theory
        self.options, self.say, self.draw, self.clock = options, say, draw, clock
        self._checks: Sequence[Theory] = ()
        self._complaint = ""
        self._shown = 0.0
        self.changes, self.records = self._load()

    def _load(self) -> tuple[int, dict[str, Record]]:
        found = read_json(self.folder / "state.json", State, "delete it, and the head begins anew")
        return (found.changes, found.records) if found else (0, {})

    def step(self) -> None:
        """Look once, and do what there is to do; what storage or cluster refuse is done at a later step."""
        try:
            self._step()
            self._complain("")
        except (OSError, RuntimeError, BadInputError) as error:
            self._complain(" ".join(str(error).split())[:300] or type(error).__name__)

    def _complain(self, text: str) -> None:
        if text and text != self._complaint:
            self.say(f"cannot go on for now: {text}")
        if self._complaint and not text:
            self.say("going on")
        self._complaint = text

    def _step(self) -> None:
        now, rules = self.clock(), self.options.rules
        works, complaint = self._works()
        before = self.records
        # what is done is what is found now: a stored command is never run
        fresh = {name: replace(before.get(name) or Record(work, since=now), work=work) for name, work in works.items()}
        records = before | fresh
        looks = {name: self.jobs.look(r.job) if r.state == RUNNING else None for name, r in records.items()}
        for name, record in records.items():
            wanted = name in works
            if record.state == DONE or (record.state == GONE and not wanted):
                continue
            result = result_of(self.storage, record.work, looks[name])
            records[name] = settle(record, looks[name], wanted=wanted, result=result, now=now, rules=rules)
        late = [r.job for name, r in records.items() if r.state != RUNNING and _alive(looks[name])]
        starting = choose(records.values(), now, rules)
        records |= {record.work.name: record for record in starting}
        for name in late:  # before that is written down, so that a refusal is met again
            self.jobs.stop(name)
        changed = self._keep(records)
        try:
            for record in starting:
                self.jobs.submit(record.job, shlex.join(record.work.command))
                if _alive(job := self.jobs.look(record.job)):
                    begun = settle(record, job, wanted=True, result=None, now=now, rules=rules)
                    self.records = self.records | {record.work.name: begun}
        finally:
            self._show(changed, now)
        if complaint:
            raise complaint

    def _works(self) -> tuple[dict[str, Work], BadInputError | None]:
        """Return what is to be done, by name, and what keeps a configuration of theory checks from being read.

        The theory checks are as they were until it can be read.
        """
        complaint = None
        try:
            self._checks = self.theory()
        except BadInputError as error:
            complaint = error
        works = [
            *theory_checks(self.storage, self._checks),
            *evaluations(self.storage, self.options.overrides, self.options.about),
        ]
        if complaint and not self._checks:
            raise complaint
        return {work.name: work for work in works}, complaint

    def _keep(self, records: dict[str, Record]) -> bool:
        """Write down what is about to happen, and return whether anything changed."""
        changed = [record for name, record in records.items() if self.records.get(name) != record]
        if changed:
            content = {name: asdict(record) for name, record in records.items()}
            write_json(self.folder / "state.json", {"changes": self.changes + 1, "records": content})
            self.changes += 1
            for record in changed:
                self._tell(self.records.get(record.work.name), record)
            self.records = records
        return bool(changed)

    def _show(self, changed: bool, now: float) -> None:
        """Show what is known to people."""
        if changed or abs(now - self._shown) > STATUS_EVERY_S:  # the clock may be set back
            about: About = {"host": socket.gethostname(), "pid": os.getpid(), "poll_s": self.options.poll_s}
            content = status(self.records.values(), now, about)
            write_json(self.folder / "status.json", content)
            self._shown = now
        if changed:
            self.draw(self.changes, scalars(self.records.values()), table(content, now))

    def _tell(self, before: Record | None, record: Record) -> None:
        """Say in a line what happened to a work."""
        if before is not None and (before.state, before.failures) == (record.state, record.failures):
            return
        what, most = f"{record.work.kind} of {record.work.what}", self.options.rules.attempts
        if record.state == RUNNING:
            self.say(f"{what}: starting, job {record.job}")
        elif record.state in (DONE, GONE):
            self.say(f"{what}: {record.state}: {record.message}")
        elif record.state == GIVEN_UP:
            self.say(f"{what}: GIVEN UP after {record.failures} failures: {record.message}")
        elif record.failures:
            wait_s = record.not_before - record.since
            self.say(f"{what}: failure {record.failures} of {most}: {record.message}; again in {wait_s:.0f} s")
        elif record.message and before is not None:
            self.say(f"{what}: did not start: {record.message}")
        elif before is None:
            self.say(f"{what}: waiting")


def _alive(job: Job | None) -> bool:
    return job is not None and not job.has_ended
