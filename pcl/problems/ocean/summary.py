"""What an archive of currents is, what of it is missing and which of its time is used: lines for people."""

__all__ = ["describe_archive", "describe_use"]

import os
from collections.abc import Mapping, Sequence

import numpy as np

from pcl.problems.ocean.currents import Currents
from pcl.problems.ocean.reading.time import date
from pcl.problems.ocean.tiles import DAY_S, HOUR_S, regular_interval

LISTED = 5  # steps in a line


def describe_archive(currents: Currents, longest_gap_s: float) -> list[str]:
    """Return what an archive holds, what has been left out of it, and what is missing.

    Args:
        currents: of which every step has been looked at.
        longest_gap_s: that is bridged, seconds.
    """
    found = currents.survey
    assert found is not None
    rows, columns = currents.wet.shape
    depth = "a depth that the files do not state" if currents.depth_m is None else f"{currents.depth_m:g} m depth"
    lines = [
        f"currents: {len(currents.time_s):,} steps of {_duration(regular_interval(currents.time_s))}, "
        f"{_date(currents, 0)} to {_date(currents, -1)}, on {rows} x {columns} points"
        f"{' around the globe' if currents.is_periodic else ''}, at {depth}, {currents.wet.mean():.0%} water"
    ]
    if found.left_out:
        steps = [f"{date(time_s, currents.calendar)} in {path}" for path, time_s in found.left_out]
        lines.append(f"left out, since no point has a current then: {_list(steps)}")
    if found.gaps > 0:
        lines.append(
            f"gaps: {100 * found.gaps:.2g} % of the values in water are missing; up to {longest_gap_s / HOUR_S:g} h "
            "from one known value to the next they are interpolated in time (data.ocean.max_gap_hours), in longer gaps "
            "drifters are lost"
        )
    if currents.notes:
        lines.append(f"not followed: {_list(currents.notes)}")
    if currents.aside:
        lines.append(f"not read, beside the files: {', '.join(map(os.path.basename, currents.aside))}")
    return lines


def describe_use(currents: Currents, steps: Mapping[str, np.ndarray]) -> str:
    """Return how many time steps the windows use, and where the others lie.

    Args:
        currents: the archive.
        steps: indices of the steps in windows, of ``train`` and of ``test``.
    """
    train, test = steps["train"], steps["test"]
    between, after = int(test[0] - train[-1] - 1), int(len(currents.time_s) - 1 - test[-1])
    others = len(currents.time_s) - len(train) - len(test) - between - after
    unused = [f"{between:,} between training and test"]
    if after:
        unused.append(f"the last {after:,}, from {_date(currents, -after)}")
    if others:
        unused.append(f"{others:,} that no whole window holds")
    used = f"{len(train):,} steps are used for training, {len(test):,} for testing"
    return f"time: {used}; not used: {', '.join(unused)}"


def _date(currents: Currents, step: int) -> str:
    return date(float(currents.time_s[step]), currents.calendar)


def _list(entries: Sequence[str]) -> str:
    more = f" and {len(entries) - LISTED} more" if len(entries) > LISTED else ""
    return ", ".join(entries[:LISTED]) + more


def _duration(seconds: float) -> str:
    for unit, length_s in (("d", DAY_S), ("h", HOUR_S), ("min", 60.0)):
        if seconds >= length_s:
            return f"{seconds / length_s:.4g} {unit}"
    return f"{seconds:.4g} s"
