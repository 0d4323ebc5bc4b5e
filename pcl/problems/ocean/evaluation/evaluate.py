"""Evaluation of ocean pairs: retrieval within tiles, and held-out fields given drifters beside the usual methods."""

__all__ = ["add_fields", "evaluate_fields"]

import math
from collections.abc import Callable, Mapping, Sequence

import torch
import xarray as xr
from torch import Tensor

from pcl.evaluation.blocks import num_at_once
from pcl.evaluation.result import Evaluation
from pcl.evaluation.retrieval import RETRIEVALS, head_of, identity_of, retrieval_metrics, retrieval_ranks, row_of
from pcl.evaluation.splits import EvaluationOptions, Splits
from pcl.model import PairModel
from pcl.problems.ocean.contract import Origin, Position
from pcl.problems.ocean.evaluation.baselines import OptimalInterpolation
from pcl.problems.ocean.evaluation.drift import drift, fastest_current, release_points, unknown_current
from pcl.problems.ocean.evaluation.field_scores import MeanSpectrum
from pcl.problems.ocean.evaluation.fields import Estimate, to_dataset
from pcl.problems.ocean.evaluation.leads import Lead, lead_times, release_name, release_title, time_unit
from pcl.problems.ocean.evaluation.maps import MapRow, maps_figure, scores_figure
from pcl.problems.ocean.evaluation.methods import METHODS, NORMAL, NUM_TUNING, POSTERIOR, Methods
from pcl.problems.ocean.evaluation.tally import Tally
from pcl.problems.ocean.evaluation.windows import Archive, Geometry, Windows, read_archive
from pcl.problems.ocean.settings import PosteriorSettings
from pcl.problems.ocean.sphere import METRES_PER_DEGREE
from pcl.problems.ocean.tracks import within_half_turn

# of pairs that are estimated together, for each value of a field: what six methods give, in float64, and its moments
QUERY_BYTES, BYTES_AT_ONCE, MOST_AT_ONCE = 128, 32_000_000, 64


def add_fields(result: Evaluation, model: PairModel, splits: Splits) -> None:
    """Add retrieval within tiles and, of a split that is not that of the archive, the fields given drifters.

    Args:
        result: to add to.
        model: with its encoders.
        splits: the pairs, with what they are judged by.

    Raises:
        BadInputError: the archive lacks a tile of the pairs.
        DamagedDataError: a shard or the manifest is damaged.
    """
    queries = Windows.of(splits)
    _add_retrieval_within_tiles(result, queries, splits)
    if splits.split != "train":  # a training pair would find its own field in the archive
        geometry = Geometry.of(splits.source, splits.root / "manifest.json")
        archive = read_archive(splits.root, splits.manifest, NUM_TUNING)
        evaluate_fields(result, model, archive, queries, geometry, splits.options)


def _add_retrieval_within_tiles(result: Evaluation, queries: Windows, splits: Splits) -> None:
    """Add retrieval whose candidates are of the query's own tile: time, not place, tells them apart."""
    groups = [(queries.tiles == tile).nonzero()[:, 0] for tile in queries.tile_numbers]
    chance, recall_at = sum(map(len, groups)) / len(groups), splits.options.recall_at
    table = [head_of(f"retrieval within the tile, {chance:.1f} pairs on average", recall_at)]
    features, ids, at_once = splits.features, [identity_of(part) for part in splits.items], splits.options.block_pairs
    for name, (query, candidate) in RETRIEVALS.items():
        ranks = [
            retrieval_ranks(
                features[query][own], features[candidate][own], ids[query][own], ids[candidate][own], at_once
            )
            for own in groups
        ]
        metrics = retrieval_metrics(torch.cat(ranks), recall_at)
        result.metrics |= {f"{name}_within_tile_{key}": value for key, value in metrics.items()}
        table.append(row_of(name, metrics, recall_at))
    result.tables.append(table)


