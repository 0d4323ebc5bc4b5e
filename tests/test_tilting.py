"""Feature maps against the formulas of the three tiltings, and the bounds of the temperature."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pcl.tilting import TILTINGS, Temperature, embeddings_of, feature_maps, log_tilting

FORMULAS = {
    "cosine": lambda u, v: u @ v / (np.linalg.norm(u) * np.linalg.norm(v)),
    "inner_product": lambda u, v: u @ v,
    "squared_distance": lambda u, v: -np.sum((u - v) ** 2) / 2,
    "potentials": lambda u, v: u[:-1] @ v[:-1] + u[-1] + v[-1],
}


def embeddings(num_u, num_v, dim, scale=1.0, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return tuple(scale * torch.randn(n, dim, generator=generator, dtype=torch.float64) for n in (num_u, num_v))


@pytest.mark.parametrize("tilting", TILTINGS)
@given(
    num_u=st.integers(1, 5),
    num_v=st.integers(1, 5),
    dim=st.integers(1, 6),
    scale=st.sampled_from([1e-3, 1.0, 1e3]),
    temperature=st.floats(0.01, 100),
    seed=st.integers(0, 2**32 - 1),
)
@settings(deadline=None, max_examples=50)
def test_log_tilting_is_its_formula(tilting, num_u, num_v, dim, scale, temperature, seed):
    u, v = embeddings(num_u, num_v, dim, scale, seed)
    expected = [[FORMULAS[tilting](a, b) / temperature for b in v.numpy()] for a in u.numpy()]
    found = log_tilting(u, v, tilting, temperature)
    np.testing.assert_allclose(found, expected, rtol=1e-10, atol=1e-12 * scale**2 / temperature)


@pytest.mark.parametrize("tilting", TILTINGS)
def test_features_keep_leading_axes_and_their_inner_product_is_the_score(tilting):
    u, v = (part.view(2, 3, 4) for part in embeddings(6, 6, 4))
    phi_u, phi_v = feature_maps(u, v, tilting)
    assert phi_u.shape == phi_v.shape == (2, 3, {"squared_distance": 6, "potentials": 5}.get(tilting, 4))
    for found, embedding in ((phi_u, u), (phi_v, v)):
        expected = embedding[..., :3] if tilting == "potentials" else embedding
        expected = torch.nn.functional.normalize(expected, dim=-1) if tilting == "cosine" else expected
        assert torch.equal(embeddings_of(found, tilting), expected)
    expected = [[FORMULAS[tilting](u[i, j].numpy(), v[i, j].numpy()) for j in range(3)] for i in range(2)]
    np.testing.assert_allclose((phi_u * phi_v).sum(-1), expected, rtol=1e-12)


def test_each_feature_map_depends_on_its_own_modality_alone():
    for tilting in TILTINGS:
        u, v = embeddings(3, 3, 4)
        first, second = feature_maps(u, v, tilting), feature_maps(-2 * v, v, tilting)
        assert torch.equal(first[1], second[1])
        assert torch.equal(feature_maps(u, 5 * u, tilting)[0], first[0])


def test_cosine_ignores_length_and_lies_between_minus_one_and_one():
    u, v = embeddings(20, 20, 3)
    scores = log_tilting(u, v, "cosine", 1.0)
    torch.testing.assert_close(log_tilting(7 * u, 0.01 * v, "cosine", 1.0), scores)
    assert scores.abs().max() <= 1 + 1e-12
    assert torch.isfinite(log_tilting(torch.zeros(1, 3), torch.ones(1, 3), "cosine", 1.0)).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("length", [0.0, 1e-30, 1e-12, 1e-9])
def test_a_vector_without_direction_passes_no_gradient(length, dtype):
    u, v = (part.to(dtype) for part in embeddings(4, 4, 3))
    u[1] *= length
    leaves = [u.requires_grad_(), v.requires_grad_()]
    (feature_maps(*leaves, "cosine")[0] * 1e3).sum().backward()
    assert (u.grad[1] == 0).all()
    assert torch.isfinite(u.grad).all()
    others = torch.tensor([0, 2, 3])
    alone = u.detach()[others].requires_grad_()
    (feature_maps(alone, v, "cosine")[0] * 1e3).sum().backward()
    assert torch.equal(u.grad[others], alone.grad)
    assert alone.grad.abs().max() > 0


def test_directions_and_their_gradients_are_those_of_torch_to_the_bit():
    for scale in (1e-5, 1.0, 1e5):
        u = (scale * embeddings(50, 1, 7)[0]).float().requires_grad_()
        weights = torch.linspace(-1, 1, 350).view(50, 7)
        found = feature_maps(u, u, "cosine")[0]
        expected = torch.nn.functional.normalize(u, dim=-1)
        assert torch.equal(found, expected)
        (gradient,), (truth,) = (torch.autograd.grad((part * weights).sum(), u) for part in (found, expected))
        assert torch.equal(gradient, truth)


@pytest.mark.parametrize(
    ("u", "v", "message"),
    [
        (torch.zeros(2, 3), torch.zeros(2, 1), r"embedding_v of shape \(2, 1\): needed is \(N, 3\)"),
        (torch.zeros(3), torch.zeros(2, 3), r"embedding_u of shape \(3,\): needed is \(B, E\)"),
        (torch.full((1, 3), math.nan), torch.zeros(2, 3), "embedding_u are not finite"),
    ],
)
def test_embeddings_that_have_no_tilting_are_refused(u, v, message):
    with pytest.raises(ValueError, match=message):
        log_tilting(u, v, "inner_product", 1.0)
    found = log_tilting(np.ones((2, 3)), np.ones((1, 3)), "inner_product", 1.0)
    assert found.tolist() == [[3.0], [3.0]]


def test_squared_distance_ignores_rotations_and_common_shifts_and_is_largest_at_zero_distance():
    u, v = embeddings(5, 6, 3)
    scores = log_tilting(u, v, "squared_distance", 0.5)
    rotation = torch.linalg.qr(embeddings(3, 1, 3, seed=1)[0]).Q
    torch.testing.assert_close(log_tilting(u @ rotation + 2, v @ rotation + 2, "squared_distance", 0.5), scores)
    assert (scores < 0).all()
    assert log_tilting(u, u, "squared_distance", 0.5).diagonal().abs().max() < 1e-12


def test_potentials_that_are_zero_or_tied_make_the_other_tiltings():
    u, v = embeddings(5, 6, 3)
    for tilting, factor in (("inner_product", 0), ("squared_distance", -1)):
        with_potentials = (torch.cat([z, factor * z.square().sum(1, keepdim=True) / 2], 1) for z in (u, v))
        found = log_tilting(*with_potentials, "potentials", 0.7)
        torch.testing.assert_close(found, log_tilting(u, v, tilting, 0.7))


@pytest.mark.parametrize("call", [lambda t: feature_maps(*embeddings(1, 1, 2), t)])
def test_an_unknown_tilting_is_refused_with_the_choices(call):
    with pytest.raises(ValueError, match=r"'dot' is not known.*cosine, inner_product, squared_distance"):
        call("dot")


@pytest.mark.parametrize("learned", [True, False])
def test_temperature_is_a_parameter_only_if_learned(learned):
    temperature = Temperature(0.07, learned=learned, minimum=0.01, maximum=10.0)
    assert temperature().item() == pytest.approx(0.07, rel=1e-6)
    assert temperature().shape == ()
    assert len(list(temperature.parameters())) == learned
    assert list(temperature.state_dict()) == ["log_temperature"]
    temperature.project_()
    assert temperature().item() == pytest.approx(0.07, rel=1e-6)


def test_the_gradient_is_that_of_the_log_temperature():
    temperature = Temperature(0.5, learned=True, minimum=0.01, maximum=10.0)
    (3 * temperature()).backward()
    assert temperature.log_temperature.grad.item() == pytest.approx(1.5, rel=1e-6)


@pytest.mark.parametrize(("bound", "outward"), [(0.1, 1.0), (2.0, -1.0)])
def test_a_learned_temperature_stops_at_a_bound_and_can_leave_it(bound, outward):
    temperature = Temperature(bound, learned=True, minimum=0.1, maximum=2.0)
    optimizer = torch.optim.SGD(temperature.parameters(), lr=0.5)

    def step(slope):
        optimizer.zero_grad()
        (slope * temperature()).backward()
        optimizer.step()
        temperature.project_()
        return temperature().item()

    for _ in range(3):
        assert step(outward) == pytest.approx(bound, rel=1e-6)
        assert temperature.log_temperature.grad.item() == pytest.approx(outward * bound, rel=1e-6)
    assert step(-outward) == pytest.approx(bound * math.exp(outward * 0.5 * bound), rel=1e-5)


def test_one_long_step_is_put_back_to_the_bound():
    temperature = Temperature(1.0, learned=True, minimum=0.1, maximum=2.0)
    for value, bound in ((50.0, 2.0), (-50.0, 0.1)):
        temperature.log_temperature.data.fill_(value)
        temperature.project_()
        assert temperature().item() == pytest.approx(bound, rel=1e-6)


@pytest.mark.parametrize(
    ("initial", "minimum", "maximum"),
    [(1, 0, 2), (1, -1, 2), (0.5, 1, 2), (3, 1, 2), (1, 1, math.inf), (math.nan, 0.1, 2), (1, math.nan, 2), (1, 2, 1)],
)
def test_impossible_temperatures_are_refused(initial, minimum, maximum):
    with pytest.raises(ValueError, match="0 < minimum <= initial <= maximum"):
        Temperature(initial, learned=True, minimum=minimum, maximum=maximum)
