"""Linear interpolation of fields in time, latitude and longitude.

Shapes: Q windows, C components, T times, H x W grid points, n places.
"""

__all__ = ["Interpolator", "interpolate"]

import torch
from torch import Tensor
from torch.nn import functional as F


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
    return Interpolator(fields)(index)


class Interpolator:
    """``interpolate`` for many places, one after another, in the same fields.

    Args:
        fields: shape (Q, C, T, H, W), NaN where there is no value.
    """

    def __init__(self, fields: Tensor) -> None:
        known = torch.isfinite(fields)
        self.components, self.whole = fields.shape[1], bool(known.all())
        self.fields = fields if self.whole else torch.cat([fields.nan_to_num(0, 0, 0), known.to(fields)], 1)
        self.last = torch.tensor(fields.shape[2:], dtype=fields.dtype) - 1

    def __call__(self, index: Tensor) -> Tensor:
        """Return the fields at fractional indices, shape (Q, C, n); arguments as of ``interpolate``."""
        nowhere = index.isnan().any(-1)[:, None]
        place = (
            (2 * index.to(self.last) / self.last.clamp(min=1) - 1).nan_to_num().flip(-1)
        )  # -1 .. 1, the column first
        grid = place.expand(len(self.fields), -1, -1)[:, :, None, None]
        found = F.grid_sample(self.fields, grid, "bilinear", "border", align_corners=True)[..., 0, 0]
        if self.whole:
            return torch.where(nowhere, torch.nan, found)
        total, weight = found[:, : self.components], found[:, self.components :]
        return torch.where((weight > 0) & ~nowhere, total / weight, torch.nan)
