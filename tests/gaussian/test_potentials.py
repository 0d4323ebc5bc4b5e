"""Potentials: the closed form of every loss and rank, what it leaves, and the other tiltings as cases of this one."""

import math

import numpy as np
import pytest
import torch
from gaussian.naive import TILTINGS, joint_precision, population_divergence, random_encoders, random_pair
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from pcl.encoders.build import build_model
from pcl.gaussian import (
    DIRECTIONS,
    AffineMap,
    minimise_encoders,
    model_conditional,
    model_conditionals,
    model_joint,
    optimal_encoders,
    population_loss,
    population_mmd,
)
from pcl.gaussian.reading import potential_root, read_encoders
from pcl.model import PairModel
from pcl.tilting import Temperature

pytestmark = pytest.mark.long

CASES = [("joint", (1, 1))] + [("conditional", w) for w in ((1, 1), (2, 0), (0, 2), (0.5, 1.5), (3, 0.2))]


def value(pair, encoders, loss, weights):
    g, h, *potentials = encoders
    return population_loss(pair, g, h, loss, "potentials", weights, potentials)


def dropped(pair, rank, loss, weights):
    """Return the mutual information of the canonical pairs that are left out, as a loss counts it."""
    sigma = np.linalg.svd(np.linalg.inv(pair.root_u) @ pair.c_uv.numpy() @ np.linalg.inv(pair.root_v).T)[1]
    factor = 1 if loss == "joint" else sum(weights) / 2
    return -0.5 * factor * np.log(1 - sigma[rank:] ** 2).sum()


@pytest.mark.parametrize(("loss", "weights"), CASES)
@pytest.mark.parametrize(("n", "m"), [(4, 3), (2, 5), (3, 3)])
def test_what_remains_is_the_mutual_information_of_the_dropped_pairs(loss, weights, n, m):
    pair = random_pair(n, m)
    for rank in range(1, min(n, m) + 1):
        g, h, *potentials = optimal_encoders(pair, rank, loss, "potentials", weights)
        found = population_loss(pair, g, h, loss, "potentials", weights, potentials).item()
        assert found == pytest.approx(dropped(pair, rank, loss, weights), abs=1e-12)
        naive = population_divergence(g, h, pair, loss, "potentials", weights, potentials).item()
        assert found == pytest.approx(naive, abs=1e-12)


@given(n=st.integers(1, 5), m=st.integers(1, 5), seed=st.integers(0, 1000), case=st.sampled_from(CASES))
@settings(deadline=None, max_examples=40)
def test_the_closed_form_is_exact_for_any_pair(n, m, seed, case):
    pair = random_pair(n, m, seed)
    for rank in range(1, min(n, m) + 1):
        found = value(pair, optimal_encoders(pair, rank, case[0], "potentials", case[1]), *case).item()
        assert found == pytest.approx(dropped(pair, rank, *case), rel=1e-9, abs=1e-11)


@pytest.mark.parametrize("rank", [1, 2, 3])
@pytest.mark.parametrize(("loss", "weights"), CASES)
def test_descent_finds_nothing_below_the_closed_form(loss, weights, rank):
    """Not even with potentials of full rank, of which those of the rank of the encoders are cases."""
    pair = random_pair(4, 3)
    closed = [part.requires_grad_() for part in optimal_encoders(pair, rank, loss, "potentials", weights)]
    best = value(pair, closed, loss, weights)
    gradients = torch.autograd.grad(best, closed)
    assert max(gradient.norm().item() for gradient in gradients) < 1e-9
    *_, found = minimise_encoders(
        lambda *encoders: value(pair, encoders, loss, weights),
        pair,
        rank,
        num_starts=1,
        closed_form_start=False,
        potential_dim=4,
    )
    assert -1e-7 < best.item() - found < 1e-10  # flat directions: the descent may stop a little above


