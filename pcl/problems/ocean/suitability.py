"""What a grid and its currents must be for drifters to be followed in tiles of it."""

__all__ = ["check_regular", "check_speeds"]

import numpy as np

from pcl.errors import BadInputError
from pcl.problems.ocean.currents import LARGEST_SPEED, Currents
from pcl.problems.ocean.sphere import METRES_PER_DEGREE
from pcl.problems.ocean.tiles import regular_interval

REGULAR = 0.05  # of a cell: Mercator grids of a region of two degrees pass
POLAR = 60.0  # degrees: beyond it columns are so narrow that the region is to blame, not the step
MOST_PARTS = 1000  # of the time between two records: a step that is shorter is no remedy


def check_regular(latitude: np.ndarray, longitude: np.ndarray) -> None:
    """Refuse cells that differ: encoders and scores place drifters by the size of a cell.

    Args:
        latitude: of the rows of tiles, degrees, shape (Y,).
        longitude: of their columns, degrees, shape (X,).

    Raises:
        BadInputError: the cells differ by more than a twentieth.
    """
    for name, degrees in (("latitude", latitude), ("longitude", longitude)):
        cells = np.diff(degrees)
        if np.ptp(cells) > REGULAR * np.median(cells):
            raise BadInputError(
                f"the spacing of {name} goes from {cells.min():.4g} to {cells.max():.4g} degrees: tiles need a "
                "regular grid, interpolate the fields first or cut a smaller region"
            )


def check_speeds(currents: Currents, rows: slice, step_s: float, record_s: float) -> None:
    r"""Refuse what is no current, and steps in which one crosses more than a cell: a Courant number over 1.

    .. math:: h \max \left( \frac{|u|}{R\,\Delta\lambda \cos\varphi}, \frac{|v|}{R\,\Delta\varphi} \right) \le 1

    with R = 111120 m per degree.

    Args:
        currents: of which every step has been looked at.
        rows: those that drifters can reach.
        step_s: h, seconds of a step of the integrator.
        record_s: seconds between two recorded positions.

    Raises:
        BadInputError: see above; the message names the file.
    """
    found = currents.survey
    assert found is not None
    row = rows.start + int(np.argmax(found.fastest_m_s[rows]))
    if found.fastest_m_s[row] > LARGEST_SPEED:
        currents.refuse_speed(float(found.fastest_m_s[row]), int(found.fastest_step[row]))
    latitude = currents.latitude[rows]
    parallel = np.cos(np.radians(latitude)).clip(1e-9)
    cells_m = METRES_PER_DEGREE * np.stack(
        [parallel * np.diff(currents.longitude).min(), np.full(len(latitude), np.diff(latitude).min())]
    )
    crossed = (found.components_m_s[:, rows].astype(np.float64) * step_s / cells_m).max(0)
    worst = int(crossed.argmax())
    if crossed[worst] > 1:
        limit_s = step_s / float(crossed[worst])
        remedies = [*_shorter_step(limit_s, record_s, currents), *_smaller_region(latitude, crossed)]
        raise BadInputError(
            f"{currents.file_of(int(found.fastest_step[rows][worst]))}: at {_side(latitude[worst])} a current crosses "
            f"{crossed[worst]:.3g} cells of the grid in data.ocean.drifters.step_s={step_s:g}: it must be at most one, "
            f"{', or '.join(remedies) or 'correct the currents'}"
        )


def _shorter_step(limit_s: float, record_s: float, currents: Currents) -> list[str]:
    """Say which step divides the time between records and that between fields."""
    for parts in range(1, MOST_PARTS):
        step_s = record_s / parts
        per_field = regular_interval(currents.time_s) / step_s
        if step_s <= limit_s and abs(per_field - round(per_field)) < 1e-6:
            return [f"choose {step_s:.10g} s or less"]
    return []


def _smaller_region(latitude: np.ndarray, crossed: np.ndarray) -> list[str]:
    """Say where to cut off rows near a pole."""
    fast = latitude[crossed > 1]
    slow = latitude[np.abs(latitude) < np.abs(fast).min()]
    if np.abs(fast).min() < POLAR or not len(slow):
        return []
    edges = ([("below", slow.max())] if fast.max() > 0 else []) + ([("above", slow.min())] if fast.min() < 0 else [])
    return [" and ".join(f"cut the region {side} {_side(edge)}" for side, edge in edges)]


def _side(latitude: float) -> str:
    return f"{abs(latitude):.6g} {'N' if latitude >= 0 else 'S'}"
