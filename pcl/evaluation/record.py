"""What an evaluation leaves in its run; ``metrics.json`` is the mark that the evaluation is complete.

An evaluation is written whole into a folder of its own beside the earlier one of the same checkpoint, ``.draft``, and
then put in its place file by file, ``metrics.json`` last. So an earlier evaluation stays as it is if storage refuses
while the next one is written. If the process is killed in the moment in which files are put in place (in S3, while
they are uploaded a second time), the earlier metrics stay, and figures may already be the next ones: ``.draft`` says
so, and evaluating again ends it.

Its curves have event files of their own, in ``<run>/evaluations``, for TensorBoard follows only the newest event file
of a folder: one in that of the training would hide what the training still writes.

Evaluations come in any order of steps, and several at a time. TensorBoard draws the points of a curve in the order they
come, and one with an earlier step makes it drop the later ones. So an evaluation writes a file of all points from its
own step on, which begins with the event of a restart there: the later points are dropped and follow anew. A file knows
of all evaluations that the files before it hold, since each of them leaves its draft first.
"""

__all__ = ["save_evaluation"]

import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict
from tensorboard.compat.proto.event_pb2 import Event  # type: ignore[import-untyped]

from pcl.errors import DamagedDataError, printable
from pcl.evaluation.embeddings import write_projector
from pcl.evaluation.meanings import caption_of, meaning_of
from pcl.evaluation.page import png_of
from pcl.evaluation.report import REPORT, Card, report
from pcl.evaluation.result import Evaluation
from pcl.storage.events import EventFile, Meaning, event_folder, image, restart, scalars
from pcl.storage.place import Place, is_local, names, read_bytes, write_bytes
from pcl.storage.stored import Count, Finite, read_sealed, sealed, write_json

COMPLETE, DRAFT, OF_CHECKPOINT = "metrics.json", ".draft", "checkpoint_"
SUFFIXES = (".json", ".png", ".nc", ".html")
PNG = b"\x89PNG\r\n\x1a\n"
PNG_HEADER_BYTES = 33
MOST_FIGURES = 10  # of a tag, which is what TensorBoard keeps


class Metrics(BaseModel):
    """What ``metrics.json`` holds beside its checksum: metrics and what they are of."""

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, str | bool | int | Finite | None]

    step: Count


def save_evaluation(
    result: Evaluation,
    run: Place,
    checkpoint: str,
    about: Mapping[str, Any],
    part: str = "",
    card: Card | None = None,
) -> Place:
    """Write metrics, figures, a page, datasets, curves and embeddings, in place of an earlier evaluation.

    Args:
        result: of the evaluation.
        run: the run's directory.
        checkpoint: its name.
        about: what was evaluated, with ``step``; it goes into ``metrics.json``.
        part: name of what was evaluated other than the whole test split, which has a folder and curves of its own.
        card: what the page says of the model; None: its names alone.

    Returns:
        The folder of the evaluation.

    Raises:
        OSError: storage refuses; the evaluation is not complete then.
    """
    folder = run / "evaluations" / checkpoint / part if part else run / "evaluations" / checkpoint
    draft, step = folder / DRAFT, int(about["step"])
    board = event_folder(run / "evaluations", run / "tensorboard" / "evaluation")
    _remove(draft)
    try:
        _write(result, draft, about, card or Card(f"{run.name}, {checkpoint}"))
        found = _drawn(run, board, step)
        if result.embeddings is not None and not part and all(one.step <= step for one in found if one.tag == "eval"):
            write_projector(board, step, result.embeddings)
    except BaseException:
        _remove(draft)
        raise
    _put_in_place(draft, folder)
    return folder


def _write(result: Evaluation, folder: Place, about: Mapping[str, Any], card: Card) -> None:
    """Write datasets, figures, the page and, last, metrics."""
    for name, dataset in result.datasets.items():
        with tempfile.TemporaryDirectory() as directory:
            dataset.to_netcdf(Path(directory) / name)
            write_bytes(folder / name, (Path(directory) / name).read_bytes())
    pictures = {name: png_of(figure, dpi=120) for name, figure in result.figures.items()}
    for name, png in pictures.items():
        write_bytes(folder / name, png)
    write_bytes(folder / REPORT, report(result, card, pictures).encode())
    content = {**about, **{name: float(value) for name, value in result.metrics.items()}}
    write_json(folder / COMPLETE, sealed(content))


