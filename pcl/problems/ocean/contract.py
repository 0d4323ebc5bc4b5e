"""What ocean pairs are, for the source that writes them and for all that reads them.

Components of the arrays ``v`` and ``origin`` by name, in the order in which they are stored, and the facts that the
manifest holds of the archive.

Shapes: D drifters, P recorded positions, T times of a window, H x W points of a tile.
"""

__all__ = [
    "ArchiveFacts",
    "DrifterFacts",
    "GridFacts",
    "Origin",
    "Position",
    "TimeFacts",
    "arrays_of_pairs",
    "read_facts",
    "written",
]

import json
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, Generic, NamedTuple, TypeVar

from pydantic import Field, TypeAdapter
from torch import Tensor

from pcl.data.manifest import ArrayInfo
from pcl.storage.place import Place
from pcl.storage.stored import Finite, as_kind

T = TypeVar("T")
Facts = TypeVar("Facts")
Size = Annotated[int, Field(ge=1, lt=2**31)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Axis = Annotated[tuple[Finite, ...], Field(min_length=1)]
REMEDY = "it is damaged, write the shards again"


class Origin(NamedTuple, Generic[T]):
    """The array ``origin`` by component, each an array or a number: when drifters are released, and where the tile is.

    Attributes:
        release_s: time of release, seconds since 1970-01-01.
        longitude: of the centre of the tile, degrees.
        latitude: of the centre of the tile, degrees.
        row: of its first point in the grid.
        column: of its first point in the grid.
        first_step: time index of the window in the archive.
    """

    release_s: T
    longitude: T
    latitude: T
    row: T
    column: T
    first_step: T

    @classmethod
    def of(cls, stored: Tensor) -> "Origin[Tensor]":
        """Name the components of a stored array, shape (..., 6).

        Example:
            >>> import torch
            >>> Origin.of(torch.arange(12.0).reshape(2, 6)).row
            tensor([3., 9.])
        """
        return Origin(*stored.unbind(-1))


class Position(NamedTuple, Generic[T]):
    """The array ``v`` by component, each an array: where drifters were recorded; NaN where one is missing.

    Attributes:
        east: degrees east of the centre of the tile.
        north: degrees north of it.
        latitude: degrees.
        aground: 1 once aground.
    """

    east: T
    north: T
    latitude: T
    aground: T

    @classmethod
    def of(cls, stored: Tensor) -> "Position[Tensor]":
        """Name the components of a stored array, shape (..., 4)."""
        return Position(*stored.unbind(-1))


@dataclass(frozen=True)
class GridFacts:
    """The grid of the archive: latitudes and longitudes in degrees, the median cell, and whether it goes around."""

    latitude: Axis
    longitude: Axis
    cell_degrees: tuple[Positive, Positive] | None = None
    periodic: bool = False

    def __post_init__(self) -> None:
        _check_increasing(latitude=self.latitude, longitude=self.longitude)


@dataclass(frozen=True)
class TimeFacts:
    """The times of the archive: the first and the last in seconds since 1970-01-01, how many, and how far apart."""

    first_s: Finite
    last_s: Finite
    steps: Size
    interval_s: Positive


@dataclass(frozen=True)
class DrifterFacts:
    """How drifters were released in windows; what readers can do without may be lacking.

    Attributes:
        record_s: seconds between two recorded positions.
        window_time_s: of the fields of a window, seconds after the release, T of them.
        cell_degrees: spacing of the grid in latitude and in longitude, degrees.
        height: H, points of a tile in latitude.
        width: W, points of a tile in longitude.
        num_drifters: D.
        step_s: seconds of a step of the integrator.
        duration_s: seconds from the first field to the last.
        metres_per_degree: of a meridian.
        land: what happens to drifters that run aground.
        noise_m: standard deviation of the noise of recorded positions, m.
    """

    record_s: Positive
    window_time_s: Axis
    cell_degrees: tuple[Positive, Positive]
    height: Size
    width: Size
    num_drifters: Size | None = None
    step_s: Positive | None = None
    duration_s: Positive | None = None
    metres_per_degree: Positive | None = None
    land: str | None = None
    noise_m: Finite | None = None

    def __post_init__(self) -> None:
        _check_increasing(window_time_s=self.window_time_s)


@dataclass(frozen=True)
class ArchiveFacts:
    """What a manifest says of the archive beside its files: calendar as in CF, grid, drifters and times."""

    calendar: str
    grid: GridFacts
    drifters: DrifterFacts
    time: TimeFacts | None = None


def _check_increasing(**axes: tuple[float, ...]) -> None:
    for name, axis in axes.items():
        if not all(before < after for before, after in pairwise(axis)):
            raise ValueError(f"{name} does not increase")


def written(facts: Any) -> dict[str, Any]:
    """Facts as plain values of JSON; what is not known is left out.

    Example:
        >>> written(GridFacts((30.0, 30.5), (10.0, 10.5, 11.0), (0.5, 0.5)))
        {'latitude': [30.0, 30.5], 'longitude': [10.0, 10.5, 11.0], 'cell_degrees': [0.5, 0.5]}
    """
    found: dict[str, Any] = TypeAdapter(type(facts)).dump_python(facts, mode="json", exclude_defaults=True)
    return found


def read_facts(content: Mapping[str, Any], kind: type[Facts], path: Place = Path("manifest.json")) -> Facts:
    """Facts of a manifest, or of a checkpoint that holds a copy of them, as a kind.

    Args:
        content: as the manifest holds it.
        kind: what it must be; what it holds beside is not looked at.
        path: where it is from, for the message.

    Raises:
        DamagedDataError: a fact is missing or impossible.

    Example:
        >>> read_facts({"latitude": [30.0], "longitude": "west"}, GridFacts)
        Traceback (most recent call last):
        pcl.errors.DamagedDataError: manifest.json cannot be read (longitude: input should be a valid array): it is ...
    """
    return as_kind(json.dumps(content).encode(), kind, path, REMEDY)


def arrays_of_pairs(
    num_drifters: int, num_positions: int, num_times: int, tile_points: int, has_gaps: bool
) -> dict[str, ArrayInfo]:
    """The arrays of a pair, with their units and meaning.

    Args:
        num_drifters: D.
        num_positions: P.
        num_times: T.
        tile_points: H = W.
        has_gaps: whether values are missing in water.
    """
    window = (num_times, tile_points, tile_points)
    missing = "water or no value" if has_gaps else "water"
    return {
        "u": ArrayInfo(
            "float32",
            (2, *window),
            "m s-1",
            "eastward_sea_water_velocity and northward_sea_water_velocity at (time, latitude, longitude), both "
            f"ascending; NaN where there is no {missing}",
            statistics="channel",
        ),
        "wet": ArrayInfo("uint8", window, "1", "1 where there is water", statistics="none"),
        "v": ArrayInfo(
            "float32",
            (num_drifters, num_positions, len(Position._fields)),
            "degree",
            "drifters: degrees east of the centre of the tile, degrees north of it, latitude, and 1 once aground; "
            "NaN where a drifter is missing",
            statistics="none",
        ),
        "origin": ArrayInfo(
            "float64",
            (len(Origin._fields),),
            "1",
            "time of release (s since 1970-01-01), longitude and latitude of the centre of the tile (degrees), row "
            "and column of its first point and time index of the window in the archive",
            statistics="none",
        ),
    }
