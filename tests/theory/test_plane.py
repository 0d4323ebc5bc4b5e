"""Two numbers: densities against quadrature, and the strength of the cosine tilting against direct search."""

import math

import pytest
import torch

from pcl.gaussian import optimal_encoders
from pcl.theory.cells import Cell
from pcl.theory.plane import (
    PLANE,
    best_cosine_strength,
    cosine_conditional,
    cosine_joint,
    normal_density,
    pair_density,
    planar_model,
    run_cosine,
)

GRID = torch.linspace(-9, 9, 2000, dtype=torch.float64)  # even: no point at 0
STEP = (GRID[1] - GRID[0]).item()


def test_densities_integrate_to_one_and_to_their_marginals():
    joint = pair_density(PLANE, GRID)
    assert joint.sum().item() * STEP**2 == pytest.approx(1, rel=1e-6)
    torch.testing.assert_close(joint.sum(1) * STEP, normal_density(GRID, 0, 1.5), atol=1e-9, rtol=0)
    tilted = cosine_joint(PLANE, 0.7, GRID)
    assert tilted.sum().item() * STEP**2 == pytest.approx(1, rel=1e-6)
    given = 1.0
    row = torch.argmin((GRID - given).abs())
    conditional = tilted[:, row] / (tilted[:, row].sum() * STEP)
    torch.testing.assert_close(conditional, cosine_conditional(PLANE, 0.7, GRID, given), atol=1e-6, rtol=0)


def test_the_best_cosine_strength_minimises_the_divergence():
    """By quadrature of KL(mu || nu), whatever the strength does to the marginals."""
    truth = pair_density(PLANE, GRID[::4])

    def divergence(strength):
        ratio = truth / cosine_joint(PLANE, strength, GRID[::4])
        return (truth * ratio.log()).sum().item() * (4 * STEP) ** 2

    best = best_cosine_strength(PLANE)
    assert divergence(best) < min(divergence(best - 0.02), divergence(best + 0.02))
    found = run_cosine(PLANE, Cell(tilting="cosine", embedding_dim=2, num_steps=1, learning_rate=1e-9, global_batch=4))
    assert found["best_loss"] == pytest.approx(divergence(best), rel=1e-3)
    assert found["learned_loss"] == pytest.approx(divergence(found["learned_strength"]), rel=1e-3)


def test_training_finds_the_strength():
    cell = Cell(
        tilting="cosine", embedding_dim=2, learned_temperature=True, num_steps=300, learning_rate=0.05, global_batch=256
    )
    assert run_cosine(PLANE, cell)["learned_strength"] == pytest.approx(best_cosine_strength(PLANE), abs=0.06)


@pytest.mark.parametrize(
    ("loss", "tilting", "weights", "mean", "variance", "marginal"),
    [
        ("conditional", "inner_product", (1.0, 1.0), 2 / 3, 1.5, 1.5 / (1 - 4 / 9)),  # Corollaries 5.2 and 5.7
        ("conditional", "squared_distance", (2.0, 0.0), 2 / 3, 1.5 * (1 - 4 / 9), 1.5),  # Corollary 5.4
        ("joint", "inner_product", (1.0, 1.0), 0.5, 1.5, 1.5 / (1 - 0.25)),  # h(2/3) = 1/2
    ],
)
def test_the_models_of_the_best_encoders_are_those_of_the_paper(loss, tilting, weights, mean, variance, marginal):
    encoders = [part.tolist() for part in optimal_encoders(PLANE, 1, loss, tilting, weights)]
    model = planar_model(encoders, tilting)
    assert model.mean == pytest.approx(mean, rel=1e-9)
    assert model.variance == pytest.approx(variance, rel=1e-9)
    if loss != "conditional" or tilting == "inner_product":
        assert model.marginal_variance == pytest.approx(marginal, rel=1e-9)
    assert math.isfinite(model.marginal_variance)
