"""Direct minimisation of a population loss over linear encoders, for where no closed form is known.

Shapes: n = dim u, m = dim v, E embedding.
"""

__all__ = ["PopulationLoss", "minimise_encoders"]

from collections.abc import Callable

import torch
from torch import Tensor

from pcl.gaussian.encoders import optimal_encoders
from pcl.gaussian.model import ImproperModelError
from pcl.gaussian.pair import GaussianPair

PopulationLoss = Callable[[Tensor, Tensor], Tensor]


def minimise_encoders(
    function: PopulationLoss,
    pair: GaussianPair,
    embedding_dim: int,
    num_starts: int = 4,
    seed: int = 0,
    *,
    closed_form_start: bool = True,
) -> tuple[Tensor, Tensor, float]:
    r"""Return the best encoders that LBFGS finds for a differentiable population loss from several starts.

    The unknowns are :math:`G L_u` and :math:`H L_v`, which act on white coordinates (``GaussianPair``), so the
    conditioning of the marginals does not matter. Random starts have spectral norm 1/2 there: a proper model.

    Args:
        function: maps G (E, n) and H (E, m) to a scalar. Where it is not finite, or raises ``ImproperModelError``,
            the line search turns back.
        pair: the law; its marginals whiten the unknowns.
        embedding_dim: E.
        num_starts: how many descents.
        seed: of the random starts.
        closed_form_start: begin the first descent at the optimum of the conditional loss with inner products.

    Returns:
        G (E, n), H (E, m), float64, and the value of the function there.

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
    roots = pair.root_u, pair.root_v
    inverses = [torch.linalg.inv(root) for root in roots]
    generator = torch.Generator().manual_seed(seed)
    descents = []
    for start in range(num_starts):
        x, y = (_random_start(embedding_dim, len(root), generator) for root in roots)
        if start == 0 and closed_form_start:
            x, y = (encoder @ root for encoder, root in zip(closed_form, roots, strict=True))
        value = _descend(lambda x, y: function(x @ inverses[0], y @ inverses[1]), x, y)
        descents.append((x @ inverses[0], y @ inverses[1], value))
    return min(descents, key=lambda descent: descent[2])


def _random_start(embedding_dim: int, dim: int, generator: torch.Generator) -> Tensor:
    start = torch.randn(embedding_dim, dim, generator=generator, dtype=torch.float64)
    scaled: Tensor = start / (2 * torch.linalg.matrix_norm(start, 2))
    return scaled


def _descend(function: PopulationLoss, x: Tensor, y: Tensor) -> float:
    """Move x and y downhill in place and return the value of the function there."""
    wall = function(x, y) + 1  # above every value on the way down, so that a line search turns back from it
    if not torch.isfinite(wall):
        raise ValueError(f"the function is {wall.item()} at a start; it must be finite for small encoders")
    for encoder in (x, y):
        encoder.requires_grad_()
    optimizer = torch.optim.LBFGS(
        [x, y],
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
            value = function(x, y)
        except ImproperModelError:
            return wall
        if not torch.isfinite(value):
            return wall
        value.backward()  # type: ignore[no-untyped-call]
        return value

    optimizer.step(closure)  # type: ignore[no-untyped-call]
    for encoder in (x, y):
        encoder.requires_grad_(False)
    return function(x, y).item()
