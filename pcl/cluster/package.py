"""What a job is sent: the checkout that it runs from, or the package with the files that lie elsewhere."""

__all__ = ["ROOT", "path_in_job", "sent"]

import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from pcl.errors import BadInputError

ROOT = Path(__file__).resolve().parents[2]
IS_CHECKOUT = (ROOT / "pyproject.toml").is_file()


def path_in_job(file: str) -> str:
    """Return the path of a file in the folder that a job is sent; what is no file stays as it is, like an address."""
    folder, path = ROOT if IS_CHECKOUT else Path.cwd().resolve(), Path(file).resolve()
    if not path.is_file():
        return file
    if path.is_relative_to(folder):
        return str(path.relative_to(folder))
    return path.name


@contextmanager
def sent(files: Iterable[str]) -> Iterator[str]:
    """Give the folder that a job is sent for a block: it works there, and imports ``pcl`` from there.

    Args:
        files: what the job reads beside the package, at ``path_in_job`` of each.

    Raises:
        BadInputError: two files would have one path there.
    """
    given = {Path(file).resolve() for file in files if os.path.isfile(file)}
    if IS_CHECKOUT and all(path.is_relative_to(ROOT) for path in given):
        yield str(ROOT)
        return
    with TemporaryDirectory(prefix="pcl-sent-") as folder:
        shutil.copytree(ROOT / "pcl", Path(folder, "pcl"), ignore=shutil.ignore_patterns("__pycache__"))
        for metadata in ROOT.glob("pcl-*.dist-info"):  # the version, and what it requires
            shutil.copytree(metadata, Path(folder, metadata.name))
        if IS_CHECKOUT:
            shutil.copyfile(ROOT / "pyproject.toml", Path(folder, "pyproject.toml"))
        for file in sorted(given):
            copy = Path(folder, path_in_job(str(file)))
            if copy.exists():
                raise BadInputError(f"the job would get two files named {copy.name}: give {file} another name")
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, copy)
        yield folder
