"""Tiltings: from embeddings to feature maps whose inner product, over the temperature, is the log tilting.

Shapes: B pairs, E embedding (E + 1 with a potential), F features (E or E + 2).
"""

__all__ = [
    "EXTRA_FEATURES",
    "TILTINGS",
    "Temperature",
    "check_temperature",
    "embeddings_of",
    "feature_maps",
    "log_tilting",
]

import math
from typing import Any

import torch
from torch import Tensor, nn

from pcl.entrance import checked_tensor
from pcl.precision import in_full_precision

TILTINGS = ("cosine", "inner_product", "squared_distance", "potentials")
EXTRA_FEATURES = {"squared_distance": 2, "potentials": 2}  # F - E, where it is not zero
SHORTEST = 1e-6  # of the embeddings whose direction has a gradient
LEAST_LENGTH = 1e-12  # divides a zero vector


def _check(tilting: str) -> None:
    if tilting not in TILTINGS:
        raise ValueError(f"tilting {tilting!r} is not known; choose one of {', '.join(TILTINGS)}")


@in_full_precision
def feature_maps(embedding_u: Tensor, embedding_v: Tensor, tilting: str) -> tuple[Tensor, Tensor]:
    r"""Map embeddings to features whose inner product is the log tilting times the temperature.

    .. math::
        \text{cosine: } z \mapsto z / |z|, \qquad
        \text{inner product: } z \mapsto z, \qquad
        \text{squared distance: } z_u \mapsto (z_u, -|z_u|^2/2, 1),\; z_v \mapsto (z_v, 1, -|z_v|^2/2), \\
        \text{potentials: } (z_u, a) \mapsto (z_u, a, 1),\; (z_v, b) \mapsto (z_v, 1, b).

    Potentials a(u) and b(v) are free numbers, the last components of the embeddings: the squared distance is the case
    in which they are tied to z, the inner product that in which they are zero.

    A zero vector has no direction: its cosine feature is zero. The gradient of a direction is that of 1 / |z|, so
    embeddings shorter than 1e-6 pass none; that of the others is at most 1e6 times the one of the feature.

    Half-precision embeddings have features in single precision, under autocast too.

    Args:
        embedding_u: embeddings of the first modality, shape (..., E), or (..., E + 1) with a potential.
        embedding_v: embeddings of the second modality, likewise.
        tilting: one of ``TILTINGS``.

    Returns:
        The features of both modalities, shapes (..., F).

    Raises:
        ValueError: the tilting is not known.

    References:
        Baptista, Stuart, Tran (2025), arXiv:2505.24134, equations 14, 25, 26.

    Example:
        >>> u, v = torch.tensor([[3.0, 4.0]]), torch.tensor([[1.0, 2.0]])
        >>> phi_u, phi_v = feature_maps(u, v, "squared_distance")
        >>> (phi_u * phi_v).sum(-1), -((u - v) ** 2).sum(-1) / 2
        (tensor([-4.]), tensor([-4.]))
    """
    _check(tilting)
    if tilting == "cosine":
        return _direction(embedding_u), _direction(embedding_v)
    if tilting == "inner_product":
        return embedding_u, embedding_v
    if tilting == "potentials":
        embedding_u, a = embedding_u[..., :-1], embedding_u[..., -1:]
        embedding_v, b = embedding_v[..., :-1], embedding_v[..., -1:]
    else:
        a = -embedding_u.square().sum(-1, keepdim=True) / 2
        b = -embedding_v.square().sum(-1, keepdim=True) / 2
    return torch.cat([embedding_u, a, torch.ones_like(a)], -1), torch.cat([embedding_v, torch.ones_like(b), b], -1)


def embeddings_of(features: Tensor, tilting: str) -> Tensor:
    """Embeddings in feature maps: their first E components, without potentials; cosine has normalised them.

    Args:
        features: shape (..., F).
        tilting: one of ``TILTINGS``.

    Example:
        >>> embeddings_of(torch.zeros(3, 7), "potentials").shape
        torch.Size([3, 5])
    """
    return features[..., : features.shape[-1] - EXTRA_FEATURES.get(tilting, 0)]


