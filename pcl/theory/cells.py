"""One cell of a theory check: encoders trained on Gaussian samples, compared with the best ones of their rank.

Shapes: n = dim u, m = dim v, E embedding, N pairs.
"""

__all__ = [
    "Cell",
    "bandwidths",
    "best_encoders",
    "fit_encoders",
    "fit_model",
    "minimised",
    "population_value",
    "run_cell",
]

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import cycle
from typing import Any

import torch
from torch import Tensor

from pcl.encoders.build import ModelSpec, build_model
from pcl.encoders.potential import potentials_of
from pcl.gaussian import (
    DIRECTIONS,
    AffineMap,
    GaussianPair,
    ImproperModelError,
    minimise_encoders,
    model_conditionals,
    optimal_encoders,
    plug_in,
    population_loss,
    population_mmd,
    relative_error,
)
from pcl.gaussian.reading import read_encoders
from pcl.kernels import gaussian_kernel
from pcl.losses import Diagnostics
from pcl.model import PairModel
from pcl.objective import LOSSES, Loss, make_loss
from pcl.train.loop import Optimisation, TrainingState, make_optimizer, train
from pcl.workers import OneWorker

INPUTS = ("raw", "standardised", "white")

TensorPair = tuple[Tensor, Tensor]
Encoders = tuple[Tensor, ...]  # G and H, and Q and R of potentials


@dataclass(frozen=True)
class Cell:
    """Settings of one comparison.

    Attributes:
        loss: one of ``pcl.objective.LOSSES``; the MMD losses with Gaussian kernels of ``bandwidths``.
        weights: (lambda_u, lambda_v) of the conditional losses.
        tilting: ``inner_product``, ``squared_distance`` or ``potentials``; what trains alone may be ``cosine``.
        embedding_dim: E.
        num_pairs: N.
        global_batch: B.
        num_steps: of Adam.
        learning_rate: at its peak.
        schedule: ``cosine`` or ``constant``.
        weight_decay: decoupled.
        inputs: ``raw``; ``standardised``, of mean 0 and standard deviation 1 on the samples; or ``white`` on them.
        num_shares: normalise over a share B / num_shares of the batch: what workers do that do not gather negatives.
        learned_temperature: learn tau; it is 1 otherwise.
        seed: of samples, first weights and batches.
    """

    loss: str = "conditional"
    weights: tuple[float, float] = (1.0, 1.0)
    tilting: str = "inner_product"
    embedding_dim: int = 5
    num_pairs: int = 10_000
    global_batch: int = 512
    num_steps: int = 1000
    learning_rate: float = 0.03
    schedule: str = "cosine"
    weight_decay: float = 0.0
    inputs: str = "standardised"
    num_shares: int = 1
    learned_temperature: bool = False
    seed: int = 0


