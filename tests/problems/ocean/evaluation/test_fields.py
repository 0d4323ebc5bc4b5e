"""The posterior of fields given drifters, its NetCDF files, and a whole evaluation of small ocean shards."""

import math
import re

import numpy as np
import pytest
import torch
import xarray as xr

from pcl.config.load import load_config
from pcl.encoders.build import build_model
from pcl.errors import BadInputError
from pcl.evaluation.evaluate import evaluate
from pcl.evaluation.splits import EvaluationOptions
from pcl.problems.ocean.evaluation import evaluate as of_fields
from pcl.problems.ocean.evaluation.baselines import measure
from pcl.problems.ocean.evaluation.dataset import to_dataset
from pcl.problems.ocean.evaluation.drift import drift, fastest_current, release_points, unknown_current
from pcl.problems.ocean.evaluation.fields import Estimate, FieldPosterior, completed, summarise
from pcl.problems.ocean.evaluation.windows import Geometry
from pcl.problems.ocean.settings import PosteriorSettings
from pcl.problems.problem import problem
from pcl.train.parts import loss_of, model_spec
from tests.problems.ocean.evaluation.ocean_pairs import (
    HOUR_S,
    ROOT,
    MadePairs,
    make_ocean_shards,
    read_windows,
    write_pairs,
)
from tests.told import unexplained

pytestmark = pytest.mark.long

OCEAN, NETWORKS = problem("ocean"), ROOT / "configs" / "ocean_networks.yaml"


def evaluated(model, root, manifest, own=None, *, split="test", about=None, max_pairs=0, num_examples=0):
    """Return the evaluation of a split, with settings of the posterior."""
    options = EvaluationOptions(
        recall_at=[1, 5],
        block_pairs=7,
        max_pairs=max_pairs,
        num_examples=num_examples,
        own=own,
        about=about or {},
    )
    return evaluate(model, root, manifest, split, options, OCEAN.drawings, OCEAN.evaluate)


@pytest.fixture(scope="module")
def ocean(tmp_path_factory):
    """Shards with two releases a window, their manifest, and an untrained model."""
    chosen = "data.ocean.drifters.num_releases=2", "data.ocean.drifters.step_s=10800"  # half of what drift takes
    root, manifest = make_ocean_shards(tmp_path_factory.mktemp("ocean"), *chosen)
    config = load_config(NETWORKS, ("model.field_network.width=8", "model.embedding_dim=4"))
    return root, manifest, build_model(model_spec(config, manifest)).eval()


@pytest.fixture(scope="module")
def archive(ocean):
    return read_windows(ocean[0], ocean[1], "train", unique=True)


@pytest.fixture(scope="module")
def queries(ocean):
    return read_windows(ocean[0], ocean[1], "test")


def test_an_archive_holds_each_field_once(ocean, archive):
    every = read_windows(ocean[0], ocean[1], "train")
    assert len(every) == 2 * len(archive)
    keys = {tuple(origin[3:].tolist()) for origin in every.origin}
    assert len(keys) == len(archive)


