"""One cell of a theory check: encoders trained on Gaussian samples, compared with their closed form.

Shapes: n = dim u, m = dim v, E embedding, N pairs.
"""

__all__ = ["Cell", "fit_encoders", "run_cell"]

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from pcl.gaussian import (
    DIRECTIONS,
    AffineMap,
    GaussianPair,
    model_conditional,
    optimal_encoders,
    plug_in,
    population_loss,
    relative_error,
)
from pcl.model import ModelSpec, PairModel, build_model
from pcl.objective import make_loss
from pcl.train.loop import Optimisation, TrainingState, make_optimizer, train
from pcl.workers import OneWorker

Encoders = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class Cell:
    """Settings of one comparison.

    Attributes:
        loss: ``conditional`` or ``joint``.
        weights: (lambda_u, lambda_v) of the conditional loss.
        tilting: ``inner_product`` or ``squared_distance``.
        embedding_dim: E.
        num_pairs: N.
        global_batch: B.
        num_steps: of Adam.
        learning_rate: at its peak.
        schedule: ``cosine`` or ``constant``.
        weight_decay: decoupled.
        standardise: subtract the mean of the samples and divide by their standard deviation.
        seed: of samples, first weights and batches.
    """

    loss: str = "conditional"
    weights: tuple[float, float] = (1.0, 1.0)
    tilting: str = "inner_product"
    embedding_dim: int = 5
    num_pairs: int = 10_000
    global_batch: int = 2048
    num_steps: int = 400
    learning_rate: float = 0.01
    schedule: str = "cosine"
    weight_decay: float = 0.0
    standardise: bool = True
    seed: int = 0


def batches(u: Tensor, v: Tensor, global_batch: int, seed: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield batches without end, every pair at most once an epoch, each epoch in an order of its own."""
    generator = torch.Generator().manual_seed(seed)
    while True:
        order = torch.randperm(len(u), generator=generator)
        for start in range(0, len(u) - global_batch + 1, global_batch):
            chosen = order[start : start + global_batch]
            yield u[chosen], v[chosen]


def fit_encoders(cell: Cell, u: Tensor, v: Tensor) -> Encoders:
    """Train linear encoders on samples and return G (E, n) and H (E, m) in the coordinates of the data, float64.

    Args:
        cell: the settings.
        u: samples, shape (N, n).
        v: their partners, shape (N, m).

    Raises:
        ValueError: the batch is larger than N.
    """
    if cell.global_batch > len(u):
        raise ValueError(f"a batch of {cell.global_batch} of {len(u)} pairs: choose at most as many")
    encoders = [{"kind": "linear", "shape": [part.shape[1]]} for part in (u, v)]
    if cell.standardise:
        for encoder, part in zip(encoders, (u, v), strict=True):
            encoder |= {"mean": part.mean(0).tolist(), "std": part.std(0).tolist()}
    spec: ModelSpec = {
        "embedding_dim": cell.embedding_dim,
        "encoder_u": encoders[0],
        "encoder_v": encoders[1],
        "tilting": cell.tilting,
        "temperature": {"initial": 1.0, "learned": False, "minimum": 1.0, "maximum": 1.0},
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
        make_loss(cell.loss, cell.weights),
        optimisation,
        workers=OneWorker(),
        global_batch=cell.global_batch,
        log_every=cell.num_steps,
        checkpoint_every=cell.num_steps,
        log=lambda step, scalars: None,
        report=lambda state, scalars: None,
    )
    return linear_parts(model, u.shape[1], v.shape[1])


@torch.no_grad()
def linear_parts(model: PairModel, dim_u: int, dim_v: int) -> Encoders:
    """Return the matrices of affine encoders; the offsets of standardisation are those of centred data, near zero."""
    model = model.double()
    parts = []
    for encode, dim in ((model.encode_u, dim_u), (model.encode_v, dim_v)):
        offset = encode(torch.zeros(1, dim, dtype=torch.float64))
        parts.append((encode(torch.eye(dim, dtype=torch.float64)) - offset).T)
    return parts[0], parts[1]


def errors_of_means(encoders: Encoders, law: GaussianPair, tilting: str) -> dict[str, float]:
    """Return the relative squared errors of both conditional means under the true marginals."""
    zero = torch.zeros(len(encoders[0]), dtype=torch.float64)
    g, h = (AffineMap(matrix, zero) for matrix in encoders)
    means = {
        "u_given_v": model_conditional(g, h, law.c_uu, tilting)[0],
        "v_given_u": model_conditional(h, g, law.c_vv, tilting)[0],
    }
    return {direction: relative_error(means[direction], law, direction) for direction in DIRECTIONS}


def run_cell(law: GaussianPair, cell: Cell) -> dict[str, float]:
    r"""Train, and compare with the closed form and with the plug-in estimator on the same pairs.

    Args:
        law: of the samples.
        cell: the settings.

    Returns:
        For each of ``learned``, ``plug_in`` and ``closed_form``: ``<name>_loss``, the population loss as a divergence,
        and ``<name>_error_<direction>``, the relative squared errors of the conditional means.

    Raises:
        ValueError: the batch is larger than N, or the loss or tilting has no closed form.

    References:
        arXiv:2505.24134, sections 5 and 6.1.
    """
    u, v = law.sample(cell.num_pairs, torch.Generator().manual_seed(cell.seed))
    rank = min(cell.embedding_dim, len(law.c_uu), len(law.c_vv))
    encoders = {
        "learned": fit_encoders(cell, u, v),
        "plug_in": optimal_encoders(plug_in(u, v), rank, cell.loss, cell.tilting, cell.weights),
        "closed_form": optimal_encoders(law, rank, cell.loss, cell.tilting, cell.weights),
    }
    result = {}
    for name, (g, h) in encoders.items():
        result[f"{name}_loss"] = population_loss(law, g, h, cell.loss, cell.tilting, cell.weights).item()
        errors = errors_of_means((g, h), law, cell.tilting)
        result |= {f"{name}_error_{direction}": error for direction, error in errors.items()}
    return result
