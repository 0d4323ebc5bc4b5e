"""A trace of a few steps by torch.profiler, to be opened in Perfetto or chrome://tracing."""

__all__ = ["profiled"]

import sys
import tempfile
from collections.abc import Generator, Iterable, Sequence
from pathlib import Path
from typing import TypeVar

import torch
from torch.profiler import ProfilerActivity, profile

from pcl.storage.place import Place, write_bytes

Batch = TypeVar("Batch")


def profiled(
    batches: Iterable[Batch], first_step: int, steps: Sequence[int], run: Place
) -> Generator[Batch, None, None]:
    """Yield batches and trace what is done with those of steps a..b, into ``<run>/profile/steps_a_b.pt.trace.json``.

    A batch is asked for at the beginning of its step. Close the iterator: training may end within the steps.

    Args:
        batches: of the steps after ``first_step``.
        first_step: steps done before.
        steps: a and b.
        run: the run's directory.
    """
    first, last = steps
    profiler: profile | None = None
    begun = done = first_step
    try:
        for step, batch in enumerate(batches, first_step + 1):
            if profiler is None and first <= step <= last:
                cuda = [ProfilerActivity.CUDA] if torch.cuda.is_available() else []
                profiler, begun = profile(activities=[ProfilerActivity.CPU, *cuda]), step
                profiler.start()
            elif profiler is not None and step > last:
                _finish(profiler, f"steps_{begun}_{done}", run)
                profiler = None
            done = step
            yield batch
    finally:
        if profiler is not None:
            _finish(profiler, f"steps_{begun}_{done}", run)


def _finish(profiler: profile, name: str, run: Place) -> None:
    """Write a trace; storage that refuses costs the trace, never the training."""
    profiler.stop()
    with tempfile.TemporaryDirectory() as directory:
        file = Path(directory) / "trace.json"
        profiler.export_chrome_trace(str(file))
        try:
            write_bytes(run / "profile" / f"{name}.pt.trace.json", file.read_bytes())
        except OSError as error:
            print(f"the trace {name} is lost: {error}", file=sys.stderr, flush=True)  # noqa: T201
