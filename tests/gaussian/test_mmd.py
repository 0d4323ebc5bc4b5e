"""The population MMD losses against Monte Carlo, and where their optimum is that of the divergence."""

import math

import numpy as np
import pytest
import torch
from gaussian.naive import TILTINGS, random_encoders, random_pair

from pcl.gaussian import (
    AffineMap,
    ImproperModelError,
    minimise_encoders,
    model_conditional,
    model_joint,
    optimal_encoders,
    population_mmd,
)

WIDTHS = (0.9, 1.4)
NUM_DRAWS = 200_000


def kernel(x, y, bandwidth):
    return torch.exp(-(x - y).square().sum(1) / (2 * bandwidth**2))


def draws(mean, covariance, given_, generator):
    noise = torch.randn(len(given_), len(covariance), generator=generator, dtype=torch.float64)
    return mean(given_) + noise @ torch.linalg.cholesky(covariance).T


@pytest.mark.parametrize("tilting", TILTINGS)
@pytest.mark.parametrize("weights", [(1, 1), (2, 0), (0.5, 1.5)])
def test_the_conditional_loss_is_that_of_monte_carlo(tilting, weights):
    pair = random_pair(3, 2)
    encoders = random_encoders(pair, 2, size=1.3)
    g, h = (AffineMap(e, torch.zeros(2, dtype=torch.float64)) for e in encoders)
    generator = torch.Generator().manual_seed(0)
    u, v = pair.sample(NUM_DRAWS, generator)
    expected = torch.zeros(NUM_DRAWS, dtype=torch.float64)
    for weight, width, direction, maps, prior, given_ in (
        (weights[0], WIDTHS[0], "u_given_v", (g, h), pair.c_uu, v),
        (weights[1], WIDTHS[1], "v_given_u", (h, g), pair.c_vv, u),
    ):
        x, x_other = (draws(*model_conditional(*maps, prior, tilting), given_, generator) for _ in range(2))
        y, y_other = (draws(*pair.conditional(direction), given_, generator) for _ in range(2))
        half = (kernel(x, x_other, width) + kernel(y, y_other, width)) / 2 - kernel(x, y, width)
        expected += weight / 2 * half
    found = population_mmd(pair, *encoders, "conditional_mmd", tilting, weights, WIDTHS)
    assert abs(found - expected.mean()) < 4 * expected.std() / NUM_DRAWS**0.5
    assert found > 20 * expected.std() / NUM_DRAWS**0.5  # what the comparison sees


@pytest.mark.parametrize("tilting", TILTINGS)
def test_the_joint_loss_is_that_of_monte_carlo(tilting):
    pair = random_pair(3, 2)
    encoders = random_encoders(pair, 2, size=0.9)
    model = model_joint(pair, *encoders, tilting)
    generator = torch.Generator().manual_seed(0)
    (x, x_other), (y, y_other) = ([law.sample(NUM_DRAWS, generator) for _ in range(2)] for law in (model, pair))

    def joint_kernel(first, second):
        return kernel(first[0], second[0], WIDTHS[0]) * kernel(first[1], second[1], WIDTHS[1])

    expected = joint_kernel(x, x_other) + joint_kernel(y, y_other) - 2 * joint_kernel(x, y)
    found = population_mmd(pair, *encoders, "joint_mmd", tilting, bandwidths=WIDTHS)
    assert abs(found - expected.mean()) < 4 * expected.std() / NUM_DRAWS**0.5


