"""Measure memory, time and traffic of one loss with its gradient, side by side with ClipLoss of open_clip."""

import argparse
import os
import sys

from pcl.commands.benchmark_losses import (
    LOSSES,
    available_bytes,
    clip_loss_bytes,
    flops,
    load_clip_loss,
    sent_bytes,
    side_by_side,
)
from pcl.errors import RunFailedError

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


def main() -> None:
    """Measure every B with every W, and print each line as it comes."""
    parser = argparse.ArgumentParser(description=__doc__)
    text = f"numbers of pairs of a global batch, even (default: {' '.join(map(str, SIZES))})"
    parser.add_argument("sizes", nargs="*", type=int, default=SIZES, metavar="B", help=text)
    sizes = parser.parse_args().sizes
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


if __name__ == "__main__":
    try:
        main()
    except RunFailedError as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit(130)