def evaluate_fields(
    result: Evaluation,
    model: PairModel,
    archive: Archive,
    queries: Windows,
    geometry: Geometry,
    options: EvaluationOptions,
) -> None:
    """Add the scores of the posterior and of the baselines, their figures, and the NetCDF files of examples.

    Args:
        result: to add to.
        model: with its encoders.
        archive: of the training split.
        queries: held-out pairs.
        geometry: of the tiles.
        options: with the settings of the posterior.

    Raises:
        BadInputError: the archive lacks a tile of the queries.
    """
    settings = PosteriorSettings() if options.own is None else options.own
    methods = Methods(model, archive, geometry, settings, options.block_pairs)
    tallies, spectrum, errors = _score_all(methods, queries, geometry)
    cosine = torch.cos(torch.deg2rad(Origin.of(queries.origin).latitude)).mean()
    length_km = geometry.width * float(geometry.cell_degrees[1] * METRES_PER_DEGREE / 1000 * cosine)
    scores = {name: tally.scores(spectrum, length_km) for name, tally in tallies.items()}
    separations = {name: tally.drift.scores().separation_km for name, tally in tallies.items()}
    leads = lead_times(geometry)
    for name, separation in separations.items():
        scores[name] |= {f"separation_km_{lead.name}": float(separation[lead.record]) for lead in leads}
    _add_table(result, scores, len(queries), methods.interpolation, leads)
    unit, unit_s = time_unit(geometry)
    times = torch.arange(len(separations[POSTERIOR])) * geometry.record_s / unit_s
    ranks = {name: tally.ranks for name, tally in tallies.items() if tally.ranks is not None}
    result.figures["field_scores.png"] = scores_figure(scores, times, separations, ranks, unit)
    _add_examples(result, methods, queries, errors, geometry, options.about)


def _score_all(
    methods: Methods, queries: Windows, geometry: Geometry
) -> tuple[dict[str, Tally], MeanSpectrum, list[float]]:
    """Return the tallies of all methods, the spectrum of the true fields, and the posterior's error of every pair.

    Pairs come in blocks, so that what is made of the archive serves many of them.
    """
    at_once = min(len(queries), MOST_AT_ONCE, num_at_once(QUERY_BYTES * queries.u[0].numel(), BYTES_AT_ONCE))
    tallies = {name: Tally((at_once, *queries.u.shape[1:]), normal=name == NORMAL) for name in METHODS}
    spectrum, errors = MeanSpectrum(), []
    fastest = fastest_current(methods.archive.u, queries.u)  # one step for all: only their currents tell methods apart
    for start in range(0, len(queries), at_once):
        block = queries[start : start + at_once]
        truth, area = methods.truth(block), geometry.area(block.origin)
        for number, estimates in enumerate(methods.estimates(block)):
            for name, estimate in estimates:
                tallies[name].add(estimate, truth[number], area[number], methods.generator)
                if name == POSTERIOR:
                    errors.append(_relative_error(estimate.mean, block.u[number]))
        spectrum.add(truth)
        means = [tally.end_block(truth, area) for tally in tallies.values()]
        true, *paths = _paths(block, means, geometry, fastest)
        for tally, path in zip(tallies.values(), paths, strict=True):
            tally.drift.add(path, true)
    return tallies, spectrum, errors


def _paths(queries: Windows, estimates: Sequence[Tensor], geometry: Geometry, fastest: float) -> list[Tensor]:
    """Return where drifters go in the true fields, with latitude (Q, D, P, 3), and in each estimate (Q, D, P, 2).

    A drifter counts, for every method alike, until its true path leaves the tile, or comes to water without a value.
    """
    fields = torch.cat([queries.u.double(), *estimates])  # together: there are many steps, and each is small
    origins = queries.origin.repeat(1 + len(estimates), 1)
    true, *paths = torch.split(drift(fields, origins, geometry, release_points(geometry), fastest), len(queries))
    cells = torch.tensor(geometry.cell_degrees[::-1], dtype=torch.float64)
    reach = torch.tensor([geometry.width - 1, geometry.height - 1]) / 2 * cells
    gone = ~(true.abs() <= reach).all(-1) | unknown_current(queries.u, queries.wet, true, geometry)
    latitude = Origin.of(queries.origin).latitude[:, None, None] + true[..., 1]
    counting = torch.cat([true, latitude[..., None]], -1)
    return [counting.masked_fill(gone.cummax(-1).values[..., None], torch.nan), *paths]


