"""Evaluation of ocean pairs: retrieval within tiles, and held-out fields given drifters beside the usual methods."""

__all__ = ["add_fields", "evaluate_fields"]

from collections.abc import Mapping, Sequence

import torch
import xarray as xr

from pcl.evaluation.result import Evaluation
from pcl.evaluation.retrieval import RETRIEVALS, both_ranks, head_of, identity_of, retrieval_metrics, row_of
from pcl.evaluation.splits import EvaluationOptions, Splits
from pcl.model import PairModel
from pcl.problems.ocean.contract import Origin, Position
from pcl.problems.ocean.evaluation.dataset import to_dataset
from pcl.problems.ocean.evaluation.fields import Estimate
from pcl.problems.ocean.evaluation.leads import Lead, lead_times, release_name, release_title, time_unit
from pcl.problems.ocean.evaluation.learned import POSTERIOR
from pcl.problems.ocean.evaluation.maps import MapRow, maps_figure, scores_figure
from pcl.problems.ocean.evaluation.methods import NUM_TUNING, Methods
from pcl.problems.ocean.evaluation.scored import scored_fields
from pcl.problems.ocean.evaluation.significance import blocks_of_time
from pcl.problems.ocean.evaluation.tables import add_differences, add_scores, add_whole_scores
from pcl.problems.ocean.evaluation.tally import Tally
from pcl.problems.ocean.evaluation.windows import Archive, Geometry, Windows, read_archive
from pcl.problems.ocean.settings import PosteriorSettings
from pcl.problems.ocean.sphere import METRES_PER_DEGREE
from pcl.problems.ocean.tracks import within_half_turn

CAPTION = (
    "Errors of the mean, separation of drifters in it from the true ones, the place of the truth in the law of its "
    "point, and the probability that a drifter is where the mean takes it beside how often it was."
)


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
    (u, v), at_once = splits.features, splits.options.block_pairs
    ids_u, ids_v = (identity_of(part) for part in splits.items)
    both = [both_ranks(u[own], v[own], ids_u[own], ids_v[own], at_once) for own in groups]
    for name, ranks in zip(RETRIEVALS, zip(*both, strict=True), strict=True):
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
    methods = Methods(model, archive, geometry, settings, options.block_pairs, options.parts)
    leads = lead_times(geometry)
    scored = scored_fields(methods, queries, geometry, leads, options.parts)
    tallies = scored.tallies
    cosine = torch.cos(torch.deg2rad(Origin.of(queries.origin).latitude)).mean()
    length_km = geometry.width * float(geometry.cell_degrees[1] * METRES_PER_DEGREE / 1000 * cosine)
    scores = {name: tally.scores(scored.spectrum, length_km) for name, tally in tallies.items()}
    _add_drift(result, scores, tallies, geometry, leads)
    add_scores(result, scores, len(queries), leads)
    add_whole_scores(result, tallies, leads)
    add_differences(result, tallies, blocks_of_time(Origin.of(queries.origin).release_s))
    tuned = methods.interpolation.tuned
    scales = {"length_km": tuned.length_km, "time_days": tuned.time_days, "noise": tuned.noise}
    result.metrics |= {f"field_optimal_interpolation_{key}": value for key, value in scales.items()}
    _add_examples(result, methods, queries, scored.errors, geometry, options.about)


def _add_drift(
    result: Evaluation,
    scores: dict[str, dict[str, float]],
    tallies: Mapping[str, Tally],
    geometry: Geometry,
    leads: Sequence[Lead],
) -> None:
    """Add the separation of drifters to the scores of every method, and the figure of all."""
    separations = {name: tally.drift.scores().separation_km for name, tally in tallies.items()}
    for name, found in separations.items():
        scores[name] |= {f"separation_km_{lead.name}": float(found[lead.record]) for lead in leads}
    unit, unit_s = time_unit(geometry)
    times = torch.arange(len(separations[POSTERIOR])) * geometry.record_s / unit_s
    places = {name: tally.places for name, tally in tallies.items() if tally.has_law}
    last = len(leads) - 1
    forecasts = {name: tally.member_drift.curve(last) for name, tally in tallies.items() if tally.energy and leads}
    result.figures["field_scores.png"] = scores_figure(scores, times, separations, places, forecasts, unit)
    result.captions["field_scores.png"] = CAPTION


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
        one, estimate = queries[i : i + 1], methods.posterior(queries[i : i + 1], settings.seed + i)
        of_draw = {"source": methods.families[0].source, "posterior_seed": settings.seed + i}
        dataset = to_dataset(estimate, one.origin[0], one.wet[0], geometry, {**about, **of_draw})
        release = str(xr.decode_cf(dataset[["time"]]).time.values[0])
        place = Origin.of(one.origin[0])
        row, column = int(place.row), int(place.column)
        name = f"field_{release_name(release, geometry)}_row{row:03d}_column{column:03d}_pair{i:05d}.nc"
        result.datasets[name] = dataset
        rows.append(_map_row(one, estimate, geometry, release))
    result.figures["fields.png"] = maps_figure(rows)


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
