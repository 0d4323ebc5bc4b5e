r"""Fields given drifters: the learned conditional carried by an archive of past windows.

.. math:: \hat u(v) = \sum_i w_i(v)\, u^i, \qquad \hat\sigma^2(v) = \sum_i w_i(v)\, (u^i - \hat u(v))^2

with the weights of arXiv:2505.24134, equation 28. At points where some windows of the archive have no value, on land or
in water, the weights of the others are renormalised.

Shapes: N windows of the archive, K members, T times, H x W grid points.
"""

__all__ = ["Estimate", "FieldLaw", "FieldPosterior", "completed", "summarise"]

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from pcl.conditional import Conditional, draw
from pcl.errors import BadInputError
from pcl.evaluation.blocks import Items, encoded, num_at_once, walk
from pcl.evaluation.parts import HERE, Parts
from pcl.model import PairModel
from pcl.problems.ocean.evaluation.point_law import PointLaw
from pcl.problems.ocean.evaluation.running import RunningMean
from pcl.problems.ocean.evaluation.windows import Archive, Windows
from pcl.problems.ocean.settings import REFERENCES

COPIES = 8  # of a block, while its moments are taken
LEAST_STD = 1e-9  # m/s: where nothing is doubted the score is the absolute error


@dataclass(frozen=True)
class Estimate:
    """What is said of a window of velocity.

    Attributes:
        mean: m/s, float64, shape (2, T, H, W).
        std: its standard deviation at every point, likewise; None for a method that gives none.
        members: draws, shape (K, 2, T, H, W); None likewise.
        effective_sample_size: of the weights; None for a method without.
        degrees: of freedom of Student's law of every point, whose scores then need no members, infinite for the normal
            law; None: the law of a point is that of the members.
    """

    mean: Tensor
    std: Tensor | None = None
    members: Tensor | None = None
    effective_sample_size: float | None = None
    degrees: float | None = None

    @property
    def law(self) -> PointLaw | None:
        """The law of every point; None: that of the members, or none."""
        if self.std is None or self.degrees is None:
            return None
        return PointLaw(self.mean, self.std.clamp(min=LEAST_STD), self.degrees)


