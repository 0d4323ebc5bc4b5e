"""Workers of a Ray of our own as copies of a template: they are what they would be if they had begun from nothing."""

import json
import os
import signal
import socket
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import psutil
import pytest

from pcl.cluster import begin_worker
from tests import forked
from tests.typed import ROOT, goes_on

HOLDER = """
import sys
from pathlib import Path
import torch
from pcl.cluster.template import offered, template
with template():
    print(offered(Path(sys.argv[1])), flush=True)
    sys.stdin.read()
"""
PROGRAM = """
import json, os, random, signal, sys
had_torch, had_pcl = "torch" in sys.modules, "pcl" in sys.modules
import numpy, torch
print(json.dumps({
    "words": sys.argv, "path": sys.path[0], "name": __name__, "folder": os.getcwd(), "mine": os.environ.get("MINE"),
    "home": os.environ.get("HOME"), "threads": torch.get_num_threads(), "input": sys.stdin.read(),
    "niceness": os.nice(0), "child": signal.getsignal(signal.SIGCHLD),
    "torch": had_torch, "pcl": had_pcl, "parent": os.getppid(),
    "random": [random.random(), float(numpy.random.rand()), float(torch.rand(()))],
    "files": [link for n in range(3, 100) if os.path.exists(link := f"/proc/self/fd/{n}")],
}), flush=True)
sys.exit(int(sys.argv[1]))
"""
RANDOM, OURS = ("random",), ("torch", "parent", "files", "child")


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "default_worker.py").write_text(PROGRAM)
    return tmp_path


@pytest.fixture
def holder(folder):
    """A process with a template that is offered in a folder: it and the template."""
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    command = [sys.executable, "-c", HOLDER, str(folder)]
    environment = {key: value for key, value in os.environ.items() if not key.startswith("RAY_")}
    with forked.Popen(command, cwd=ROOT, env=environment, text=True, **pipes) as process:
        yield process, psutil.Process(int(process.stdout.readline()))
        process.kill()


def begun(folder, code=0, **context):
    """Begin a worker as Ray does; return what it says of itself."""
    words = [str(folder / "default_worker.py"), str(code), f"--temp-dir={folder / 'ray'}", "--language=PYTHON"]
    words.append(f"--serialized-runtime-env-context={json.dumps(context)}")
    environment = os.environ | {"MINE": "1", "OMP_NUM_THREADS": "1"}
    with (folder / "said").open("w+") as said:
        done = subprocess.run(
            ["nice", "-n", "5", sys.executable, begin_worker.__file__, *words],
            check=False, cwd=folder, env=environment, input="given", text=True, stdout=said,
        )  # fmt: skip
        assert done.returncode == (0 if (folder / begin_worker.NAME).exists() else code)
        deadline = time.monotonic() + 30
        while not (told := (folder / "said").read_text()).endswith("\n") and time.monotonic() < deadline:
            time.sleep(0.01)
    return json.loads(told)


def test_a_copy_is_what_it_would_be_from_nothing(folder, holder):
    _, template = holder
    one, two = begun(folder), begun(folder, env_vars={"HOME": "/elsewhere"})
    assert one["torch"]
    assert not one["pcl"], "pcl reads the environment when it is imported"
    assert one["parent"] == template.pid
    assert one["files"] == []
    assert one["niceness"] == os.nice(0) + 5
    assert one["child"] == signal.SIG_DFL
    assert not {*one["random"]} & {*two["random"]}
    assert (two["home"], two["mine"]) == ("/elsewhere", "1")
    (folder / begin_worker.NAME).unlink()
    alone = begun(folder)
    assert not alone["torch"]
    left = (*RANDOM, *OURS)
    assert {key: one[key] for key in one if key not in left} == {key: alone[key] for key in one if key not in left}
    assert alone["words"][1:] == ["0", f"--temp-dir={folder / 'ray'}"]


def test_who_is_ended_before_it_says_for_what_leaves_the_template_as_it_is(folder, holder):
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(str(folder / begin_worker.NAME))
    assert begun(folder)["torch"]
    assert goes_on(holder[1])


def test_where_the_template_has_ended_a_worker_begins_from_nothing(folder, holder):
    _, template = holder
    template.kill()
    (folder / begin_worker.NAME).rename(folder / "gone")
    assert not begun(folder, 3)["torch"]


def test_the_template_ends_with_its_process_however_that_ends(folder, holder):
    process, template = holder
    process.send_signal(signal.SIGKILL)
    deadline = time.monotonic() + 10
    while goes_on(template) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not goes_on(template)


def test_signals_are_left_to_the_process(holder):
    process, template = holder
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        template.send_signal(number)
    time.sleep(0.1)
    assert goes_on(template)
    process.communicate("")
    assert process.returncode == 0
    assert not goes_on(template)


@pytest.mark.parametrize(
    ("options", "program"),
    [
        (["--serialized-runtime-env-context={}"], "default_worker.py"),
        (['--serialized-runtime-env-context={"env_vars": {"A": "1"}}'], "default_worker.py"),
        (['--serialized-runtime-env-context={"env_vars": {"A": "${PATH}"}}'], "setup_worker.py"),
        (['--serialized-runtime-env-context={"py_executable": "uv run"}'], "setup_worker.py"),
        (['--serialized-runtime-env-context={"command_prefix": ["nice"]}'], "setup_worker.py"),
        (["--language=CPP"], "setup_worker.py"),
        ([], "default_worker.py"),
    ],
)
def test_a_worker_with_an_environment_of_its_own_is_begun_as_ray_does(tmp_path, monkeypatch, options, program):
    run = []
    monkeypatch.setattr(os, "execv", lambda path, words: run.append(words) or sys.exit())
    monkeypatch.setattr(os, "environ", dict(os.environ))
    worker = str(tmp_path / "default_worker.py")
    with pytest.raises(SystemExit):
        begin_worker.main([worker, f"--temp-dir={tmp_path / 'ray'}", *options])
    (words,) = run
    assert words[:2] == [sys.executable, str(tmp_path / program)]
    own = program == "setup_worker.py"
    assert words[2:] == ([worker] if own else []) + [f"--temp-dir={tmp_path / 'ray'}"] + (options if own else [])


def test_workers_of_our_own_ray_are_copies():
    code = """
        import torch
        from pcl.cluster.template import template
        with template():
            from pcl.cluster.connection import connected
            from pcl.cluster.template import _template
            import ray
            with connected(2):
                @ray.remote(num_cpus=1)
                def ask(n):
                    import os, sys, time
                    had = "torch" in sys.modules
                    import torch
                    time.sleep(0.5)
                    return os.getppid(), had, torch.get_num_threads(), ray.get_runtime_context().get_worker_id()
                print(_template.pid, ray.get([ask.remote(n) for n in range(2)]))
    """
    environment = {key: value for key, value in os.environ.items() if not key.startswith("RAY_")}
    command = [sys.executable, "-c", textwrap.dedent(code)]
    done = forked.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    pid, _, found = done.stdout.partition(" ")
    found = eval(found)
    assert [one[:3] for one in found] == [(int(pid), True, 1)] * 2
    assert len({one[3] for one in found}) == 2
    assert not psutil.pid_exists(int(pid)) or not goes_on(psutil.Process(int(pid)))
    assert not [one for one in Path("/proc").glob("*") if one.name == pid]
