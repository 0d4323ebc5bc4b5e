"""Evaluation of ocean pairs: retrieval within tiles, and held-out fields given drifters beside the usual methods."""

__all__ = ["FieldOptions", "evaluate_fields", "retrieval_within_tiles"]

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import torch
import xarray as xr
from torch import Tensor

from pcl.evaluation.baselines import (
    Measurements,
    OptimalInterpolation,
    climatology,
    measure,
    nearest_track_analog,
    random_analog,
)
from pcl.evaluation.drift import drift, release_points
from pcl.evaluation.field_scores import (
    drift_scores,
    effective_resolution,
    fair_crps,
    gaussian_crps,
    mean_scores,
    rank_histogram,
    weighted_mean,
)
from pcl.evaluation.fields import Estimate, FieldPosterior, completed, to_dataset
from pcl.evaluation.maps import MapRow, maps_figure, scores_figure
from pcl.evaluation.result import Evaluation
from pcl.evaluation.retrieval import identity_of, retrieval_metrics, retrieval_ranks
from pcl.evaluation.windows import COLUMN, LATITUDE, LONGITUDE, ROW, Geometry, Windows
from pcl.model import PairModel
from pcl.sphere import METRES_PER_DEGREE

DAY_S = 86400.0
LEAD_DAYS = (1, 3, 7)
NUM_TUNING = 12  # training pairs on which the scales of the optimal interpolation are chosen


@dataclass(frozen=True)
class FieldOptions:
    """How fields are evaluated.

    Attributes:
        references: windows that carry the posterior: of the same ``tile``, or ``all``.
        num_members: members of an ensemble.
        num_examples: held-out pairs drawn as maps and written as NetCDF.
        seed: of the draws.
        about: attributes of the NetCDF files: experiment hash, checkpoint, seeds.
    """

    references: str = "tile"
    num_members: int = 50
    num_examples: int = 4
    seed: int = 0
    about: Mapping[str, str | int] = field(default_factory=dict)


def retrieval_within_tiles(
    result: Evaluation,
    queries: Windows,
    features: tuple[Tensor, Tensor],
    recall_at: Sequence[int],
    block_pairs: int,
) -> None:
    """Add retrieval whose candidates are of the query's own tile: time, not place, tells them apart.

    Args:
        result: to add to.
        queries: the pairs.
        features: feature maps of u and of v, shape (N, F) each.
        recall_at: K of R@K.
        block_pairs: pairs scored at a time.
    """
    groups = [(queries.tiles == tile).nonzero()[:, 0] for tile in queries.tile_numbers]
    chance = sum(map(len, groups)) / len(groups)
    table = [
        [f"retrieval within the tile, {chance:.1f} pairs on average", *(f"R@{k}" for k in recall_at), "median rank"]
    ]
    ids = [identity_of(queries.u), identity_of(queries.v)]
    for query, candidate, name in ((0, 1, "u_to_v"), (1, 0, "v_to_u")):
        ranks = torch.cat(
            [
                retrieval_ranks(
                    features[query][group],
                    features[candidate][group],
                    ids[query][group],
                    ids[candidate][group],
                    block_pairs,
                )
                for group in groups
            ]
        )
        metrics = retrieval_metrics(ranks, recall_at)
        result.metrics |= {f"{name}_within_tile_{key}": value for key, value in metrics.items()}
        row = [f"{metrics[f'recall@{k}']:.4f}" for k in recall_at]
        table.append([name.replace("_to_", " -> "), *row, f"{metrics['median_rank']:g}"])
    result.tables.append(table)


class _Methods:
    """Every way to estimate the field of a held-out pair."""

    def __init__(
        self, model: PairModel, archive: Windows, geometry: Geometry, options: FieldOptions, block_pairs: int
    ) -> None:
        self.archive, self.geometry, self.options = archive, geometry, options
        self.generator = torch.Generator().manual_seed(options.seed)
        self.posterior = FieldPosterior(model, archive, references=options.references, block_pairs=block_pairs)
        self.of_tile = {tile: archive.u[archive.tiles == tile] for tile in archive.tile_numbers}
        self.prior = {tile: climatology(fields, 1, self.generator) for tile, fields in self.of_tile.items()}
        chosen = torch.linspace(0, len(archive) - 1, min(NUM_TUNING, len(archive))).long().tolist()
        self.interpolation = OptimalInterpolation.tune([self._example(archive[i : i + 1]) for i in chosen], geometry)

    def _example(self, one: Windows) -> tuple[Tensor, Tensor, Estimate, Measurements, float]:
        area = self.geometry.area(one.origin)[0]
        prior, latitude = self.prior[int(one.tiles[0])], float(one.origin[0, LATITUDE])
        return one.u[0], area, prior, measure(one.v[0], self.geometry), latitude

    def truth(self, one: Windows) -> Tensor:
        """Return the true field where its tile's climatology knows of water: all methods are scored there."""
        return one.u[0].double().where(torch.isfinite(self.prior[int(one.tiles[0])].mean), torch.nan)

    def estimates(self, one: Windows) -> Iterator[tuple[str, Estimate]]:
        """Yield every method's name and estimate, completed by climatology; the first is the learned posterior."""
        prior = self.prior[int(one.tiles[0])]
        for name, estimate in self._raw_estimates(one):
            yield name, completed(estimate, prior)

    def _raw_estimates(self, one: Windows) -> Iterator[tuple[str, Estimate]]:
        tile, number, generator = int(one.tiles[0]), self.options.num_members, self.generator
        fields, prior, drifters = self.of_tile[tile], self.prior[tile], one.v[0]
        seen, latitude = measure(drifters, self.geometry), float(one.origin[0, LATITUDE])
        candidates = self.archive.u if self.options.references == "all" else fields
        learned = self.posterior.given(drifters, tile, number, generator)
        yield "posterior", learned
        yield "posterior mode", self.posterior.best(drifters, tile, learned.mean)
        yield "climatology", climatology(fields, number, generator)
        yield "random analog", random_analog(fields, generator)
        yield "nearest-track analog", nearest_track_analog(candidates, seen, self.geometry)
        yield (
            "optimal interpolation",
            self.interpolation.estimate(prior, seen, self.geometry, latitude, number, generator),
        )


