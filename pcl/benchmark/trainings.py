"""Trainings of two kinds of pairs on a device, by what a configuration says of them, without Ray."""

__all__ = ["lagrangian", "mnist"]

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch

from pcl.benchmark.parts import Bench, Row
from pcl.config.identity import data_identity
from pcl.config.load import Config, load_config
from pcl.data.manifest import ArrayInfo
from pcl.data.shards import build_all
from pcl.data.source import Arrays, Source
from pcl.train.loop import Scalars, train_step
from pcl.train.parts import make_source
from pcl.train.session import Session
from pcl.train.validation import HELD_OUT_LOSS

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
FIRST_STEPS, TOLERANCE = 3, 1e-3  # steps that are compared with those of the CPU; of their losses, float32
FLOWS = (  # as many positions as the data have; a coarse integrator of few paths, since speed asks for no more
    "data.streamfunction.num_train=2048",
    "data.streamfunction.num_test=512",
    "data.streamfunction.tolerance=1.0",
    "data.record_pairs=256",
    "model.transformer.dropout=0.0",  # each device draws its own
    "train.warmup_steps=2",
)
FEW_FLOWS = (
    "data.streamfunction.num_train=96",
    "data.streamfunction.num_test=32",
    "data.streamfunction.num_positions=100",
    "model.transformer.positions_per_token=20",
    "model.transformer.width=32",
    "data.record_pairs=16",
    "train.global_batch=32",
)


class StandIn(Source):
    """Images of noise around a mean of their label, in the shapes of MNIST."""

    split_rule = "independent draws"

    def __init__(self, num_train: int, num_test: int) -> None:
        generator = np.random.default_rng(0)
        means, self.splits = generator.uniform(0, 128, (10, 28, 28)), dict[str, Arrays]()
        for split, num in (("train", num_train), ("test", num_test)):
            labels, noise = generator.integers(10, size=num, dtype=np.uint8), generator.uniform(0, 127, (num, 28, 28))
            self.splits[split] = {"u": (means[labels] + noise).astype(np.uint8), "v": labels}

    @property
    def arrays(self) -> dict[str, ArrayInfo]:
        """The arrays of a pair."""
        u = ArrayInfo("uint8", (28, 28), "1", "noise", 1 / 255, "scalar")
        return {"u": u, "v": ArrayInfo("uint8", (), "1", "label", 1.0, "counts")}

    def provenance(self) -> dict[str, Any]:
        """Return what it stands in for."""
        return {"name": "mnist", "licence": "none needed: generated"}

    def num_pairs(self, split: str) -> int:
        """Return the number of pairs of a split."""
        return len(self.splits[split]["v"])

    def pairs(self, split: str, start: int, stop: int) -> Arrays:
        """Return the pairs of a range."""
        return {name: array[start:stop] for name, array in self.splits[split].items()}


@dataclass
class Curve:
    """What a training logs."""

    scalars: list[Scalars] = field(default_factory=list)

    def log(self, step: int, scalars: Scalars) -> None:
        """Keep scalars."""
        self.scalars.append(scalars)

    def row(self, case: str, note: str) -> Row:
        """Return how fast it was, all but its first point, and whether it learned anything."""
        rates = [scalars["pairs_per_second"] for scalars in self.scalars]
        first, last = self.scalars[0]["loss"], self.scalars[-1]
        numbers = {"pairs/s": median(rates[1:] or rates), "first loss": first, "last loss": last["loss"]}
        return Row(case, numbers | {"held-out loss": last[HELD_OUT_LOSS]}, note, last["loss"] < first)


def mnist(bench: Bench) -> Iterator[Row]:
    """Yield trainings of digits and their labels; of a stand-in where there are none."""
    folder = bench.data / "mnist" if bench.data and not bench.is_quick else None
    if folder is not None and folder.is_dir():
        yield from _trainings(bench, "mnist", (f"data.root={folder}",), None, "")
        return
    source = StandIn(512, 128) if bench.is_quick else StandIn(60000, 10000)
    few = ("data.record_pairs=16", "train.global_batch=32", "train.warmup_steps=2") if bench.is_quick else ()
    yield from _trainings(bench, "mnist", few, source, "stand-in: noise around ten means")


def lagrangian(bench: Bench) -> Iterator[Row]:
    """Yield trainings of flows and paths, which are generated."""
    size = FEW_FLOWS if bench.is_quick else ("train.epochs=30",)
    yield from _trainings(bench, "lagrangian", (*FLOWS, *size), None, "few and coarse paths")


def _trainings(bench: Bench, name: str, overrides: tuple[str, ...], source: Source | None, note: str) -> Iterator[Row]:
    """Yield whether the first steps are those of the CPU, then a training in float32 and one in bf16."""
    with _shards(bench, name, overrides, source) as (config, where):
        if bench.device.type != "cpu":
            with torch.backends.cudnn.flags(enabled=True, deterministic=True, allow_tf32=False):
                ours, theirs = (_first_losses(config, device) for device in (bench.device, torch.device("cpu")))
            apart = max(abs(a - b) / (1 + abs(b)) for a, b in zip(ours, theirs, strict=True))
            yield Row(f"{name}, first {FIRST_STEPS} steps", {"from those of the CPU": apart}, note, apart < TOLERANCE)
        for precision in ("float32", "bf16"):
            curve = Curve()
            config = _config(bench, name, (*overrides, *where, f"train.precision={precision}"))
            Session(config, bench.device).train(curve.log, lambda state, scalars: None)
            yield curve.row(f"{name}, {precision}, B = {config.train.global_batch}", note)


@contextmanager
def _shards(
    bench: Bench, name: str, overrides: tuple[str, ...], source: Source | None
) -> Iterator[tuple[Config, tuple[str, ...]]]:
    """Write shards to a folder that is there as long as they are trained on."""
    with tempfile.TemporaryDirectory(prefix="pcl-gpu-") as folder:
        where = f"storage={folder}", f"data.shards={folder}/shards", "data.num_shards=8"
        config = _config(bench, name, (*overrides, *where))
        root, data = Path(folder) / "shards", config.data
        build_all(root, source or make_source(config), data_identity(config), data.num_shards, data.record_pairs)
        yield config, where


def _config(bench: Bench, name: str, overrides: tuple[str, ...]) -> Config:
    config = load_config(CONFIGS / f"{name}.yaml", ["train.epochs=4", *overrides])
    config.train.log_every = 1 if bench.is_quick else 10
    config.train.checkpoint_every = config.train.validate_every = 10**9  # but after the last step
    return config


def _first_losses(config: Config, device: torch.device) -> list[float]:
    session, losses = Session(config, device), []
    more: dict[str, Any] = {"marginals": session.marginals, "augment": session.augment}
    for batch in islice(session.loader.batches(), FIRST_STEPS):
        given = session.state, batch, session.loss, session.optimisation, session.workers
        losses.append(float(train_step(*given, **more)["loss"]))
    return losses
