"""The covariance of currents against derivatives of that of the fields, and the posterior against Gaussian algebra."""

import pytest
import torch

from pcl.problems.ocean.evaluation.baselines import OptimalInterpolation
from pcl.problems.ocean.prior.kernel import DRIFT_SCALE_KM_DAY, KINDS, CurrentKernel, Points
from pcl.problems.ocean.prior.posterior import Measured, Posterior

pytestmark = pytest.mark.long


@pytest.fixture
def kernel():
    """A kernel away from where it starts."""
    found, generator = CurrentKernel(), torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in found.parameters():
            parameter.add_(0.2 * torch.randn(parameter.shape, generator=generator, dtype=torch.float64))
    return found


def points(number, seed=1):
    generator = torch.Generator().manual_seed(seed)
    place = torch.randn(number, 3, generator=generator, dtype=torch.float64) * torch.tensor([60.0, 60.0, 5.0])
    return Points(place, 0.5 + torch.rand(number, generator=generator, dtype=torch.float64))


def of_field(kernel, number, a, b):
    """Return the covariance of a streamfunction or potential at two points."""
    lengths, days = kernel.log_lengths[number].exp(), kernel.log_days[number].exp()
    time = a[2] - b[2]
    moved = ((a - b)[:2] - kernel.drifts[number] * DRIFT_SCALE_KM_DAY * time) / lengths
    exponent = -(moved.square().sum() + (time / days) ** 2) / 2
    return (2 * kernel.log_scales[number]).exp() * lengths.prod() * exponent.exp()


def test_it_is_the_derivatives_of_the_covariances_of_its_fields(kernel):
    first, second = points(3), points(4, seed=2)
    found = kernel(first, second)
    turn = torch.tensor([[0.0, -1.0], [1.0, 0.0]], dtype=torch.float64)
    for i in range(3):
        for j in range(4):
            expected = torch.zeros(2, 2, dtype=torch.float64)
            for number, kind in enumerate(KINDS):
                mixed = torch.autograd.functional.hessian(
                    lambda a, b, number=number: of_field(kernel, number, a, b), (first.place[i], second.place[j])
                )[0][1][:2, :2]
                expected += turn @ mixed @ turn.T if kind == "streamfunction" else mixed
            expected *= (first.amplitude[i] * second.amplitude[j]) ** kernel.exponent
            torch.testing.assert_close(found[:, i, :, j], expected, rtol=1e-9, atol=1e-11)


def test_it_is_a_covariance(kernel):
    some = points(12)
    whole = kernel(some, some).reshape(24, 24)
    torch.testing.assert_close(whole, whole.T)
    assert torch.linalg.eigvalsh(whole).min() > 0
    torch.testing.assert_close(kernel.variance(some).reshape(-1), whole.diagonal())


def test_one_streamfunction_of_one_length_is_optimal_interpolation():
    kernel, classic = CurrentKernel(), OptimalInterpolation(length_km=80.0, time_days=10.0)
    with torch.no_grad():
        kernel.log_lengths.fill_(80.0).log_()
        kernel.log_days.fill_(10.0).log_()
        kernel.log_scales.copy_(torch.tensor([0.0, -40.0, -40.0]))
    some = points(5)
    ones = Points(some.place, torch.ones(5, dtype=torch.float64))
    torch.testing.assert_close(kernel(ones, ones), classic.covariance(some.place, some.place))


def test_draws_have_this_covariance(kernel):
    some, number = points(4), 4000
    drawn = kernel.draw(some, number, torch.Generator().manual_seed(3)).reshape(number, 8)
    whole = kernel(some, some).reshape(8, 8)
    scale = whole.diagonal().sqrt()
    correlation = whole / scale / scale[:, None]
    torch.testing.assert_close(torch.cov(drawn.T) / scale / scale[:, None], correlation, rtol=0, atol=0.09)
    assert (drawn.mean(0) / scale).abs().max() < 0.08


