"""Drawn flows and paths as a dataset: coefficients with their streamfunction on a grid, or positions.

Shapes: n draws, M modes, P positions.
"""

__all__ = ["drawn_dataset"]

import torch
import xarray as xr
from torch import Tensor

from pcl.evaluation.splits import Splits
from pcl.problems.streamfunction.evaluation import GRID_POINTS, field_of
from pcl.problems.streamfunction.law import StreamfunctionLaw

AXES = {"x1": "first coordinate", "x2": "second coordinate"}


def drawn_dataset(splits: Splits, name: str, row: Tensor, weights: Tensor) -> xr.Dataset:
    """Return drawn flows, or drawn paths, with their weights.

    Args:
        splits: the pairs that hold the drawn items.
        name: ``u`` or ``v``, what was drawn.
        row: of every draw among those pairs, shape (n,).
        weights: of the draws, shape (n,).
    """
    items = splits.arrays[name][row]
    found = xr.Dataset({"weight": ("draw", weights.numpy(), {"long_name": "weight of the item", "units": "1"})})
    law = StreamfunctionLaw(**splits.source["law"])
    if name == "v":
        times = torch.linspace(0, law.duration, items.shape[1])
        meaning = {"long_name": "position of the particle, not wrapped", "units": "domain_width"}
        found["position"] = (("draw", "time", "component"), items.numpy(), meaning)
        return found.assign_coords(time=("time", times.numpy(), {"long_name": "time"}))
    fields = torch.stack([field_of(law, one.double()) for one in items])
    units = {"units": "domain_width2 time-1"}
    about = {"long_name": f"streamfunction at time {law.duration / 2:g}"} | units
    found["coefficient"] = (
        ("draw", "component"),
        items.numpy(),
        {"long_name": "coefficients, real parts first"} | units,
    )
    found["streamfunction"] = (("draw", "x2", "x1"), fields.float().numpy(), about)
    axis = torch.linspace(0, 1, GRID_POINTS).numpy()
    return found.assign_coords(
        {one: (one, axis, {"long_name": meaning, "units": "domain_width"}) for one, meaning in AXES.items()}
    )
