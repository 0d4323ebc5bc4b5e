"""What a learned posterior of the field must beat: climatology, analogs, and optimal interpolation.

Shapes: N windows of a tile's archive, K members, C = 2 components, T times, H x W grid points, n measurements.
"""

__all__ = [
    "Measurements",
    "OptimalInterpolation",
    "climatology",
    "draw",
    "measure",
    "nearest_track_analog",
    "nearest_track_analogs",
    "random_analog",
]

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from pcl.evaluation.blocks import Items, num_at_once, walk
from pcl.problems.ocean.evaluation.field_scores import gaussian_crps, weighted_mean
from pcl.problems.ocean.evaluation.fields import Estimate, summarise
from pcl.problems.ocean.evaluation.interpolation import Interpolator, interpolate
from pcl.problems.ocean.evaluation.windows import Geometry
from pcl.problems.ocean.prior.kernel import CurrentKernel, Points
from pcl.problems.ocean.prior.posterior import Measured, Posterior
from pcl.problems.ocean.sphere import METRES_PER_DEGREE
from pcl.problems.ocean.tiles import DAY_S
from pcl.problems.ocean.tracks import track_pieces

BYTES_PER_COVARIANCE = 160  # of a measurement and a point: four numbers, twice, and what they are made of
COVARIANCE_BYTES = 20_000_000  # at a time: solving for few points at a time is slow
BYTES_PER_MEASUREMENT = 64  # of a window while it is compared: two components, their weights and sums
LONGEST_PIECE = 2  # in units of the least: over a longer gap a mean says little
TIMES = (3.0, 6.0, 12.0, 24.0)  # that optimal interpolation chooses from, in units of ``Geometry.scale_s``


@dataclass(frozen=True)
class Measurements:
    """Drifter velocities: velocity (n, 2) in m/s at place (n, 2), degrees east and north, and time_s (n,)."""

    velocity: Tensor
    place: Tensor
    time_s: Tensor


def measure(drifters: Tensor, geometry: Geometry, *, every_s: float | None = None, margin: float = 0.5) -> Measurements:
    """Return the velocities of drifters, averaged over pieces of tracks, within a tile.

    Args:
        drifters: as stored, shape (D, P, 4).
        geometry: of the tiles.
        every_s: least length of a piece in time, s; at least one record. None: half a day, less in windows of hours.
        margin: cells around the tile that still count.
    """
    every_s = geometry.scale_s / 2 if every_s is None else every_s
    stride = min(max(1, round(every_s / geometry.record_s)), drifters.shape[1] - 1)
    pieces = track_pieces(drifters.double(), geometry.record_s, stride, LONGEST_PIECE * stride)
    cells = torch.tensor(geometry.cell_degrees[::-1], dtype=torch.float64)
    reach = (torch.tensor([geometry.width, geometry.height]) - 1) / 2 + margin
    kept = pieces.valid & ((pieces.middle / cells).abs() <= reach).all(-1)
    return Measurements(pieces.velocity[kept], pieces.middle[kept], pieces.time_s[kept])


def climatology(windows: Items, num_members: int, generator: torch.Generator, chosen: Tensor | None = None) -> Estimate:
    """Return the mean and standard deviation of a tile's windows, and windows drawn from them.

    Args:
        windows: shape (N, C, T, H, W).
        num_members: K, drawn with replacement.
        generator: of the draws.
        chosen: increasing indices of the tile's windows; None: all.
    """
    number = len(windows) if chosen is None else len(chosen)
    mean, std = summarise(windows, torch.ones(number), chosen)
    return Estimate(mean, std, draw(windows, num_members, generator, chosen), float(number))


def draw(windows: Items, num_members: int, generator: torch.Generator, chosen: Tensor | None = None) -> Tensor:
    """Return windows drawn with replacement, shape (K, C, T, H, W); arguments as of ``climatology``."""
    drawn = torch.randint(len(windows) if chosen is None else len(chosen), (num_members,), generator=generator)
    return windows[drawn if chosen is None else chosen[drawn]]


def random_analog(windows: Items, generator: torch.Generator, chosen: Tensor | None = None) -> Estimate:
    """Return one of a tile's windows, drawn at random; arguments as of ``climatology``."""
    return Estimate(draw(windows, 1, generator, chosen)[0].double())


