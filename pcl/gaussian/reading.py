r"""The matrices of a model whose encoders are affine and whose potentials are squares, read off its values.

Shapes: B items, n components of an item, E embedding.
"""

__all__ = ["affine_map", "potential_root", "read_encoders"]

import copy
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from pcl.gaussian.pair import AffineMap
from pcl.model import PairModel

NEGLIGIBLE = 1e-12  # of the largest curvature of a potential: a direction in which it is flat


def affine_map(encode: Callable[[Tensor], Tensor], dim: int) -> AffineMap | None:
    """Read off the matrix and offset of an encoder, or return None when it is not affine.

    Args:
        encode: maps (B, n) to (B, E), float64.
        dim: n.

    Example:
        >>> affine_map(lambda x: 2 * x + 1, 2).offset
        tensor([1., 1.], dtype=torch.float64)
        >>> affine_map(torch.sin, 2) is None
        True
    """
    offset = encode(torch.zeros(1, dim, dtype=torch.float64))[0]
    candidate = AffineMap((encode(torch.eye(dim, dtype=torch.float64)) - offset).T, offset)
    return candidate if _agree(encode, candidate, dim) else None


def potential_root(potential: Callable[[Tensor], Tensor], dim: int) -> AffineMap | None:
    r"""Read off Q and q_0 of a potential :math:`a(x) = -|Q x + q_0|^2 / 2` up to a constant, or return None.

    Args:
        potential: maps (B, n) to (B,), float64.
        dim: n.

    Example:
        >>> root = potential_root(lambda x: -2 * x.square().sum(1), 1)
        >>> root.matrix.abs()
        tensor([[2.]], dtype=torch.float64)
        >>> potential_root(lambda x: x.square().sum(1), 1) is None
        True
    """
    unit = torch.eye(dim, dtype=torch.float64)
    constant, single = potential(torch.zeros(1, dim, dtype=torch.float64)), potential(unit)
    both = potential((unit[:, None] + unit).flatten(0, 1)).view(dim, dim)
    curvature = single[:, None] + single - both - constant  # Q'Q
    slope = single - constant + curvature.diagonal() / 2  # -Q'q_0
    values, vectors = torch.linalg.eigh((curvature + curvature.T) / 2)
    kept = values > NEGLIGIBLE * values[-1].clamp(min=0)
    roots, vectors = values[kept].sqrt(), vectors[:, kept]
    candidate = AffineMap(roots[:, None] * vectors.T, -(vectors.T @ slope) / roots)

    def square(x: Tensor) -> Tensor:
        return constant + (candidate.offset.square().sum() - candidate(x).square().sum(1)) / 2

    return candidate if _agree(potential, square, dim) else None


def _agree(one: Callable[[Tensor], Tensor], other: Callable[[Tensor], Tensor], dim: int) -> bool:
    probe = 10 * torch.randn(64, dim, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return torch.allclose(one(probe), other(probe), rtol=1e-8, atol=1e-8)


@torch.no_grad()
def read_encoders(model: PairModel, dims: Sequence[int]) -> tuple[AffineMap, ...] | None:
    """Read off G and H of a model, and Q and R of potentials, with the root of the temperature divided out.

    Args:
        model: encoders of flat u (n,) and v (m,); left as it is.
        dims: n and m.

    Returns:
        What ``model_conditionals`` takes; None where the encoders are not affine or the potentials no squares.
    """
    model = copy.deepcopy(model).double()
    of_u = _read(model, model.encode_u, dims[0])
    of_v = _read(model, model.encode_v, dims[1])
    found = [part for both in zip(of_u, of_v, strict=True) for part in both]
    known = tuple(part for part in found if part is not None)
    return known if len(known) == len(found) else None


def _read(model: PairModel, encode: Callable[[Tensor], Tensor], dim: int) -> list[AffineMap | None]:
    root = model.temperature().sqrt()
    if model.tilting != "potentials":
        return [affine_map(lambda x: encode(x) / root, dim)]
    potential = potential_root(lambda x: encode(x)[:, -1] / root.square(), dim)
    return [affine_map(lambda x: encode(x)[:, :-1] / root, dim), potential]
