"""The model of pairs: built from a seed, scores from embeddings, conditionals of both directions."""

import copy
import math

import numpy as np
import pytest
import torch

from pcl import model as of_models
from pcl.encoders.build import build_model
from pcl.errors import BadInputError
from pcl.model import PairModel
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
    white_u, white_v = (u.numpy() - [0.1, 0.2, 0.3]) / [1.0, 2.0, 0.5], 0.5 * v.numpy().reshape(6, 4)
    if tilting == "potentials":
        root_u, root_v = (model.state_dict()[f"encoder_{m}.1.potential.map.weight"].numpy() for m in "uv")
        g_u, g_v, a, b = g_u[:, :4], g_v[:, :4], g_u[:, 4], g_v[:, 4]
        np.testing.assert_allclose(a, -((white_u @ root_u.T) ** 2).sum(1) / 2, rtol=1e-6)
        np.testing.assert_allclose(b, -((white_v @ root_v.T) ** 2).sum(1) / 2, rtol=1e-6)
    np.testing.assert_allclose(g_u, white_u @ weight_u.T, rtol=1e-6)
    np.testing.assert_allclose(g_v, white_v @ weight_v.T, rtol=1e-6)
    distances = ((g_u[:, None] - g_v) ** 2).sum(-1)
    products = g_u @ g_v.T
    lengths = np.linalg.norm(g_u, axis=1)[:, None] * np.linalg.norm(g_v, axis=1)
    formulas = {"cosine": products / lengths, "inner_product": products, "squared_distance": -distances / 2}
    formula = products + a[:, None] + b if tilting == "potentials" else formulas[tilting]
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


IMAGES = SPEC | {
    "encoder_u": {"kind": "lenet", "shape": [28, 28], "dtype": "uint8", "scale_factor": 1 / 255},
    "encoder_v": {"kind": "one_hot", "shape": [], "dtype": "uint8"},
    "embedding_dim": 10,
    "dtype": "float32",
}


def images(num=4):
    generator = torch.Generator().manual_seed(0)
    return torch.randint(256, (num, 28, 28), generator=generator, dtype=torch.uint8), torch.arange(num) % 10


def old(spec):
    """Return a specification as checkpoints held it before dtypes were part of it."""
    parts = {m: {k: v for k, v in spec[f"encoder_{m}"].items() if k != "dtype"} for m in "uv"}
    return spec | {f"encoder_{m}": part for m, part in parts.items()}


@pytest.mark.parametrize("spec", [IMAGES, old(IMAGES)], ids=["", "old"])
@pytest.mark.parametrize(
    ("name", "wrong", "message"),
    [
        ("u", torch.rand(3, 28, 28), "u of dtype float32: needed is uint8, as stored; multiply physical values by 255"),
        ("u", torch.rand(3, 28, 28) > 0.5, "u of dtype bool: needed is uint8"),
        ("u", torch.full((3, 28, 28), 256), "u with a value of 256: needed is uint8, as stored, 0 to 255"),
        ("u", torch.full((3, 28, 28), -1), "u with a value of -1"),
        ("u", images()[0][0], r"u of shape \(28, 28\): needed is \(N, 28, 28\); give a single one as x\[None\]"),
        ("u", images()[0][..., None], r"u of shape \(4, 28, 28, 1\): needed is \(N, 28, 28\)"),
        ("v", torch.tensor([3, 12]), "v with a value of 12: needed is integer labels, 0 to 9"),
        ("v", np.array([-1]), "v with a value of -1"),
        ("v", torch.tensor([1.5]), "v of dtype float32: needed is integer labels"),
        ("v", torch.eye(10, dtype=torch.long), r"v of shape \(10, 10\): needed is \(N,\)"),
    ],
)
def test_items_that_are_not_as_stored_are_refused_by_every_method(spec, name, wrong, message):
    model, (u, v) = build_model(spec), images()
    pair = (wrong, v) if name == "u" else (u, wrong)
    calls = [getattr(model, f"{what}_{name}") for what in ("encode", "features")]
    for call in [*(lambda c=c: c(wrong) for c in calls), lambda: model(*pair), lambda: model.log_tilting(*pair)]:
        with pytest.raises(ValueError, match=message):
            call()
    direction = "u_given_v" if name == "u" else "v_given_u"
    with pytest.raises(ValueError, match=message.replace(f"{name} ", "references ", 1)):
        model.conditional(direction, wrong)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (torch.zeros(5, 1), r"u of shape \(5, 1\): needed is \(N, 3\)"),  # it would broadcast
        (torch.zeros(3), r"u of shape \(3,\): needed is \(N, 3\)"),
        (torch.tensor([[0.0, 1.0, 2.0], [0.0, math.nan, 1.0]]), "u are not finite, first in number 1 of 2"),
        (torch.full((1, 3), math.inf), "u are not finite"),
        (torch.zeros(5, 3, dtype=torch.complex64), "u of dtype complex64"),
        ("text", "u of type str: needed is an array of numbers"),
    ],
)
def test_numbers_of_another_shape_or_without_a_value_are_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        build_model(SPEC).encode_u(wrong)


def test_a_missing_value_is_one_only_where_data_have_them():
    field = {"kind": "field", "shape": [2, 1, 8, 8], "width": 4, "depth": 1}
    model = build_model(SPEC | {"encoder_u": field})
    assert torch.isfinite(model.encode_u(torch.full((2, 2, 1, 8, 8), math.nan))).all()
    with pytest.raises(ValueError, match="u hold infinite values"):
        model.encode_u(torch.full((2, 2, 1, 8, 8), math.inf))


@pytest.mark.parametrize("spec", [SPEC, IMAGES], ids=["numbers", "images"])
def test_arrays_of_numpy_and_of_any_layout_are_as_good_as_tensors(spec):
    model = build_model(spec)
    for name, items in zip("uv", images() if spec is IMAGES else stored(), strict=True):
        encode = getattr(model, f"encode_{name}")
        expected = encode(items)
        reversed_twice = items.numpy()[::-1].copy()[::-1]
        swapped = items.numpy().astype(items.numpy().dtype.newbyteorder())
        read_only = items.numpy().copy()
        read_only.flags.writeable = False
        for array in (items.numpy(), reversed_twice, swapped, read_only, items.numpy().tolist()):
            assert type(encode(array)) is np.ndarray
            torch.testing.assert_close(torch.as_tensor(encode(array)), expected)
    dtype = model.temperature().dtype
    linear = torch.nn.Linear(3, 2, dtype=dtype)
    plain = PairModel(linear, linear, "cosine", model.temperature)
    assert plain.encode_u(np.ones((4, 3))).shape == (4, 2)  # any encoder takes the double precision of numpy


def test_references_are_encoded_in_blocks(monkeypatch):
    model, sizes = build_model(SPEC), []
    model.encoder_u.register_forward_hook(lambda _, given, __: sizes.append(len(given[0])))
    u = torch.randn(11, 3, generator=torch.Generator().manual_seed(0))
    whole = model.conditional("u_given_v", u).features
    assert sizes == [11]
    for limit, value in (("BLOCK_ITEMS", 4), ("BLOCK_BYTES", 4 * u[:1].nbytes)):
        sizes.clear()
        with monkeypatch.context() as patch:
            patch.setattr(of_models, limit, value)
            torch.testing.assert_close(model.conditional("u_given_v", u).features, whole)
        assert sizes == [4, 4, 3]
