"""A reconstruction from tracks: what does not matter changes nothing, what cannot be is told, and what is written."""

import json

import numpy as np
import pandas as pd
import pytest
import torch
import xarray as xr
from PIL import Image
from scipy.stats import norm

from pcl.commands import reconstruct as command
from pcl.errors import BadInputError, DamagedDataError
from pcl.problems.ocean.evaluation.baselines import OptimalInterpolation
from pcl.problems.ocean.fixes.cleaning import Box
from pcl.problems.ocean.fixes.fixes import Fixes
from pcl.problems.ocean.prior.climatology import GridClimatology
from pcl.problems.ocean.prior.kernel import Points
from pcl.problems.ocean.prior.measurements import of_pieces
from pcl.problems.ocean.prior.model import CurrentPrior, Frame, Uniform, generic_prior
from pcl.problems.ocean.reconstruct import adapt, laws
from pcl.problems.ocean.reconstruct.grid import clipped, map_grid, region_of
from pcl.problems.ocean.reconstruct.laws import FlatClimatology, Interpolation, tuned_scales
from pcl.problems.ocean.reconstruct.leave_out import CLIMATOLOGY, OURS
from pcl.problems.ocean.reconstruct.reconstruct import Priors, land_of, reconstruct
from pcl.problems.ocean.reconstruct.settings import ReconstructSettings, TrackSettings
from pcl.problems.ocean.reconstruct.tracks import tracks_of

START = 1_681_985_089  # 2023-04-20T10:04:49Z
HOURS, DRIFTERS = 48, 4
KM = 111.12
QUICK = ("num_points=6", "num_times=5", "num_members=3")


def drifters():
    """Drifters on a current that is a draw of the generic prior: they follow it by small steps, fixed once an hour."""
    prior, generator = generic_prior(), torch.Generator().manual_seed(3)
    east, north = 30 * torch.rand(2, DRIFTERS, generator=generator, dtype=torch.float64)
    rows, wait = [], 6
    hours = torch.arange(0, HOURS * wait, wait, dtype=torch.float64)
    place = torch.stack([east, north], 1)
    kernel = prior.kernel
    for hour in hours.tolist():
        for name, (x, y) in enumerate(place.tolist()):
            rows.append((f"d{name}", START + 3600 * int(hour), 54 + y / KM, 10 + x / KM / np.cos(np.deg2rad(54.2))))
        points = Points(
            torch.cat([place, torch.full((DRIFTERS, 1), hour / 24)], 1).double(), torch.full((DRIFTERS,), 0.3)
        )
        current = kernel.draw(points, 1, torch.Generator().manual_seed(7))[0]
        place = place + current.T * wait * 3.6
    return pd.DataFrame(rows, columns=["id", "s", "lat", "lon"])


@pytest.fixture(scope="module")
def table():
    with torch.no_grad():
        return drifters()


def written(path, table, **changed):
    columns = {"id": table.id, "time": table.s, "lat": table.lat, "lon": table.lon} | changed
    pd.DataFrame(columns).to_csv(path, index=False)
    return path


def typed(*arguments):
    command.command("pcl reconstruct", [*map(str, arguments)])


def quick(monkeypatch):
    """Let few steps be learned, and few scales be tried: that all of them are used well has tests of its own."""
    monkeypatch.setattr(adapt, "STEPS", 3)
    monkeypatch.setattr(adapt, "AGAIN", 1)
    for name, scales in {"LENGTHS_KM": (20.0, 70.0), "DAYS": (2.0, 8.0), "NOISES": (0.03, 0.3)}.items():
        monkeypatch.setattr(laws, name, scales)


def maps_of(file, monkeypatch, **settings):
    quick(monkeypatch)
    chosen = ReconstructSettings(num_points=6, num_times=3, num_members=3, score=False, **settings)
    results, _ = reconstruct(
        [file], Priors(generic_prior(), True, "generic"), chosen, None, None, None, {}, say=lambda line: None
    )
    return results.maps


