"""Direct minimisation: of functions whose minimum is known, behind walls, and from the best of several starts."""

import pytest
import torch
from gaussian.naive import random_pair

from pcl.gaussian import GaussianPair, ImproperModelError, minimise_encoders, optimal_encoders, population_loss


def test_a_quadratic_function_is_minimised_in_the_coordinates_of_the_data():
    pair = random_pair(4, 3)
    generator = torch.Generator().manual_seed(0)
    goal = [torch.randn(2, size, generator=generator, dtype=torch.float64) for size in (4, 3)]
    g, h, value = minimise_encoders(
        lambda g, h: 3 + (g - goal[0]).square().sum() + (h - goal[1]).square().sum(), pair, 2
    )
    torch.testing.assert_close((g, h), tuple(goal), rtol=1e-6, atol=1e-7)
    assert value == pytest.approx(3, abs=1e-12)
    assert not g.requires_grad


def test_badly_scaled_data_cost_no_accuracy():
    scale = torch.tensor([1e4, 1.0, 1e-4, 1.0, 1e-3], dtype=torch.float64)
    covariance = scale[:, None] * random_pair(3, 2).covariance * scale
    pair = GaussianPair(covariance[:3, :3], covariance[:3, 3:], covariance[3:, 3:])
    case = ("joint", "squared_distance")

    def function(g, h):
        return population_loss(pair, g, h, *case)

    found = minimise_encoders(function, pair, 2, num_starts=2, closed_form_start=False)[2]
    expected = population_loss(pair, *optimal_encoders(pair, 2, *case), *case).item()
    assert found == pytest.approx(expected, abs=1e-11)


@pytest.mark.parametrize("wall", ["infinite", "refused"])
def test_the_way_down_turns_back_from_walls(wall):
    """Without the wall at |G| = 1 the minimum would be at |G| = 3; close to it the function rises steeply."""
    pair = GaussianPair(torch.eye(1), 0.5 * torch.eye(1), torch.eye(1))
    hits = []

    def function(g, h):
        size = g.square().sum()
        if size.item() >= 1:
            hits.append(size.item())
            if wall == "refused":
                raise ImproperModelError
            return torch.tensor(torch.inf)
        return (size - 9).square() - 1e-3 * torch.log1p(-size) + h.square().sum()

    value = minimise_encoders(function, pair, 1, num_starts=3, closed_form_start=False)[2]
    roots = torch.linspace(0.9999, 1, 1_000_001, dtype=torch.float64)[:-1]
    expected = ((roots - 9).square() - 1e-3 * torch.log1p(-roots)).min().item()
    assert value == pytest.approx(expected, abs=1e-8)
    assert hits


def test_the_best_of_the_starts_is_returned_and_a_seed_repeats_it():
    """Two minima, at G = -2 (value 0) and at G = +2 (value 1): one start may end in either."""
    pair = GaussianPair(torch.eye(1), 0.5 * torch.eye(1), torch.eye(1))

    def function(g, h):
        return ((g.square() - 4).square() + (g + 2).tanh().square() + h.square()).sum()

    found = [minimise_encoders(function, pair, 1, 1, seed, closed_form_start=False) for seed in range(8)]
    assert {round(g.item()) for g, _, _ in found} == {-2, 2}
    g, _, value = minimise_encoders(function, pair, 1, num_starts=8)
    assert g.item() == pytest.approx(-2, abs=1e-6)
    assert value == pytest.approx(0, abs=1e-12)
    assert torch.equal(g, minimise_encoders(function, pair, 1, num_starts=8)[0])


def test_the_closed_form_is_a_start():
    pair = random_pair(3, 2)
    starts = []

    def function(g, h):
        starts.append((g.detach(), h.detach()))
        return population_loss(pair, g, h)

    minimise_encoders(function, pair, 2, num_starts=1)
    torch.testing.assert_close(starts[0], optimal_encoders(pair, 2))


@pytest.mark.parametrize(
    ("function", "arguments", "message"),
    [
        (population_loss, (2, 0), "num_starts 0: at least 1 is needed"),
        (population_loss, (3,), "embedding_dim 3"),
        (lambda pair, g, h: g.sum() * torch.nan, (1,), "the function is nan at a start; it must be finite"),
    ],
)
def test_what_cannot_be_minimised_is_refused(function, arguments, message):
    pair = random_pair(3, 2)
    with pytest.raises(ValueError, match=message):
        minimise_encoders(lambda g, h: function(pair, g, h), pair, *arguments)
