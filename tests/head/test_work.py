"""The rules of the head: against a simulated cluster, whatever it does, nothing is done twice and nothing forgotten."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pcl.cluster.jobs import Job
from pcl.head.work import DONE, GIVEN_UP, GONE, RUNNING, WAITING, Record, Rules, Work, choose, settle

RULES = Rules({"evaluation": 2, "theory": 1}, attempts=3, backoff_s=10.0, timeout_s=100.0)


def work(name="a", kind="evaluation", priority=0.0):
    return Work(name, kind, name, ("python", "x.py"), priority=priority)


def running(**changes):
    return replace(Record(work(), RUNNING, submissions=1, since=0.0), **changes)


def end(record, job, *, wanted=True, result=None, now=50.0):
    return settle(record, job, wanted=wanted, result=result, now=now, rules=RULES)


@pytest.mark.parametrize(
    ("job", "result", "state", "failures", "submissions"),
    [
        (Job("RUNNING"), None, RUNNING, 0, 1),
        (Job("RUNNING"), "written, not yet ended", RUNNING, 0, 1),
        (Job("PENDING"), None, RUNNING, 0, 1),
        (Job("SUCCEEDED"), "good", DONE, 0, 1),
        (Job("FAILED"), "written before it failed", DONE, 0, 1),
        (Job("SUCCEEDED"), None, WAITING, 1, 1),
        (Job("FAILED", "error: x"), None, WAITING, 1, 1),
        (Job("STOPPED"), None, WAITING, 1, 1),
        (Job("FAILED", "no room", started=False), None, WAITING, 0, 1),
        (None, None, WAITING, 0, 0),
        (None, "good", DONE, 0, 1),
    ],
)
def test_what_becomes_of_a_running_work(job, result, state, failures, submissions):
    record = end(running(), job, result=result)
    assert (record.state, record.failures, record.submissions) == (state, failures, submissions)


def test_a_job_that_takes_too_long_has_failed_but_waiting_for_room_does_not_count():
    pending = end(running(), Job("PENDING"), now=5000)
    assert (pending.state, pending.message) == (RUNNING, "waits for room in the cluster")
    started = end(pending, Job("RUNNING"), now=5000)
    assert (started.state, started.since) == (RUNNING, 5000)
    assert end(started, Job("RUNNING"), now=5100).state == RUNNING
    late = end(started, Job("RUNNING"), now=5101)
    assert (late.state, late.failures, late.message) == (WAITING, 1, "stopped after 100 s")


def test_back_off_doubles_and_then_it_is_given_up():
    record, waits = running(), []
    for _ in range(RULES.attempts - 1):
        record = end(record, Job("FAILED", "error: x"))
        waits.append(record.not_before - 50)
        record = replace(record, state=RUNNING, submissions=record.submissions + 1)
    record = end(record, Job("FAILED", "error: x"))
    assert waits == [10, 20]
    assert (record.state, record.failures, record.message) == (GIVEN_UP, 3, "error: x")
    assert end(record, None) == record


def test_what_is_no_longer_there_is_gone_and_may_come_back():
    assert end(running(state=WAITING), None, wanted=False).state == GONE
    assert end(running(), Job("RUNNING"), wanted=False).state == RUNNING
    gone = end(running(), Job("FAILED"), wanted=False)
    assert gone.state == GONE
    assert end(gone, None, wanted=False) == gone
    assert end(gone, None).state == WAITING


def test_the_newest_go_first_within_the_room_of_their_kind():
    records = [Record(work(f"e{i}", priority=i)) for i in range(5)] + [
        Record(work(f"t{i}", "theory")) for i in range(2)
    ]
    assert [record.work.name for record in choose(records, 0, RULES)] == ["e4", "e3", "t0"]
    busy = [replace(records[0], state=RUNNING), *records[1:4]]
    assert [record.work.name for record in choose(busy, 0, RULES)] == ["e3"]
    later = [replace(record, not_before=10.0) for record in records]
    assert choose(later, 9.9, RULES) == []
    assert len(choose(later, 10, RULES)) == 3


class SimulatedCluster:
    """Jobs that end as they are told, and what was done."""

    def __init__(self):
        self.jobs, self.results, self.successes = {}, set(), []

    def end(self, name, how):
        base = name.split("-a")[0]
        if self.jobs.get(name) != "RUNNING":
            return
        if how == "SUCCEEDED":
            self.results.add(base)
            self.successes.append(base)
        self.jobs[name] = how


EVENTS = st.lists(
    st.tuples(st.integers(0, 3), st.sampled_from(["SUCCEEDED", "FAILED", "STOPPED", "nothing", "die", "lose"])),
    max_size=60,
)


@given(EVENTS)
def test_whatever_happens_each_is_done_once_or_given_up(events):
    """The head dies between writing down and submitting ("die"), or the cluster forgets all of its jobs ("lose")."""
    cluster, names = SimulatedCluster(), ["a", "b", "c", "d"]
    records = {name: Record(work(name, priority=i)) for i, name in enumerate(names)}
    now = 0.0
    for which, event in [*events, *[(i, "SUCCEEDED") for _ in range(6) for i in range(4)], (0, "nothing")]:
        now += 1000
        for name, record in records.items():
            status = cluster.jobs.get(record.job) if record.state == RUNNING else None
            job = Job(status) if status else None
            result = "good" if name in cluster.results else None
            records[name] = settle(
                record, job, wanted=True, result=result, now=now, rules=replace(RULES, timeout_s=1e9)
            )
        starting = choose(records.values(), now, RULES)
        records |= {record.work.name: record for record in starting}  # written down
        if event == "die":
            continue  # before it was submitted
        for record in starting:
            assert record.job not in cluster.jobs, "a name was used twice"
            cluster.jobs[record.job] = "RUNNING"
        assert sum(status == "RUNNING" for status in cluster.jobs.values()) <= 2
        if event == "lose":
            cluster.jobs.clear()
        elif event != "nothing":
            cluster.end(records[names[which]].job, event)
    for name, record in records.items():
        assert cluster.successes.count(name) == (record.state == DONE)
        assert record.state in (DONE, GIVEN_UP), "forgotten"
        assert record.failures <= RULES.attempts
        if record.state == GIVEN_UP:
            assert name not in cluster.results
