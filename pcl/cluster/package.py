"""What a job is sent of this package: the checkout that it runs from, or the installed package with the run files."""

__all__ = ["ROOT", "path_in_job", "sent"]

import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

ROOT = Path(__file__).resolve().parents[2]
IS_CHECKOUT = (ROOT / "pyproject.toml").is_file()


def path_in_job(file: str) -> str:
    """Return the path of a file in the folder that a job is sent; what is not sent stays as it is, like an address."""
    folder, path = ROOT if IS_CHECKOUT else Path.cwd().resolve(), Path(file).resolve()
    if not path.is_file():
        return file
    if path.is_relative_to(folder):
        return str(path.relative_to(folder))
    return file if IS_CHECKOUT else path.name


@contextmanager
def sent(files: Iterable[str]) -> Iterator[str]:
    """Give the folder that a job is sent for a block: it works there, and imports ``pcl`` from there.

    Args:
        files: what the job reads beside the package, at ``path_in_job`` of each.
    """
    if IS_CHECKOUT:
        yield str(ROOT)
        return
    with TemporaryDirectory(prefix="pcl-sent-") as folder:
        shutil.copytree(ROOT / "pcl", Path(folder, "pcl"), ignore=shutil.ignore_patterns("__pycache__"))
        for metadata in ROOT.glob("pcl-*.dist-info"):  # the version, and what it requires
            shutil.copytree(metadata, Path(folder, metadata.name))
        for file in filter(os.path.isfile, files):
            copy = Path(folder, path_in_job(file))
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, copy)
        yield folder
