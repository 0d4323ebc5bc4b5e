"""The prior with climatology in it: what it says of places on the Earth, and what must change nothing."""

import math

import pytest
import torch

from pcl.problems.ocean.prior.climatology import GridClimatology
from pcl.problems.ocean.prior.kernel import Points
from pcl.problems.ocean.prior.measurements import Measurements
from pcl.problems.ocean.prior.model import FIRST_UNRESOLVED, CurrentPrior, generic_prior
from pcl.problems.ocean.prior.posterior import Measured, Posterior
from pcl.problems.ocean.prior.region import RegionPosterior

CENTRE, TIME_S = (-35.0, 20.0), 1.0e9


@pytest.fixture
def prior():
    generator = torch.Generator().manual_seed(0)
    latitude, longitude = -36 + 0.25 * torch.arange(9.0), 19 + 0.25 * torch.arange(9.0)
    found = CurrentPrior(latitude.tolist(), longitude.tolist())
    mean, std = torch.rand(2, 2, 9, 9, generator=generator, dtype=torch.float64)
    mean[:, 8, 0] = torch.nan
    found.keep(GridClimatology(latitude, longitude, mean, 0.2 + std))
    return found


def measured(number=12, seed=1):
    generator = torch.Generator().manual_seed(seed)
    velocity = torch.randn(number, 2, generator=generator, dtype=torch.float64)
    place = torch.rand(2, number, generator=generator, dtype=torch.float64) * 1.5 - 0.75
    time_s = TIME_S + 86400 * torch.rand(number, generator=generator, dtype=torch.float64)
    duration_s = torch.full((number,), 43200.0, dtype=torch.float64)
    return Measurements(velocity, CENTRE[0] + place[0], CENTRE[1] + place[1], time_s, duration_s, 0 * duration_s)


def targets(number=5, seed=2):
    some = measured(number, seed)
    return some.latitude, some.longitude, some.time_s


def test_it_is_climatology_and_the_posterior_of_the_anomaly(prior):
    seen, where = measured(), targets()
    found = prior.posterior(seen, centre=CENTRE, learned=False)
    mean, std = found.mean_and_std(*where)

    def points(latitude, longitude, time_s):
        km = 111.12 * torch.stack([(longitude - 20) * math.cos(math.radians(35)), latitude + 35])
        return Points(torch.stack([*km, (time_s - TIME_S) / 86400], 1), prior.climatology.at(latitude, longitude)[1])

    own, kernel = points(seen.latitude, seen.longitude, seen.time_s), prior.kernel
    anomaly = seen.velocity.T - prior.climatology.at(seen.latitude, seen.longitude)[0]
    expected = Posterior(kernel, Measured(own, anomaly, kernel.noise_variance(own))).mean_and_variance(points(*where))
    torch.testing.assert_close(mean, expected[0] + prior.climatology.at(*where[:2])[0])
    torch.testing.assert_close(std.square(), expected[1])


def test_turns_order_and_what_is_far_away_change_nothing(prior):
    seen, where = measured(), targets()
    reference = prior.posterior(seen, centre=CENTRE).mean_and_std(*where)
    order = torch.randperm(len(seen), generator=torch.Generator().manual_seed(3))
    far = measured(4, seed=4)
    moved = Measurements(
        *(torch.cat([one, other]) for one, other in zip(vars(seen[order]).values(), vars(far).values(), strict=True))
    )
    moved.latitude[-4:] += 30.0
    moved.longitude.add_(360.0)
    found = prior.posterior(moved, centre=CENTRE)
    assert found.used.tolist() == [True] * 12 + [False] * 4
    for one, other in zip(found.mean_and_std(where[0], where[1] - 360, where[2]), reference, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-8, atol=1e-10)


def test_without_measurements_it_is_climatology(prior):
    where = targets()
    mean, std = prior.posterior(measured()[:0], centre=CENTRE).mean_and_std(*where)
    expected, amplitude = prior.climatology.at(*where[:2])
    torch.testing.assert_close(mean, expected)
    level = prior.kernel.level  # variances of the components sum to one at first
    own = level * (amplitude / level).sqrt() * math.sqrt(1 + FIRST_UNRESOLVED)
    torch.testing.assert_close(std[0], own)


