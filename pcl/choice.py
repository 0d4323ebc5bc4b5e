"""Choice of indices by weights: with replacement, without, and the largest.

Shapes: Q rows of weights, N weights in a row, n chosen of each.
"""

__all__ = ["BLOCK_WEIGHTS", "draw", "found_at", "gumbel", "largest", "none_yet", "uniform"]

import torch
from torch import Tensor

from pcl.entrance import as_generator

BLOCK_WEIGHTS = 1 << 22  # held in double precision at a time
LEAST = 2.0**-54  # half of the smallest number between 0 and 1 that a generator gives


def draw(weights: Tensor, num_samples: int, generator: torch.Generator | int) -> Tensor:
    r"""Sample of indices with replacement by given weights: the inverse of their distribution function, in float64.

    .. math:: i = \min \{ k : \sum_{j \le k} w_j > t \sum_j w_j \}, \qquad t \sim U[0, 1)

    Args:
        weights: not negative, one positive in each row, shape (Q, N).
        num_samples: of each row.
        generator: on any device, or a seed.

    Returns:
        Indices, shape (Q, num_samples).

    Raises:
        ValueError: there is no sample to draw.

    Example:
        >>> draw(torch.tensor([[0.0, 1.0, 0.0]]), 3, torch.Generator().manual_seed(0))
        tensor([[1, 1, 1]])
    """
    levels = uniform((len(weights), num_samples), generator, weights.device)
    step = max(1, BLOCK_WEIGHTS // weights.shape[1])
    blocks = zip(torch.split(weights.detach(), step), torch.split(levels, step), strict=True)
    return torch.cat([found_at(block, level)[0] for block, level in blocks])


def uniform(shape: tuple[int, int], generator: torch.Generator | int, device: torch.device) -> Tensor:
    """Return numbers of U[0, 1) in float64, n of each of Q rows.

    Raises:
        ValueError: n is not positive, or the generator is none.
    """
    generator = as_generator(generator)
    if shape[1] < 1:
        raise ValueError(f"num_samples={shape[1]}: draw at least one")
    return torch.rand(*shape, dtype=torch.float64, generator=generator, device=generator.device).to(device)


def found_at(weights: Tensor, levels: Tensor) -> tuple[Tensor, Tensor]:
    """Return the index at which the distribution function of weights exceeds a level, and where within its step.

    Args:
        weights: shape (Q, N).
        levels: from 0 to less than 1, float64, shape (Q, n).

    Returns:
        Indices, and the share of the weight of each that lies below the level, from 0 to less than 1; (Q, n) each.

    Example:
        >>> found_at(torch.tensor([[0.25, 0.0, 0.75]]), torch.tensor([[0.0, 0.625]]).double())
        (tensor([[0, 2]]), tensor([[0.0000, 0.5000]], dtype=torch.float64))
    """
    weights = weights.double()
    distribution = weights.cumsum(-1)
    total = distribution[:, -1:].contiguous()
    # the product may round to the total, beyond which there is no index
    below = torch.minimum(levels * total, torch.nextafter(total, torch.zeros_like(total)))
    found = torch.searchsorted(distribution, below, right=True)
    step = weights.gather(1, found)
    within = (below - distribution.gather(1, found) + step) / step
    return found, within.clamp(0.0, 1.0 - 2 * LEAST)


def gumbel(num: int, generator: torch.Generator, device: torch.device) -> Tensor:
    r"""Return draws of the Gumbel distribution in float64, shape (num,).

    The indices of the n largest of :math:`\log w_i + g_i`, in order, are those of n draws by weights w without
    replacement, one after the other (successive sampling).

    References:
        Efraimidis, Spirakis (2006), Information Processing Letters 97, 181-185.
    """
    levels = uniform((1, num), generator, device)[0]
    return -(-torch.log1p(-levels)).clamp(min=LEAST).log()


def none_yet(queries: Tensor) -> tuple[Tensor, Tensor]:
    """Return the largest values, and their indices, of rows of which nothing was seen, (Q, 0) each."""
    shape = (len(queries), 0)
    return queries.new_empty(shape, dtype=torch.float64), queries.new_empty(shape, dtype=torch.long)


def largest(found: tuple[Tensor, Tensor], values: Tensor, start: int, most: int) -> tuple[Tensor, Tensor]:
    """Return the largest values of each row so far, the largest first, and their indices.

    Args:
        found: those of earlier values, and their indices.
        values: of the next m indices, shape (Q, m).
        start: the first of these indices.
        most: to keep of each row.

    Example:
        >>> found = largest(none_yet(torch.zeros(1, 2)), torch.tensor([[3.0, 5.0]]), 0, 2)
        >>> largest(found, torch.tensor([[4.0]]), 2, 2)
        (tensor([[5., 4.]], dtype=torch.float64), tensor([[1, 2]]))
    """
    kept, places = values.topk(min(most, values.shape[1]), 1)
    together, indices = torch.cat([found[0], kept], 1), torch.cat([found[1], places + start], 1)
    kept, places = together.topk(min(most, together.shape[1]), 1)
    return kept, indices.gather(1, places)
