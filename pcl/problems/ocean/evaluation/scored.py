"""All methods on all held-out pairs, block by block: a block is scored apart, with draws of its own.

Pairs come in blocks, so that what is made of the archive serves many of them.

Shapes: Q pairs of a block, K members, D drifters, P positions, L lead times.
"""

__all__ = ["Scored", "scored_fields"]

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from pcl.evaluation.blocks import num_at_once
from pcl.evaluation.parts import Lazily, Parts
from pcl.problems.ocean.contract import Origin
from pcl.problems.ocean.evaluation.drift import drift, fastest_current, release_points, unknown_current
from pcl.problems.ocean.evaluation.field_scores import MeanSpectrum
from pcl.problems.ocean.evaluation.leads import Lead
from pcl.problems.ocean.evaluation.learned import POSTERIOR
from pcl.problems.ocean.evaluation.memory import BLOCKS_AT_ONCE
from pcl.problems.ocean.evaluation.methods import Methods
from pcl.problems.ocean.evaluation.tally import Tally
from pcl.problems.ocean.evaluation.windows import Geometry, Windows

# of pairs that are estimated together, for each value of a field: what six methods give, in float64, and its moments
QUERY_BYTES, BYTES_AT_ONCE, MOST_AT_ONCE = 128, 8_000_000, 64
MOST_WHOLE = 32  # pairs, evenly spread, whose ensembles are scored as wholes and have drifters in every member


@dataclass
class Scored:
    """The scores of pairs.

    Attributes:
        tallies: by method.
        spectrum: of the true fields.
        errors: of the posterior, relative, of every pair.
    """

    tallies: dict[str, Tally]
    spectrum: MeanSpectrum
    errors: list[float]

    def join(self, later: "Scored") -> None:
        """Add the pairs of another, which come after these."""
        for name, tally in self.tallies.items():
            tally.join(later.tallies[name])
        self.spectrum.join(later.spectrum)
        self.errors += later.errors


@dataclass(frozen=True)
class _Block:
    """Pairs that are scored together.

    Attributes:
        queries: Q pairs.
        whole: of which the ensembles are scored as wholes, boolean, shape (Q,).
        seed: of the draws.
    """

    queries: Windows
    whole: Tensor
    seed: int


@dataclass(frozen=True)
class _Judge:
    """What every block is judged with.

    Attributes:
        methods: that estimate.
        geometry: of the tiles.
        records: of the lead times, shape (L,).
        fastest: current of all fields, m/s: one step for all, only their currents tell methods apart.
    """

    methods: Methods
    geometry: Geometry
    records: Tensor
    fastest: float


def scored_fields(
    methods: Methods, queries: Windows, geometry: Geometry, leads: Sequence[Lead], parts: Parts
) -> Scored:
    """Return the scores of all methods on all held-out pairs.

    The draws of a block have the seed of the settings plus the number of its first pair, so none hangs on another
    block; blocks are joined in their order.

    Args:
        methods: that estimate.
        queries: held-out pairs.
        geometry: of the tiles.
        leads: lead times.
        parts: where blocks are scored.
    """
    at_once = min(len(queries), MOST_AT_ONCE, num_at_once(QUERY_BYTES * queries.u[0].numel(), BYTES_AT_ONCE))
    whole = torch.zeros(len(queries), dtype=torch.bool)
    whole[torch.linspace(0, len(queries) - 1, min(MOST_WHOLE, len(queries))).long()] = True
    starts = range(0, len(queries), at_once)

    def block(number: int) -> _Block:
        chosen = torch.arange(len(queries))[starts[number] : starts[number] + at_once]  # copies: they travel alone
        return _Block(queries[chosen], whole[chosen], methods.settings.seed + starts[number])

    records = torch.tensor([lead.record for lead in leads], dtype=torch.long)
    judge = _Judge(methods, geometry, records, fastest_current(methods.past.archive.u, queries.u))
    blocks = Lazily(block, len(starts))
    first, *others = parts.in_order(_scored, judge, blocks, "blocks of fields", BLOCKS_AT_ONCE)
    for later in others:
        first.join(later)
    return first


