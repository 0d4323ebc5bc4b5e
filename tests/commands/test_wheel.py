"""The package as a wheel holds it: installed in a folder of its own, and used from an empty one."""

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PIP = (sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check")
RUN = """\
name: mine
data:
  source: gaussian_process
  shards: shards
  num_shards: 8
  record_pairs: 100
  gaussian_process: {num_train: 400, num_test: 400}
model: {encoder_u: linear, encoder_v: identity, embedding_dim: 5}
loss: {kind: conditional}
train: {epochs: 2, global_batch: 200, num_lanes: 2, shuffle_pairs: 100, learning_rate: 0.03}
workers: {num_workers: 2, start_timeout_s: 120}
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """A wheel of the files that a checkout holds: one that was built there before may have left others in build/."""
    folder = tmp_path_factory.mktemp("wheel")
    shutil.copytree(ROOT / "pcl", folder / "source" / "pcl", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, folder / "source")
    options = ("--no-deps", "--no-build-isolation", "--wheel-dir", folder)
    subprocess.run([*PIP, "wheel", *options, folder / "source"], check=True)
    (built,) = folder.glob("pcl-*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel):
    """Folder of the installed wheel."""
    options = ("--no-deps", "--no-compile", "--target", wheel.parent / "installed")
    subprocess.run([*PIP, "install", *options, wheel], check=True)
    return wheel.parent / "installed"


def test_a_wheel_holds_every_module_and_what_they_read(wheel):
    held = {name for name in zipfile.ZipFile(wheel).namelist() if name.startswith("pcl/")}
    read = {"pcl/py.typed", "pcl/config/default.yaml", "pcl/config/head.yaml"}
    read |= {"pcl/evaluation/page.html", "pcl/theory/report.html"}
    assert held == read | {str(path.relative_to(ROOT)) for path in (ROOT / "pcl").rglob("*.py")}


@pytest.fixture
def elsewhere(installed, tmp_path):
    """Return a function that runs a command of the installed package in a folder that holds one run file."""
    (tmp_path / "mine.yaml").write_text(RUN)
    kept = {key: value for key, value in os.environ.items() if not key.startswith("RAY_")}

    def run(*words):
        done = subprocess.run(
            words,
            cwd=tmp_path,
            env=kept | {"PYTHONPATH": str(installed)},
            text=True,
            capture_output=True,
            timeout=200,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run


def test_the_command_of_a_wheel_is_that_of_its_package(installed, elsewhere):
    assert elsewhere(sys.executable, "-c", "import pcl; print(pcl.__file__)") == f"{installed}/pcl/__init__.py\n"
    program = installed / "bin" / "pcl"
    assert elsewhere(sys.executable, program, "--help").startswith("usage: pcl COMMAND ...\n")
    assert "num_train: 400\n" in elsewhere(sys.executable, program, "config", "mine.yaml")


def test_a_job_is_sent_the_installed_package_and_the_run_files(installed, elsewhere, tmp_path):
    (tmp_path / "files").mkdir()
    (tmp_path / "files" / "two.yaml").write_text(RUN)
    code = """\
from pathlib import Path
from pcl.cluster.package import path_in_job, sent
outside = "../outside.yaml"
Path(outside).write_text("name: outside")
files = ["mine.yaml", "files/two.yaml", outside, "s3://bucket/run.yaml"]
with sent(files) as folder:
    print(*map(path_in_job, files))
    print(*sorted(str(path.relative_to(folder)) for path in Path(folder).rglob("*") if path.suffix != ".py"))
    print(Path(folder, "pcl", "__main__.py").is_file(), folder)
"""
    paths, held, end = elsewhere(sys.executable, "-c", code).splitlines()
    assert paths == "mine.yaml files/two.yaml outside.yaml s3://bucket/run.yaml"
    assert {"mine.yaml", "files/two.yaml", "outside.yaml", "pcl/config/default.yaml"} <= set(held.split())
    assert not [path for path in held.split() if "__pycache__" in path]
    is_there, folder = end.split()
    assert (is_there, Path(folder).exists()) == ("True", False)
    process = elsewhere(sys.executable, "-m", "pcl", "--version")
    assert f"pcl-{process.strip()}.dist-info" in held, "a job knows its version, and what it requires"


@pytest.mark.slow
def test_the_whole_way_from_an_empty_folder(elsewhere, tmp_path):
    assert "train: 400 pairs in 8 shards" in elsewhere(sys.executable, "-m", "pcl", "shards", "mine.yaml")
    trained = elsewhere(sys.executable, "-m", "pcl", "train", "mine.yaml")
    assert f"run: {tmp_path}/runs/mine\n" in trained
    evaluated = elsewhere(sys.executable, "-m", "pcl", "evaluate", "mine.yaml")
    assert f"metrics and figures: {tmp_path}/runs/mine/evaluations/checkpoint_00000004\n" in evaluated