def test_the_posterior_is_the_formula(ocean, archive, queries):
    posterior = FieldPosterior(ocean[2], archive, block_pairs=3)
    tile = int(queries.tiles[0])
    found = posterior.given(queries.v[0], tile, 20, torch.Generator().manual_seed(0))
    same = archive.tiles == tile
    with torch.no_grad():
        weights = torch.softmax(ocean[2].log_tilting(archive.u[same], queries.v[:1])[:, 0], 0).double().numpy()
    fields = archive.u[same].double().numpy()
    mean = np.einsum("n,n...->...", weights, fields)
    std = np.sqrt(np.einsum("n,n...->...", weights, (fields - mean) ** 2))
    np.testing.assert_allclose(found.mean, mean, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(found.std, std, rtol=1e-3, atol=1e-5)
    assert found.effective_sample_size == pytest.approx(1 / (weights**2).sum(), rel=1e-4)
    assert all(any(np.array_equal(m, f, equal_nan=True) for f in fields) for m in found.members.numpy())
    best = posterior.best(queries.v[0], tile, found.mean).mean.numpy()
    np.testing.assert_array_equal(best, fields[weights.argmax()])


def test_references_of_all_tiles_leave_no_gap_in_water(ocean, archive, queries):
    posterior = FieldPosterior(ocean[2], archive, references="all")
    found = posterior.given(queries.v[0], int(queries.tiles[0]), 20, torch.Generator().manual_seed(0))
    assert torch.isfinite(found.mean).all()
    assert torch.isfinite(found.members).all()


def test_a_tile_without_archive_is_refused(ocean, archive):
    posterior = FieldPosterior(ocean[2], archive)
    with pytest.raises(BadInputError, match="no window of tile 77"):
        posterior.given(archive.v[0], 77, 2, torch.Generator())
    with pytest.raises(BadInputError, match="choose one of tile, all"):
        FieldPosterior(ocean[2], archive, references="none")


def test_moments_ignore_what_is_missing():
    values = torch.tensor([[1.0, torch.nan], [4.0, 2.0], [7.0, 6.0]])
    mean, std = summarise(values, torch.tensor([0.5, 0.25, 0.25]))
    assert mean.tolist() == pytest.approx([3.25, 4.0])
    assert std[1] == pytest.approx(2.0)


def test_a_file_is_cf_and_comes_back(ocean, archive, queries, tmp_path):
    geometry = Geometry.of(ocean[1].source)
    estimate = FieldPosterior(ocean[2], archive).given(queries.v[0], int(queries.tiles[0]), 6, torch.Generator())
    about = {"experiment": "abc", "checkpoint": "checkpoint_1", "training_seed": 3}
    written = to_dataset(estimate, queries.origin[0], queries.wet[0], geometry, about)
    written.to_netcdf(tmp_path / "field.nc")
    with xr.open_dataset(tmp_path / "field.nc") as read:
        assert read["u"].dims == ("realization", "time", "latitude", "longitude")
        assert read.sizes == {"realization": 6, "time": 4, "latitude": 8, "longitude": 8}
        assert {read[name].attrs["units"] for name in ("u", "v", "u_mean", "v_mean", "u_std", "v_std")} == {"m s-1"}
        assert read["u"].attrs["standard_name"] == "eastward_sea_water_velocity"
        assert read["v_std"].attrs["cell_methods"] == "realization: standard_deviation"
        assert [read[name].attrs["axis"] for name in ("time", "latitude", "longitude")] == ["T", "Y", "X"]
        assert read.attrs["Conventions"] == "CF-1.11"
        assert {"history", "effective_sample_size"} <= set(read.attrs)
        assert about.items() <= read.attrs.items()
        seconds = (read["time"].values - np.datetime64("1970-01-01")) / np.timedelta64(1, "s")
        np.testing.assert_allclose(seconds, float(queries.origin[0, 0]) + 86400 * np.arange(4))
        wet = queries.wet[0].numpy()
        np.testing.assert_array_equal(read["wet_mask"], wet)
        np.testing.assert_allclose(read["v_mean"].values[wet], estimate.mean[1].numpy()[wet], rtol=1e-6)
        np.testing.assert_array_equal(np.isfinite(read["u"].values), np.broadcast_to(wet, read["u"].shape))
        middle = [read[name].mean().item() for name in ("longitude", "latitude")]
        np.testing.assert_allclose(middle, queries.origin[0, 1:3])


def test_drifters_of_a_window_go_where_those_of_the_source_went(ocean, queries):
    """Paths within the tile: the source saw more than the tile, and its step is another."""
    geometry = Geometry.of(ocean[1].source)
    for i in range(0, len(queries), 5):
        start = queries.v[i, :, 0, :2].double()
        found = drift(queries.u[i : i + 1], queries.origin[i : i + 1], geometry, start)[0]
        true = queries.v[i, :, :, :2].double()
        inside = (true.abs() < 0.7).all(-1).all(-1) & (queries.v[i, :, -1, 3] == 0)
        if queries.wet[i].all():
            torch.testing.assert_close(found[inside], true[inside], rtol=0, atol=2e-3)


def test_released_drifters_are_regular_and_within_the_tile(ocean):
    geometry = Geometry.of(ocean[1].source)
    start = release_points(geometry, 4)
    assert start.shape == (16, 2)
    torch.testing.assert_close(start.mean(0), torch.zeros(2).double())
    assert start.abs().max() == pytest.approx(8 * 0.25 * 3 / 8)


def test_an_evaluation_has_scores_tables_figures_and_files(ocean):
    root, manifest, model = ocean
    result = evaluated(
        model, root, manifest, PosteriorSettings(num_members=5, num_examples=2), about={"experiment": "abc"}
    )
    assert all(map(math.isfinite, result.metrics.values()))
    assert not unexplained(result.metrics)
    for method in ("posterior", "climatology", "random_analog", "nearest_track_analog", "optimal_interpolation"):
        assert result.metrics[f"field_{method}_rmse_m_s"] > 0
        assert 0 <= result.metrics[f"field_{method}_liu_weisberg"] <= 1
    assert result.metrics["field_climatology_crps_m_s"] < result.metrics["field_random_analog_crps_m_s"]
    assert result.metrics["field_optimal_interpolation_rmse_m_s"] < result.metrics["field_climatology_rmse_m_s"]
    assert 0 <= result.metrics["u_given_v_within_tile_recall@1"] <= result.metrics["u_given_v_within_tile_recall@5"]
    for table in result.tables:
        assert {len(row) for row in table} == {len(table[0])}
    # retrieval, densities, retrieval within tiles, fields, ensembles as wholes, differences
    assert [len(table) for table in result.tables] == [3, 3, 3, 7, 4, 3]
    assert result.metrics["field_climatology_crps_m_s_less_optimal_interpolation_low"] > 0
    assert 0 <= result.metrics["field_posterior_region_90_day_3"] <= 1
    assert set(result.figures) == {"fields.png", "field_scores.png"}
    assert len(result.datasets) == 2
    for dataset in result.datasets.values():
        assert dataset.attrs["experiment"] == "abc"
        assert dataset.sizes["realization"] == 5


def test_the_same_seed_gives_the_same_numbers_and_every_example_has_a_file_of_its_own(ocean):
    root, manifest, model = ocean  # two releases in the same window of the same tile
    none, four = (
        evaluated(model, root, manifest, PosteriorSettings(num_members=3, num_examples=number), max_pairs=4)
        for number in (0, 4)
    )
    assert none.metrics == four.metrics
    assert not none.datasets
    assert len(four.datasets) == 4


def test_a_training_pair_is_not_looked_for_in_its_own_archive(ocean):
    root, manifest, model = ocean
    result = evaluated(model, root, manifest, split="train", max_pairs=10)
    assert "v_given_u_within_tile_recall@1" in result.metrics
    assert not any(name.startswith("field_") for name in result.metrics)


def test_estimates_are_completed_by_climatology_where_they_have_no_value():
    values = torch.rand(2, 1, 3, 3, dtype=torch.float64)
    holes = values.clone()
    holes[:, 0, 1] = torch.nan
    prior = Estimate(torch.full_like(values, 5.0), torch.full_like(values, 0.5))
    found = completed(Estimate(holes, holes, torch.stack([holes, values])), prior)
    torch.testing.assert_close(found.mean, torch.where(holes.isnan(), 5.0, values))
    torch.testing.assert_close(found.std, torch.where(holes.isnan(), 0.5, values))
    torch.testing.assert_close(found.members, torch.stack([found.mean, values]))
    assert completed(Estimate(holes), prior).members is None


def test_a_faster_current_takes_shorter_steps(ocean, queries):
    """Solid-body rotation of a tile: many cells in a record, and yet a circle."""
    geometry = Geometry.of(ocean[1].source)
    origins = queries.origin[:1].clone()
    origins[0, 2] = 0.0  # on the equator a degree is as long east as north
    axis = 0.25 * (torch.arange(8, dtype=torch.float64) - 3.5)
    turn = 2 * math.pi / geometry.record_s  # once a record
    east, north = -turn * 111_120 * axis[:, None].expand(8, 8), turn * 111_120 * axis.expand(8, 8)
    field = torch.stack([east, north])[None, :, None].expand(1, 2, len(geometry.time_s), 8, 8)
    path = drift(field, origins, geometry, torch.tensor([[0.4, 0.0]]))[0, 0]
    torch.testing.assert_close(path[:2], torch.tensor([[0.4, 0.0], [0.4, 0.0]]).double(), rtol=0, atol=2e-3)


def test_a_drifter_that_runs_aground_stays_and_one_on_land_is_none(ocean, queries):
    geometry = Geometry.of(ocean[1].source)
    field = torch.full((1, 2, len(geometry.time_s), 8, 8), 0.3)
    field[:, 1] = 0.0
    field[..., 5:] = torch.nan  # a coast in the east
    start = torch.tensor([[0.0, 0.0], [0.8, 0.0]])
    path = drift(field, queries.origin[:1], geometry, start)[0]
    assert torch.isfinite(path[0]).all()
    assert (path[0, -1] == path[0, -3]).all()
    assert 0.3 < path[0, -1, 0] < 0.7  # carried by the water beside the coast, no further
    assert path[1].isnan().all()


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["model.encoder_u=linear"], "the linear encoder does not know missing values"),
        (["model.encoder_v=transformer"], "the transformer encoder needs time_step of the data"),
        (["model.field_network.depth=9"], "each stage halves the grid, choose fewer"),
        (["model.field_network.width=0"], "the width must be at least 1"),
    ],
)
def test_encoders_that_do_not_fit_fields_are_refused(ocean, overrides, message):
    config = load_config(NETWORKS, overrides)
    with pytest.raises(BadInputError, match=message):
        build_model(model_spec(config, ocean[1]))


