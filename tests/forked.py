"""Processes of Python as tests start them, by ``subprocess``, that begin with other people's packages imported.

They are children of this process with streams, environment, folder, signals and exit code of their own, and import all
of pcl themselves: only that torch and others are there already is unlike a process that was started from nothing, which
takes 1.6 s of a CPU for that. ``subprocess`` itself is for tests of the start, of memory, and of imports.
"""

__all__ = ["Popen", "run"]

import atexit
import ctypes
import os
import pickle
import socket
import subprocess
import sys
from pathlib import Path

SERVER = Path(__file__).with_name("fork_server.py")
# read by pcl, by Ray or when something is used, and not by a package that the server imports when it is imported
FREE = ("AWS_", "GLOO_", "PCL_", "PYTEST_", "RAY_", "TMPDIR")
ADOPT = 36  # PR_SET_CHILD_SUBREAPER: orphans among the descendants become children


class Server:
    """A process that becomes jobs of one environment but for what is free."""

    def __init__(self, environment):
        self.connection, there = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        command = [sys.executable, str(SERVER), str(there.fileno())]
        quiet = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL}
        self.process = subprocess.Popen(command, env=environment, pass_fds=[there.fileno()], **quiet)
        there.close()
        atexit.register(self.end)

    def start(self, job, files):
        """Start a job with three streams; return the number of its process."""
        adopt = ctypes.CDLL(None, use_errno=True).prctl
        adopt(ADOPT, 1, 0, 0, 0)
        try:
            socket.send_fds(self.connection, [pickle.dumps(job)], files)
            answer = self.connection.recv(100)
        finally:
            adopt(ADOPT, 0, 0, 0, 0)
        assert answer, "the server of processes has ended"
        return int(answer)

    def end(self):
        """End it: nobody asks any more."""
        self.connection.close()
        self.process.wait()


class Popen(subprocess.Popen):
    """A process that ``sys.executable`` is to run, from a server of its environment from the second time on."""

    servers = {}  # noqa: RUF012

    def _execute_child(self, args, executable, preexec_fn, close_fds, pass_fds, cwd, env, *rest):
        p2cread, p2cwrite, c2pread, c2pwrite, errread, errwrite = rest[3:9]
        environment, new_session = dict(os.environ if env is None else env), rest[14]
        is_plain = not any((preexec_fn, pass_fds, *rest[:3], new_session)) and next(iter(args)) == sys.executable
        server = self.server_of(environment) if is_plain and sys.platform == "linux" else None
        if server is None:
            super()._execute_child(args, executable, preexec_fn, close_fds, pass_fds, cwd, env, *rest)
            return
        sys.audit("subprocess.Popen", executable, args, cwd, env)
        job = {"words": list(map(str, args[1:])), "environment": environment, "folder": str(cwd or os.getcwd())}
        given = (p2cread, c2pwrite, errwrite)
        self.pid = server.start(job, [stream if file == -1 else file for stream, file in enumerate(given)])
        self._child_created = True
        self._close_pipe_fds(p2cread, p2cwrite, c2pread, c2pwrite, errread, errwrite)

    @classmethod
    def server_of(cls, environment):
        """Return the server of an environment, None the first time: to start it takes as long as a process itself."""
        key = frozenset((name, text) for name, text in environment.items() if not name.startswith(FREE))
        if key not in cls.servers:
            cls.servers[key] = None
        elif cls.servers[key] is None:
            cls.servers[key] = Server(environment)
        return cls.servers[key]


def run(command, *, input=None, timeout=None, check=False, capture_output=False, **options):
    """Do as ``subprocess.run``."""
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE} if capture_output else {}
    pipes |= {} if input is None else {"stdin": subprocess.PIPE}
    with Popen(command, **pipes, **options) as process:
        try:
            output, errors = process.communicate(input, timeout)
        except BaseException:
            process.kill()
            raise
    done = subprocess.CompletedProcess(command, process.returncode, output, errors)
    if check:
        done.check_returncode()
    return done
