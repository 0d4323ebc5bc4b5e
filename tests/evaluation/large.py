"""Retrieval among many pairs beside the bare matrix product, by hand: python -m tests.evaluation.large [STRIPES] [N].

STRIPES of 4,096 rows are timed, each beside the same rows of the bare product, 0: all of N = 300,000; E = 64.
"""

import hashlib
import sys
import time

import psutil
import torch

from pcl.cluster.parts import elsewhere
from pcl.evaluation.parts import HERE, Parts
from pcl.evaluation.stripes import Compared, Distinct, Scores, behind_in

DIM, ACROSS = 64, 4096


def say(line):
    """Print a line."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def bare(u, v):
    """Return the seconds of the matrix product of u and v alone, in blocks, on all cores, by the clock and of CPUs."""
    work, began = torch.empty(ACROSS * ACROSS), (time.perf_counter(), time.process_time())
    for rows in torch.split(u, ACROSS):
        for columns in torch.split(v, ACROSS):
            torch.mm(rows, columns.T, out=work[: len(rows) * len(columns)].view(len(rows), -1))
    return time.perf_counter() - began[0], time.process_time() - began[1]


def held_bytes():
    """Return the memory that this process and its children hold; pages that several share are shared out."""
    family = [psutil.Process(), *psutil.Process().children(recursive=True)]
    return sum(one.memory_full_info().pss for one in family)


def passed(compared, stripes, parts):
    """Return seconds by the clock and of this process's CPUs of a pass over stripes, a hash of it, and the memory."""
    digests, most, began = {}, 0, (time.perf_counter(), time.process_time())
    for number, found in parts.each(behind_in, compared, stripes):
        digests[number] = hashlib.sha256(b"".join(part.numpy().tobytes() for part in found)).hexdigest()
        most = max(most, held_bytes())
    seconds = time.perf_counter() - began[0], time.process_time() - began[1]
    return *seconds, hashlib.sha256("".join(map(digests.get, sorted(digests))).encode()).hexdigest()[:12], most


def main(num_stripes=4, num_pairs=300_000):
    """Print a line for every way to compute, and return the ratio of CPU seconds, the hashes and the memory."""
    generator, ids = torch.Generator().manual_seed(0), torch.arange(num_pairs)
    u, v = (torch.randn(num_pairs, DIM, generator=generator) for _ in range(2))
    v += u / 2
    sides = Distinct.of(u, ids), Distinct.of(v, ids)
    scores = Scores.of(*sides, ACROSS, "cpu")
    best, number = ([part.numpy() for part in parts] for parts in (scores.best(HERE), [one.number for one in sides]))
    compared, stripes = Compared(scores, tuple(best), tuple(number)), scores.stripes[: num_stripes or None]
    rows = u[: scores.rows_of(stripes[-1]).stop]
    say(f"{len(rows):,} x {num_pairs:,} pairs, {torch.get_num_threads()} cores, {torch.__version__}")
    times, hashes, memory = [bare(rows, v)], set(), 0
    ours, cpu_s, digest, used = passed(compared, stripes, HERE)
    times.append(bare(rows, v))
    (clock, cpu), flops = map(min, zip(*times, strict=True)), 2 * len(rows) * num_pairs * DIM
    say(f"bare product: {clock:.1f} s, {cpu:.1f} s of CPUs, {flops / clock / 1e9:.0f} Gflop/s")
    say(f"both directions, here: {ours:.1f} s, {cpu_s:.1f} s of CPUs, {used / 2**30:.2f} GiB, {digest}")
    hashes, memory = {digest}, used
    for num_tasks in (1, 2):
        with elsewhere(num_tasks, False, 10) as (tasks, _):
            seconds, _, digest, used = passed(compared, stripes, Parts(tasks))
        say(f"both directions, tasks at a time {num_tasks}: {seconds:.1f} s, {used / 2**30:.2f} GiB, {digest}")
        hashes, memory = hashes | {digest}, max(memory, used)
    return cpu_s / cpu, hashes, memory


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