def batches(u: Tensor, v: Tensor, global_batch: int, seed: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield batches without end, every pair at most once an epoch, each epoch in an order of its own."""
    generator = torch.Generator().manual_seed(seed)
    while True:
        order = torch.randperm(len(u), generator=generator)
        for start in range(0, len(u) - global_batch + 1, global_batch):
            chosen = order[start : start + global_batch]
            yield u[chosen], v[chosen]


def fit_model(cell: Cell, u: Tensor, v: Tensor, widths: tuple[float, float] = (1.0, 1.0)) -> PairModel:
    """Train linear encoders on samples, in single precision; ``standardised`` inputs are part of the encoders.

    Args:
        cell: the settings.
        u: samples, shape (N, n).
        v: their partners, shape (N, m).
        widths: bandwidths of the kernels of an MMD loss.

    Raises:
        ValueError: the batch is larger than N, or its shares are not equal.
    """
    if cell.global_batch > len(u):
        raise ValueError(f"a batch of {cell.global_batch} of {len(u)} pairs: choose at most as many")
    encoders: list[dict[str, Any]] = [{"kind": "linear", "shape": [part.shape[1]]} for part in (u, v)]
    if cell.inputs == "standardised":
        for encoder, part in zip(encoders, (u, v), strict=True):
            encoder |= {"mean": part.mean(0).tolist(), "std": part.std(0).tolist()}
    if cell.tilting == "potentials":
        for encoder, potential in zip(encoders, potentials_of(cell.loss, cell.weights), strict=True):
            encoder["potential"] = potential
    bounds = {"minimum": 0.01, "maximum": 100.0}
    spec: ModelSpec = {
        "embedding_dim": cell.embedding_dim,
        "encoder_u": encoders[0],
        "encoder_v": encoders[1],
        "tilting": cell.tilting,
        "temperature": {"initial": 1.0, "learned": cell.learned_temperature, **bounds},
        "dtype": "float32",
    }
    optimisation = Optimisation(
        num_steps=cell.num_steps,
        learning_rate=cell.learning_rate,
        schedule=cell.schedule,
        weight_decay=cell.weight_decay,
        seed=cell.seed,
    )
    model = build_model(spec, cell.seed)
    train(
        TrainingState(model, make_optimizer(model, optimisation)),
        batches(u.float(), v.float(), cell.global_batch, cell.seed),
        _loss(cell, widths),
        optimisation,
        workers=OneWorker(),
        global_batch=cell.global_batch,
        log_every=cell.num_steps,
        checkpoint_every=cell.num_steps,
        log=lambda step, scalars: None,
        report=lambda state, scalars: None,
    )
    return model


def fit_encoders(cell: Cell, u: Tensor, v: Tensor, widths: tuple[float, float] = (1.0, 1.0)) -> Encoders:
    """Train linear encoders and return G (E, n) and H (E, m) in the coordinates of the data, float64.

    With potentials Q (., n) and R (., m) follow.

    Args:
        cell: the settings.
        u: samples, shape (N, n).
        v: their partners, shape (N, m).
        widths: bandwidths of the kernels of an MMD loss.

    Raises:
        ValueError: see ``fit_model``; or the inputs are not known.
    """
    if cell.inputs not in INPUTS:
        raise ValueError(f"inputs {cell.inputs!r} are not known; choose one of {', '.join(INPUTS)}")
    if cell.inputs != "white":
        return linear_parts(fit_model(cell, u, v, widths), u.shape[1], v.shape[1])
    whiten_u, whiten_v = (torch.linalg.inv(torch.linalg.cholesky(torch.cov(part.T))) for part in (u, v))
    found = linear_parts(fit_model(cell, u @ whiten_u.T, v @ whiten_v.T, widths), u.shape[1], v.shape[1])
    return tuple(part @ whiten for part, whiten in zip(found, cycle((whiten_u, whiten_v)), strict=False))


def _loss(cell: Cell, widths: tuple[float, float]) -> Loss:
    k_u, k_v = map(gaussian_kernel, widths)
    whole = make_loss(cell.loss, cell.weights, kernels=(k_u, k_v) if LOSSES[cell.loss].needs_kernels else None)
    if cell.num_shares == 1:
        return whole
    if cell.global_batch % cell.num_shares:
        raise ValueError(f"{cell.num_shares} shares of a batch of {cell.global_batch} pairs: they must be equal")

    def mean_of_shares(*arguments: Tensor, values: TensorPair, **rest: Any) -> tuple[Tensor, Diagnostics]:
        *features, temperature = arguments
        shares = zip(*(part.chunk(cell.num_shares) for part in (*features, *values)), strict=True)
        found = [whole(phi_u, phi_v, temperature, values=(u, v), **rest) for phi_u, phi_v, u, v in shares]
        return torch.stack([value for value, _ in found]).mean(), found[0][1]

    return mean_of_shares


def linear_parts(model: PairModel, dim_u: int, dim_v: int) -> Encoders:
    """Return the matrices of affine encoders; the offsets of standardisation are those of centred data, near zero."""
    return tuple(part.matrix for part in read_encoders(model, (dim_u, dim_v)) or ())


def errors_of_means(encoders: Encoders, law: GaussianPair, tilting: str) -> dict[str, float]:
    """Return the relative squared errors of both conditional means under the true marginals."""
    models = model_conditionals(law, [AffineMap.linear(matrix) for matrix in encoders], tilting)
    return {direction: relative_error(models[direction][0], law, direction) for direction in DIRECTIONS}


def bandwidths(law: GaussianPair) -> tuple[float, float]:
    """Return the root mean squared distances of two u and of two v: near the median distances, and free of noise."""
    return math.sqrt(2 * law.c_uu.trace().item()), math.sqrt(2 * law.c_vv.trace().item())


def population_value(law: GaussianPair, encoders: Sequence[Tensor], cell: Cell) -> Tensor:
    """Return the population loss of a cell's kind as a divergence or squared discrepancy: 0 is perfect.

    Args:
        law: the law mu.
        encoders: G (E, n) and H (E, m), and Q (., n) and R (., m) of potentials.
        cell: its loss, tilting and weights.
    """
    g, h, *potentials = encoders
    if cell.loss.endswith("mmd"):
        return population_mmd(law, g, h, cell.loss, cell.tilting, cell.weights, bandwidths(law), potentials)
    return population_loss(law, g, h, cell.loss, cell.tilting, cell.weights, potentials)


def minimised(law: GaussianPair, cell: Cell, **options: Any) -> tuple[Encoders, float]:
    """Return the encoders of a cell's rank that direct minimisation finds, and their population loss.

    Args:
        law: the law mu.
        cell: its loss, tilting, weights and E.
        options: of ``minimise_encoders``.
    """
    rank = min(cell.embedding_dim, *law.cross.shape)
    *encoders, value = minimise_encoders(
        lambda *encoders: population_value(law, encoders, cell),
        law,
        rank,
        potential_dim=rank if cell.tilting == "potentials" else 0,
        **options,
    )
    return tuple(encoders), value


def best_encoders(law: GaussianPair, cell: Cell) -> Encoders:
    """Return the best encoders of a cell's rank: in closed form, or by direct minimisation of an MMD loss.

    Args:
        law: the law mu.
        cell: its loss, tilting, weights and E; a rank beyond min(n, m) has nothing left to encode.
    """
    if cell.loss.endswith("mmd"):
        return minimised(law, cell)[0]
    rank = min(cell.embedding_dim, *law.cross.shape)
    return optimal_encoders(law, rank, cell.loss, cell.tilting, cell.weights)


def run_cell(law: GaussianPair, cell: Cell) -> dict[str, Any]:
    r"""Train, and compare with the best encoders and with the plug-in estimator on the same pairs.

    Args:
        law: of the samples.
        cell: the settings.

    Returns:
        For each of ``learned``, ``plug_in`` and ``best``: ``<name>_loss``, the population loss as a divergence,
        ``<name>_error_<direction>``, the relative squared errors of the conditional means, and ``<name>_encoders``,
        G and H (and Q and R) as nested lists. ``<name>_loss`` is infinite where the joint model is improper.

    Raises:
        ValueError: the batch is larger than N, or the loss or tilting has no population form.

    References:
        arXiv:2505.24134, sections 5 and 6.1.
    """
    u, v = law.sample(cell.num_pairs, torch.Generator().manual_seed(cell.seed))
    encoders = {
        "learned": fit_encoders(cell, u, v, bandwidths(law)),
        "plug_in": best_encoders(plug_in(u, v), cell),
        "best": best_encoders(law, cell),
    }
    result: dict[str, Any] = {}
    for name, matrices in encoders.items():
        try:
            result[f"{name}_loss"] = population_value(law, matrices, cell).item()
        except ImproperModelError:
            result[f"{name}_loss"] = math.inf
        errors = errors_of_means(matrices, law, cell.tilting)
        result |= {f"{name}_error_{direction}": error for direction, error in errors.items()}
        result[f"{name}_encoders"] = [matrix.tolist() for matrix in matrices]
    return result
