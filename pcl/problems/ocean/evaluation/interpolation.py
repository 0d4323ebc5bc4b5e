"""Linear interpolation of fields in time, latitude and longitude.

Shapes: Q windows, C components, T times, H x W grid points, n places.
"""

__all__ = ["interpolate"]

import itertools

import torch
from torch import Tensor


def interpolate(fields: Tensor, index: Tensor) -> Tensor:
    r"""Return fields at fractional indices; what is missing is left out, and the edge goes on beyond the edge.

    .. math:: f(x) = \sum_g w_g(x) f_g / \sum_g w_g(x), \qquad \text{over the points } g \text{ with a value}

    Args:
        fields: shape (Q, C, T, H, W), NaN where there is no value.
        index: time, row and column, shape (Q, n, 3), or (1, n, 3) for the same places in every window.

    Returns:
        Shape (Q, C, n), NaN where no point around a place has a value, or the place is NaN.

    Example:
        >>> field = torch.arange(4.0).reshape(1, 1, 1, 2, 2)
        >>> interpolate(field, torch.tensor([[[0.0, 0.5, 0.5], [0.0, 0.0, 9.0]]]))
        tensor([[[1.5000, 1.0000]]])
    """
    sizes = torch.tensor(fields.shape[2:])
    nowhere = index.isnan().any(-1)[:, None]
    index = torch.minimum(index.nan_to_num().clamp(min=0), sizes - 1)
    lower = torch.minimum(index.long(), (sizes - 2).clamp(min=0))
    share = index - lower
    flat = fields.flatten(2)
    total = fields.new_zeros(len(fields), fields.shape[1], index.shape[1])
    weight = torch.zeros_like(total)
    for corner in itertools.product((0, 1), repeat=3):
        above = torch.tensor(corner)
        corner_share = torch.where(above.bool(), share, 1 - share).prod(-1)
        point = torch.minimum(lower + above, sizes - 1)
        place = (point[..., 0] * sizes[1] + point[..., 1]) * sizes[2] + point[..., 2]
        value = flat.gather(2, place[:, None].expand(*total.shape))
        known = corner_share[:, None] * torch.isfinite(value)
        total += known * value.nan_to_num()
        weight += known
    return torch.where((weight > 0) & ~nowhere, total / weight, torch.nan)