def _put_in_place(draft: Place, folder: Place) -> None:
    """Give a draft's files the place of an earlier evaluation's, the mark last; then remove those it has no more."""
    written = sorted(names(draft), key=lambda name: name == COMPLETE)
    for name in written:
        if isinstance(draft, Path):
            (draft / name).replace(str(folder / name))
        else:
            write_bytes(folder / name, read_bytes(draft / name) or b"")
    for name in names(folder):
        if name.endswith(SUFFIXES) and name not in written:
            (folder / name).unlink()
    _remove(draft)


def _remove(draft: Place) -> None:
    for name in names(draft):
        (draft / name).unlink(missing_ok=True)
    if is_local(draft) and draft.is_dir():
        draft.rmdir()


@dataclass(frozen=True)
class _Evaluation:
    step: int
    tag: str
    folder: Place
    content: dict[str, Any]


def _evaluations(run: Place) -> tuple[list[_Evaluation], list[str]]:
    """Return the evaluations of a run, complete or about to be, in the order of their steps, and lines on damaged ones.

    Where one is about to take the place of another it is the one.
    """
    found, lines = [], []
    for checkpoint in (name for name in names(run / "evaluations") if name.startswith(OF_CHECKPOINT)):
        top = run / "evaluations" / checkpoint
        parts = [name for name in names(top) if "." not in name]
        for folder, tag in [(top, "eval"), *((top / part, f"eval_{part}") for part in parts)]:
            try:
                one = _read(folder / DRAFT, tag, checkpoint) or _read(folder, tag, checkpoint)
            except DamagedDataError as error:
                lines.append(f"left out of the curves: {error}")
            else:
                found += [one] if one else []
    return sorted(found, key=lambda one: one.step), lines


def _read(folder: Place, tag: str, checkpoint: str) -> _Evaluation | None:
    path, remedy = folder / COMPLETE, f"evaluate {checkpoint} again"
    read = read_sealed(path, Metrics, remedy)
    if read is None:
        return None
    step = read[0].step
    if checkpoint != f"checkpoint_{step:08d}":
        raise DamagedDataError(f"{path} is of step {step}: {remedy}")
    return _Evaluation(step, tag, folder, read[0].model_extra or {})


def _drawn(run: Place, board: Place, step: int) -> list[_Evaluation]:
    """Write the curves from a step on, and return the evaluations that they are of."""
    found, lines = list[_Evaluation](), list[str]()

    def events() -> Iterator[Event]:
        nonlocal found, lines
        found, lines = _evaluations(run)
        return _events(found, step)

    EventFile(board, events)
    for line in lines:
        print(printable(line), file=sys.stderr, flush=True)  # noqa: T201
    return found


def _events(found: Sequence[_Evaluation], first_step: int) -> Iterator[Event]:
    """Yield the scalars of every evaluation from a step on, and the figures of the newest of each tag."""
    yield restart(first_step)
    shown, explained = _with_figures(found), set[str]()
    for one in (one for one in found if one.step >= first_step):
        values = {f"{one.tag}/{name}": value for name, value in one.content.items() if isinstance(value, float)}
        fresh = values.keys() - explained
        explained |= fresh
        yield scalars(values, one.step, {name: meaning_of(name.removeprefix(f"{one.tag}/")) for name in fresh})
        if str(one.folder) in shown:
            yield from _images(one)


def _with_figures(found: Sequence[_Evaluation]) -> set[str]:
    """Return the folders of the newest evaluations of each tag, whose figures are drawn: TensorBoard shows no more."""
    of_tag: dict[str, list[str]] = {}
    for one in found:
        of_tag.setdefault(one.tag, []).append(str(one.folder))
    return {folder for folders in of_tag.values() for folder in folders[-MOST_FIGURES:]}


def _images(one: _Evaluation) -> Iterator[Event]:
    for name in names(one.folder):
        if name.endswith(".png"):
            png = read_bytes(one.folder / name) or b""
            if png.startswith(PNG) and len(png) >= PNG_HEADER_BYTES:  # a damaged one stays out
                meaning = Meaning(Path(name).stem.replace("_", " "), caption_of(name))
                yield image(f"{one.tag}/{Path(name).stem}", png, one.step, meaning)