Column = tuple[str, str, Callable[[float], str]]  # metric, head, how a number is written
BEFORE: tuple[Column, ...] = (
    ("rmse_m_s", "RMSE", "{:.4f}".format),
    ("nrmse_score", "NRMSE score", "{:.3f}".format),
    ("explained_variance", "expl. var.", "{:.3f}".format),
    ("crps_m_s", "CRPS", "{:.4f}".format),
    ("spread_skill", "spread/skill", "{:.2f}".format),
    ("effective_sample_size", "eff. sample", "{:.1f}".format),
    ("resolution_km", "resolves km", "{:.0f}".format),
)
AFTER: tuple[Column, ...] = (("liu_weisberg", "Liu-Weisberg", "{:.3f}".format),)


def _add_table(
    result: Evaluation,
    scores: Mapping[str, Mapping[str, float]],
    num_queries: int,
    tuned: OptimalInterpolation,
    leads: Sequence[Lead],
) -> None:
    """Add metrics and the table; what is not defined is left out of the former and a dash in the latter.

    A column that would hold nothing but dashes is left out.
    """
    finite = {name: {key: x for key, x in row.items() if math.isfinite(x)} for name, row in scores.items()}
    digits = 1 if all(lead.unit == "day" for lead in leads) else 2
    show_km = f"{{:.{digits}f}}".format
    separations: list[Column] = [(f"separation_km_{lead.name}", f"km, {lead.head}", show_km) for lead in leads]
    columns = [column for column in (*BEFORE, *separations, *AFTER) if any(column[0] in row for row in finite.values())]
    table = [[f"field given drifters, {num_queries:,} held-out pairs; m/s", *(head for _, head, _ in columns)]]
    for name, row in finite.items():
        key = name.replace(" ", "_").replace("-", "_")
        result.metrics |= {f"field_{key}_{score}": value for score, value in row.items()}
        table.append([name, *(show(row[score]) if score in row else "-" for score, _, show in columns)])
    result.tables.append(table)
    scales = {"length_km": tuned.length_km, "time_days": tuned.time_days, "noise": tuned.noise}
    result.metrics |= {f"field_optimal_interpolation_{key}": value for key, value in scales.items()}


def _add_examples(
    result: Evaluation,
    methods: Methods,
    queries: Windows,
    errors: Sequence[float],
    geometry: Geometry,
    about: Mapping[str, str | int],
) -> None:
    """Draw and write examples spread evenly from the smallest relative error to the largest."""
    settings = methods.settings
    number = min(settings.num_examples, len(queries))
    if number == 0:
        return
    places = ((torch.arange(number) + 0.5) / number * len(queries)).long()
    rows = []
    for i in torch.tensor(errors).argsort()[places].tolist():
        one, generator = queries[i : i + 1], torch.Generator().manual_seed(settings.seed + i)
        estimate = methods.posterior.given(one.v[0], int(one.tiles[0]), settings.num_members, generator)
        of_draw = {"references": settings.references, "posterior_seed": settings.seed + i}
        dataset = to_dataset(estimate, one.origin[0], one.wet[0], geometry, {**about, **of_draw})
        release = str(xr.decode_cf(dataset[["time"]]).time.values[0])
        place = Origin.of(one.origin[0])
        row, column = int(place.row), int(place.column)
        name = f"field_{release_name(release, geometry)}_row{row:03d}_column{column:03d}_pair{i:05d}.nc"
        result.datasets[name] = dataset
        rows.append(_map_row(one, estimate, geometry, release))
    result.figures["fields.png"] = maps_figure(rows)


def _relative_error(mean: Tensor, truth: Tensor) -> float:
    return float((mean - truth).square().nanmean() / truth.double().square().nanmean())


def _map_row(one: Windows, estimate: Estimate, geometry: Geometry, release: str) -> MapRow:
    assert estimate.std is not None
    middle = len(geometry.time_s) // 2
    latitude, longitude = geometry.axes(one.origin[0])
    wet = one.wet[0, middle]
    drifters = Position.of(one.v[0].double())
    centre = torch.stack([longitude[[0, -1]].mean(), latitude[[0, -1]].mean()])
    return MapRow(
        truth=one.u[0, :, middle].double(),
        mean=estimate.mean[:, middle].where(wet, torch.nan),
        std=estimate.std[:, middle].where(wet, torch.nan),
        wet=wet,
        latitude=latitude,
        longitude=longitude,
        tracks=torch.stack([within_half_turn(drifters.east), drifters.north], -1) + centre,
        title=release_title(release, float(geometry.time_s[middle]), geometry),
    )
