"""Closed-form encoders against direct minimisation of the population loss, and the conditionals they imply."""

import math

import numpy as np
import pytest
import torch

from pcl.gaussian import (
    AffineMap,
    GaussianPair,
    GaussianProcessPair,
    model_conditional,
    optimal_encoders,
    plug_in,
    relative_error,
)
from pcl.gaussian.pair import DIRECTIONS

LOSSES = ("conditional", "joint")
TILTINGS = ("inner_product", "squared_distance")
N, M = 4, 3
THEORY_62 = [(0.172, 0.564), (0.045, 0.253), (0.0150, 0.1005), (0.0045, 0.0317)]


def random_pair(n, m, seed=0):
    factor = torch.randn(n + m, n + m, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    covariance = factor @ factor.T / (n + m) + 0.05 * torch.eye(n + m, dtype=torch.float64)
    return GaussianPair(covariance[:n, :n], covariance[:n, n:], covariance[n:, n:])


def divergence(mean_map, covariance, truth_map, truth_covariance, conditioning):
    """Return E KL(N(truth_map y, truth_covariance) || N(mean_map y, covariance)) over y ~ N(0, conditioning)."""
    difference = mean_map - truth_map
    spread = truth_covariance + difference @ conditioning @ difference.T
    trace = torch.linalg.solve(covariance, spread).trace()
    return (trace - len(covariance) + torch.logdet(covariance) - torch.logdet(truth_covariance)) / 2


def conditional_divergence(g, h, pair, tilting, weights=(1.0, 1.0)):
    """Return the population loss of THEORY 2 less its smallest conceivable value."""
    total = 0.0
    for weight, a, b, own, cross, given in (
        (weights[0], g, h, pair.c_uu, pair.c_uv, pair.c_vv),
        (weights[1], h, g, pair.c_vv, pair.c_uv.T, pair.c_uu),
    ):
        regression = cross @ torch.linalg.inv(given)
        precision = torch.linalg.inv(own) + (a.T @ a if tilting == "squared_distance" else 0)
        covariance = torch.linalg.inv(precision)
        kl = divergence(covariance @ a.T @ b, covariance, regression, own - regression @ cross.T, given)
        total = total + weight / 2 * kl
    return total


def joint_divergence(g, h, pair, tilting):
    """Return KL(mu || nu); beyond the proper models the log-determinant is continued smoothly, far from any optimum."""
    squares = (g.T @ g, h.T @ h) if tilting == "squared_distance" else (torch.zeros(N, N), torch.zeros(M, M))
    precisions = [torch.linalg.inv(c) + s for c, s in zip((pair.c_uu, pair.c_vv), squares, strict=True)]
    precision = torch.cat([torch.cat([precisions[0], -g.T @ h], 1), torch.cat([-h.T @ g, precisions[1]], 1)])
    within = torch.linalg.cholesky(torch.block_diag(*precisions))
    eigenvalues = torch.linalg.eigvalsh(
        torch.linalg.solve_triangular(
            within.T, torch.linalg.solve_triangular(within, precision, upper=False), upper=True, left=False
        )
    )
    low, excess = 0.01, (eigenvalues - 0.01) / 0.01
    logs = torch.where(eigenvalues > low, eigenvalues.clamp(min=low).log(), math.log(low) + excess - excess**2 / 2)
    logdet = logs.sum() + 2 * within.diagonal().log().sum()
    return ((precision @ pair.covariance).trace() - (N + M) - logdet - torch.logdet(pair.covariance)) / 2


def population_divergence(g, h, pair, loss, tilting):
    function = joint_divergence if loss == "joint" else conditional_divergence
    return function(g, h, pair, tilting)


def minimise(function, *shapes, num_starts=2):
    """Return the smallest value that LBFGS finds from random starts."""
    best = math.inf
    for seed in range(num_starts):
        generator = torch.Generator().manual_seed(seed)
        leaves = [(0.3 * torch.randn(s, generator=generator, dtype=torch.float64)).requires_grad_() for s in shapes]
        optimizer = torch.optim.LBFGS(
            leaves,
            max_iter=300,
            tolerance_grad=1e-9,
            tolerance_change=1e-15,
            history_size=20,
            line_search_fn="strong_wolfe",
        )

        def closure(leaves=leaves, optimizer=optimizer):
            optimizer.zero_grad()
            value = function(*leaves)
            value.backward()
            return value

        optimizer.step(closure)
        best = min(best, function(*leaves).item())
    return best


@pytest.mark.parametrize("rank", [1, 2, 3])
@pytest.mark.parametrize("tilting", TILTINGS)
@pytest.mark.parametrize("loss", LOSSES)
def test_the_closed_form_is_the_minimum_of_the_population_loss(loss, tilting, rank):
    for seed in range(3):
        pair = random_pair(N, M, seed)
        roots = [torch.linalg.cholesky(c).inverse() for c in (pair.c_uu, pair.c_vv)]

        def function(g, h, pair=pair, roots=roots):
            return population_divergence(g @ roots[0], h @ roots[1], pair, loss, tilting)

        closed = population_divergence(*optimal_encoders(pair, rank, loss, tilting), pair, loss, tilting).item()
        assert closed == pytest.approx(minimise(function, (rank, N), (rank, M)), abs=1e-8)


@pytest.mark.parametrize("weights", [(2.0, 0.0), (0.0, 2.0), (0.5, 1.5)])
def test_the_inner_product_optimum_is_that_of_any_weights(weights):
    pair = random_pair(N, M)
    roots = [torch.linalg.cholesky(c).inverse() for c in (pair.c_uu, pair.c_vv)]

    def function(g, h):
        return conditional_divergence(g @ roots[0], h @ roots[1], pair, "inner_product", weights)

    closed = conditional_divergence(*optimal_encoders(pair, 2), pair, "inner_product", weights).item()
    assert closed == pytest.approx(minimise(function, (2, N), (2, M)), abs=1e-8)


@pytest.mark.parametrize("tilting", TILTINGS)
@pytest.mark.parametrize("loss", LOSSES)
def test_further_dimensions_help_until_full_rank_and_are_zero_beyond(loss, tilting):
    pair = random_pair(N, M)
    encoders = [optimal_encoders(pair, rank, loss, tilting) for rank in range(1, 6)]
    values = [population_divergence(*e, pair, loss, tilting).item() for e in encoders]
    assert values[0] > values[1] > values[2]
    assert values[2] == pytest.approx(values[4], abs=1e-12)
    for rank, (g, h) in enumerate(encoders, 1):
        assert (g.shape, h.shape) == ((rank, N), (rank, M))
        assert g.dtype == h.dtype == torch.float64
        assert not g[3:].any()
        assert not h[3:].any()
        torch.testing.assert_close(g[:3], encoders[2][0][:rank])
    torch.testing.assert_close(encoders[4][0].T @ encoders[4][1], encoders[2][0].T @ encoders[2][1])


def test_the_conditional_inner_product_optimum_of_full_rank_has_the_exact_means():
    pair = random_pair(N, M)
    g, h = (AffineMap(e, torch.zeros(3).double()) for e in optimal_encoders(pair, 3))
    for first, second, prior, direction in ((g, h, pair.c_uu, "u_given_v"), (h, g, pair.c_vv, "v_given_u")):
        mean, covariance = model_conditional(first, second, prior, "inner_product")
        torch.testing.assert_close(mean.matrix, pair.conditional(direction)[0].matrix, rtol=1e-10, atol=1e-12)
        torch.testing.assert_close(covariance, prior)


def test_the_joint_optimum_matches_what_the_paper_says_of_two_dimensions():
    pair = GaussianPair(*(torch.full((1, 1), c, dtype=torch.float64) for c in (1.5, 1.0, 1.5)))
    sigma = 2 / 3
    products = {
        ("conditional", "inner_product"): sigma,
        ("joint", "inner_product"): (math.sqrt(1 + 4 * sigma**2) - 1) / (2 * sigma),
        ("conditional", "squared_distance"): (1 + math.sqrt(1 + 8 / 3)) / (4 / 3) - 1,
        ("joint", "squared_distance"): 1.0,
    }
    for (loss, tilting), expected in products.items():
        g, h = optimal_encoders(pair, 1, loss, tilting)
        assert (1.5 * g.T @ h).item() == pytest.approx(expected, rel=1e-12)
        assert abs(g.item()) == pytest.approx(abs(h.item()), rel=1e-12)


def test_independent_modalities_have_nothing_to_encode():
    pair = GaussianPair(torch.eye(3), torch.zeros(3, 2), torch.eye(2))
    for loss in LOSSES:
        for tilting in TILTINGS:
            assert not any(encoder.any() for encoder in optimal_encoders(pair, 2, loss, tilting))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0,), "embedding_dim 0: at least 1"),
        ((2, "conditional", "cosine"), "no closed form for the 'conditional' loss with the 'cosine' tilting"),
        ((2, "mmd"), "no closed form for the 'mmd' loss"),
    ],
)
def test_what_has_no_closed_form_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        optimal_encoders(random_pair(2, 2), *arguments)


