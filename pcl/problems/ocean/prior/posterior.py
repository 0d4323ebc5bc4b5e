r"""Posterior of currents given measured velocities, under a Gaussian prior: optimal interpolation, whole.

.. math::
    m_v = m + K_{\cdot o} (K_{oo} + R)^{-1} (y - m_o), \qquad C_v = K - K_{\cdot o} (K_{oo} + R)^{-1} K_{o \cdot}

Members are coherent in space and time: draws of the prior that Matheron's rule conditions,
:math:`u + K_{\cdot o} (K_{oo} + R)^{-1} (y - u_o - e)`.

Some weeks are livelier than others, and errors have longer tails than a normal law. All covariances are multiplied by

.. math:: f = c\, \frac{\nu + w^T K_{oo} w}{\nu + \operatorname{tr} (K_{oo} + R)^{-1} K_{oo}},
    \qquad w = (K_{oo} + R)^{-1} y

what the measurements say of the current's energy over what was expected of them, with :math:`\nu` degrees of freedom,
and an inflation c; the mean stays. The law of a point is Student's, of degrees of freedom of its own, and has a share q
of the amplitude's square :math:`s^2` more, :math:`c\, q\, s^2`: what no covariance of smooth currents resolves.

Shapes: n measurements, m targets, K members.
"""

__all__ = ["Measured", "Posterior", "Spread"]

import math
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from pcl.problems.ocean.evaluation.point_law import PointLaw
from pcl.problems.ocean.prior.kernel import POINTS_AT_ONCE, AnomalyKernel, CurrentKernel, Points
from pcl.problems.ocean.prior.pooled import WithPooled


@dataclass(frozen=True)
class Measured:
    """Velocities less the prior's mean.

    Attributes:
        points: where and when.
        anomaly: m/s, east and north, shape (2, n).
        variance: of the error of each, m^2 s^-2, shape (n,).
    """

    points: Points
    anomaly: Tensor
    variance: Tensor


@dataclass(frozen=True, eq=False)
class Spread:
    """How sure the posterior is, four scalars.

    Attributes:
        freedom: degrees of freedom nu of the energy.
        inflation: c, of all variances.
        unresolved: q, variance over the square of the amplitude that a point has beside that of the covariance.
        degrees: of freedom of Student's law of a point.
    """

    freedom: Tensor
    inflation: Tensor
    unresolved: Tensor
    degrees: Tensor

    def law(self, mean: Tensor, variance: Tensor, amplitude: Tensor) -> PointLaw:
        """Return the law of points.

        Args:
            mean: of each, m/s, shape (2, m).
            variance: that the covariance gives, f and c in it, m^2 s^-2, shape (2, m).
            amplitude: s, m/s, shape (m,).
        """
        std = (variance + self.inflation * self.unresolved * amplitude.square()).sqrt()
        return PointLaw(mean, std, self.degrees)


