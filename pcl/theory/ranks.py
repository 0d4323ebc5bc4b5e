"""Are the conditionals of Gaussian encoders calibrated where theory says that they are exact?"""

__all__ = ["exact_directions", "run_calibration"]

from collections.abc import Iterator
from typing import Any

import torch

from pcl.evaluation.calibration import Calibration, calibrate, calibration_ranks, gaussian_samples
from pcl.gaussian import DIRECTIONS, AffineMap, GaussianPair, model_conditionals
from pcl.theory.cells import Cell, Encoders, TensorPair, best_encoders, fit_encoders, fit_model

NUM_PAIRS, NUM_DRAWS = 2000, 99
NUM_REFERENCES = 20_000  # of conditionals that have no closed form


def exact_directions(cell: Cell) -> tuple[str, ...]:
    """Return the directions whose whole conditional the best encoders of full rank give (Corollary 5.4, THEORY 5.3)."""
    weights = cell.weights if cell.loss.startswith("conditional") else (1.0, 1.0)
    seen = tuple(direction for direction, weight in zip(DIRECTIONS, weights, strict=True) if weight > 0)
    if cell.tilting == "potentials":
        return seen
    return seen if cell.tilting == "squared_distance" and len(seen) == 1 else ()


def run_calibration(law: GaussianPair, cell: Cell) -> dict[str, Any]:
    """Rank the truths of pairs that training has not seen among draws from the model's conditionals.

    Draws are from Gaussians, but for the cosine tilting, whose conditionals are not: those are drawn from references.

    Args:
        law: of the pairs.
        cell: how to train.

    Returns:
        For ``best`` and ``learned`` encoders and each direction: ``<name>_<direction>``, the metrics of
        ``Calibration`` with its ``ranks``; of the cosine tilting nothing is known to be ``best``.
    """
    generator = torch.Generator().manual_seed(cell.seed)
    samples = law.sample(cell.num_pairs, generator)
    if cell.tilting == "cosine":
        model = fit_model(cell, *samples)
        pairs, references = law.sample(NUM_PAIRS, generator), law.sample(NUM_REFERENCES, generator)
        found = {
            f"learned_{direction}": calibrate(model, direction, *pairs, items, NUM_DRAWS, generator)
            for direction, items in zip(DIRECTIONS, references, strict=True)
        }
    else:
        encoders = {"best": best_encoders(law, cell), "learned": fit_encoders(cell, *samples)}
        pairs = law.sample(NUM_PAIRS, generator)
        found = {
            f"{name}_{direction}": calibration
            for name, matrices in encoders.items()
            for direction, calibration in _of_gaussians(law, matrices, cell.tilting, pairs, generator)
        }
    return {name: one.metrics("ranks") | {"ranks": one.ranks.tolist()} for name, one in found.items()}


def _of_gaussians(
    law: GaussianPair, matrices: Encoders, tilting: str, pairs: TensorPair, generator: torch.Generator
) -> Iterator[tuple[str, Calibration]]:
    models = model_conditionals(law, [AffineMap.linear(matrix) for matrix in matrices], tilting)
    for direction, (truths, given) in zip(DIRECTIONS, (pairs, pairs[::-1]), strict=True):
        draws = gaussian_samples(*models[direction], given, NUM_DRAWS, generator)
        yield direction, Calibration(calibration_ranks(draws, truths, generator), NUM_DRAWS)
