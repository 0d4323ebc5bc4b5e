"""Runs a function on real worker processes that share a gloo process group on 127.0.0.1."""

import functools
import multiprocessing
import os
import pickle
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from datetime import timedelta
from multiprocessing import forkserver
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

GROUP_TIMEOUT_S = 60  # of one collective
TIMEOUT_S = 120  # of all workers, with their start
GRACE_S = 5  # for the others to end once one has failed


@functools.cache
def new_processes() -> Any:
    """Return a context whose processes are copies of one that has imported what takes seconds, and nothing else."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["pcl.train.session", "pcl.evaluation.record", __name__])
    forkserver.ensure_running()  # before others of this process ask for another
    return context


def run_workers(function: Callable[..., Any], num_workers: int, *arguments: Any) -> list[Any]:
    """Return ``function(*arguments)`` of every worker by rank, tensors as numpy arrays; raise the error of a worker.

    The function is one of a module, so that the new processes can import it.
    """
    context = new_processes()
    with tempfile.TemporaryDirectory() as directory:
        processes = [
            context.Process(target=_work, args=(Path(directory), rank, num_workers, function, arguments), daemon=True)
            for rank in range(num_workers)
        ]
        try:
            for process in processes:
                process.start()
            finished = _join(processes)
        finally:
            for process in processes:
                if process.is_alive():
                    process.kill()
                if process.pid is not None:
                    process.join()
        files = [Path(directory) / f"result-{rank}" for rank in range(num_workers)]
        results = [pickle.loads(file.read_bytes()) if file.exists() else None for file in files]
        failed = sorted((r for r in results if r and "error" in r), key=lambda result: result["time"])
        if failed:
            raise failed[0]["error"]
        if not finished:
            raise TimeoutError(f"{results.count(None)} of {num_workers} workers did not end within {TIMEOUT_S} s")
        if None in results:
            codes = [process.exitcode for process in processes]
            raise RuntimeError(f"a worker ended without a result; exit codes by rank: {codes}")
        return [result["value"] for result in results]


def _join(processes: list[Any]) -> bool:
    """Wait for all, but no longer than the grace once one has failed; return whether all ended."""
    deadline = time.monotonic() + TIMEOUT_S
    running = {process.sentinel: process for process in processes}
    failed = False
    while running and (remaining := deadline - time.monotonic()) > 0:
        for sentinel in wait(list(running), remaining):
            if running.pop(sentinel).exitcode and not failed:
                failed, deadline = True, min(deadline, time.monotonic() + GRACE_S)
    return not running


def _work(
    directory: Path, rank: int, num_workers: int, function: Callable[..., Any], arguments: tuple[Any, ...]
) -> None:
    """Be one worker."""
    os.environ["GLOO_SOCKET_IFNAME"] = "lo0" if sys.platform == "darwin" else "lo"
    torch.set_num_threads(1)
    try:
        dist.init_process_group(
            "gloo",
            init_method=(directory / "store").as_uri(),
            rank=rank,
            world_size=num_workers,
            timeout=timedelta(seconds=GROUP_TIMEOUT_S),
        )
        result = {"value": _as_numpy(function(*arguments))}
    except Exception as error:
        result = {"error": _portable(error, rank), "time": time.time()}
    temporary = directory / f"unfinished-{rank}"
    temporary.write_bytes(pickle.dumps(result))
    temporary.rename(directory / f"result-{rank}")
    if "error" in result:
        os._exit(1)
    dist.destroy_process_group()


def _as_numpy(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return value.detach().numpy()
    if isinstance(value, dict):
        return {key: _as_numpy(item) for key, item in value.items()}
    return type(value)(map(_as_numpy, value)) if isinstance(value, list | tuple) else value


def _portable(error: Exception, rank: int) -> Exception:
    """Return an error that can be pickled and carries its traceback as a note."""
    text = f"in worker {rank}:\n{''.join(traceback.format_exception(error))}"
    error.add_note(text)
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        return RuntimeError(text)
    return error
