"""Closed-form encoders against direct minimisation of the population loss, and what theory says of them."""

import math
from itertools import combinations

import numpy as np
import pytest
import torch
from gaussian.naive import LOSSES, TILTINGS, population_divergence, random_pair

from pcl.gaussian import (
    DIRECTIONS,
    AffineMap,
    GaussianPair,
    GaussianProcessPair,
    minimise_encoders,
    model_conditional,
    optimal_encoders,
    plug_in,
    population_loss,
    relative_error,
)

N, M = 4, 3
UNEQUAL = [(2, 0), (0, 2), (0.5, 1.5), (1.9, 0.1)]
CASES = [(loss, tilting, (1, 1)) for loss in LOSSES for tilting in TILTINGS] + [
    ("conditional", tilting, weights) for tilting in TILTINGS for weights in UNEQUAL
]
TABLE_BY_RANK = [(0.172, 0.564), (0.045, 0.253), (0.0150, 0.1005), (0.0045, 0.0317)]
GRID = torch.cat([torch.logspace(-4, -1, 10).double(), torch.linspace(0.12, 0.98, 40).double()])


def scalar_pair(correlation):
    return GaussianPair(torch.eye(1), torch.as_tensor(correlation).double().reshape(1, 1), torch.eye(1))


def squares(pair, weights):
    """Return gamma^2 and eta^2 of every pair, the products of a white pair's encoders with themselves."""
    encoders = optimal_encoders(pair, len(pair.cross), "conditional", "squared_distance", weights)
    return [(e @ e.T).diagonal() for e in encoders]


@pytest.mark.parametrize("rank", [1, 2, 3])
@pytest.mark.parametrize(("loss", "tilting", "weights"), CASES)
def test_the_closed_form_is_the_minimum_of_the_population_loss(loss, tilting, weights, rank):
    for pair, num_starts in ((random_pair(N, M), 2), (random_pair(2, 5, seed=1), 1)):
        if rank > min(pair.cross.shape):
            continue

        def function(g, h, pair=pair):
            return population_loss(pair, g, h, loss, tilting, weights)

        closed = [e.requires_grad_() for e in optimal_encoders(pair, rank, loss, tilting, weights)]
        value = function(*closed)
        gradients = torch.autograd.grad(value, closed)
        assert max(gradient.norm().item() for gradient in gradients) < 1e-9
        direct = minimise_encoders(function, pair, rank, num_starts, closed_form_start=False)[2]
        assert value.item() == pytest.approx(direct, abs=1e-10)
        naive = population_divergence(*(e.detach() for e in closed), pair, loss, tilting, weights)
        assert value.item() == pytest.approx(naive.item(), abs=1e-12)


@pytest.mark.parametrize(("loss", "tilting", "weights"), CASES)
def test_the_first_canonical_pairs_are_the_ones_to_keep(loss, tilting, weights):
    """What a pair gains grows with its correlation, as a maximum of straight lines: convex and increasing."""
    gains = []
    for correlation in torch.linspace(0.01, 0.99, 25).double():
        pair, nothing = scalar_pair(correlation), torch.zeros(1, 1)
        worst = population_loss(pair, nothing, nothing, loss, tilting, weights)
        best = population_loss(pair, *optimal_encoders(pair, 1, loss, tilting, weights), loss, tilting, weights)
        gains.append((worst - best).item())
    assert gains[0] > 0
    assert (np.diff(gains) > 0).all()
    assert (np.diff(gains, 2) > 0).all()
    pair = random_pair(N, M)
    g, h = optimal_encoders(pair, M, loss, tilting, weights)
    for rank in (1, 2):
        values = {
            kept: population_loss(pair, g[list(kept)], h[list(kept)], loss, tilting, weights).item()
            for kept in combinations(range(M), rank)
        }
        assert min(values, key=values.get) == tuple(range(rank))


