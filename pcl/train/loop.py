"""The training loop: read it top to bottom. It knows nothing of Ray and runs wherever torch runs."""

__all__ = ["Augmentation", "Optimisation", "TrainingState", "learning_rate_factor", "make_optimizer", "train"]

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from pcl.losses import NotFiniteError
from pcl.model import PairModel
from pcl.objective import FiniteModality, Loss
from pcl.tilting import feature_maps
from pcl.train.clock import Clock
from pcl.train.collectives import average_gradients, mean_over_workers
from pcl.workers import Workers

Scalars = dict[str, float]
Augmentation = Callable[[Tensor, Tensor, int, Workers], tuple[Tensor, Tensor]]
"""Returns this worker's u and v augmented: a pure function of them, the step and the workers."""


@dataclass(frozen=True)
class Optimisation:
    """How a model is optimised.

    Attributes:
        num_steps: steps in all.
        learning_rate: of Adam, at its peak.
        weight_decay: decoupled, per unit of learning rate.
        warmup_steps: steps of linear warm-up.
        schedule: ``cosine`` down to ``final_factor``, or ``constant``.
        final_factor: last learning rate over the peak.
        gradient_clip: largest norm of the mean gradient, 0 for none.
        bf16: autocast the encoders to bfloat16.
        seed: of every random number that a step draws.
    """

    num_steps: int
    learning_rate: float
    weight_decay: float = 0.0
    warmup_steps: int = 0
    schedule: str = "cosine"
    final_factor: float = 0.0
    gradient_clip: float = 0.0
    bf16: bool = False
    seed: int = 0


@dataclass
class TrainingState:
    """What a step changes: the model, the optimiser's moments, and the number of steps done."""

    model: PairModel
    optimizer: torch.optim.Optimizer
    step: int = 0


def as_they_are(u: Tensor, v: Tensor, step: int, workers: Workers) -> tuple[Tensor, Tensor]:
    """Augment nothing."""
    return u, v


def make_optimizer(model: PairModel, optimisation: Optimisation) -> torch.optim.Optimizer:
    """Return Adam with decoupled weight decay on matrices; biases and the temperature do not decay."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    return torch.optim.AdamW(
        [
            {"params": [p for p in parameters if p.ndim >= 2], "weight_decay": optimisation.weight_decay},
            {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
        ],
        lr=optimisation.learning_rate,
    )


def learning_rate_factor(step: int, optimisation: Optimisation) -> float:
    """Return the learning rate of a step over its peak: linear warm-up, then the schedule.

    Example:
        >>> o = Optimisation(num_steps=10, learning_rate=1.0, warmup_steps=2, final_factor=0.1)
        >>> [round(learning_rate_factor(s, o), 2) for s in (0, 1, 2, 6, 10)]
        [0.5, 1.0, 1.0, 0.55, 0.1]
    """
    if step < optimisation.warmup_steps:
        return (step + 1) / optimisation.warmup_steps
    if optimisation.schedule == "constant":
        return 1.0
    progress = (step - optimisation.warmup_steps) / max(1, optimisation.num_steps - optimisation.warmup_steps)
    cosine = (1 + math.cos(math.pi * min(1.0, progress))) / 2
    return optimisation.final_factor + (1 - optimisation.final_factor) * cosine


def _seed(device: torch.device, seed: int) -> None:
    """Seed this device's generator; torch.manual_seed would queue a call for CUDA at every step without a GPU."""
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        torch.cuda.manual_seed(seed)


