"""Cells of the theory check: training comes near the closed form, and the comparison is what it says."""

from dataclasses import replace
from itertools import islice

import pytest
import torch

from pcl.gaussian import GaussianPair, optimal_encoders, population_loss
from pcl.theory import cells
from pcl.theory.cells import Cell, batches, fit_encoders, run_cell

pytestmark = pytest.mark.long

SMALL = Cell(embedding_dim=2, num_pairs=4000, global_batch=250, num_steps=200, learning_rate=0.05)


@pytest.fixture(scope="module")
def law():
    """Canonical correlations .6 and .3 in coordinates that are neither white nor of one scale."""
    mix_u, mix_v = torch.tensor([[2.0, 0.5], [0.0, 0.1]]).double(), torch.tensor([[1.0, 0.0], [3.0, 5.0]]).double()
    correlations = torch.diag(torch.tensor([0.6, 0.3])).double()
    return GaussianPair(mix_u @ mix_u.T, mix_u @ correlations @ mix_v.T, mix_v @ mix_v.T)


@pytest.mark.parametrize("tilting", ["inner_product", "squared_distance", "potentials"])
@pytest.mark.parametrize(
    ("loss", "weights"), [("conditional", (1.0, 1.0)), ("conditional", (2.0, 0.0)), ("joint", (1.0, 1.0))]
)
def test_training_comes_near_the_closed_form(law, loss, weights, tilting):
    result = run_cell(law, replace(SMALL, loss=loss, weights=weights, tilting=tilting))
    assert -1e-12 < result["plug_in_loss"] - result["best_loss"] < 0.005
    assert -1e-12 < result["learned_loss"] - result["best_loss"] < 0.02
    nothing = population_loss(law, *(torch.zeros(2, 2).double() for _ in range(2)), loss, weights=weights).item()
    assert nothing - result["best_loss"] > 0.05
    assert len(result["learned_encoders"]) == (4 if tilting == "potentials" else 2)


def test_a_cell_is_a_function_of_its_settings(law):
    cell = replace(SMALL, num_steps=5)
    assert run_cell(law, cell) == run_cell(law, cell)
    assert run_cell(law, cell) != run_cell(law, replace(cell, seed=1))


def test_the_closed_forms_of_a_cell_are_those_of_its_law(law):
    cell = replace(SMALL, num_steps=1, embedding_dim=6)  # more dimensions than canonical pairs
    result = run_cell(law, cell)
    expected = population_loss(law, *optimal_encoders(law, 2)).item()
    assert result["best_loss"] == pytest.approx(expected, rel=1e-12)
    assert result["best_error_u_given_v"] < 1e-20
    assert result["best_error_v_given_u"] < 1e-20


def test_an_epoch_has_every_pair_at_most_once():
    u, v = torch.arange(10.0), -torch.arange(10.0)
    epochs = list(islice(batches(u, v, 3, seed=0), 6))
    assert all(torch.equal(a, -b) for a, b in epochs)
    for epoch in (epochs[:3], epochs[3:]):
        assert len(torch.unique(torch.cat([a for a, _ in epoch]))) == 9
    assert not torch.equal(epochs[0][0], epochs[3][0])


def test_encoders_are_read_off_in_the_coordinates_of_the_data(law):
    u, v = law.sample(1000, torch.Generator().manual_seed(0))
    still = replace(SMALL, num_steps=1, learning_rate=1e-12)
    with_scale, without = (fit_encoders(replace(still, inputs=name), u, v) for name in ("standardised", "raw"))
    for scaled, plain, part in zip(with_scale, without, (u, v), strict=True):
        torch.testing.assert_close(scaled, plain / part.std(0), rtol=1e-5, atol=1e-7)


def test_a_batch_larger_than_the_sample_is_refused(law):
    with pytest.raises(ValueError, match="a batch of 250 of 100 pairs"):
        run_cell(law, replace(SMALL, num_pairs=100))


def test_an_improper_model_has_an_infinite_loss(law, monkeypatch):
    """Encoders so large that the tilted product has infinite mass."""
    large = tuple(100 * torch.eye(2, dtype=torch.float64) for _ in range(2))
    monkeypatch.setattr(cells, "fit_encoders", lambda *_: large)
    for loss in ("joint", "joint_mmd"):
        assert run_cell(law, replace(SMALL, loss=loss))["learned_loss"] == float("inf")


def test_white_inputs_are_undone_and_others_refused(law):
    """Training sees white samples; its encoders act on the data: nothing changes if the data are mixed."""
    u, v = law.sample(2000, torch.Generator().manual_seed(0))
    cell = replace(SMALL, inputs="white", num_pairs=2000, num_steps=100)
    mix = torch.tensor([[3.0, 0.0], [1.0, 0.2]], dtype=torch.float64)
    g, h = fit_encoders(cell, u, v)
    mixed_g, mixed_h = fit_encoders(cell, u @ mix.T, v)
    torch.testing.assert_close(mixed_g @ mix, g, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(mixed_h, h, rtol=1e-3, atol=1e-4)
    with pytest.raises(ValueError, match="inputs 'grey' are not known"):
        fit_encoders(replace(cell, inputs="grey"), u, v)
