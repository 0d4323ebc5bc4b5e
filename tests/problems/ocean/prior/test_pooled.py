"""The pooled covariance against sums over the windows themselves, and the law that has a share of it."""

import dataclasses

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pcl.evaluation.splits import read_arrays
from pcl.problems.ocean.contract import Origin
from pcl.problems.ocean.evaluation.windows import Geometry
from pcl.problems.ocean.prior.climatology import ClimatologySums
from pcl.problems.ocean.prior.kernel import CurrentKernel, Points
from pcl.problems.ocean.prior.model import CurrentPrior
from pcl.problems.ocean.prior.pooled import LagTable, PooledSums, WithPooled, _resampled, autocovariance
from pcl.problems.ocean.prior.posterior import Measured, Posterior

GAP_S = 6 * 86400.0


def windows(seed=0, shape=(2, 3, 4, 5)):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def by_hand(anomaly):
    """Return sums of products by lag, from loops."""
    sizes = anomaly.shape[1:]
    found = torch.zeros(2, 2, *(2 * size - 1 for size in sizes), dtype=torch.float64)
    points = torch.cartesian_prod(*(torch.arange(size) for size in sizes))
    for here in points:
        for there in points:
            lag = there - here + torch.tensor(sizes) - 1
            found[:, :, *lag] += anomaly[:, *there][:, None] * anomaly[:, *here]
    return found


def table(seed=0):
    """Return a table that is pooled from smooth windows of several latitudes."""
    values = 0.0
    for number in range(5):
        smooth = torch.nn.functional.avg_pool3d(windows(seed + number, (2, 4, 6, 6)), 3, 1, 1)
        values = values + _resampled(autocovariance(smooth), 1 + 0.1 * number)
    return LagTable(values / values[0, 0, 3, 5, 5], torch.tensor([1.0, 28.0, 25.0], dtype=torch.float64))


def places(number, seed):
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(number, 3, generator=generator, dtype=torch.float64) * torch.tensor([250.0, 200.0, 5.0])


def test_sums_of_products_are_those_of_all_pairs_of_points():
    torch.testing.assert_close(autocovariance(windows()), by_hand(windows()))


def test_it_is_interpolated_between_lags_and_zero_beyond():
    found = table()
    at = found.step.flip(0) * torch.tensor([[1.0, -2.0, 1.0], [1.5, 0.0, -1.0], [40.0, 0.0, 0.0]], dtype=torch.float64)
    here = torch.zeros(1, 3, dtype=torch.float64)
    values = found.between(at, here)[:, :, :, 0]
    torch.testing.assert_close(values[:, 0], found.values[:, :, 4, 3, 6])
    torch.testing.assert_close(values[:, 1], found.values[:, :, 2, 5, 6:8].mean(-1))
    assert not values[:, 2].any()
    torch.testing.assert_close(found.between(here, at)[:, 0, :, 0], found.values[:, :, 2, 7, 4])


@settings(deadline=None, max_examples=40)
@given(seed=st.integers(0, 10**6), number=st.integers(1, 25), shrink=st.floats(0.01, 2.0))
def test_it_is_positive_at_points_anywhere(seed, number, shrink):
    found, where = table(seed % 7), places(number, seed) * shrink
    whole = found.between(where, where).reshape(2 * number, 2 * number)
    torch.testing.assert_close(whole, whole.T)
    assert torch.linalg.eigvalsh(whole).min() > -1e-12
    torch.testing.assert_close(whole.diagonal().reshape(2, -1), found.variance[:, None].expand(2, number))


@pytest.fixture(scope="module")
def pairs(ocean_shards):
    root, manifest = ocean_shards
    every = torch.arange(manifest.num_pairs("train"))
    return root, manifest, read_arrays(root, manifest, "train", {"u": every, "origin": every})


def pooled_by_hand(manifest, arrays, sums, chosen):
    """Return the table of some windows, from loops over lags."""
    geometry = Geometry.of(manifest.source)
    level = sums.whole().std.square().nanmean().sqrt()
    total, count = 0.0, 0
    for u, origin in zip(arrays["u"][chosen].double(), arrays["origin"][chosen], strict=True):
        place = Origin.of(origin)
        climatology = sums.without(float(place.release_s), float(place.release_s) + geometry.duration_s, GAP_S)
        box = [slice(int(first), int(first) + u.shape[-1]) for first in (place.row, place.column)]
        std = climatology.std[:, *box].square().mean(0).sqrt()
        anomaly = (u - climatology.mean[:, *box][:, None]) / (level * std).sqrt()
        known = torch.isfinite(anomaly).all(0)
        count += int(known.sum())
        nearest = geometry.latitude.abs().min()  # lags are those of the tiles nearest the equator
        step = torch.cos(torch.deg2rad(nearest)) / torch.cos(torch.deg2rad(place.latitude))
        total = total + _resampled(autocovariance(torch.where(known, anomaly, 0.0)), float(step))
    return total / count


