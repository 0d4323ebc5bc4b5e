r"""A law of random flows on the unit torus, and the paths of particles in them (THEORY 6.4).

.. math::
    \psi(x, t) = \operatorname{Re} \sum_k \psi_k e^{i \omega_k t} e^{2 \pi i k \cdot x}, \qquad
    w = J \nabla \psi = (-\partial_2 \psi, \partial_1 \psi), \qquad J = \begin{pmatrix} 0 & -1 \\ 1 & 0 \end{pmatrix}

J turns a gradient by +90 degrees: the flow leaves larger values of psi on its left. The coefficients are the real
vector u = (Re psi_1 .. Re psi_M, Im psi_1 .. Im psi_M), independent and Gaussian. Velocities are linear in u.

Shapes: N flows, M modes, J positions along a path. Lengths are widths of the domain.
"""

__all__ = ["Flow", "StreamfunctionLaw", "half_plane", "phased_waves", "waves"]

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from pcl.advection import choose_step, integrate
from pcl.errors import BadInputError


def half_plane(num_modes: int) -> np.ndarray:
    """Return the wavenumbers of a half plane that are nearest the origin, without zero.

    One of k and -k is enough under the real part, and k = 0 moves nothing. Ties go to the smaller k_1, then k_2.

    Args:
        num_modes: M.

    Returns:
        Integers (k_1, k_2) with k_1 > 0, or k_1 = 0 and k_2 > 0; shape (M, 2).

    Example:
        >>> half_plane(4).tolist()
        [[0, 1], [1, 0], [1, -1], [1, 1]]
    """
    reach = math.isqrt(num_modes) + 1  # the half disc of this radius holds more than num_modes points
    candidates = [(a, b) for a in range(reach + 1) for b in range(-reach, reach + 1) if a > 0 or b > 0]
    return np.array(sorted(candidates, key=lambda k: (k[0] ** 2 + k[1] ** 2, k))[:num_modes])


def waves(wavenumbers: Tensor, positions: Tensor, reach: Sequence[int] | None = None) -> tuple[Tensor, Tensor]:
    r"""Return :math:`\cos` and :math:`\sin` of :math:`2 \pi k \cdot x`: one pair a coordinate, powers by recurrence.

    Args:
        wavenumbers: integers, shape (M, 2), with k_1 >= 0.
        positions: shape (..., 2).
        reach: the largest |k_1| and |k_2|, where they are known.

    Returns:
        Two tensors of shape (M, ...): modes first, so that sums over modes are matrix products.

    Example:
        >>> cosine, sine = waves(torch.tensor([[1, -1]]), torch.tensor([[0.5, 0.25]]))
        >>> cosine.round(decimals=3).abs(), sine.round(decimals=3)
        (tensor([[0.]]), tensor([[1.]]))
    """
    angles = 2 * math.pi * positions
    largest = wavenumbers.abs().amax(0).tolist() if reach is None else reach
    (c1, s1), (c2, s2) = (_powers(angles[..., axis], largest[axis]) for axis in (0, 1))
    first, second = wavenumbers[:, 0], wavenumbers[:, 1]
    sign = second.sign().to(positions.dtype).reshape(-1, *[1] * (positions.ndim - 1))
    a, b = c1.index_select(0, first), s1.index_select(0, first)
    c, d = c2.index_select(0, second.abs()), s2.index_select(0, second.abs()) * sign
    return a * c - b * d, a * d + b * c


def phased_waves(wavenumbers: Tensor, frequencies: Tensor, positions: Tensor, times: Tensor) -> tuple[Tensor, Tensor]:
    r"""Return :math:`\cos` and :math:`\sin` of :math:`\theta_k = 2 \pi k \cdot x_j + \omega_k t_j`.

    Args:
        wavenumbers: integers, shape (M, 2), with k_1 >= 0.
        frequencies: omega, rad per unit of time, shape (M,).
        positions: shape (..., J, 2).
        times: shape (J,).

    Returns:
        Two tensors of shape (M, ..., J).

    Example:
        >>> k, omega = torch.tensor([[1, 0]]), torch.tensor([math.pi])
        >>> cosine, _ = phased_waves(k, omega, torch.tensor([[0.25, 0.0]]), torch.tensor([0.5]))  # a full half turn
        >>> cosine
        tensor([[-1.]])
    """
    cosine, sine = waves(wavenumbers, positions)
    angles = frequencies[:, None] * times
    shape = (len(wavenumbers), *[1] * (positions.ndim - 2), len(times))
    c, s = angles.cos().reshape(shape), angles.sin().reshape(shape)
    return cosine * c - sine * s, sine * c + cosine * s