@pytest.mark.parametrize("tilting", TILTINGS)
def test_model_conditionals_are_those_of_quadrature(tilting):
    """In one dimension of u the tilted density is integrated on a grid, offsets included."""
    generator = torch.Generator().manual_seed(0)
    g, g_0, h, h_0 = (0.7 * torch.randn(s, generator=generator, dtype=torch.float64) for s in ((2, 1), 2, (2, 3), 2))
    mean, covariance = model_conditional(
        AffineMap(g, g_0), AffineMap(h, h_0), torch.tensor([[1.3]], dtype=torch.float64), tilting
    )
    u = np.linspace(-15, 15, 20_001)
    for v in torch.randn(5, 3, generator=generator, dtype=torch.float64):
        z_u, z_v = u[:, None] * g[:, 0].numpy() + g_0.numpy(), (h @ v + h_0).numpy()
        score = z_u @ z_v if tilting == "inner_product" else -((z_u - z_v) ** 2).sum(1) / 2
        density = np.exp(score - u**2 / (2 * 1.3))
        density /= density.sum()
        assert mean(v[None]).item() == pytest.approx(density @ u, rel=1e-9, abs=1e-9)
        assert covariance.item() == pytest.approx(density @ (u - density @ u) ** 2, rel=1e-9)


def test_the_cosine_tilting_has_no_gaussian_conditional():
    one = AffineMap(torch.eye(1).double(), torch.zeros(1).double())
    with pytest.raises(ValueError, match="'cosine' tilting"):
        model_conditional(one, one, torch.eye(1).double(), "cosine")


