"""An evaluation by tasks: of processes of this machine and of a cluster, one of which is killed; the same metrics."""

import os
import sys

import pytest

from pcl.cluster.parts import elsewhere
from pcl.commands import evaluate
from pcl.config.load import load_config
from pcl.evaluation import parts
from tests import forked
from tests.conftest import GAUSSIAN
from tests.typed import ROOT, finish, here, start

SMALL = ("block_pairs=2", "max_pairs=60", "calibration=0", "num_examples=0", "num_embeddings=0", "baselines=false")
SMALL_PARTS = [f"evaluation.{one}" for one in SMALL]
KILLED = """
import os
from pathlib import Path

def killed_once(folder, item):
    try:
        Path(folder, str(item)).touch(exist_ok=False)
    except FileExistsError:
        return item * item
    os.kill(os.getpid(), 9)
"""
PROGRAM = """
import sys
from pcl.cluster.parts import elsewhere
from killing import killed_once

if __name__ == "__main__":
    with elsewhere(2, True, 10) as (tasks, device):
        print(sorted(tasks(killed_once, sys.argv[1], range(1, 3))), device)
"""


@pytest.fixture(scope="module")
def run(shards, tmp_path_factory):
    folder = tmp_path_factory.mktemp("apart")
    given = (f"data.shards={shards}", f"storage={folder}", "workers.num_workers=1", "train.epochs=2")
    code, _, errors = here("train", GAUSSIAN, *given)
    assert code == 0, errors
    return folder / "gaussian"


def metrics_of(run):
    (path,) = run.glob("evaluations/*/test_first/metrics.json")
    found = path.read_bytes()
    path.unlink()
    return found


def test_metrics_do_not_hang_on_who_evaluates(run, shared_ray, monkeypatch, capsys):
    monkeypatch.setattr(parts, "FEW", 0)
    found = []
    for num_tasks in (0, 2):
        evaluate.main(load_config(run, [*SMALL_PARTS, f"evaluation.num_tasks={num_tasks}"]))
        found.append(metrics_of(run))
        assert "metrics and figures" in capsys.readouterr().out
    code, output, errors = finish(start("evaluate", *SMALL_PARTS, config=run, **shared_ray))
    assert code == 0, errors
    assert "in this process" not in output
    assert {*found, metrics_of(run)} == {found[0]}


def square(_, item):
    return item * item


def test_without_a_cluster_and_tasks_this_process_evaluates():
    with elsewhere(0, True, 0) as (tasks, device):
        assert (tasks, device) == (None, "cpu")
    with elsewhere(2, False, 0) as (tasks, device):
        assert (sorted(tasks(square, None, range(5))), device) == ([(i, i * i) for i in range(5)], "cpu")


def test_a_task_of_a_cluster_whose_process_is_killed_is_done_again(shared_ray, tmp_path):
    (tmp_path / "seen").mkdir()
    (tmp_path / "killing.py").write_text(KILLED)
    (program := tmp_path / "program.py").write_text(PROGRAM)
    kept = {key: value for key, value in os.environ.items() if not key.startswith("RAY_")}
    found = forked.run(
        [sys.executable, program, tmp_path / "seen"],
        env=kept | {"PYTHONPATH": str(ROOT)} | shared_ray,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert found.returncode == 0, found.stderr
    assert "[(0, 1), (1, 4)] cpu" in found.stdout.splitlines()
