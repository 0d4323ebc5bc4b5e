"""The connection to Ray: a cluster that does not answer, and a Ray of our own that lets nobody else in."""

import http.client
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import grpc
import psutil
import pytest

from tests.cluster.nodes import Cluster
from tests.typed import ROOT, family, finish, on_head, start, wait_until

CALLS = (
    "NodeInfoGcsService/GetAllNodeInfo",  # of the control service
    "InternalKVGcsService/InternalKVKeys",
    "JobInfoGcsService/GetAllJobInfo",
    "NodeManagerService/GetNodeStats",  # of a raylet
    "ObjectManagerService/Pull",
    "CoreWorkerService/NumPendingTasks",  # of a worker or a driver
)


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


def answers(port, metadata):
    """Return the codes with which Ray's services on a port answer, and the status of HTTP."""
    codes = {}
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        for call in CALLS:
            try:
                channel.unary_unary(f"/ray.rpc.{call}")(b"", timeout=1, metadata=metadata)
                codes[call] = "OK"
            except grpc.RpcError as error:
                codes[call] = error.code().name
                if codes[call] in ("UNAVAILABLE", "DEADLINE_EXCEEDED"):  # no gRPC
                    break
    return codes


def http_answer(port):
    """Return the status and the content that HTTP without a token gets, no status where there is no HTTP."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/api/jobs/", timeout=1) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, b""
    except (OSError, http.client.HTTPException):
        return None, b""


def assert_nobody_gets_in(found):
    """Assert that sockets are on loopback and give nothing to who has no token; return the calls that ask for one."""
    outside, refused = other_address(), set()
    for name, address in found:
        assert address.ip in ("127.0.0.1", "::1", "::ffff:127.0.0.1"), f"{name} listens on {address}"
        with socket.socket() as other:
            other.settimeout(2)
            assert other.connect_ex((outside, address.port)) != 0, f"{name} answers at {outside}:{address.port}"
        for metadata in ((), (("authorization", "Bearer wrong"),)):
            codes = answers(address.port, metadata)
            assert "OK" not in codes.values(), (name, codes)
            refused |= {call for call, code in codes.items() if code == "UNAUTHENTICATED"}
        status, content = http_answer(address.port)
        assert status in (None, 401, 403, 404) or content.startswith(b"# HELP "), name  # metrics: numbers only
    return refused


def other_address():
    """Return an address of this machine that is not loopback."""
    for addresses in psutil.net_if_addrs().values():
        for one in addresses:
            if one.family == socket.AF_INET and not one.address.startswith("127."):
                return one.address
    pytest.skip("this machine has no address but loopback")


def test_a_ray_of_our_own_lets_nobody_in(shards, tmp_path):
    home = tmp_path / "home"
    home.mkdir()
    arguments = (f"data.shards={shards}", f"storage={tmp_path}", "name=run", "train.epochs=3000", "train.log_every=10")
    process = start("train", *arguments, "train.checkpoint_every=1000", HOME=str(home))
    try:
        wait_until(lambda: "loss" in _text(tmp_path / "run" / "progress.json"), process)
        found, secrets = listeners(process), set()
        assert {"gcs_server", "raylet"} <= {name for name, _ in found}
        assert assert_nobody_gets_in(found) == set(CALLS)
        for member in family(process):
            if "raylet" in member.name():
                secrets.add(Path(member.environ()["RAY_AUTH_TOKEN_PATH"]))
                command = " ".join(member.cmdline())
        (path,) = secrets
        token = path.read_text()
        assert (path.stat().st_mode & 0o777, path.parent.stat().st_mode & 0o777) == (0o600, 0o700)
        session = next(part.split("=", 1)[1] for part in command.split() if part.startswith("--session_dir="))
    finally:
        process.send_signal(signal.SIGTERM)
        started = time.monotonic()
        code, output, errors = finish(process)
    assert (code, time.monotonic() - started < 10) == (130, True), errors
    assert not path.parent.exists()
    assert list(home.iterdir()) == []
    told = [file for root in (Path(session), tmp_path / "run") for file in root.rglob("*") if file.is_file()]
    assert len(told) > 10
    assert not [file for file in told if token.encode() in file.read_bytes()]
    assert token not in output + errors


def test_a_head_on_a_laptop_evaluates_and_lets_nobody_in(shards, tmp_path):
    where, head = f"storage={tmp_path}", {"config": "configs/head.yaml"}
    trained = start("train", f"data.shards={shards}", where, "name=run", "train.epochs=5", "workers.num_workers=1")
    code, _, errors = finish(trained)
    assert code == 0, errors
    elsewhere = {"RAY_API_SERVER_ADDRESS": "http://127.0.0.1:9", "RAY_ADDRESS": "http://127.0.0.1:9"}
    process = start("head", where, "theory.files=[]", "poll_s=0.5", **head, **elsewhere)
    try:
        wait_until(lambda: '"done": 1' in _text(tmp_path / "head" / "status.json"), process)
        found = listeners(process)
        assert assert_nobody_gets_in(found) == set(CALLS)
        assert 401 in {http_answer(address.port)[0] for _, address in found}, "there is no dashboard"
    finally:
        process.send_signal(signal.SIGTERM)
        code, output, errors = finish(process)
    assert code == 130, errors
    shown = next(line for line in output.splitlines() if "watching" in line)
    assert f"python jobs/head.py configs/head.yaml {where} " in shown
    code, output, errors = finish(start("head", where, "--status", **head))
    assert (code, "run checkpoint_00000020" in output) == (0, True), errors
    (tmp_path / "head" / "status.json").write_text('{"works": 1')
    code, _, errors = finish(start("head", where, "--status", **head))
    assert (code, errors.count("\n"), "status.json cannot be read" in errors) == (2, 1, True), errors


def _text(path):
    return path.read_text() if path.is_file() else ""


def in_process(code, prefix=(), **environment):
    """Run code that connects to a cluster; return what ``pcl.command`` makes of it, and the time it took."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("RAY_")}
    program = (
        "from pcl.command import finish\nfrom pcl.cluster import connected, room_for, run_tasks, wait_for_room\n"
        f"def main():\n    with connected(1):\n        {code}\nfinish(main)"
    )
    started = time.monotonic()
    done = subprocess.run(
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
        ("auto", 2, "RAY_ADDRESS=auto: give host:port"),
    ],
)
def test_a_cluster_that_cannot_be_reached_ends_in_one_line(address, code, message):
    exit_code, _, errors, elapsed_s = in_process("pass", RAY_ADDRESS=address)
    assert (exit_code, errors.count("\n")) == (code, 1), errors
    assert message in errors
    assert elapsed_s < 30


