"""Losses against dense formulas in float64, InfoNCE, and what the theory says of them."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pcl.losses import conditional_loss, joint_loss, make_loss
from pcl.tilting import TILTINGS, feature_maps

WEIGHTS = [(1.0, 1.0), (2.0, 0.0), (0.0, 2.0), (0.5, 1.5), (3.0, 1.0)]


def embeddings(batch=7, dim=3, scale=1.0, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return tuple(scale * torch.randn(batch, dim, generator=generator, dtype=torch.float64) for _ in range(2))


def dense_scores(u, v, tilting, temperature):
    if tilting == "cosine":
        u, v = u / u.norm(dim=1, keepdim=True), v / v.norm(dim=1, keepdim=True)
    if tilting == "squared_distance":
        return -(u[:, None] - v[None]).square().sum(-1) / (2 * temperature)
    return torch.einsum("ie,je->ij", u, v) / temperature


def dense_directions(s):
    """Return the two one-sided losses in their density form, s[i, j] = s(u_i, v_j)."""
    return (
        -(s.diagonal() - s.exp().mean(0).log()).mean(),
        -(s.diagonal() - s.exp().mean(1).log()).mean(),
    )


def dense_conditional(s, weights):
    u_given_v, v_given_u = dense_directions(s)
    return weights[0] / 2 * u_given_v + weights[1] / 2 * v_given_u


def dense_joint(s):
    return -s.diagonal().mean() + s.exp().mean().log()


def value_and_gradients(function, *inputs):
    leaves = [part.detach().clone().requires_grad_() for part in inputs]
    value = function(*leaves)
    return [value.detach(), *torch.autograd.grad(value, leaves, allow_unused=True, materialize_grads=True)]


@pytest.mark.parametrize("kind", [*WEIGHTS, "joint"], ids=str)
@pytest.mark.parametrize("tilting", TILTINGS)
@pytest.mark.parametrize("batch", [1, 2, 7])
def test_values_and_gradients_are_those_of_the_formula(kind, tilting, batch):
    u, v = embeddings(batch)
    log_temperature = torch.tensor(-0.3, dtype=torch.float64)

    def ours(u, v, log_temperature):
        features, temperature = feature_maps(u, v, tilting), log_temperature.exp()
        if kind == "joint":
            return joint_loss(*features, temperature)[0]
        return conditional_loss(*features, temperature, weights=kind)[0]

    def theirs(u, v, log_temperature):
        s = dense_scores(u, v, tilting, log_temperature.exp())
        return dense_joint(s) if kind == "joint" else dense_conditional(s, kind)

    found, expected = (value_and_gradients(f, u, v, log_temperature) for f in (ours, theirs))
    for part, truth in zip(found, expected, strict=True):
        torch.testing.assert_close(part, truth, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("tilting", TILTINGS)
def test_diagnostics_are_detached_and_are_what_they_are_called(tilting):
    u, v = (part.requires_grad_() for part in embeddings())
    temperature = torch.tensor(0.6, dtype=torch.float64, requires_grad=True)
    s = dense_scores(u, v, tilting, 0.6).detach()
    negatives = s.exp() * (1 - torch.eye(len(s)))
    effective = [negatives.sum(a) ** 2 / negatives.square().sum(a) for a in (0, 1)]
    u_given_v, v_given_u = dense_directions(s)
    expected = {
        "loss": 0.25 * u_given_v + 0.75 * v_given_u,
        "loss_u_given_v": u_given_v,
        "loss_v_given_u": v_given_u,
        "positive_score": s.diagonal().mean(),
        "effective_negatives": torch.cat(effective).mean(),
        "temperature": torch.tensor(0.6),
    }
    features = feature_maps(u, v, tilting)
    found = conditional_loss(*features, temperature, weights=(0.5, 1.5))[1]
    joint = joint_loss(*features, temperature)[1]
    assert not any(value.requires_grad for value in [*found.values(), *joint.values()])
    assert {k: t.item() for k, t in found.items()} == pytest.approx({k: t.item() for k, t in expected.items()})
    shared = {k: expected[k].item() for k in ("positive_score", "temperature")}
    shared |= {"loss": dense_joint(s).item(), "effective_negatives": effective[1].mean().item()}
    assert {k: t.item() for k, t in joint.items()} == pytest.approx(shared)


@pytest.mark.parametrize("tilting", TILTINGS)
def test_the_two_sided_loss_is_info_nce_minus_log_batch(tilting):
    u, v = embeddings(11)
    s, labels = dense_scores(u, v, tilting, 0.2), torch.arange(11)
    cross_entropy = torch.nn.functional.cross_entropy
    expected = (cross_entropy(s, labels) + cross_entropy(s.T, labels)) / 2 - math.log(11)
    found = conditional_loss(*feature_maps(u, v, tilting), 0.2)[0]
    assert found.item() == pytest.approx(expected.item(), rel=1e-12)


@given(
    tilting=st.sampled_from(TILTINGS),
    batch=st.integers(1, 20),
    dim=st.integers(1, 5),
    scale=st.floats(0.01, 10),
    temperature=st.floats(0.05, 5),
    paired=st.booleans(),
    seed=st.integers(0, 2**32 - 1),
)
@settings(deadline=None)
def test_the_conditional_loss_is_at_most_the_joint_loss(tilting, batch, dim, scale, temperature, paired, seed):
    u, v = embeddings(batch, dim, scale, seed)
    features = feature_maps(u, u + 0.1 * v if paired else v, tilting)
    conditional, joint = (loss(*features, temperature)[0].item() for loss in (conditional_loss, joint_loss))
    assert conditional <= joint + 1e-12 * (1 + abs(joint))
    assert conditional >= -math.log(batch) - 1e-12  # a positive is one of the batch


@pytest.mark.parametrize(("weights", "invariant"), [((2, 0), "v"), ((0, 2), "u"), ((1, 1), ""), ("joint", "")])
def test_a_one_sided_loss_ignores_functions_of_the_modality_given(weights, invariant):
    u, v = embeddings()
    one, extra = torch.ones(len(u), 1), torch.linspace(-2, 3, len(u), dtype=torch.float64)[:, None] ** 2

    def loss(*features):
        return joint_loss(*features)[0] if weights == "joint" else conditional_loss(*features, weights=weights)[0]

    plain = loss(u, v)
    shifted = {
        "u": loss(torch.cat([u, extra], 1), torch.cat([v, one], 1)),
        "v": loss(torch.cat([u, one], 1), torch.cat([v, extra], 1)),
    }
    for modality, value in shifted.items():
        assert (abs(value - plain) < 1e-12) == (modality == invariant)
    constant = loss(torch.cat([u, 5 * one], 1), torch.cat([v, one], 1))  # Z takes up any constant
    assert constant.item() == pytest.approx(plain.item(), abs=1e-12)


@pytest.mark.parametrize(("weights", "side"), [((2.0, 0.0), 0), ((0.0, 2.0), 1)])
def test_a_direction_without_weight_is_reported_and_passes_no_gradient(weights, side):
    calls = []

    class Watch:
        worker_rank, num_workers = 0, 1

        def __call__(self, rows):
            calls.append(torch.is_grad_enabled())
            return rows

    u, v = embeddings()
    found = value_and_gradients(lambda u, v: conditional_loss(u, v, weights=weights, gather=Watch())[0], u, v)
    expected = value_and_gradients(lambda u, v: dense_directions(u @ v.T)[side], u, v)
    for part, truth in zip(found, expected, strict=True):
        torch.testing.assert_close(part, truth, rtol=1e-12, atol=1e-12)
    assert calls == [weight > 0 for weight in weights]
    diagnostics = conditional_loss(u, v, weights=weights)[1]
    other = ("loss_v_given_u", "loss_u_given_v")[side]
    assert diagnostics[other].item() == pytest.approx(dense_directions(u @ v.T)[1 - side].item(), rel=1e-12)


def test_the_gradient_of_an_easy_batch_survives_single_precision():
    u, v = embeddings(256, 64)
    v, temperature = u + 0.1 * v, torch.tensor(0.058, dtype=torch.float64)

    def loss(u, v, temperature):
        return conditional_loss(*feature_maps(u, v, "cosine"), temperature)[0]

    def dense(u, v, temperature):
        return dense_conditional(dense_scores(u, v, "cosine", temperature), (1, 1))

    single = value_and_gradients(loss, u.float(), v.float(), temperature.float())
    double = value_and_gradients(dense, u.float().double(), v.float().double(), temperature.float().double())
    assert 0.5e-4 < double[0] + math.log(256) < 2e-4
    assert single[0].item() == pytest.approx(double[0].item(), abs=1e-6)
    for part, truth in zip(single[1:], double[1:], strict=True):
        assert part.dtype == torch.float32
        assert torch.linalg.norm(part.double() - truth) < 0.003 * torch.linalg.norm(truth)


@pytest.mark.parametrize("weights", [(-1.0, 2.0), (2.0, -0.1), (0.0, 0.0)])
def test_impossible_weights_are_refused(weights):
    with pytest.raises(ValueError, match="loss weights"):
        conditional_loss(*embeddings(), weights=weights)


def test_make_loss_chooses_by_name():
    u, v = embeddings()
    assert make_loss("conditional", [2, 0])(u, v)[0] == conditional_loss(u, v, weights=(2, 0))[0]
    assert make_loss("joint")(u, v)[0] == joint_loss(u, v)[0]
    with pytest.raises(ValueError, match=r"'clip' is not known; choose one of conditional, joint"):
        make_loss("clip")
