"""What lies behind maps: land, painted from the mask, and water without a value, hatched."""

__all__ = ["LAND", "MISSING", "land_patch", "missing_patch", "paint"]

from typing import Any

import numpy as np
from matplotlib.colors import ListedColormap
from matplotlib.patches import Patch
from torch import Tensor

LAND, MISSING = "#d9d4c7", "0.72"  # the land's colour and that of the lines of what is missing
HATCH = "////"


def paint(axis: Any, wet: Tensor | None, x: Any = None, y: Any = None) -> None:
    """Hatch an axis, for what is drawn over it to leave bare where it has no value, and paint its land.

    Args:
        axis: to paint.
        wet: where there is water, shape (H, W); None: not known, then nothing is land.
        x: of the columns, shape (W,); their numbers when None.
        y: of the rows, shape (H,); likewise.
    """
    axis.set_facecolor("white")
    axis.patch.set(hatch=HATCH, edgecolor=MISSING, linewidth=0)
    if wet is None or bool(wet.all()):
        return
    x, y = (np.arange(size) if grid is None else grid for grid, size in zip((x, y), wet.shape[::-1], strict=True))
    land = np.ma.masked_where(wet.numpy(), np.zeros(wet.shape))
    axis.pcolormesh(x, y, land, shading="nearest", cmap=ListedColormap([LAND]), zorder=0.5)


def land_patch() -> Patch:
    """Return the legend's entry of land."""
    return Patch(facecolor=LAND, edgecolor="0.5", linewidth=0.5, label="land")


def missing_patch() -> Patch:
    """Return the legend's entry of water without a value."""
    return Patch(facecolor="white", edgecolor=MISSING, hatch=HATCH, linewidth=0.5, label="water without a value")
