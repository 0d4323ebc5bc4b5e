"""Scores of every distinct u with every distinct v, in blocks that stay in the cache of a core, stripe by stripe.

A stripe is a few blocks high and as wide as all v; stripes are computed apart. What a stripe knows are arrays, which
tasks on one machine share without a copy.

Shapes: n distinct u, m distinct v, F features, P distinct pairs.
"""

__all__ = ["AT_ONCE", "Distinct", "Scores", "num_behind"]

import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from pcl.evaluation.parts import Parts

AT_ONCE = {"cpu": 1024, "cuda": 8192}  # distinct items of each side: their scores stay in the cache of a core
BLOCKS_HIGH = 4  # of a stripe


@dataclass(frozen=True)
class Distinct:
    """One modality, each item once.

    Attributes:
        features: feature maps, shape (n, F).
        number: how often each item occurs, float64, shape (n,).
        place: of the item of every pair, shape (N,).
    """

    features: Tensor
    number: Tensor
    place: Tensor

    @classmethod
    def of(cls, features: Tensor, ids: Tensor) -> "Distinct":
        """Take the first of equal items."""
        _, place, number = torch.unique(ids, return_inverse=True, return_counts=True)
        first = torch.full((len(number),), len(ids)).scatter_reduce_(0, place, torch.arange(len(ids)), "amin")
        if len(number) == len(ids) and torch.equal(place, torch.arange(len(ids))):
            return cls(features, number.double(), place)  # copies nothing
        return cls(features[first], number.double(), place)


@dataclass(frozen=True)
class Block:
    """A block of scores.

    Attributes:
        rows: which u.
        columns: which v.
        scores: of these.
        pairs: rows and columns within the block of those that are pairs.
    """

    rows: slice
    columns: slice
    scores: Tensor
    pairs: tuple[Tensor, ...]