def nearest_track_analog(
    windows: Items, measurements: Measurements, geometry: Geometry, chosen: Tensor | None = None
) -> Estimate:
    r"""Return the window whose velocities along the tracks are nearest to those of the drifters.

    .. math:: \arg\min_i \operatorname{mean}_j |u^i(t_j, x_j) - \dot x_j|^2

    over the measurements j where window i has a value: it must have one at half of them.

    Args:
        windows: to choose from, shape (N, C, T, H, W).
        measurements: of the drifters; without any, the first window is returned.
        geometry: of the tiles.
        chosen: increasing indices of the windows to choose from; None: all.
    """
    return Estimate(windows[nearest_track_analogs(windows, [measurements], geometry, chosen)][0].double())


def nearest_track_analogs(
    windows: Items, measurements: Sequence[Measurements], geometry: Geometry, chosen: Tensor | None = None
) -> Tensor:
    """Return the indices of the analogs of several sets of drifters, in one walk; arguments as of the former."""
    indices = [geometry.index(seen.time_s, *seen.place.unbind(1))[None] for seen in measurements]
    distances: list[list[Tensor]] = [[] for _ in measurements]
    item_bytes = BYTES_PER_MEASUREMENT * max(index.shape[1] for index in indices)
    for _, block in walk(windows, chosen, item_bytes):
        interpolator = Interpolator(block)
        for seen, index, found in zip(measurements, indices, distances, strict=True):
            difference = (interpolator(index) - seen.velocity.T).square().sum(1)
            share = torch.isfinite(difference).double().mean(1)
            found.append(difference.nanmean(1).where(share >= 0.5, torch.inf).nan_to_num(torch.inf))
    nearest = torch.stack([torch.cat(found).argmin() for found in distances])
    return nearest if chosen is None else chosen[nearest]


