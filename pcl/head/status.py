"""What the head shows: ``status.json``, a table for people, and TensorBoard."""

__all__ = ["describe", "scalars", "status", "table"]

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

from pcl.head.work import GIVEN_UP, RUNNING, STATES, WAITING, Record

ORDER = (GIVEN_UP, RUNNING, WAITING)  # what people look for first
MOST_ROWS = 40


def status(records: Iterable[Record], now: float, about: Mapping[str, Any]) -> dict[str, Any]:
    """Return everything that is known, as JSON.

    Args:
        records: of all works.
        now: time, seconds.
        about: of the head itself.
    """
    records = list(records)
    return {
        "updated": now,
        "head": dict(about),
        "counts": {state: sum(record.state == state for record in records) for state in STATES},
        "works": [_as_json(record) for record in sorted(records, key=_urgency)],
    }


def _urgency(record: Record) -> tuple[int, float]:
    return (ORDER.index(record.state) if record.state in ORDER else len(ORDER), -record.since)


def _as_json(record: Record) -> dict[str, Any]:
    return {
        "what": record.work.what,
        "kind": record.work.kind,
        "state": record.state,
        "job": record.job if record.submissions else "",
        "failures": record.failures,
        "since": record.since,
        "next_attempt": record.not_before if record.state == WAITING and record.failures else None,
        "message": record.message,
    }


def table(content: Mapping[str, Any], now: float) -> list[list[str]]:
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
    return rows


def describe(content: Mapping[str, Any], now: float) -> str:
    """Return a line on the head: whether it is alive, and how much there is to do."""
    head, age_s = content["head"], now - content["updated"]
    alive = "at work" if age_s < max(60.0, 5 * head["poll_s"]) else "SILENT: is it still running?"
    counts = ", ".join(f"{content['counts'][state]} {state}" for state in STATES)
    return f"head: process {head['pid']} on {head['host']}, {alive}, updated {age_s:.0f} s ago; {counts}"


def scalars(records: Iterable[Record]) -> dict[str, float]:
    """Return what TensorBoard shows: the number of works by kind and state."""
    counts: dict[str, float] = {}
    for record in records:
        for state in STATES:
            tag = f"head/{record.work.kind}/{state.replace(' ', '_')}"
            counts[tag] = counts.get(tag, 0.0) + (record.state == state)
    return counts
