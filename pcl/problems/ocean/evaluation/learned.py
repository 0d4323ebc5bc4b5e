"""The posterior of currents under the Gaussian prior that a model has learned, and under the same prior unlearned.

Shapes: K members, T times, H x W grid points, n points.
"""

__all__ = ["FROZEN", "POSTERIOR", "LearnedPosterior", "prior_of"]

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from pcl.model import PairModel
from pcl.problems.ocean.contract import Origin
from pcl.problems.ocean.evaluation.fields import Estimate
from pcl.problems.ocean.evaluation.past import Past
from pcl.problems.ocean.evaluation.windows import Windows
from pcl.problems.ocean.prior.measurements import measurements_of
from pcl.problems.ocean.prior.model import CurrentPosterior, CurrentPrior

POSTERIOR, FROZEN = "posterior", "frozen prior"


def prior_of(model: PairModel) -> CurrentPrior | None:
    """Return the prior of currents that the encoder of drifters has learned; None: it has none."""
    return next((part for part in model.encoder_v.modules() if isinstance(part, CurrentPrior)), None)


class LearnedPosterior:
    """The posterior given drifters: as it was learned, and of the covariance and the errors that learning began with.

    Args:
        prior: that was learned.
        past: with climatologies: where a tile's is not known nothing is estimated.
        num_members: K.
    """

    names = (POSTERIOR, FROZEN)
    source = "pcl: posterior of a Gaussian prior of currents whose covariance was learned"

    def __init__(self, prior: CurrentPrior, past: Past, num_members: int) -> None:
        self.prior, self.past, self.num_members = prior, past, num_members

    def estimates(
        self, queries: Windows, whole: Sequence[bool], generator: torch.Generator
    ) -> Iterator[Sequence[Estimate]]:
        """Yield both estimates of every pair; arguments as of ``Family.estimates``."""
        for v, origin, tile, joint in zip(queries.v, queries.origin, queries.tiles.tolist(), whole, strict=True):
            place, geometry = Origin.of(origin), self.past.geometry
            measured = measurements_of(v, origin, geometry)
            known = torch.isfinite(self.past.climatology[tile].mean).all(0)
            number = self.num_members if joint else 0
            centre = float(place.latitude), float(place.longitude)
            yield [
                self._estimate(
                    self.prior.posterior(measured, centre=centre, learned=learned), origin, known, number, generator
                )
                for learned in (True, False)
            ]

    def _estimate(
        self, posterior: CurrentPosterior, origin: Tensor, known: Tensor, number: int, generator: torch.Generator
    ) -> Estimate:
        """Return what a posterior says of a tile, where there is a climatology (T, H, W)."""
        latitude, longitude = self.past.geometry.axes(origin)
        time_s = Origin.of(origin).release_s + self.past.geometry.time_s
        grid = torch.meshgrid(time_s, latitude, longitude, indexing="ij")
        when, north, east = (part[known] for part in grid)
        with torch.no_grad():
            law = posterior.law(north, east, when)
            mean, std = (_on_grid(part, known) for part in (law.mean, law.std))
            drawn = posterior.members(north, east, when, number, generator) if number else None
        members = None if drawn is None else _on_grid(drawn.float(), known)
        return Estimate(mean, std, members, degrees=law.nu)


def _on_grid(values: Tensor, known: Tensor) -> Tensor:
    """Return values (..., n) at the known points of a tile (T, H, W), NaN at the others."""
    found = values.new_full((*values.shape[:-1], *known.shape), torch.nan)
    found[..., known] = values
    return found
