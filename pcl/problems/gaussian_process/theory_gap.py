"""The gap between a model's conditional means and the truth, for Gaussian pairs whose law is known."""

__all__ = ["ConditionalMeans", "affine_map", "closed_form_means", "learned_means", "pair_means", "reference_errors"]

import copy
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from pcl.gaussian import DIRECTIONS, AffineMap, GaussianPair, model_conditional, optimal_encoders
from pcl.model import PairModel

ConditionalMeans = dict[str, AffineMap]


def affine_map(encode: Callable[[Tensor], Tensor], dim: int) -> AffineMap | None:
    """Read off the matrix and offset of an encoder, or return None when it is not affine.

    Args:
        encode: maps (B, dim) to (B, E), float64.
        dim: components of the input.

    Example:
        >>> affine_map(lambda x: 2 * x + 1, 2).offset
        tensor([1., 1.], dtype=torch.float64)
        >>> affine_map(torch.sin, 2) is None
        True
    """
    probe = 10 * torch.randn(64, dim, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    offset = encode(torch.zeros(1, dim, dtype=torch.float64))[0]
    candidate = AffineMap((encode(torch.eye(dim, dtype=torch.float64)) - offset).T, offset)
    return candidate if torch.allclose(encode(probe), candidate(probe), rtol=1e-8, atol=1e-8) else None


@torch.no_grad()
def learned_means(model: PairModel, law: GaussianPair) -> ConditionalMeans | None:
    """Return the model's conditional means under the true marginals, exactly; None if they have no closed form.

    Args:
        model: encoders of flat u (n,) and v (m,).
        law: the true law, whose marginals the model tilts.
    """
    if model.tilting == "cosine":
        return None
    model = copy.deepcopy(model).double()
    root = model.temperature().sqrt()
    g = affine_map(lambda u: model.encode_u(u) / root, len(law.c_uu))
    h = affine_map(lambda v: model.encode_v(v) / root, len(law.c_vv))
    if g is None or h is None:
        return None
    return {
        "u_given_v": model_conditional(g, h, law.c_uu, model.tilting)[0],
        "v_given_u": model_conditional(h, g, law.c_vv, model.tilting)[0],
    }


def pair_means(law: GaussianPair) -> ConditionalMeans:
    """Return the conditional means of a law."""
    return {direction: law.conditional(direction)[0] for direction in DIRECTIONS}


def closed_form_means(
    law: GaussianPair, embedding_dim: int, loss: str, tilting: str, weights: Sequence[float] = (1.0, 1.0)
) -> ConditionalMeans:
    """Return the conditional means of the best linear encoders of a rank (arXiv:2505.24134, section 5).

    Args:
        law: the true law, with n components of u and m of v.
        embedding_dim: E; what exceeds min(n, m) has nothing left to encode.
        loss: ``conditional`` or ``joint``.
        tilting: ``inner_product`` or ``squared_distance``.
        weights: (lambda_u, lambda_v) of the conditional loss.

    Returns:
        The mean maps of ``u_given_v`` and ``v_given_u``.

    Raises:
        ValueError: the loss or tilting has no Gaussian form, or a weight is impossible.
    """
    rank = min(embedding_dim, *law.cross.shape)
    zero = torch.zeros(rank, dtype=torch.float64)
    g, h = (AffineMap(matrix, zero) for matrix in optimal_encoders(law, rank, loss, tilting, weights))
    return {
        "u_given_v": model_conditional(g, h, law.c_uu, tilting)[0],
        "v_given_u": model_conditional(h, g, law.c_vv, tilting)[0],
    }


@torch.no_grad()
def reference_errors(
    model: PairModel, law: GaussianPair, u: Tensor, v: Tensor, queries_u: Tensor, queries_v: Tensor
) -> dict[str, float]:
    """Return the relative squared errors of the conditional means carried by a reference set, for any model.

    Args:
        model: any encoders and tilting.
        law: the true law.
        u: references, shape (N, n).
        v: references, shape (N, m).
        queries_u: what to condition on in v_given_u, shape (Q, n).
        queries_v: what to condition on in u_given_v, shape (Q, m).
    """
    errors = {}
    for direction, references, features, queries in (
        ("u_given_v", u, model.features_v(queries_v), queries_v),
        ("v_given_u", v, model.features_u(queries_u), queries_u),
    ):
        conditional = model.conditional(direction, references)
        truth = law.conditional(direction)[0](queries.double())
        values = references.to(features)
        mean = torch.cat([conditional.mean(block, values) for block in torch.split(features, 256)])
        errors[direction] = float((mean - truth).square().sum() / truth.square().sum())
    return errors
