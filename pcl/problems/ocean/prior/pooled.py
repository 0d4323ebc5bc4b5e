r"""Covariance of currents as all tiles of an archive show it, pooled: a table over lags in time and in space.

With the anomalies a of currents about climatology over their local amplitude, zero where nothing is known, of all
windows and tiles,

.. math:: C_{ij}(l) = \sum_{x} a_i(x + l)\, a_j(x) \Big/ \sum_x 1,

divided at every lag by the number of points that are known. So it is a covariance, falls to zero at the extent of a
window, and its spectrum is nowhere negative; linear interpolation between lags keeps that, for it multiplies the
spectrum by squares of sinc. Sums are kept by blocks of time: that of some blocks is a covariance too.

Shapes: n and m points, B blocks of time; L = (2 T - 1, 2 H - 1, 2 W - 1) lags of windows of T times and H x W points.
"""

__all__ = ["LagTable", "PooledSums", "WithPooled"]

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from pcl.data.loader import iterate_split
from pcl.data.manifest import Manifest
from pcl.problems.ocean.contract import Origin
from pcl.problems.ocean.evaluation.windows import Geometry
from pcl.problems.ocean.prior.climatology import ClimatologySums, GridClimatology
from pcl.problems.ocean.prior.kernel import (
    FIRST_EXPONENT,
    NUM_WAVES,
    POINTS_AT_ONCE,
    AnomalyKernel,
    CurrentKernel,
    Points,
)
from pcl.problems.ocean.sphere import METRES_PER_DEGREE
from pcl.problems.ocean.tiles import DAY_S
from pcl.storage.place import Place

LEAST_AMPLITUDE = 1e-3  # m/s
POOLED_BYTES = 100_000_000  # at most, of all blocks: fewer where windows are large


