"""Scores of estimates on drifters that they do not know: each is left out in turn.

A measured velocity is predicted with the spread of the estimate and the error of the measurement.

Shapes: n measurements of a drifter that is left out.
"""

__all__ = ["METHODS", "NOT_FITTED", "OURS", "Judged", "leave_out"]

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from pcl.problems.ocean.evaluation.significance import Difference, difference
from pcl.problems.ocean.prior.measurements import Measurements
from pcl.problems.ocean.reconstruct.laws import ClimatologyLaw, Law
from pcl.problems.ocean.reconstruct.model import Model

OURS, NOT_FITTED = "this reconstruction", "the same prior, not fitted to the tracks"
INTERPOLATION, CLIMATOLOGY = "optimal interpolation", "climatology"
METHODS = (OURS, NOT_FITTED, INTERPOLATION, CLIMATOLOGY)
INTERVALS = 50, 90  # %, central


@dataclass(frozen=True, eq=False)
class Judged:
    """Errors of methods on drifters that were left out.

    Attributes:
        names: of these drifters.
        drifter: its number among them of every measurement, shape (n,).
        square: squared errors by method, mean of both components, m^2 s^-2, shape (n,).
        crps: likewise, m/s.
        place: of the truth in what was said of it, 0 to 1, shape (2, n).
    """

    names: Sequence[str]
    drifter: Tensor
    square: dict[str, Tensor]
    crps: dict[str, Tensor]
    place: dict[str, Tensor]

    def scores(self, method: str, of: Tensor | None = None) -> dict[str, float]:
        """Return RMSE and CRPS, m/s, and the coverage of the intervals of 50 and 90 %, of all or some measurements."""
        some = slice(None) if of is None else of
        off_middle = (self.place[method][:, some] - 0.5).abs()
        return {
            "rmse_m_s": float(self.square[method][some].mean().sqrt()),
            "crps_m_s": float(self.crps[method][some].mean()),
            **{f"coverage_{p}": float((off_middle <= p / 200).double().mean()) for p in INTERVALS},
        }

    def against(self, other: str) -> Difference:
        """Return the difference of our CRPS and that of another method: drifters are the blocks."""
        first, second = (
            torch.stack([self.crps[method], torch.ones_like(self.crps[method])], 1) for method in (OURS, other)
        )
        return difference(first, second, self.drifter)


def leave_out(model: Model, measurements: Measurements, drifter: np.ndarray, most: int) -> Judged:
    """Judge methods on drifters that each is estimated without.

    Args:
        model: of the reconstruction.
        measurements: of all drifters.
        drifter: name of each, shape (n,).
        most: drifters to leave out: the others, if there are more, are known throughout.
    """
    every = np.unique(drifter)
    names = [str(name) for name in every[np.unique(np.linspace(0, len(every) - 1, min(most, len(every))).astype(int))]]
    rows = [_of_one(model, measurements, torch.from_numpy(drifter == name)) for name in names]
    numbers = torch.cat([torch.full((len(row[OURS][0]),), i) for i, row in enumerate(rows)])

    def joined(part: int) -> dict[str, Tensor]:
        return {method: torch.cat([row[method][part] for row in rows], -1) for method in METHODS}

    return Judged(names, numbers, *(joined(part) for part in range(3)))


@torch.no_grad()
def _of_one(model: Model, measurements: Measurements, out: Tensor) -> dict[str, tuple[Tensor, Tensor, Tensor]]:
    """Return squared errors, CRPS and places of the truth by every method on the measurements that are left out."""
    known, hidden = measurements[~out], measurements[out]
    own = model.without(known)
    plain = own.interpolated(known)
    climatology = own.flat(known)
    laws: Iterable[tuple[str, Law, Tensor | float]] = (
        (OURS, own.law(known), own.error_variance(hidden)),
        (NOT_FITTED, own.plain().law(known), own.plain().error_variance(hidden)),
        (INTERPOLATION, plain, plain.of(hidden).error_variance()),
        (CLIMATOLOGY, ClimatologyLaw(climatology), 0.0),
    )
    return {method: _errors(law, error, hidden) for method, law, error in laws}


def _errors(law: Law, error_variance: Tensor | float, hidden: Measurements) -> tuple[Tensor, Tensor, Tensor]:
    found = law.law(hidden.latitude, hidden.longitude, hidden.time_s)
    spread, truth = (found.std.square() + error_variance).sqrt().clamp(min=1e-9), hidden.velocity.T.double()
    known = torch.isfinite(found.mean).all(0) & torch.isfinite(spread).all(0)
    measured, truth = replace(found, mean=found.mean[:, known], std=spread[:, known]), truth[:, known]
    return (measured.mean - truth).square().mean(0), measured.crps(truth).mean(0), measured.place(truth)
