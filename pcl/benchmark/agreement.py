"""Agreement: what a device computes of the losses, against float64 on the CPU."""

__all__ = ["bf16", "fused", "losses", "nccl", "products_in"]

import math
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import product
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from pcl.benchmark.parts import Bench, Row
from pcl.encoders.build import ModelSpec, build_model
from pcl.fused import has_kernel
from pcl.kernels import gaussian_kernel, polynomial_kernel
from pcl.losses import conditional_loss
from pcl.objective import LOSSES, Loss, make_loss
from pcl.scores import MODES, negative_log_sum_exps
from pcl.tilting import TILTINGS, feature_maps
from pcl.train.collectives import GroupWorkers
from pcl.train.loop import Optimisation, TrainingState, make_optimizer, train_step
from pcl.workers import OneWorker, Workers

WEIGHTS = 0.5, 1.5
KERNELS = gaussian_kernel(1.5), polynomial_kernel(2)
LIMITS = {torch.float64: 1e-10, torch.float32: 1e-5}
JOINT_MMD_LIMIT = 5e-3  # in single precision: it is the difference of nearly equal sums
TF32_LIMIT = 1e-2
FEATURES, FEATURES_TF32 = (5, 64, 128, 256, 512), (64, 512)  # each takes seconds to compile


def _normal(*shapes: tuple[int, int]) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(*shape, generator=generator, dtype=torch.float64) for shape in shapes]


def _drawn(size: int) -> list[Tensor]:
    """Return values of u and v, their embeddings, and the log of a temperature."""
    return [*_normal((size, 4), (size, 2), (size, 9), (size, 9)), torch.zeros((), dtype=torch.float64)]


def _found(loss: Loss, inputs: Sequence[Tensor], tilting: str, workers: Workers) -> list[Tensor]:
    """Return a loss and its gradients by both embeddings and the log of the temperature, on the CPU."""
    *values, u, v, log_temperature = inputs
    leaves = [part.detach().requires_grad_() for part in (u, v, log_temperature)]
    features = feature_maps(leaves[0], leaves[1], tilting)
    value = loss(*features, leaves[2].exp(), values=tuple(values), workers=workers)[0]
    return [part.detach().cpu().double() for part in (value, *torch.autograd.grad(value, leaves))]


def _error(found: Sequence[Tensor], expected: Sequence[Tensor]) -> float:
    """Return the largest error of a value, and of a gradient beside its norm."""
    of_value = float((found[0] - expected[0]).abs() / (1 + expected[0].abs()))
    of_gradients = [float((f - e).norm() / (e.norm() + 1e-12)) for f, e in zip(found[1:], expected[1:], strict=True)]
    return max(of_value, *of_gradients)


def losses(bench: Bench) -> Iterator[Row]:
    """Yield the largest error of every loss and dtype, over all tiltings and modes, with and without the positive."""
    for kind, dtype in product((name for name, one in LOSSES.items() if not (one.arrays or one.is_own)), LIMITS):
        errors = [_largest_error(bench, kind, dtype, *case) for case in product(TILTINGS, (False, True))]
        limit = JOINT_MMD_LIMIT if kind == "joint_mmd" and dtype == torch.float32 else LIMITS[dtype]
        case = f"{kind}, {str(dtype).removeprefix('torch.')}"
        yield Row(case, {"largest error": max(errors)}, "", max(errors) < limit)


def _largest_error(bench: Bench, kind: str, dtype: torch.dtype, tilting: str, excludes: bool) -> float:
    """Return the largest error over all modes of what the device finds, beside the whole matrix in float64."""
    size = 24 if bench.is_quick else 96
    inputs = [part.to(dtype) for part in _drawn(size)]
    options: dict[str, Any] = {"kernels": KERNELS, "exclude_positive": excludes}
    whole = make_loss(kind, WEIGHTS, mode="plain", **options)
    expected = _found(whole, [part.double() for part in inputs], tilting, OneWorker())
    given = [part.to(bench.device) for part in inputs]
    found = [_found(make_loss(kind, WEIGHTS, mode=mode, **options), given, tilting, OneWorker()) for mode in MODES]
    return max(_error(one, expected) for one in found)


def fused(bench: Bench) -> Iterator[Row]:
    """Yield the error of fused attention by the number of features, with and without TF32, or that it has no kernel."""
    sizes = (20, 30) if bench.is_quick else (2000, 3000)
    cases = [("highest", features) for features in FEATURES] + [("high", features) for features in FEATURES_TF32]
    for precision, num_features in [("highest", 16), ("high", 16)] if bench.is_quick else cases:
        case = f"F = {num_features}, {'TF32' if precision == 'high' else 'float32'}"
        queries, candidates = _normal(*((size, num_features) for size in sizes))
        expected = _sums(queries / math.sqrt(num_features), candidates, is_fused=False)
        with products_in(precision):
            given = [part.float().to(bench.device) for part in (queries / math.sqrt(num_features), candidates)]
            began = time.perf_counter()
            if not has_kernel(given[0]):
                yield Row(case, note="no kernel: tiles are taken")
                continue
            seconds = time.perf_counter() - began
            error = max(
                float((f - e).norm() / e.norm()) for f, e in zip(_sums(*given, is_fused=True), expected, strict=True)
            )
        limit = LIMITS[torch.float32] if precision == "highest" else TF32_LIMIT
        yield Row(case, {"error": error, "s until it was compiled and tried": seconds}, "", error < limit)


