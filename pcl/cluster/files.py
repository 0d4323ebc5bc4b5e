"""The file system through which Ray Train writes a run: files are whole or not there, and refusals are waited out."""

__all__ = ["patient_files"]

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import fsspec  # type: ignore[import-untyped]
import pyarrow.fs

from pcl.cluster import alone
from pcl.cluster.board import notice
from pcl.storage.place import Place, place, write_bytes

T = TypeVar("T")


def patient_files(root: Place, timeout_s: float) -> tuple[pyarrow.fs.FileSystem, str]:
    """Return a file system for ``ray.train.RunConfig`` and the path in it.

    Ray Train writes checkpoints from the workers, and the record of those that are committed from its controller: both
    go through here, so that neither ends a training because storage refused for a while.

    Args:
        root: a place.
        timeout_s: seconds to try again while storage refuses; then ``RunFailedError``.
    """
    if isinstance(root, Path):
        return pyarrow.fs.PyFileSystem(PatientFiles(fsspec.filesystem("file"), "", timeout_s)), str(root)
    return pyarrow.fs.PyFileSystem(PatientFiles(root.fs, "s3://", timeout_s)), root.path


class PatientFiles(pyarrow.fs.FSSpecHandler):  # type: ignore[misc]
    """Hands what is written to ``pcl.storage.place.write_bytes`` when a file is closed.

    Args:
        fs: reads, lists and removes.
        scheme: before a path it makes an address of it.
        timeout_s: seconds to try again while storage refuses.
    """

    def __init__(self, fs: Any, scheme: str, timeout_s: float) -> None:
        super().__init__(fs)
        self.scheme, self.timeout_s = scheme, timeout_s

    def __eq__(self, other: object) -> bool:
        return isinstance(other, PatientFiles) and other.scheme == self.scheme  # those of fsspec differ by thread

    def __ne__(self, other: object) -> bool:
        return not self == other

    def create_dir(self, path: str, recursive: bool) -> None:
        """Make a folder; there are none in S3."""
        until_it_works(lambda: super(PatientFiles, self).create_dir(path, recursive), path, self.timeout_s)

    def get_file_info(self, paths: Sequence[str]) -> list[pyarrow.fs.FileInfo]:
        """Return what is there: Ray asks before it writes and before it removes."""
        return until_it_works(lambda: super(PatientFiles, self).get_file_info(paths), ", ".join(paths), self.timeout_s)

    def open_output_stream(self, path: str, metadata: Any) -> pyarrow.PythonFile:
        """Return a stream whose content appears when it is closed."""
        target = place(self.scheme + path)
        return pyarrow.PythonFile(
            WholeFile(lambda content: until_it_works(lambda: write_bytes(target, content), path, self.timeout_s)),
            mode="w",
        )


def until_it_works(function: Callable[[], T], path: str, timeout_s: float) -> T:
    """Call a function as ``pcl.cluster.alone.until_it_works``; the people who watch the job hear of it."""
    return alone.until_it_works(function, path, timeout_s, notice)


class WholeFile:
    """A file to write to that collects its content, and gives it away when it is closed."""

    def __init__(self, give: Callable[[bytes], None]) -> None:
        self._content, self._give, self.closed = bytearray(), give, False

    def write(self, data: Any) -> int:
        """Collect more content."""
        self._content += data
        return len(data)

    def tell(self) -> int:
        """Return the number of bytes so far."""
        return len(self._content)

    def flush(self) -> None:
        """Do nothing: half a file is none."""

    def close(self) -> None:
        """Give the content away, once."""
        if not self.closed:
            self.closed = True
            self._give(bytes(self._content))