def test_where_climatology_is_unknown_nothing_is_said(prior):
    corner = torch.tensor([-34.0, -35.0]), torch.tensor([19.0, 20.0]), torch.full((2,), TIME_S)
    found = prior.posterior(measured(), centre=CENTRE)
    mean, std = found.mean_and_std(*corner)
    members = found.members(*corner, 3, torch.Generator().manual_seed(0))
    assert mean.isnan().all(0).tolist() == std.isnan().all(0).tolist() == [True, False]
    assert members.isnan().all(1).all(0).tolist() == [True, False]
    assert found.log_density(*corner, torch.zeros(2, 2)).isfinite()


def test_members_at_some_places_are_those_at_all(prior):
    found, where = prior.posterior(measured(), centre=CENTRE), targets(8)
    whole = found.members(*where, 4, torch.Generator().manual_seed(5))
    for part in (slice(0, 3), slice(3, 8)):
        some = found.members(*(axis[part] for axis in where), 4, torch.Generator().manual_seed(5))
        torch.testing.assert_close(some, whole[..., part])


def test_the_energy_widens_what_is_livelier_than_expected_and_leaves_the_mean(prior):
    seen, results = measured(), {}
    for factor in (0.1, 1.0, 3.0):
        anomaly_times = Measurements(
            prior.climatology.at(seen.latitude, seen.longitude)[0].T * (1 - factor) + factor * seen.velocity,
            *(getattr(seen, name) for name in ("latitude", "longitude", "time_s", "duration_s", "variance")),
        )
        law = prior.posterior(anomaly_times, centre=CENTRE).anomaly
        plain = Posterior(law.kernel, law.measured)
        results[factor] = law.energy.item()
        shift, variance = law.mean_and_variance(law.measured.points)
        expected = plain.mean_and_variance(law.measured.points)
        torch.testing.assert_close(shift, expected[0])
        torch.testing.assert_close(variance, law.energy * expected[1])
        # the formula by matrices
        size = 2 * len(law.measured.points)
        own = law.kernel(law.measured.points, law.measured.points).reshape(size, size)
        inverse = torch.linalg.inv(own + torch.diag(law.measured.variance.repeat(2)))
        weights = inverse @ law.measured.anomaly.reshape(-1)
        nu = prior.log_freedom.exp()
        torch.testing.assert_close(law.energy, (nu + weights @ own @ weights) / (nu + torch.trace(inverse @ own)))
    assert results[0.1] < results[1.0] < results[3.0]
    assert results[0.1] < 1 < results[3.0]


def test_the_evidence_is_the_density_of_the_measurements(prior):
    law = prior.posterior(measured(), centre=CENTRE).anomaly
    size = 2 * len(law.measured.points)
    own = law.kernel(law.measured.points, law.measured.points).reshape(size, size)
    normal = torch.distributions.MultivariateNormal(
        torch.zeros(size).double(), own + torch.diag(law.measured.variance.repeat(2))
    )
    torch.testing.assert_close(law.log_evidence(), normal.log_prob(law.measured.anomaly.reshape(-1)))


def test_the_generic_prior_takes_its_amplitude_from_the_tracks():
    seen, prior = measured(), generic_prior()
    far = torch.tensor([-35.0]), torch.tensor([120.0]), torch.full((1,), TIME_S)
    mean, std = prior.posterior(seen, centre=CENTRE).mean_and_std(*far)
    assert mean.abs().max() < 1e-9
    torch.testing.assert_close(std[0, 0], seen.velocity.square().mean().sqrt(), rtol=0.25, atol=0)


def test_of_a_prior_saved_without_them_laws_of_points_are_normal_and_as_the_covariance_says(prior):
    seen, where = measured(), targets()
    saved = {name: value for name, value in prior.state_dict().items() if name not in prior.of_older_records}
    prior.load_state_dict(prior.of_older_records | saved)
    assert prior.of_older_records.keys() < prior.state_dict().keys()
    found = prior.posterior(seen, centre=CENTRE)
    _, variance, _ = found.resolved(*where)
    law = found.law(*where)
    assert law.is_normal
    torch.testing.assert_close(law.std, variance.sqrt(), rtol=1e-12, atol=0)


def test_a_point_varies_by_more_than_its_covariance(prior):
    seen, where = measured(), targets()
    with torch.no_grad():
        prior.log_spread.fill_(0.2)
        prior.log_unresolved.fill_(math.log(0.01))
        found = prior.posterior(seen, centre=CENTRE)
        _, variance, amplitude = found.resolved(*where)
        wanted = variance + math.exp(0.4) * 0.01 * amplitude.square()
        torch.testing.assert_close(found.mean_and_std(*where)[1], wanted.sqrt())
        torch.testing.assert_close(amplitude, prior.kernel.scale(found._targets(*where)[0]))