def test_kernels_on_fields_with_land_are_refused(ocean):
    config = load_config(NETWORKS, [f"data.shards={ocean[0]}", "loss.kind=conditional_mmd"])
    with pytest.raises(BadInputError, match="u of ocean is neither: choose conditional or joint"):
        loss_of(config, ocean[1], torch.device("cpu"))


@pytest.mark.parametrize("references", ["tile", "all"])
def test_many_queries_at_once_are_those_of_one_at_a_time(ocean, archive, queries, references):
    posterior = FieldPosterior(ocean[2], archive, references=references)
    some = queries[torch.tensor([0, 1, 5, 9, 2])]
    laws = posterior.laws(some.v, some.tiles.tolist())
    for law, drifters, tile in zip(laws, some.v, some.tiles.tolist(), strict=True):
        alone = posterior.given(drifters, tile, 4, torch.Generator().manual_seed(1))
        together = law.estimate(4, torch.Generator().manual_seed(1))
        torch.testing.assert_close(together.mean, alone.mean, rtol=1e-5, atol=1e-6, equal_nan=True)
        torch.testing.assert_close(together.std, alone.std, rtol=1e-4, atol=1e-5, equal_nan=True)
        torch.testing.assert_close(together.members.double(), alone.members, rtol=1e-5, atol=1e-6, equal_nan=True)
        assert together.effective_sample_size == pytest.approx(alone.effective_sample_size, rel=1e-4)
        assert alone.members.dtype == torch.float64
        best = posterior.best(drifters, tile, alone.mean).mean
        torch.testing.assert_close(law.best().mean, best, rtol=1e-5, atol=1e-6, equal_nan=True)


