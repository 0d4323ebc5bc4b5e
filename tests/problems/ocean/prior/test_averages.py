"""What a mean takes from anomalies, against means over many times, and the law of anomalies."""

import math

import pytest
import torch

from pcl.problems.ocean.prior.averages import Averages
from pcl.problems.ocean.prior.climatology import ClimatologySums, GridClimatology
from pcl.problems.ocean.prior.kernel import AnomalyKernel, CurrentKernel, Points
from pcl.problems.ocean.prior.measurements import Measurements
from pcl.problems.ocean.prior.model import CurrentPrior

SPANS = ((-9.0, -2.0), (3.0, 11.0))


@pytest.fixture
def averages():
    return Averages(torch.tensor(SPANS, dtype=torch.float64), 12.0)


def many_times(step=0.02):
    """Return times spread evenly over the spans."""
    return torch.cat([torch.arange(begin + step / 2, end, step, dtype=torch.float64) for begin, end in SPANS])


@pytest.mark.parametrize("days", [0.7, 4.0, 12.0])
def test_it_is_the_covariance_of_a_current_less_its_mean_over_many_times(averages, days):
    times = torch.tensor([-12.0, 0.5, 4.0, 60.0], dtype=torch.float64)
    every = torch.cat([times, many_times()])
    rho = (-((every[:, None] - every) / days).square() / 2).exp()
    less = torch.eye(len(every), dtype=torch.float64)
    less[:, 4:] -= 1 / (len(every) - 4)
    expected = (less @ rho @ less.T)[:4, :4]
    scale = torch.tensor([days], dtype=torch.float64)
    found = averages.correlation(scale, times, times)[0]
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(averages.variance(scale, times)[0], found.diagonal())


def test_waves_lose_their_means(averages):
    frequency = torch.tensor([0.0, 0.3, -2.0], dtype=torch.float64)
    phase = frequency[:, None] * many_times()
    cosine, sine = averages.of_waves(frequency)
    torch.testing.assert_close(cosine, phase.cos().mean(1), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(sine, phase.sin().mean(1), rtol=1e-4, atol=1e-4)


def points(number, seed):
    generator = torch.Generator().manual_seed(seed)
    place = torch.randn(number, 3, generator=generator, dtype=torch.float64) * torch.tensor([60.0, 60.0, 6.0])
    return Points(place, 0.5 + torch.rand(number, generator=generator, dtype=torch.float64))


@pytest.fixture
def kernel():
    found, generator = CurrentKernel(), torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in found.parameters():
            parameter.add_(0.2 * torch.randn(parameter.shape, generator=generator, dtype=torch.float64))
    return found


def test_anomalies_have_a_covariance(kernel, averages):
    law, some = AnomalyKernel(kernel, averages), points(30, 1)
    whole = law(some, some).reshape(60, 60)
    torch.testing.assert_close(whole, whole.T)
    assert torch.linalg.eigvalsh(whole).min() > -1e-10
    torch.testing.assert_close(law.variance(some).reshape(-1), whole.diagonal())


def test_of_a_mean_over_a_long_time_nothing_is_taken(kernel):
    law, some = AnomalyKernel(kernel, Averages(torch.tensor([[-1e7, 1e7]]).double(), 5e6)), points(5, 2)
    torch.testing.assert_close(law(some, some), kernel(some, some), rtol=0, atol=1e-4)


@pytest.mark.long
def test_draws_have_this_covariance(kernel, averages):
    law, some, number = AnomalyKernel(kernel, averages), points(4, 3), 4000
    drawn = law.draw(some, number, torch.Generator().manual_seed(3)).reshape(number, 8)
    whole = law(some, some).reshape(8, 8)
    scale = whole.diagonal().sqrt()
    torch.testing.assert_close(
        torch.cov(drawn.T) / scale / scale[:, None], whole / scale / scale[:, None], rtol=0, atol=0.09
    )
    before, still = kernel.draw(some, 3, torch.Generator().manual_seed(3)), Averages(torch.tensor([[-1e9, 1e9]]), 1e9)
    after = kernel.draw(some, 3, torch.Generator().manual_seed(3), still)
    torch.testing.assert_close(before, after, rtol=0, atol=1e-3)


def test_a_climatology_knows_its_time():
    sums = ClimatologySums(torch.arange(2.0), torch.arange(2.0), 100.0, 10.0, torch.ones(8, 5, 2, 2).double())
    assert sums.whole().spans_s.tolist() == [[100.0, 180.0]]
    found = sums.without(135.0, 138.0, 0.0)
    assert found.spans_s.tolist() == [[100.0, 130.0], [140.0, 180.0]]
    assert found.averages(100.0).longest == pytest.approx(40 / 86400)


def test_where_the_mean_is_of_a_few_weeks_the_spread_is_wider_after_them():
    grid = torch.full((2, 2, 2), 0.3).double()
    spans = torch.tensor([[0.0, 20 * 86400.0]], dtype=torch.float64)
    prior = CurrentPrior([30.0, 31.0], [10.0, 11.0])
    prior.keep(GridClimatology(prior.latitude, prior.longitude, 0 * grid, grid, spans, 20 * 86400.0))
    none = Measurements(torch.zeros(0, 2), *torch.zeros(5, 0))
    where = torch.full((2,), 30.5), torch.full((2,), 10.5), torch.tensor([10.0, 100.0]) * 86400
    _, std = prior.posterior(none, centre=(30.5, 10.5)).mean_and_std(*where)
    scale = math.sqrt(2) * 0.3
    assert (std[:, 1] > 1.3 * std[:, 0]).all()
    assert (std[:, 1] < scale).all()
    other = CurrentPrior([30.0, 31.0], [10.0, 11.0])
    other.load_state_dict(prior.state_dict() | {"period": other.of_older_records["period"]})
    _, plain = other.posterior(none, centre=(30.5, 10.5)).mean_and_std(*where)
    torch.testing.assert_close(plain[:, 0], plain[:, 1])
