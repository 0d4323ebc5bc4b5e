"""The connection to Ray: a cluster that does not answer, and a Ray of our own that lets nobody else in."""

import contextlib
import http.client
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import grpc
import psutil
import pytest

from tests import forked
from tests.cluster.nodes import NodesHere
from tests.typed import ROOT, family, finish, on_head, start, wait_until

CALLS = (
    "NodeInfoGcsService/GetAllNodeInfo",  # of the control service
    "InternalKVGcsService/InternalKVKeys",
    "JobInfoGcsService/GetAllJobInfo",
    "NodeManagerService/GetNodeStats",  # of a raylet
    "ObjectManagerService/Pull",
    "CoreWorkerService/NumPendingTasks",  # of a worker or a driver
)
NO_DRAWINGS = [f"evaluation.{key}=0" for key in ("calibration", "num_embeddings", "num_examples")]
PROBES = 4  # sockets at a time: those that do not speak a protocol are silent until a time is over


def listeners(process):
    """Return name and address of every internet socket that a job and its descendants listen on."""
    found = []
    for member in family(process):
        try:
            sockets, name = member.net_connections(kind="inet"), member.name()
        except psutil.NoSuchProcess:
            continue
        found += [
            (name, one.laddr)
            for one in sockets
            if one.status == psutil.CONN_LISTEN or (one.type == socket.SOCK_DGRAM and not one.raddr)
        ]
    return found


def answers(port, metadata, timeout_s):
    """Return the codes with which Ray's services on a port answer."""
    codes = {}
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        for call in CALLS:
            try:
                channel.unary_unary(f"/ray.rpc.{call}")(b"", timeout=timeout_s, metadata=metadata)
                codes[call] = "OK"
            except grpc.RpcError as error:
                codes[call] = error.code().name
                if codes[call] in ("UNAVAILABLE", "DEADLINE_EXCEEDED"):  # no gRPC
                    break
    return codes


def http_answer(port, path="/api/jobs/", timeout_s=1):
    """Return the status and the content that HTTP without a token gets, no status where there is no HTTP."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=timeout_s) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, b""
    except (OSError, http.client.HTTPException):
        return None, b""


def assert_nobody_gets_in(found):
    """Assert that sockets are on loopback and give nothing to who has no token; return the calls that ask for one."""
    outside, refused = other_address(), set()
    for timeout_s in (1, 5):  # a busy machine answers late
        with ThreadPoolExecutor(PROBES) as pool:
            refused |= set().union(*pool.map(partial(refusals, outside, timeout_s), *zip(*found, strict=True)))
        if refused == set(CALLS):
            break
    return refused


def refusals(outside, timeout_s, name, address):
    """Return the calls for which a socket asks for a token, after all that it must not answer."""
    refused = set()
    assert address.ip in ("127.0.0.1", "::1", "::ffff:127.0.0.1"), f"{name} listens on {address}"
    with socket.socket() as other:
        other.settimeout(2)
        assert other.connect_ex((outside, address.port)) != 0, f"{name} answers at {outside}:{address.port}"
    for metadata in ((), (("authorization", "Bearer wrong"),)):
        codes = answers(address.port, metadata, timeout_s)
        assert "OK" not in codes.values(), (name, codes)
        refused |= {call for call, code in codes.items() if code == "UNAUTHENTICATED"}
    assert http_answer(address.port)[0] in (None, 401, 403, 404), name
    return refused


def other_address():
    """Return an address of this machine that is not loopback."""
    for addresses in psutil.net_if_addrs().values():
        for one in addresses:
            if one.family == socket.AF_INET and not one.address.startswith("127."):
                return one.address
    pytest.skip("this machine has no address but loopback")


# paths that answer without a token, by what they say
OPEN = {"/": b"<!doctype html>", "/api/gcs_healthz": b"success", "/api/healthz": b"raylet: success"}


def test_the_threat_model_names_the_pages_that_are_open():
    model = (ROOT / "cluster" / "README.md").read_text()
    assert [path for path in OPEN if f"`{path}`" not in model] == []


def assert_only_known_pages_are_open(found):
    """Assert that whoever has no token gets no page but those that tell whether Ray is well, and the dashboard's."""
    with ThreadPoolExecutor(PROBES) as pool:
        statuses = [status for status, _ in pool.map(http_answer, [address.port for _, address in found])]
    http = [one for one, status in zip(found, statuses, strict=True) if status is not None]
    assert http
    for path in ("/", "/metrics", "/api/healthz", "/api/gcs_healthz", "/api/version", "/api/jobs/", "/nodes", "/logs"):
        for name, address in http:
            status, content = http_answer(address.port, path, timeout_s=20)
            known = path in OPEN and content.startswith(OPEN[path])
            assert status in (401, 403, 404) or known, (name, path, content[:80])


