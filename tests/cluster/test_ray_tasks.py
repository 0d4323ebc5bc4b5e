"""Tasks that Ray loses, or has no room for, are done all the same, each once."""

import os
import subprocess
import sys

import pytest

from tests.cluster.nodes import ROOT, NodesHere
from tests.typed import on_head

BEGIN = """
import os, sys, time
import pcl.cluster.ray_tasks as tasks
from pcl.cluster.connection import connected
import ray
tasks.LOOK_S = 1.0

def of(folder, item):
    with open(f"{folder}/{item}", "a") as log:
        log.write(f"{os.getpid()}\\n")
    return item * item

@ray.remote(num_cpus=0)
class Holder:
    def hold(self):
        return 1
"""


def test_a_task_that_is_lost_is_handed_in_again(shared_ray, tmp_path):
    """All are held to be lost at first, whether Ray has begun them or not: each result comes once."""
    code = """
def work(folder, item):
    time.sleep(0.1 if os.path.exists(f"{folder}/mended") else 60)
    return item * item

def without_node(waiting):
    open(f"{sys.argv[1]}/mended", "w").close()
    return waiting
tasks._without_node = without_node
with connected(1):
    print(sorted(tasks.run_tasks(work, sys.argv[1], range(5), 3, timeout_s=0)))
"""
    done = _run(code, tmp_path, **shared_ray)
    assert done == str([(item, item * item) for item in range(5)])


@pytest.mark.cluster
def test_tasks_that_find_no_room_are_done_here_or_when_there_is_room(tmp_path):
    """What Ray says of tasks is asked for on a real cluster."""
    code = """
with connected(1):
    everything = [Holder.options(resources={"background": 1}).remote() for _ in range(2)]
    ray.get([one.hold.remote() for one in everything])
    assert len(list(tasks.run_tasks(of, sys.argv[1], [1, 2, 3], 2, timeout_s=0, background=True, here=True))) == 3
    assert {open(f"{sys.argv[1]}/{item}").read() for item in (1, 2, 3)} == {f"{os.getpid()}\\n"}

    for one in everything:  # whichever is at the node where the tasks queue
        ray.kill(one)
        print(sorted(tasks.run_tasks(of, sys.argv[1], [4, 5], timeout_s=0, background=True)))
    logs = [open(f"{sys.argv[1]}/{item}").read().split() for item in (4, 5)]
    assert [len(log) for log in logs] == [2, 2], logs
    assert str(os.getpid()) not in sum(logs, [])
"""
    with NodesHere() as cluster:
        cluster.add("one")
        cluster.add("two")
        done = _run(code, tmp_path, on_head(cluster), **cluster.environment, RAY_ADDRESS=cluster.address)
        assert done.split("\n") == ["[(4, 16), (5, 25)]"] * 2


def _run(code, folder, prefix=(), **environment):
    kept = {key: value for key, value in os.environ.items() if not key.startswith("RAY_")}
    done = subprocess.run(
        [*prefix, sys.executable, "-c", BEGIN + code, str(folder)],
        cwd=ROOT,
        env=kept | environment,
        text=True,
        capture_output=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout.strip()
