"""Tasks without a cluster: in processes of this machine, again where one dies, in one line where it ends badly."""

import os
import signal
import subprocess
import sys
import time
from functools import partial

import pytest
import torch

from pcl.cluster.tasks import MOST_TRIES, task_runner
from pcl.errors import BadInputError, DamagedDataError, RunFailedError
from pcl.plugins.loading import load_plugins
from tests import forked
from tests.processes import new_processes
from tests.typed import ROOT, family, still_there, wait_until


@pytest.fixture
def run_tasks():
    """What runs tasks, in copies of a process that has imported what takes seconds."""
    new_processes()
    with task_runner() as run:
        yield partial(run, timeout_s=0)


def test_every_item_is_done_once_by_processes_that_go_on(run_tasks):
    found = list(run_tasks(divmod_and_process, 7, range(1, 21), 3))
    assert sorted(item for item, _ in found) == [*range(1, 21)]
    assert [result for item, (result, _) in found] == [divmod(7, item) for item, _ in found]
    processes = {process for _, (_, process) in found}
    assert len(processes) <= 3
    assert os.getpid() not in processes
    assert list(run_tasks(divmod_and_process, 7, [])) == []


def divmod_and_process(shared, item):
    return divmod(shared, item), os.getpid()


def test_calls_follow_each_other_with_processes_of_their_own(run_tasks):
    first = run_tasks(divmod_and_process, 7, range(1, 5), 1)
    assert next(first)[1][0] == (7, 0)
    (other,) = run_tasks(added, torch.ones(300_000), [torch.tensor([2.0])])
    assert float(other[1].sum()) == 900_000
    assert [result for _, (result, _) in first] == [(3, 1), (2, 1), (1, 3)]


def added(shared, item):
    return shared + item


def test_no_more_run_at_once_than_are_asked_for(run_tasks, tmp_path):
    assert max(result for _, result in run_tasks(most_of, tmp_path, range(8), 2)) == 2


def most_of(folder, item):
    (folder / str(item)).touch()
    time.sleep(0.2)
    found = len(list(folder.iterdir()))
    (folder / str(item)).unlink()
    return found


def test_a_task_whose_process_is_killed_is_done_again(run_tasks, tmp_path):
    assert sorted(run_tasks(die_at_first, tmp_path, range(4))) == [(item, -item) for item in range(4)]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["1", "3"]


def die_at_first(folder, item):
    if item % 2 and not (folder / str(item)).exists():
        (folder / str(item)).touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return -item


def test_a_task_whose_processes_die_again_and_again_ends_in_one_line(run_tasks, tmp_path):
    line = r"a task was lost again and again \(its process ended with exit code -9\): does it need more memory than "
    with pytest.raises(RunFailedError, match=line):
        list(run_tasks(die, tmp_path, [0, 5]))
    assert len((tmp_path / "5").read_text()) == MOST_TRIES


def die(folder, item):
    with (folder / str(item)).open("a") as file:
        file.write("x")
    if item:
        os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.parametrize("kind", [BadInputError, DamagedDataError, FloatingPointError, OSError])
def test_what_a_task_raises_is_raised(run_tasks, kind):
    with pytest.raises(kind, match="item 3"):
        list(run_tasks(fail, kind, [3]))


def fail(kind, item):
    raise kind(f"item {item}")


class OddError(ValueError):
    """An error whose arguments are not what it was made of."""

    def __init__(self, number, line):
        super().__init__(f"{line}, number {number}")


def test_what_cannot_be_pickled_is_told(run_tasks):
    with pytest.raises(RuntimeError, match="OddError: a line, number 3"):
        list(run_tasks(fail_oddly, None, [3]))
    with pytest.raises((RuntimeError, AttributeError, TypeError), match="pickle"):
        list(run_tasks(give_a_function, None, [3]))


def fail_oddly(shared, item):
    raise OddError(item, "a line")


def give_a_function(shared, item):
    return lambda: item


def test_plugins_are_there(run_tasks, tmp_path):
    path = tmp_path / "own.py"
    path.write_text("class Own:\n    number = 4\n\ndef times(shared, item):\n    return shared.number * item\n")
    load_plugins(path)
    own = sys.modules["pcl_plugin_own"]
    assert list(run_tasks(own.times, own.Own(), [5])) == [(5, 20)]


PRINTS = """
import os, sys, time
from pcl.cluster.tasks import task_runner
from pcl.commands.ending import finish
from tests.cluster.test_tasks import wait_for

def main():
    with task_runner() as run_tasks:
        rest = run_tasks(wait_for, sys.argv[1], [0, 3600], timeout_s=0)
        print(next(rest), flush=True)
        next(rest)

finish(main)
"""


def wait_for(folder, item):
    sys.stderr.write("nobody is to read this")
    os.write(1, b"nor this")
    time.sleep(item)
    return os.environ["OMP_NUM_THREADS"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_tasks_end_with_their_job_and_print_nothing(tmp_path, number):
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("RAY_", "OMP_"))}
    process = forked.Popen(
        [sys.executable, "-c", PRINTS, str(tmp_path)],
        cwd=ROOT,
        env=environment,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    try:
        wait_until(lambda: len(family(process)) > 3, process)
        first = process.stdout.readline()
        everybody = family(process)[1:]
        process.send_signal(number)
        output, errors = process.communicate(timeout=30)
    finally:
        process.kill()
    assert (first, output) == ("(0, '1')\n", "")
    told = "error: SIGTERM: the same command goes on from what is finished\n"
    assert (process.returncode, errors) == ((143, told) if number == signal.SIGTERM else (-9, ""))
    assert still_there(everybody, 20) == []
