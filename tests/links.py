"""Two network namespaces of this machine, joined by a link of a given rate, with a process in each."""

import contextlib
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
DEVICE = "wire"  # the end of the link in each namespace


def run(*command):
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=30).stdout


class Link:
    """A context in which two processes have nothing but the link between them."""

    def __init__(self):
        self.spaces = [f"pcllink{os.getpid()}-{end}" for end in (0, 1)]

    def __enter__(self):
        try:
            for space in self.spaces:
                run("ip", "netns", "add", space)
            first, second = self.spaces
            ends = ("name", DEVICE, "netns", first, "type", "veth", "peer", "name", DEVICE, "netns", second)
            run("ip", "link", "add", *ends)
            for end, space in enumerate(self.spaces):
                for command in (f"address add 10.78.0.{end + 1}/24 dev {DEVICE}", f"link set {DEVICE} up"):
                    run("ip", "-n", space, *command.split())
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        for space in self.spaces:
            with contextlib.suppress(subprocess.CalledProcessError):
                run("ip", "netns", "del", space)

    def limit(self, rate):
        """Let both ends send at a rate such as ``1gbit``; None: as fast as this machine does."""
        for space in self.spaces:
            device = ("-n", space, "qdisc", "replace", "dev", DEVICE, "root")
            shape = ("tbf", "rate", rate, "burst", "128kb", "latency", "200ms") if rate else ("pfifo_fast",)
            run("tc", *device, *shape)

    def results(self, module, arguments, timeout_s):
        """Run a module at both ends, and return what each has written as JSON to the file that it is given.

        Args:
            module: run as ``python -m module FOLDER END ARGUMENTS``; it writes ``FOLDER/END.json``.
            arguments: anything that JSON knows.
            timeout_s: of both.
        """
        with tempfile.TemporaryDirectory() as folder:
            processes = [
                subprocess.Popen(
                    [
                        "ip",
                        "netns",
                        "exec",
                        space,
                        sys.executable,
                        "-m",
                        module,
                        folder,
                        str(end),
                        json.dumps(arguments),
                    ],
                    cwd=ROOT,
                    env=os.environ | {"GLOO_SOCKET_IFNAME": DEVICE, "OMP_NUM_THREADS": "1"},
                )
                for end, space in enumerate(self.spaces)
            ]
            try:
                codes = [process.wait(timeout_s) for process in processes]
            finally:
                for process in processes:
                    process.kill()
            assert codes == [0, 0], f"exit codes {codes}"
            return [json.loads((Path(folder) / f"{end}.json").read_text()) for end in (0, 1)]
