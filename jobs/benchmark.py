"""Measure side by side in one run: loader against memory, whole path against a bare loop, two workers against one."""

import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from pcl.cluster import connected
from pcl.command import job
from pcl.config import Config
from pcl.data.loader import LaneLoader, iterate_split
from pcl.train.session import Session, load_shards, make_loader

Pairs = tuple[torch.Tensor, torch.Tensor]


def rate(batches: int, global_batch: int, started: float) -> float:
    """Return pairs per second since a moment."""
    return batches * global_batch / (time.perf_counter() - started)


def loader_rate(loader: LaneLoader, epochs: int = 5) -> float:
    """Return pairs per second of the loader alone, after a first epoch that verifies the shards."""
    stream = loader.batches()
    for _ in range(loader.steps_per_epoch):
        next(stream)
    started, steps = time.perf_counter(), epochs * loader.steps_per_epoch
    for _ in range(steps):
        next(stream)
    return rate(steps, loader.global_batch, started)


def memory_rate(pairs: Pairs, global_batch: int, epochs: int = 5) -> float:
    """Return pairs per second of shuffled indexing into arrays in memory."""
    started, steps = time.perf_counter(), len(pairs[0]) // global_batch
    for epoch in range(epochs):
        order = torch.randperm(len(pairs[0]), generator=torch.Generator().manual_seed(epoch))
        for i in range(steps):
            index = order[i * global_batch : (i + 1) * global_batch]
            _ = pairs[0][index], pairs[1][index]
    return rate(epochs * steps, global_batch, started)


def bare_rate(config: Config, pairs: Pairs, seconds: float = 20.0) -> float:
    """Return pairs per second of the same model, loss and optimiser on arrays in memory: nothing else."""
    session = Session(config, torch.device("cpu"))
    model, optimizer = session.state.model, session.state.optimizer
    order, batch, steps = np.random.default_rng(0).permutation(len(pairs[0])), config.train.global_batch, 0
    started = time.perf_counter()
    while time.perf_counter() - started < seconds:
        index = np.take(order, np.arange(steps * batch, (steps + 1) * batch), mode="wrap")
        features = model(pairs[0][index], pairs[1][index])
        loss, _ = session.loss(*features, model.temperature())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        steps += 1
    return rate(steps, batch, started)


def path_rate(config: Config, num_workers: int) -> float:
    """Return pairs per second of shards, Ray Train, logs and checkpoints, from the first point in TensorBoard on."""
    from pcl.train.worker import fit

    with tempfile.TemporaryDirectory() as storage, connected(num_workers):
        fit(replace(config, workers=replace(config.workers, num_workers=num_workers)), Path(storage) / "run")
        events = EventAccumulator(str(Path(storage) / "run" / "tensorboard")).Reload().Scalars("train/loss")
    pairs = (events[-1].step - events[0].step) * config.train.global_batch
    return pairs / (events[-1].wall_time - events[0].wall_time)


def main(config: Config) -> None:
    """Measure and print."""
    torch.set_num_threads(1)
    manifest = load_shards(config)
    parts = list(iterate_split(Path(config.data.shards), manifest, "train"))
    pairs = torch.cat([u for u, _ in parts]), torch.cat([v for _, v in parts])
    loader, memory = loader_rate(make_loader(config, manifest)), memory_rate(pairs, config.train.global_batch)
    print(f"loader, one core, shuffled: {loader:,.0f} pairs/s; in memory, shuffled: {memory:,.0f} pairs/s", flush=True)
    rates = [bare_rate(config, pairs), path_rate(config, 1), bare_rate(config, pairs), path_rate(config, 2)]
    bare = (rates[0] + rates[2]) / 2
    print(f"bare loop in memory, before and after: {rates[0]:,.0f} and {rates[2]:,.0f} pairs/s", flush=True)
    print(f"whole path, one worker: {rates[1]:,.0f} pairs/s = {rates[1] / bare:.2f} of the bare loop")
    print(f"whole path, two workers: {rates[3]:,.0f} pairs/s = {rates[3] / rates[1]:.2f} of one worker")


if __name__ == "__main__":
    job(main, __doc__)