@dataclass(frozen=True, eq=False)
class LagTable:
    """Covariance of both components of a current over its amplitude, by lags.

    Attributes:
        values: eastward and northward there against here, shape (2, 2, *L): no lag in the middle; zero beyond.
        step: lags from one entry to the next, days, km north and km east, shape (3,).

    Example:
        >>> white = torch.zeros(2, 2, 3, 3, 3, dtype=torch.float64)
        >>> white[0, 0, 1, 1, 1] = white[1, 1, 1, 1, 1] = 1.0
        >>> table = LagTable(white, torch.tensor([1.0, 10.0, 10.0], dtype=torch.float64))
        >>> here = torch.zeros(1, 3, dtype=torch.float64)
        >>> table.between(here, torch.tensor([[5.0, 0.0, 0.0]], dtype=torch.float64))[0, :, 0, :]
        tensor([[0.5000]], dtype=torch.float64)
    """

    values: Tensor
    step: Tensor

    def between(self, first: Tensor, second: Tensor) -> Tensor:
        """Return covariances at places (n, 3) and (m, 3), km east, km north and days, shape (2, n, 2, m)."""
        half = torch.tensor([(size - 1) / 2 for size in self.values.shape[2:]], dtype=torch.float64)
        scale = (self.step * half.clamp(min=0.5)).flip(0)  # of the order of a place
        lags = ((first / scale)[:, None] - second / scale)[None, :, :, None]
        found = nn.functional.grid_sample(
            self.values.flatten(0, 1)[None], lags, mode="bilinear", padding_mode="zeros", align_corners=True
        )
        return found.reshape(2, 2, len(first), len(second)).transpose(1, 2)

    @property
    def variance(self) -> Tensor:
        """Of both components, shape (2,)."""
        middle = [size // 2 for size in self.values.shape[2:]]
        return torch.stack([self.values[i, i, *middle] for i in range(2)])

    def waves(self, generator: torch.Generator) -> "Waves":
        """Return waves that are drawn from the spectrum."""
        return Waves.of(self, generator)


@dataclass(frozen=True, eq=False)
class Waves:
    r"""Waves whose sum has the covariance of a table.

    .. math:: u(x) = M^{-1/2} \sum_j \operatorname{Re} R_j \zeta_j e^{i k_j \cdot \lfloor x / h + o_j \rfloor}

    with normal complex :math:`\zeta` and :math:`R_j R_j^*` the spectrum at :math:`k_j` over the density from which it
    is drawn. Rounding to lags h from an origin :math:`o_j` that is uniform interpolates the covariance linearly.

    Attributes:
        k: wavenumbers over lags of time, north and east, shape (M, 3).
        origin: of the rounding, shape (M, 3).
        root: R, complex, shape (M, 2, 2).
        step: h, days, km north and km east, shape (3,).
    """

    k: Tensor
    origin: Tensor
    root: Tensor
    step: Tensor

    @classmethod
    def of(cls, table: LagTable, generator: torch.Generator) -> "Waves":
        """Draw M of them, spread evenly over the spectrum."""
        shape = table.values.shape[2:]
        seed = int(torch.randint(2**31, (), generator=generator))
        engine = torch.quasirandom.SobolEngine(7, scramble=True, seed=seed)  # type: ignore[no-untyped-call]
        even = engine.draw(NUM_WAVES, dtype=torch.float64)
        trace = torch.fft.fftn(torch.fft.ifftshift(table.values[0, 0] + table.values[1, 1])).real.clamp(min=0)
        share = (trace / trace.sum()).flatten() * 0.98 + 0.02 / trace.numel()  # within a cell it may rise from zero
        total = share.cumsum(0)
        cell = torch.searchsorted(total / total[-1], even[:, 0].contiguous()).clamp(max=len(total) - 1)
        index = torch.stack(torch.unravel_index(cell, shape), 1)
        k = 2 * math.pi * (index + even[:, 1:4] - 0.5) / torch.tensor(shape, dtype=torch.float64)
        weight = 1 / (len(total) * share[cell])
        return cls(k, even[:, 4:], _root(weight[:, None, None] * _spectrum(table.values, k)), table.step)

    def draw(self, place: Tensor, amplitudes: Tensor) -> Tensor:
        """Return currents at places (n, 3), km east, km north and days, for normal amplitudes (K, 2, 2, M), (K, 2, n).

        Args:
            place: where and when.
            amplitudes: real and imaginary parts of both numbers of every wave.
        """
        zeta = torch.complex(amplitudes[:, 0], amplitudes[:, 1])
        waves = torch.einsum("mij,kjm->kim", self.root, zeta) / math.sqrt(len(self.k))
        blocks = []
        for part in torch.split(place.flip(1) / self.step, POINTS_AT_ONCE):
            angle = (torch.floor(part[:, None] + self.origin) * self.k).sum(-1)
            blocks.append(waves.real @ angle.cos().T - waves.imag @ angle.sin().T)
        return torch.cat(blocks, -1) if blocks else waves.real.new_zeros(*waves.shape[:2], 0)


def _spectrum(values: Tensor, k: Tensor) -> Tensor:
    """Return the spectrum of a table at wavenumbers (M, 3), shape (M, 2, 2)."""
    time, north, east = (
        torch.exp(-1j * k[:, axis, None] * (torch.arange(size, dtype=torch.float64) - size // 2))
        for axis, size in enumerate(values.shape[2:])
    )
    of_east = values.to(torch.complex128) @ east.T  # (2, 2, times, rows, M)
    return torch.einsum("ijtm,mt->mij", (of_east * north.T).sum(3), time)


def _root(spectrum: Tensor) -> Tensor:
    """Return roots of Hermitian matrices (M, 2, 2) that are nowhere negative, up to rounding."""
    values, vectors = torch.linalg.eigh((spectrum + spectrum.mH) / 2)
    root: Tensor = vectors * values.clamp(min=0).sqrt()[:, None].to(vectors.dtype)
    return root


@dataclass(frozen=True, eq=False)
class WithPooled:
    """A kernel and a share of a pooled covariance: covariance of currents as ``CurrentKernel``.

    Attributes:
        kernel: with the amplitude, and the error of measurements.
        share: of the table, a scalar.
        table: pooled.
    """

    kernel: CurrentKernel | AnomalyKernel
    share: Tensor
    table: LagTable

    def __call__(self, first: Points, second: Points) -> Tensor:
        """Return the covariances of currents at two sets of points, m^2 s^-2, shape (2, n, 2, m)."""
        with torch.no_grad():
            table = self.table.between(first.place, second.place)
        scale = self.scale(first)[:, None, None] * self.scale(second)
        covariance: Tensor = self.kernel(first, second) + self.share * table * scale
        return covariance

    def scale(self, points: Points) -> Tensor:
        """Return the amplitude of currents at points, m/s, shape (n,)."""
        return self.kernel.scale(points)

    def noise_variance(self, points: Points) -> Tensor:
        """Return the variance of the error of a velocity at points, m^2 s^-2, shape (n,)."""
        return self.kernel.noise_variance(points)

    @property
    def reach(self) -> Tensor:
        """As of the kernel, shape (3,)."""
        return self.kernel.reach

    def variance(self, points: Points) -> Tensor:
        """Return the variances of both components at points, m^2 s^-2, shape (2, n)."""
        own = self.share * self.table.variance[:, None] * self.scale(points).square()
        return self.kernel.variance(points) + own

    @torch.no_grad()
    def draw(self, points: Points, num_draws: int, generator: torch.Generator) -> Tensor:
        """Draw coherent currents at points, shape (K, 2, n); see ``CurrentKernel.draw``."""
        drawn = self.kernel.draw(points, num_draws, generator)
        waves = self.table.waves(generator)
        amplitudes = torch.randn(num_draws, 2, 2, NUM_WAVES, generator=generator, dtype=torch.float64)
        return drawn + self.share.sqrt() * waves.draw(points.place, amplitudes) * self.scale(points)


@dataclass(frozen=True, eq=False)
class PooledSums:
    """Sums of products of anomalies by lag and by blocks of time.

    Attributes:
        first_s: time at which the first block begins, seconds since 1970-01-01: windows belong to that of their start.
        block_s: length of a block, s.
        window_s: length of a window, s.
        sums: over all pairs of points of a lag, shape (B, 2, 2, *L).
        counts: known points, shape (B,).
        step: as of ``LagTable``.
    """

    first_s: float
    block_s: float
    window_s: float
    sums: Tensor
    counts: Tensor
    step: Tensor

    @classmethod
    def of(cls, root: Place, manifest: Manifest, sums: ClimatologySums, gap_s: float) -> "PooledSums":
        """Read the training split from its shards, record by record.

        Args:
            root: folder of the shards.
            manifest: its manifest.
            sums: of the split: the climatology of a window is that without the time around it.
            gap_s: time before and after a window that is left out too, s.

        Raises:
            DamagedDataError: a shard differs from its manifest.
        """
        geometry = Geometry.of(manifest.source, root / "manifest.json")
        sizes = tuple(2 * size - 1 for size in (len(geometry.time_s), geometry.height, geometry.width))
        number = max(2, min(len(sums.sums), POOLED_BYTES // (32 * math.prod(sizes))))
        block_s = sums.block_s * len(sums.sums) / number
        found = cls(
            sums.first_s,
            block_s,
            geometry.duration_s,
            torch.zeros(number, 2, 2, *sizes, dtype=torch.float64),
            torch.zeros(number, dtype=torch.float64),
            lag_step(geometry),
        )
        level = float(sums.whole().std.square().nanmean().sqrt().clamp(min=LEAST_AMPLITUDE))
        for u, origin in iterate_split(root, manifest, "train", ("u", "origin")):
            found._add(u.double(), origin, geometry, sums, gap_s, level)
        return found

    def _add(
        self, u: Tensor, origin: Tensor, geometry: Geometry, sums: ClimatologySums, gap_s: float, level: float
    ) -> None:
        """Add windows (N, 2, T, H, W)."""
        climatology: GridClimatology | None = None
        release_s = math.nan
        for window, where in zip(u, origin, strict=True):
            place = Origin.of(where)
            if climatology is None or float(place.release_s) != release_s:
                release_s = float(place.release_s)
                climatology = sums.without(release_s, release_s + self.window_s, gap_s)
            rows = int(place.row) + torch.arange(geometry.height)
            columns = (int(place.column) + torch.arange(geometry.width)) % len(geometry.longitude)
            mean, std = (part[:, rows[:, None], columns] for part in (climatology.mean, climatology.std))
            amplitude = std.square().mean(0).sqrt().clamp(min=LEAST_AMPLITUDE)
            anomaly = (window - mean[:, None]) / (level * (amplitude / level) ** FIRST_EXPONENT)
            known = torch.isfinite(anomaly).all(0)
            products = autocovariance(torch.where(known, anomaly, 0.0))
            block = min(max(int((release_s - self.first_s) / self.block_s), 0), len(self.sums) - 1)
            self.sums[block] += _resampled(products, self._ratio(float(place.latitude), geometry))
            self.counts[block] += known.sum()

    def _ratio(self, latitude: float, geometry: Geometry) -> float:
        """Return lags of the table over lags of a tile, east."""
        return float(self.step[2]) / _km_east(latitude, geometry)

    def whole(self) -> LagTable:
        """Return the covariance of all blocks."""
        return self._of(torch.ones(len(self.sums), dtype=torch.bool))

    def without(self, first_s: float, last_s: float, gap_s: float) -> LagTable:
        """Return the covariance without the windows that share time with that around a window, though half stay.

        Args:
            first_s: time of the window's first field, seconds since 1970-01-01.
            last_s: of its last field.
            gap_s: time before and after that is left out too, s.
        """
        starts = self.first_s + self.block_s * torch.arange(len(self.sums), dtype=torch.float64)
        ends = starts + self.block_s + self.window_s
        apart = torch.maximum(starts - last_s, first_s - ends).clamp(min=0)
        kept = torch.ones(len(self.sums), dtype=torch.bool)
        nearest = (starts + ends - first_s - last_s).abs().argsort(stable=True)[: len(self.sums) // 2]
        kept[nearest[apart[nearest] <= gap_s]] = False
        return self._of(kept)

    def _of(self, kept: Tensor) -> LagTable:
        count = self.counts[kept].sum().clamp(min=1)
        return LagTable(self.sums[kept].sum(0) / count, self.step)


def lag_step(geometry: Geometry) -> Tensor:
    """Return the lags of a table, days, km north and km east, shape (3,): those of the tiles nearest the equator."""
    nearest = float(geometry.latitude[geometry.latitude.abs().argmin()])
    north = geometry.cell_degrees[0] * METRES_PER_DEGREE / 1000
    return torch.tensor([geometry.interval_s / DAY_S, north, _km_east(nearest, geometry)], dtype=torch.float64)


def _km_east(latitude: float, geometry: Geometry) -> float:
    return geometry.cell_degrees[1] * METRES_PER_DEGREE / 1000 * math.cos(math.radians(latitude))


def autocovariance(anomaly: Tensor) -> Tensor:
    """Return sums of products of a window (2, T, H, W) with itself by lag, shape (2, 2, 2 T - 1, 2 H - 1, 2 W - 1)."""
    sizes = anomaly.shape[1:]
    shape = [2 * size for size in sizes]
    wave = torch.fft.rfftn(anomaly, shape, dim=(1, 2, 3))
    sums = torch.fft.irfftn(wave[:, None] * wave.conj(), shape, dim=(2, 3, 4))
    sums = torch.roll(sums, [size - 1 for size in sizes], (2, 3, 4))
    return sums[:, :, : 2 * sizes[0] - 1, : 2 * sizes[1] - 1, : 2 * sizes[2] - 1]


def _resampled(values: Tensor, ratio: float) -> Tensor:
    """Return values by lag, interpolated linearly on lags east that are so many times as long; zero beyond."""
    half = values.shape[-1] // 2
    at = ratio * torch.arange(-half, half + 1, dtype=torch.float64) + half + 1
    below = at.floor().long().clamp(0, 2 * half + 1)
    share = (at - below).clamp(0, 1)
    padded = nn.functional.pad(values, (1, 1))
    return (1 - share) * padded[..., below] + share * padded[..., below + 1]
