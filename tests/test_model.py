"""The model of pairs: built from a seed, scores from embeddings, conditionals of both directions."""

import copy

import numpy as np
import pytest
import torch

from pcl.errors import BadInputError
from pcl.model import PairModel, build_model
from pcl.tilting import TILTINGS

SPEC = {
    "embedding_dim": 4,
    "encoder_u": {"kind": "linear", "shape": [3], "mean": [0.1, 0.2, 0.3], "std": [1.0, 2.0, 0.5]},
    "encoder_v": {"kind": "linear", "shape": [2, 2], "scale_factor": 0.5},
    "tilting": "cosine",
    "temperature": {"initial": 0.3, "learned": True, "minimum": 0.01, "maximum": 10.0},
    "dtype": "float64",
}


def stored(num_u=5, num_v=6):
    generator = torch.Generator().manual_seed(0)
    return torch.randn(num_u, 3, generator=generator), torch.randn(num_v, 2, 2, generator=generator)


def test_the_same_seed_builds_the_same_model():
    first, again, other = (build_model(copy.deepcopy(SPEC), seed).state_dict() for seed in (7, 7, 8))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["encoder_u.1.map.weight"], other["encoder_u.1.map.weight"])


def test_building_leaves_the_global_state_untouched():
    torch.manual_seed(5)
    before = torch.get_rng_state()
    build_model(SPEC, 1)
    with pytest.raises(BadInputError):
        build_model(SPEC | {"encoder_v": {"kind": "none", "shape": [2]}}, 1)
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.get_default_dtype() == torch.float32


def test_the_seed_of_a_model_does_not_depend_on_the_global_generator():
    models = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        models.append(build_model(SPEC, 3).state_dict())
    assert all(torch.equal(models[0][name], models[1][name]) for name in models[0])


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_model_is_of_one_dtype(dtype):
    model = build_model(SPEC | {"dtype": dtype})
    expected = getattr(torch, dtype)
    assert {value.dtype for value in model.state_dict().values()} == {expected}
    assert model.log_tilting(*stored()).dtype == expected


@pytest.mark.parametrize("tilting", TILTINGS)
def test_the_log_tilting_is_its_formula_and_the_inner_product_of_features(tilting):
    model = build_model(SPEC | {"tilting": tilting})
    u, v = stored()
    with torch.no_grad():
        g_u, g_v = model.encode_u(u).numpy(), model.encode_v(v).numpy()
        found, phi_u, phi_v = model.log_tilting(u, v).numpy(), model.features_u(u).numpy(), model.features_v(v).numpy()
    weight_u, weight_v = (model.state_dict()[f"encoder_{m}.1.map.weight"].numpy() for m in "uv")
    np.testing.assert_allclose(g_u, ((u.numpy() - [0.1, 0.2, 0.3]) / [1.0, 2.0, 0.5]) @ weight_u.T, rtol=1e-6)
    np.testing.assert_allclose(g_v, 0.5 * v.numpy().reshape(6, 4) @ weight_v.T, rtol=1e-6)
    distances = ((g_u[:, None] - g_v) ** 2).sum(-1)
    products = g_u @ g_v.T
    lengths = np.linalg.norm(g_u, axis=1)[:, None] * np.linalg.norm(g_v, axis=1)
    formula = {"cosine": products / lengths, "inner_product": products, "squared_distance": -distances / 2}[tilting]
    np.testing.assert_allclose(found, formula / 0.3, rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(found, phi_u @ phi_v.T / 0.3, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("tilting", TILTINGS)
def test_forward_gives_the_features_of_both_modalities(tilting):
    model = build_model(SPEC | {"tilting": tilting})
    u, v = stored(6, 6)
    phi_u, phi_v = model(u, v)
    torch.testing.assert_close(phi_u, model.features_u(u))
    torch.testing.assert_close(phi_v, model.features_v(v))


@pytest.mark.parametrize("tilting", TILTINGS)
def test_conditionals_of_both_directions_normalise_the_same_scores(tilting):
    model = build_model(SPEC | {"tilting": tilting})
    u, v = stored()
    s = model.log_tilting(u, v).detach()
    u_given_v = model.conditional("u_given_v", u)
    torch.testing.assert_close(u_given_v.weights(model.features_v(v)), torch.softmax(s, 0).T)
    log_prior = torch.linspace(-1, 2, len(v))
    v_given_u = model.conditional("v_given_u", v, log_prior)
    torch.testing.assert_close(v_given_u.weights(model.features_u(u)), torch.softmax(s + log_prior, 1))
    assert not v_given_u.features.requires_grad


def test_the_gradient_reaches_both_encoders_and_the_temperature():
    model = build_model(SPEC)
    model.log_tilting(*stored()).square().sum().backward()
    assert all(p.grad.abs().max() > 0 for p in model.parameters())
    assert len(list(model.parameters())) == 3


def test_what_is_not_known_is_refused():
    model = build_model(SPEC)
    with pytest.raises(ValueError, match="'forward' is not known; choose u_given_v or v_given_u"):
        model.conditional("forward", stored()[0])
    with pytest.raises(ValueError, match="empty"):
        model.conditional("u_given_v", stored()[0][:0])
    with pytest.raises(ValueError, match="'dot' is not known"):
        PairModel(model.encoder_u, model.encoder_v, "dot", model.temperature)
    with pytest.raises(ValueError, match="'dot' is not known"):
        build_model(SPEC | {"tilting": "dot"})
