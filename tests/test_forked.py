"""Processes that begin with packages imported: children as ``subprocess`` gives them, with nothing of another's."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from tests.forked import Popen, run

TELL = """
import json, os, signal, sys, threading
print(json.dumps({
    "ppid": os.getppid(), "pid": os.getpid(), "argv": sys.argv, "path": sys.path[0], "folder": os.getcwd(),
    "environment": dict(os.environ), "main": __name__, "threads": len(os.listdir("/proc/self/task")),
    "pcl": [name for name in sys.modules if name.partition(".")[0] in ("pcl", "ray", "tests", "pytest")],
    "files": sorted(os.readlink(f"/proc/self/fd/{n}").partition(":")[0] for n in os.listdir("/proc/self/fd")[:-1]),
    "input": sys.stdin.read(), "sigint": signal.getsignal(2) is signal.default_int_handler,
    "mask": len(signal.pthread_sigmask(signal.SIG_BLOCK, ())), "torch": "torch" in sys.modules,
}))
"""


@pytest.fixture(scope="module", autouse=True)
def server():
    """Let every process of this module come from a server."""
    run([sys.executable, "-c", ""], check=True, env=environment())


def environment(**more):
    return dict(os.environ, OMP_NUM_THREADS="1") | more


def told(start, words, folder, **more):
    done = start(
        [sys.executable, *words],
        cwd=folder,
        env=environment(**more),
        input="some text",
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stderr == ""
    return eval(done.stdout, {"true": True, "false": False})


@pytest.mark.parametrize("kind", ["-c", "-m", "file"])
def test_it_is_what_subprocess_starts_but_for_what_is_imported(tmp_path, kind):
    (tmp_path / "tell.py").write_text(TELL)
    words = {"-c": ["-c", TELL, "a", "b c"], "-m": ["-m", "tell", "a", "b c"], "file": ["tell.py", "a", "b c"]}[kind]
    ours, theirs = (told(start, words, tmp_path, PCL_ONE="1") for start in (run, subprocess.run))
    assert ours.pop("torch") > theirs.pop("torch")
    assert ours.pop("pid") != theirs.pop("pid")
    assert ours["ppid"] == os.getpid()
    assert ours == theirs


def test_exit_codes_lines_and_signals():
    code = "import sys; print('out'); sys.exit('no')"
    done = run([sys.executable, "-c", code], capture_output=True, text=True, env=environment())
    assert (done.returncode, done.stdout, done.stderr) == (1, "out\n", "no\n")
    done = run([sys.executable, "-c", "1 / 0"], capture_output=True, text=True, env=environment())
    assert (done.returncode, done.stderr.splitlines()[-1]) == (1, "ZeroDivisionError: division by zero")
    code = "import atexit, sys; atexit.register(print, 'end'); sys.exit(7)"
    done = run([sys.executable, "-c", code], capture_output=True, text=True, env=environment())
    assert (done.returncode, done.stdout) == (7, "end\n")
    code = "import time; print(1, flush=True); time.sleep(60)"
    for number, ended in ((signal.SIGKILL, -9), (signal.SIGTERM, -15), (signal.SIGINT, 130)):
        with Popen([sys.executable, "-c", code], stdout=-1, stderr=-1, env=environment()) as process:
            process.stdout.readline()
            process.send_signal(number)
            assert process.wait(20) in (ended, -number)
        assert not psutil.pid_exists(process.pid)


def test_orphans_of_others_are_not_adopted_afterwards():
    before = set(psutil.Process().children())
    code = "import os, time; os.fork() or (time.sleep(0.5), os._exit(0)); os._exit(0)"
    run([sys.executable, "-c", code], check=True, env=environment())
    assert set(psutil.Process().children()) == before


def test_another_environment_has_another_process_to_begin_with(tmp_path):
    code = "import torch; print(torch.get_num_threads())"
    for threads in ("1", "2", "1", "2", "2"):
        done = run(
            [sys.executable, "-c", code], capture_output=True, text=True, env=environment(OMP_NUM_THREADS=threads)
        )
        assert done.stdout == f"{threads}\n", done.stderr


def test_the_server_imports_nothing_of_ours():
    import tests.fork_server as server

    assert not [name for name in server.IMPORTED if name.partition(".")[0] in ("pcl", "ray", "tests")]
    assert Path(server.__file__).name == "fork_server.py"
