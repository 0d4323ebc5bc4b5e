"""The gap to the theory: none at the closed form, offsets as by Monte Carlo, and no answer where there is none."""

import numpy as np
import pytest
import torch
from torch import nn

from pcl.encoders.build import build_model
from pcl.gaussian import DIRECTIONS, GaussianPair, GaussianProcessPair, optimal_encoders, relative_error
from pcl.gaussian.reading import affine_map
from pcl.model import PairModel
from pcl.problems.gaussian_process.theory_gap import (
    closed_form_means,
    learned_means,
    pair_means,
    reference_errors,
)
from pcl.tilting import Temperature

TILTINGS = ("inner_product", "squared_distance", "potentials")


def weak_pair():
    """Return a pair with canonical correlations of .4 and .2, whose reference sets keep many effective members."""
    c_uu = torch.tensor([[1.0, 0.3, 0.0], [0.3, 1.5, 0.2], [0.0, 0.2, 0.8]], dtype=torch.float64)
    c_vv = torch.tensor([[0.7, -0.2], [-0.2, 1.1]], dtype=torch.float64)
    correlation = torch.tensor([[0.4, 0.0], [0.0, 0.2], [0.0, 0.0]], dtype=torch.float64)
    roots = [torch.linalg.cholesky(c) for c in (c_uu, c_vv)]
    return GaussianPair(c_uu, roots[0] @ correlation @ roots[1].T, c_vv)


def linear_model(g, h, *potentials, tilting="inner_product", temperature=1.0, standardise=None, dtype="float64"):
    """Return a model whose embeddings, over the root of the temperature, are G x and H y of the standardised data."""
    mean, std = (standardise or {}).get("mean", 0.0), (standardise or {}).get("std", 1.0)
    encoders = {
        f"encoder_{name}": {"kind": "linear", "shape": [matrix.shape[1]], "mean": mean, "std": std}
        for name, matrix in (("u", g), ("v", h))
    }
    tau = {"initial": temperature, "learned": True, "minimum": 0.01, "maximum": 100.0}
    model = build_model(encoders | {"embedding_dim": len(g), "tilting": tilting, "temperature": tau, "dtype": dtype})
    networks = model.encoder_u[1], model.encoder_v[1]
    maps = [network.map for network in networks] + [network.potential.map for network in networks if potentials]
    with torch.no_grad():
        for linear, matrix in zip(maps, (g, h, *potentials), strict=True):
            linear.weight.copy_(matrix * std * temperature**0.5)
    return model.requires_grad_(False)


def errors(means, law):
    return [relative_error(means[direction], law, direction) for direction in DIRECTIONS]


@pytest.mark.parametrize("temperature", [1.0, 0.07])
def test_encoders_at_the_closed_form_of_full_rank_have_no_error(temperature):
    for law in (weak_pair(), GaussianProcessPair().law()):
        g, h = optimal_encoders(law, len(law.c_vv))
        model = linear_model(g, h, temperature=temperature, standardise={"std": 3.0})
        assert errors(learned_means(model, law), law) == pytest.approx((0, 0), abs=1e-20)


@pytest.mark.parametrize("tilting", TILTINGS)
@pytest.mark.parametrize("loss", ["conditional", "joint"])
@pytest.mark.parametrize("rank", [1, 2])
def test_encoders_at_the_closed_form_of_any_loss_have_its_means(loss, tilting, rank):
    law = weak_pair()
    model = linear_model(*optimal_encoders(law, rank, loss, tilting), tilting=tilting, temperature=0.3)
    found, expected = learned_means(model, law), closed_form_means(law, rank, loss, tilting)
    for direction in DIRECTIONS:
        np.testing.assert_allclose(found[direction].matrix, expected[direction].matrix, rtol=1e-10, atol=1e-12)
        assert not found[direction].offset.any()
    exact = rank == 2 and (tilting == "potentials" or (loss, tilting) == ("conditional", "inner_product"))
    assert (max(errors(found, law)) < 1e-12) == exact


@pytest.mark.parametrize("weights", [(1, 1), (0.5, 1.5), (2, 0)])
@pytest.mark.parametrize("tilting", TILTINGS)
def test_dimensions_beyond_the_canonical_pairs_change_no_means(tilting, weights):
    law = weak_pair()
    full, more, less = (closed_form_means(law, dim, "conditional", tilting, weights) for dim in (2, 7, 1))
    for direction in DIRECTIONS:
        assert torch.equal(full[direction].matrix, more[direction].matrix)
        assert not torch.allclose(full[direction].matrix, less[direction].matrix)