@dataclass(frozen=True)
class Scores:
    """Distinct u and v, and which of them are pairs.

    Attributes:
        u: feature maps, shape (n, F).
        v: likewise, shape (m, F).
        rows: u of the pairs, each pair once, by rows of blocks and in these by v, shape (P,).
        columns: v of the pairs.
        at_once: most rows and columns of a block.
        device: where scores are formed.
    """

    u: np.ndarray
    v: np.ndarray
    rows: np.ndarray
    columns: np.ndarray
    at_once: int
    device: str

    @classmethod
    def of(cls, u: Distinct, v: Distinct, block_pairs: int, device: str) -> "Scores":
        """Sort the pairs; a block has so many rows and columns at most."""
        at_once = min(block_pairs, AT_ONCE[torch.device(device).type])
        pairs = torch.unique(u.place * len(v.number) + v.place)
        rows, columns = pairs // len(v.number), pairs % len(v.number)
        order = (rows // at_once * len(v.number) + columns).argsort(stable=True)
        features = u.features.numpy(), v.features.numpy()
        return cls(*features, rows[order].numpy(), columns[order].numpy(), at_once, device)

    @property
    def height(self) -> int:
        """Rows of a stripe, but for the last."""
        return BLOCKS_HIGH * self.at_once

    @property
    def stripes(self) -> range:
        """Numbers of the stripes."""
        return range(-(-len(self.u) // self.height))

    def rows_of(self, stripe: int) -> slice:
        """Return which u a stripe is of."""
        return slice(stripe * self.height, min((stripe + 1) * self.height, len(self.u)))

    def blocks(self, stripe: int, *, with_pairs: bool = False) -> Iterator[Block]:
        """Yield the blocks of a stripe, in memory that is used again; or those that hold pairs alone."""
        v, rows = tensor_of(self.v, self.device), self.rows_of(stripe)
        work = torch.empty(min(self.at_once, len(self.u)) * self.at_once, dtype=v.dtype, device=self.device)
        columns, heights = range(0, len(self.v), self.at_once), self.rows // self.at_once
        for row in range(rows.start, rows.stop, self.at_once):
            high = slice(row, min(row + self.at_once, rows.stop))
            u = tensor_of(self.u[high], self.device)
            first, last = np.searchsorted(heights, [row // self.at_once, row // self.at_once + 1])
            ends = first + np.searchsorted(self.columns[first:last], [*columns, len(self.v)])
            for column, (start, stop) in zip(columns, pairwise(ends.tolist()), strict=True):
                if with_pairs and start == stop:
                    continue
                wide = slice(column, column + self.at_once)
                candidates = v[wide]
                scores = torch.mm(u, candidates.T, out=work[: len(u) * len(candidates)].view(len(u), -1))
                pairs = (self.rows[start:stop] - row, self.columns[start:stop] - column)
                yield Block(high, wide, scores, tuple(tensor_of(part, self.device) for part in pairs))

    def best(self, parts: Parts) -> tuple[Tensor, Tensor]:
        """Return the best relevant score of every u, and of every v; blocks without pairs are not formed."""
        scores = torch.cat([*parts.in_order(scores_of_pairs, self, self.stripes, "stripes of best scores")])
        return _largest(scores, self.rows, len(self.u)), _largest(scores, self.columns, len(self.v))


def _largest(scores: Tensor, of: np.ndarray, number: int) -> Tensor:
    """Return the largest score of each of a number of items; what is no number is larger than any."""
    none = scores.new_full((number,), -torch.inf)
    return none.scatter_reduce_(0, torch.from_numpy(of), scores, "amax")


@dataclass(frozen=True)
class Compared:
    """Scores, and what each is compared with.

    Attributes:
        scores: of u and v.
        best: the best relevant score of every u (n,) and of every v (m,).
        number: how often each occurs, float64, likewise.
    """

    scores: Scores
    best: tuple[np.ndarray, np.ndarray]
    number: tuple[np.ndarray, np.ndarray]


def num_behind(scores: Scores, number: tuple[Tensor, Tensor], parts: Parts) -> tuple[Tensor, Tensor]:
    """Return how many irrelevant candidates score below the best relevant one, of every u and of every v.

    Whole numbers in float64: their sum is the same in every order.
    """
    best = scores.best(parts)
    compared = Compared(scores, (best[0].numpy(), best[1].numpy()), (number[0].numpy(), number[1].numpy()))
    behind_u, behind_v = torch.zeros_like(number[0]), torch.zeros_like(number[1])
    for stripe, (of_u, of_v) in parts.each(behind_in, compared, scores.stripes, "stripes of scores"):
        behind_u[scores.rows_of(stripe)] = of_u
        behind_v += of_v
    return behind_u, behind_v


def behind_in(compared: Compared, stripe: int) -> tuple[Tensor, Tensor]:
    """Return what ``num_behind`` does for the u of a stripe, and the share of the stripe in it for every v."""
    scores, rows = compared.scores, compared.scores.rows_of(stripe)
    best_u, number_u = (tensor_of(part[rows], scores.device) for part in (compared.best[0], compared.number[0]))
    best_v, number_v = (tensor_of(part[1], scores.device) for part in (compared.best, compared.number))
    behind_u, behind_v = torch.zeros_like(number_u), torch.zeros_like(number_v)
    less = torch.empty(0, dtype=best_u.dtype, device=scores.device)
    for block in scores.blocks(stripe):
        found, high = block.scores, slice(block.rows.start - rows.start, block.rows.stop - rows.start)
        found[block.pairs] = torch.inf
        # numbers, not booleans: products of matrices count them ten times as fast
        less.resize_(found.shape)
        torch.lt(found, best_u[high, None], out=less)
        behind_u[high] += less @ number_v[block.columns].to(less)
        torch.lt(found, best_v[block.columns], out=less)
        behind_v[block.columns] += number_u[high].to(less) @ less
    return behind_u.cpu(), behind_v.cpu()


def scores_of_pairs(scores: Scores, stripe: int) -> Tensor:
    """Return the scores of the pairs of a stripe, in their order."""
    found = [block.scores[block.pairs].cpu() for block in scores.blocks(stripe, with_pairs=True)]
    return torch.cat(found)  # every u is in a pair


def tensor_of(array: np.ndarray, device: str = "cpu") -> Tensor:
    """Return the tensor of an array, which may be one that other processes see and nobody writes to."""
    if array.flags.writeable:
        return torch.from_numpy(array).to(device)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it is only read here
        return torch.from_numpy(array).to(device)