@pytest.mark.long
def test_it_is_that_of_all_windows_and_without_some_that_of_the_rest(pairs):
    root, manifest, arrays = pairs
    sums = ClimatologySums.of(root, manifest)
    pooled = PooledSums.of(root, manifest, sums, GAP_S)
    every = torch.arange(len(arrays["u"]))
    torch.testing.assert_close(
        pooled.whole().values, pooled_by_hand(manifest, arrays, sums, every), rtol=1e-8, atol=1e-9
    )
    release_s = Origin.of(arrays["origin"]).release_s
    first_s, last_s = float(release_s.min()), float(release_s.min()) + pooled.window_s
    block = ((release_s - pooled.first_s) / pooled.block_s).long()
    starts = pooled.first_s + pooled.block_s * block
    far = (starts - last_s > GAP_S).nonzero()[:, 0]
    assert 0.4 * len(every) < len(far) < len(every)
    found = pooled.without(first_s, last_s, GAP_S)
    torch.testing.assert_close(found.values, pooled_by_hand(manifest, arrays, sums, far), rtol=1e-8, atol=1e-9)
    assert pooled.without(first_s, last_s, 1e9).variance.isfinite().all()  # half of all blocks stay


@pytest.fixture
def law():
    return WithPooled(CurrentKernel(), torch.tensor(0.7, dtype=torch.float64, requires_grad=True), table())


def points(number, seed):
    amplitude = 0.5 + torch.rand(number, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return Points(places(number, seed), amplitude)


def test_the_posterior_is_that_of_gaussian_algebra(law):
    seen, where = points(6, 1), points(5, 2)
    anomaly, variance = torch.linspace(-1, 1, 12, dtype=torch.float64).reshape(2, 6), torch.full((6,), 0.2).double()
    posterior = Posterior(law, Measured(seen, anomaly, variance))
    own = law(seen, seen).reshape(12, 12) + 0.2 * torch.eye(12, dtype=torch.float64)
    gain = torch.linalg.inv(own) @ law(seen, where).reshape(12, 10)
    covariance = law(where, where).reshape(10, 10) - law(where, seen).reshape(10, 12) @ gain
    mean, found = posterior.mean_and_variance(where)
    torch.testing.assert_close(mean.reshape(-1), gain.T @ anomaly.reshape(-1))
    torch.testing.assert_close(found.reshape(-1), covariance.diagonal())
    normal = torch.distributions.MultivariateNormal(
        gain.T @ anomaly.reshape(-1), covariance + 0.1 * torch.eye(10, dtype=torch.float64)
    )
    truth = torch.ones(2, 5, dtype=torch.float64)
    density = posterior.log_density(where, truth, torch.full((5,), 0.1).double())
    torch.testing.assert_close(density, normal.log_prob(truth.reshape(-1)))
    density.backward()
    assert law.share.grad.isfinite()
    assert law.share.grad != 0


@pytest.mark.long
def test_draws_have_this_covariance():
    law = WithPooled(CurrentKernel(), torch.tensor(3.0, dtype=torch.float64), table())
    some, number = points(4, 3), 2500
    drawn = law.draw(some, number, torch.Generator().manual_seed(3)).reshape(number, 8)
    whole = law(some, some).reshape(8, 8)
    scale = whole.diagonal().sqrt()
    torch.testing.assert_close(
        torch.cov(drawn.T) / scale / scale[:, None], whole / scale / scale[:, None], rtol=0, atol=0.08
    )
    part = law.draw(some[:2], number, torch.Generator().manual_seed(3)).reshape(number, 2, 2)
    torch.testing.assert_close(part, drawn.reshape(number, 2, 4)[..., :2])  # of one field


def test_a_prior_that_was_saved_without_it_is_its_kernel():
    axes = [30.0, 31.0], [10.0, 11.0]
    prior = CurrentPrior(*axes, lags=(7, 11, 11))
    prior.pooled.copy_(table().values)
    assert isinstance(prior.covariance(), WithPooled)
    prior.load_state_dict(CurrentPrior(*axes).state_dict() | prior.of_older_records)
    assert prior.covariance() is prior.kernel
    found = dataclasses.replace(table(), values=table().values)
    assert isinstance(prior.covariance(found), WithPooled)
