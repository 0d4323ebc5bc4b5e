"""The held-out loss: that of the training, on fixed batches of pairs that it does not see."""

__all__ = ["HELD_OUT_LOSS", "Validation", "batch_loss", "plan_validation"]

import math
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor

from pcl.data.held_out import HeldOut, held_out
from pcl.data.manifest import Manifest
from pcl.data.sample import pairs_at
from pcl.errors import BadInputError
from pcl.losses import NotFiniteError
from pcl.marginals import Marginal
from pcl.model import PairModel
from pcl.objective import Loss, ModelLoss
from pcl.storage.place import Place
from pcl.train.clock import Clock
from pcl.train.collectives import sum_over_workers
from pcl.train.gradient import features_of, loss_of_features
from pcl.train.loop import Scalars
from pcl.workers import OneWorker, Workers

HELD_OUT_LOSS = "validation/loss"  # the name of its curve
BLOCK = 256  # pairs that are encoded at a time, whatever the number of workers: the same sums in the same order


def plan_validation(manifest: Manifest, fraction: float, global_batch: int) -> HeldOut:
    """Return the pairs on which the held-out loss is taken: those that a training holds out, or the test split.

    Raises:
        BadInputError: a fraction is to be held out that leaves no batch.
    """
    found = held_out(manifest, fraction)
    if fraction and len(found.numbers) < global_batch:
        raise BadInputError(
            f"train.validation_fraction={fraction} holds out {len(found.numbers):,} of {manifest.num_pairs('train'):,} "
            f"pairs, fewer than one global batch of {global_batch}: hold out more, or choose a smaller "
            "train.global_batch"
        )
    return found


@contextmanager
def evaluating(model: torch.nn.Module) -> Iterator[None]:
    """Have a model in the mode of evaluation, without dropout; every part of it goes back to its own mode."""
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        yield
    finally:
        for module, mode in modes.items():
            module.training = mode


@torch.no_grad()
def batch_loss(
    model: PairModel,
    batch: Sequence[Tensor],
    loss: Loss,
    marginals: Sequence[Marginal] = (),
    bf16: bool = False,
    number: int = 0,
) -> float:
    """Return the training loss of one batch, nan where it is not finite; nothing is drawn and nothing is kept.

    Args:
        model: in the mode of evaluation.
        batch: stored arrays of it, (B, ...): u and v, or those that a loss of the model names.
        loss: see ``pcl.objective``.
        marginals: modalities whose normaliser is exact.
        bf16: whether the encoders compute in bfloat16.
        number: of the batch: the step, for a loss of the model.
    """
    try:
        if isinstance(loss, ModelLoss):
            return loss(model, batch, step=number, workers=OneWorker())[0].item()
        u, v = batch
        blocks = zip(torch.split(u, BLOCK), torch.split(v, BLOCK), strict=True)
        parts = [features_of(model, *block, bf16=bf16) for block in blocks]
        features = torch.cat([part[0] for part in parts]), torch.cat([part[1] for part in parts])
        return loss_of_features(model, features, (u, v), loss, OneWorker(), marginals, Clock())[0].item()
    except NotFiniteError:
        return math.nan


class Validation:
    """The mean loss of fixed batches, dealt to the workers: every sum is the same for any number of them.

    Args:
        root: the folder of shards.
        manifest: its manifest.
        pairs: that are held out.
        batch: B, pairs in a batch, or all of them if they are fewer.
        seed: of the order of the pairs.
        loss: of the training.
        marginals: modalities whose normaliser is exact.
        bf16: whether the encoders compute in bfloat16.
        workers: of the training; a worker holds its own batches.
        device: of this worker.

    Raises:
        DamagedDataError: a shard differs from its manifest.
    """

    def __init__(
        self,
        root: Place,
        manifest: Manifest,
        pairs: HeldOut,
        batch: int,
        seed: int,
        loss: Loss,
        *,
        marginals: Sequence[Marginal] = (),
        bf16: bool = False,
        workers: Workers | None = None,
        device: torch.device | None = None,
    ) -> None:
        self.loss, self.marginals, self.bf16 = loss, marginals, bf16
        self.names = loss.names if isinstance(loss, ModelLoss) else ("u", "v")
        self.workers, self.device = workers or OneWorker(), device or torch.device("cpu")
        numbers = pairs.batches(batch, seed)
        self.num_batches = len(numbers)
        self.own = range(self.workers.worker_rank, self.num_batches, self.workers.num_workers)
        self.rows = numbers[self.own.start :: self.own.step]
        chosen, places = np.unique(self.rows, return_inverse=True)
        self.places = torch.from_numpy(places.reshape(self.rows.shape))
        self.items = pairs_at(root, manifest, pairs.split, chosen, self.names)

    def __call__(self, model: PairModel) -> Scalars:
        """Return ``validation/loss``, and how long it took, milliseconds; no loss where it is not finite.

        The same on every worker, all of which must call it.
        """
        began = time.perf_counter()
        losses = torch.zeros(self.num_batches, dtype=torch.float64, device=self.device)
        with evaluating(model):
            for number, places in zip(self.own, self.places, strict=True):
                batch = [self.items[name][places].to(self.device) for name in self.names]
                losses[number] = batch_loss(model, batch, self.loss, self.marginals, self.bf16, number)
        of_batches = sum_over_workers(losses, self.workers).tolist()
        found = {"validation/ms": 1e3 * (time.perf_counter() - began)}
        if not of_batches or not all(map(math.isfinite, of_batches)):
            return found
        return found | {HELD_OUT_LOSS: math.fsum(of_batches) / len(of_batches)}