def test_every_parameter_is_learned(prior):
    where = targets()
    found = prior.posterior(measured(), centre=CENTRE)
    law = found.law(*where)
    (found.log_density(*where, torch.ones(2, 5)) + law.std.sum() + law.log_density(torch.ones(2, 5)).sum()).backward()
    grads = {name: one.grad for name, one in prior.named_parameters() if name != "log_share"}  # of no pooled one
    assert all(grad is not None and grad.isfinite().all() for grad in grads.values())
    assert all(grads[name].abs().sum() > 0 for name in grads if not name.startswith("precision.layers.0"))


def test_durations_change_nothing_of_which_nothing_was_learned(prior):
    seen, where = measured(), targets()
    with torch.no_grad():
        prior.precision.layers[2].weight.fill_(0.3)
    error = prior.posterior(seen, centre=CENTRE).anomaly.measured.variance
    slower = Measurements(
        seen.velocity / 2, seen.latitude, seen.longitude, seen.time_s, 2 * seen.duration_s, seen.variance
    )
    plain = prior.kernel.noise_variance(prior.posterior(seen, centre=CENTRE).anomaly.measured.points)
    assert not torch.allclose(error, plain)  # the speed does count
    first = prior.precision.layers[0].weight
    assert not first[:, 1].any()
    prior.posterior(seen, centre=CENTRE).mean_and_std(*where)[1].sum().backward()
    assert not first.grad[:, 1].any()  # pieces of half a day are the usual ones
    prior.zero_grad()
    prior.posterior(slower, centre=CENTRE).mean_and_std(*where)[1].sum().backward()
    assert first.grad[:, 1].any()


@pytest.fixture
def region(prior):
    """Measurements over a region of many lengths, and the same in blocks."""
    generator = torch.Generator().manual_seed(6)
    place = torch.rand(240, 3, generator=generator, dtype=torch.float64) * torch.tensor([2000.0, 600.0, 30.0])
    one = torch.ones(240, dtype=torch.float64)
    anomaly = torch.randn(2, 240, generator=generator, dtype=torch.float64)
    given = prior.kernel, Measured(Points(place, one), anomaly, 0.1 * one)
    return Posterior(*given), RegionPosterior(*given, most=180)


def test_blocks_blend_to_the_whole(region):
    whole, blocks = region
    generator = torch.Generator().manual_seed(7)
    place = torch.rand(300, 3, generator=generator, dtype=torch.float64) * torch.tensor([2000.0, 600.0, 30.0])
    where = Points(place, torch.ones(300, dtype=torch.float64))
    assert 2 <= len(blocks.blocks) < 30
    assert max(len(chosen) for _, chosen in blocks.blocks) < 240
    mean, variance = whole.mean_and_variance(where)
    found = blocks.mean_and_variance(where)
    assert (found[0] - mean).square().mean().sqrt() < 0.03 * mean.square().mean().sqrt()
    torch.testing.assert_close(found[1], variance, rtol=0.05, atol=0.01)
    one, other = (law.members(where, 3, torch.Generator().manual_seed(8)) for law in region)
    assert (one - other).square().mean().sqrt() < 0.05 * one.square().mean().sqrt()


def test_blocks_have_no_seams(region):
    _, blocks = region
    line = torch.linspace(0, 2000, 801, dtype=torch.float64)
    place = torch.stack([line, torch.full_like(line, 300.0), torch.full_like(line, 15.0)], 1)
    mean, _ = blocks.mean_and_variance(Points(place, torch.ones_like(line)))
    assert mean.diff(dim=1).abs().max() < 0.25  # over 2.5 km, with a length of 50 km and a deviation of one


def test_few_measurements_are_one_block(region):
    whole, _ = region
    one = RegionPosterior(whole.kernel, whole.measured)
    where = whole.measured.points[:20]
    assert len(one.blocks) == 1
    for found, expected in zip(one.mean_and_variance(where), whole.mean_and_variance(where), strict=True):
        torch.testing.assert_close(found, expected)
    with pytest.raises(ValueError, match="a joint density"):
        one.log_density(where, torch.zeros(2, 20), torch.ones(20))