@pytest.mark.long
def test_what_does_not_matter_changes_nothing(table, tmp_path, monkeypatch):
    """Turns of the globe, the order of rows, local times and copies of rows."""
    found = maps_of(written(tmp_path / "a.csv", table), monkeypatch)
    local = pd.to_datetime(table.s, unit="s", utc=True).dt.tz_convert("Europe/Berlin").dt.strftime("%Y-%m-%d %H:%M:%S")
    shuffled = pd.concat([table, table.iloc[::3]]).sample(frac=1, random_state=0)
    for other in (
        maps_of(written(tmp_path / "b.csv", table, lon=table.lon + 360), monkeypatch),
        maps_of(written(tmp_path / "c.csv", shuffled), monkeypatch),
        maps_of(
            written(tmp_path / "d.csv", table, time=local),
            monkeypatch,
            tracks=TrackSettings(time_zone="Europe/Berlin"),
        ),
    ):
        np.testing.assert_allclose(other.grid.longitude, found.grid.longitude)
        for part in ("mean", "std", "members"):
            torch.testing.assert_close(getattr(other, part), getattr(found, part), rtol=1e-4, atol=1e-5)


@pytest.mark.long
def test_a_map_is_written_with_all_that_it_is_made_of(table, tmp_path, monkeypatch, capsys):
    quick(monkeypatch)
    file, to = written(tmp_path / "a.csv", table), tmp_path / "out"
    typed("--prior", "generic", "--tracks", file, f"to={to}", *QUICK)
    said = capsys.readouterr().out
    assert "of 4 drifters" in said
    assert "than climatology on drifters that were left out" in said
    assert "distrust these scores: they are of 4 drifters" in said
    assert f"to read and to send: {to / 'index.html'}" in said
    assert {path.name for path in to.iterdir()} == {
        *("index.html", "maps.nc", "maps.png", "tracks.png", "scores.png", "animation.gif", "reconstruction.json")
    }
    about = json.loads((to / "reconstruction.json").read_text())
    assert about["prior"] == "generic"
    with xr.open_dataset(to / "maps.nc") as dataset:
        assert dataset.sizes["realization"] == 3
        num_times = dataset.sizes["time"]
        assert 3 <= num_times <= 5
        assert dataset.u.attrs["standard_name"] == "eastward_sea_water_velocity"
        assert dataset.u_mean.attrs["units"] == "m s-1"
        assert dataset.Conventions == "CF-1.11"
        assert bool(np.isfinite(dataset.u_mean).all())
        assert int(dataset.row_size.sum()) == dataset.sizes["fix"] == len(table)
        assert dataset.drifter.values.tolist() == ["d0", "d1", "d2", "d3"]
        assert dataset.row_size.attrs["sample_dimension"] == "fix"
        assert bool((dataset.measurement_used == 1).all())
    page = (to / "index.html").read_text()
    assert page.count("data:image/png;base64") == 3
    assert page.count("data:image/gif;base64") == 1
    assert "<script" not in page
    assert "A drifter is not the water" in page
    with Image.open(to / "animation.gif") as moving:
        assert moving.n_frames == num_times
    typed("--prior", "generic", "--tracks", file, f"to={to}", *QUICK, "score=false")  # in place of the earlier one
    assert not (to / "scores.png").exists()


def test_a_folder_that_cannot_be_written_to_is_refused_before_work_is_done_for_it(table, tmp_path, monkeypatch):
    file = written(tmp_path / "a.csv", table)
    monkeypatch.setattr(command, "reconstruct", lambda *_: pytest.fail("work is done"))
    with pytest.raises(BadInputError, match=r"a.csv/out cannot be written to \("):
        typed("--prior", "generic", "--tracks", file, f"to={file}/out")