@pytest.mark.parametrize("turns", [-1, 1])
def test_drifters_of_another_longitude_convention_give_the_same_estimate(ocean, archive, queries, turns):
    posterior, geometry = FieldPosterior(ocean[2], archive), Geometry.of(ocean[1].source)
    drifters, tile = queries.v[0], int(queries.tiles[0])
    whole, jump = drifters.clone(), drifters.clone()
    whole[..., 0] += 360 * turns
    jump[:, 5:, 0] += 360 * turns
    wanted = posterior.given(drifters, tile, 3, torch.Generator().manual_seed(0))
    seen = measure(drifters, geometry)
    for moved in (whole, jump):  # float32 holds 360 degrees within 1.5e-5, a metre or two
        found = posterior.given(moved, tile, 3, torch.Generator().manual_seed(0))
        torch.testing.assert_close(found.mean, wanted.mean, rtol=1e-3, atol=1e-4, equal_nan=True)
        there = measure(moved, geometry)
        torch.testing.assert_close(there.place, seen.place, rtol=0, atol=3e-5)
        torch.testing.assert_close(there.velocity, seen.velocity, rtol=0, atol=4e-4)
    moved = whole.double()
    moved[..., 0] = drifters[..., 0].double() + 360 * turns
    torch.testing.assert_close(measure(moved, geometry).velocity, seen.velocity, rtol=0, atol=1e-8)


def made(folder, num_examples=2, **settings):
    """Return an evaluation of made pairs, of an untrained model."""
    manifest = write_pairs(MadePairs({"train": 12, "test": 6}, **settings), folder)
    config = load_config(NETWORKS, ("model.field_network.width=8", "model.embedding_dim=4"))
    model = build_model(model_spec(config, manifest)).eval()
    own = PosteriorSettings(num_members=3, num_examples=2)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(of_fields, "NUM_TUNING", 3)  # scales are chosen all the same
        return evaluated(model, folder, manifest, own, num_examples=num_examples), manifest


