"""The training loop: read it top to bottom. It knows nothing of Ray and runs wherever torch runs."""

__all__ = [
    "Optimisation",
    "Scalars",
    "TrainingState",
    "learning_rate_factor",
    "make_optimizer",
    "train",
]

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from pcl.losses import NotFiniteError
from pcl.marginals import Marginal
from pcl.model import PairModel
from pcl.objective import Loss
from pcl.train.adamw import AdamW
from pcl.train.averaging import GradientAverage
from pcl.train.clock import Clock
from pcl.train.collectives import mean_over_workers
from pcl.train.gradient import Augmentation, Encoders, Step, as_they_are
from pcl.workers import Workers

Scalars = dict[str, float]


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
        chunk_pairs: pairs of a worker that are encoded at a time with a graph, 0 for all; it changes no gradient.
        v_first: encode v first, and gather its features while u is encoded (``pcl.train.ahead``).
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
    chunk_pairs: int = 0
    v_first: bool = False


@dataclass
class TrainingState:
    """What a step changes: the model, the optimiser's moments, and the number of steps done.

    Attributes:
        model: that learns.
        optimizer: of its parameters.
        step: steps done.
        encoders: what a step runs instead of the model's own, with the same parameters; None: these.
    """

    model: PairModel
    optimizer: torch.optim.Optimizer
    step: int = 0
    encoders: Encoders | None = None


def make_optimizer(model: PairModel, optimisation: Optimisation) -> torch.optim.Optimizer:
    """Return Adam with decoupled weight decay on matrices; biases and the temperature do not decay."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    return AdamW(
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


def _parameters(model: PairModel, optimisation: Optimisation) -> list[nn.Parameter]:
    """Return the parameters in the order of the forward pass."""
    parameters = list(model.parameters())
    of_u = set(model.encoder_u.parameters()) if optimisation.v_first else ()
    return sorted(parameters, key=lambda parameter: parameter in of_u)


def train_step(
    state: TrainingState,
    batch: Sequence[Tensor],
    loss: Loss,
    optimisation: Optimisation,
    workers: Workers,
    marginals: Sequence[Marginal] = (),
    clock: Clock | None = None,
    stop: bool = False,
    augment: Augmentation = as_they_are,
    averaging: GradientAverage | None = None,
) -> dict[str, Tensor]:
    """Do one step on this worker's share of a global batch, and return its diagnostics.

    Among them is ``stop``: whether any worker was told to stop.
    """
    clock = clock or Clock()
    model, optimizer = state.model, state.optimizer
    averaging = averaging or GradientAverage(_parameters(model, optimisation), workers)
    step = Step(
        model,
        state.step,
        loss,
        workers,
        clock,
        marginals,
        augment,
        state.encoders,
        optimisation.bf16,
        optimisation.seed,
        optimisation.chunk_pairs,
        optimisation.v_first,
    )
    with clock.part("backward"):
        optimizer.zero_grad(set_to_none=True)
    diagnostics = step.backward(batch, averaging.begin)

    # the mean of the workers' gradients is the gradient of the loss on the global batch
    with clock.part("average"):
        anybody_stops = averaging.finish(stop)

    parameters = [p for group in optimizer.param_groups for p in group["params"]]
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
    batches: Iterable[Sequence[Tensor]],
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
    marginals: Sequence[Marginal] = (),
    clock: Clock | None = None,
    augment: Augmentation = as_they_are,
    validate: Callable[[PairModel], Scalars] | None = None,
    is_validated: Callable[[int], bool] = lambda step: False,
) -> Scalars:
    """Train from ``state.step`` to ``optimisation.num_steps``, or until some worker is told to stop.

    Args:
        state: changed in place.
        batches: this worker's batches from ``state.step`` on.
        loss: of feature maps or of the model, see ``pcl.objective``.
        optimisation: how.
        workers: of the training.
        global_batch: B, for the pairs per second.
        log_every: steps between two calls of ``log``.
        checkpoint_every: steps between two calls of ``report``; the last step, whichever it is, is always reported.
        log: receives the step and its scalars, means over workers, on every worker.
        report: receives the state and the last scalars; called equally often on every worker.
        stop: returns whether this worker is told to stop; all of them stop after the same step.
        marginals: modalities whose normaliser is exact.
        clock: of the steps; the workers' own, so that it knows of their collectives.
        augment: what encoders and loss see instead of the pairs.
        validate: returns scalars of the model on pairs that are held out; called on every worker.
        is_validated: whether it is called after a step; its scalars are logged.

    Returns:
        The last scalars.

    Raises:
        FloatingPointError: the loss is not finite.
    """
    scalars, clock = Scalars(), clock or Clock(state.model.temperature.log_temperature.device)
    averaging = GradientAverage(_parameters(state.model, optimisation), workers)
    pace, is_last, stream = _Pace(clock.now, clock.now(), state.step), False, iter(batches)
    while state.step < optimisation.num_steps and not is_last:
        step = state.step + 1
        is_checkpoint = step == optimisation.num_steps or step % checkpoint_every == 0
        is_judged = validate is not None and is_validated(step)
        is_logged = is_checkpoint or is_judged or step % log_every == 0
        clock.begin_step(is_logged)
        with clock.part("data"):
            batch = next(stream)
        with _at(step):
            diagnostics = train_step(
                state, batch, loss, optimisation, workers, marginals, clock, stop(), augment, averaging
            )
        is_checkpoint |= (is_last := bool(diagnostics.pop("stop")))
        if is_checkpoint or is_logged:
            judged = validate(state.model) if validate is not None and is_judged else {}
            scalars = _means(diagnostics, clock.take() | pace.take(step, global_batch), state, workers) | judged
            log(step, scalars)
        if is_checkpoint:
            with pace.standing_still():
                report(state, scalars)
    return scalars


@contextmanager
def _at(step: int) -> Iterator[None]:
    """Say at which step a loss is not finite."""
    try:
        yield
    except NotFiniteError as error:
        raise FloatingPointError(f"step {step}: {error}") from error


@dataclass
class _Pace:
    """The speed of the steps by the clock: whatever happened since the last point, checkpoints too, is part of it."""

    now: Callable[[], float]
    last_time: float
    last_step: int
    stood_still_s: float = 0.0

    @contextmanager
    def standing_still(self) -> Iterator[None]:
        """Measure how long the steps are stopped."""
        began = self.now()
        yield
        self.stood_still_s = self.now() - began

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
