"""Measure memory, time and traffic of one loss with its gradient, side by side with ClipLoss of open_clip.

Each pass runs in fresh processes that do nothing else; ClipLoss stands beside where it is installed.

Shapes: b pairs on a worker, B = W b pairs in the global batch, embedding E.
"""

__all__ = [
    "Cost",
    "available_bytes",
    "measure",
    "side_by_side",
]

import argparse
import ctypes
import math
import multiprocessing
import os
import tempfile
import time
import warnings
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn.functional import normalize

from pcl.benchmark.costs import LOSSES, clip_loss_bytes, flops, load_clip_loss, sent_bytes
from pcl.errors import RunFailedError
from pcl.losses import conditional_loss
from pcl.train.collectives import make_workers

WARM_UP_BATCH = 1024  # the least that takes the same way through the code as large batches
M_MMAP_THRESHOLD = -3  # of <malloc.h>
LARGE_BLOCK_BYTES = 2**21  # given back as it is freed; more than a tile of scores, less than embeddings worth measuring
LOOPBACK = Path("/sys/class/net/lo/statistics/tx_bytes")

SIZES, NUM_WORKERS, DIM, ROUNDS = (4096, 8192, 16384, 32768), (1, 2), 256, 3
HEADER = f"""\
Conditional loss of weights (1, 1) beside ClipLoss, each with its gradient; E = {DIM}, float32. W workers of
b = B/W pairs share {{cores}} cores, threads wait passively; numbers are of one worker. With W > 1, gloo, ClipLoss has
local_loss=True, gather_with_grad=True.
  peak MiB  beyond what the process held before: gradients count, inputs do not (VmHWM); largest of {ROUNDS} passes
  seconds   best of {ROUNDS} passes in fresh processes, ours and ClipLoss in turn
  Gflop     in products of matrices: 8bBE as scores are formed twice (6bBE if they were kept), ClipLoss 12bBE
  MB sent   counted for rings; seen on the loopback interface, where gloo reduce-scatters by a whole all-reduce

           peak MiB                 seconds                  Gflop             MB sent, counted  MB sent, seen
      B  W     ours ClipLoss ratio      ours ClipLoss ratio      ours ClipLoss     ours ClipLoss     ours ClipLoss"""


@dataclass(frozen=True)
class Cost:
    """What one pass took.

    Attributes:
        loss: on the global batch.
        peak_bytes: most memory of a worker at any moment beyond what it held before: gradients count, inputs do not.
        seconds: of the slowest worker.
        loopback_bytes: what all processes of the machine sent through the loopback interface, per worker.
    """

    loss: float
    peak_bytes: int
    seconds: float
    loopback_bytes: float


def available_bytes() -> int:
    """Return the memory that new processes can have."""
    return _memory("/proc/meminfo", "MemAvailable")


def side_by_side(
    losses: Sequence[str], batch: int, num_workers: int = 1, dim: int = 256, rounds: int = 3
) -> list[Cost]:
    """Measure losses in turn, as the speed of a shared machine drifts; return each one's best time and largest peak.

    Raises:
        RunFailedError: see ``measure``.
    """
    costs = [[measure(loss, batch, num_workers, dim) for loss in losses] for _ in range(rounds)]
    return [
        Cost(
            passes[0].loss,
            max(cost.peak_bytes for cost in passes),
            min(cost.seconds for cost in passes),
            min(cost.loopback_bytes for cost in passes),
        )
        for passes in zip(*costs, strict=True)
    ]