@pytest.mark.parametrize("holes", [0.02, 0.4])
def test_values_missing_in_water_are_scored_nowhere_and_masked_nowhere(holes, tmp_path):
    result, manifest = made(tmp_path, holes=holes)
    assert all(map(math.isfinite, result.metrics.values()))
    assert not unexplained(result.metrics)
    assert "field_posterior_rmse_m_s" in result.metrics
    pairs, train = read_windows(tmp_path, manifest, "test"), read_windows(tmp_path, manifest, "train")
    past, true = (part.u.double().numpy()[..., 2:] for part in (train, pairs))  # beside the land
    error = (np.nanmean(past, 0) - true) ** 2
    cosine = np.cos(np.radians(np.array(manifest.source["grid"]["latitude"])[:8]))[:, None]
    weight = np.isfinite(error) * cosine
    rmse = math.sqrt((weight * np.nan_to_num(error)).sum() / weight.sum())
    assert result.metrics["field_climatology_rmse_m_s"] == pytest.approx(rmse, rel=1e-6)
    for dataset in result.datasets.values():  # estimates have a value wherever there is water
        wet = np.broadcast_to(dataset["wet_mask"].values == 1, dataset["u"].shape)
        np.testing.assert_array_equal(np.isfinite(dataset["u"].values), wet)


def test_windows_of_hours_are_told_by_the_hour(tmp_path):
    result, _ = made(tmp_path, steps=8, interval_s=HOUR_S, record_s=HOUR_S / 4)
    assert {f"field_posterior_separation_km_hour_{number}" for number in (1, 3, 6)} <= set(result.metrics)
    assert not any("_day_" in name for name in result.metrics)
    assert result.metrics["field_optimal_interpolation_time_days"] in [hours / 24 for hours in (3, 6, 12, 24)]
    head, *rows = result.tables[3]
    assert [name for name in head if "km, " in name] == ["km, hour 1", "km, hour 3", "km, hour 6"]
    assert all(any(row[i] != "-" for row in rows) for i in range(len(head)))
    times = {name.split("_")[1] for name in result.datasets}
    releases = {np.datetime_as_string(xr.decode_cf(d[["time"]]).time.values[0])[:16] for d in result.datasets.values()}
    assert times == {release.replace(":", "") for release in releases}
    titles = [axis.get_ylabel() for axis in result.figures["fields.png"].axes if axis.get_ylabel().startswith("rel")]
    assert all(re.fullmatch(r"released 2001-09-\d\d \d\d:\d\d,\n4 h later", title) for title in titles)
    assert result.figures["field_scores.png"].axes[1].get_xlabel() == "hours after the release"


def test_an_evaluation_of_tiles_over_the_seam_is_that_of_others(tmp_path):
    """The same pairs, named as tiles of a region and as tiles that begin four columns before the end of the globe."""
    degrees = 360 / 24
    results = {}
    for name, column, first in (("region", 0, 5.0), ("seam", 20, 65.0)):
        grid = {
            "latitude": (-36 + degrees * np.arange(9)).tolist(),
            "longitude": (first + degrees * np.arange(24)).tolist(),
            "cell_degrees": [degrees, degrees],
            "periodic": True,
        }
        results[name], _ = made(tmp_path / name, 0, origins=((0, column),), grid=grid)
    assert results["seam"].metrics == results["region"].metrics
    axes = [next(iter(result.datasets.values()))["longitude"].values for result in results.values()]
    np.testing.assert_allclose(axes[1], axes[0] + 360)
    assert (np.diff(axes[1]) == degrees).all()


def test_a_drifter_in_water_without_a_value_is_no_longer_known(queries, ocean):
    geometry = Geometry.of(ocean[1].source)
    field = torch.full((1, 2, len(geometry.time_s), 8, 8), 0.3)
    field[:, 1] = 0.0
    wet = torch.ones(1, len(geometry.time_s), 8, 8, dtype=torch.bool)
    field[..., 5:] = torch.nan
    start = torch.tensor([[0.0, 0.0], [-0.8, 0.0]])
    path = drift(field, queries.origin[:1], geometry, start)
    found = unknown_current(field, wet, path, geometry)[0]
    assert not found[:, 0].any()
    assert found[0, -1]  # the current of the water beside carried it to where there is none
    assert not found[1].any()
    wet[..., 5:] = False  # land: it is aground, and that is known
    assert not unknown_current(field, wet, path, geometry).any()


def test_a_step_is_that_of_the_fastest_current_known(ocean, queries):
    geometry = Geometry.of(ocean[1].source)
    start, fields, origins = release_points(geometry), queries.u[:3], queries.origin[:3]
    assert fastest_current(fields, 2 * queries.u) == 2 * float(queries.u.nan_to_num().abs().max())
    assert fastest_current(torch.full_like(fields, torch.nan)) == 0
    alone = drift(fields[:1], origins[:1], geometry, start, fastest=9.0)
    torch.testing.assert_close(alone, drift(fields, origins, geometry, start, fastest=9.0)[:1], equal_nan=True)
