"""Direct minimisation of a population loss over linear encoders, for where no closed form is known.

Shapes: n = dim u, m = dim v, E embedding.
"""

__all__ = ["PopulationLoss", "minimise_encoders"]

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from pcl.gaussian.encoders import optimal_encoders
from pcl.gaussian.model import ImproperModelError
from pcl.gaussian.pair import GaussianPair

PopulationLoss = Callable[..., Tensor]


def minimise_encoders(
    function: PopulationLoss,
    pair: GaussianPair,
    embedding_dim: int,
    num_starts: int = 4,
    seed: int = 0,
    *,
    closed_form_start: bool = True,
    potential_dim: int = 0,
) -> tuple[Any, ...]:
    r"""Return the best encoders that LBFGS finds for a differentiable population loss from several starts.

    The unknowns are :math:`G L_u` and :math:`H L_v`, which act on white coordinates (``GaussianPair``), so the
    conditioning of the marginals does not matter. Random starts have spectral norm 1/2 there: a proper model.

    Args:
        function: maps G (E, n) and H (E, m), and Q and R where there are any, to a scalar. Where it is not finite, or
            raises ``ImproperModelError``, the line search turns back.
        pair: the law; its marginals whiten the unknowns.
        embedding_dim: E.
        num_starts: how many descents.
        seed: of the random starts.
        closed_form_start: begin the first descent at the optimum of the conditional loss with inner products.
        potential_dim: rows of the potentials Q and R, further unknowns; 0: there are none.

    Returns:
        G (E, n), H (E, m), and Q and R where there are any, float64, and the value of the function there.

    Raises:
        ValueError: num_starts < 1, E is not a rank of the pair, or the function is not finite at a start.

    Example:
        >>> from pcl.gaussian import population_loss
        >>> pair = GaussianPair(torch.eye(2), 0.5 * torch.eye(2), torch.eye(2))
        >>> g, h, value = minimise_encoders(lambda g, h: population_loss(pair, g, h), pair, 2)
        >>> torch.allclose(g.T @ h, 0.5 * torch.eye(2, dtype=torch.float64))
        True
    """
    if num_starts < 1:
        raise ValueError(f"num_starts {num_starts}: at least 1 is needed")
    closed_form = optimal_encoders(pair, embedding_dim)
    sizes = [embedding_dim] * 2 + [potential_dim] * 2 * (potential_dim > 0)
    roots = [pair.root_u, pair.root_v] * (len(sizes) // 2)
    inverses = [torch.linalg.inv(root) for root in roots]
    generator = torch.Generator().manual_seed(seed)
    descents = []
    for start in range(num_starts):
        white = [_random_start(size, len(root), generator) for size, root in zip(sizes, roots, strict=True)]
        if start == 0 and closed_form_start:
            white[:2] = [encoder @ root for encoder, root in zip(closed_form, roots, strict=False)]
        value = _descend(lambda *white: function(*_products(white, inverses)), white)
        descents.append((*_products(white, inverses), value))
    return min(descents, key=lambda descent: descent[-1])


def _products(left: Sequence[Tensor], right: Sequence[Tensor]) -> list[Tensor]:
    return [one @ other for one, other in zip(left, right, strict=True)]


def _random_start(embedding_dim: int, dim: int, generator: torch.Generator) -> Tensor:
    start = torch.randn(embedding_dim, dim, generator=generator, dtype=torch.float64)
    scaled: Tensor = start / (2 * torch.linalg.matrix_norm(start, 2))
    return scaled


def _descend(function: PopulationLoss, unknowns: Sequence[Tensor]) -> float:
    """Move unknowns downhill in place and return the value of the function there."""
    wall = function(*unknowns) + 1  # above every value on the way down, so that a line search turns back from it
    if not torch.isfinite(wall):
        raise ValueError(f"the function is {wall.item()} at a start; it must be finite for small encoders")
    for unknown in unknowns:
        unknown.requires_grad_()
    optimizer = torch.optim.LBFGS(
        list(unknowns),
        max_iter=500,
        max_eval=2000,
        tolerance_grad=1e-11,
        tolerance_change=1e-17,
        history_size=50,
        line_search_fn="strong_wolfe",
    )

    def closure() -> Tensor:
        optimizer.zero_grad()
        try:
            value = function(*unknowns)
        except ImproperModelError:
            return wall
        if not torch.isfinite(value):
            return wall
        value.backward()  # type: ignore[no-untyped-call]
        return value

    optimizer.step(closure)  # type: ignore[no-untyped-call]
    for unknown in unknowns:
        unknown.requires_grad_(False)
    return function(*unknowns).item()