def summarise(values: Items, weights: Tensor, chosen: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Return the weighted mean and standard deviation of values that may be missing.

    Args:
        values: shape (N, ...), NaN where missing.
        weights: not negative, shape (N,), or (n,) of those chosen.
        chosen: increasing indices of the values that count, shape (n,); None: all.

    Returns:
        Float64, shape (...): NaN where no value has a weight.

    Example:
        >>> summarise(torch.tensor([[1.0, 3.0], [3.0, torch.nan]]), torch.tensor([0.5, 0.5]))
        (tensor([2., 3.], dtype=torch.float64), tensor([1., 0.], dtype=torch.float64))
    """
    share, shape = weights.double(), values.shape[1:]
    total, first, second = torch.zeros(3, max(1, math.prod(shape)), dtype=torch.float64)
    item_bytes = COPIES * values[:1].nbytes
    for place, block in walk(values, chosen, item_bytes):
        flat = block.reshape(len(block), -1).double()
        total += share[place] @ torch.isfinite(flat).double()
        first += share[place] @ flat.nan_to_num()
    mean = first / total
    for place, block in walk(values, chosen, item_bytes):
        flat = block.reshape(len(block), -1) - mean.nan_to_num()
        second += share[place] @ flat.square_().nan_to_num_()
    return mean.reshape(shape), (second / total).sqrt().reshape(shape)


def completed(estimate: Estimate, prior: Estimate) -> Estimate:
    """Return an estimate with the values of another where it has none: methods must not choose where they are scored.

    Args:
        estimate: to complete.
        prior: with a standard deviation.
    """
    assert prior.std is not None
    return replace(
        estimate,
        mean=_fill(estimate.mean, prior.mean),
        std=None if estimate.std is None else _fill(estimate.std, prior.std),
        members=None if estimate.members is None else _fill(estimate.members, prior.mean),
    )


class FieldPosterior:
    """The learned conditional of the field given drifters, on an archive.

    Args:
        model: with its encoders.
        archive: windows of the past, each field once.
        references: ``tile``: windows of the drifters' own tile; ``all``: of every tile.
        block_pairs: windows encoded at a time.
        parts: where blocks of windows are encoded.

    Raises:
        BadInputError: the references are not known.
    """

    def __init__(
        self,
        model: PairModel,
        archive: Archive | Windows,
        references: str = "tile",
        block_pairs: int = 2048,
        parts: Parts = HERE,
    ) -> None:
        if references not in REFERENCES:
            raise BadInputError(f"references {references!r} are not known: choose one of {', '.join(REFERENCES)}")
        self.model, self.archive, self.references = model, archive, references
        shared, step = (model, archive.u, block_pairs), num_at_once(archive.u[:1].nbytes)
        blocks = [slice(start, start + step) for start in range(0, len(archive), step)]
        self.features = torch.cat([*parts.in_order(_encoded, shared, blocks, "blocks of the archive")])
        self.shift = _mean_current(archive.u)  # centred values have accurate squares

    def candidates(self, tile: int) -> Tensor:
        """Return the indices of the windows that may stand for the field of a tile.

        Raises:
            BadInputError: the archive has no window of the tile.
        """
        if self.references == "all":
            return torch.arange(len(self.archive))
        found = (self.archive.tiles == tile).nonzero()[:, 0]
        if len(found) == 0:
            raise BadInputError(
                f"the archive has no window of tile {tile}: choose evaluation.ocean.references=all, or write shards "
                "whose training period covers the tile"
            )
        return found

    @torch.no_grad()
    def laws(self, drifters: Tensor, tiles: Sequence[int]) -> list["FieldLaw"]:
        """Return the conditional given each of several windows' drifters, in one walk through the archive.

        Args:
            drifters: shape (Q, D, P, 4), as stored.
            tiles: numbers of their tiles, Q of them.

        Raises:
            BadInputError: the archive has no window of a tile.
        """
        queries = self.model.features_v(drifters)
        moments = torch.empty(2, len(tiles), *self.archive.u.shape[1:], dtype=torch.float64)
        groups = {tile if self.references == "tile" else None: self.candidates(tile) for tile in tiles}
        laws: dict[int, FieldLaw] = {}
        for group, candidates in groups.items():
            conditional = Conditional(self.features[candidates], self.model.temperature())
            own = [i for i, tile in enumerate(tiles) if group is None or tile == group]
            weights = conditional.weights(queries[own])
            moments[:, own] = self._moments(candidates, weights)
            sizes = conditional.effective_sample_size(queries[own]).tolist()
            for i, share, size in zip(own, weights, sizes, strict=True):
                laws[i] = FieldLaw(self.archive.u, candidates, share, moments[0, i], moments[1, i], size)
        return [laws[i] for i in range(len(tiles))]

    def _moments(self, candidates: Tensor, weights: Tensor) -> Tensor:
        """Return what ``summarise`` does for every row of weights (Q, n), shape (2, Q, C, T, H, W)."""
        shape = self.archive.u.shape[1:]
        total, first, second = torch.zeros(3, len(weights), math.prod(shape))
        for place, block in walk(self.archive.u, candidates, COPIES * self.archive.u[:1].nbytes):
            centred, share = (block - self.shift).flatten(1), weights[:, place]
            total.addmm_(share, torch.isfinite(centred).float())
            first.addmm_(share, centred.nan_to_num_())
            second.addmm_(share, centred.square_())
        mean = first.div_(total)
        std = second.div_(total).sub_(mean.square()).clamp_(min=0).sqrt_()
        found = torch.stack([mean, std]).reshape(2, -1, *shape).double()
        found[0] += self.shift
        return found

    def given(self, drifters: Tensor, tile: int, num_members: int, generator: torch.Generator) -> Estimate:
        """Estimate the field of a tile.

        Args:
            drifters: shape (D, P, 4), as stored.
            tile: number of the tile, as in ``Windows.tiles``.
            num_members: K, drawn with replacement.
            generator: of the draws.

        Raises:
            BadInputError: the archive has no window of the tile.
        """
        law = self.laws(drifters[None], [tile])[0]
        estimate = law.estimate(num_members, generator)
        assert estimate.members is not None
        return replace(estimate, members=estimate.members.double())

    def best(self, drifters: Tensor, tile: int, mean: Tensor) -> Estimate:
        """Return the window with the largest weight, the mode of the conditional, completed by the posterior mean."""
        return replace(self.laws(drifters[None], [tile])[0], mean=mean).best()


@dataclass(frozen=True, eq=False)
class FieldLaw:
    """The conditional of the field given the drifters of one window.

    Attributes:
        u: of the archive, shape (N, 2, T, H, W).
        candidates: indices of the windows that carry it, shape (n,).
        weights: of these, shape (n,).
        mean: m/s, float64, shape (2, T, H, W).
        std: likewise.
        effective_sample_size: of the weights.
    """

    u: Items
    candidates: Tensor
    weights: Tensor
    mean: Tensor
    std: Tensor
    effective_sample_size: float

    def estimate(self, num_members: int, generator: torch.Generator) -> Estimate:
        """Return mean, spread and members, drawn with replacement, in the precision of the archive."""
        drawn = draw(self.weights[None], num_members, generator)[0]
        members = _fill(self.u[self.candidates[drawn]], self.mean)
        return Estimate(self.mean, self.std, members, self.effective_sample_size)

    def best(self) -> Estimate:
        """Return the window with the largest weight, completed by the mean."""
        return Estimate(_fill(self.u[self.candidates[self.weights.argmax()][None]][0].double(), self.mean))


def _encoded(shared: tuple[PairModel, Items, int], block: slice) -> Tensor:
    """Return feature maps of some windows of an archive."""
    model, windows, block_pairs = shared
    u = windows[block]
    return encoded(model.features_u, u, block_pairs, u[:1].nbytes)


def _mean_current(u: Items) -> Tensor:
    """Return the mean of each component over all that is not missing, shape (2, 1, 1, 1)."""
    means = [RunningMean() for _ in range(u.shape[1])]
    for _, block in walk(u):
        for component, mean in enumerate(means):
            mean.add(block[:, component], torch.ones(1))
    return torch.tensor([mean.mean for mean in means])[:, None, None, None]


def _fill(fields: Tensor, mean: Tensor) -> Tensor:
    """Give the mean where fields have no value: windows of another tile, where they are dry, have no say."""
    return torch.where(torch.isfinite(fields), fields, mean.to(fields.dtype))
