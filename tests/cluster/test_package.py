"""What a job is sent, from a checkout."""

from pathlib import Path

import pytest

from pcl.cluster.package import ROOT, path_in_job, sent
from pcl.errors import BadInputError


def test_a_checkout_is_sent_as_it_is_where_all_that_a_job_reads_lies_in_it():
    with sent([f"{ROOT}/configs/mnist.yaml", "s3://bucket/run.yaml"]) as folder:
        assert folder == str(ROOT)
    assert path_in_job(f"{ROOT}/configs/mnist.yaml") == "configs/mnist.yaml"


def test_files_that_lie_elsewhere_are_sent_with_the_package(tmp_path):
    for name in ("run.yaml", "mine.py"):
        (tmp_path / name).write_text(name)
    files = [str(tmp_path / "run.yaml"), str(tmp_path / "mine.py"), f"{ROOT}/configs/mnist.yaml"]
    with sent(files) as folder:
        assert [Path(folder, path_in_job(file)).read_bytes() for file in files] == [Path(f).read_bytes() for f in files]
        assert Path(folder, "pcl", "__main__.py").is_file()
        assert Path(folder, "pyproject.toml").is_file(), "a job knows the version, and what it requires"
    assert not Path(folder).exists()


def test_two_files_of_one_name_are_refused(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "mine.py").write_text(name)
    with (
        pytest.raises(BadInputError, match=r"two files named mine.py"),
        sent([str(tmp_path / n / "mine.py") for n in "ab"]),
    ):
        pass