def ray_folders(base):
    return sorted(path.name for path in base.glob("pcl-ray-*"))


def test_a_ray_of_our_own_lets_nobody_in(shards, tmp_path):
    home, temporary = tmp_path / "home", short_folder()
    home.mkdir()
    arguments = (f"data.shards={shards}", f"storage={tmp_path}", "name=run", "train.epochs=3000", "train.log_every=10")
    process = start(
        "train", *arguments, "train.checkpoint_every=1000", HOME=str(home), TMPDIR=str(temporary), RAY_ADDRESS="auto"
    )
    try:
        wait_until(lambda: "loss" in _text(tmp_path / "run" / "progress.json"), process)
        found, secrets = listeners(process), set()
        assert {"gcs_server", "raylet"} <= {name for name, _ in found}
        assert assert_nobody_gets_in(found) == set(CALLS)
        assert_only_known_pages_are_open(found)
        for member in family(process):
            if "raylet" in member.name():
                secrets.add(Path(member.environ()["RAY_AUTH_TOKEN_PATH"]))
                command = " ".join(member.cmdline())
        (path,) = secrets
        token, folder = path.read_text(), path.parent
        assert [folder.name] == ray_folders(temporary)
        assert (path.stat().st_mode & 0o777, folder.stat().st_mode & 0o777) == (0o600, 0o700)
        session = next(part.split("=", 1)[1] for part in command.split() if part.startswith("--session_dir="))
        assert Path(session).is_relative_to(folder)
        told = [file for root in (Path(session), tmp_path / "run") for file in root.rglob("*") if file.is_file()]
        assert len(told) > 10
        assert [file for file in told if token.encode() in file.read_bytes()] == []
    finally:
        for member in reversed(family(process)):  # as Slurm does
            with contextlib.suppress(psutil.NoSuchProcess):
                member.send_signal(signal.SIGTERM)
        started = time.monotonic()
        code, output, errors = finish(process)
    assert (code, errors.count("\n"), time.monotonic() - started < 20) == (143, 1, True), errors
    assert list(home.iterdir()) == []
    assert list(temporary.iterdir()) == []
    temporary.rmdir()
    assert token not in output + errors


def short_folder():
    """Return a folder in which Ray's sockets have room."""
    return Path(tempfile.mkdtemp(prefix="p", dir="/tmp"))