@pytest.mark.parametrize(("loss", "weights"), CASES)
@pytest.mark.parametrize(("n", "m"), [(4, 3), (2, 5), (3, 3)])
def test_at_full_rank_every_conditional_that_a_loss_sees_is_exact(loss, weights, n, m):
    pair = random_pair(n, m)
    encoders = optimal_encoders(pair, min(n, m), loss, "potentials", weights)
    found = model_conditionals(pair, [AffineMap.linear(part) for part in encoders], "potentials")
    for direction, weight in zip(DIRECTIONS, (1, 1) if loss == "joint" else weights, strict=True):
        (mean, covariance), (truth, truth_covariance) = found[direction], pair.conditional(direction)
        assert torch.allclose(mean.matrix, truth.matrix, rtol=1e-9, atol=1e-11) == (weight > 0)
        assert torch.allclose(covariance, truth_covariance, rtol=1e-9, atol=1e-11) == (weight > 0)
    if 0 not in weights:
        g, h, *potentials = encoders
        joint = model_joint(pair, g, h, "potentials", potentials)
        torch.testing.assert_close(joint.covariance, pair.covariance, rtol=1e-9, atol=1e-11)
        for kind in ("conditional_mmd", "joint_mmd"):
            assert abs(population_mmd(pair, g, h, kind, "potentials", potentials=potentials).item()) < 1e-13


@pytest.mark.parametrize(("weights", "unseen"), [((2, 0), 3), ((0, 2), 2)])
def test_the_potential_that_a_one_sided_loss_does_not_see_is_zero(weights, unseen):
    pair = random_pair(4, 3)
    encoders = list(optimal_encoders(pair, 2, "conditional", "potentials", weights))
    assert not encoders[unseen].any()
    assert encoders[5 - unseen].any()
    before = value(pair, encoders, "conditional", weights)
    encoders[unseen] = torch.ones_like(encoders[unseen])
    assert value(pair, encoders, "conditional", weights) == before


@pytest.mark.parametrize(("loss", "weights"), CASES)
def test_the_population_loss_is_that_of_the_textbook_and_of_the_tiltings_that_are_cases_of_it(loss, weights):
    pair = random_pair(4, 3)
    g, h = random_encoders(pair, 2)
    for rows in (1, 2, 5):
        potentials = random_encoders(pair, rows, seed=rows)
        found = population_loss(pair, g, h, loss, "potentials", weights, potentials)
        expected = population_divergence(g, h, pair, loss, "potentials", weights, potentials)
        torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    for tilting, potentials in (("inner_product", (g[:0], h[:0])), ("squared_distance", (g, h))):
        found = population_loss(pair, g, h, loss, "potentials", weights, potentials)
        torch.testing.assert_close(found, population_loss(pair, g, h, loss, tilting, weights), rtol=1e-12, atol=0)


def test_a_conditional_is_that_of_quadrature():
    """In one dimension of u the tilted density is integrated on a grid, offsets included."""
    generator = torch.Generator().manual_seed(0)
    sizes = (2, 1), 2, (2, 3), 2, (3, 1), 3
    g, g_0, h, h_0, q, q_0 = (0.7 * torch.randn(size, generator=generator, dtype=torch.float64) for size in sizes)
    mean, covariance = model_conditional(
        AffineMap(g, g_0),
        AffineMap(h, h_0),
        torch.tensor([[1.3]], dtype=torch.float64),
        "potentials",
        AffineMap(q, q_0),
    )
    u = np.linspace(-15, 15, 20_001)
    for v in torch.randn(5, 3, generator=generator, dtype=torch.float64):
        z_u, z_v = u[:, None] * g[:, 0].numpy() + g_0.numpy(), (h @ v + h_0).numpy()
        potential = -((u[:, None] * q[:, 0].numpy() + q_0.numpy()) ** 2).sum(1) / 2
        density = np.exp(z_u @ z_v + potential - u**2 / (2 * 1.3))
        density /= density.sum()
        assert mean(v[None]).item() == pytest.approx(density @ u, rel=1e-9, abs=1e-9)
        assert covariance.item() == pytest.approx(density @ (u - density @ u) ** 2, rel=1e-9)


