r"""Drifters in currents on a grid that change in time, near coasts and beyond the dateline.

.. math:: \dot\lambda = \frac{u}{111120 \cos\varphi}, \qquad \dot\varphi = \frac{v}{111120}

Longitude and latitude are in degrees, u and v in m/s: a minute of arc is a nautical mile, the rule of Parcels.
Currents are linear in time and in both coordinates between the points of the grid. A point on land, or one whose
current is missing, has no weight and those of the others are renormalised, so that land never slows a drifter down.
A drifter that comes to land is aground; one that comes to where the current is not known is lost.

Shapes: D drifters, P recorded positions, T fields in time on Y latitudes and X longitudes; positions are
(longitude, latitude) on a last axis.
"""

__all__ = ["GriddedCurrents", "advect", "count_steps", "release"]

import numpy as np
import torch
from torch import Tensor

from pcl.advection import rk4_step
from pcl.errors import BadInputError
from pcl.problems.ocean.sphere import METRES_PER_DEGREE


class GriddedCurrents:
    """Currents between the points of a grid.

    Args:
        field: eastward and northward velocity in m/s, shape (2, T, Y, X), NaN where it is not known.
        interval_s: seconds between two fields; the first is at time 0.
        latitude: degrees, shape (Y,), ascending, float64.
        longitude: degrees, shape (X,), ascending across the dateline, float64.
        water: where there is water, bool, shape (Y, X); None: where a current is known at the time.

    Example:
        >>> axis = torch.tensor([0.0, 1.0, 2.0], dtype=torch.float64)
        >>> currents = GriddedCurrents(torch.ones(2, 2, 3, 3), 3600.0, axis, axis)
        >>> METRES_PER_DEGREE * currents.velocity(0.0, torch.tensor([[0.5, 60.0]], dtype=torch.float64))
        tensor([[2.0000, 1.0000]], dtype=torch.float64)
    """

    def __init__(
        self, field: Tensor, interval_s: float, latitude: Tensor, longitude: Tensor, water: Tensor | None = None
    ) -> None:
        known = field.isfinite().all(0)
        unknown = known.new_zeros(known.shape) if water is None else water & ~known
        self.unknown = unknown.flatten() if unknown.any() else None  # water without a current
        self.num_times, height, width = known.shape
        self.interval_s, self.latitude, self.longitude = interval_s, latitude, longitude
        # rows are (u, v, 1) in water and zero on land: a weighted sum of rows is a sum over water and its weight
        table = field.new_empty(*known.shape, 3)
        table[..., 0], table[..., 1], table[..., 2] = field[0].where(known, 0), field[1].where(known, 0), known
        self.table = table.flatten(0, 2)
        self.strides = (height * width, width, 1)
        offsets = [torch.arange(2) * stride for stride in self.strides]
        self.corners = offsets[0][:, None, None, None] + offsets[1][:, None, None] + offsets[2][:, None]

    def _locate(self, time: float, positions: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Return the row of the table of a cell's first corner, shape (D,), and the place in the cell, 0 to 1."""
        first = min(int(time / self.interval_s), self.num_times - 2)
        row, up = _cell(self.latitude, positions[..., 1].contiguous())
        column, right = _cell(self.longitude, positions[..., 0].contiguous())
        later = torch.full_like(up, time / self.interval_s - first)
        return first * self.strides[0] + row * self.strides[1] + column, [later, up, right]

    def velocity(self, time: float, positions: Tensor) -> Tensor:
        """Interpolate.

        Args:
            time: seconds after the first field.
            positions: degrees, shape (D, 2); beyond the grid its edge is taken.

        Returns:
            Degrees per second, shape (D, 2); NaN where no point of the cell has a current.
        """
        first, places = self._locate(time, positions)
        late, up, right = (torch.stack([1 - place, place]) for place in places)
        weights = late[:, None, None] * up[:, None] * right
        total = self.table[first + self.corners].double() * weights[..., None]
        for _ in places:  # not sum(): its order, so the last bit, depends on the number of drifters
            total = total[0] + total[1]
        metres_per_second = total[..., :2] / total[..., 2:]
        return _per_second(metres_per_second, positions)

    def _nearest(self, time: float, positions: Tensor) -> Tensor:
        """Return the row of the table of the nearest point of the grid, and of time, shape (D,)."""
        first, places = self._locate(time, positions)
        for place, stride in zip(places, self.strides, strict=True):
            first = first + (place > 0.5) * stride
        return first

    def is_dry(self, time: float, positions: Tensor) -> Tensor:
        """Return whether the nearest point of the grid, and of time, has no current.

        Args:
            time: seconds after the first field.
            positions: degrees, shape (D, 2).
        """
        return self.table[self._nearest(time, positions), 2] == 0

    def is_unknown(self, time: float, positions: Tensor) -> Tensor:
        """Return whether the nearest point of the grid, and of time, is water without a current.

        Args:
            time: seconds after the first field.
            positions: degrees, shape (D, 2).
        """
        if self.unknown is None:
            return torch.zeros(len(positions), dtype=torch.bool)
        return self.unknown[self._nearest(time, positions)]

    def is_water_around(self, time: float, positions: Tensor) -> Tensor:
        """Return whether a point of the cell around is water without a current.

        Args:
            time: seconds after the first field.
            positions: degrees, shape (D, 2).
        """
        if self.unknown is None:
            return torch.zeros(len(positions), dtype=torch.bool)
        first, _ = self._locate(time, positions)
        return self.unknown[first + self.corners].any(0).any(0).any(0)

    def cells_per_step(self, step_s: float) -> float:
        """Return the largest number of cells that a current crosses in a step: its Courant number."""
        speeds = self.table[:, :2].abs().view(self.num_times, -1, self.strides[1], 2).amax((0, 2)).double()
        parallel = self.latitude.deg2rad().cos().clamp(min=1e-9)
        east = (speeds[:, 0] / parallel).max() / self.longitude.diff().min()
        north = speeds[:, 1].max() / self.latitude.diff().min()
        return float(torch.maximum(east, north)) * step_s / METRES_PER_DEGREE


def _per_second(metres_per_second: Tensor, positions: Tensor) -> Tensor:
    """Return velocities in degrees per second, shape (D, 2), at positions in degrees, shape (D, 2)."""
    parallel = positions[..., 1].contiguous().deg2rad().cos()
    return metres_per_second / (METRES_PER_DEGREE * torch.stack([parallel, torch.ones_like(parallel)], -1))


def _cell(axis: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
    """Return the index of the cell of an axis, regular or not, that holds each value, and the place in it, 0 to 1."""
    cell = (torch.searchsorted(axis, values, right=True) - 1).clamp(0, len(axis) - 2)
    return cell, ((values - axis[cell]) / (axis[cell + 1] - axis[cell])).clamp(0, 1)


def release(
    generator: np.random.Generator, water: np.ndarray, latitude: np.ndarray, longitude: np.ndarray, num_drifters: int
) -> np.ndarray:
    """Draw places, uniform over the cells of a grid, whose nearest point is wet.

    Args:
        generator: of the draws.
        water: where there is water, bool, shape (Y, X).
        latitude: degrees, shape (Y,).
        longitude: degrees, shape (X,).
        num_drifters: D.

    Returns:
        Longitudes and latitudes, shape (D, 2); NaN if there is no water.

    Example:
        >>> axis, water = np.arange(3.0), np.eye(3, dtype=bool)
        >>> release(np.random.default_rng(0), water, axis, axis, 5).shape
        (5, 2)
    """
    if not water.any():
        return np.full((num_drifters, 2), np.nan)
    places = np.empty((0, 2))  # rows and columns, with fractions
    while len(places) < num_drifters:
        more = generator.random((4 * num_drifters, 2)) * (np.array(water.shape) - 1)
        row, column = np.ceil(more - 0.5).astype(int).T
        places = np.concatenate([places, more[water[row, column]]])
    north, east = places[:num_drifters].T
    columns, rows = (np.arange(len(axis)) for axis in (longitude, latitude))
    return np.column_stack([np.interp(east, columns, longitude), np.interp(north, rows, latitude)])


def count_steps(duration_s: float, interval_s: float, record_s: float, step_s: float) -> tuple[int, int]:
    """Return the number of records after the start, and of steps between two of them.

    Args:
        duration_s: from the first to the last field, s.
        interval_s: between two fields, s.
        record_s: between two records, s.
        step_s: of the integrator, s.

    Raises:
        BadInputError: the step does not divide both intervals, or the records do not divide the duration.

    Example:
        >>> count_steps(86400.0, 43200.0, 21600.0, 3600.0)
        (4, 6)
    """
    rules = (
        ("data.ocean.drifters.step_s", step_s, "the interval of the fields", interval_s),
        ("data.ocean.drifters.step_s", step_s, "data.ocean.drifters.record_s", record_s),
        ("data.ocean.drifters.record_s", record_s, "the duration of a window", duration_s),
    )
    for name, part, whole_name, whole in rules:
        if not 0 < part <= whole * (1 + 1e-9) or abs(whole / part - round(whole / part)) > 1e-6:
            raise BadInputError(
                f"{name}={part:g} does not divide {whole_name}, {whole:g} s: choose a whole fraction of it"
            )
    return round(duration_s / record_s), round(record_s / step_s)


def advect(
    field: Tensor,
    time_s: Tensor,
    latitude: Tensor,
    longitude: Tensor,
    start: Tensor,
    *,
    step_s: float,
    record_s: float,
    land: str = "freeze",
    bounds: tuple[Tensor, Tensor] | None = None,
    water: Tensor | None = None,
    slip: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Follow drifters from the first field to the last, by the classical Runge-Kutta method.

    A drifter runs aground when a step would end where the nearest point of the grid is on land, or needs a current on
    land: the step is not taken, so a drifter that freezes stays in water. One that ends a step out of its bounds, or
    where the current in water is not known, is lost. Every drifter goes its own way: the bits of its positions do not
    depend on the other drifters.

    Args:
        field: eastward and northward velocity in m/s, shape (2, T, Y, X), NaN where it is not known.
        time_s: seconds, equally spaced, shape (T,).
        latitude: degrees, ascending, shape (Y,).
        longitude: degrees, ascending across the dateline, shape (X,).
        start: longitude in the convention of the grid and latitude, degrees, shape (D, 2).
        step_s: seconds of a step.
        record_s: seconds between two records, from the start.
        land: ``freeze``: a drifter stays where it ran aground; ``drop``: it is missing from then on.
        bounds: smallest and largest longitude and latitude, degrees, each of shape (2,) or (D, 2); the grid's if not
            given.
        water: where there is water, bool, shape (Y, X); None: where a current is known at the time.
        slip: velocity of drifters through the water, east and north, m/s, in every step, shape (D, S, 2); None: none.

    Returns:
        Positions in degrees, shape (D, P, 2), float64, NaN where a drifter is missing; and whether it has run
        aground, shape (D, P).

    Raises:
        BadInputError: steps, records and fields do not divide each other, or a current crosses more than one cell in
            a step.

    Example:
        >>> axis = torch.arange(5, dtype=torch.float64)
        >>> path, aground = advect(torch.full((2, 2, 5, 5), 0.5), torch.tensor([0.0, 86400.0]), axis, axis,
        ...                        torch.tensor([[1.0, 1.0]]), step_s=3600.0, record_s=43200.0)
        >>> path[0, :, 1], bool(aground.any())
        (tensor([1.0000, 1.1944, 1.3888], dtype=torch.float64), False)
    """
    latitude, longitude, positions = latitude.double(), longitude.double(), start.double()
    duration_s = float(time_s[-1] - time_s[0])
    interval_s = duration_s / (len(time_s) - 1)
    num_records, substeps = count_steps(duration_s, interval_s, record_s, step_s)
    currents = GriddedCurrents(field, interval_s, latitude, longitude, water)
    if (cells := currents.cells_per_step(step_s)) > 1:
        raise BadInputError(
            f"a current crosses {cells:.2f} cells of the grid in data.ocean.drifters.step_s={step_s:g}: it must be at "
            f"most one, choose {step_s / cells:.0f} s or less"
        )
    lower, upper = bounds or (torch.stack([longitude[end], latitude[end]]) for end in (0, -1))
    fleet = _Fleet(currents, positions, lower, upper)
    records = [fleet.record(land)]
    for number in range(num_records * substeps):
        fleet.advance(number * step_s, step_s, None if slip is None else slip[:, number])
        if (number + 1) % substeps == 0:
            records.append(fleet.record(land))
    paths, flags = zip(*records, strict=True)
    return torch.stack(paths, 1), torch.stack(flags, 1)


class _Fleet:
    """Drifters under way: where they are, or were last in water and within bounds, and which of them do not move."""

    def __init__(self, currents: GriddedCurrents, positions: Tensor, lower: Tensor, upper: Tensor) -> None:
        self.currents, self.positions, self.lower, self.upper = currents, positions, lower, upper
        self.lost = self._outside(positions) | currents.is_unknown(0.0, positions)
        self.aground = ~self.lost & currents.is_dry(0.0, positions)

    def _outside(self, positions: Tensor) -> Tensor:
        return ((positions < self.lower) | (positions > self.upper)).any(-1)

    def _velocity(self, time: float, positions: Tensor) -> Tensor:
        # stages beyond the bounds take the current at their edge: what lies beyond must not matter
        inside = positions.clamp(self.lower, self.upper)
        found = self.currents.velocity(time, inside)
        if self.currents.unknown is not None:
            self.into_unknown |= found.isnan().any(-1) & self.currents.is_water_around(time, inside)
        return found if self.slip is None else found + _per_second(self.slip, inside)

    def advance(self, time: float, step_s: float, slip: Tensor | None = None) -> None:
        self.slip = slip
        self.into_unknown = torch.zeros_like(self.lost)  # a stage needed a current that is not known, in water
        moved = rk4_step(self._velocity, time, self.positions, step_s)
        moving, left = ~(self.lost | self.aground), self._outside(moved)
        nowhere = moved.isnan().any(-1)
        left |= self.into_unknown | (~nowhere & self.currents.is_unknown(time + step_s, moved))
        stranded = ~left & (nowhere | self.currents.is_dry(time + step_s, moved))
        self.lost = self.lost | (moving & left)
        self.aground = self.aground | (moving & stranded)
        self.positions = torch.where((moving & ~left & ~stranded)[:, None], moved, self.positions)

    def record(self, land: str) -> tuple[Tensor, Tensor]:
        missing = self.lost | self.aground if land == "drop" else self.lost
        return self.positions.masked_fill(missing[:, None], torch.nan), self.aground
