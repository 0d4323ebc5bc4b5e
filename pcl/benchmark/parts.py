"""Parts of a measurement, each alone: what one finds is told as it comes, and the failure of one ends no other."""

__all__ = ["Bench", "Part", "Row", "is_fine", "line", "run_part"]

import importlib
import math
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

import torch


@dataclass(frozen=True)
class Bench:
    """What is measured, and how thoroughly.

    Attributes:
        device: that computes.
        is_quick: whether sizes are tiny, so that everything runs through in seconds.
        data: the folder that holds mnist/; None: there is none.
        rates: flop/s of products of matrices by precision, which a part measures for those that follow.
    """

    device: torch.device
    is_quick: bool = False
    data: Path | None = None
    rates: dict[str, float] = field(default_factory=dict)

    def wait(self) -> None:
        """Wait for the device."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)


@dataclass(frozen=True)
class Row:
    """A line of the table.

    Attributes:
        case: what was measured.
        numbers: by unit or name.
        note: what is to be said beside them.
        is_right: whether they are what was promised; None where nothing was.
    """

    case: str
    numbers: Mapping[str, float] = field(default_factory=dict)
    note: str = ""
    is_right: bool | None = None


@dataclass(frozen=True)
class Part:
    """Some rows.

    Attributes:
        name: of the part.
        budget_s: after which it is ended.
        module: that holds a generator of rows of this name, given a ``Bench``: it is imported within the part.
    """

    name: str
    budget_s: float
    module: str


class OverBudgetError(BaseException):
    """A part took longer than it may: no error of the code that is measured, which may live on without a kernel."""


def run_part(part: Part, bench: Bench, tell: Callable[[Row], None]) -> dict[str, Any]:
    """Run a part to its end, its failure or that of its time, and return what it found.

    Args:
        part: which.
        bench: what is measured.
        tell: takes each row as it comes.
    """
    rows: list[Row] = []
    error, began = None, time.perf_counter()
    try:
        with _at_most(part.budget_s):
            for row in getattr(importlib.import_module(part.module), part.name)(bench):
                rows.append(row)
                tell(row)
    except (Exception, OverBudgetError) as failure:
        text = f"{failure}".strip().partition("\n")[0][:300]
        error = f"{type(failure).__name__}: {text}"
    seconds = time.perf_counter() - began
    return {"part": part.name, "seconds": seconds, "error": error, "rows": [asdict(row) for row in rows]}


def is_fine(found: Mapping[str, Any]) -> bool:
    """Return whether a part ended, and all that it found is what was promised."""
    return found["error"] is None and all(row["is_right"] is not False for row in found["rows"])


def line(part: str, row: Row) -> str:
    """Return a row as a line of a table of Markdown."""
    numbers = ", ".join(f"{_shown(value)} {name}" for name, value in row.numbers.items())
    found = "; ".join(text for text in (numbers, row.note) if text)
    right = {None: "", True: "yes", False: "NO"}[row.is_right]
    return f"| {part} | {row.case} | {found} | {right} |"


def _shown(value: float) -> str:
    return f"{value:.2e}" if 0 < abs(value) < 1e-2 else f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


@contextmanager
def _at_most(seconds: float) -> Iterator[None]:
    """Raise OverBudgetError in what takes longer; another timer of this process goes on afterwards."""

    def end(number: int, frame: FrameType | None) -> None:
        raise OverBudgetError(f"it took longer than its {seconds:g} s; what follows in this part is left out")

    handler, began = signal.signal(signal.SIGALRM, end), time.perf_counter()
    left = signal.setitimer(signal.ITIMER_REAL, seconds)[0]
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, handler)
        if left:
            signal.setitimer(signal.ITIMER_REAL, max(math.ulp(1.0), left - (time.perf_counter() - began)))