def test_a_head_works_beside_trainings_and_lets_nobody_in(shards, tmp_path):
    """A training and a Ray come before the head and are killed, a job comes after it: each Ray is one of its own."""
    where, head, temporary = f"storage={tmp_path}", {"config": "configs/head.yaml"}, short_folder()
    arguments, places = (f"data.shards={shards}", where, "workers.num_workers=1"), {"TMPDIR": str(temporary)}
    endless = ("name=run", "train.epochs=100000", "train.global_batch=256", "train.checkpoint_every=100", *NO_DRAWINGS)
    trained, beside = start("train", *arguments, *endless), ray_beside(places)
    elsewhere = {"RAY_API_SERVER_ADDRESS": "http://127.0.0.1:9", "RAY_ADDRESS": "http://127.0.0.1:9"}
    process = None
    try:
        wait_until(lambda: list(tmp_path.glob("run/checkpoint_0*/state.pt")), trained)
        psutil.Process(trained.pid).suspend()  # it is there, and leaves the CPUs to the others
        assert beside.stdout.readline() == "there\n"
        process = start("head", where, "theory.files=[]", "poll_s=0.5", **head, **elsewhere, **places)
        wait_until(lambda: re.search('"done": [1-9]', _text(tmp_path / "head" / "status.json")), process, 300)
        assert trained.poll() is None
        found = listeners(process)
        assert assert_nobody_gets_in(found) == set(CALLS)
        assert_only_known_pages_are_open(found)
        assert 401 in {http_answer(address.port, timeout_s=5)[0] for _, address in found}, "there is no dashboard"
        assert len(ray_folders(temporary)) == 2
        kill(trained, beside)
        code = "print(list(run_tasks(divmod, 7, [2], timeout_s=0)))"
        exit_code, output, errors, _ = in_process(code, **places)
        assert (exit_code, output) == (0, "[(2, (3, 1))]\n"), errors
        assert len(ray_folders(temporary)) == 1, "what was killed left a folder"
    finally:
        kill(trained, beside)
        if process:
            process.send_signal(signal.SIGTERM)
        code, output, errors = finish(process) if process else (None, "", "")
    assert code == 143, errors
    assert list(temporary.iterdir()) == []
    temporary.rmdir()
    shown = next(line for line in output.splitlines() if "watching" in line)
    assert f"python jobs/head.py configs/head.yaml {where} " in shown
    code, output, errors = finish(start("head", where, "--status", **head))
    assert (code, "run checkpoint_00000100" in output, "NOT RUNNING" in output) == (0, True, True), errors
    (tmp_path / "head" / "status.json").write_text('{"works": 1')
    code, _, errors = finish(start("head", where, "--status", **head))
    assert (code, errors.count("\n"), "status.json cannot be read" in errors) == (1, 1, True), errors


BESIDE = "from pcl.cluster.connection import connected\nwith connected(1):\n    print('there', flush=True)\n    input()"


def kill(*processes):
    """Kill processes that are not killed yet, and wait for their end."""
    for one in processes:
        if one.returncode is None:
            one.kill()
            finish(one)


