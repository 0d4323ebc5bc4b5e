"""Maps of currents given tracks: mean, spread, members, and how much of them the tracks tell.

Shapes: K members, T times, H latitudes, W longitudes, n measurements.
"""

__all__ = ["Maps", "estimate"]

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from pcl.problems.ocean.prior.measurements import Measurements
from pcl.problems.ocean.prior.posterior import Posterior
from pcl.problems.ocean.reconstruct.grid import MapGrid
from pcl.problems.ocean.reconstruct.model import Model

LITTLE = 0.1  # of the prior's variance: where measurements explain less, the map is climatology


@dataclass(frozen=True, eq=False)
class Maps:
    """An estimate on a grid.

    Attributes:
        grid: points and times.
        wet: where there is water, or where nothing is known of land, boolean, shape (H, W).
        mean: m/s, float64, NaN on land, shape (2, T, H, W).
        std: standard deviation, likewise.
        degrees: of freedom of Student's law of every point, infinite for the normal law.
        members: coherent draws, float32, likewise, shape (K, 2, T, H, W).
        explained: share of the prior's variance that measurements explain, of what its covariance resolves, shape
            (T, H, W).
    """

    grid: MapGrid
    wet: Tensor
    mean: Tensor
    std: Tensor
    degrees: float
    members: Tensor
    explained: Tensor

    @property
    def share_told(self) -> float:
        """Share of water and time of which measurements tell more than a little."""
        known = self.explained[:, self.wet]
        return float((known >= LITTLE).double().mean())


@torch.no_grad()
def estimate(
    model: Model,
    measurements: Measurements,
    grid: MapGrid,
    num_members: int,
    seed: int,
    is_land: Callable[[np.ndarray, np.ndarray], np.ndarray] | None = None,
) -> Maps:
    """Return maps of currents given measurements.

    Args:
        model: of the reconstruction.
        measurements: of the drifters.
        grid: where and when.
        num_members: K.
        seed: of the members.
        is_land: of latitudes and longitudes, which are known to be land.
    """
    north, east = grid.places
    dry = np.zeros(len(north), bool) if is_land is None else is_land(north.numpy(), east.numpy())
    wet = torch.from_numpy(~dry)
    north, east = north[wet], east[wet]
    times, places = grid.shape[0], len(north)
    where = north.repeat(times), east.repeat(times), torch.from_numpy(grid.time_s).repeat_interleave(places)
    law = model.law(measurements)
    resolved = law.resolved(*where)
    of_points = law.law_of(*resolved)
    nothing = model.law(measurements[:0])
    expected = nothing.resolved(*where)[1].sum(0)
    if isinstance(law.anomaly, Posterior) and isinstance(nothing.anomaly, Posterior):
        expected = expected * law.anomaly.energy / nothing.anomaly.energy  # of all currents: no news of a place
    explained = 1 - resolved[1].sum(0) / expected
    members = law.members(*where, num_members, torch.Generator().manual_seed(seed))

    def on_grid(values: Tensor) -> Tensor:
        leading = values.shape[:-1]
        found = values.new_full((*leading, times, len(wet)), torch.nan)
        found[..., wet] = values.reshape(*leading, times, places)
        return found.reshape(*leading, *grid.shape)

    return Maps(
        grid,
        wet.reshape(grid.shape[1:]),
        mean=on_grid(of_points.mean),
        std=on_grid(of_points.std),
        degrees=of_points.nu,
        members=on_grid(members.float()),
        explained=on_grid(explained),
    )