def _powers(angles: Tensor, reach: int) -> tuple[Tensor, Tensor]:
    """Return cos and sin of 0, 1 .. reach times the angles, shape (reach + 1, ...)."""
    cosine, sine = [torch.ones_like(angles)], [torch.zeros_like(angles)]
    if reach:
        cosine.append(angles.cos())
        sine.append(angles.sin())
    for _ in range(reach - 1):
        cosine.append(cosine[-1] * cosine[1] - sine[-1] * sine[1])
        sine.append(sine[-1] * cosine[1] + cosine[-2] * sine[1])
    return torch.stack(cosine), torch.stack(sine)


@dataclass(frozen=True)
class StreamfunctionLaw:
    r"""The law of the flows, and where and how long a particle is followed.

    A coefficient, real or imaginary part, has the standard deviation :math:`\sigma_k = s |k|^{-\text{decay}}`. The
    scale s makes the mean length of a path ``mean_path``, exactly: the flow is divergence free and its law does not
    change under translations, so what a particle meets has the law of what a fixed point sees (Lumley 1962), and

    .. math::
        \text{mean path} = T\, \mathbb E |w|, \qquad
        \mathbb E |w| = \sqrt{\tfrac{\pi}{2}}\; \frac{1}{2 \pi} \int_0^{2 \pi} \sqrt{e(\theta)^\top C e(\theta)}\,
        d\theta, \qquad C = 4 \pi^2 \sum_k \sigma_k^2\, (J k)(J k)^\top .

    Attributes:
        num_modes: M, see ``half_plane``.
        decay: of the standard deviations.
        mean_path: widths of the domain.
        frequency_std: standard deviation of the angular frequencies omega_k, rad per unit of time.
        law_seed: of the frequencies.
        start: where every path starts, widths of the domain.
        duration: T, unit of time.
        num_positions: recorded on a path, the first at the start, the last at T.

    Raises:
        BadInputError: a number is impossible.

    References:
        arXiv:2505.24134, sections 1.2 and 6.3; THEORY 6.4.

    Example:
        >>> law = StreamfunctionLaw(num_modes=4, num_positions=11)
        >>> u = law.sample(3, np.random.default_rng(0))
        >>> law.paths(torch.from_numpy(u)).shape
        torch.Size([3, 11, 2])
    """

    num_modes: int = 49
    decay: float = 2.0
    mean_path: float = 3.0
    frequency_std: float = 2 * math.pi
    law_seed: int = 0
    start: Sequence[float] = (0.75, 0.75)
    duration: float = 0.1
    num_positions: int = 1000

    def __post_init__(self) -> None:
        if self.num_modes < 1 or self.num_positions < 2 or self.law_seed < 0 or len(self.start) != 2:
            raise BadInputError(
                f"num_modes={self.num_modes}, num_positions={self.num_positions}, law_seed={self.law_seed}, "
                f"start={list(self.start)}: at least 1 mode, 2 positions and seed 0, and a start of two coordinates"
            )
        if not (0 < self.mean_path < math.inf and 0 < self.duration < math.inf and 0 <= self.frequency_std < math.inf):
            raise BadInputError(
                f"mean_path={self.mean_path}, duration={self.duration}, frequency_std={self.frequency_std}: "
                "the first two must be positive, the last at least 0, all finite"
            )
        if not all(map(math.isfinite, (self.decay, *self.start))):
            raise BadInputError(f"decay={self.decay}, start={list(self.start)}: they must be finite")

    @property
    def time_step(self) -> float:
        """Time between two recorded positions."""
        return self.duration / (self.num_positions - 1)

    @cached_property
    def wavenumbers(self) -> np.ndarray:
        """k, integers of shape (M, 2)."""
        return half_plane(self.num_modes)

    @cached_property
    def turned(self) -> np.ndarray:
        """J k, shape (M, 2)."""
        return np.stack([-self.wavenumbers[:, 1], self.wavenumbers[:, 0]], 1)

    @cached_property
    def frequencies(self) -> np.ndarray:
        """omega_k, rad per unit of time, shape (M,)."""
        return np.random.default_rng(self.law_seed).normal(0.0, self.frequency_std, self.num_modes)

    @cached_property
    def standard_deviations(self) -> np.ndarray:
        """Those of the 2 M real coefficients, in the order of u."""
        shape = np.linalg.norm(self.wavenumbers, axis=1) ** -self.decay
        weighted = 2 * math.pi * shape[:, None] * self.turned
        angles = np.arange(256) * (2 * math.pi / 256)  # the trapezoidal rule is spectrally exact on a circle
        directions = np.stack([np.cos(angles), np.sin(angles)])
        mean_speed = math.sqrt(math.pi / 2) * np.linalg.norm(weighted @ directions, axis=0).mean()
        scale = self.mean_path / (self.duration * mean_speed)
        return np.tile(scale * shape, 2)

    def sample(self, count: int, generator: np.random.Generator) -> np.ndarray:
        """Draw coefficients.

        Args:
            count: N.
            generator: of the draws.

        Returns:
            u, float64, shape (N, 2 M).
        """
        u: np.ndarray = generator.standard_normal((count, 2 * self.num_modes)) * self.standard_deviations
        return u

    def paths(self, u: Tensor, substeps: int = 1) -> Tensor:
        """Follow one particle in every flow, by RK4.

        Args:
            u: coefficients, float64, shape (N, 2 M).
            substeps: steps between two recorded positions.

        Returns:
            Positions that are not wrapped, shape (N, num_positions, 2).
        """
        start = torch.tensor(self.start, dtype=u.dtype).expand(len(u), 2)
        num_steps = (self.num_positions - 1) * substeps
        return integrate(Flow(self, u), start, 0.0, self.time_step / substeps, num_steps, substeps).transpose(0, 1)

    def choose_substeps(self, tolerance: float, num_flows: int = 64) -> tuple[int, float]:
        """Return the steps between two recorded positions, and the difference to half of the step that was found.

        Args:
            tolerance: largest difference, over flows drawn from ``law_seed`` and positions, widths of the domain.
            num_flows: flows to try.

        Raises:
            BadInputError: no step reaches the tolerance.
        """
        u = torch.from_numpy(self.sample(num_flows, np.random.default_rng([self.law_seed, 1])))
        start = torch.tensor(self.start, dtype=u.dtype).expand(len(u), 2)
        return choose_step(Flow(self, u), start, 0.0, self.time_step, self.num_positions - 1, tolerance)

    def phased_waves(self, positions: Tensor, times: Tensor) -> tuple[Tensor, Tensor]:
        r"""Return :math:`\cos` and :math:`\sin` of :math:`\theta_k = 2 \pi k \cdot x_j + \omega_k t_j`.

        Args:
            positions: shape (..., J, 2).
            times: shape (J,).

        Returns:
            Two tensors of shape (M, ..., J).
        """
        frequencies = torch.from_numpy(self.frequencies).to(times)
        return phased_waves(torch.from_numpy(self.wavenumbers).to(positions.device), frequencies, positions, times)

    def streamfunction(self, u: Tensor, positions: Tensor, times: Tensor) -> Tensor:
        """Return psi of flows at positions and times.

        Args:
            u: shape (..., 2 M).
            positions: shape (..., J, 2).
            times: shape (J,).

        Returns:
            Shape (..., J), in squared widths of the domain per unit of time.
        """
        cosine, sine = self.phased_waves(positions, times)
        return torch.einsum("...k,k...j->...j", u, torch.cat([cosine, -sine]))

    def design(self, positions: Tensor, times: Tensor) -> Tensor:
        r"""Return the matrix with which velocities along a path are linear in the coefficients.

        .. math:: D u = (w(x_j, t_j))_j, \qquad
            D_{j \cdot} = 2 \pi\, (-J k) \otimes (\sin \theta_k, \cos \theta_k)

        Args:
            positions: shape (..., J, 2).
            times: shape (J,).

        Returns:
            Shape (..., J, 2, 2 M).

        Example:
            >>> law = StreamfunctionLaw(num_modes=3)
            >>> law.design(torch.rand(5, 7, 2), torch.linspace(0, 0.1, 7)).shape
            torch.Size([5, 7, 2, 6])
        """
        cosine, sine = self.phased_waves(positions, times)
        turned = -2 * math.pi * torch.from_numpy(self.turned).to(positions)
        parts = torch.stack([sine, cosine], -1)  # (M, ..., J, 2 parts)
        return torch.einsum("ki,k...jp->...jipk", turned, parts).flatten(-2)