def ray_beside(places):
    """Return a process that has a Ray of its own, and does nothing."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("RAY_")}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    return forked.Popen([sys.executable, "-c", BESIDE], cwd=ROOT, env=kept | places, **pipes)


def _text(path):
    return path.read_text() if path.is_file() else ""


def in_process(code, prefix=(), **environment):
    """Run code that connects to a cluster; return what the command line makes of it, and the time it took."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("RAY_")}
    program = (
        "from pcl.commands.ending import finish\n"
        "from pcl.cluster.connection import connected, room_for, wait_for_room\n"
        "from pcl.cluster.ray_tasks import run_tasks\n"
        f"def main():\n    with connected(1):\n        {code}\nfinish(main)"
    )
    started = time.monotonic()
    done = forked.run(
        [*prefix, sys.executable, "-c", program],
        cwd=ROOT,
        env=kept | environment,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    return done.returncode, done.stdout, done.stderr, time.monotonic() - started


@pytest.mark.parametrize(
    ("address", "code", "message"),
    [
        ("127.0.0.1:9", 1, "no Ray cluster answers at RAY_ADDRESS=127.0.0.1:9"),
        ("nowhere.invalid:6379", 1, "no Ray cluster answers at RAY_ADDRESS=nowhere.invalid:6379"),
        ("nowhere", 2, "RAY_ADDRESS=nowhere: give host:port"),
    ],
)
def test_a_cluster_that_cannot_be_reached_ends_in_one_line(address, code, message):
    exit_code, _, errors, elapsed_s = in_process("pass", RAY_ADDRESS=address)
    assert (exit_code, errors.count("\n")) == (code, 1), errors
    assert message in errors
    assert elapsed_s < 30


def test_a_task_whose_workers_die_again_and_again_ends_in_one_line(shared_ray):
    code = "import ctypes; print(list(run_tasks(ctypes.string_at, 1, [9], timeout_s=0)))"  # reads at address 1
    exit_code, _, errors, elapsed_s = in_process(code, **shared_ray)
    assert (exit_code, errors.count("\n")) == (1, 1), errors
    assert "a task was lost again and again" in errors
    assert elapsed_s < 60


def test_signals_to_all_processes_of_a_job_are_for_its_own_to_answer_and_tasks_run_on(tmp_path):
    """What a Ray of our own has not got is then refused at once."""
    long = tmp_path / ("long" * 30)  # too long for Ray's sockets
    long.mkdir()
    code = (
        "import os, psutil, signal; got = []; "
        "[signal.signal(s, lambda n, _: got.append(n)) for s in (1, 2, 15)]; "
        "[os.kill(p.pid, s) for p in psutil.Process().children(recursive=True) + [psutil.Process()] "
        "for s in (1, 2, 15)]; print(sorted(got), end=' '); "
        "print(sorted(run_tasks(divmod, 7, [2, 3], timeout_s=0)), "
        "sorted(run_tasks(divmod, 7, [2, 3], timeout_s=0, background=True))); "
        "print(room_for({'CPU': 1}) >= 1, room_for({'GPU': 1, 'CPU': 1})); wait_for_room({'GPU': 99}, 2, 60)"
    )
    exit_code, output, errors, elapsed_s = in_process(code, TMPDIR=str(long))
    assert exit_code == 2, errors
    signals_and_tasks, room = output.splitlines()
    assert signals_and_tasks == "[1, 2, 15] [(2, (3, 1)), (3, (2, 1))] [(2, (3, 1)), (3, (2, 1))]"
    assert room.startswith("True ")
    assert "2 workers need 99 GPUs each, on one node, and the cluster has room for 0 of them: choose fewer" in errors
    assert elapsed_s < 40


def test_a_ray_of_our_own_that_is_killed_ends_the_job_in_one_line():
    part = "raylet"  # gcs_server does the same
    code = (
        f"import time, psutil; [p.kill() for p in psutil.Process().children() if p.name() == '{part}']; time.sleep(90)"
    )
    exit_code, output, errors, elapsed_s = in_process(code, RAY_ADDRESS="local", TMPDIR="/nowhere")
    assert (exit_code, errors.count("\n"), output) == (1, 1, ""), errors
    assert f"error: {part}, a part of Ray, was killed" in errors
    logs = Path(re.search(r"logs are in (.*)", errors)[1])
    assert (logs / "gcs_server.out").is_file()
    assert sorted(path.name for path in logs.parent.iterdir()) == ["logs", "pcl-lock"]
    assert elapsed_s < 40


@pytest.mark.parametrize(
    ("limit", "seconds", "message"),
    [
        ("-v 4000000", 50, "at most 4,096,000,000 bytes of address space): allow more, ulimit -v 16777216,"),
        ("-S", 0.1, "nothing happened for 0.1 s): see whether memory, processes and disk are free,"),
    ],
)
def test_a_ray_that_cannot_start_ends_in_one_line(limit, seconds, message):
    prefix = ["bash", "-c", f'ulimit {limit} > /dev/null; exec "$@"', "-"]
    program = (
        "import pcl.cluster.connection, pcl.commands.ending, pcl.cluster.own_ray\n"
        f"pcl.cluster.own_ray.START_S = {seconds}\n"
        "def main():\n    with pcl.cluster.connection.connected(1):\n        pass\n"
        "pcl.commands.ending.finish(main)"
    )
    done = subprocess.run(
        [*prefix, sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stderr.count("\n"), message in done.stderr) == (1, 1, True), done.stderr


@pytest.mark.cluster
def test_a_wrong_token_is_refused_and_background_tasks_wait_for_no_cpu(tmp_path):
    with NodesHere() as cluster:
        cluster.add("one")
        prefix = on_head(cluster)
        environment = cluster.environment | {"RAY_ADDRESS": cluster.address}
        code = (
            "import ray; busy = ray.util.placement_group([{'CPU': 1}]); ray.get(busy.ready(), timeout=30); "
            "print(sorted(run_tasks(divmod, 7, [2, 3], timeout_s=0, background=True)))"
        )
        exit_code, output, errors, _ = in_process(code, prefix, **environment)
        assert (exit_code, output) == (0, "[(2, (3, 1)), (3, (2, 1))]\n"), errors

        (tmp_path / "token").write_text("0" * 64)
        for path in (tmp_path / "token", tmp_path / "nothing"):
            environment["RAY_AUTH_TOKEN_PATH"] = str(path)
            exit_code, _, errors, elapsed_s = in_process("pass", prefix, **environment)
            assert (exit_code, errors.count("\n")) == (1, 1), errors
            assert f"Ray at {cluster.address}" in errors
            assert "token" in errors
            assert elapsed_s < 60
