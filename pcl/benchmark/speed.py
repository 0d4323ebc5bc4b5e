"""Speed: time and memory of the loss with its gradient on a device, beside ClipLoss and what the products allow."""

__all__ = ["cost", "peak"]

import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import product
from statistics import median

import torch
from torch import Tensor
from torch.nn.functional import normalize

from pcl.benchmark.agreement import products_in
from pcl.benchmark.costs import LOSSES, clip_loss, clip_loss_bytes, flops, load_clip_loss
from pcl.benchmark.parts import Bench, Row
from pcl.fused import has_kernel
from pcl.losses import Pairs
from pcl.scores import negative_log_sum_exps

PRECISIONS = {"float32": "highest", "TF32": "high"}
REPEATS, MOST_S = 3, 1.5  # of a case, after one pass to warm up
Inputs = tuple[Tensor, Tensor, Tensor]
WAYS = ("tiles", "fused", LOSSES[1])


@dataclass(frozen=True)
class Taken:
    """What a pass took: seconds, the median, and bytes beyond what was held; None where nobody counts them."""

    seconds: float
    peak_bytes: int | None


def measured(bench: Bench, run: Callable[[], object]) -> Taken:
    """Return what a function takes on a device, after it has run once."""
    run()
    bench.wait()
    is_counted, held = bench.device.type == "cuda", 0
    if is_counted:
        torch.cuda.reset_peak_memory_stats(bench.device)
        held = torch.cuda.memory_allocated(bench.device)
    seconds: list[float] = []
    while len(seconds) < REPEATS and sum(seconds) < MOST_S:
        began = time.perf_counter()
        run()
        bench.wait()
        seconds.append(time.perf_counter() - began)
    peak = torch.cuda.max_memory_allocated(bench.device) - held if is_counted else None
    return Taken(median(seconds), peak)


def peak(bench: Bench) -> Iterator[Row]:
    """Yield the rates of products of matrices and of copies: what the loss could reach if it did nothing else."""
    size = 256 if bench.is_quick else 8192
    cases = [(name, torch.float32, precision) for name, precision in PRECISIONS.items()]
    for name, dtype, precision in [*cases, ("bf16", torch.bfloat16, "highest")]:
        a, b = (torch.randn(size, size, device=bench.device).to(dtype) for _ in range(2))
        with products_in(precision):
            taken = measured(bench, partial(torch.mm, a, b))
        bench.rates[name] = 2 * size**3 / taken.seconds
        yield Row(f"product of {size:,}, {name}", {"Tflop/s": bench.rates[name] / 1e12})
    data = torch.randn(1 << (20 if bench.is_quick else 30), device=bench.device)
    taken = measured(bench, data.clone)
    yield Row("copy", {"GB/s read and written": 2 * data.nbytes / taken.seconds / 1e9})


def cost(bench: Bench) -> Iterator[Row]:
    """Yield time and memory of the two-sided loss with its gradient: tiles, fused attention, ClipLoss."""
    sizes, dims = ((64, 128), (16,)) if bench.is_quick else ((16384, 32768, 65536, 131072), (64, 512))
    for (name, precision), dim, size in product(PRECISIONS.items(), dims, sizes):
        u, v = (normalize(torch.randn(size, dim, device=bench.device), dim=1).requires_grad_() for _ in range(2))
        inputs = u, v, torch.tensor(0.07, device=bench.device, requires_grad=True)
        found: dict[str, float] = {}
        for way in WAYS:
            try:
                with products_in(precision):
                    yield _case(bench, name, way, inputs, found)
            except torch.OutOfMemoryError:
                yield Row(_named(name, way, u), note="out of memory")


def _named(precision: str, way: str, u: Tensor) -> str:
    return f"B = {len(u):,}, E = {u.shape[1]}, {precision}: {way}"


def _case(bench: Bench, precision: str, way: str, inputs: Inputs, found: dict[str, float]) -> Row:
    """Measure one way; what it finds is added to what others have found, with which it must agree."""
    case = _named(precision, way, inputs[0])
    if reason := _left_out(bench, way, inputs[0]):
        return Row(case, note=reason)

    def run() -> None:
        found[way] = _pass(way, *inputs)

    taken, shape = measured(bench, run), (len(inputs[0]), 1, inputs[0].shape[1])
    seconds_of_products = flops("ours", *shape) / bench.rates[precision] if precision in bench.rates else None
    numbers = {"ms": 1e3 * taken.seconds, "Tflop/s": flops(LOSSES[way == LOSSES[1]], *shape) / taken.seconds / 1e12}
    if taken.peak_bytes is not None:
        numbers["MiB"] = taken.peak_bytes / 2**20
    if seconds_of_products and way != LOSSES[1]:
        numbers["ms of 8bBE at the rate of products"] = 1e3 * seconds_of_products
    limit = 1e-4 if precision == "float32" else 1e-2
    return Row(case, numbers, "", abs(found[way] / found.get("tiles", found[way]) - 1) < limit)


def _left_out(bench: Bench, way: str, u: Tensor) -> str:
    """Return why something is not measured, or nothing."""
    if way == "fused" and not has_kernel(u):
        return "no kernel: tiles are taken"
    if way == LOSSES[1] and bench.device.type == "cuda":
        needed, free = clip_loss_bytes(len(u)), torch.cuda.mem_get_info(bench.device)[0]
        if needed > free:
            return f"needs {needed / 2**30:,.0f} GiB, {free / 2**30:,.0f} are free"
    return ""


def _pass(way: str, u: Tensor, v: Tensor, temperature: Tensor) -> float:
    """Form a loss and its gradient; return the cross entropy that both losses are, ours up to log B."""
    if way == LOSSES[1]:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # of what open_clip calls
            theirs = load_clip_loss()
        loss = (theirs() if theirs else clip_loss)(u, v, 1 / temperature)
    else:
        pairs = Pairs.of(u, v, temperature, None)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # on a CPU attention is not fused
            rows, columns, _ = negative_log_sum_exps(pairs.queries, pairs.candidates, fused=way == "fused")
        directions = [pairs.log_mean(sums, exclude_positive=False).mean() for sums in (rows, columns)]
        loss = torch.stack(directions).mean() + torch.tensor(float(len(u))).log()
    torch.autograd.grad(loss, (u, v, temperature))
    return loss.item()