def _direction(embedding: Tensor) -> Tensor:
    """Return ``torch.nn.functional.normalize`` of embeddings, with the gradient of those that are long enough."""
    length: Tensor = embedding.norm(dim=-1, keepdim=True)
    if embedding.requires_grad:
        is_short = length.detach() < SHORTEST
        if not embedding.is_cpu or bool(is_short.any()):  # a GPU would have to be waited for
            embedding = torch.where(is_short, embedding.detach(), embedding)
            length = embedding.norm(dim=-1, keepdim=True)
    return embedding / length.clamp_min(LEAST_LENGTH)


def check_temperature(temperature: float | Tensor) -> None:
    """Refuse a temperature that is not a positive finite number.

    Args:
        temperature: tau, which divides every score.

    Raises:
        ValueError: it is zero, negative or not finite.

    Example:
        >>> check_temperature(0.07)
    """
    tau = temperature.item() if isinstance(temperature, Tensor) else temperature
    if not 0 < tau < math.inf:
        raise ValueError(f"temperature {tau:g}: it divides the scores and must be positive and finite")


def log_tilting(embedding_u: Any, embedding_v: Any, tilting: str, temperature: float | Tensor) -> Tensor:
    r"""Score every u against every v: :math:`s(u, v) = \langle\phi_u, \phi_v\rangle / \tau`.

    Args:
        embedding_u: shape (B, E), or (B, E + 1) with a potential; a tensor or a numpy array.
        embedding_v: shape (N, E), likewise.
        tilting: one of ``TILTINGS``.
        temperature: tau > 0, no unit.

    Returns:
        The log tilting, shape (B, N): hold it whole only where B x N is small.

    Raises:
        ValueError: the tilting is not known, the temperature is not positive and finite, shapes differ, or embeddings
            are not finite.

    Example:
        >>> log_tilting(torch.tensor([[2.0]]), torch.tensor([[3.0], [-1.0]]), "inner_product", 2.0)
        tensor([[ 3., -1.]])
    """
    _check(tilting)
    check_temperature(temperature)
    embedding_u = checked_tensor("embedding_u", embedding_u, ("B", "E"))
    embedding_v = checked_tensor("embedding_v", embedding_v, ("N", embedding_u.shape[1]))
    return _log_tilting(embedding_u, embedding_v, tilting, temperature)


@in_full_precision
def _log_tilting(embedding_u: Tensor, embedding_v: Tensor, tilting: str, temperature: float | Tensor) -> Tensor:
    phi_u, phi_v = feature_maps(embedding_u, embedding_v, tilting)
    return phi_u @ phi_v.T / temperature


class Temperature(nn.Module):
    r"""The temperature tau > 0 that divides every score, fixed or learned as :math:`\log\tau`.

    A learned temperature is put back between its bounds after each step (``project_``), so that its gradient
    is never cut and it can leave a bound again.

    Args:
        initial: first value of tau, no unit.
        learned: whether :math:`\log\tau` is a parameter.
        minimum: smallest tau allowed.
        maximum: largest tau allowed.

    Raises:
        ValueError: the bounds are not 0 < minimum <= initial <= maximum < infinity.

    Example:
        >>> Temperature(0.07, learned=True, minimum=0.01, maximum=10.0)().item()
        0.07...
    """

    log_temperature: Tensor

    def __init__(self, initial: float, *, learned: bool, minimum: float, maximum: float) -> None:
        super().__init__()
        if not 0 < minimum <= initial <= maximum < math.inf:
            raise ValueError(
                f"temperature {initial} with bounds [{minimum}, {maximum}]: 0 < minimum <= initial <= maximum must hold"
            )
        self.log_bounds = (math.log(minimum), math.log(maximum))
        value = torch.tensor(math.log(initial))
        if learned:
            self.log_temperature = nn.Parameter(value)
        else:
            self.register_buffer("log_temperature", value)

    def forward(self) -> Tensor:
        """Return tau, a scalar."""
        return self.log_temperature.exp()

    @torch.no_grad()
    def project_(self) -> None:
        """Put the learned temperature back between its bounds."""
        self.log_temperature.clamp_(*self.log_bounds)