def _scored(judge: _Judge, block: _Block) -> Scored:
    """Return the scores of a block."""
    queries, whole, methods, num_leads = block.queries, block.whole, judge.methods, len(judge.records)
    truth, area = methods.past.truth(queries), judge.geometry.area(queries.origin)
    generator = torch.Generator().manual_seed(block.seed)
    found = Scored({name: Tally(queries.u.shape, num_leads) for name in methods.names}, MeanSpectrum(), [])
    ends: dict[str, list[Tensor]] = {name: [] for name in found.tallies}
    for number, estimates in enumerate(methods.estimates(queries, whole.tolist(), block.seed)):
        members: dict[str, Tensor] = {}
        for name, estimate in estimates:
            found.tallies[name].add(estimate, truth[number], area[number], generator)
            if whole[number] and estimate.members is not None:
                found.tallies[name].add_whole(estimate, truth[number], area[number])
                members[name] = estimate.members
            if name == POSTERIOR:
                found.errors.append(_relative_error(estimate.mean, queries.u[number]))
        for name, of_members in _ends(judge, members, queries.origin[number]).items():
            ends[name].append(of_members)
    found.spectrum.add(truth)
    means = [tally.end_block(truth, area) for tally in found.tallies.values()]
    true, counting, *paths = _paths(queries, means, judge.geometry, judge.fastest)
    latitude = Origin.of(queries.origin).latitude[whole]
    for (name, tally), path in zip(found.tallies.items(), paths, strict=True):
        tally.drift.add(path, counting)
        if ends[name]:
            guess, truly = (part[whole][:, :, judge.records, :2] for part in (path, true))
            tally.member_drift.add(torch.stack(ends[name]), guess, truly, latitude)
    return found


def _relative_error(mean: Tensor, truth: Tensor) -> float:
    return float((mean - truth).square().nanmean() / truth.double().square().nanmean())


def _ends(judge: _Judge, members: Mapping[str, Tensor], origin: Tensor) -> dict[str, Tensor]:
    """Return where drifters are at the lead times in each member of a pair by method, shape (K, D, L, 2)."""
    if not members:
        return {}
    fields = torch.cat([part.float() for part in members.values()])  # together: each step is small
    start, origins = release_points(judge.geometry), origin.expand(len(fields), -1)
    found = drift(fields, origins, judge.geometry, start, judge.fastest)[:, :, judge.records]
    return dict(zip(members, torch.split(found, [len(part) for part in members.values()]), strict=True))


def _paths(queries: Windows, estimates: Sequence[Tensor], geometry: Geometry, fastest: float) -> list[Tensor]:
    """Return where drifters go in the true fields (Q, D, P, 2), the same while they count, and in each estimate.

    A drifter counts, for every method alike, until its true path leaves the tile, or comes to water without a value,
    where it is not known at all; those that count have the latitude in a third component.
    """
    fields = torch.cat([queries.u.double(), *estimates])  # together: there are many steps, and each is small
    origins = queries.origin.repeat(1 + len(estimates), 1)
    true, *paths = torch.split(drift(fields, origins, geometry, release_points(geometry), fastest), len(queries))
    cells = torch.tensor(geometry.cell_degrees[::-1], dtype=torch.float64)
    reach = torch.tensor([geometry.width - 1, geometry.height - 1]) / 2 * cells
    lost = unknown_current(queries.u, queries.wet, true, geometry).cummax(-1).values[..., None]
    gone = ~(true.abs() <= reach).all(-1, keepdim=True).cummin(-2).values | lost
    latitude = Origin.of(queries.origin).latitude[:, None, None] + true[..., 1]
    counting = torch.cat([true, latitude[..., None]], -1)
    return [true.masked_fill(lost, torch.nan), counting.masked_fill(gone, torch.nan), *paths]
