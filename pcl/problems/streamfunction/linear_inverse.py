r"""The encoder of paths that knows the physics: velocities along a path are linear in the coefficients of the flow.

With D the design of a path and w the velocities along it, noise :math:`\sigma` and the prior :math:`N(0, S)`,

.. math:: \hat u = (S^{-1} + D^\top D / \sigma^2)^{-1} D^\top w / \sigma^2

is the Gaussian posterior mean, a ridge regression weighted by the prior: the best encoder one could hope for.

Shapes: B paths, P positions, J of them used, M modes, E embedding.
"""

__all__ = ["LinearInverse", "Motion", "oracle", "posterior_mean"]

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from pcl.encoders.potential import Quadratic
from pcl.errors import BadInputError
from pcl.problems.streamfunction.law import StreamfunctionLaw, phased_waves

BLOCK_PATHS = 128  # solved at a time: the waves of a path of 1,000 positions take 0.8 MB


class Motion(NamedTuple):
    """Positions of used points of paths (B, J, 2), velocities there (B, J, 2), and times (J,), float64."""

    positions: Tensor
    velocities: Tensor
    times: Tensor

    @classmethod
    def along(cls, paths: Tensor, time_step: float, stride: int) -> "Motion":
        """Return positions and velocities along paths (B, P, 2), at every how manyth position that has two neighbours.

        Velocities are central differences of fourth order: at the paper's step their truncation (1e-5 of the speed) is
        below what the rounding of stored positions to float32 leaves (1e-4 of it).
        """
        x = paths.double()
        used = slice(2, -2, stride)
        # differences of neighbours first: of nearby numbers they are exact
        near, far = x[:, 3:-1] - x[:, 1:-3], x[:, 4:] - x[:, :-4]
        velocities = ((8 * near - far) / (12 * time_step))[:, ::stride]
        times = time_step * torch.arange(x.shape[1], dtype=x.dtype, device=x.device)[used]
        return cls(x[:, used], velocities, times)


def posterior_mean(
    motion: Motion, wavenumbers: Tensor, frequencies: Tensor, deviations: Tensor, noise: float | Tensor
) -> Tensor:
    r"""Return the posterior mean of coefficients in units of the prior's standard deviations, float64, shape (B, 2 M).

    Args:
        motion: along the paths.
        wavenumbers: k, integers, shape (M, 2).
        frequencies: omega, shape (M,).
        deviations: standard deviations of the coefficients, shape (2 M,).
        noise: standard deviation of the velocities.
    """
    x = motion.positions
    cosine, sine = phased_waves(wavenumbers.to(x.device), frequencies.to(x), x, motion.times)
    turned = torch.stack([-wavenumbers[:, 1], wavenumbers[:, 0]], 1)  # J k
    turned = -2 * math.pi * turned.to(x).repeat(2, 1)  # (2 M, 2)
    turned = turned * deviations.to(x)[:, None] / noise
    # a row of the design is an outer product, so D'D needs the waves alone: half the work
    s = torch.cat([sine, cosine]).transpose(0, 1)  # (B, 2 M, J)
    gram = s @ s.mT * (turned @ turned.T)
    right = ((s @ motion.velocities / noise) * turned).sum(-1, keepdim=True)
    factor = torch.linalg.cholesky(gram + torch.eye(gram.shape[-1], dtype=x.dtype, device=x.device))
    return torch.cholesky_solve(right, factor)[..., 0]