@pytest.mark.parametrize(("loss", "tilting", "weights"), CASES)
def test_further_dimensions_help_until_full_rank(loss, tilting, weights):
    pair = random_pair(N, M)
    encoders = [optimal_encoders(pair, rank, loss, tilting, weights) for rank in range(1, 4)]
    values = [population_loss(pair, *e, loss, tilting, weights).item() for e in encoders]
    assert values[0] > values[1] > values[2]
    for rank, (g, h) in enumerate(encoders, 1):
        assert (g.shape, h.shape) == ((rank, N), (rank, M))
        assert g.dtype == h.dtype == torch.float64
        torch.testing.assert_close(g, encoders[2][0][:rank])
        torch.testing.assert_close(h, encoders[2][1][:rank])


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_what_remains_at_the_optimum_is_known(rank):
    """One-sided squared distances lose the dropped pairs; the others part of the kept pairs, too."""
    pair = random_pair(N, M)
    sigma = pair.canonical_correlations()
    kept, information = sigma[:rank], -0.5 * torch.log1p(-sigma.square())
    half = ((1 + 4 * kept**2).sqrt() - 1) / (2 * kept)
    remaining = {
        ("conditional", "squared_distance", (2, 0)): torch.zeros(rank),
        ("conditional", "squared_distance", (0, 2)): torch.zeros(rank),
        ("conditional", "inner_product", (0.5, 1.5)): information[:rank] - kept**2 / 2,
        ("joint", "squared_distance", (1, 1)): (kept - kept.log1p()) / 2,
        ("joint", "inner_product", (1, 1)): information[:rank] - half * kept - torch.log1p(-(half**2)) / 2,
    }
    for case, expected in remaining.items():
        value = population_loss(pair, *optimal_encoders(pair, rank, *case), *case).item()
        assert value == pytest.approx((expected.sum() + information[rank:].sum()).item(), abs=1e-12)


@pytest.mark.parametrize("direction", [1, -1])
@pytest.mark.parametrize("sided", ["both", "one"])
def test_unequal_weights_are_continuous_with_what_has_a_closed_form(sided, direction):
    """Towards one side only where the lesser weight is small beside sigma^4: what fixes c / b is of that order."""
    sigma = GRID if sided == "both" else GRID[GRID > 0.09]
    pair = GaussianPair(torch.eye(len(sigma)), torch.diag(sigma.flip(0)), torch.eye(len(sigma)))
    limit = (1, 1) if sided == "both" else (2, 0)[::direction]
    expected, errors = squares(pair, limit), []
    for step in (1e-8, 1e-10):
        found = squares(pair, (limit[0] - step * direction, limit[1] + step * direction))
        errors.append(max(float((f / e - 1).abs().max()) for f, e in zip(found, expected, strict=True)))
    assert errors[0] < (1e-8 if sided == "both" else 1e-8 / sigma.min() ** 4)
    assert errors[1] == pytest.approx(errors[0] / 100, rel=0.05)


@pytest.mark.parametrize("weights", [(0.5, 1.5), (1.9, 0.1), (2 - 1e-6, 1e-6), (1 + 1e-9, 1 - 1e-9), (300, 1)])
def test_unequal_weights_solve_the_equations_of_every_canonical_pair(weights):
    """Both partial derivatives of the scalar problem vanish, relative to their terms, at every correlation."""
    sigma = torch.cat([GRID, 1 - 10.0 ** -torch.arange(3.0, 7).double()]).sort(descending=True).values
    pair = GaussianPair(torch.eye(len(sigma)), torch.diag(sigma), torch.eye(len(sigma)))
    b, c = squares(pair, weights)
    p, q = (weight / sum(weights) for weight in weights)
    assert (b.diff() < 0).all()
    assert (c.diff() < 0).all()
    reward = sigma * (b * c).sqrt()
    for p_, q_, b_, c_ in ((p, q, b, c), (q, p, c, b)):
        charge = p_ * (b_**2 / (1 + b_) + b_ * c_ / (1 + b_) ** 2) + q_ * b_ * c_ / (1 + c_)
        torch.testing.assert_close(charge, reward, rtol=1e-12, atol=0)
    torch.testing.assert_close(squares(pair, weights[::-1]), [c, b], rtol=1e-8, atol=0)
    torch.testing.assert_close(squares(pair, [3 * weight for weight in weights]), [b, c], rtol=1e-8, atol=0)


def test_weights_do_not_matter_to_the_inner_product_or_the_joint_loss():
    pair = random_pair(N, M)
    for case in (("conditional", "inner_product"), ("joint", "inner_product"), ("joint", "squared_distance")):
        expected = optimal_encoders(pair, 2, *case)
        for weights in UNEQUAL:
            assert all(map(torch.equal, optimal_encoders(pair, 2, *case, weights), expected))


def conditionals(pair, encoders, tilting):
    """Return the model's mean map and covariance, and the truth, of both directions."""
    g, h = (AffineMap(e, torch.zeros(len(e), dtype=torch.float64)) for e in encoders)
    models = (
        model_conditional(g, h, pair.c_uu, tilting),
        model_conditional(h, g, pair.c_vv, tilting),
    )
    return {d: (*model, *pair.conditional(d)) for d, model in zip(DIRECTIONS, models, strict=True)}


@pytest.mark.parametrize(("n", "m"), [(4, 3), (2, 5), (3, 3)])
def test_the_conditional_inner_product_optimum_of_full_rank_has_exact_means_and_prior_covariances(n, m):
    """Corollary 5.2."""
    pair = random_pair(n, m)
    found = conditionals(pair, optimal_encoders(pair, min(n, m)), "inner_product")
    for (mean, covariance, truth, _), prior in zip(found.values(), (pair.c_uu, pair.c_vv), strict=True):
        torch.testing.assert_close(mean.matrix, truth.matrix, rtol=1e-10, atol=1e-12)
        torch.testing.assert_close(covariance, prior, rtol=0, atol=0)


