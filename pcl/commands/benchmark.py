"""Measure side by side in one run: loader against memory, whole path against a bare loop, two workers against one."""

import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from statistics import median

import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator  # type: ignore[import-untyped]

from pcl.cluster.connection import connected
from pcl.cluster.worker import fit
from pcl.commands.command_line import Guide, job
from pcl.config.load import Config
from pcl.data.loader import iterate_split
from pcl.errors import BadInputError
from pcl.objective import LOSSES
from pcl.train.parts import load_shards, make_loader
from pcl.train.session import Session

GUIDE = Guide(
    __doc__,
    examples=("configs/mnist.yaml", "configs/mnist.yaml data.shards=/shared/mnist", "runs/mnist"),
    keys=("data.shards", "train.epochs", "train.global_batch", "workers.cpus_per_worker"),
)
ROUNDS = 3  # bare loop and whole path in turn: the speed of a shared machine drifts


def rate(step: Callable[[int], object], num_steps: int, global_batch: int) -> float:
    """Return the pairs per second of a number of steps."""
    started = time.perf_counter()
    for i in range(num_steps):
        step(i)
    return num_steps * global_batch / (time.perf_counter() - started)


def path_rate(config: Config, num_workers: int) -> float:
    """Return pairs per second of shards, Ray Train, logs and checkpoints, from before the first step to the last."""
    with tempfile.TemporaryDirectory() as storage, connected(num_workers):
        fit(replace(config, workers=replace(config.workers, num_workers=num_workers)), Path(storage) / "run")
        events = EventAccumulator(str(Path(storage) / "run")).Reload()
    last = events.Scalars("train/loss")[-1]
    return float(last.step * config.train.global_batch / (last.wall_time - events.FirstEventTimestamp()))


def main(config: Config) -> None:
    """Measure and print; on a shared machine read the ratios."""
    torch.set_num_threads(1)
    if LOSSES[config.loss.kind].arrays:
        raise BadInputError(f"loss.kind={config.loss.kind}: losses of feature maps are measured, choose conditional")
    manifest, batch = load_shards(config), config.train.global_batch
    records = list(iterate_split(config.shard_root, manifest, "train"))
    u, v = (torch.cat(parts) for parts in zip(*records, strict=True))
    loader, session = make_loader(config, manifest), Session(config, torch.device("cpu"))
    steps = loader.steps_per_epoch
    order = torch.randperm(len(u), generator=torch.Generator().manual_seed(config.seed))

    def in_memory(i: int) -> tuple[torch.Tensor, torch.Tensor]:
        start = i % steps * batch
        return u[order[start : start + batch]], v[order[start : start + batch]]

    def bare(i: int) -> None:
        model, optimizer = session.state.model, session.state.optimizer
        loss, _ = session.loss(*model(*in_memory(i)), model.temperature())
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()

    stream = loader.batches()
    first = rate(lambda _: next(stream), steps, batch)
    rates = [rate(lambda _: next(stream), 5 * steps, batch), rate(in_memory, 5 * steps, batch)]
    print(f"loader, one core, shuffled: {rates[0]:,.0f} pairs/s; its first epoch, verified: {first:,.0f}")
    print(f"in memory, one core, shuffled: {rates[1]:,.0f} pairs/s", flush=True)

    path_rates, ratios, before = [], [], rate(bare, 2 * steps, batch)
    for _ in range(ROUNDS):
        path_rates.append(path_rate(config, 1))
        after = rate(bare, 2 * steps, batch)
        ratios.append(2 * path_rates[-1] / (before + after))
        print(f"bare loop in memory: {before:,.0f} and {after:,.0f} pairs/s, whole path between: {path_rates[-1]:,.0f}")
        before = after
    print(
        f"whole path with one worker: {median(ratios):.2f} of the bare loop ({', '.join(f'{r:.2f}' for r in ratios)})"
    )
    one, two = median(path_rates), path_rate(config, 2)
    print(f"whole path with two workers: {two:,.0f} pairs/s, {two / one:.2f} of one worker")


def command(program: str, given: list[str]) -> None:
    """Measure as a command line says."""
    job(main, GUIDE, program, given)
