"""The real pictograms, and tars made by hand."""

import io
import os
import tarfile
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def pictograms(data_root: Path) -> Path:
    """The folder of eight tars of pictograms; without it tests are skipped, or fail under CI."""
    root = data_root / "pictograms"
    if len(list(root.glob("*.tar"))) != 8:
        give_up = pytest.fail if os.environ.get("CI") else pytest.skip
        give_up(f"PCL_TEST_DATA={data_root}: it must hold pictograms/, with eight tars in it")
    return root


@pytest.fixture
def make_tar(tmp_path: Path) -> Callable[..., Path]:
    """Return a function that writes a tar of files and links, in their order, into the folder of the test."""

    def make(files: Mapping[str, bytes], name: str = "a.tar", links: Mapping[str, str] | None = None) -> Path:
        with tarfile.open(tmp_path / name, "w") as tar:
            for file, content in files.items():
                member = tarfile.TarInfo(file)
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))
            for file, target in (links or {}).items():
                member = tarfile.TarInfo(file)
                member.type, member.linkname = tarfile.LNKTYPE, target
                tar.addfile(member)
        return tmp_path / name

    return make
