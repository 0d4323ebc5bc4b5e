r"""An encoder of paths that knows the equation of motion and the Fourier basis, and learns the law of the flows.

Shapes: B paths, P positions, M modes, E embedding.
"""

__all__ = ["LearnedInverse", "learned_inverse_of"]

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from pcl.errors import BadInputError
from pcl.problems.streamfunction.law import half_plane
from pcl.problems.streamfunction.linear_inverse import BLOCK_PATHS, Motion, posterior_mean


class LearnedInverse(nn.Module):
    r"""Posterior mean of the coefficients of the flow given a path, under a law that is learned.

    .. math:: \hat u = S^{-1/2} (S^{-1} + D_\omega^\top D_\omega / \sigma^2)^{-1} D_\omega^\top w / \sigma^2

    It learns the frequencies :math:`\omega` (from 0), the standard deviations of the coefficients, S (from those of
    the training flows), the noise :math:`\sigma`, which stands for the error of the law and so begins large, and a
    linear map (from the identity). Everything is solved in float64.

    Each of them has a pace of its own: its value is its start plus a rate times what Adam moves. Learn them at a high
    temperature: a low one looks only at the few paths that say little of their flow.

    Args:
        shape: of a path, (P, 2).
        embedding_dim: E.
        position_stride: every how manyth position gives two equations.
        noise: first standard deviation of the velocities, widths of the domain per unit of time.
        frequency_rate: of the frequencies, rad per unit of time.
        scale_rate: of the logarithms of standard deviations and noise.
        map_rate: of the linear map.
        time_step: between two positions.
        partner_std: standard deviations of the coefficients of the training flows, 2 M.

    Raises:
        BadInputError: the path is too short, or the coefficients are not pairs.

    References:
        THEORY 9.3.

    Example:
        >>> encoder = LearnedInverse((50, 2), 8, position_stride=1, time_step=0.002, partner_std=[1.0] * 8)
        >>> encoder(torch.rand(3, 50, 2)).shape, encoder.frequencies.tolist()
        (torch.Size([3, 8]), [0.0, 0.0, 0.0, 0.0])
    """

    wavenumbers: Tensor
    first_deviations: Tensor

    def __init__(
        self,
        shape: Sequence[int],
        embedding_dim: int,
        *,
        position_stride: int = 10,
        noise: float = 2.0,
        frequency_rate: float = 100.0,
        scale_rate: float = 3.0,
        map_rate: float = 0.01,
        time_step: float,
        partner_std: Sequence[float],
    ) -> None:
        super().__init__()
        size = len(partner_std)
        if len(shape) != 2 or shape[1] != 2 or shape[0] < 5:
            raise BadInputError(
                f"the learned_inverse encoder takes paths (positions >= 5, 2), not shape {tuple(shape)}"
            )
        if size % 2 or not size:
            raise BadInputError(
                f"the learned_inverse encoder takes as many real as imaginary parts, not {size} numbers"
            )
        self.position_stride, self.time_step = position_stride, time_step
        self.noise_at_first, self.map_rate = noise, map_rate
        self.frequency_rate, self.scale_rate = frequency_rate, scale_rate
        num_modes = size // 2
        self.register_buffer("wavenumbers", torch.from_numpy(half_plane(num_modes)), persistent=False)
        deviations = torch.tensor(partner_std, dtype=torch.float64)
        self.register_buffer("first_deviations", deviations, persistent=False)
        self.moved_frequencies = nn.Parameter(torch.zeros(num_modes))
        self.moved_deviations = nn.Parameter(torch.zeros(size))
        self.moved_noise = nn.Parameter(torch.zeros(()))
        self.moved_map = nn.Parameter(torch.zeros(embedding_dim, size))
        self.moved_offset = nn.Parameter(torch.zeros(embedding_dim))

    @property
    def frequencies(self) -> Tensor:
        """omega, rad per unit of time, float64, shape (M,)."""
        return self.moved_frequencies.double() * self.frequency_rate

    @property
    def deviations(self) -> Tensor:
        """Standard deviations of the coefficients, float64, shape (2 M,).

        Only their ratio to the noise matters: as a whole they keep the scale of the training flows.
        """
        moved = self.moved_deviations.double()
        return self.first_deviations * ((moved - moved.mean()) * self.scale_rate).exp()

    @property
    def noise(self) -> Tensor:
        """Standard deviation of the velocities, widths of the domain per unit of time, float64, a scalar."""
        moved = self.moved_noise.double() - self.moved_deviations.double().mean()
        return self.noise_at_first * (moved * self.scale_rate).exp()

    def forward(self, paths: Tensor) -> Tensor:
        """Map paths (B, P, 2), not wrapped, to (B, E)."""
        solved = torch.cat([self.solve(block) for block in torch.split(paths, BLOCK_PATHS)])
        identity = torch.eye(*self.moved_map.shape, dtype=self.moved_map.dtype, device=self.moved_map.device)
        matrix, offset = identity + self.map_rate * self.moved_map, self.map_rate * self.moved_offset
        return nn.functional.linear(solved.to(matrix.dtype), matrix, offset)

    @torch.no_grad()
    def flows(self, paths: Tensor) -> Tensor:
        """Return the posterior mean of the coefficients given paths (B, P, 2), float64, shape (B, 2 M)."""
        return self.solve(paths) * self.deviations

    def solve(self, paths: Tensor) -> Tensor:
        """Return the posterior mean in units of the learned standard deviations, float64, shape (B, 2 M)."""
        motion = Motion.along(paths, self.time_step, self.position_stride)
        return posterior_mean(motion, self.wavenumbers, self.frequencies, self.deviations, self.noise)


def learned_inverse_of(encoder: nn.Module) -> LearnedInverse | None:
    """Return the learned inverse that an encoder consists of, or None."""
    return next((part for part in encoder.modules() if isinstance(part, LearnedInverse)), None)