@pytest.mark.parametrize("bandwidths", [(1, 1), WIDTHS, (0.1, 5)])
def test_the_inner_product_optimum_of_full_rank_has_the_exact_means(bandwidths):
    """Nothing is better than the closed form of the conditional loss, from random starts."""
    pair = random_pair(3, 2)

    def function(g, h):
        return population_mmd(pair, g, h, bandwidths=bandwidths)

    g, h, value = minimise_encoders(function, pair, 2, num_starts=3, closed_form_start=False)
    closed = optimal_encoders(pair, 2)
    assert value == pytest.approx(function(*closed).item(), abs=1e-12)
    torch.testing.assert_close(g.T @ h, closed[0].T @ closed[1], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("weights", [(2, 0), (0, 2)])
def test_the_one_sided_squared_distance_of_full_rank_has_no_loss(weights):
    pair = random_pair(4, 3)
    encoders = optimal_encoders(pair, 3, "conditional", "squared_distance", weights)
    case = ("conditional_mmd", "squared_distance")
    assert population_mmd(pair, *encoders, *case, weights, WIDTHS).item() == pytest.approx(0, abs=1e-14)
    assert population_mmd(pair, *encoders, *case, weights[::-1], WIDTHS).item() > 1e-3


@pytest.mark.parametrize("tilting", TILTINGS)
@pytest.mark.parametrize("loss", ["conditional_mmd", "joint_mmd"])
def test_the_loss_is_differentiable_and_lower_at_its_minimum_than_at_that_of_the_divergence(loss, tilting):
    pair = random_pair(3, 2)

    def function(g, h):
        return population_mmd(pair, g, h, loss, tilting, (0.5, 1.5), WIDTHS)

    assert torch.autograd.gradcheck(function, [e.requires_grad_() for e in random_encoders(pair, 1)])
    g, h, value = minimise_encoders(function, pair, 1, num_starts=2)
    closed = optimal_encoders(pair, 1, loss.removesuffix("_mmd"), tilting, (0.5, 1.5))
    assert 0 < value < function(*closed).item() - 1e-6
    gradients = torch.autograd.grad(function(g.requires_grad_(), h.requires_grad_()), (g, h))
    assert max(gradient.norm().item() for gradient in gradients) < 1e-6


def test_a_wide_kernel_compares_means_and_a_narrow_one_nothing():
    """To leading order the squared MMD of a wide kernel is the mean squared error of the mean over h^2."""
    pair = random_pair(3, 2)
    g, h = random_encoders(pair, 2)
    maps = [AffineMap(e, torch.zeros(2, dtype=torch.float64)) for e in (g, h)]
    error = model_conditional(*maps, pair.c_uu, "inner_product")[0].matrix - pair.conditional("u_given_v")[0].matrix
    expected = torch.trace(error @ pair.c_vv @ error.T).item()
    found = population_mmd(pair, g, h, weights=(2, 0), bandwidths=(1e3, 1)).item()
    assert 2 * found * 1e6 == pytest.approx(expected, rel=1e-4)
    assert population_mmd(pair, g, h, weights=(2, 0), bandwidths=(1e-5, 1)).item() == pytest.approx(0, abs=1e-12)


def test_a_model_of_infinite_mass_has_no_joint_loss():
    pair = random_pair(3, 2)
    g, h = random_encoders(pair, 2, size=1.5)
    assert np.isfinite(population_mmd(pair, g, h).item())
    with pytest.raises(ImproperModelError, match="the model is improper"):
        population_mmd(pair, g, h, "joint_mmd")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"loss": "joint"}, "loss 'joint' has no closed form here; choose one of conditional_mmd, joint_mmd"),
        ({"tilting": "cosine"}, "tilting 'cosine' has no closed form here"),
        ({"weights": (0, 0)}, r"loss weights \(0.0, 0.0\)"),
        ({"bandwidths": (1, 0)}, r"bandwidths \(1.0, 0.0\): two finite numbers are needed, both > 0"),
        ({"bandwidths": (math.nan, 1)}, r"bandwidths \(nan, 1.0\)"),
        ({"bandwidths": (1,)}, r"bandwidths \(1.0,\)"),
        ({"g": torch.zeros(2, 3)}, r"encoders of shapes \(2, 3\)"),
    ],
)
def test_what_is_no_mmd_loss_is_refused(options, message):
    arguments = {"g": torch.zeros(2, 4), "h": torch.zeros(2, 2)} | options
    with pytest.raises(ValueError, match=message):
        population_mmd(random_pair(4, 2), **arguments)
