r"""Scalar potentials: what an item adds to its log tilting with whatever it is paired with (THEORY 5.3).

Under the tilting of potentials an encoder returns one more number than an embedding has, a(u) or b(v). Encoders with
layers of their own learn it as one more output; linear ones have a square of their own, labels a number each.

Shapes: B pairs, n components of an item, E embedding.
"""

__all__ = ["POTENTIALS", "Quadratic", "ZeroPotential", "potentials_of"]

from collections.abc import Sequence

from torch import Tensor, nn

from pcl.objective import LOSSES
from pcl.precision import in_full_precision

POTENTIALS = ("learned", "zero")


class Quadratic(nn.Module):
    r"""Potential :math:`a(x) = -|Q x|^2 / 2` of a vector, Q (E, n) learned: Gaussian pairs have no other.

    Args:
        num_components: n.
        rank: E, rows of Q.

    Example:
        >>> import torch
        >>> Quadratic(3, 2)(torch.zeros(4, 3)).shape
        torch.Size([4, 1])
    """

    def __init__(self, num_components: int, rank: int) -> None:
        super().__init__()
        self.map = nn.Linear(num_components, rank, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, n) to (B, 1), in single precision at least."""
        return _half_square(self.map(x))


@in_full_precision
def _half_square(x: Tensor) -> Tensor:
    return -x.square().sum(-1, keepdim=True) / 2


class ZeroPotential(nn.Module):
    """Potential that is zero, as the last part of an encoder.

    Example:
        >>> import torch
        >>> ZeroPotential()(torch.ones(1, 2))
        tensor([[1., 1., 0.]])
    """

    def forward(self, embedding: Tensor) -> Tensor:
        """Map (B, E) to (B, E + 1)."""
        return nn.functional.pad(embedding, (0, 1))


def potentials_of(loss: str, weights: Sequence[float], *, share: bool = False) -> tuple[str, str]:
    """Say whether the potentials of u and of v are ``learned`` or ``zero``.

    A one-sided loss does not see the potential of the modality that is given: it cancels from the conditional. There
    it is zero, and does not drift with what rounding leaves of its gradient. A network that both modalities share has
    one potential, which is learned.

    Args:
        loss: its kind.
        weights: (lambda_u, lambda_v) of a conditional loss.
        share: whether one network encodes both.

    Example:
        >>> potentials_of("conditional", (2.0, 0.0))
        ('learned', 'zero')
    """
    if share or not LOSSES[loss].has_weights:
        return "learned", "learned"
    of_u, of_v = ("learned" if weight > 0 else "zero" for weight in weights)
    return of_u, of_v