@pytest.mark.parametrize(("weights", "exact"), [((2, 0), "u_given_v"), ((0, 2), "v_given_u")])
@pytest.mark.parametrize(("n", "m"), [(4, 3), (2, 5), (3, 3)])
def test_the_one_sided_squared_distance_of_full_rank_is_exact_in_its_direction(n, m, weights, exact):
    """Corollary 5.4: mean and covariance; the other direction is not."""
    pair = random_pair(n, m)
    encoders = optimal_encoders(pair, min(n, m), "conditional", "squared_distance", weights)
    for direction, found in conditionals(pair, encoders, "squared_distance").items():
        mean, covariance, truth, truth_covariance = found
        assert torch.allclose(mean.matrix, truth.matrix, rtol=1e-9, atol=1e-11) == (direction == exact)
        assert torch.allclose(covariance, truth_covariance, rtol=1e-9, atol=1e-11) == (direction == exact)


@pytest.mark.parametrize(("n", "m"), [(4, 3), (2, 5)])
def test_the_one_sided_squared_distance_of_full_rank_is_that_of_the_paper(n, m):
    """Theorem 5.3: A = C_u|v^-1 C_uv C_vv^-1 and B = C_u|v^-1 - C_uu^-1."""
    pair = random_pair(n, m)
    g, h = optimal_encoders(pair, min(n, m), "conditional", "squared_distance", (2, 0))
    mean, covariance = pair.conditional("u_given_v")
    torch.testing.assert_close(g.T @ h, torch.linalg.solve(covariance, mean.matrix), rtol=1e-9, atol=1e-10)
    expected = torch.linalg.inv(covariance) - torch.linalg.inv(pair.c_uu)
    torch.testing.assert_close(g.T @ g, expected, rtol=1e-9, atol=1e-10)


def test_the_optimum_matches_what_the_paper_says_of_two_dimensions():
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


@pytest.mark.parametrize(("loss", "tilting", "weights"), CASES)
def test_independent_modalities_have_nothing_to_encode(loss, tilting, weights):
    pair = GaussianPair(torch.eye(3), torch.zeros(3, 2), torch.eye(2))
    encoders = optimal_encoders(pair, 2, loss, tilting, weights)
    assert population_loss(pair, *encoders, loss, tilting, weights).item() == pytest.approx(0, abs=1e-15)
    if 0 not in weights:  # a one-sided loss does not see the encoder that it conditions on
        assert max(encoder.abs().max() for encoder in encoders) < 1e-100


@pytest.mark.parametrize("weights", [(1, 1), (0.5, 1.5)])
def test_a_correlation_of_rounding_size_is_encoded_to_its_size(weights):
    """To first order in sigma, gamma^2 eta^2 = (2 sigma / 3)^2 at equal weights."""
    for sigma in torch.logspace(-18, -12, 19, dtype=torch.float64):
        g, h = optimal_encoders(scalar_pair(sigma), 1, "conditional", "squared_distance", weights)
        assert torch.isfinite(g * h).item()
        assert 0 < (g * h).item() < sigma
        if weights == (1, 1):
            assert (g * h).item() == pytest.approx(2 / 3 * sigma.item(), rel=1e-11)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0,), "embedding_dim 0: 4 components of u and 3 of v have 3 canonical pairs, so encoders have a rank from 1"),
        ((-1,), "embedding_dim -1"),
        ((4,), "embedding_dim 4: 4 components of u and 3 of v have 3 canonical pairs.*take the smaller number"),
        (
            (2, "conditional", "cosine"),
            "tilting 'cosine' has no closed form here; choose one of inner_product, squared",
        ),
        ((2, "joint_mmd"), "loss 'joint_mmd' has no closed form here; choose one of conditional, joint"),
        ((2, "conditional", "inner_product", (0, 0)), r"loss weights \(0.0, 0.0\): two finite numbers are needed"),
        ((2, "conditional", "squared_distance", (-1, 1)), r"loss weights \(-1.0, 1.0\)"),
        ((2, "conditional", "squared_distance", (1, math.nan)), r"loss weights \(1.0, nan\)"),
        ((2, "conditional", "squared_distance", (math.inf, 1)), r"loss weights \(inf, 1.0\)"),
        ((2, "conditional", "squared_distance", (1,)), r"loss weights \(1.0,\)"),
    ],
)
def test_what_has_no_optimum_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        optimal_encoders(random_pair(4, 3), *arguments)


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
    for rank, measured in enumerate(TABLE_BY_RANK, 1):
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
