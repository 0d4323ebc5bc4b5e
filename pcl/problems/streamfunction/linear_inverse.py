r"""The encoder of paths that knows the physics: velocities along a path are linear in the coefficients of the flow.

With D the design of a path and w the velocities along it, noise :math:`\sigma` and the prior :math:`N(0, S)`,

.. math:: \hat u = (S^{-1} + D^\top D / \sigma^2)^{-1} D^\top w / \sigma^2

is the Gaussian posterior mean, a ridge regression weighted by the prior: the best encoder one could hope for.

Shapes: B paths, P positions, J of them used, M modes, E embedding.
"""

__all__ = ["LinearInverse", "oracle"]

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from pcl.errors import BadInputError
from pcl.problems.streamfunction.law import StreamfunctionLaw

BLOCK_PATHS = 128  # solved at a time: the waves of a path of 1,000 positions take 0.8 MB


class LinearInverse(nn.Module):
    r"""Posterior mean of the coefficients of the flow given a path, then a map that may be learned.

    Velocities are central differences of fourth order: at the paper's step their truncation (1e-5 of the speed) is
    below what the rounding of stored positions to float32 leaves (1e-4 of it). Everything is solved in float64, in
    units of the prior's standard deviations.

    Args:
        shape: of a path, (P, 2).
        embedding_dim: E, 2 M unless a map is learned.
        position_stride: every how manyth position gives two equations.
        noise: standard deviation of the velocities, widths of the domain per unit of time.
        whiten: give coefficients in units of the prior's standard deviations, as standardised u are.
        learned_map: ``none``; ``linear``, from the identity; or ``mlp``, which adds a network that starts at zero.
        time_step: between two positions.
        law: of the flows, see ``StreamfunctionLaw``.

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
        self.position_stride, self.noise, self.time_step = position_stride, noise, time_step
        self.whiten = whiten
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
        if self.linear is None:
            return u
        embedding: Tensor = self.linear(u)
        return embedding if self.network is None else embedding + self.network(whitened.to(paths.dtype))

    def solve(self, paths: Tensor) -> Tensor:
        """Return the posterior mean in units of the prior's standard deviations, float64, shape (B, 2 M)."""
        x = paths.double()
        used = slice(2, -2, self.position_stride)
        # differences of neighbours first: of nearby numbers they are exact
        near, far = x[:, 3:-1] - x[:, 1:-3], x[:, 4:] - x[:, :-4]
        velocities = ((8 * near - far) / (12 * self.time_step))[:, :: self.position_stride]
        times = self.time_step * torch.arange(x.shape[1], dtype=x.dtype, device=x.device)[used]
        cosine, sine = self.law.phased_waves(x[:, used], times)
        turned = -2 * math.pi * torch.from_numpy(self.law.turned).to(x).repeat(2, 1)  # (2 M, 2)
        turned = turned * torch.from_numpy(self.law.standard_deviations).to(x)[:, None] / self.noise
        # a row of the design is an outer product, so D'D needs the waves alone: half the work
        s = torch.cat([sine, cosine]).transpose(0, 1)  # (B, 2 M, J)
        gram = s @ s.mT * (turned @ turned.T)
        right = ((s @ velocities / self.noise) * turned).sum(-1, keepdim=True)
        gram.diagonal(dim1=-2, dim2=-1).add_(1.0)
        factor = torch.linalg.cholesky(gram)
        return torch.cholesky_solve(right, factor)[..., 0]


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
