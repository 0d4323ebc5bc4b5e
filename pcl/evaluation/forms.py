"""Items of any form as vectors, by rules that need no learning.

Shapes: N items, d components.
"""

__all__ = ["Vectors", "forms_of", "may_lack_values"]

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from pcl.data.manifest import ArrayInfo, Manifest

LARGEST_IMAGE = 64  # pixels of a side
NUM_BUCKETS = 2048  # of n-grams
BYTE_GRAMS, TOKEN_GRAMS = (2, 3, 4), (1, 2)
SPACE, CAPITALS, TO_SMALL = 32, (65, 90), 32  # bytes
PRIME, MULTIPLIER, MODULUS = 1_000_003, 2_654_435_761, 2**31 - 1  # of the hash of an n-gram


def forms_of(manifest: Manifest) -> tuple[str, str]:
    """Forms of u and v as their source tells them; where it does not, labels have counts and all others are numbers."""
    counted = ["labels" if manifest.arrays[name].statistics == "counts" else "numbers" for name in "uv"]
    u, v = manifest.source.get("forms", counted)
    return str(u), str(v)


def may_lack_values(info: ArrayInfo) -> bool:
    """Whether items may have missing values, as a manifest tells."""
    return info.statistics == "channel"


@dataclass(frozen=True)
class Vectors:
    """A rule that makes vectors of stored items, by their form.

    - ``numbers``: all components, each in units of its standard deviation in training if the manifest knows it;
    - ``image``: all pixels, averaged over squares until no side has more than 64;
    - ``labels``: a unit vector each;
    - ``text``: how often every n-gram of bytes or tokens occurs, in 2,048 buckets, as log(1 + count), of length 1.

    Attributes:
        form: of the items.
        info: of their array.
        statistics: of them, in the manifest.

    Example:
        >>> Vectors("labels", ArrayInfo("uint8", (), "1", "", statistics="counts"), {"counts": [5, 5, 5]})(
        ...     torch.tensor([2, 0], dtype=torch.uint8))
        tensor([[0., 0., 1.],
                [1., 0., 0.]])
    """

    form: str
    info: ArrayInfo
    statistics: Mapping[str, Any]

    @property
    def num_components(self) -> int:
        """The number of components d."""
        if self.are_labels:
            return len(self.statistics["counts"])
        if self.form == "text":
            return NUM_BUCKETS
        if self._are_images:
            *channels, height, width = self.info.shape
            square = _square(height, width)
            return math.prod(channels) * math.ceil(height / square) * math.ceil(width / square)
        return math.prod(self.info.shape)

    @property
    def are_labels(self) -> bool:
        """Whether an item is a label, one of so many."""
        return self.form == "labels" and "counts" in self.statistics and not self.info.shape

    @property
    def _are_images(self) -> bool:
        return self.form == "image" and len(self.info.shape) in (2, 3)

    def __call__(self, items: Tensor) -> Tensor:
        """Return vectors (N, d) of items (N, ...)."""
        if self.are_labels:
            return torch.nn.functional.one_hot(items.long(), self.num_components).float()
        if self.form == "text":
            return _grams(items.flatten(1))
        if self._are_images:
            return _averaged(items.float(), _square(*self.info.shape[-2:])).flatten(1)
        flat = items.reshape(len(items), -1)
        return flat.float() * self._scale if self.form == "numbers" and self.info.statistics == "component" else flat

    @property
    def _scale(self) -> Tensor:
        """One over the standard deviation of every component, 0 where it never varies, shape (d,)."""
        std = torch.tensor(self.statistics["std"], dtype=torch.float64).flatten() / abs(self.info.scale_factor)
        return torch.where(std > 0, 1 / std, 0).float()


def _square(height: int, width: int) -> int:
    return math.ceil(max(height, width) / LARGEST_IMAGE)


def _averaged(images: Tensor, square: int) -> Tensor:
    """Return means over squares of pixels, those at the lower and right edges over what there is."""
    if square == 1:
        return images
    with_channels = images[:, None] if images.ndim == 3 else images
    return torch.nn.functional.avg_pool2d(with_channels, square, ceil_mode=True)


def _grams(items: Tensor) -> Tensor:
    """Return counts of the n-grams of texts (N, T) that end in zeros, of bytes in small letters or of tokens."""
    of_bytes = items.dtype == torch.uint8
    sizes = BYTE_GRAMS if of_bytes else TOKEN_GRAMS
    symbols = torch.nn.functional.pad(items.long(), (1, 1))
    if of_bytes:
        is_capital = (symbols >= CAPITALS[0]) & (symbols <= CAPITALS[1])
        symbols = torch.where(is_capital, symbols + TO_SMALL, symbols)
        places = torch.arange(symbols.shape[1])
        ends = 1 + (symbols != 0).long().mul(places).amax(1, keepdim=True)
        symbols = torch.where((places == 0) | (places == ends), SPACE, symbols)  # so that words begin and end
    counts = torch.zeros(len(items), NUM_BUCKETS)
    for size in sizes:
        windows = symbols.unfold(1, size, 1) if symbols.shape[1] >= size else symbols[:, :0, None].expand(-1, -1, size)
        hashes = torch.full(windows.shape[:2], size)
        for place in range(size):
            hashes = (hashes * PRIME + windows[..., place]) % MODULUS
        buckets = (hashes * MULTIPLIER % 2**32 >> 16) % NUM_BUCKETS
        counts.scatter_add_(1, buckets, (windows != 0).all(2).float())
    return torch.nn.functional.normalize(counts.log1p())