def _on(device: torch.device, batch: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    return batch[0].to(device, non_blocking=True), batch[1].to(device, non_blocking=True)


def _features(model: PairModel, u: Tensor, v: Tensor, *, bf16: bool) -> tuple[Tensor, Tensor]:
    """Return feature maps: encoders in bf16 if asked, all that follows always in the model's own precision."""
    with torch.autocast(u.device.type, torch.bfloat16, enabled=bf16):
        embedding_u, embedding_v = model.encoder_u(u), model.encoder_v(v)
    dtype = model.temperature.log_temperature.dtype
    return feature_maps(embedding_u.to(dtype), embedding_v.to(dtype), model.tilting)


def train_step(
    state: TrainingState,
    batch: tuple[Tensor, Tensor],
    loss: Loss,
    optimisation: Optimisation,
    workers: Workers,
    finite: Sequence[FiniteModality] = (),
    clock: Clock | None = None,
    stop: bool = False,
    augment: Augmentation = as_they_are,
) -> dict[str, Tensor]:
    """Do one step on this worker's share of a global batch, and return its diagnostics.

    Among them is ``stop``: whether any worker was told to stop.
    """
    clock = clock or Clock()
    model, optimizer = state.model, state.optimizer
    device = model.temperature.log_temperature.device
    # every random number of a step (dropout, say) follows from the seed, the step and the worker: nothing to save
    _seed(device, hash((optimisation.seed, state.step, workers.worker_rank)) & (2**63 - 1))

    with clock.part("forward"):
        u, v = augment(*_on(device, batch), state.step, workers)
        features_u, features_v = _features(model, u, v, bf16=optimisation.bf16)
        atoms = dict(part.atoms(model.features_u, model.features_v, device) for part in finite)
    with clock.part("loss"):
        value, diagnostics = loss(features_u, features_v, model.temperature(), workers=workers, values=(u, v), **atoms)

    # the mean of the workers' gradients is the gradient of the loss on the global batch
    with clock.part("backward"):
        optimizer.zero_grad(set_to_none=True)
        value.backward()  # type: ignore[no-untyped-call]
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    with clock.part("average"):
        anybody_stops = average_gradients(parameters, workers, stop)

    with clock.part("update"):
        norm = torch.nn.utils.clip_grad_norm_(parameters, optimisation.gradient_clip or math.inf)
        for group in optimizer.param_groups:
            group["lr"] = optimisation.learning_rate * learning_rate_factor(state.step, optimisation)
        optimizer.step()
        model.temperature.project_()
    state.step += 1
    return diagnostics | {"gradient_norm": norm, "stop": anybody_stops}


def train(
    state: TrainingState,
    batches: Iterable[tuple[Tensor, Tensor]],
    loss: Loss,
    optimisation: Optimisation,
    *,
    workers: Workers,
    global_batch: int,
    log_every: int,
    checkpoint_every: int,
    log: Callable[[int, Scalars], None],
    report: Callable[[TrainingState, Scalars], None],
    stop: Callable[[], bool] = lambda: False,
    finite: Sequence[FiniteModality] = (),
    clock: Clock | None = None,
    augment: Augmentation = as_they_are,
) -> Scalars:
    """Train from ``state.step`` to ``optimisation.num_steps``, or until some worker is told to stop.

    Args:
        state: changed in place.
        batches: this worker's batches from ``state.step`` on.
        loss: of feature maps, see ``pcl.objective``.
        optimisation: how.
        workers: of the training.
        global_batch: B, for the pairs per second.
        log_every: steps between two calls of ``log``.
        checkpoint_every: steps between two calls of ``report``; the last step, whichever it is, is always reported.
        log: receives the step and its scalars, means over workers, on every worker.
        report: receives the state and the last scalars; called equally often on every worker.
        stop: returns whether this worker is told to stop; all of them stop after the same step.
        finite: modalities whose normaliser is exact.
        clock: of the steps; the workers' own, so that it knows of their collectives.
        augment: what encoders and loss see instead of the pairs.

    Returns:
        The last scalars.

    Raises:
        FloatingPointError: the loss is not finite.
    """
    scalars: Scalars = {}
    clock = clock or Clock(state.model.temperature.log_temperature.device)
    pace, is_last, stream = _Pace(clock.now, clock.now(), state.step), False, iter(batches)
    while state.step < optimisation.num_steps and not is_last:
        step = state.step + 1
        is_checkpoint = step == optimisation.num_steps or step % checkpoint_every == 0
        clock.begin_step(is_logged=is_checkpoint or step % log_every == 0)
        with clock.part("data"):
            batch = next(stream)
        try:
            diagnostics = train_step(state, batch, loss, optimisation, workers, finite, clock, stop(), augment)
        except NotFiniteError as error:
            raise FloatingPointError(f"step {step}: {error}") from error
        is_checkpoint |= (is_last := bool(diagnostics.pop("stop")))
        if is_checkpoint or step % log_every == 0:
            measured = clock.take() | pace.take(step, global_batch)
            scalars = _means(diagnostics, measured, state, workers)
            log(step, scalars)
        if is_checkpoint:
            began = clock.now()
            report(state, scalars)
            pace.stood_still_s = clock.now() - began
    return scalars


@dataclass
class _Pace:
    """The speed of the steps by the clock: whatever happened since the last point, checkpoints too, is part of it."""

    now: Callable[[], float]
    last_time: float
    last_step: int
    stood_still_s: float = 0.0

    def take(self, step: int, global_batch: int) -> Scalars:
        """Return pairs per second since the last point, and how long a checkpoint stopped the steps."""
        now = self.now()
        scalars = {
            "pairs_per_second": (step - self.last_step) * global_batch / (now - self.last_time),
            "checkpoint_ms": 1e3 * self.stood_still_s,
        }
        self.last_time, self.last_step, self.stood_still_s = now, step, 0.0
        return scalars


def _means(diagnostics: dict[str, Tensor], measured: Scalars, state: TrainingState, workers: Workers) -> Scalars:
    """Return what is logged of a step: means over the workers."""
    device = state.model.temperature.log_temperature.device
    numbers = {name: torch.tensor(value, dtype=torch.float64, device=device) for name, value in measured.items()}
    learning_rate = {"learning_rate": state.optimizer.param_groups[0]["lr"]}
    return mean_over_workers(diagnostics | numbers, workers) | learning_rate