@dataclass(frozen=True, eq=False)
class Posterior:
    """The law of currents given measurements: differentiable in the kernel.

    Attributes:
        kernel: covariance of the prior.
        measured: what was measured; with nothing, the posterior is the prior.
        spread: how sure it is; None: as the covariance says, and the laws of points are normal.
    """

    kernel: CurrentKernel | AnomalyKernel | WithPooled
    measured: Measured
    spread: Spread | None = None

    @cached_property
    def energy(self) -> Tensor:
        """f, by which covariances are multiplied, a scalar."""
        if self.spread is None:
            return torch.ones((), dtype=torch.float64)
        weights = torch.linalg.solve_triangular(self._root.T, self._whitened, upper=True)[:, 0]
        error = self.measured.variance.repeat(2)
        found = self._whitened.square().sum() - (error * weights.square()).sum()
        expected = len(error) - (error * torch.cholesky_inverse(self._root).diagonal()).sum()
        nu = self.spread.freedom
        energy: Tensor = self.spread.inflation * (nu + found) / (nu + expected)
        return energy

    @cached_property
    def _root(self) -> Tensor:
        """Lower triangular root of K_oo + R, shape (2 n, 2 n)."""
        points, size = self.measured.points, 2 * len(self.measured.points)
        rows = [self.kernel(block, points) for block in _blocks(points)]  # what makes them takes several times as much
        covariance = torch.cat(rows, 1).reshape(size, size)
        root: Tensor = torch.linalg.cholesky(covariance + torch.diag(self.measured.variance.repeat(2)))
        return root

    @cached_property
    def _whitened(self) -> Tensor:
        """The anomalies in units in which they are white, shape (2 n, 1)."""
        return self._solve(self.measured.anomaly.reshape(-1, 1))

    def _solve(self, right: Tensor) -> Tensor:
        solved: Tensor = torch.linalg.solve_triangular(self._root, right, upper=False)
        return solved

    def _half(self, targets: Points) -> Tensor:
        """Return the covariance of white anomalies and currents at targets, shape (2 n, 2 m)."""
        size = 2 * len(self.measured.points)
        return self._solve(self.kernel(self.measured.points, targets).reshape(size, 2 * len(targets)))

    def mean_and_variance(self, targets: Points) -> tuple[Tensor, Tensor]:
        """Return the mean of the anomaly, m/s, and its variance at targets, shape (2, m) each."""
        means, variances = [], []
        for block in _blocks(targets):
            half = self._half(block)
            means.append((half.T @ self._whitened).reshape(2, -1))
            explained = half.square().sum(0).reshape(2, -1)
            variances.append(self.energy * (self.kernel.variance(block) - explained).clamp(min=0))
        return torch.cat(means, 1), torch.cat(variances, 1)

    def mean_and_covariance(self, targets: Points) -> tuple[Tensor, Tensor]:
        """Return the mean of the anomaly at targets, (2 m,), and its covariance, (2 m, 2 m): the east of all first."""
        half, size = self._half(targets), 2 * len(targets)
        covariance = self.kernel(targets, targets).reshape(size, size) - half.T @ half
        return (half.T @ self._whitened)[:, 0], self.energy * covariance

    def log_evidence(self) -> Tensor:
        """Return the log-density of what was measured under the prior, errors included, a scalar, nats."""
        white, size = self._whitened, 2 * len(self.measured.points)
        volume = self._root.diagonal().log().sum() + size / 2 * math.log(2 * math.pi)
        density: Tensor = -white.square().sum() / 2 - volume
        return density

    def log_density(self, targets: Points, anomaly: Tensor, error_variance: Tensor) -> Tensor:
        """Return the log-density of anomalies at targets, a scalar, nats.

        Args:
            targets: m points.
            anomaly: shape (2, m).
            error_variance: of what is compared, m^2 s^-2, shape (m,): with none, points that lie close have a
                covariance that is singular to rounding.
        """
        mean, covariance = self.mean_and_covariance(targets)
        root = torch.linalg.cholesky(covariance + self.energy * torch.diag(error_variance.repeat(2)))
        white = torch.linalg.solve_triangular(root, (anomaly.reshape(-1) - mean)[:, None], upper=False)
        log_volume = root.diagonal().log().sum() + len(mean) / 2 * math.log(2 * math.pi)
        density: Tensor = -white.square().sum() / 2 - log_volume
        return density

    @torch.no_grad()
    def members(self, targets: Points, num_members: int, generator: torch.Generator) -> Tensor:
        """Draw anomalies at targets by Matheron's rule, shape (K, 2, m).

        Draws at some targets and at others, of generators in the same state, are of one field.

        Args:
            targets: where and when.
            num_members: K.
            generator: of the draws.
        """
        return self.conditioned(*self.draw_prior(targets, num_members, generator), targets)

    def draw_prior(self, targets: Points, num_members: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Draw anomalies of the prior at the measurements and the targets, (K, 2, n + m), and errors, (K, 2, n)."""
        points = self.measured.points
        together = Points(torch.cat([points.place, targets.place]), torch.cat([points.amplitude, targets.amplitude]))
        prior = self.kernel.draw(together, num_members, generator)
        noise = torch.randn(num_members, 2, len(points), generator=generator, dtype=torch.float64)
        return prior, noise * self.measured.variance.sqrt()

    def conditioned(self, prior: Tensor, noise: Tensor, targets: Points) -> Tensor:
        """Return draws of the prior and of errors, see ``draw_prior``, conditioned by the measurements, (K, 2, m)."""
        number, root = noise.shape[-1], self.energy.sqrt()
        seen = self.measured.anomaly - root * (prior[..., :number] + noise)
        white = self._solve(seen.flatten(1).T)
        shift = [(white.T @ self._half(block)).reshape(len(prior), 2, len(block)) for block in _blocks(targets)]
        return root * prior[..., number:] + torch.cat(shift, -1)


def _blocks(points: Points) -> list[Points]:
    return [points[start : start + POINTS_AT_ONCE] for start in range(0, max(1, len(points)), POINTS_AT_ONCE)]