def relative_errors(pair, rank, truth):
    """Return the relative errors of both conditional means of the optimum for a law, under the truth."""
    g, h = (AffineMap(e, torch.zeros(rank).double()) for e in optimal_encoders(pair, rank))
    sides = (((g, h), pair.c_uu), ((h, g), pair.c_vv))
    means = [model_conditional(*maps, prior, "inner_product")[0] for maps, prior in sides]
    return [relative_error(mean, truth, direction) for mean, direction in zip(means, DIRECTIONS, strict=True)]


def test_the_table_of_theory_by_rank():
    law = GaussianProcessPair().law()
    u_root, v_root = (np.linalg.cholesky(c.numpy()) for c in (law.c_uu, law.c_vv))
    left, sigma, right = np.linalg.svd(np.linalg.solve(u_root, law.c_uv.numpy()) @ np.linalg.inv(v_root).T)
    shares = [(root @ vectors) ** 2 for root, vectors in ((u_root, left[:, :5]), (v_root, right.T))]
    power = np.array([share.sum(0) * sigma**2 for share in shares])  # of E[u|v] and E[v|u], by canonical pair
    for rank, measured in enumerate(THEORY_62, 1):
        errors = relative_errors(law, rank, law)
        assert errors == pytest.approx(power[:, rank:].sum(1) / power.sum(1), rel=1e-8)
        assert errors == pytest.approx(measured, rel=0.025)
    assert relative_errors(law, 5, law) == pytest.approx((0, 0), abs=1e-12)


@pytest.mark.parametrize(
    ("num_pairs", "measured"), [(2_000, (0.0037, 0.0088)), (10_000, (0.0003, 0.0011)), (100_000, (3e-5, 1.4e-4))]
)
def test_the_table_of_theory_for_the_plug_in_estimator(num_pairs, measured):
    law = GaussianProcessPair().law()
    samples = [law.sample(num_pairs, torch.Generator().manual_seed(seed)) for seed in range(5)]
    errors = [relative_errors(plug_in(*pairs), 5, law) for pairs in samples]
    ratio = np.exp(np.log(errors).mean(0)) / measured
    assert ((ratio > 1 / 4) & (ratio < 4)).all()