@dataclass(frozen=True)
class OptimalInterpolation:
    r"""Gaussian process regression of drifter velocities around climatology, without divergence.

    The streamfunction of the anomaly has the covariance
    :math:`\sigma^2 L^2 \exp(-r^2 / 2 L^2) \exp(-\Delta t^2 / 2 \tau^2)`, so that of the velocities is

    .. math::
        \sigma^2 e^{-r^2 / 2 L^2 - \Delta t^2 / 2 \tau^2}
        \begin{pmatrix} 1 - y^2 / L^2 & x y / L^2 \\ x y / L^2 & 1 - x^2 / L^2 \end{pmatrix}

    with the variance :math:`\sigma^2` of the tile's anomalies, mean over components and water.

    Attributes:
        length_km: L.
        time_days: tau.
        noise: variance of the error of a measured velocity over :math:`\sigma^2`.

    References:
        Bretherton, Davis, Fandry (1976), doi:10.1016/0011-7471(76)90001-2.
    """

    length_km: float = 80.0
    time_days: float = 10.0
    noise: float = 0.1

    def covariance(self, first: Tensor, second: Tensor) -> Tensor:
        """Return the covariance over sigma^2, shape (2, n, 2, m), of velocities at points (n, 3) and (m, 3).

        Points are km east, km north and days.
        """
        x, y, t = (first[:, None] - second).unbind(-1)
        x, y = x / self.length_km, y / self.length_km
        decay = torch.exp(-(x.square() + y.square() + (t / self.time_days).square()) / 2)
        cross = x * y * decay
        rows = (torch.stack([(1 - y.square()) * decay, cross], 1), torch.stack([cross, (1 - x.square()) * decay], 1))
        return torch.stack(rows)

    def estimate(
        self,
        prior: Estimate,
        measurements: Measurements,
        geometry: Geometry,
        latitude: float,
        num_members: int = 0,
        generator: torch.Generator | None = None,
    ) -> Estimate:
        """Interpolate: exact, in float64; members are coherent in space and time.

        Args:
            prior: the climatology of the tile: mean and standard deviation.
            measurements: of the drifters.
            geometry: of the tiles.
            latitude: of the tile's centre, degrees.
            num_members: K.
            generator: of the members.
        """
        assert prior.std is not None
        variance = weighted_mean(prior.std.square(), torch.ones(1, dtype=torch.float64))
        index = geometry.index(measurements.time_s, measurements.place[:, 0], measurements.place[:, 1])
        anomaly = measurements.velocity.T - interpolate(prior.mean[None], index[None])[0]
        known = torch.isfinite(anomaly).all(0)  # where climatology knows of water
        anomaly, where = anomaly[:, known], _points(measurements.place, measurements.time_s, latitude)[known]
        grid = _points(*_grid(geometry), latitude)
        size = 2 * len(where)
        observed = self.covariance(where, where).reshape(size, size)
        root = torch.linalg.cholesky(observed + self.noise * torch.eye(size, dtype=torch.float64))
        whitened = torch.linalg.solve_triangular(root, anomaly.reshape(size, 1), upper=False)
        shift, explained = [], []
        for points in torch.split(grid, num_at_once(BYTES_PER_COVARIANCE * len(where), COVARIANCE_BYTES)):
            between = self.covariance(where, points).reshape(size, 2 * len(points))
            half = torch.linalg.solve_triangular(root, between, upper=False)
            shift.append((half.T @ whitened).reshape(2, -1))
            explained.append(half.square().sum(0).reshape(2, -1))
        mean = prior.mean + torch.cat(shift, 1).reshape(prior.mean.shape)
        std = (variance * (1 - torch.cat(explained, 1)).clamp(min=0)).sqrt().reshape(mean.shape)
        estimate = Estimate(mean, std, degrees=math.inf)
        if num_members == 0:
            return estimate
        drawn = self._members(where, anomaly, grid, float(variance), num_members, generator or torch.Generator())
        return replace(estimate, members=drawn.reshape(-1, *mean.shape).add_(prior.mean))

    def _members(
        self, where: Tensor, anomaly: Tensor, grid: Tensor, variance: float, number: int, generator: torch.Generator
    ) -> Tensor:
        """Draw anomalies on the grid that are coherent in space and time, shape (K, 2, n)."""
        level = torch.tensor(variance, dtype=torch.float64).sqrt()
        kernel = CurrentKernel(("streamfunction",), (self.length_km,), (self.time_days,), (1.0,), noise=self.noise)
        kernel.level.copy_(level)
        measured, targets = (Points(place, level.expand(len(place))) for place in (where, grid))
        errors = torch.full((len(where),), self.noise * variance, dtype=torch.float64)
        return Posterior(kernel, Measured(measured, anomaly, errors)).members(targets, number, generator)

    @classmethod
    def tune(
        cls,
        examples: Sequence[tuple[Tensor, Tensor, Estimate, Measurements, float]],
        geometry: Geometry,
        lengths_km: Sequence[float] = (50.0, 70.0, 100.0),
        times_days: Sequence[float] | None = None,
        noises: Sequence[float] = (0.03, 0.1, 0.3),
    ) -> "OptimalInterpolation":
        """Choose the scales with the smallest mean score (CRPS of the normal law) over training pairs.

        Args:
            examples: the true field, the area of its points, its tile's climatology, its drifters' measurements and
                its tile's latitude.
            geometry: of the tiles.
            lengths_km: to choose from.
            times_days: to choose from; None: 3, 6, 12, 24 days, in windows of hours so many parts of them.
            noises: to choose from.
        """
        times_days = [time * geometry.scale_s / DAY_S for time in TIMES] if times_days is None else times_days

        def score(candidate: OptimalInterpolation) -> float:
            total = 0.0
            for truth, area, prior, measurements, latitude in examples:
                found = candidate.estimate(prior, measurements, geometry, latitude)
                assert found.std is not None
                crps = gaussian_crps(found.mean, found.std.clamp(min=1e-9), truth.double())
                total += float(weighted_mean(crps, area))
            return total

        return min(itertools.starmap(cls, itertools.product(lengths_km, times_days, noises)), key=score)


def _points(place: Tensor, time_s: Tensor, latitude: float) -> Tensor:
    """Return km east, km north and days, shape (n, 3), on the plane that touches the tile's centre."""
    km = METRES_PER_DEGREE / 1000
    cosine = torch.cos(torch.deg2rad(torch.tensor(latitude, dtype=torch.float64)))
    return torch.stack([place[:, 0] * km * cosine, place[:, 1] * km, time_s / DAY_S], 1)


def _grid(geometry: Geometry) -> tuple[Tensor, Tensor]:
    """Return the places (T H W, 2), degrees east and north of the centre, and times (T H W,) of a tile's points."""
    rows, columns = geometry.cell_degrees
    north = (torch.arange(geometry.height, dtype=torch.float64) - (geometry.height - 1) / 2) * rows
    east = (torch.arange(geometry.width, dtype=torch.float64) - (geometry.width - 1) / 2) * columns
    time, y, x = torch.meshgrid(geometry.time_s, north, east, indexing="ij")
    return torch.stack([x.flatten(), y.flatten()], 1), time.flatten()