def _sums(queries: Tensor, candidates: Tensor, *, is_fused: bool) -> list[Tensor]:
    leaves = [part.detach().requires_grad_() for part in (queries, candidates)]
    rows, columns, effective = negative_log_sum_exps(leaves[0], leaves[1], 7, fused=is_fused)
    gradients = torch.autograd.grad(rows.sum() + 2 * columns.sum(), leaves)
    return [part.detach().cpu().double() for part in (rows, columns, effective, *gradients)]


@contextmanager
def products_in(precision: str) -> Iterator[None]:
    """Have products of matrices in single precision in a precision of torch's: ``highest``, or ``high`` for TF32."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(precision)
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


def nccl(bench: Bench) -> Iterator[Row]:
    """Yield the error of a loss whose collectives go through a process group of one rank: nccl on a GPU, else gloo."""
    backend = "nccl" if bench.device.type == "cuda" else "gloo"
    inputs = [part.to(bench.device) for part in _drawn(48)]
    with tempfile.TemporaryDirectory() as folder:
        dist.init_process_group(backend, init_method=(Path(folder) / "store").as_uri(), rank=0, world_size=1)
        try:
            for kind, mode in product(("conditional", "joint", "logistic"), MODES[1:]):
                loss = make_loss(kind, WEIGHTS, mode=mode, kernels=KERNELS)
                found = _found(loss, inputs, "cosine", GroupWorkers())
                error = _error(found, _found(loss, inputs, "cosine", OneWorker()))
                yield Row(f"{backend}, one rank: {kind}, {mode}", {"error": error}, "", error < LIMITS[torch.float64])
        finally:
            dist.destroy_process_group()


SPEC: ModelSpec = {
    "embedding_dim": 32,
    "encoder_u": {"kind": "mlp", "shape": [64], "widths": [256, 256]},
    "encoder_v": {"kind": "mlp", "shape": [64], "widths": [256, 256]},
    "tilting": "cosine",
    "temperature": {"initial": 0.1, "learned": True, "minimum": 0.01, "maximum": 10.0},
    "dtype": "float32",
}


def bf16(bench: Bench) -> Iterator[Row]:
    """Yield whether a loss is the same within autocast, and how a training in bf16 differs from one in float32."""
    u, v = (part.float().to(bench.device).requires_grad_() for part in _normal((64, 9), (64, 9)))
    found = []
    for is_within in (False, True):
        with torch.autocast(bench.device.type, torch.bfloat16, enabled=is_within):
            loss = conditional_loss(u, v, 0.5)[0]
            found.append((loss, *torch.autograd.grad(loss, (u, v))))
    same = all(torch.equal(*pair) for pair in zip(*found, strict=True))
    yield Row("loss and gradient within autocast", note="bits of those outside" if same else "others", is_right=same)
    finals = {}
    for is_low in (False, True):
        first, finals[is_low], milliseconds = _trained(bench, is_low)
        numbers = {"first loss": first, "last loss": finals[is_low], "ms a step": milliseconds}
        yield Row("mlp, " + ("bf16" if is_low else "float32"), numbers, "", finals[is_low] < first)
    difference = abs(finals[True] - finals[False])
    yield Row("last loss, bf16 and float32", {"apart": difference}, "", difference < 0.2)


def _trained(bench: Bench, is_low: bool) -> tuple[float, float, float]:
    """Return the first and the last loss of a short training on pairs that share a signal, and ms a step."""
    batch, steps = (64, 4) if bench.is_quick else (1024, 60)
    signal, *noise = _normal((batch, 64), (batch, 64), (batch, 64))
    pairs = [(signal + 0.3 * part).float().to(bench.device) for part in noise]
    model = build_model(SPEC).to(bench.device)
    optimisation = Optimisation(steps, 1e-3, bf16=is_low)
    state = TrainingState(model, make_optimizer(model, optimisation))
    loss, values, began = make_loss("conditional"), [], 0.0
    for step in range(steps):
        if step == steps // 2:
            bench.wait()
            began = time.perf_counter()
        values.append(train_step(state, pairs, loss, optimisation, OneWorker())["loss"])
    bench.wait()
    return float(values[0]), float(values[-1]), 1e3 * (time.perf_counter() - began) / (steps - steps // 2)
