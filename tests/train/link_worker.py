"""One of two workers at the ends of a link: it trains alone and with the other, in turn, and writes down its times."""

import json
import sys
import time
from pathlib import Path
from unittest.mock import patch

import torch
import torch.distributed as dist
from torch import nn

from pcl.config.load import load_config
from pcl.train import averaging, loop, session
from pcl.train.averaging import GradientAverage
from pcl.train.checkpoint import save_checkpoint
from pcl.train.collectives import make_workers
from pcl.workers import OneWorker

WAYS = ("alone", "apart", "after", "during")
"""One worker while the other waits; both, each a training of its own; both one training, whose gradients are averaged
in one piece after the backward pass, or in buckets during it."""


class AfterBackward(GradientAverage):
    """The mean gradient in one piece, which starts when the backward pass is over."""

    def __init__(self, parameters, workers):
        with patch.multiple(averaging, PARTS=1, LARGEST=1 << 40):
            super().__init__(parameters, workers)

    def begin(self, complete=()):
        pass


def as_way(way):
    """Return what makes a training one of ``WAYS``."""
    if way in ("alone", "apart"):
        return patch.object(session, "make_workers", lambda *_, **__: OneWorker())
    return patch.object(loop, "GradientAverage", AfterBackward if way == "after" else GradientAverage)


class Training:
    """One training, a block of steps at a time."""

    def __init__(self, way, config, folder):
        self.way, self.place = way, folder
        folder.mkdir(parents=True)
        with as_way(way):
            self.session = session.Session(config, torch.device("cpu"))
        self.blocks = []

    def commit(self, step, scalars, content):
        if content is not None:
            save_checkpoint(self.place / f"checkpoint-{step}", content)

    def block(self, num_steps):
        """Do some steps, with their logs and a checkpoint at the end, and keep milliseconds of a step."""
        parts, starts = [], []

        def stop():
            starts.append(time.perf_counter())
            return len(starts) == num_steps

        log = self.session.clock.take
        cpu = time.process_time()
        with as_way(self.way), patch.object(self.session.clock, "take", lambda: parts.append(log()) or parts[-1]):
            self.session.run(self.place, self.commit, stop)
        found = {"step": 1e3 * (time.perf_counter() - starts[0]) / num_steps}
        found["cpu"] = 1e3 * (time.process_time() - cpu) / num_steps
        found |= {name: sum(part[name] for part in parts) / len(parts) for name in parts[0] if "time/" in name}
        self.blocks.append(found)


class Sleeping(nn.Module):
    """Layers whose passes take time and no CPU, as those of a GPU do: forward one part, backward two."""

    def __init__(self, num_bytes, seconds):
        super().__init__()
        self.weight, self.seconds = nn.Parameter(torch.zeros(num_bytes // 4)), seconds

    def forward(self, x):
        return _Sleep.apply(x, self.weight, self.seconds)


class _Sleep(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, weight, seconds):
        ctx.save_for_backward(weight)
        ctx.seconds = seconds
        time.sleep(seconds / 3)
        return x.clone()

    @staticmethod
    def backward(ctx, gradient):
        time.sleep(2 * ctx.seconds / 3)
        return gradient, torch.ones_like(ctx.saved_tensors[0]), None


def asleep(num_layers, num_bytes, seconds, rounds):
    """Return milliseconds of steps of sleeping layers by way, and of the sum over workers alone."""
    layers = nn.Sequential(*(Sleeping(num_bytes // num_layers, seconds / num_layers) for _ in range(num_layers)))
    workers, x = make_workers(), torch.zeros(1, requires_grad=True)
    ways = {
        "after": AfterBackward,
        "during": GradientAverage,
        "computing": lambda p, _: GradientAverage(p, OneWorker()),
    }
    averages = {way: make(layers.parameters(), workers) for way, make in ways.items()}
    found = {way: [] for way in (*averages, "summing")}
    for _ in range(rounds):
        for way, average in averages.items():
            dist.barrier()
            began = time.perf_counter()
            layers.zero_grad()
            value = layers(x).sum()
            average.begin()
            value.backward()
            average.finish()
            found[way].append(1e3 * (time.perf_counter() - began))
        dist.barrier()
        began = time.perf_counter()
        averages["after"].finish()
        found["summing"].append(1e3 * (time.perf_counter() - began))
    return found


def trained(folder, end, arguments):
    """Return milliseconds of a step of a configuration by way."""
    config = load_config(arguments["config"], arguments["overrides"])
    trainings = {way: Training(way, config, folder / way / str(end)) for way in WAYS}
    for training in trainings.values():
        training.block(2)
        training.blocks.clear()
    for _ in range(arguments["rounds"]):
        for way, training in trainings.items():
            dist.barrier()
            if way != "alone" or end == 0:
                training.block(arguments["steps"])
    weights = {way: list(training.session.state.model.parameters()) for way, training in trainings.items()}
    found = {way: training.blocks for way, training in trainings.items()}
    found["same_bits"] = all(torch.equal(a, b) for a, b in zip(weights["after"], weights["during"], strict=True))
    found["bytes"] = sum(p.nbytes for p in weights["during"] if p.requires_grad)
    return found


def main(folder, end, arguments):
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=(folder / "store").as_uri(), rank=end, world_size=2)
    found = trained(folder, end, arguments) if "config" in arguments else asleep(**arguments)
    (folder / f"{end}.json").write_text(json.dumps(found))
    dist.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), json.loads(sys.argv[3]))
