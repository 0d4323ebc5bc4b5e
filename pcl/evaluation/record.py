"""What an evaluation leaves in its run; ``metrics.json`` comes last and is the mark that the evaluation is complete.

Its curves have event files of their own, in ``<run>/tensorboard/evaluation``, for TensorBoard follows only the newest
event file of a folder: one in that of the training would hide what the training still writes.

Evaluations come in any order of steps, and several at a time. TensorBoard draws the points of a curve in the order they
come, and one with an earlier step makes it drop the later ones. So an evaluation writes a file of all points from its
own step on, which begins with the event of a restart there: the later points are dropped and follow anew. A file knows
of all evaluations that the files before it hold, since each of them leaves a draft of its metrics first.
"""

__all__ = ["save_evaluation"]

import io
import json
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tensorboard.compat.proto.event_pb2 import Event  # type: ignore[import-untyped]

from pcl.data.manifest import write_json
from pcl.evaluation.embeddings import write_projector
from pcl.evaluation.result import Evaluation
from pcl.events import EventFile, image, restart, scalar
from pcl.storage import Place, names, read_bytes, write_bytes

COMPLETE, DRAFT = "metrics.json", "draft.json"
SUFFIXES = (".json", ".png", ".nc")


def save_evaluation(result: Evaluation, run: Place, checkpoint: str, about: Mapping[str, Any], part: str = "") -> Place:
    """Write metrics, figures, datasets, curves and embeddings, in place of an earlier evaluation of the checkpoint.

    Args:
        result: of the evaluation.
        run: the run's directory.
        checkpoint: its name.
        about: what was evaluated, with ``step``; it goes into ``metrics.json``.
        part: name of what was evaluated other than the whole test split, which has a folder and curves of its own.

    Returns:
        The folder of the evaluation.

    Raises:
        OSError: storage refuses; the evaluation is not complete then.
    """
    folder = run / "evaluations" / checkpoint / part if part else run / "evaluations" / checkpoint
    old = [name for name in names(folder) if name.endswith(SUFFIXES)]
    for name in sorted(old, key=lambda name: name != COMPLETE):
        (folder / name).unlink()
    for name, dataset in result.datasets.items():
        with tempfile.TemporaryDirectory() as directory:
            dataset.to_netcdf(Path(directory) / name)
            write_bytes(folder / name, (Path(directory) / name).read_bytes())
    for name, figure in result.figures.items():
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", dpi=120)
        write_bytes(folder / name, buffer.getvalue())
    content = {**about, **{name: float(value) for name, value in result.metrics.items()}}
    write_json(folder / DRAFT, content)
    board, step = run / "tensorboard" / "evaluation", int(about["step"])
    EventFile(board, lambda: _events(run, step))
    is_last = not part and all(one.step <= step for one in _evaluations(run) if one.tag == "eval")
    if result.embeddings is not None and is_last:
        write_projector(board, step, result.embeddings)
    write_json(folder / COMPLETE, content)
    (folder / DRAFT).unlink()
    return folder


@dataclass(frozen=True)
class _Evaluation:
    step: int
    tag: str
    folder: Place
    content: dict[str, Any]


def _evaluations(run: Place) -> list[_Evaluation]:
    """Return the evaluations of a run, complete or about to be, in the order of their steps."""
    found = []
    for checkpoint in names(run / "evaluations"):
        top = run / "evaluations" / checkpoint
        parts = [name for name in names(top) if "." not in name]
        for folder, tag in [(top, "eval"), *((top / part, f"eval_{part}") for part in parts)]:
            content = read_bytes(folder / COMPLETE) or read_bytes(folder / DRAFT)
            if content is not None:
                metrics = json.loads(content)
                found.append(_Evaluation(int(metrics["step"]), tag, folder, metrics))
    return sorted(found, key=lambda one: one.step)


def _events(run: Place, first_step: int) -> Iterator[Event]:
    """Yield the scalars and figures of every evaluation from a step on."""
    yield restart(first_step)
    for one in _evaluations(run):
        if one.step >= first_step:
            for name, value in one.content.items():
                if isinstance(value, float):
                    yield scalar(f"{one.tag}/{name}", value, one.step)
            for name in names(one.folder):
                if name.endswith(".png") and (png := read_bytes(one.folder / name)):
                    yield image(f"{one.tag}/{Path(name).stem}", png, one.step)
