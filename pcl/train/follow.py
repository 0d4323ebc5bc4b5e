"""What the people who started a training see of it."""

__all__ = ["follow"]

import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Annotated

from pydantic import Field
from tqdm import tqdm

from pcl.errors import DamagedDataError, printable
from pcl.storage.place import Place
from pcl.storage.stored import Count, Finite, read_json


@dataclass(frozen=True)
class Progress:
    """What worker 0 writes of how far it is, as far as it is shown."""

    step: Count
    loss: Finite | None = None
    pairs_per_second: Finite = 0.0
    held_out: Annotated[Finite | None, Field(alias="validation/loss")] = None


def follow(path: Place, num_steps: int, stop: threading.Event, heard: Callable[[], list[str]]) -> None:
    """Show progress, a bar on a terminal and plain lines elsewhere, and what is said of the workers.

    Args:
        path: of the file in which worker 0 writes how far it is.
        num_steps: steps in all.
        stop: ends this.
        heard: returns the lines that were said since it was last called.
    """
    bar = tqdm(total=num_steps, unit="step", disable=not sys.stderr.isatty())
    shown, last = -1, False
    while not last:
        last = stop.wait(0.5)
        lines: list[str] = []
        with suppress(Exception):  # of Ray: of a cluster that does not answer the end of the training tells
            lines = heard()
        for line in lines:
            bar.write(printable(line), file=sys.stdout)
            sys.stdout.flush()
        found = None
        with suppress(OSError, DamagedDataError):  # of storage that refuses others tell; the next one is written anew
            found = read_json(path, Progress, "")
        state = found or Progress(shown)
        if state.step != shown and state.loss is not None:
            held_out = "" if state.held_out is None else f", held-out {state.held_out:.4f}"
            text = f"loss {state.loss:.4f}{held_out}, {state.pairs_per_second:,.0f} pairs/s"
            bar.set_postfix_str(text, refresh=False)
            bar.n = state.step
            bar.refresh()
            if bar.disable:
                print(f"step {state.step} of {num_steps}: {text}", flush=True)  # noqa: T201
        shown = state.step
    bar.close()