@pytest.fixture
def posterior(kernel):
    generator = torch.Generator().manual_seed(4)
    anomaly = torch.randn(2, 6, generator=generator, dtype=torch.float64)
    variance = 0.1 + torch.rand(6, generator=generator, dtype=torch.float64)
    return Posterior(kernel, Measured(points(6), anomaly, variance))


def naive(posterior, targets):
    """Return mean and covariance by the law of all currents together."""
    measured, kernel = posterior.measured, posterior.kernel
    n, m = 2 * len(measured.points), 2 * len(targets)
    own = kernel(measured.points, measured.points).reshape(n, n) + torch.diag(measured.variance.repeat(2))
    gain = torch.linalg.inv(own) @ kernel(measured.points, targets).reshape(n, m)
    covariance = kernel(targets, targets).reshape(m, m) - kernel(targets, measured.points).reshape(m, n) @ gain
    return gain.T @ measured.anomaly.reshape(-1), covariance


def test_mean_and_covariance_are_those_of_gaussian_algebra(posterior):
    targets = points(5, seed=5)
    mean, covariance = naive(posterior, targets)
    found = posterior.mean_and_covariance(targets)
    torch.testing.assert_close(found[0], mean, rtol=1e-8, atol=1e-9)
    torch.testing.assert_close(found[1], covariance, rtol=1e-8, atol=1e-9)
    apart = posterior.mean_and_variance(targets)
    torch.testing.assert_close(apart[0].reshape(-1), mean, rtol=1e-8, atol=1e-9)
    torch.testing.assert_close(apart[1].reshape(-1), covariance.diagonal(), rtol=1e-8, atol=1e-9)


def test_the_density_is_that_of_the_conditional(posterior):
    targets, anomaly = points(5, seed=5), torch.linspace(-1, 1, 10, dtype=torch.float64).reshape(2, 5)
    error = torch.full((5,), 0.2, dtype=torch.float64)
    mean, covariance = naive(posterior, targets)
    off = anomaly.reshape(-1) - mean
    whole = covariance + torch.diag(error.repeat(2))
    expected = -(off @ torch.linalg.inv(whole) @ off + torch.logdet(2 * torch.pi * whole)) / 2
    torch.testing.assert_close(posterior.log_density(targets, anomaly, error), expected)


def test_members_are_coherent_draws_of_the_conditional(posterior):
    targets, number = points(4, seed=6), 4000
    members = posterior.members(targets, number, torch.Generator().manual_seed(7))
    assert torch.equal(members, posterior.members(targets, number, torch.Generator().manual_seed(7)))
    mean, covariance = naive(posterior, targets)
    flat, scale = members.reshape(number, 8), covariance.diagonal().sqrt()
    assert ((flat.mean(0) - mean) / scale).abs().max() < 0.08
    correlation = covariance / scale / scale[:, None]
    torch.testing.assert_close(torch.cov(flat.T) / scale / scale[:, None], correlation, rtol=0, atol=0.09)


def test_without_measurements_it_is_the_prior(kernel):
    nothing = Measured(points(3)[:0], torch.zeros(2, 0, dtype=torch.float64), torch.zeros(0, dtype=torch.float64))
    targets = points(4)
    mean, variance = Posterior(kernel, nothing).mean_and_variance(targets)
    assert torch.equal(mean, torch.zeros_like(mean))
    torch.testing.assert_close(variance, kernel.variance(targets))


def test_the_parameters_can_be_learned(posterior):
    targets, anomaly = points(5, seed=5), torch.ones(2, 5, dtype=torch.float64)
    density = posterior.log_density(targets, anomaly, posterior.kernel.noise_variance(targets))
    density.backward()
    assert all(parameter.grad.isfinite().all() for parameter in posterior.kernel.parameters())
    assert sum(parameter.numel() for parameter in posterior.kernel.parameters()) == 20