class Flow:
    r"""The velocity of N flows, each at the position of its own particle: a ``Velocity`` for ``integrate``.

    With z = exp(2 pi i x) the sum over modes is a polynomial in z_1 and z_2; the inner one is summed first:

    .. math::
        w = -2 \pi \operatorname{Im} \sum_{k_1} z_1^{k_1} \sum_{k_2} J k\, \psi_k e^{i \omega_k t}\, z_2^{k_2}

    The layout is a grid of wavenumbers (k_1, k_2) with the flows last, so that every operation runs along flows.

    Args:
        law: of the flows.
        u: coefficients, shape (N, 2 M).

    Example:
        >>> law = StreamfunctionLaw(num_modes=4)
        >>> Flow(law, torch.ones(3, 8))(0.0, torch.zeros(3, 2)).shape
        torch.Size([3, 2])
    """

    def __init__(self, law: StreamfunctionLaw, u: Tensor) -> None:
        first, second = torch.from_numpy(law.wavenumbers).T
        self.reach = reach = (int(first.max()), int(second.abs().max()))
        shape = (reach[0] + 1, 2 * reach[1] + 1)
        self.coefficients = torch.zeros(*shape, len(u), dtype=u.dtype.to_complex())
        self.coefficients[first, second + reach[1]] = torch.complex(*u.chunk(2, 1)).T
        self.frequencies = torch.zeros(shape, dtype=u.dtype)
        self.frequencies[first, second + reach[1]] = torch.from_numpy(law.frequencies).to(u)
        across = torch.arange(-reach[1], reach[1] + 1, dtype=u.dtype)
        self.weights = torch.stack([2 * math.pi * across, torch.full_like(across, -2 * math.pi)])
        self.first = torch.arange(reach[0] + 1, dtype=u.dtype)[:, None]
        # results of every call go to the same memory: mapping megabytes anew would cost more than the arithmetic
        self.time, self.phased = math.nan, torch.empty_like(self.coefficients)
        self.terms = torch.empty_like(self.coefficients)
        self.inner = self.terms.new_empty(shape[0], 2, len(u))
        self.powers = torch.ones(max(reach) + 1, 2, len(u), dtype=self.terms.dtype)
        self.across = self.terms.new_empty(shape[1], len(u))

    def __call__(self, time: float, positions: Tensor) -> Tensor:
        """Return velocities, shape (N, 2), of positions, shape (N, 2)."""
        if time != self.time:  # RK4 asks twice in a row for each time
            phase = torch.polar(torch.ones_like(self.frequencies), self.frequencies * time)
            torch.mul(self.coefficients, phase[..., None], out=self.phased)
            self.time = time
        self._raise_powers(positions)
        torch.mul(self.phased, self.across, out=self.terms)
        inner = torch.view_as_real(self.inner).flatten(2)  # views: real products, (k_1, 2, 2 N)
        torch.matmul(self.weights, torch.view_as_real(self.terms).flatten(2), out=inner)
        terms = self.inner.mul_(self.powers[: len(self.first), :1]).imag
        return torch.stack([terms[:, 0].sum(0), (terms[:, 1] * self.first).sum(0)], -1)

    def _raise_powers(self, positions: Tensor) -> None:
        """Compute the powers of z_1 and z_2 by recurrence."""
        angles = 2 * math.pi * positions.T
        base = torch.complex(angles.cos(), angles.sin())
        for n in range(1, len(self.powers)):
            torch.mul(self.powers[n - 1], base, out=self.powers[n])
        reach = self.reach[1]
        self.across[reach:] = self.powers[: reach + 1, 1]
        torch.conj_physical(self.powers[1 : reach + 1, 1].flip(0), out=self.across[:reach])