class _Tally:
    """The estimates of one method, and what is known of its ensembles, pair by pair."""

    def __init__(self) -> None:
        self.means: list[Tensor] = []
        self.stds: list[Tensor] = []
        self.crps: list[Tensor] = []
        self.sizes: list[float] = []
        self.ranks: Tensor | None = None

    def add(self, name: str, estimate: Estimate, truth: Tensor, generator: torch.Generator) -> None:
        self.means.append(estimate.mean)
        if estimate.std is None or estimate.members is None:
            self.crps.append((estimate.mean - truth).abs())
            return
        self.stds.append(estimate.std)
        if estimate.effective_sample_size is not None:
            self.sizes.append(estimate.effective_sample_size)
        normal = name == "optimal interpolation"
        score = gaussian_crps(estimate.mean, estimate.std, truth) if normal else fair_crps(estimate.members, truth)
        self.crps.append(score)
        counts = rank_histogram(estimate.members, truth, generator)
        self.ranks = counts if self.ranks is None else self.ranks + counts

    def scores(self, truth: Tensor, area: Tensor, spacing_km: float) -> dict[str, float]:
        means = torch.stack(self.means)
        found = mean_scores(means, truth, area)
        found["resolution_km"] = effective_resolution(means, truth, spacing_km)
        found["crps_m_s"] = float(weighted_mean(torch.stack(self.crps), area))
        if self.stds:
            spread = weighted_mean(torch.stack(self.stds).square(), area).sqrt()
            found["spread_skill"] = float(spread) / found["rmse_m_s"]
        if self.sizes:
            found["effective_sample_size"] = float(torch.tensor(self.sizes).median())
        return found


def evaluate_fields(
    result: Evaluation,
    model: PairModel,
    archive: Windows,
    queries: Windows,
    geometry: Geometry,
    options: FieldOptions,
    block_pairs: int = 2048,
) -> None:
    """Add the scores of the posterior and of the baselines, their figures, and the NetCDF files of examples.

    Args:
        result: to add to.
        model: with its encoders.
        archive: windows of the training split, each field once.
        queries: held-out pairs.
        geometry: of the tiles.
        options: see there.
        block_pairs: windows encoded at a time.

    Raises:
        BadInputError: the archive lacks a tile of the queries.
    """
    methods = _Methods(model, archive, geometry, options, block_pairs)
    tallies: dict[str, _Tally] = {}
    shown: list[Estimate] = []
    for number in range(len(queries)):
        one = queries[number : number + 1]
        for name, estimate in methods.estimates(one):
            tallies.setdefault(name, _Tally()).add(name, estimate, methods.truth(one), methods.generator)
            if name == "posterior":
                shown.append(Estimate(estimate.mean, estimate.std, None, estimate.effective_sample_size))
    truth = torch.stack([methods.truth(queries[i : i + 1]) for i in range(len(queries))])
    area = geometry.area(queries.origin)
    cosine = torch.cos(torch.deg2rad(queries.origin[:, LATITUDE])).mean()
    spacing_km = float(geometry.cell_degrees[1] * METRES_PER_DEGREE / 1000 * cosine)
    scores = {name: tally.scores(truth, area, spacing_km) for name, tally in tallies.items()}
    separations = _drift_all(scores, tallies, queries, geometry)
    _add_table(result, scores, len(queries), methods.interpolation)
    days = torch.arange(len(next(iter(separations.values())))) * geometry.record_s / DAY_S
    ranks = {name: tally.ranks for name, tally in tallies.items() if tally.ranks is not None}
    result.figures["field_scores.png"] = scores_figure(scores, days, separations, ranks)
    _add_examples(result, methods, queries, shown, geometry, options)


