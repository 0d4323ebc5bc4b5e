"""The population losses against the textbook, quadrature of the contrastive losses, and what theory says of them."""

import math

import numpy as np
import pytest
import torch
from gaussian.naive import TILTINGS, population_divergence, random_encoders, random_pair
from hypothesis import given, settings
from hypothesis import strategies as st

from pcl.gaussian import GaussianPair, model_joint, optimal_encoders, population_loss

WEIGHTS = [(1, 1), (2, 0), (0, 2), (0.5, 1.5), (1.9, 0.1)]
CASES = [("joint", tilting, (1, 1)) for tilting in TILTINGS] + [
    ("conditional", tilting, weights) for tilting in TILTINGS for weights in WEIGHTS
]


@pytest.mark.parametrize(("loss", "tilting", "weights"), CASES)
@pytest.mark.parametrize(("n", "m", "rank"), [(4, 3, 2), (2, 5, 3), (1, 1, 1)])
def test_the_population_loss_is_that_of_the_textbook(loss, tilting, weights, n, m, rank):
    pair = random_pair(n, m)
    encoders = random_encoders(pair, rank)
    found = population_loss(pair, *encoders, loss, tilting, weights)
    expected = population_divergence(*encoders, pair, loss, tilting, weights)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("loss", "tilting", "weights"), CASES)
def test_the_population_loss_is_the_contrastive_loss_and_a_constant_of_the_data(loss, tilting, weights):
    """The expectations of the training loss, in one dimension, on a grid."""
    pair = GaussianPair(*(torch.full((1, 1), c, dtype=torch.float64) for c in (1.5, 0.6, 0.8)))
    g, h = torch.tensor([[0.5], [-0.2]], dtype=torch.float64), torch.tensor([[0.7], [0.3]], dtype=torch.float64)
    u, v = np.linspace(-14, 14, 801)[:, None], np.linspace(-11, 11, 801)[None]
    precision = np.linalg.inv(pair.covariance.numpy())
    law = np.exp(-(precision[0, 0] * u**2 + 2 * precision[0, 1] * u * v + precision[1, 1] * v**2) / 2)
    law, marginal_u, marginal_v = law / law.sum(), np.exp(-(u**2) / 3), np.exp(-(v**2) / 1.6)
    marginal_u, marginal_v = marginal_u / marginal_u.sum(), marginal_v / marginal_v.sum()
    scores = sum(a * u * b * v for a, b in zip(g[:, 0].tolist(), h[:, 0].tolist(), strict=True))
    if tilting == "squared_distance":
        scores = scores - (g.square().sum().item() * u**2 + h.square().sum().item() * v**2) / 2
    tilted = np.exp(scores)
    if loss == "joint":
        normaliser, share = np.log((tilted * marginal_u * marginal_v).sum()), 1.0
    else:
        normaliser = weights[0] / 2 * np.log((tilted * marginal_u).sum(0, keepdims=True))
        normaliser = normaliser + weights[1] / 2 * np.log((tilted * marginal_v).sum(1, keepdims=True))
        share = sum(weights) / 2
    contrastive = (law * (normaliser - share * scores)).sum()
    found = population_loss(pair, g, h, loss, tilting, weights).item()
    assert found == pytest.approx(contrastive + share * pair.mutual_information(), abs=1e-9)


@given(st.integers(1, 4), st.integers(1, 4), st.integers(1, 4), st.sampled_from(TILTINGS), st.integers(0, 2**32 - 1))
@settings(deadline=None, max_examples=40)
def test_the_joint_loss_exceeds_the_conditional_one_by_the_error_of_the_marginals(n, m, rank, tilting, seed):
    """Both losses of one tilting carry the same constant, so their order (Theorem 3.10) is that of the divergences."""
    pair = random_pair(n, m, seed)
    g, h = random_encoders(pair, rank, seed, size=0.95)
    model = model_joint(pair, g, h, tilting)
    joint = population_loss(pair, g, h, "joint", tilting).item()
    excess = []
    for weights, given_, truth in (((2, 0), model.c_vv, pair.c_vv), ((0, 2), model.c_uu, pair.c_uu)):
        ratio = np.linalg.eigvals(np.linalg.solve(given_.numpy(), truth.numpy())).real
        excess.append((ratio - 1 - np.log(ratio)).sum() / 2)
        one_sided = population_loss(pair, g, h, "conditional", tilting, weights).item()
        assert joint - one_sided == pytest.approx(excess[-1], rel=1e-9, abs=1e-11)  # the chain rule
    conditional = population_loss(pair, g, h, "conditional", tilting).item()
    assert 0 <= conditional <= joint + 1e-12
    assert joint - conditional == pytest.approx(sum(excess) / 2, rel=1e-9, abs=1e-11)