def test_what_a_ray_of_our_own_has_not_got_is_refused_at_once():
    code = "print(room_for({'CPU': 1}) >= 1, room_for({'GPU': 1, 'CPU': 1})); wait_for_room({'GPU': 99}, 2, 60)"
    exit_code, output, errors, elapsed_s = in_process(code)
    assert exit_code == 2
    assert output.startswith("True ")
    assert "2 workers need 99 GPUs each, on one node, and the cluster has room for 0 of them: choose fewer" in errors
    assert elapsed_s < 40


def test_a_task_whose_workers_die_again_and_again_ends_in_one_line():
    code = "import ctypes; print(list(run_tasks(ctypes.string_at, 1, [9], timeout_s=0)))"  # reads at address 1
    exit_code, _, errors, elapsed_s = in_process(code)
    assert (exit_code, errors.count("\n")) == (1, 1), errors
    assert "a task was lost again and again" in errors
    assert elapsed_s < 60


def test_tasks_in_the_background_take_no_cpu_where_there_is_a_place_for_them():
    code = (
        "print(sorted(run_tasks(divmod, 7, [2, 3], timeout_s=0)), "
        "sorted(run_tasks(divmod, 7, [2, 3], timeout_s=0, background=True)))"
    )
    exit_code, output, errors, _ = in_process(code)
    assert exit_code == 0, errors
    assert output == "[(2, (3, 1)), (3, (2, 1))] [(2, (3, 1)), (3, (2, 1))]\n"


@pytest.mark.cluster
def test_a_wrong_token_is_refused_and_background_tasks_wait_for_no_cpu(tmp_path):
    with Cluster() as cluster:
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
