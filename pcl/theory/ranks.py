"""Are the conditionals of Gaussian encoders calibrated where theory says that they are exact?"""

__all__ = ["exact_directions", "run_calibration"]

from typing import Any

import torch

from pcl.evaluation.calibration import Calibration, calibration_ranks, gaussian_samples
from pcl.gaussian import AffineMap, GaussianPair, model_conditional
from pcl.theory.cells import Cell, best_encoders, fit_encoders

NUM_PAIRS, NUM_DRAWS = 2000, 99


def exact_directions(cell: Cell) -> tuple[str, ...]:
    """Return the directions whose whole conditional the best encoders of full rank give (Corollary 5.4)."""
    exact = {(True, False): ("u_given_v",), (False, True): ("v_given_u",)}
    if cell.loss != "conditional" or cell.tilting != "squared_distance":
        return ()
    return exact.get((cell.weights[0] > 0, cell.weights[1] > 0), ())


def run_calibration(law: GaussianPair, cell: Cell) -> dict[str, Any]:
    """Rank the truths of pairs that training has not seen among draws from the model's conditionals.

    Args:
        law: of the pairs.
        cell: how to train.

    Returns:
        For ``best`` and ``learned`` encoders and each direction: ``<name>_<direction>``, the metrics of
        ``Calibration`` with its ``ranks``.
    """
    generator = torch.Generator().manual_seed(cell.seed)
    learned = fit_encoders(cell, *law.sample(cell.num_pairs, generator))
    encoders = {"best": best_encoders(law, cell), "learned": learned}
    pairs = law.sample(NUM_PAIRS, generator)
    result: dict[str, Any] = {}
    for name, matrices in encoders.items():
        g, h = (AffineMap(matrix, torch.zeros(len(matrix), dtype=torch.float64)) for matrix in matrices)
        for direction, (own, other), prior, (truths, given) in (
            ("u_given_v", (g, h), law.c_uu, pairs),
            ("v_given_u", (h, g), law.c_vv, pairs[::-1]),
        ):
            mean, covariance = model_conditional(own, other, prior, cell.tilting)
            draws = gaussian_samples(mean, covariance, given, NUM_DRAWS, generator)
            found = Calibration(calibration_ranks(draws, truths, generator), NUM_DRAWS)
            result[f"{name}_{direction}"] = found.metrics("ranks") | {"ranks": found.ranks.tolist()}
    return result
