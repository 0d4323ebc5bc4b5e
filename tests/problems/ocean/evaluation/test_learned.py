"""The posterior of a learned prior: the textbook's, calibrated on maps of a known law, beside its unlearned self."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from pcl.evaluation.result import Evaluation
from pcl.evaluation.splits import EvaluationOptions
from pcl.problems.ocean.contract import Origin
from pcl.problems.ocean.evaluation.drift import drift, release_points
from pcl.problems.ocean.evaluation.evaluate import evaluate_fields
from pcl.problems.ocean.evaluation.learned import LearnedPosterior, prior_of
from pcl.problems.ocean.evaluation.member_drift import MemberDrift
from pcl.problems.ocean.evaluation.past import Past
from pcl.problems.ocean.evaluation.significance import Difference
from pcl.problems.ocean.evaluation.tables import verdict
from pcl.problems.ocean.evaluation.windows import Geometry, read_archive
from pcl.problems.ocean.prior.climatology import ClimatologySums
from pcl.problems.ocean.prior.kernel import Points
from pcl.problems.ocean.prior.measurements import Measurements, measurements_of
from pcl.problems.ocean.prior.model import CurrentPrior, Uniform
from pcl.problems.ocean.settings import PosteriorSettings
from tests.problems.ocean.evaluation.ocean_pairs import read_windows
from tests.told import unexplained


@pytest.fixture(scope="module")
def ocean(ocean_shards):
    """Shards, their geometry, and a model whose prior has learned something."""
    root, manifest = ocean_shards
    geometry = Geometry.of(manifest.source)
    prior = CurrentPrior(geometry.latitude.tolist(), geometry.longitude.tolist())
    prior.keep(ClimatologySums.of(root, manifest).whole())
    with torch.no_grad():
        prior.kernel.log_lengths -= 0.4
    model = nn.Module()
    model.encoder_v = nn.Sequential(nn.Identity(), prior)
    return root, manifest, geometry, model


@pytest.mark.long
def test_the_posterior_is_the_textbook_one_where_climatology_is_known(ocean):
    root, manifest, geometry, model = ocean
    one = read_windows(root, manifest, "test")[5:6]
    past, prior = Past.of(read_archive(root, manifest, 2), geometry), prior_of(model)
    (learned, frozen), *_ = LearnedPosterior(prior, past, 3).estimates(one, [True], torch.Generator().manual_seed(0))
    known = torch.isfinite(past.climatology[int(one.tiles[0])].mean)
    assert torch.equal(torch.isfinite(learned.mean), known)
    assert torch.equal(torch.isfinite(learned.members[1]), known)
    place, measured = Origin.of(one.origin[0]), measurements_of(one.v[0], one.origin[0], geometry)
    latitude, longitude = geometry.axes(one.origin[0])
    time, row, column = np.argwhere(known[0].numpy())[7]
    target = latitude[row][None], longitude[column][None], place.release_s[None]
    km = 111.12 * torch.tensor([math.cos(math.radians(float(place.latitude))), 1.0]).double()

    def points(north, east, time_s):
        where = torch.stack([east - place.longitude, north - place.latitude], 1) * km
        amplitude = prior.climatology.at(north, east)[1].clamp(min=1e-3)
        return Points(torch.cat([where, (time_s - place.release_s)[:, None] / 86400], 1), amplitude)

    mean, _ = prior.climatology.at(measured.latitude, measured.longitude)
    anomaly = measured.velocity.T - mean
    used = torch.isfinite(anomaly).all(0)
    seen = measured[used]
    seen = points(seen.latitude, seen.longitude, seen.time_s)
    at = points(*target[:2], target[2] + geometry.time_s[time])
    own = prior.covariance(averages=prior.climatology.averages(float(place.release_s)))
    for kernel, found in ((prior.kernel.as_at_first(), frozen), (own, learned)):
        size = 2 * len(seen)
        with torch.no_grad():
            among, across = kernel(seen, seen).reshape(size, size), kernel(at, seen).reshape(2, size)
            noise = kernel.noise_variance(seen)
            if kernel is own:
                noise = noise * prior.precision(measured[used], seen.amplitude, 43200.0)  # windows of days
            weights = across @ torch.linalg.inv(among + torch.diag(noise.repeat(2)))
            wanted = prior.climatology.at(*target[:2])[0][:, 0] + weights @ anomaly[:, used].reshape(-1)
            variance = kernel.variance(at)[:, 0] - (weights * across).sum(1)
            if kernel is own:  # the energy of the window over what was expected
                inverse, freedom = torch.linalg.inv(among + torch.diag(noise.repeat(2))), prior.log_freedom.exp()
                white = inverse @ anomaly[:, used].reshape(-1)
                variance *= (freedom + white @ among @ white) / (freedom + torch.trace(inverse @ among))
                variance += prior.log_unresolved.exp() * kernel.scale(at).square()
                variance *= (2 * prior.log_spread).exp()
        torch.testing.assert_close(found.mean[:, time, row, column], wanted, rtol=1e-6, atol=1e-8)
        torch.testing.assert_close(found.std[:, time, row, column], variance.sqrt(), rtol=1e-5, atol=1e-7)
    assert learned.degrees == pytest.approx(2 + prior.log_tail.exp().item())
    assert frozen.degrees == math.inf
    assert not torch.allclose(learned.mean[known], frozen.mean[known], atol=1e-3)


def test_an_evaluation_shows_what_learning_adds(ocean):
    root, manifest, geometry, model = ocean
    queries = read_windows(root, manifest, "test")[torch.arange(0, 18, 2)]
    result = Evaluation()
    options = EvaluationOptions(own=PosteriorSettings(num_members=4, num_examples=1))
    evaluate_fields(result, model, read_archive(root, manifest, 4), queries, geometry, options)
    assert all(map(math.isfinite, result.metrics.values()))
    assert not unexplained(result.metrics)
    scores, whole, differences = result.tables
    assert [row[0] for row in scores[1:3]] == ["posterior", "frozen prior"]
    assert [row[0] for row in whole[1:]] == ["posterior", "frozen prior", "climatology", "optimal interpolation"]
    assert differences[0][0] == "less optimal interpolation, 3 blocks of time; m/s"
    for name in ("posterior", "frozen_prior", "optimal_interpolation"):
        assert result.metrics[f"field_{name}_rmse_m_s"] < result.metrics["field_climatology_rmse_m_s"]
        assert 0 < result.metrics[f"field_{name}_coverage_50"] < result.metrics[f"field_{name}_coverage_90"] <= 1
        assert result.metrics[f"field_{name}_energy_m_s"] < result.metrics["field_climatology_energy_m_s"]
    (dataset,) = result.datasets.values()
    assert "covariance was learned" in dataset.attrs["source"]
    assert dataset.sizes["realization"] == 4


def test_a_sentence_says_where_learning_does_not_win():
    assert verdict("RMSE", "climatology", 0.2, 0.3, Difference(-0.1, -0.12, -0.08, 9)) == ""
    lost = verdict("RMSE", "climatology", 0.3, 0.2, Difference(0.1, 0.08, 0.12, 9))
    assert lost.startswith("Learning loses: RMSE of the field, m/s, is 0.3000, and 0.2000 by")
    for low, high, blocks in ((-0.01, 0.02, 9), (math.nan, math.nan, 2), (math.nan, math.nan, 1)):
        found = verdict("CRPS", "optimal interpolation", 0.199, 0.2, Difference(-0.001, low, high, blocks))
        assert found.startswith(
            "Learning is not shown to win: CRPS of the field, m/s, is 0.1990, and 0.2000 by optimal"
        )
        assert f"; {blocks} block{'s' * (blocks > 1)} of time {'are' if blocks > 1 else 'is'} too few to tell" in found
    assert verdict("CRPS", "it", 0.3, 0.2, Difference(0.1, math.nan, math.nan, 1)).startswith("Learning loses")


@pytest.mark.long
@pytest.mark.parametrize(("learned", "num", "least", "most"), [(True, 60, 0.87, 0.93), (False, 12, 0.0, 0.8)])
def test_true_ends_are_in_the_region_of_the_members_nine_times_of_ten(learned, num, least, most):
    """Maps of a known law: members of that law hold the true end, those of a law that is too sure do not."""
    axis = 0.25 * torch.arange(8, dtype=torch.float64)
    days = 86400.0 * torch.arange(5, dtype=torch.float64)
    geometry = Geometry(axis, axis, 8, 8, days, (0.25, 0.25), 21600.0, "standard")
    latitude, longitude = (axis.mean(),) * 2
    origin = torch.tensor([[0.0, float(longitude), float(latitude), 0, 0, 0]]).double()
    grid = [part.flatten() for part in torch.meshgrid(days, axis, axis, indexing="ij")]
    prior, generator, tally = CurrentPrior(), torch.Generator().manual_seed(0), MemberDrift(1)
    scale = 1.0 if learned else 0.25  # of the prior's amplitude
    start, num_seen = release_points(geometry, 3), 12
    with torch.no_grad():
        with_noise_known(prior)
        nothing = Measurements(torch.zeros(0, 2).double(), *torch.zeros(5, 0, dtype=torch.float64))
        law = prior.posterior(nothing, centre=(float(latitude), float(longitude)), climatology=Uniform(0.4))
        for _ in range(num):
            seen = torch.rand(3, num_seen, generator=generator).double()
            seen = [seen[0] * days[-1], *(seen[1:] * 1.75)]
            where = [torch.cat(pair) for pair in zip(grid, seen, strict=True)]
            drawn = law.members(where[1], where[2], where[0], 1, generator)[0]
            velocity, error = drawn[:, -num_seen:].T, 0.05
            velocity = velocity + error * torch.randn(num_seen, 2, generator=generator).double()
            measured = Measurements(
                velocity, seen[1], seen[2], seen[0], torch.full((num_seen,), 43200.0), torch.full((num_seen,), error**2)
            )
            found = prior.posterior(
                measured, centre=(float(latitude), float(longitude)), climatology=Uniform(0.4 * scale)
            )
            members = found.members(grid[1], grid[2], grid[0], 30, generator).reshape(30, 2, 5, 8, 8)
            truth = drawn[:, :-num_seen].reshape(1, 2, 5, 8, 8)
            ends, true = (
                drift(fields, origin.expand(len(fields), -1), geometry, start, fastest=2.0)[:, :, -1:]
                for fields in (members, truth)
            )
            tally.add(ends[None], true, true, latitude[None])
    assert least <= tally.scores(0)["region_90"] <= most


def with_noise_known(prior):
    """Leave only what is known of the error of a measurement, and an energy that is as expected."""
    prior.kernel.log_noise.fill_(-12.0)
    prior.log_freedom.fill_(20.0)