def _drift_all(
    scores: dict[str, dict[str, float]], tallies: Mapping[str, _Tally], queries: Windows, geometry: Geometry
) -> dict[str, Tensor]:
    """Add the scores of drifters released in the estimates; return their separation by method, km at every record.

    A drifter counts while its true path is within the tile, for every method alike.
    """
    start = release_points(geometry)
    centre = queries.origin[:, LATITUDE, None, None]
    true = drift(queries.u, queries.origin, geometry, start)
    cells = torch.tensor(geometry.cell_degrees[::-1], dtype=torch.float64)
    reach = torch.tensor([geometry.width - 1, geometry.height - 1]) / 2 * cells
    gone = (~(true.abs() <= reach).all(-1)).cummax(-1).values
    true = torch.cat([true, (centre + true[..., 1])[..., None]], -1).masked_fill(gone[..., None], torch.nan)
    separations = {}
    for name, tally in tallies.items():
        found = drift_scores(drift(torch.stack(tally.means), queries.origin, geometry, start), true)
        separations[name] = found.separation_km
        for day in LEAD_DAYS:
            record = round(day * DAY_S / geometry.record_s)
            if record < len(found.separation_km):
                scores[name][f"separation_km_day_{day}"] = float(found.separation_km[record])
        scores[name]["liu_weisberg"] = found.skill
    return separations


COLUMNS: tuple[tuple[str, str, Callable[[float], str]], ...] = (
    ("rmse_m_s", "RMSE", "{:.4f}".format),
    ("nrmse_score", "NRMSE score", "{:.3f}".format),
    ("explained_variance", "expl. var.", "{:.3f}".format),
    ("crps_m_s", "CRPS", "{:.4f}".format),
    ("spread_skill", "spread/skill", "{:.2f}".format),
    ("effective_sample_size", "eff. sample", "{:.1f}".format),
    ("resolution_km", "resolves km", "{:.0f}".format),
    *((f"separation_km_day_{day}", f"km, day {day}", "{:.1f}".format) for day in LEAD_DAYS),
    ("liu_weisberg", "Liu-Weisberg", "{:.3f}".format),
)


def _add_table(
    result: Evaluation, scores: Mapping[str, Mapping[str, float]], num_queries: int, tuned: OptimalInterpolation
) -> None:
    """Add metrics and the table; what is not defined is left out of the former and a dash in the latter."""
    finite = {
        name: {key: value for key, value in row.items() if torch.isfinite(torch.tensor(value))}
        for name, row in scores.items()
    }
    table = [[f"field given drifters, {num_queries:,} held-out pairs; m/s", *(head for _, head, _ in COLUMNS)]]
    for name, row in finite.items():
        key = name.replace(" ", "_").replace("-", "_")
        result.metrics |= {f"field_{key}_{score}": value for score, value in row.items()}
        table.append([name, *(show(row[score]) if score in row else "-" for score, _, show in COLUMNS)])
    result.tables.append(table)
    scales = {"length_km": tuned.length_km, "time_days": tuned.time_days, "noise": tuned.noise}
    result.metrics |= {f"field_optimal_interpolation_{key}": value for key, value in scales.items()}


def _add_examples(
    result: Evaluation,
    methods: _Methods,
    queries: Windows,
    shown: Sequence[Estimate],
    geometry: Geometry,
    options: FieldOptions,
) -> None:
    """Draw and write examples spread evenly from the smallest relative error to the largest."""
    number = min(options.num_examples, len(queries))
    if number == 0:
        return
    order = torch.tensor([_relative_error(one.mean, u) for one, u in zip(shown, queries.u, strict=True)]).argsort()
    places = ((torch.arange(number) + 0.5) / number * len(queries)).long()
    rows = []
    for i in order[places].tolist():
        one, generator = queries[i : i + 1], torch.Generator().manual_seed(options.seed + i)
        estimate = methods.posterior.given(one.v[0], int(one.tiles[0]), options.num_members, generator)
        about = {**options.about, "references": options.references, "posterior_seed": options.seed + i}
        dataset = to_dataset(estimate, one.origin[0], one.wet[0], geometry, about)
        release = str(xr.decode_cf(dataset[["time"]]).time.values[0])[:10]
        row, column = (int(one.origin[0, part]) for part in (ROW, COLUMN))
        result.datasets[f"field_{release}_row{row:03d}_column{column:03d}_pair{i:05d}.nc"] = dataset
        rows.append(_map_row(one, estimate, geometry, release))
    result.figures["fields.png"] = maps_figure(rows)


def _relative_error(mean: Tensor, truth: Tensor) -> float:
    return float((mean - truth).square().nanmean() / truth.double().square().nanmean())


def _map_row(one: Windows, estimate: Estimate, geometry: Geometry, release: str) -> MapRow:
    assert estimate.std is not None
    middle = len(geometry.time_s) // 2
    latitude, longitude = geometry.axes(one.origin[0])
    days = float(geometry.time_s[middle]) / DAY_S
    return MapRow(
        truth=one.u[0, :, middle].double(),
        mean=estimate.mean[:, middle].where(one.wet[0, middle], torch.nan),
        std=estimate.std[:, middle].where(one.wet[0, middle], torch.nan),
        wet=one.wet[0, middle],
        latitude=latitude,
        longitude=longitude,
        tracks=one.v[0, :, :, :2].double() + one.origin[0, [LONGITUDE, LATITUDE]],
        title=f"released {release},\n{days:g} days later",
    )