@pytest.mark.parametrize("tilting", TILTINGS)
def test_offsets_of_standardisation_move_the_means_as_in_a_large_reference_set(tilting):
    law = weak_pair()
    model = linear_model(
        *optimal_encoders(law, 2, tilting=tilting),
        tilting=tilting,
        temperature=0.5,
        standardise={"mean": 0.6, "std": 2.0},
    )
    means = learned_means(model, law)
    references = dict(zip(DIRECTIONS, law.sample(400_000, torch.Generator().manual_seed(0)), strict=True))
    queries_u, queries_v = law.sample(5, torch.Generator().manual_seed(1))
    for direction, queries, features in (
        ("u_given_v", queries_v, model.features_v(queries_v)),
        ("v_given_u", queries_u, model.features_u(queries_u)),
    ):
        conditional = model.conditional(direction, references[direction])
        expected = conditional.mean(features, references[direction])
        std = conditional.variance(features, references[direction]).sqrt()
        sizes = conditional.effective_sample_size(features)
        assert sizes.min() > 50_000
        assert ((means[direction](queries) - expected).abs() < 5 * std / sizes.sqrt()[:, None]).all()
        assert means[direction].offset.abs().max() > 0.02  # what the comparison would see


def test_single_precision_models_are_measured_in_double_precision_and_left_as_they_are():
    law = weak_pair()
    model = linear_model(*optimal_encoders(law, 2), dtype="float32")
    assert max(errors(learned_means(model, law), law)) < 1e-12
    assert {value.dtype for value in model.state_dict().values()} == {torch.float32}


def test_a_trainable_model_is_measured_without_a_gradient():
    law = weak_pair()
    model = linear_model(*optimal_encoders(law, 2)).requires_grad_(True)
    assert errors(learned_means(model, law), law) == pytest.approx((0, 0), abs=1e-20)
    pairs = law.sample(50, torch.Generator().manual_seed(0))
    assert all(error > 0 for error in reference_errors(model, law, *pairs, *pairs).values())


def test_the_means_of_a_law_are_its_conditional_means():
    law = weak_pair()
    assert errors(pair_means(law), law) == [0, 0]


def test_what_is_not_affine_or_not_gaussian_has_no_closed_form():
    law, temperature = weak_pair(), Temperature(1.0, learned=False, minimum=0.1, maximum=10.0)
    linear_u, linear_v = nn.Linear(3, 2), nn.Linear(2, 2)
    assert learned_means(PairModel(linear_u, linear_v, "inner_product", temperature), law) is not None
    bent = nn.Sequential(linear_u, nn.Tanh())
    assert learned_means(PairModel(bent, linear_v, "inner_product", temperature), law) is None
    assert learned_means(PairModel(linear_u, nn.Sequential(linear_v, nn.ReLU()), TILTINGS[1], temperature), law) is None
    assert learned_means(PairModel(linear_u, linear_v, "cosine", temperature), law) is None


@pytest.mark.parametrize("bend", [torch.sin, torch.relu, torch.square, lambda x: x + 1e-3 * x[:, :1] * x])
def test_an_affine_map_is_read_off_and_a_bent_one_is_not(bend):
    generator = torch.Generator().manual_seed(0)
    matrix, offset = (torch.randn(s, generator=generator, dtype=torch.float64) for s in ((4, 3), (4,)))
    found = affine_map(lambda x: x @ matrix.T + offset, 3)
    torch.testing.assert_close(found.matrix, matrix)
    torch.testing.assert_close(found.offset, offset)
    assert affine_map(lambda x: bend(x @ matrix.T + offset), 3) is None


@pytest.mark.parametrize("tilting", ["cosine", *TILTINGS])
def test_reference_errors_are_those_of_loops(tilting):
    law = weak_pair()
    generator = torch.Generator().manual_seed(0)
    u, v = law.sample(40, generator)
    queries_u, queries_v = law.sample(7, generator)
    g, h, *potentials = (torch.randn(2, n, generator=generator, dtype=torch.float64) for n in (3, 2, 3, 2))
    potentials = potentials if tilting == "potentials" else []
    model = linear_model(g, h, *potentials, tilting=tilting, temperature=0.8)
    found = reference_errors(model, law, u, v, queries_u, queries_v)
    for direction, references, queries, score in (
        ("u_given_v", u, queries_v, lambda x, y: model.log_tilting(x[None], y[None])),
        ("v_given_u", v, queries_u, lambda x, y: model.log_tilting(y[None], x[None])),
    ):
        matrix = law.conditional(direction)[0].matrix.numpy()
        squares = np.zeros(2)
        for y in queries:
            weights = np.array([np.exp(score(x, y).item()) for x in references])
            mean, truth = weights @ references.numpy() / weights.sum(), matrix @ y.numpy()
            squares += ((mean - truth) ** 2).sum(), (truth**2).sum()
        assert found[direction] == pytest.approx(squares[0] / squares[1], rel=1e-10)


def test_reference_errors_of_the_closed_form_vanish_with_the_size_of_the_set():
    law = weak_pair()
    model = linear_model(*optimal_encoders(law, 2), dtype="float32")
    queries = [part.float() for part in law.sample(300, torch.Generator().manual_seed(9))]
    found = []
    for num_references in (300, 30_000):
        references = [part.float() for part in law.sample(num_references, torch.Generator().manual_seed(8))]
        found.append(list(reference_errors(model, law, *references, *queries).values()))
    assert (np.array(found[1]) < np.array(found[0]) / 10).all()
    assert max(found[1]) < 0.01