def measure(
    loss: str, batch: int, num_workers: int = 1, dim: int = 256, num_threads: int | None = None, seed: int = 0
) -> Cost:
    """Run one pass, loss and gradient, on random unit vectors in single precision.

    It runs in fresh processes, W > 1 of them joined by gloo on the loopback interface, after a pass over few pairs
    that loads the libraries. ClipLoss is that of ``local_loss=True, gather_with_grad=True``: its gradient is exact too.

    Args:
        loss: one of ``LOSSES``.
        batch: B.
        num_workers: W, which divides B.
        dim: E.
        num_threads: of a worker; the cores shared equally when None.
        seed: of the vectors.

    Raises:
        RunFailedError: a process was killed; open_clip is not installed, or this is not Linux.
    """
    if not Path("/proc/self/clear_refs").exists():
        raise RunFailedError("there is no /proc/self/clear_refs: peaks of memory are read from Linux, run this there")
    if loss == "ClipLoss" and load_clip_loss() is None:
        raise RunFailedError("open_clip is not installed: pip install --no-deps open_clip_torch")
    threads = num_threads or max(1, len(os.sched_getaffinity(0)) // num_workers)
    context = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as folder, ProcessPoolExecutor(num_workers, mp_context=context) as pool:
        store = (Path(folder) / "store").as_uri()
        arguments = loss, batch, num_workers, dim, threads, seed, store
        try:
            costs = [work.result() for work in [pool.submit(_work, rank, *arguments) for rank in range(num_workers)]]
        except BrokenProcessPool as error:
            raise RunFailedError(
                f"a process died that measured {loss} at B = {batch}, W = {num_workers}: the machine may be out of "
                "memory; choose a smaller batch"
            ) from error
    return Cost(
        math.fsum(cost.loss for cost in costs) / num_workers,
        max(cost.peak_bytes for cost in costs),
        max(cost.seconds for cost in costs),
        costs[0].loopback_bytes / num_workers,
    )


def _work(
    rank: int, loss: str, batch: int, num_workers: int, dim: int, num_threads: int, seed: int, store: str
) -> Cost:
    """Be one worker of a measurement."""
    torch.set_num_threads(num_threads)
    # Once glibc has freed a large block, others up to 32 MiB go to its heap, where holes are too small for an aligned
    # block of the same size: how many remain differs from process to process, and with them the peak, by a third.
    ctypes.CDLL(None).mallopt(M_MMAP_THRESHOLD, LARGE_BLOCK_BYTES)
    warnings.filterwarnings("ignore", category=FutureWarning, module="open_clip_loss")
    if num_workers == 1:
        return _cost(loss, 0, 1, batch, dim, seed)
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    dist.init_process_group("gloo", init_method=store, rank=rank, world_size=num_workers)
    try:
        return _cost(loss, rank, num_workers, batch, dim, seed)
    finally:
        dist.destroy_process_group()


def _cost(loss: str, rank: int, num_workers: int, batch: int, dim: int, seed: int) -> Cost:
    generator = torch.Generator().manual_seed(seed + rank)

    def inputs(size: int) -> list[Tensor]:
        pairs = [normalize(torch.randn(size // num_workers, dim, generator=generator), dim=1) for _ in range(2)]
        return [tensor.requires_grad_() for tensor in (*pairs, torch.tensor(0.07))]

    def run(u: Tensor, v: Tensor, temperature: Tensor) -> Tensor:
        if loss == "ours":
            value = conditional_loss(u, v, temperature, workers=make_workers(equal_batches=True))[0]
        else:
            theirs = load_clip_loss()(local_loss=True, gather_with_grad=True, rank=rank, world_size=num_workers)
            value = theirs(u, v, 1 / temperature)
        value.backward()  # type: ignore[no-untyped-call]
        return value

    def meet() -> None:
        if num_workers > 1:
            dist.barrier()

    run(*inputs(WARM_UP_BATCH))
    pairs = inputs(batch)
    ctypes.CDLL(None).malloc_trim(0)  # what the first pass has freed would hide as much of the peak
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts again from here
    held, sent = _memory("/proc/self/status", "VmRSS"), int(LOOPBACK.read_text())
    meet()
    started = time.perf_counter()
    value = run(*pairs)
    seconds = time.perf_counter() - started
    meet()
    peak, sent = _memory("/proc/self/status", "VmHWM") - held, int(LOOPBACK.read_text()) - sent
    return Cost(value.item(), peak, seconds, sent)


def _memory(path: str, key: str) -> int:
    """Return an entry of a file of Linux that counts memory, in bytes."""
    entries = dict(line.split(":", 1) for line in Path(path).read_text().splitlines())
    return int(entries[key].split()[0]) * 1024


def cells(values: list[float], digits: int, *, ratio: bool = False) -> str:
    """Return the columns of both losses, and their ratio; a dash for what was not measured."""
    found = [f"{value:9,.{digits}f}" for value in values] + ["        -"] * (len(LOSSES) - len(values))
    if ratio:
        found.append(f"{values[0] / values[1]:6.3f} " if len(values) > 1 else "     - ")
    return "".join(found)


def row(batch: int, num_workers: int, losses: tuple[str, ...]) -> str:
    """Measure, and return a line of the table."""
    costs, case = side_by_side(losses, batch, num_workers, DIM, ROUNDS), (batch, num_workers, DIM)
    return f"{batch:7}{num_workers:3}" + "".join(
        (
            cells([cost.peak_bytes / 2**20 for cost in costs], 1, ratio=True),
            cells([cost.seconds for cost in costs], 2, ratio=True),
            cells([flops(loss, *case) / 1e9 for loss in losses], 0),
            cells([sent_bytes(loss, *case) / 1e6 for loss in losses], 1),
            cells([cost.loopback_bytes / 1e6 for cost in costs], 1),
        )
    )


def command(program: str, given: list[str]) -> None:
    """Measure every B with every W, and print each line as it comes."""
    parser = argparse.ArgumentParser(program, description=__doc__)
    text = f"numbers of pairs of a global batch, even (default: {' '.join(map(str, SIZES))})"
    parser.add_argument("sizes", nargs="*", type=int, default=SIZES, metavar="B", help=text)
    sizes = parser.parse_args(given).sizes
    if wrong := [size for size in sizes if size < 2 or size % 2]:
        parser.error(f"B = {wrong[0]}: two workers share a global batch, so it must be even and positive")
    installed = load_clip_loss() is not None
    if not installed:
        print(
            "open_clip is not installed, its columns stay empty; install it by: pip install --no-deps open_clip_torch"
        )
    os.environ["OMP_WAIT_POLICY"] = "passive"  # of new processes: threads that spin stall where cores are shared
    print(HEADER.format(cores=len(os.sched_getaffinity(0))), flush=True)
    for batch in sizes:
        needed, free = clip_loss_bytes(batch), available_bytes()
        if installed and needed > free:
            print(f"ClipLoss is left out: it needs {needed / 2**30:.1f} GiB, {free / 2**30:.1f} GiB are free")
        for num_workers in NUM_WORKERS:
            print(row(batch, num_workers, LOSSES if installed and needed <= free else LOSSES[:1]), flush=True)
