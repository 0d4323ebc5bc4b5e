"""A Ray cluster of several nodes on this machine: every node with an address of its own, and seeing its own processes.

They have a network namespace and one of process numbers each: a job that sees the processes of several nodes takes
itself for one of the head node, and is called where it is not. Where namespaces are not permitted the nodes share the
loopback interface. Nodes are processes of ``ray start``; taking one away kills all of its processes at once, as a
machine that dies would.
"""

import contextlib
import itertools
import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path

import psutil

ROOT = Path(__file__).resolve().parents[2]
START_S = 90
STORE_BYTES = 80_000_000
OWN_NUMBERS = ("unshare", "--pid", "--fork", "--kill-child", "--mount-proc")  # of processes
numbers = itertools.count(os.getpid())


def run(*command):
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=30).stdout


def namespaces_work():
    """Return whether this process may make namespaces, those of networks joined to it."""
    name = f"pcl{os.getpid()}"
    try:
        run(*OWN_NUMBERS, "true")
        run("ip", "netns", "add", name)
        run("ip", "netns", "del", name)
    except (OSError, subprocess.CalledProcessError):
        return False
    return True


class NodesHere:
    """A context with a head node, which has no CPU, and worker nodes to be added and taken away."""

    def __init__(self):
        self.number = next(numbers) % 200 + 20  # of its addresses: the kernel may still hold those of the one before
        self.namespaced = namespaces_work()
        self.folder = Path(tempfile.mkdtemp(prefix="pcl", dir="/tmp"))  # short: Ray's sockets lie below
        self.nodes, self.count = {}, 0
        token = self.folder / "token"
        token.touch(mode=0o600)
        token.write_text(secrets.token_hex(32))
        self.token = token
        (self.folder / "home").mkdir()
        kept = {key: value for key, value in os.environ.items() if not key.startswith(("RAY_", "AWS_"))}
        self.environment = kept | {
            "HOME": str(self.folder / "home"),
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN_PATH": str(token),
            "RAY_USAGE_STATS_ENABLED": "0",
            "RAY_health_check_initial_delay_ms": "1000",
            "RAY_health_check_period_ms": "1000",
            "RAY_health_check_failure_threshold": "5",
            "PYTHONWARNINGS": "ignore",
        }

    def __enter__(self):
        try:
            if self.namespaced:
                self._make_bridge()
            self.head = self._address(1) if self.namespaced else "127.0.0.1"
            self.port, self.dashboard_port = (
                (6379, 8265) if self.namespaced else (16379 + self.number, 18265 + self.number)
            )
            self.address = f"{self.head}:{self.port}"
            self.dashboard = f"http://{self.head}:{self.dashboard_port}"
            self.start_head()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        for name in list(self.nodes):
            self.kill(name)
        if self.namespaced:
            with contextlib.suppress(subprocess.CalledProcessError):
                run("ip", "link", "del", self._bridge)
        shutil.rmtree(self.folder, ignore_errors=True)

    @property
    def _bridge(self):
        return f"pcl{self.number}"

    def _address(self, index):
        return f"10.77.{self.number}.{index + 1}"

    @property
    def unused_address(self):
        """An address where no machine is, or on loopback nobody listens."""
        return self._address(200) if self.namespaced else "127.0.0.77"

    def _make_bridge(self):
        with contextlib.suppress(subprocess.CalledProcessError):
            run("ip", "link", "del", self._bridge)
        run("ip", "link", "add", self._bridge, "type", "bridge")
        run("ip", "address", "add", f"{self._address(0)}/24", "dev", self._bridge)
        run("ip", "link", "set", self._bridge, "up")

    def _make_namespace(self, name, index):
        space, outer, inner = f"{self._bridge}{name}", f"{self._bridge}o{index}", f"{self._bridge}i{index}"
        for remains in (("netns", space), ("link", outer)):
            with contextlib.suppress(subprocess.CalledProcessError):
                run("ip", remains[0], "del", remains[1])
        run("ip", "netns", "add", space)
        run("ip", "link", "add", outer, "type", "veth", "peer", "name", inner, "netns", space)
        run("ip", "link", "set", outer, "master", self._bridge, "up")
        for command in (f"address add {self._address(index)}/24 dev {inner}", f"link set {inner} up", "link set lo up"):
            run("ip", "-n", space, *command.split())
        return space

    def _start(self, name, *arguments):
        """Start the processes of a node."""
        self.count += 1
        command = [str(Path(sys.executable).parent / "ray"), "start", "--block", f"--object-store-memory={STORE_BYTES}"]
        ip, space = "127.0.0.1", None
        if self.namespaced:
            space, ip = self._make_namespace(name, self.count), self._address(self.count)
            command = ["ip", "netns", "exec", space, *OWN_NUMBERS, *command]
        # each its own folder: a node would delete code that another still runs
        command += [f"--node-ip-address={ip}", f"--temp-dir={self.folder / name}", "--disable-usage-stats", *arguments]
        with (self.folder / f"{name}.log").open("w") as log:
            process = subprocess.Popen(command, env=self.environment, stdout=log, stderr=log, start_new_session=True)
        self.nodes[name] = (process, space)

    def start_head(self):
        """Start the head node, and wait until it answers."""
        self.count = 0
        self._start(
            "head",
            "--head",
            f"--port={self.port}",
            f"--dashboard-host={self.head}",
            f"--dashboard-port={self.dashboard_port}",
            "--num-cpus=0",
            '--resources={"head": 1}',
        )
        self._wait("head", lambda: self.get("/api/version") is not None)

    def add(self, name, num_cpus=1, background=1):
        """Add a worker node, and wait until the cluster counts it."""
        resources = json.dumps({"background": background} if background else {})
        self._start(name, f"--address={self.address}", f"--num-cpus={num_cpus}", f"--resources={resources}")
        address = self._address(self.count) if self.namespaced else None
        self._wait(name, lambda: self.is_alive(address, at_least=len(self.nodes)))

    def _wait(self, name, is_ready):
        deadline = time.monotonic() + START_S
        while not is_ready():
            log = self.folder / f"{name}.log"
            assert self.nodes[name][0].poll() is None, f"node {name} ended: {log.read_text()[-3000:]}"
            assert time.monotonic() < deadline, f"node {name} did not start: {log.read_text()[-3000:]}"
            time.sleep(0.3)

    def pids(self, name):
        """Return the processes of a node."""
        process, space = self.nodes[name]
        if space:
            return [int(pid) for pid in run("ip", "netns", "pids", space).split()]
        with contextlib.suppress(psutil.NoSuchProcess):
            return [process.pid, *(child.pid for child in psutil.Process(process.pid).children(recursive=True))]
        return []

    def kill(self, name):
        """Take a node away: all of its processes die at once."""
        process, space = self.nodes.pop(name) if name in self.nodes else (None, None)
        if process is None:
            return
        self.nodes[name] = (process, space)
        for _ in range(10):
            pids = self.pids(name)
            for pid in pids:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            if not pids:
                break
            time.sleep(0.1)
        process.wait(timeout=20)
        del self.nodes[name]
        if space:
            run("ip", "netns", "del", space)

    def get(self, path, token=None):
        """Return what the dashboard answers, None where it does not."""
        headers = {"Authorization": f"Bearer {token or self.token.read_text()}"}
        try:
            with urllib.request.urlopen(
                urllib.request.Request(self.dashboard + path, headers=headers), timeout=5
            ) as answer:
                return json.loads(answer.read())
        except (OSError, ValueError):
            return None

    def is_alive(self, address, at_least):
        """Return whether the node of an address lives; without addresses of their own, whether that many nodes do."""
        answer = self.get("/nodes?view=summary") or {"data": {"summary": []}}
        # a node that has just come has no address yet
        alive = [node.get("ip") for node in answer["data"]["summary"] if node["raylet"].get("state") == "ALIVE"]
        return address in alive if address else len(alive) >= at_least

    def submit(self, *arguments):
        """Start jobs/submit.py against this cluster, from outside."""
        return subprocess.Popen(
            [sys.executable, "jobs/submit.py", "--address", self.dashboard, *map(str, arguments)],
            cwd=ROOT,
            env=self.environment,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )

    def submitted(self, *arguments, code=0, timeout_s=90):
        """Run jobs/submit.py to its end, which must be with this exit code, and return what it prints."""
        process = self.submit(*arguments)
        try:
            output, _ = process.communicate(timeout=timeout_s)
        except subprocess.TimeoutExpired:
            process.kill()
            raise AssertionError(f"not ended in {timeout_s} s: {process.communicate()[0][-5000:]}") from None
        assert process.returncode == code, output[-5000:]
        return output
