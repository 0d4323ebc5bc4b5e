"""Jobs as people type them: in processes of their own, outside any cluster, or in this one."""

import os
import subprocess
import sys
import time
from contextlib import redirect_stderr, redirect_stdout, suppress
from functools import partial
from io import StringIO
from pathlib import Path

import psutil

from pcl.commands import ending
from pcl.commands.main import _choose
from tests import forked

MOMENT_S = 0.05
ROOT = Path(__file__).resolve().parents[1]


def start(job, *arguments, config="configs/gaussian.yaml", prefix=(), **environment):
    """Start a job in a process of its own, outside any cluster unless its environment names one.

    A prefix, such as ``on_head(cluster)``, starts it elsewhere.
    """
    kept = {key: value for key, value in os.environ.items() if not key.startswith("RAY_")}
    return forked.Popen(
        [*prefix, sys.executable, f"jobs/{job}.py", config, *map(str, arguments)],
        cwd=ROOT,
        env=kept | environment,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def here(*words):
    """Type a command of pcl in this process; return exit code, output and errors."""
    with redirect_stdout(StringIO()) as output, redirect_stderr(StringIO()) as errors:
        code = 0
        try:
            ending.finish(partial(_choose, "pcl", list(map(str, words))))
        except SystemExit as end:
            code = end.code
    return code, output.getvalue(), errors.getvalue()


def on_head(cluster):
    """Return the prefix that starts a job on the head node of a cluster, in its network."""
    process, space = cluster.nodes["head"]
    return ["nsenter", f"--target={process.pid}", "--net"] if space else []


def finish(process, timeout_s=200):
    """Return exit code, output and errors; a job that hangs is ended."""
    try:
        output, errors = process.communicate(timeout=timeout_s)
    except subprocess.TimeoutExpired:
        process.kill()
        raise
    return process.returncode, output, errors


def wait_until(happened, process, timeout_s=120):
    """Wait until something happens while a job runs; to look takes at most a fifth of a CPU from it."""
    deadline = time.monotonic() + timeout_s
    while True:
        began = time.monotonic()
        if happened():
            return
        assert began < deadline, "it did not happen"
        assert process.poll() is None, f"the job ended early: {process.communicate()}"
        time.sleep(max(0.02, 4 * (time.monotonic() - began)))


def stand_still_when(happened, one, process, timeout_s=120):
    """Let a process run a moment at a time until something happens while a job runs, and leave it standing still.

    Workers wait for each other, so none of them goes on, and what follows surely happens before the last step.
    """
    deadline = time.monotonic() + timeout_s
    one.suspend()
    while not happened():
        assert time.monotonic() < deadline, "it did not happen"
        assert process.poll() is None, f"the job ended early: {process.communicate()}"
        one.resume()
        time.sleep(MOMENT_S)
        one.suspend()


def family(process):
    """Return a job's process and all that descend from it."""
    root = psutil.Process(process.pid)
    return [root, *root.children(recursive=True)]


def goes_on(process):
    """Return whether a process runs: a zombie, whose end nobody has asked for yet, does not."""
    with suppress(psutil.NoSuchProcess):
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    return False


def still_there(processes, timeout_s=60):
    """Wait until processes of a job that was killed have ended, and return those that go on.

    Ray's agents stay for a minute after their Ray was killed, and hold nothing: they are ended here.
    """
    deadline = time.monotonic() + timeout_s
    while (left := list(filter(goes_on, processes))) and time.monotonic() < deadline:
        for one in left:
            with suppress(psutil.NoSuchProcess):
                if one.status() == psutil.STATUS_STOPPED:
                    one.resume()  # or it never sees that its Ray has ended
                elif "Agent" in one.name():
                    one.kill()
        time.sleep(MOMENT_S)
    return left


def workers_of(process):
    """Return the Ray Train workers among a job's descendants."""
    found = []
    for one in family(process):
        with suppress(psutil.Error):  # it has just ended
            if any("RayTrainWorker" in part for part in one.cmdline()):
                found.append(one)
    return found
