"""The gap between a model's conditional means and the truth, for Gaussian pairs whose law is known."""

__all__ = ["ConditionalMeans", "closed_form_means", "learned_means", "pair_means", "reference_errors"]

from collections.abc import Sequence

import torch
from torch import Tensor

from pcl.gaussian import DIRECTIONS, AffineMap, GaussianPair, model_conditionals, optimal_encoders
from pcl.gaussian.reading import read_encoders
from pcl.model import PairModel

ConditionalMeans = dict[str, AffineMap]


def learned_means(model: PairModel, law: GaussianPair) -> ConditionalMeans | None:
    """Return the model's conditional means under the true marginals, exactly; None if they have no closed form.

    Args:
        model: encoders of flat u (n,) and v (m,).
        law: the true law, whose marginals the model tilts.
    """
    maps = None if model.tilting == "cosine" else read_encoders(model, law.cross.shape)
    return None if maps is None else _means(law, maps, model.tilting)


def _means(law: GaussianPair, maps: Sequence[AffineMap], tilting: str) -> ConditionalMeans:
    return {direction: mean for direction, (mean, _) in model_conditionals(law, maps, tilting).items()}


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
        tilting: ``inner_product``, ``squared_distance`` or ``potentials``.
        weights: (lambda_u, lambda_v) of the conditional loss.

    Returns:
        The mean maps of ``u_given_v`` and ``v_given_u``.

    Raises:
        ValueError: the loss or tilting has no Gaussian form, or a weight is impossible.
    """
    rank = min(embedding_dim, *law.cross.shape)
    encoders = optimal_encoders(law, rank, loss, tilting, weights)
    return _means(law, [AffineMap.linear(matrix) for matrix in encoders], tilting)


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