def test_the_conditional_loss_never_exceeds_the_joint_one_even_where_that_is_infinite():
    pair = random_pair(3, 2)
    g, h = random_encoders(pair, 2, size=1.5)
    assert math.isfinite(population_loss(pair, g, h))
    assert population_loss(pair, g, h, "joint").item() == math.inf
    assert math.isfinite(population_loss(pair, g, h, "joint", "squared_distance"))


def test_the_joint_loss_grows_without_bound_towards_the_improper_models():
    pair = GaussianPair(torch.eye(1), 0.5 * torch.eye(1), torch.eye(1))
    sizes = [1 - 10.0**-exponent for exponent in range(1, 15)]
    one = torch.eye(1, dtype=torch.float64)
    values = [population_loss(pair, size * one, one, "joint").item() for size in sizes]
    assert (np.diff(values) > 1).all()
    assert population_loss(pair, torch.eye(1), torch.eye(1), "joint").item() == math.inf


@given(st.sampled_from(CASES), st.integers(1, 4), st.integers(0, 2**32 - 1))
@settings(deadline=None, max_examples=40)
def test_a_change_of_basis_of_the_embedding_changes_nothing(case, rank, seed):
    """Any invertible one for inner products, an orthogonal one for squared distances."""
    loss, tilting, weights = case
    pair = random_pair(3, 2, seed)
    g, h = random_encoders(pair, rank, seed)
    generator = torch.Generator().manual_seed(seed)
    basis, _ = torch.linalg.qr(torch.randn(rank, rank, generator=generator, dtype=torch.float64))
    dual = basis
    if tilting == "inner_product":
        scale = torch.logspace(-1, 1, rank, dtype=torch.float64)[:, None]
        basis, dual = scale * basis, dual / scale
    found = population_loss(pair, basis @ g, dual @ h, loss, tilting, weights).item()
    assert found == pytest.approx(population_loss(pair, g, h, loss, tilting, weights).item(), rel=1e-11, abs=1e-12)


@pytest.mark.parametrize(("loss", "tilting", "weights"), CASES)
def test_gradients_are_those_of_differences(loss, tilting, weights):
    pair = random_pair(3, 2)
    encoders = [e.requires_grad_() for e in random_encoders(pair, 2)]
    assert torch.autograd.gradcheck(lambda g, h: population_loss(pair, g, h, loss, tilting, weights), encoders)


def test_strongly_correlated_pairs_lose_no_digits():
    """Near correlation 1 the one-sided optimum is still perfect, though it holds terms of size 1 / (1 - sigma)."""
    for exponent in (3, 6, 9):
        pair = GaussianPair(torch.eye(1), (1 - 10.0**-exponent) * torch.eye(1).double(), torch.eye(1))
        encoders = optimal_encoders(pair, 1, "conditional", "squared_distance", (2, 0))
        value = population_loss(pair, *encoders, "conditional", "squared_distance", (2, 0)).item()
        assert abs(value) < 1e-15 * 10**exponent


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"loss": "conditional_mmd"},
            "loss 'conditional_mmd' has no closed form here; choose one of conditional, joint",
        ),
        ({"tilting": "cosine"}, "tilting 'cosine' has no closed form here; choose one of inner_product, squared"),
        ({"weights": (1, -1)}, r"loss weights \(1.0, -1.0\): two finite numbers are needed, both >= 0 and one > 0"),
        ({"weights": (0, 0)}, r"loss weights \(0.0, 0.0\)"),
        ({"weights": (math.nan, 1)}, r"loss weights \(nan, 1.0\)"),
        ({"weights": (math.inf, 1)}, r"loss weights \(inf, 1.0\)"),
        ({"weights": (1, 1, 1)}, r"loss weights \(1.0, 1.0, 1.0\)"),
        ({"g": torch.zeros(2, 3)}, r"encoders of shapes \(2, 3\) and \(2, 2\): \(E, 4\) and \(E, 2\) are needed"),
        ({"g": torch.zeros(1, 4)}, r"encoders of shapes \(1, 4\) and \(2, 2\).*E the same"),
        ({"h": torch.zeros(2)}, r"encoders of shapes \(2, 4\) and \(2,\)"),
        ({"h": torch.full((2, 2), torch.nan)}, "an encoder holds values that are not finite"),
    ],
)
def test_what_is_no_population_loss_is_refused(options, message):
    arguments = {"g": torch.zeros(2, 4), "h": torch.zeros(2, 2)} | options
    with pytest.raises(ValueError, match=message):
        population_loss(random_pair(4, 2), **arguments)