EXCHANGED = {"lat": "lon", "lon": "lat"}
BAD = {
    "no latitude": (lambda t: t.rename(columns={"lat": "nord"}), (), "no column that can be a latitude"),
    "outside": (lambda t: t, ("--box", "-40", "-30", "10", "20"), "outside the box"),
    "exchanged": (
        lambda t: t.rename(columns={"lat": "lon", "lon": "lat"}),
        ("--box", "45", "60", "5", "25"),
        "exchanged",
    ),
    "one drifter": (lambda t: t[t.id == "d0"], (), "only one drifter, d0, is left.*score=false"),
    "nothing in time": (lambda t: t, ("--to", "2020-01-01"), "none of .* fixes is left"),
    "times": (lambda t: t, ("--from", "2023-05-01", "--to", "2023-04-01"), "exchange them"),
    "no time between": (lambda t: t, ("--from", "2023-04-22", "--to", "2023-04-22"), "needs some time between them"),
    "no time": (lambda t: t, ("--from", "yesterday"), "no times that can be read"),
    "a box of three": (lambda t: t, ("--box", "1", "2", "3"), "give four numbers"),
    "a key": (lambda t: t, ("num_point=3",), "the nearest is num_points"),
    "a value": (lambda t: t, ("num_points=0",), "at least 4"),
    "a flag": (lambda t: t, ("--boks", "1"), "no flag"),
    "a prior": (lambda t: t, ("--prior", "mine"), "twice"),
    "too wide": (lambda t: t, ("--box", "-80", "80", "-170", "170"), "must be 60 at most"),
    "far apart": (lambda t: t, ("tracks.gap_hours=0.1", "tracks.piece_hours=0.1"), "no fix of a drifter follows"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_line_and_leaves_nothing(table, tmp_path, case, capsys):
    change, arguments, message = BAD[case]
    columns = {"s": "time"}
    file = tmp_path / "a.csv"
    change(table.rename(columns=columns)).to_csv(file, index=False)
    with pytest.raises(BadInputError, match=message) as error:
        typed("--prior", "generic", "--tracks", file, f"to={tmp_path / 'out'}", *arguments)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "out").exists()


def test_files_that_are_no_tracks(tmp_path, data_root):
    with pytest.raises(BadInputError, match="holds fields on a grid and no tracks"):
        typed("--prior", "generic", "--tracks", data_root / "ocean" / "globcurrent_agulhas_2002_daily.nc")
    with pytest.raises(BadInputError, match=r"is a folder and no store of tracks: name its files"):
        typed("--prior", "generic", "--tracks", tmp_path)
    with pytest.raises(BadInputError, match="no tracks are given"):
        typed("--prior", "generic")
    (tmp_path / "a.nc").write_bytes(b"junk")
    with pytest.raises(DamagedDataError, match="cannot be opened"):
        typed("--prior", "generic", "--tracks", tmp_path / "a.nc")
    with pytest.raises(BadInputError, match="0 runs are given, not one"):
        typed("--tracks", tmp_path / "a.nc")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.tex").touch()
    (tmp_path / "a.csv").touch()
    with pytest.raises(BadInputError, match="holds something else"):
        typed("--prior", "generic", "--tracks", tmp_path / "a.csv", f"to={tmp_path / 'full'}")


def archive(land_west=10.4):
    """Climatology of a grid of the Baltic, with land in the west."""
    latitude, longitude = (torch.arange(*axis, 0.1, dtype=torch.float64) for axis in ((45.0, 60.0), (5.0, 25.0)))
    mean = torch.zeros(2, len(latitude), len(longitude), dtype=torch.float64)
    mean[:, :, longitude < land_west] = torch.nan
    return latitude, longitude, GridClimatology(latitude, longitude, mean, mean + 0.3)


def learned(land_west=10.4):
    latitude, longitude, climatology = archive(land_west)
    prior = CurrentPrior(latitude.tolist(), longitude.tolist())
    prior.keep(climatology)
    return prior


def made(file, first_s=None, **settings):
    chosen = ReconstructSettings(num_points=8, num_times=3, num_members=3, **settings)
    priors = Priors(learned(), False, "learned", first_s, None if first_s is None else first_s + 1e7)
    return reconstruct([file], priors, chosen, None, None, None, {}, say=lambda line: None)


@pytest.mark.long
def test_a_learned_prior_brings_its_land(table, tmp_path, monkeypatch):
    quick(monkeypatch)
    file = written(tmp_path / "a.csv", table)
    results, _ = made(file)
    maps = results.maps
    on_land = land_of(archive()[2])(table.lat.to_numpy(), table.lon.to_numpy())
    assert [left.number for left in results.tracks.fixes.left if left.reason == "on land"] == [on_land.sum()]
    assert not maps.wet.all()
    np.testing.assert_array_equal(torch.isfinite(maps.mean).all(0).all(0), maps.wet)
    assert results.judged.scores(OURS)["crps_m_s"] < results.judged.scores(CLIMATOLOGY)["crps_m_s"]


def test_what_is_outside_of_the_archive_is_not_on_land(table, tmp_path):
    file = written(tmp_path / "a.csv", table, lat=table.lat - 20)
    with pytest.raises(BadInputError, match=r"192: outside the region of the archive"):
        made(file)
    priors = Priors(learned(), False, "learned")
    with pytest.raises(BadInputError, match=r"192: outside the region of the archive"):
        reconstruct([file], priors, ReconstructSettings(), Box(30, 40, 0, 20), None, None, {}, say=lambda line: None)


@pytest.mark.long
def test_a_map_ends_where_the_archive_does(table, tmp_path, monkeypatch):
    quick(monkeypatch)
    file = written(tmp_path / "a.csv", table)
    chosen = ReconstructSettings(num_points=8, num_times=2, num_members=2, score=False)
    priors = Priors(learned(0.0), False, "learned")
    results, _ = reconstruct([file], priors, chosen, Box(40, 56, -10, 12), None, None, {}, say=lambda line: None)
    grid = results.maps.grid
    assert grid.latitude[0] >= 44.95
    assert grid.longitude[0] >= 4.95
    assert bool(results.maps.wet.all())


def test_a_prior_with_land_is_stored_in_finite_numbers():
    """Checkpoints hold no others."""
    prior = learned()
    assert all(bool(torch.isfinite(value).all()) for value in prior.state_dict().values())
    again = CurrentPrior(prior.latitude.tolist(), prior.longitude.tolist())
    assert again.climatology is None
    again.load_state_dict(prior.state_dict())
    for part in ("mean", "std"):
        wanted = torch.where(torch.isfinite(archive()[2].mean), getattr(archive()[2], part), torch.nan)
        torch.testing.assert_close(getattr(again.climatology, part), wanted, equal_nan=True)


@pytest.mark.long
def test_tracks_before_the_archive_are_refused_unless_wanted(table, tmp_path, monkeypatch):
    quick(monkeypatch)
    file = written(tmp_path / "a.csv", table)
    with pytest.raises(BadInputError, match=r"before the archive of the run begins.*before_archive=true"):
        made(file, first_s=START + 1e8)
    results, _ = made(file, first_s=START + 1e8, before_archive=True, score=False)
    assert any("of another time than the archive" in note for note in results.notes)


@pytest.mark.long
def test_far_from_drifters_a_map_is_climatology(table, tmp_path, monkeypatch):
    quick(monkeypatch)
    file = written(tmp_path / "a.csv", table)
    chosen = ReconstructSettings(num_points=30, num_times=2, num_members=2, score=False, adapt=False)
    results, _ = reconstruct(
        [file], Priors(generic_prior(), True, ""), chosen, Box(40, 60, 0, 20), None, None, {}, say=lambda line: None
    )
    maps, amplitude = results.maps, results.model.amplitude
    corner = maps.mean[:, :, 0, 0].detach(), maps.std[:, :, 0, 0]
    assert float(corner[0].abs().max()) < 1e-6
    with torch.no_grad():
        wanted = results.model.law(of_pieces(results.tracks.pieces)[:0]).mean_and_std(*torch.zeros(3, 1))[1]
    ratio = corner[1] / wanted
    torch.testing.assert_close(ratio, ratio[:1, :1].expand_as(ratio))  # but for the energy of all currents
    assert float(maps.explained[:, 0, 0].abs().max()) < 1e-6
    assert 0 < maps.share_told < 0.5
    assert amplitude == pytest.approx(np.sqrt((results.tracks.pieces.velocity**2).mean()))


def test_learning_makes_tracks_likelier_and_finds_scales(table, tmp_path):
    """The prior began three times too long: fitted, the tracks are likelier than under it, and it is shorter."""
    tracks = tracks_of([written(tmp_path / "a.csv", table)], TrackSettings(), None, None, None)
    measurements, centre = of_pieces(tracks.pieces), (54.2, 10.2)
    climatology, prior = Uniform(0.3), generic_prior()
    with torch.no_grad():
        prior.kernel.log_lengths.add_(np.log(3.0))
    found = adapt.fit(prior, measurements, centre, climatology, kernel=True)
    some = measurements[adapt.thinned(len(measurements))]

    def evidence(one, noise_m_s):
        fitted = adapt.Fitted(one, noise_m_s, one)
        law = one.posterior(fitted.with_noise(some), centre=centre, climatology=climatology)
        return law.log_evidence().item()

    assert evidence(found.prior, found.noise_m_s) > evidence(prior, adapt.FIRST_NOISE_M_S) + 10
    assert found.prior.kernel.log_lengths.mean().item() < prior.kernel.log_lengths.mean().item() - 0.5


@pytest.mark.long
def test_scales_of_optimal_interpolation_predict_drifters_best_from_the_others(table, tmp_path):
    tracks = tracks_of([written(tmp_path / "a.csv", table)], TrackSettings(), None, None, None)
    measurements, names = of_pieces(tracks.pieces), tracks.pieces.name
    scales = tuned_scales(measurements, names, FlatClimatology.of(measurements), (54.2, 10.2))
    assert 20 <= scales.length_km <= 150  # of 55 and 105 km
    assert scales.time_days >= 4  # of 9 and 11 days


def test_the_score_of_drifters_that_are_left_out_is_that_of_their_law_given_the_others(table, tmp_path):
    tracks = tracks_of([written(tmp_path / "a.csv", table)], TrackSettings(), None, None, None)
    measurements, names = of_pieces(tracks.pieces), tracks.pieces.name
    climatology, frame = FlatClimatology.of(measurements), Frame(54.2, 10.2, float(measurements.time_s.mean()))
    every = Interpolation(OptimalInterpolation(), climatology, measurements, frame)
    _, y, variance, root, _ = every._system()
    covariance, y, both, scores = (root @ root.T * variance).numpy(), y[:, 0].numpy(), np.tile(names, 2), []
    for name in np.unique(names):
        own, others = both == name, both != name
        gain = np.linalg.solve(covariance[np.ix_(others, others)], covariance[np.ix_(others, own)]).T
        left = covariance[np.ix_(own, own)] - gain @ covariance[np.ix_(others, own)]
        std, z = np.sqrt(np.diag(left)), (y[own] - gain @ y[others]) / np.sqrt(np.diag(left))
        scores.append(std * (z * (2 * norm.cdf(z) - 1) + 2 * norm.pdf(z) - 1 / np.sqrt(np.pi)))
    assert len(scores) > 2
    assert every.crps_left_out(names) == pytest.approx(np.concatenate(scores).mean(), rel=1e-9)


def test_regions_and_grids():
    fixes = Fixes(np.array(["a", "a"]), np.zeros(2), np.array([0.0, 1.0]), np.array([179.5, -179.5]))
    box = region_of(fixes, 0.0)
    assert box.width == pytest.approx(1.0, abs=1e-5)
    inside = clipped(region_of(fixes, 500.0), Box(-1.0, 2.0, 178.0, 181.0))
    assert (inside.south, inside.north, inside.west, inside.east) == (-1.0, 2.0, 178.0, 181.0)
    turned = clipped(region_of(fixes, 500.0), Box(-1.0, 2.0, -182.0, -179.0))
    assert (turned.west, turned.width) == (-182.0, 3.0)
    across = clipped(Box(-5.0, 5.0, 350.0, 370.0), Box(-80.0, 3.0, 0.0, 360.0))  # of an archive around the globe
    assert (across.north, across.west, across.width) == (3.0, 350.0, 20.0)
    grid = map_grid(Box(54.01, 54.99, 10.01, 11.99), 100.0, 86_400.0 * 9, 20, 10)
    assert max(grid.shape[1:]) <= 21
    assert grid.shape[0] <= 10
    assert np.all(np.diff(grid.time_s) == 86_400)
    with pytest.raises(BadInputError, match="larger --box"):
        map_grid(Box(54.0, 54.00001, 10.0, 12.0), 0.0, 1.0, 10, 2)
