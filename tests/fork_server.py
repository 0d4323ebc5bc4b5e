"""A process that has imported what takes seconds, other people's packages alone, and becomes jobs: copies of itself.

It is started with the number of a socket, by which it is told of jobs, and imports nothing of pcl: what a job's own
code reads when it is imported, such as where a cluster is, it reads of its own environment.
"""

import atexit
import gc
import importlib
import os
import pickle
import runpy
import signal
import socket
import sys
import tempfile
import threading
import time
import types
from contextlib import suppress

IMPORTED = ("torch", "torch.distributed", "torch.utils.tensorboard.summary", "tensorboard.summary.writer.record_writer")
IMPORTED += ("omegaconf", "pandas", "PIL.Image", "psutil", "tqdm", "webdataset", "yaml")


def serve(connection):
    """Start jobs until nobody asks for any; return in each of them, with what it is to do."""
    while True:
        message, files, _, _ = socket.recv_fds(connection, 1 << 20, 3)
        if not message:
            os._exit(0)
        reader, writer = os.pipe()
        between = os.fork()
        if between == 0:
            between = os.getpid()
            child = os.fork()
            if child == 0:
                while os.getppid() == between:  # an orphan in a moment, and then a child of who asked
                    time.sleep(0.001)
                for number in (reader, writer, connection.detach()):
                    os.close(number)
                return become(pickle.loads(message), files)
            os.write(writer, str(child).encode())
            os._exit(0)
        os.waitpid(between, 0)
        os.close(writer)
        connection.sendall(os.read(reader, 100))
        for number in (reader, *files):
            os.close(number)


def become(job, files):
    """Take the streams, the environment and the folder of a job; return its words."""
    for stream, number in enumerate(files):
        os.dup2(number, stream)
    for number in files:
        os.close(number)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.environ.clear()
    os.environ.update(job["environment"])
    os.chdir(job["folder"])
    tempfile.tempdir = None
    return job["words"]


def run(words):
    """Run what the words after ``python`` name, as Python does."""
    if words[0] == "-c":
        sys.argv, sys.path[0] = ["-c", *words[2:]], ""
        main = sys.modules["__main__"] = types.ModuleType("__main__")
        exec(compile(words[1], "<string>", "exec"), main.__dict__)
    elif words[0] == "-m":
        sys.argv, sys.path[0] = words[1:], os.getcwd()
        runpy.run_module(words[1], run_name="__main__", alter_sys=True)
    else:
        sys.argv, sys.path[0] = words, os.path.dirname(os.path.abspath(words[0]))
        runpy.run_path(words[0], run_name="__main__")


if __name__ == "__main__":
    for name in IMPORTED:
        with suppress(ImportError):
            importlib.import_module(name)
    gc.collect()
    gc.freeze()  # copies do not write to the pages that they share with it
    words, code = serve(socket.socket(fileno=int(sys.argv[1]))), 0
    try:
        run(words)
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
        if isinstance(end.code, str):
            sys.stderr.write(f"{end.code}\n")
    threading._shutdown()
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):
            stream.flush()
    os._exit(code)  # nothing is taken apart: with torch that takes most of a second