def test_the_joint_model_has_the_conditionals_of_both_directions():
    pair = random_pair(4, 3)
    (g, h), (q, r) = random_encoders(pair, 2), random_encoders(pair, 3, seed=1)
    joint = model_joint(pair, g, h, "potentials", (q, r))
    precision = joint_precision(g, h, pair, "potentials", (q, r))
    torch.testing.assert_close(joint.covariance, torch.linalg.inv(precision), rtol=1e-9, atol=1e-11)
    found = model_conditionals(pair, [AffineMap.linear(part) for part in (g, h, q, r)], "potentials")
    for direction in DIRECTIONS:
        mean, covariance = joint.conditional(direction)
        torch.testing.assert_close(found[direction][0].matrix, mean.matrix, rtol=1e-9, atol=1e-11)
        torch.testing.assert_close(found[direction][1], covariance, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("tilting", TILTINGS)
def test_no_encoders_of_any_tilting_leave_less(tilting):
    """The bound of the module: with E numbers of v no conditional says more of u than those numbers do."""
    pair = random_pair(4, 3)
    for loss, weights in CASES:
        g, h, *potentials = optimal_encoders(pair, 2, loss, tilting, weights)
        found = population_loss(pair, g, h, loss, tilting, weights, potentials).item()
        assert found >= dropped(pair, 2, loss, weights) - 1e-12


def test_potentials_that_do_not_fit_are_refused():
    pair = random_pair(4, 3)
    g, h = random_encoders(pair, 2)
    for tilting, potentials in (("potentials", ()), ("potentials", (g,)), ("inner_product", (g, h))):
        with pytest.raises(ValueError, match=f"{len(potentials)} potentials for the tilting '{tilting}': give Q and R"):
            population_loss(pair, g, h, "conditional", tilting, potentials=potentials)
    with pytest.raises(ValueError, match=r"potentials of shapes \(2, 3\) and \(2, 4\): \(., 4\) and \(., 3\)"):
        population_loss(pair, g, h, "conditional", "potentials", potentials=(h, g))
    with pytest.raises(ValueError, match="a potential holds values that are not finite"):
        population_loss(pair, g, h, "conditional", "potentials", potentials=(math.nan * g, h))


def spec(kinds, tilting, **potential):
    encoders = {
        f"encoder_{name}": {"kind": kind, "shape": [size], "mean": 0.3, "std": 2.0} | potential
        for name, kind, size in zip("uv", kinds, (4, 3), strict=True)
    }
    tau = {"initial": 0.5, "learned": False, "minimum": 0.01, "maximum": 10.0}
    return encoders | {"embedding_dim": 3, "tilting": tilting, "temperature": tau, "dtype": "float64"}


@pytest.mark.parametrize("potential", ["learned", "zero"])
def test_the_matrices_of_a_model_are_read_off_its_values(potential):
    """The conditional of what was read is that of the model's own scores on a grid of u."""
    model = build_model(spec(("linear", "identity"), "potentials", potential=potential), seed=1)
    maps = read_encoders(model, (4, 3))
    assert [len(part.matrix) for part in maps] == ([3, 3, 3, 3] if potential == "learned" else [3, 3, 0, 0])
    x, v = torch.randn(2, 4, dtype=torch.float64), torch.randn(5, 3, dtype=torch.float64)
    g, h, q, r = maps
    squares = q(x).square().sum(1)[:, None] + r(v).square().sum(1)
    expected = g(x) @ h(v).T - squares / 2
    found = model.log_tilting(x, v).detach()
    constant = (found - expected)[0, 0]  # of a potential it changes nothing
    torch.testing.assert_close(found, expected + constant, rtol=1e-9, atol=1e-11)


def test_what_is_no_square_is_not_read():
    for bent in (torch.sin, lambda x: x, lambda x: x**2, lambda x: -(x**4)):
        assert potential_root(lambda x, bent=bent: bent(x).sum(1), 2) is None
    flat = potential_root(lambda x: torch.full((len(x),), 3.0, dtype=torch.float64), 2)
    assert flat.matrix.shape == (0, 2)
    tau = Temperature(1.0, learned=False, minimum=0.1, maximum=10.0)
    bent = nn.Sequential(nn.Linear(4, 3), nn.Tanh())
    assert read_encoders(PairModel(bent, nn.Linear(3, 3), "potentials", tau), (4, 3)) is None
    model = PairModel(nn.Linear(4, 3), nn.Linear(3, 3), "potentials", tau)
    assert read_encoders(model, (4, 3)) is None  # a linear potential
