"""What the head shows: ``status.json``, a table for people, and TensorBoard."""

__all__ = ["Status", "describe", "scalars", "status", "table"]

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Annotated

from pydantic import Field
from typing_extensions import TypedDict

from pcl.errors import printable
from pcl.head.work import GIVEN_UP, RUNNING, STATES, WAITING, Record, State, Time
from pcl.storage.stored import Count

ORDER = (GIVEN_UP, RUNNING, WAITING)  # what people look for first
MOST_ROWS = 40
SLIP_S = 5.0  # between the clocks of two machines


class About(TypedDict):
    """What a status says of the head itself."""

    host: str
    pid: Count
    poll_s: Annotated[float, Field(gt=0, le=1e6)]


class Row(TypedDict):
    """What a status says of a work."""

    what: str
    kind: str
    state: State
    job: str
    failures: Count
    since: Time
    next_attempt: Time | None
    message: str


class Status(TypedDict):
    """The content of ``status.json``."""

    updated: Time
    head: About
    counts: dict[State, Count]
    works: list[Row]


def status(records: Iterable[Record], now: float, about: About) -> Status:
    """Return everything that is known, as JSON.

    Args:
        records: of all works.
        now: time, seconds.
        about: of the head itself.
    """
    records = list(records)
    return {
        "updated": now,
        "head": about,
        "counts": {state: sum(record.shown == state for record in records) for state in STATES},
        "works": [_as_json(record) for record in sorted(records, key=_urgency)],
    }


def _urgency(record: Record) -> tuple[int, float]:
    return (ORDER.index(record.shown) if record.shown in ORDER else len(ORDER), -record.since)


def _as_json(record: Record) -> Row:
    return {
        "what": record.work.what,
        "kind": record.work.kind,
        "state": record.shown,
        "job": record.job if record.submissions else "",
        "failures": record.failures,
        "since": record.since,
        "next_attempt": record.not_before if record.state == WAITING and record.failures else None,
        "message": record.message,
    }


def table(content: Status, now: float) -> list[list[str]]:
    """Return the works of a status as a table: first those given up, then running, waiting, and the latest others.

    Args:
        content: of ``status.json``.
        now: time, seconds.
    """
    rows = [["what", "kind", "state", "since", "failures", "job", "message"]]
    for work in content["works"][:MOST_ROWS]:
        message = work["message"]
        if work["next_attempt"] and work["next_attempt"] > now:
            message += f"; again in {work['next_attempt'] - now:.0f} s"
        rows.append(
            [
                work["what"],
                work["kind"],
                work["state"],
                datetime.fromtimestamp(work["since"], UTC).strftime("%m-%d %H:%M:%S"),
                str(work["failures"]),
                work["job"],
                message if len(message) <= 80 else f"{message[:77]}...",
            ]
        )
    return [[printable(cell) for cell in row] for row in rows]


def describe(content: Status, now: float, *, has_ended: bool = False) -> str:
    """Return a line on the head: whether it is alive, and how much there is to do.

    Args:
        content: of ``status.json``.
        now: time, seconds.
        has_ended: whether the process of the head is known to have ended.
    """
    head, age_s = content["head"], now - content["updated"]
    if has_ended:
        alive = "NOT RUNNING: start it again, it goes on"
    elif age_s < -SLIP_S:
        alive = "SILENT, or the clock was set back: is it still running?"
    else:
        alive = "at work" if age_s < max(60.0, 5 * head["poll_s"]) else "SILENT: is it still running?"
    counts = ", ".join(f"{content['counts'].get(state, 0)} {state}" for state in STATES)
    when = f"{age_s:.0f} s ago" if age_s >= -SLIP_S else f"{-age_s:.0f} s in the future"
    return f"head: process {head['pid']} on {printable(head['host'])}, {alive}, updated {when}; {counts}"


def scalars(records: Iterable[Record]) -> dict[str, float]:
    """Return what TensorBoard shows: the number of works by kind and state."""
    counts: dict[str, float] = {}
    for record in records:
        for state in STATES:
            tag = f"head/{record.work.kind}/{state.replace(' ', '_')}"
            counts[tag] = counts.get(tag, 0.0) + (record.shown == state)
    return counts
