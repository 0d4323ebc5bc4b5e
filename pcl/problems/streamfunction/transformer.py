r"""A transformer that encodes a path: lifted positions, pre-norm attention blocks, the last token, a projection.

Shapes: B paths, P positions, T tokens of P / T positions, D width of a token, E embedding.
"""

__all__ = ["LIFTS", "PositionLift", "Transformer", "VelocityFourierLift"]

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from pcl.encoders.attention import Block
from pcl.errors import BadInputError
from pcl.problems.streamfunction.law import half_plane, waves

NUM_WAVES = 49  # wavenumbers of what a path says of the flow, up to |k| = 5.7
NUM_PLACES = 110  # of where it has been, up to |k| = 8; 188, up to 11, are the sums and differences of least squares
FREQUENCY_RATE = 100.0  # rad per unit of time: what Adam moves by the learning rate moves a frequency so much more
LIFT_STRIDE = 5  # every how manyth position of a token is lifted: neighbours differ by little, and the lift is not free


class PositionLift(nn.Module):
    """The paper's: a token is its positions as they are.

    Args:
        positions_per_token: P / T.
        time_step: between two positions; not used.

    Example:
        >>> PositionLift(10, 0.1)(torch.zeros(3, 50, 2)).shape
        torch.Size([3, 5, 20])
    """

    def __init__(self, positions_per_token: int, time_step: float) -> None:
        super().__init__()
        self.positions_per_token = positions_per_token
        self.num_features = 2 * positions_per_token

    def forward(self, paths: Tensor) -> Tensor:
        """Map (B, P, 2) to (B, T, 2 P / T)."""
        return paths.reshape(paths.shape[0], paths.shape[1] // self.positions_per_token, self.num_features)


class VelocityFourierLift(nn.Module):
    r"""What the velocity equation is made of, averaged over the positions of a token.

    The velocity w of an unknown flow enters least squares as :math:`\sum_j (J k \cdot w_j) e^{2 \pi i k \cdot x_j}`,
    and where the path has been as :math:`\sum_j e^{2 \pi i k \cdot x_j}` (THEORY 6.4). Sums over tokens of these
    features are those sums; the component of w along k adds nothing, for it is a derivative in time. Velocities are
    in widths of the domain over the whole path, which makes all features of order one.

    With phases the first of these is :math:`\sum_j (J k \cdot w_j) e^{i (2 \pi k \cdot x_j + \omega_k t_j)}`, where
    the frequencies are learned (from 0).

    Args:
        positions_per_token: P / T.
        time_step: between two positions.
        num_places: wavenumbers of where the path has been, at least those of what it says.
        phases: whether the flow has frequencies that are learned.

    Example:
        >>> VelocityFourierLift(10, 0.1)(torch.zeros(3, 50, 2)).shape
        torch.Size([3, 5, 320])
    """

    wavenumbers: Tensor
    turned: Tensor

    def __init__(
        self, positions_per_token: int, time_step: float, num_places: int = NUM_PLACES, *, phases: bool = False
    ) -> None:
        super().__init__()
        self.stride = math.gcd(positions_per_token, LIFT_STRIDE)
        self.positions_per_token, self.time_step = positions_per_token, time_step
        k = torch.from_numpy(half_plane(num_places))
        direction = k[:NUM_WAVES] / k[:NUM_WAVES].double().norm(dim=1, keepdim=True)
        turned = torch.stack([-direction[:, 1], direction[:, 0]], 1).to(torch.get_default_dtype())
        self.register_buffer("wavenumbers", k, persistent=False)
        self.register_buffer("turned", turned, persistent=False)
        self.reach: tuple[int, ...] = tuple(k.abs().amax(0).tolist())
        self.num_features = 2 + 2 * num_places + 2 * NUM_WAVES
        self.moved_frequencies = nn.Parameter(torch.zeros(NUM_WAVES)) if phases else None

    def forward(self, paths: Tensor) -> Tensor:
        """Map (B, P, 2), not wrapped, to (B, T, features)."""
        duration = self.time_step * (paths.shape[1] - 1)
        x = paths[:, self.stride // 2 :: self.stride]
        velocities = _derivative(x, self.stride * self.time_step / duration)
        cosine, sine = waves(self.wavenumbers, x, self.reach)  # (K, B, P)
        across = torch.einsum("ki,bpi->kbp", self.turned, velocities)
        said = self._turned_by_phases(cosine[:NUM_WAVES], sine[:NUM_WAVES])
        features = torch.cat([velocities.permute(2, 0, 1), cosine, sine, *(wave * across for wave in said)])
        in_token = self.positions_per_token // self.stride
        tokens: Tensor = features.unflatten(2, (-1, in_token)).mean(-1)  # type: ignore[no-untyped-call]
        return tokens.permute(1, 2, 0)

    def _turned_by_phases(self, cosine: Tensor, sine: Tensor) -> tuple[Tensor, Tensor]:
        """Return waves (K, B, P) of the flow as it moves on."""
        if self.moved_frequencies is None:
            return cosine, sine
        places = self.stride // 2 + self.stride * torch.arange(cosine.shape[2], device=cosine.device)
        angles = FREQUENCY_RATE * self.moved_frequencies[:, None] * (self.time_step * places)
        c, s = angles.cos()[:, None], angles.sin()[:, None]
        return cosine * c - sine * s, sine * c + cosine * s


def _derivative(x: Tensor, spacing: float) -> Tensor:
    """Return central differences of (B, P, 2) along its positions, one-sided at the ends: those of torch.gradient.

    That one ties an exported program to the size of a batch.
    """
    first, middle, last = x[:, 1:2] - x[:, :1], x[:, 2:] - x[:, :-2], x[:, -1:] - x[:, -2:-1]
    return torch.cat([first / spacing, middle / (2 * spacing), last / spacing], 1)


LIFTS = ("positions", "velocity_fourier")


class Transformer(nn.Module):
    """Encoder of paths: positions are lifted, grouped to tokens, and the last token is projected.

    Args:
        shape: of a path, (P, 2).
        embedding_dim: E.
        lift: one of ``LIFTS``.
        positions_per_token: divides P; 1 is the paper's.
        width: D.
        depth: blocks; the paper has 12.
        num_heads: of a block, divides D.
        dropout: in training, of the lifted tokens and of what a block adds.
        num_places: of the velocity_fourier lift, see there.
        phases: likewise.
        time_step: between two positions.

    Raises:
        BadInputError: the numbers do not fit.

    References:
        arXiv:2505.24134, section 6.3.

    Example:
        >>> encoder = Transformer((50, 2), 98, lift="velocity_fourier", positions_per_token=10, width=16, depth=1,
        ...     num_heads=2, time_step=0.1)
        >>> encoder(torch.zeros(3, 50, 2)).shape
        torch.Size([3, 98])
    """

    def __init__(
        self,
        shape: Sequence[int],
        embedding_dim: int,
        *,
        lift: str,
        positions_per_token: int,
        width: int,
        depth: int,
        num_heads: int,
        dropout: float = 0.0,
        num_places: int = NUM_PLACES,
        phases: bool = False,
        time_step: float,
    ) -> None:
        super().__init__()
        _check(shape, lift, positions_per_token, num_places)
        if min(width, depth, num_heads) < 1 or width % num_heads:
            raise BadInputError(
                f"model.transformer: width={width}, depth={depth}, num_heads={num_heads} must be at least 1, and the "
                "heads must divide the width"
            )
        if not 0 <= dropout < 1:
            raise BadInputError(f"model.transformer.dropout={dropout}: it must be at least 0 and less than 1")
        self.lift: PositionLift | VelocityFourierLift = PositionLift(positions_per_token, time_step)
        if lift == "velocity_fourier":
            self.lift = VelocityFourierLift(positions_per_token, time_step, num_places, phases=phases)
        self.dropout = nn.Dropout(dropout)
        self.enter = nn.Linear(self.lift.num_features, width)
        self.order = nn.Parameter(torch.randn(shape[0] // positions_per_token, width) / math.sqrt(width))
        self.blocks = nn.Sequential(*(Block(width, num_heads, dropout) for _ in range(depth)))
        self.norm = nn.LayerNorm(width)
        self.project = nn.Linear(width, embedding_dim)

    def forward(self, paths: Tensor) -> Tensor:
        """Map paths (B, P, 2) to (B, E)."""
        tokens = self.blocks(self.dropout(self.enter(self.lift(paths)) + self.order))
        embedding: Tensor = self.project(self.norm(tokens[:, -1]))
        return embedding


def _check(shape: Sequence[int], lift: str, positions_per_token: int, num_places: int) -> None:
    """Refuse a lift that is not known or does not fit a path."""
    if lift not in LIFTS:
        raise BadInputError(f"model.transformer.lift={lift}: choose one of {', '.join(LIFTS)}")
    if len(shape) != 2 or shape[1] != 2 or shape[0] < 2:
        raise BadInputError(f"the transformer encoder takes paths (positions >= 2, 2), not shape {tuple(shape)}")
    if positions_per_token < 1 or shape[0] % positions_per_token:
        raise BadInputError(
            f"model.transformer.positions_per_token={positions_per_token}: it must divide the {shape[0]} positions"
        )
    if lift == "velocity_fourier" and shape[0] // math.gcd(positions_per_token, LIFT_STRIDE) < 2:
        raise BadInputError(f"{shape[0]} positions: the velocity_fourier lift needs at least {2 * LIFT_STRIDE}")
    if num_places < NUM_WAVES:
        raise BadInputError(
            f"model.transformer.num_places={num_places}: what a path says of the flow has {NUM_WAVES} wavenumbers, "
            "and where it has been at least as many"
        )
