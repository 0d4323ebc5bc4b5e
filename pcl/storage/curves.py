"""Curves as event files hold them: read again, for whoever draws them beside those of another run."""

__all__ = ["Curve", "read_curves"]

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field

from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from tensorboard.compat.proto.event_pb2 import Event, SessionLog  # type: ignore[import-untyped]

from pcl.storage.events import PREFIX
from pcl.storage.place import Place, names, read_bytes

HEADER, FOOTER = struct.Struct("<QI"), 4  # bytes of a record and their checksum, before it; a checksum of it, after it


@dataclass
class Curve:
    """Points of a curve: increasing steps, and the value at each."""

    steps: list[int] = field(default_factory=list)
    values: list[float] = field(default_factory=list)

    def _drop(self, first_step: int) -> None:
        while self.steps and self.steps[-1] >= first_step:
            self.steps.pop()
            self.values.pop()


def read_curves(folder: Place) -> dict[str, Curve]:
    """Curves by tag of the event files of a folder, as TensorBoard shows them: after a restart points come anew.

    A file that is cut off counts to where it is whole.

    Raises:
        OSError: storage refuses.
    """
    curves: dict[str, Curve] = {}
    for name in sorted(name for name in names(folder) if name.startswith(PREFIX)):
        for event in _events(read_bytes(folder / name) or b""):
            if event.session_log.status == SessionLog.START:
                for curve in curves.values():
                    curve._drop(event.step)
            for value in event.summary.value:
                if value.WhichOneof("value") == "simple_value":
                    curve = curves.setdefault(value.tag, Curve())
                    curve._drop(event.step)
                    curve.steps.append(event.step)
                    curve.values.append(value.simple_value)
    return curves


def _events(content: bytes) -> Iterator[Event]:
    """Yield the events of a file, as far as it is whole."""
    position = 0
    while position + HEADER.size <= len(content):
        size, _ = HEADER.unpack_from(content, position)
        start, position = position + HEADER.size, position + HEADER.size + size + FOOTER
        if position > len(content):
            return
        try:
            yield Event.FromString(content[start : start + size])
        except DecodeError:
            return
