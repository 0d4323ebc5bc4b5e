"""Scalars for people who watch: TensorBoard, and a small file that a progress bar can follow."""

__all__ = ["Journal", "PatientWriter"]

import sys
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any

from tensorboard.compat.proto.event_pb2 import Event  # type: ignore[import-untyped]

from pcl.storage.events import EventFile, hyperparameters, restart, scalar, table
from pcl.storage.place import Place
from pcl.storage.stored import write_json
from pcl.train.loop import Scalars

PROGRESS = "progress.json"


class PatientWriter:
    """Writes events, and never fails: storage that refuses costs points of the curves, not what they are about.

    One line says so, and the next points go to another event file, since the one at hand may end in half a record. (A
    ``SummaryWriter`` writes in a thread, which ends at the first error and hands it to all later calls.)

    Args:
        folder: of the event files.
        first_events: what the first of them begins with.
    """

    def __init__(self, folder: Place, first_events: Iterable[Event] = ()) -> None:
        self.folder = folder
        self._first_events = [*first_events]
        self._file: EventFile | None = None
        self._works = True

    def write(self, events: Iterable[Event]) -> None:
        """Write events at once, or lose them."""
        try:
            if self._file is None or self._file.is_long:
                given = [*self._first_events, *events]
                self._file = EventFile(self.folder, lambda: given)
                self._first_events = []
            else:
                self._file.append(events)
            self._works = True
        except OSError as error:
            if self._works:
                print(f"TensorBoard lacks points: storage refuses ({error})", file=sys.stderr, flush=True)  # noqa: T201
            self._file, self._works = None, False

    def draw(self, step: int, scalars: Mapping[str, float], rows: Sequence[Sequence[str]] = ()) -> None:
        """Write scalars by tag, and a table, whose first row is its head, as the text ``table``."""
        events = [scalar(tag, value, step) for tag, value in scalars.items()]
        self.write(events + ([table("table", rows, step)] if rows else []))


class Journal:
    """Writes a run's scalars; curves continue without overlap after a resume.

    Args:
        run: the run's directory.
        first_step: the step that training goes on from; later points of an interrupted run are dropped.
        num_steps: steps in all.
        experiment: all that the run is a function of, flat, for the HPARAMS tab.
    """

    def __init__(self, run: Place, first_step: int, num_steps: int, experiment: Mapping[str, Any]) -> None:
        self.run, self.num_steps = run, num_steps
        self.writer = PatientWriter(run / "tensorboard", [hyperparameters(experiment), restart(first_step + 1)])
        self.writer.write([])
        self._progress({"step": first_step})

    def log(self, step: int, scalars: Scalars) -> None:
        """Write scalars as ``train/<name>``, but for names that have a section of their own, ``time/<part>_ms``."""
        self.writer.draw(step, {name if "/" in name else f"train/{name}": value for name, value in scalars.items()})
        self._progress({"step": step} | scalars)

    def _progress(self, content: Mapping[str, float]) -> None:
        with suppress(OSError):  # the writer has said so
            write_json(self.run / PROGRESS, {"num_steps": self.num_steps} | dict(content))
