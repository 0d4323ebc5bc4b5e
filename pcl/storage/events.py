"""What TensorBoard reads: events, and the files that hold them as records.

A folder of event files is read in the order of their names, file after file, and a running TensorBoard reads only the
newest one again. So a file's name is numbered above all others, only the newest is written, and none is ever deleted.
"""

__all__ = ["EventFile", "Meaning", "event_folder", "hyperparameters", "image", "restart", "scalars", "table"]

import io
import struct
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from tensorboard.compat.proto.event_pb2 import Event, SessionLog  # type: ignore[import-untyped]
from tensorboard.compat.proto.summary_pb2 import Summary, SummaryMetadata  # type: ignore[import-untyped]
from tensorboard.summary.writer.record_writer import RecordWriter  # type: ignore[import-untyped]
from torch.utils.tensorboard.summary import hparams, text

from pcl.storage.place import Place, create, is_local, names, naming, write_bytes

PREFIX = "events.out.tfevents"
LONG_BYTES = 1 << 18  # an address is written whole with every point


class Meaning(NamedTuple):
    """What a curve or a picture is to people: a title, and a sentence with the unit."""

    title: str
    text: str

    def metadata(self, plugin: str) -> SummaryMetadata:
        """Return it as TensorBoard reads it, which keeps that of the first point of a tag."""
        return SummaryMetadata(
            display_name=self.title,
            summary_description=self.text,
            plugin_data=SummaryMetadata.PluginData(plugin_name=plugin),
        )


def scalars(values: Mapping[str, float], step: int, meanings: Mapping[str, Meaning] | None = None) -> Event:
    """Return a point of each of some curves, by tag; the first one of a curve may say what it means."""
    told = {tag: meaning.metadata("scalars") for tag, meaning in (meanings or {}).items()}
    points = [Summary.Value(tag=tag, simple_value=value, metadata=told.get(tag)) for tag, value in values.items()]
    return Event(wall_time=time.time(), step=step, summary=Summary(value=points))


def image(tag: str, png: bytes, step: int, meaning: Meaning | None = None) -> Event:
    """Return a picture, given as a PNG file; the first one may say what it shows."""
    width, height = struct.unpack(">II", png[16:24])  # of the header
    content = Summary.Image(width=width, height=height, colorspace=4, encoded_image_string=png)
    picture = Summary.Value(tag=tag, image=content, metadata=meaning and meaning.metadata("images"))
    return Event(wall_time=time.time(), step=step, summary=Summary(value=[picture]))


def table(tag: str, rows: Sequence[Sequence[str]], step: int) -> Event:
    """Return a table as a text; the first row is its head."""
    head, *body = ["| " + " | ".join(row) + " |" for row in rows]
    markdown = "\n".join([head, "|" + "---|" * len(rows[0]), *body])
    return Event(wall_time=time.time(), step=step, summary=text(tag, markdown))  # type: ignore[no-untyped-call]


def restart(first_step: int) -> Event:
    """Return what tells TensorBoard to forget the points from a step on: they follow anew."""
    return Event(wall_time=time.time(), step=first_step, session_log=SessionLog(status=SessionLog.START))


def hyperparameters(values: Mapping[str, Any]) -> Event:
    """Return the values of a run for the HPARAMS tab.

    The tab finds out by itself which hyperparameters and metrics the runs have, those of runs below this one too, as
    long as no run claims to know: so the summary that lists them is left out.
    """
    known = {name: value if isinstance(value, bool | int | float) else str(value) for name, value in values.items()}
    _, session, _ = hparams(known, {})  # type: ignore[no-untyped-call]
    return Event(wall_time=time.time(), summary=session)


def event_folder(present: Place, earlier: Place) -> Place:
    """Return the folder of some event files: the earlier one where a run of an earlier version began them there.

    TensorBoard names curves by their folder, so those of a run that goes on must stay together.

    Args:
        present: where they lie.
        earlier: where an earlier version of this program put them.
    """
    return earlier if _newest(earlier) else present


class EventFile:
    """An event file that sorts after all others of its folder.

    Args:
        folder: where it is made.
        events: gives its first ones, asked again when another process was quicker: what it returns knows of all that
            the files before this one hold.

    Raises:
        OSError: storage refuses.
    """

    def __init__(self, folder: Place, events: Callable[[], Iterable[Event]]) -> None:
        while True:
            self.path: Place = folder / f"{PREFIX}.{_newest(folder) + 1:010d}.pcl"
            version = Event(wall_time=time.time(), file_version="brain.Event:2")
            self.content = _records([version, *events()])
            if _create(self.path, self.content):
                return

    @property
    def is_long(self) -> bool:
        """Whether appending costs more than another file would."""
        return not is_local(self.path) and len(self.content) > LONG_BYTES

    def append(self, events: Iterable[Event]) -> None:
        """Add events: to a folder's file in place, to an address by writing all of it again.

        Raises:
            OSError: storage refuses; then the file may end in half a record, and nothing may follow that.
        """
        added = _records(events)
        if is_local(self.path):
            with naming(self.path), self.path.open("ab") as file:
                file.write(added)
        else:
            self.content += added
            write_bytes(self.path, self.content)


def _newest(folder: Place) -> int:
    """Return the number of the newest event file of a folder, 0 if there is none."""
    numbers = (name.removeprefix(f"{PREFIX}.").split(".")[0] for name in names(folder) if name.startswith(PREFIX))
    return max((int(number) for number in numbers if number.isdigit()), default=0)


def _create(path: Place, content: bytes) -> bool:
    """Write a file that must not exist; a folder sees it grow, for TensorBoard would read one under another name."""
    if not isinstance(path, Path):
        return create(path, content)
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with naming(path), path.open("xb") as file:
            file.write(content)
    except FileExistsError:
        return False
    return True


def _records(events: Iterable[Event]) -> bytes:
    buffer = io.BytesIO()
    writer = RecordWriter(buffer)
    for event in events:
        writer.write(event.SerializeToString())
    return buffer.getvalue()
