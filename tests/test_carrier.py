"""A Gaussian carrier against Bayes' rule, quadrature, autograd and an archive of draws."""

import math

import pytest
import torch

from pcl.carrier import GaussianCarrier, log_normaliser
from pcl.conditional import Conditional

Q, N, E = 4, 5, 3


@pytest.fixture(params=[0, 1, 2], ids=["one W", "a W each", "more components than u"])
def case(request):
    generator = torch.Generator().manual_seed(request.param)
    e = E if request.param < 2 else N + 2

    def normal(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    factor = normal(N, N)
    root = normal(*([Q] if request.param == 1 else []), e, e) / 2
    carrier = GaussianCarrier(normal(N), factor @ factor.T / N)
    return carrier, normal(e, N), normal(Q, e), root @ root.mT, normal(Q)


def naive(carrier, g, h, w):
    """Return mean and covariance of one query by inverses."""
    precision = torch.linalg.inv(carrier.covariance)
    covariance = torch.linalg.inv(precision + g.T @ w @ g)
    return covariance @ (precision @ carrier.mean + g.T @ h), covariance


def test_mean_and_covariance_are_those_of_bayes_rule(case):
    carrier, g, h, w, b = case
    found = carrier.tilted(g, h, w, b)
    for i, (mean, covariance) in enumerate(zip(found.mean(), found.covariance(), strict=True)):
        expected = naive(carrier, g, h[i], w if w.ndim == 2 else w[i])
        torch.testing.assert_close(mean, expected[0], rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(covariance, expected[1], rtol=1e-8, atol=1e-9)
    torch.testing.assert_close(found.variance(), found.covariance().diagonal(dim1=1, dim2=2))


def test_the_density_is_the_ratio_of_the_conditional_to_the_carrier(case):
    carrier, g, h, w, b = case
    found = carrier.tilted(g, h, w, b)
    u = torch.randn(6, N, generator=torch.Generator().manual_seed(9), dtype=torch.float64)
    prior = torch.distributions.MultivariateNormal(carrier.mean, carrier.covariance)
    for i, density in enumerate(found.log_density(u)):
        mean, covariance = naive(carrier, g, h[i], w if w.ndim == 2 else w[i])
        covariance = (covariance + covariance.T) / 2
        expected = torch.distributions.MultivariateNormal(mean, covariance).log_prob(u) - prior.log_prob(u)
        torch.testing.assert_close(density, expected, rtol=1e-8, atol=1e-8)


def test_the_mean_is_the_gradient_of_the_normaliser(case):
    """The gradient d log E exp s / d h is E[z | v]: an exponential family."""
    carrier, g, h, w, b = case
    mean_z, covariance_z = g @ carrier.mean, g @ carrier.covariance @ g.T
    h = h.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(log_normaliser(mean_z, covariance_z, h, w, b).sum(), h)
    torch.testing.assert_close(gradient, carrier.tilted(g, h.detach(), w, b).mean() @ g.T, rtol=1e-9, atol=1e-9)


def test_the_normaliser_is_differentiable_in_everything(case):
    carrier, g, h, w, b = case
    root = torch.linalg.cholesky(w + 1e-3 * torch.eye(w.shape[-1], dtype=w.dtype))

    def value(g, h, root, b):
        return log_normaliser(g @ carrier.mean, g @ carrier.covariance @ g.T, h, root @ root.mT, b)

    inputs = [part.clone().requires_grad_() for part in (g, h, root, b)]
    assert torch.autograd.gradcheck(value, inputs)


def test_the_normaliser_is_the_integral():
    mean, variance, h, w, b = 0.3, 1.7, 0.9, 0.6, -0.2
    grid = torch.linspace(-30, 30, 200_001, dtype=torch.float64)
    log_prior = -((grid - mean) ** 2) / (2 * variance) - math.log(2 * math.pi * variance) / 2
    integral = torch.trapezoid((log_prior + h * grid - w * grid**2 / 2 + b).exp(), grid).log()
    one = [torch.tensor(x, dtype=torch.float64) for x in ([mean], [[variance]], [[h]], [[w]], [b])]
    assert log_normaliser(*one).item() == pytest.approx(integral.item(), abs=1e-10)


def test_an_archive_of_many_draws_agrees():
    generator = torch.Generator().manual_seed(0)
    factor = torch.tensor([[1.0, 0.0], [0.6, 0.8]], dtype=torch.float64)
    carrier = GaussianCarrier(torch.tensor([0.5, -0.2], dtype=torch.float64), factor @ factor.T)
    archive = torch.randn(1_000_000, 2, generator=generator, dtype=torch.float64) @ factor.T + carrier.mean
    h, w = torch.tensor([[0.7, -0.4]], dtype=torch.float64), torch.eye(2, dtype=torch.float64)
    exact = carrier.tilted(torch.eye(2, dtype=torch.float64), h, w)
    references = Conditional(archive, 1.0, log_prior=-archive.square().sum(1) / 2)
    torch.testing.assert_close(references.mean(h, archive), exact.mean(), rtol=0, atol=4e-3)
    torch.testing.assert_close(references.variance(h, archive), exact.variance(), rtol=0, atol=4e-3)
    mean_score = (archive @ h[0] - archive.square().sum(1) / 2).logsumexp(0) - math.log(len(archive))
    assert mean_score.item() == pytest.approx(exact.log_normaliser().item(), abs=3e-3)


def test_draws_are_those_of_the_conditional(case):
    carrier, g, h, w, b = case
    found, number = carrier.tilted(g, h, w, b), 40_000
    draws = found.sample(number, torch.Generator().manual_seed(3))
    error = (draws.mean(1) - found.mean()) / (found.variance() / number).sqrt()
    assert error.abs().max() < 4.5
    for one, covariance in zip(draws, found.covariance(), strict=True):
        scale = covariance.diagonal().sqrt()
        torch.testing.assert_close(
            torch.cov(one.T) / scale / scale[:, None], covariance / scale / scale[:, None], rtol=0, atol=0.04
        )
    again = found.sample(number, torch.Generator().manual_seed(3))
    assert torch.equal(draws, again)


def test_measurements_make_it_optimal_interpolation(case):
    """With h = R^-1 y and W = R^-1 it is m + C H'(H C H' + R)^-1 (y - H m)."""
    carrier, operator, y, *_ = case
    noise = torch.diag(torch.linspace(0.2, 1.0, len(operator), dtype=torch.float64))
    found = carrier.tilted(operator, y @ torch.linalg.inv(noise), torch.linalg.inv(noise))
    cross = carrier.covariance @ operator.T
    gain = cross @ torch.linalg.inv(operator @ cross + noise)
    torch.testing.assert_close(found.mean(), carrier.mean + (y - operator @ carrier.mean) @ gain.T)
    torch.testing.assert_close(found.covariance()[0], carrier.covariance - gain @ cross.T, rtol=1e-8, atol=1e-9)


def test_what_does_not_fit_is_refused():
    carrier = GaussianCarrier(torch.zeros(2), torch.eye(2))
    with pytest.raises(ValueError, match=r"encoder of shape \(3, 3\)"):
        carrier.tilted(torch.eye(3), torch.zeros(1, 3), torch.eye(3))
    with pytest.raises(ValueError, match="covariance of shape"):
        GaussianCarrier(torch.zeros(2), torch.eye(3))
