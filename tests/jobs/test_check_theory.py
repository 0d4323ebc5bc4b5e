"""The theory check as people type it: real tasks in a Ray of its own, resumed, judged, refused."""

import json
import runpy
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from pcl.commands import theory
from pcl.gaussian import GaussianProcessPair
from pcl.theory.cells import Cell
from pcl.theory.plan import Task, plan

ROOT = Path(__file__).resolve().parents[2]
JOB = str(ROOT / "jobs" / "check_theory.py")
CONFIG = str(ROOT / "configs" / "gaussian.yaml")
pytestmark = pytest.mark.process


def check_theory(monkeypatch, capsys, *arguments):
    """Run the job in this process; return its exit code, output and errors."""
    monkeypatch.setattr(sys, "argv", [JOB, *arguments])
    code = 0
    try:
        runpy.run_path(JOB, run_name="__main__")
    except SystemExit as error:
        code = error.code
    return code, *capsys.readouterr()


def test_tasks_run_once_and_a_check_outside_its_tolerance_is_an_error(tmp_path, monkeypatch, capsys):
    good = [Task("minimum", Cell(loss="joint", embedding_dim=rank)) for rank in (1, 2)]
    bad = Task("optima", Cell(num_steps=1, num_pairs=600))
    monkeypatch.setattr(theory, "plan", lambda process, *, seed, quick: good if quick else [*good, bad])
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    arguments = (CONFIG, f"storage={tmp_path}", "name=small")
    folder = tmp_path / "small_theory"

    code, output, errors = check_theory(monkeypatch, capsys, "--quick", *arguments)
    assert code == 0, errors
    assert "theory check, quick: 2 tasks, 2 of them to do" in output
    assert "Closed forms" in output
    assert output.splitlines()[-1] == f"watch: tensorboard --logdir {tmp_path}"
    first = {path.name: path.stat().st_mtime_ns for path in (folder / "tasks").iterdir()}

    code, output, errors = check_theory(monkeypatch, capsys, *arguments)
    assert code == 1
    assert "theory check, full: 3 tasks, 1 of them to do" in output
    assert "FAILED  optima: conditional (1, 1), inner product, rank 5" in output
    assert errors.splitlines()[-1].startswith("error: 1 of 5 checks are outside their tolerance, see")
    assert first.items() <= {path.name: path.stat().st_mtime_ns for path in (folder / "tasks").iterdir()}.items()
    verdicts = [check["passed"] for check in json.loads((folder / "metrics.json").read_text())["checks"]]
    assert verdicts == [True, True, True, True, False]
    assert "FAILED" in (folder / "report.html").read_text()


def test_pairs_without_a_theory_are_refused(tmp_path, monkeypatch, capsys):
    config = str(ROOT / "configs" / "mnist.yaml")
    code, _, errors = check_theory(monkeypatch, capsys, config, f"storage={tmp_path}")
    assert code == 2
    assert "data.source=mnist: theory is known for gaussian_process only" in errors
    assert not list(tmp_path.iterdir())


def test_a_law_that_is_degenerate_is_refused(tmp_path, monkeypatch, capsys):
    settings = ("data.gaussian_process.noise_std=0", "data.gaussian_process.num_modes=5", f"storage={tmp_path}")
    code, _, errors = check_theory(monkeypatch, capsys, CONFIG, *settings)
    assert code == 2
    assert errors.startswith("error: data.gaussian_process: ")
    assert not list(tmp_path.iterdir())


def test_a_flag_that_is_not_known_is_refused(tmp_path, monkeypatch, capsys):
    code, _, errors = check_theory(monkeypatch, capsys, CONFIG, "--quik", f"storage={tmp_path}")
    assert code == 2
    assert "'--quik' is not an override" in errors


@pytest.mark.slow
def test_the_quick_check_passes(tmp_path, monkeypatch, capsys):
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    code, output, errors = check_theory(monkeypatch, capsys, CONFIG, "--quick", f"storage={tmp_path}")
    print(output)  # noqa: T201
    assert code == 0, errors


def test_the_seed_of_a_configuration_reaches_every_task():
    plans = [plan(GaussianProcessPair(), seed=seed, quick=True) for seed in (0, 3)]
    assert [replace(task.cell, seed=3) for task in plans[0]] == [task.cell for task in plans[1]]
