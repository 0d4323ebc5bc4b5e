"""Kernels of the MMD losses: on the data, or on a fixed feature map of the data; never on embeddings.

Shapes: N and M items of one modality, of any shape each.
"""

__all__ = ["Kernel", "gaussian_kernel", "median_bandwidth", "on_features", "polynomial_kernel"]

import math
from collections.abc import Callable

import torch
from torch import Tensor

from pcl.precision import in_full_precision

Kernel = Callable[[Tensor, Tensor], Tensor]


def gaussian_kernel(bandwidth: float) -> Kernel:
    r"""Return the kernel :math:`k(x, y) = \exp(-|x - y|^2 / (2 h^2))`, (N, ...) and (M, ...) to (N, M).

    Args:
        bandwidth: h > 0, in the unit of the data; ``median_bandwidth`` gives a usual choice.

    Raises:
        ValueError: the bandwidth is not positive and finite.

    Example:
        >>> gaussian_kernel(2.0)(torch.tensor([[0.0]]), torch.tensor([[0.0], [2.0]]))
        tensor([[1.0000, 0.6065]])
    """
    if not 0 < bandwidth < math.inf:
        raise ValueError(
            f"bandwidth {bandwidth}: it must be positive and finite; the median distance is 0 among items that are all "
            "equal, or most of them: give a bandwidth"
        )

    @in_full_precision
    def kernel(x: Tensor, y: Tensor) -> Tensor:
        centre = y.flatten(1).mean(0)  # distances do not see the shift, their rounding errors do
        x, y = ((part.flatten(1) - centre) / (math.sqrt(2) * bandwidth) for part in (x, y))
        squares = x.square().sum(1)[:, None] + y.square().sum(1) - 2 * x @ y.T
        return squares.clamp_(min=0).neg_().exp_()

    return kernel


def polynomial_kernel(degree: int, offset: float = 1.0, scale: float = 1.0) -> Kernel:
    r"""Return the kernel :math:`k(x, y) = (\langle x, y \rangle / c^2 + o)^p`, (N, ...) and (M, ...) to (N, M).

    Args:
        degree: p >= 1.
        offset: o >= 0, no unit.
        scale: c > 0, in the unit of the data.

    Raises:
        ValueError: an argument is out of its range.

    Example:
        >>> polynomial_kernel(2)(torch.tensor([[3.0]]), torch.tensor([[1.0], [2.0]]))
        tensor([[16., 49.]])
    """
    if degree < 1 or not 0 <= offset < math.inf or not 0 < scale < math.inf:
        raise ValueError(
            f"degree {degree}, offset {offset}, scale {scale}: needed are degree >= 1, offset >= 0, scale > 0"
        )

    @in_full_precision
    def kernel(x: Tensor, y: Tensor) -> Tensor:
        return ((x.flatten(1) / scale) @ (y.flatten(1) / scale).T + offset) ** degree

    return kernel


def on_features(kernel: Kernel, feature_map: Callable[[Tensor], Tensor]) -> Kernel:
    """Return a kernel on a fixed feature map of the data: k(f(x), f(y)).

    Example:
        >>> on_features(polynomial_kernel(1, offset=0.0), torch.abs)(torch.tensor([[-3.0]]), torch.tensor([[1.0]]))
        tensor([[3.]])
    """
    return lambda x, y: kernel(feature_map(x), feature_map(y))


def median_bandwidth(items: Tensor, max_items: int = 1000) -> float:
    r"""Return the median distance between two different items: the median heuristic for ``gaussian_kernel``.

    Args:
        items: shape (N, ...), N >= 2.
        max_items: bounds the work: of more items a random sample is used, always the same.

    Raises:
        ValueError: there are fewer than two items.

    References:
        Gretton et al. (2012), A kernel two-sample test, section 8.

    Example:
        >>> median_bandwidth(torch.tensor([[0.0], [1.0], [3.0]]))
        2.0
    """
    if len(items) < 2:
        raise ValueError(f"{len(items)} items: a median distance needs at least two")
    if len(items) > max_items:  # the first ones may be of one kind
        items = items[torch.randperm(len(items), generator=torch.Generator().manual_seed(0))[:max_items]]
    return float(torch.pdist(items.flatten(1).double()).median())
