"""Scalars for people who watch: TensorBoard, and a small file that a progress bar can follow."""

__all__ = ["Journal", "PatientWriter"]

import sys
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any

from tensorboard.compat.proto.event_pb2 import Event  # type: ignore[import-untyped]

from pcl.storage.events import EventFile, Meaning, event_folder, hyperparameters, restart, scalars, table
from pcl.storage.place import Place
from pcl.storage.stored import write_json
from pcl.train.clock import PARTS
from pcl.train.loop import Scalars

PROGRESS = "progress.json"
OF_PARTS = dict(
    zip(
        PARTS,
        (
            "waiting for the next batch",
            "in the encoders",
            "in the collectives of the loss, in both passes",
            "in the loss",
            "in the backward pass",
            "in averaging the gradient over the workers",
            "in the optimiser",
        ),
        strict=True,
    )
)
MEANINGS = {
    "train/loss": Meaning("loss", "Training loss of the global batch: less is better."),
    "train/loss_u_given_v": Meaning("loss, u given v", "Its part that predicts u from v, without its weight."),
    "train/loss_v_given_u": Meaning("loss, v given u", "Its part that predicts v from u, without its weight."),
    "train/positive_score": Meaning("score of true pairs", "Mean log tilting s(u, v) of the pairs of the batch."),
    "train/effective_negatives": Meaning(
        "effective negatives", "How many items of the batch share the normaliser's weight, on average."
    ),
    "train/temperature": Meaning("temperature", "tau, which divides every score; a curve only where it is learned."),
    "train/learning_rate": Meaning("learning rate", "Of Adam, after warm-up and schedule."),
    "train/gradient_norm": Meaning("gradient norm", "Norm of the gradient over all parameters, before it is clipped."),
    "train/pairs_per_second": Meaning("pairs per second", "Of all workers, checkpoints and validation included."),
    "train/data_share": Meaning("share of time waiting for data", "0 to 1; more than .1: reading is the bottleneck."),
    "train/collective_share": Meaning("share of time in collectives", "0 to 1: what the workers wait for each other."),
    "train/checkpoint_ms": Meaning("stop for a checkpoint", "Milliseconds that the last checkpoint stopped the steps."),
    "validation/loss": Meaning(
        "held-out loss", "The training loss on pairs that are not trained on: where it rises, training fits noise."
    ),
    "validation/ms": Meaning("time of a held-out loss", "Milliseconds that the last one took."),
} | {f"time/{part}_ms": Meaning(f"time {what}", "Milliseconds of a step.") for part, what in OF_PARTS.items()}
"""What a stranger should know of every curve of a training."""


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
        self._explained: set[str] = set()

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
            self._explained.clear()

    def draw(self, step: int, values: Mapping[str, float], rows: Sequence[Sequence[str]] = ()) -> None:
        """Write scalars by tag, and a table, whose first row is its head, as the text ``table``."""
        told = {tag: MEANINGS[tag] for tag in values.keys() & MEANINGS.keys() - self._explained}
        self._explained |= told.keys()
        self.write([scalars(values, step, told), *([table("table", rows, step)] if rows else [])])


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
        folder = event_folder(run, run / "tensorboard")
        self.writer = PatientWriter(folder, [hyperparameters(experiment), restart(first_step + 1)])
        self.writer.write([])
        self._progress({"step": first_step})

    def log(self, step: int, scalars: Scalars) -> None:
        """Write scalars as ``train/<name>``, but for names that have a section of their own, ``time/<part>_ms``."""
        self.writer.draw(step, {name if "/" in name else f"train/{name}": value for name, value in scalars.items()})
        self._progress({"step": step} | scalars)

    def _progress(self, content: Mapping[str, float]) -> None:
        with suppress(OSError):  # the writer has said so
            write_json(self.run / PROGRESS, {"num_steps": self.num_steps} | dict(content))