class LinearInverse(nn.Module):
    r"""Posterior mean of the coefficients of the flow given a path, then a map that may be learned.

    Everything is solved in float64, in units of the prior's standard deviations.

    Args:
        shape: of a path, (P, 2).
        embedding_dim: E, 2 M unless a map is learned.
        position_stride: every how manyth position gives two equations.
        noise: standard deviation of the velocities, widths of the domain per unit of time.
        whiten: give coefficients in units of the prior's standard deviations, as standardised u are.
        learned_map: ``none``; ``linear``, from the identity; or ``mlp``, which adds a network that starts at zero.
        time_step: between two positions.
        law: of the flows, see ``StreamfunctionLaw``.
        potential: whether a potential follows, a square of the coefficients.

    Raises:
        BadInputError: the path is too short, or a number does not fit.

    References:
        THEORY 6.4.

    Example:
        >>> law = {"num_modes": 4, "num_positions": 50}
        >>> encoder = LinearInverse((50, 2), 8, position_stride=1, noise=0.1, learned_map="none", time_step=0.002,
        ...     law=law)
        >>> encoder(torch.rand(3, 50, 2)).shape
        torch.Size([3, 8])
    """

    def __init__(
        self,
        shape: Sequence[int],
        embedding_dim: int,
        *,
        position_stride: int = 1,
        noise: float,
        whiten: bool = True,
        learned_map: str = "none",
        time_step: float,
        law: Mapping[str, Any],
        potential: bool = False,
    ) -> None:
        super().__init__()
        self.law = StreamfunctionLaw(**law)
        size = 2 * self.law.num_modes
        if len(shape) != 2 or shape[1] != 2 or shape[0] < 5:
            raise BadInputError(f"the linear_inverse encoder takes paths (positions >= 5, 2), not shape {tuple(shape)}")
        if position_stride < 1 or not 0 < noise < math.inf:
            raise BadInputError(
                f"model.linear_inverse: position_stride={position_stride} and noise={noise} must be at least 1 and "
                "positive"
            )
        if learned_map == "none" and embedding_dim != size:
            raise BadInputError(
                f"the linear_inverse encoder has {size} coefficients but model.embedding_dim is {embedding_dim}: set "
                "them equal, or learn a map (model.linear_inverse.learned_map)"
            )
        self.position_stride, self.noise, self.time_step, self.whiten = position_stride, noise, time_step, whiten
        self.potential = Quadratic(size, embedding_dim) if potential else None
        self.linear, self.network = None, None
        if learned_map in ("linear", "mlp"):
            self.linear = nn.Linear(size, embedding_dim)
            nn.init.eye_(self.linear.weight)
            nn.init.zeros_(self.linear.bias)
        if learned_map == "mlp":
            last = nn.Linear(4 * size, embedding_dim)
            nn.init.zeros_(last.weight)
            nn.init.zeros_(last.bias)
            self.network = nn.Sequential(nn.Linear(size, 4 * size), nn.GELU(), last)

    def forward(self, paths: Tensor) -> Tensor:
        """Map paths (B, P, 2), not wrapped, to (B, E)."""
        whitened = torch.cat([self.solve(block) for block in torch.split(paths, BLOCK_PATHS)])
        u = whitened if self.whiten else whitened * torch.from_numpy(self.law.standard_deviations).to(whitened)
        u = u.to(paths.dtype)
        embedding: Tensor = u if self.linear is None else self.linear(u)
        if self.network is not None:
            embedding = embedding + self.network(whitened.to(paths.dtype))
        return embedding if self.potential is None else torch.cat([embedding, self.potential(u)], 1)

    def solve(self, paths: Tensor) -> Tensor:
        """Return the posterior mean in units of the prior's standard deviations, float64, shape (B, 2 M)."""
        law = self.law
        wavenumbers, frequencies, deviations = map(
            torch.from_numpy, (law.wavenumbers, law.frequencies, law.standard_deviations)
        )
        motion = Motion.along(paths, self.time_step, self.position_stride)
        return posterior_mean(motion, wavenumbers, frequencies, deviations, self.noise)


def oracle(source: Mapping[str, Any], *, position_stride: int = 4, noise: float = 0.003) -> LinearInverse:
    """Return the encoder of paths that knows the physics and learns nothing.

    Args:
        source: of a manifest whose source is ``streamfunction``: it holds ``law`` and ``time_step``.
        position_stride: see ``LinearInverse``.
        noise: see ``LinearInverse``.

    Example:
        >>> oracle({"law": {"num_modes": 4, "num_positions": 50}, "time_step": 0.002})(torch.rand(3, 50, 2)).shape
        torch.Size([3, 8])
    """
    law = source["law"]
    return LinearInverse(
        (law.get("num_positions", StreamfunctionLaw.num_positions), 2),
        2 * law["num_modes"],
        position_stride=position_stride,
        noise=noise,
        time_step=source["time_step"],
        law=law,
    )
