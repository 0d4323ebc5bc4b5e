"""The logistic loss against cross entropy, SigLIP's of open_clip, autograd, and the density ratio that it must find."""

import math
from unittest.mock import patch

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import pcl
from pcl import scores
from pcl.benchmark.costs import load_clip_loss
from pcl.config.load import config_of
from pcl.encoders.build import build_model
from pcl.errors import BadInputError
from pcl.logistic import logistic_loss
from pcl.objective import make_loss
from pcl.scores import MODES, Atoms
from pcl.tilting import TILTINGS, feature_maps
from tests import reference
from tests.reference import value_and_gradients


def features(batch=7, dim=3, scale=1.0, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return tuple(scale * torch.randn(batch, dim, generator=generator, dtype=torch.float64) for _ in range(2))


def scalars():
    """Return a log temperature and a bias."""
    return torch.tensor(-0.3, dtype=torch.float64), torch.tensor(0.7, dtype=torch.float64)


@pytest.mark.parametrize("num_negatives", [0.0, 1.0, 7.5])
@pytest.mark.parametrize("tilting", ["cosine", "inner_product", "squared_distance"])
@pytest.mark.parametrize("batch", [2, 5])
def test_values_and_gradients_are_those_of_cross_entropy(tilting, batch, num_negatives):
    inputs = (*features(batch), *scalars())

    def theirs(u, v, log_temperature, bias):
        return reference.logistic(reference.scores(u, v, tilting, log_temperature.exp()), bias, num_negatives)

    expected = value_and_gradients(theirs, *inputs)
    for mode, tile in [("plain", 512), ("auto", 512), ("tiled", 512), ("tiled", 2), ("one_sided", 3)]:

        def ours(u, v, log_temperature, bias, mode=mode):
            options = {"bias": bias, "num_negatives": num_negatives, "mode": mode}
            return logistic_loss(*feature_maps(u, v, tilting), log_temperature.exp(), **options)[0]

        with patch.dict(scores.TILE_ROWS, cpu=tile):
            found = value_and_gradients(ours, *inputs)
        for part, truth in zip(found, expected, strict=True):
            torch.testing.assert_close(part, truth, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("mode", MODES)
def test_all_negatives_of_a_batch_make_the_loss_of_siglip(mode):
    u, v = features(33, 6)
    log_scale, bias = torch.tensor(2.0, dtype=torch.float64), torch.tensor(-3.0, dtype=torch.float64)

    def theirs(u, v, log_scale, bias):
        u, v = (part / part.norm(dim=1, keepdim=True) for part in (u, v))
        return load_clip_loss("SigLipLoss")()(u, v, log_scale.exp(), bias)

    def ours(u, v, log_scale, bias):
        given = {"bias": bias + math.log(32), "mode": mode}
        return logistic_loss(*feature_maps(u, v, "cosine"), (-log_scale).exp(), **given)[0]

    with patch.dict(scores.TILE_ROWS, cpu=10):
        found, expected = (value_and_gradients(f, u, v, log_scale, bias) for f in (ours, theirs))
    for part, truth in zip(found, expected, strict=True):
        torch.testing.assert_close(part, truth, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("mode", ["plain", "tiled"])
def test_autograd_checks_both_derivatives(mode):
    u, v, log_temperature, bias = (part.requires_grad_() for part in (*features(5), *scalars()))

    def loss(u, v, log_temperature, bias):
        return logistic_loss(u, v, log_temperature.exp(), bias=bias, num_negatives=2.0, mode=mode)[0]

    with patch.dict(scores.TILE_ROWS, cpu=3):
        assert torch.autograd.gradcheck(loss, (u, v, log_temperature, bias))
        assert torch.autograd.gradgradcheck(loss, (u, v, log_temperature, bias))


@given(
    batch=st.integers(2, 20),
    dim=st.integers(1, 5),
    scale=st.floats(0.01, 30),
    num_negatives=st.sampled_from([0.0, 0.5, 7.0]),
    tile=st.integers(1, 25),
    seed=st.integers(0, 2**32 - 1),
)
@settings(deadline=None)
def test_neither_the_order_of_the_pairs_nor_the_tile_changes_anything(batch, dim, scale, num_negatives, tile, seed):
    u, v = features(batch, dim, scale, seed)
    order = torch.randperm(batch, generator=torch.Generator().manual_seed(seed))

    def loss(u, v, bias):
        return logistic_loss(u, v, 0.5, bias=bias, num_negatives=num_negatives, mode="tiled")[0]

    bias = torch.tensor(0.3, dtype=torch.float64)
    value, *whole = value_and_gradients(loss, u, v, bias)
    with patch.dict(scores.TILE_ROWS, cpu=tile):
        other, *found = value_and_gradients(loss, u[order], v[order], bias)
    assert other.item() == pytest.approx(value.item(), rel=1e-12)
    for part, truth in zip(found, (whole[0][order], whole[1][order], whole[2]), strict=True):
        torch.testing.assert_close(part, truth, rtol=1e-12, atol=1e-12 * (1 + scale))
    swapped = logistic_loss(v, u, 0.5, bias=bias, num_negatives=num_negatives)[0]  # it knows no direction
    assert swapped.item() == pytest.approx(value.item(), rel=1e-12)


@pytest.mark.parametrize("mode", ["plain", "tiled"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_scores_of_thousands_neither_overflow_nor_lose_digits(mode, dtype):
    u = torch.tensor([[1.0], [-1.0], [2.0]], dtype=dtype, requires_grad=True)
    v = torch.tensor([[1000.0], [-3000.0], [-500.0]], dtype=dtype, requires_grad=True)
    value, diagnostics = logistic_loss(u, v, num_negatives=1.0, mode=mode)
    # positives 1000, 3000, -1000; negatives above zero: (1, 0) has -1000, (1, 2) has 500, (2, 0) has 2000, others below
    assert value.item() == pytest.approx(1000 / 3 + (500 + 2000) / 6, rel=1e-6)
    gradients = torch.autograd.grad(value, (u, v))
    assert all(part.isfinite().all() for part in gradients)
    assert diagnostics["effective_negatives"].item() == pytest.approx((0 + 1 + 1) / 3)


@pytest.mark.parametrize("mode", ["plain", "tiled"])
def test_the_loss_of_an_easy_batch_survives_single_precision(mode):
    u = 30 * torch.eye(256) - 1
    v = torch.eye(256)
    expected = reference.logistic(u.double() @ v.double().T)
    value = logistic_loss(u, v, mode=mode)[0]
    assert 0 < expected < 0.4
    assert value.item() == pytest.approx(expected.item(), rel=1e-5)


@pytest.mark.parametrize("mode", MODES)
def test_diagnostics_are_detached_and_are_what_they_are_called(mode):
    u, v, log_temperature, bias = (part.requires_grad_() for part in (*features(), *scalars()))
    value, found = logistic_loss(u, v, log_temperature.exp(), bias=bias, num_negatives=3.0, mode=mode)
    assert not any(part.requires_grad for part in found.values())
    s = (u @ v.T / log_temperature.exp()).detach()
    slopes = reference.off_diagonal(s + 0.7 - math.log(3)).sigmoid()
    assert {name: part.item() for name, part in found.items()} == pytest.approx(
        {
            "loss": value.item(),
            "positive_score": s.diagonal().mean().item(),
            "effective_negatives": (slopes.sum(1) ** 2 / slopes.square().sum(1)).mean().item(),
            "temperature": math.exp(-0.3),
            "bias": 0.7,
        }
    )


@pytest.mark.long
@pytest.mark.parametrize("num_negatives", [1.0, 7.0])
def test_the_population_optimum_of_gaussian_pairs_is_the_log_density_ratio(num_negatives):
    """Scores quadratic in both numbers, by quadrature under the pairs and under the product of their marginals."""
    correlation, nodes = 0.6, 48
    points, weights = np.polynomial.hermite_e.hermegauss(nodes)
    x, w = (torch.from_numpy(part) for part in (points, weights / weights.sum()))
    first, second = (part.flatten() for part in torch.meshgrid(x, x, indexing="ij"))
    under = (w[:, None] * w).flatten()
    paired = correlation * first + math.sqrt(1 - correlation**2) * second  # v of a pair whose u is the first

    def quadratic(terms, u, v):
        return terms[0] * u * v + terms[1] * u**2 + terms[2] * v**2 + terms[3]

    def population(terms):
        shift = math.log(num_negatives)
        cross_entropy = torch.nn.functional.binary_cross_entropy_with_logits
        positive, negative = (quadratic(terms, first, v) - shift for v in (paired, second))
        of_positives = cross_entropy(positive, torch.ones_like(positive), weight=under, reduction="sum")
        return of_positives + num_negatives * cross_entropy(
            negative, torch.zeros_like(negative), weight=under, reduction="sum"
        )

    left = 1 - correlation**2
    exact = [correlation / left, *[-(correlation**2) / (2 * left)] * 2, -math.log(left) / 2]
    np.testing.assert_allclose(minimised(population, 4).numpy(), exact, atol=2e-4)

    generator = torch.Generator().manual_seed(0)
    u, noise = torch.randn(2, 3000, generator=generator, dtype=torch.float64)
    v = correlation * u + math.sqrt(left) * noise

    def of_batch(terms):
        of_u = torch.stack([terms[0] * u, terms[1] * u**2, torch.ones_like(u)], 1)
        of_v = torch.stack([v, torch.ones_like(v), terms[2] * v**2], 1)
        return logistic_loss(of_u, of_v, bias=terms[3], num_negatives=num_negatives)[0]

    with torch.no_grad():
        best = torch.tensor(exact, dtype=torch.float64)
        assert of_batch(best).item() == pytest.approx(population(best).item(), abs=0.05)
    np.testing.assert_allclose(minimised(of_batch, 4).numpy(), exact, atol=0.08)


def minimised(function, num_terms):
    """Return the terms that minimise a function, by LBFGS from zero."""
    terms = torch.zeros(num_terms, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS(
        [terms], max_iter=200, tolerance_grad=1e-12, tolerance_change=1e-14, line_search_fn="strong_wolfe"
    )

    def closure():
        optimizer.zero_grad()
        value = function(terms)
        value.backward()
        return value

    optimizer.step(closure)
    return terms.detach()


@pytest.mark.parametrize("num_negatives", [0.0, 1.0, 7.0])
@pytest.mark.parametrize("known", ["u", "v", "uv"])
def test_with_exact_marginals_of_labels_a_free_table_becomes_the_log_density_ratio(known, num_negatives):
    counts = torch.tensor([[6, 1, 2], [1, 8, 3], [2, 1, 4], [3, 3, 1]])
    pairs = torch.repeat_interleave(torch.arange(12), counts.flatten())
    joint = counts.double() / counts.sum()
    prior_u, prior_v = joint.sum(1), joint.sum(0)

    def loss(table):
        of_u, of_v = table.view(4, 3), torch.eye(3, dtype=torch.float64)
        exact = {"atoms_u": Atoms(of_u, prior_u.log() + 2), "atoms_v": Atoms(of_v, prior_v.log())}
        chosen = {name: atoms for name, atoms in exact.items() if name[-1] in known}
        return logistic_loss(of_u[pairs // 3], of_v[pairs % 3], num_negatives=num_negatives, **chosen)[0]

    found = minimised(loss, 12).view(4, 3)  # the frequencies of this batch are those of the atoms
    np.testing.assert_allclose(found, (joint / (prior_u[:, None] * prior_v)).log(), atol=1e-6)


def test_what_makes_no_loss_is_refused():
    with pytest.raises(ValueError, match="a batch of 1 pairs: this loss needs at least 2"):
        logistic_loss(*features(1))
    for wrong in (-1.0, math.inf, math.nan):
        with pytest.raises(ValueError, match="give a positive number, or 0 for all of the batch"):
            logistic_loss(*features(), num_negatives=wrong)


RUN = {
    "name": "run",
    "data.source": "arrays",
    "data.shards": "shards",
    "model.embedding_dim": 2,
    "model.encoder_u": "linear",
    "model.encoder_v": "linear",
    "loss.kind": "logistic",
    "train.epochs": 1,
    "train.global_batch": 8,
    "train.learning_rate": 0.1,
}


def test_a_run_file_names_it_and_its_setting():
    assert config_of(RUN).loss.settings == {"num_negatives": 0.0}
    config = config_of(RUN | {"loss.settings": {"num_negatives": 1}})
    loss = make_loss("logistic", settings=config.loss.settings)
    pair = features()
    assert loss(*pair, values=None)[0] == logistic_loss(*pair, num_negatives=1.0)[0]
    with pytest.raises(BadInputError, match=r"loss\.settings\.num_negatives=-1"):
        config_of(RUN | {"loss.settings": {"num_negatives": -1}})
    with pytest.raises(BadInputError, match="no pair is a negative of itself in the logistic loss"):
        config_of(RUN | {"loss.exclude_positive": True})
    with pytest.raises(BadInputError, match=r"loss\.kind=joint has no settings"):
        config_of(RUN | {"loss.kind": "joint", "loss.settings": {"num_negatives": 1}})


def test_only_a_model_whose_loss_learns_a_bias_has_one():
    spec = {
        "embedding_dim": 2,
        "encoder_u": {"kind": "linear", "shape": [3]},
        "encoder_v": {"kind": "linear", "shape": [2]},
        "tilting": TILTINGS[1],
        "temperature": {"initial": 1.0, "learned": False, "minimum": 0.1, "maximum": 10.0},
        "dtype": "float64",
    }
    plain, biased = (build_model(one, 3) for one in (spec, spec | {"bias": True}))
    assert set(biased.state_dict()) - set(plain.state_dict()) == {"bias"}
    assert all(torch.equal(biased.state_dict()[name], value) for name, value in plain.state_dict().items())
    assert plain.bias is None
    assert not plain.for_loss
    assert biased.for_loss["bias"].item() == 0.0
    assert biased.for_loss["bias"].dtype == torch.float64


@pytest.mark.long
@pytest.mark.parametrize("num_negatives", [0.0, 1.0])
def test_a_training_finds_what_the_conditional_loss_finds(num_negatives, tmp_path):
    """Correlated Gaussian pairs: the learned log density of v given u is nearly the true one, even unnormalised."""
    generator = np.random.default_rng(0)
    u = generator.normal(size=(4000, 1))
    v = 0.8 * u + 0.6 * generator.normal(size=(4000, 1))
    common = {"embedding_dim": 4, "epochs": 12, "learning_rate": 0.01, "show": False}
    chosen = {"loss": "logistic", "options": {"loss.settings": {"num_negatives": num_negatives}}}
    models = pcl.fit(u, v, **common), pcl.fit(u, v, **common, **chosen)
    new_u = np.random.default_rng(1).normal(size=(1000, 1))
    new_v = 0.8 * new_u + 0.6 * np.random.default_rng(2).normal(size=(1000, 1))
    truth = -math.log(0.36) / 2
    for model in models:
        s = model.log_tilting(new_u, new_v)
        found = (np.diag(s) - np.log(np.exp(s).mean(1))).mean()
        assert found == pytest.approx(truth, abs=0.06)
    s = models[1].log_tilting(new_u, new_v) + models[1].bias.item()
    assert np.diag(s).mean() == pytest.approx(truth, abs=0.08)  # the log density itself: nothing is normalised
    models[1].save(tmp_path / "model")
    again = pcl.load(tmp_path / "model")
    assert again.bias.item() == models[1].bias.item() != 0
