"""Losses against dense formulas in float64, InfoNCE, open_clip, and what the theory says of them."""

import contextlib
import math
from functools import cache
from unittest.mock import patch

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pcl import mmd, scores
from pcl.benchmark.costs import load_clip_loss
from pcl.conditional import Conditional
from pcl.kernels import gaussian_kernel, polynomial_kernel
from pcl.losses import NotFiniteError, conditional_loss, joint_loss
from pcl.mmd import conditional_mmd_loss, joint_mmd_loss
from pcl.objective import LOSSES, make_loss
from pcl.scores import MODES, Atoms, normalisers
from pcl.tilting import TILTINGS, feature_maps, log_tilting
from pcl.workers import OneWorker
from tests import reference
from tests.reference import value_and_gradients

WEIGHTS = [(1.0, 1.0), (2.0, 0.0), (0.0, 2.0), (0.5, 1.5), (3.0, 1.0)]
KINDS = [("conditional", w, "v") for w in WEIGHTS] + [("joint", None, "v")]
KINDS += [("conditional_mmd", w, "v") for w in WEIGHTS] + [("joint_mmd", None, "v")]
KINDS += [("conditional_mmd", (0.5, 1.5), "u"), ("joint_mmd", None, "u")]
NAMES = [name for name, kind in LOSSES.items() if not kind.arrays]  # of feature maps
KERNELS = gaussian_kernel(1.5), polynomial_kernel(2)


def embeddings(batch=7, dim=3, scale=1.0, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return tuple(scale * torch.randn(batch, dim, generator=generator, dtype=torch.float64) for _ in range(2))


def items(batch, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return tuple(torch.randn(batch, n, generator=generator, dtype=torch.float64) for n in (4, 2))


@pytest.mark.parametrize("exclude_positive", [False, True], ids=["", "negatives"])
@pytest.mark.parametrize("kind", KINDS, ids=str)
@pytest.mark.parametrize("tilting", TILTINGS)
@pytest.mark.parametrize("batch", [1, 2, 5])
def test_values_and_gradients_are_those_of_the_formula(kind, tilting, batch, exclude_positive):
    name, weights, statistic = kind
    options = {"statistic": statistic, "exclude_positive": exclude_positive}
    least = (statistic == "u") + exclude_positive + 1
    if batch < least:
        with pytest.raises(ValueError, match=f"a batch of {batch} pairs: this loss needs at least {least}"):
            make_loss(name, kernels=KERNELS, **options)(*embeddings(batch), values=items(batch))
        return
    u, v = embeddings(batch)
    values = items(batch)
    grams = [kernel(part, part) for kernel, part in zip(KERNELS, values, strict=True)]
    log_temperature = torch.tensor(-0.3, dtype=torch.float64)
    weights = weights or (1.0, 1.0)

    def theirs(u, v, log_temperature):
        s = reference.scores(u, v, tilting, log_temperature.exp())
        return reference.loss(name, s, weights=weights, kernel_u=grams[0], kernel_v=grams[1], **options)

    expected = value_and_gradients(theirs, u, v, log_temperature)
    for mode, tile in [("plain", 512), ("auto", 512), ("tiled", 512), ("tiled", 2), ("one_sided", 3)]:
        loss = make_loss(name, weights, kernels=KERNELS, mode=mode, **options)

        def ours(u, v, log_temperature, loss=loss):
            return loss(*feature_maps(u, v, tilting), log_temperature.exp(), values=values)[0]

        with patch.dict(scores.TILE_ROWS, cpu=tile), patch.dict(mmd.BLOCK_ELEMENTS, cpu=tile * batch):
            found = value_and_gradients(ours, u, v, log_temperature)
        for part, truth in zip(found, expected, strict=True):
            torch.testing.assert_close(part, truth, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("tilting", TILTINGS)
def test_diagnostics_are_detached_and_are_what_they_are_called(tilting):
    u, v = (part.requires_grad_() for part in embeddings())
    temperature = torch.tensor(0.6, dtype=torch.float64, requires_grad=True)
    s = reference.scores(u, v, tilting, 0.6).detach()
    negatives = reference.off_diagonal(s).exp()
    u_given_v, v_given_u = reference.directions(s)
    shared = {
        "positive_score": s.diagonal().mean().item(),
        "effective_negatives": (negatives.sum(1) ** 2 / negatives.square().sum(1)).mean().item(),
        "temperature": 0.6,
    }
    one_sided = {"loss_u_given_v": u_given_v.item(), "loss_v_given_u": v_given_u.item()}
    features = feature_maps(u, v, tilting)
    for mode in MODES:
        found = conditional_loss(*features, temperature, weights=(0.5, 1.5), mode=mode)[1]
        joint = joint_loss(*features, temperature, mode=mode)[1]
        assert not any(value.requires_grad for value in [*found.values(), *joint.values()])
        loss = 0.25 * u_given_v.item() + 0.75 * v_given_u.item()
        assert {k: t.item() for k, t in found.items()} == pytest.approx(shared | one_sided | {"loss": loss})
        joint_value = reference.joint(s).item()
        assert {k: t.item() for k, t in joint.items()} == pytest.approx(shared | {"loss": joint_value})


@pytest.mark.parametrize("tilting", TILTINGS)
def test_the_two_sided_loss_is_info_nce_minus_log_batch(tilting):
    u, v = embeddings(11)
    s, labels = reference.scores(u, v, tilting, 0.2), torch.arange(11)
    cross_entropy = torch.nn.functional.cross_entropy
    expected = (cross_entropy(s, labels) + cross_entropy(s.T, labels)) / 2 - math.log(11)
    found = conditional_loss(*feature_maps(u, v, tilting), 0.2)[0]
    assert found.item() == pytest.approx(expected.item(), rel=1e-12)


@pytest.mark.parametrize("mode", MODES)
def test_the_clip_loss_is_that_of_open_clip(mode):
    clip_loss = load_clip_loss()
    assert clip_loss is not None, "open_clip_torch is not installed: make .venv/test installs it"
    u, v = embeddings(33, 6)
    log_scale = torch.tensor(2.0, dtype=torch.float64)

    def theirs(u, v, log_scale):
        u, v = (part / part.norm(dim=1, keepdim=True) for part in (u, v))
        return clip_loss()(u, v, log_scale.exp()) - math.log(33)

    def ours(u, v, log_scale):
        return conditional_loss(*feature_maps(u, v, "cosine"), (-log_scale).exp(), mode=mode)[0]

    with patch.dict(scores.TILE_ROWS, cpu=10):
        found, expected = (value_and_gradients(f, u, v, log_scale) for f in (ours, theirs))
    for part, truth in zip(found, expected, strict=True):
        torch.testing.assert_close(part, truth, rtol=1e-12, atol=1e-12)


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
@pytest.mark.parametrize("mode", ["plain", "tiled"])
def test_a_direction_without_weight_is_reported_and_passes_no_gradient(weights, side, mode):
    u, v = embeddings()
    found = value_and_gradients(lambda u, v: conditional_loss(u, v, weights=weights, mode=mode)[0], u, v)
    expected = value_and_gradients(lambda u, v: reference.directions(u @ v.T)[side], u, v)
    for part, truth in zip(found, expected, strict=True):
        torch.testing.assert_close(part, truth, rtol=1e-12, atol=1e-12)
    diagnostics = conditional_loss(u, v, weights=weights, mode=mode)[1]
    other = ("loss_v_given_u", "loss_u_given_v")[side]
    assert diagnostics[other].item() == pytest.approx(reference.directions(u @ v.T)[1 - side].item(), rel=1e-12)


def labelled(batch=9, num_labels=3, seed=0):
    """Return embeddings of u, of the labels' atoms, the labels, and their probabilities."""
    generator = torch.Generator().manual_seed(seed)
    u, atoms = (torch.randn(n, 4, generator=generator, dtype=torch.float64) for n in (batch, num_labels))
    probabilities = torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64)
    return u, atoms, torch.randint(num_labels, (batch,), generator=generator), probabilities


@pytest.mark.parametrize("tilting", TILTINGS)
@pytest.mark.parametrize("side", ["u", "v"])
def test_exact_normalisers_are_sums_over_all_atoms(tilting, side):
    u, atoms, labels, probabilities = labelled()
    own, every = feature_maps(u, atoms, tilting) if side == "v" else feature_maps(atoms, u, tilting)[::-1]
    s = reference.scores(u, atoms, tilting, 0.7)
    exact = (s.exp() * probabilities).sum(1).log() - s.gather(1, labels[:, None])[:, 0]
    finite = {f"atoms_{side}": Atoms(every, probabilities.log() + 3)}
    pair = (own, every[labels]) if side == "v" else (every[labels], own)
    weights = (0.0, 2.0) if side == "v" else (2.0, 0.0)
    assert conditional_loss(*pair, 0.7, weights=weights, **finite)[0].item() == pytest.approx(exact.mean().item())
    other = conditional_loss(*pair, 0.7, weights=weights[::-1], **finite)[0]
    assert other == conditional_loss(*pair, 0.7, weights=weights[::-1])[0]
    log_mean = (s.exp() * probabilities).sum(1).mean().log() - s.gather(1, labels[:, None]).mean()
    assert joint_loss(*pair, 0.7, **finite)[0].item() == pytest.approx(log_mean.item())


def test_two_finite_modalities_have_an_exact_joint_normaliser():
    u, v = embeddings(4)
    prior_u, prior_v = torch.softmax(torch.arange(4.0).double(), 0), torch.full((4,), 0.25).double()
    finite = {"atoms_u": Atoms(u, prior_u.log()), "atoms_v": Atoms(v, prior_v.log())}
    expected = (prior_u[:, None] * prior_v * (u @ v.T / 0.7).exp()).sum().log() - (u * v).sum(1).mean() / 0.7
    assert joint_loss(u, v, 0.7, **finite)[0].item() == pytest.approx(expected.item())


def test_the_exact_normaliser_is_the_limit_of_large_batches():
    u, atoms, _, probabilities = labelled()
    labels = torch.repeat_interleave(torch.arange(3), torch.tensor([500, 300, 200]))
    features = torch.cat([u, u])[torch.arange(1000) % 18], atoms[labels]
    for weights in ((0.0, 2.0), (2.0, 0.0)):
        batch = conditional_loss(*features, weights=weights)[0]
        exact = conditional_loss(*features, weights=weights, atoms_v=Atoms(atoms, probabilities.log()))[0]
        assert batch.item() == pytest.approx(exact.item(), rel=1e-12)  # the frequencies of this batch are exact


def test_exact_normalisers_of_the_mmd_loss_are_sums_over_all_atoms():
    u, atoms, labels, probabilities = labelled()
    values = torch.eye(3, dtype=torch.float64)
    finite = Atoms(atoms, probabilities.log(), values)
    weights = torch.softmax(u @ atoms.T + probabilities.log(), 1)
    expected = 0.0
    for w, label in zip(weights, labels, strict=True):
        kernel = KERNELS[0](values, values)
        expected += (w @ kernel @ w / 2 - w @ kernel[label]) / len(u)
    loss = {"values": (u, values[labels]), "kernels": KERNELS[:1] * 2}
    found = conditional_mmd_loss(u, atoms[labels], weights=(0.0, 2.0), atoms_v=finite, **loss)[0]
    assert found.item() == pytest.approx(expected.item(), rel=1e-12)
    swapped = {"values": (values[labels], u), "kernels": KERNELS[:1] * 2}
    found = conditional_mmd_loss(atoms[labels], u, weights=(2.0, 0.0), atoms_u=finite, **swapped)[0]
    assert found.item() == pytest.approx(expected.item(), rel=1e-12)
    with pytest.raises(ValueError, match="atoms without values"):
        conditional_mmd_loss(u, atoms[labels], atoms_v=Atoms(atoms, probabilities), **loss)


def test_the_gradient_of_an_easy_batch_survives_single_precision():
    u, v = embeddings(256, 64)
    v, temperature = u + 0.1 * v, torch.tensor(0.058, dtype=torch.float64)

    def dense(u, v, temperature):
        return reference.conditional(reference.scores(u, v, "cosine", temperature))

    double = value_and_gradients(dense, u.float().double(), v.float().double(), temperature.float().double())
    assert 0.5e-4 < double[0] + math.log(256) < 2e-4
    for mode in ("plain", "tiled"):

        def loss(u, v, temperature, mode=mode):
            value, _ = conditional_loss(*feature_maps(u, v, "cosine"), temperature, mode=mode)
            return value + math.log(256)

        single = value_and_gradients(loss, u.float(), v.float(), temperature.float())
        for part, truth in zip(single[1:], double[1:], strict=True):
            assert part.dtype == torch.float32
            assert torch.linalg.norm(part.double() - truth) < 0.003 * torch.linalg.norm(truth)


@pytest.mark.parametrize("loss", [1e-4, 1e-7])
@pytest.mark.parametrize("mode", ["plain", "tiled"])
def test_a_tiny_loss_survives_single_precision(loss, mode):
    batch = 512
    u = math.log(batch / loss) * torch.eye(batch)
    u += 0.3 * torch.randn(batch, batch, generator=torch.Generator().manual_seed(0))
    expected = torch.nn.functional.cross_entropy(u.double(), torch.arange(batch))
    negatives = scores.normalisers(u, torch.eye(batch), OneWorker(), mode)[1]
    found = torch.nn.functional.softplus(negatives - u.diagonal()).mean()
    assert 0.5 * loss < expected < 2 * loss
    assert found.dtype == torch.float32
    assert found.item() == pytest.approx(expected.item(), rel=0.003)


@pytest.mark.parametrize("mode", ["plain", "tiled"])
def test_a_positive_far_below_its_negatives_keeps_all_digits(mode):
    u, v = torch.ones(2, 1, dtype=torch.float64), torch.tensor([[0.0], [20.5]], dtype=torch.float64)
    expected = value_and_gradients(lambda u, v: reference.directions(u @ v.T)[1], u, v)
    found = value_and_gradients(lambda u, v: conditional_loss(u, v, weights=(0.0, 2.0), mode=mode)[0], u, v)
    for part, truth in zip(found, expected, strict=True):
        torch.testing.assert_close(part, truth, rtol=1e-14, atol=1e-14)


@pytest.mark.parametrize("weights", [(-1.0, 2.0), (2.0, -0.1), (0.0, 0.0), (math.inf, 1.0), (math.nan, 1.0)])
def test_impossible_weights_are_refused(weights):
    for kind in ("conditional", "conditional_mmd"):
        with pytest.raises(ValueError, match="loss weights"):
            make_loss(kind, weights, kernels=KERNELS)(*embeddings(), values=items(7))


@pytest.mark.parametrize("kind", ["conditional_mmd", "joint_mmd"])
def test_an_unknown_statistic_is_refused(kind):
    with pytest.raises(ValueError, match="statistic 'w' is not known; choose one of v, u"):
        make_loss(kind, statistic="w", kernels=KERNELS)(*embeddings(), values=items(7))


@pytest.mark.parametrize("kind", NAMES)
@pytest.mark.parametrize("temperature", [0.0, -1.0, torch.tensor(-0.5, dtype=torch.float64)])
def test_a_temperature_that_is_not_positive_is_refused(kind, temperature):
    with pytest.raises(ValueError, match=r"temperature -?[0-9.]+: it divides the scores and must be positive"):
        make_loss(kind, kernels=KERNELS)(*embeddings(), temperature, values=items(7))


@pytest.mark.parametrize("kind", NAMES)
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_scores_that_are_not_numbers_are_refused(kind, mode, value):
    u, v = embeddings()
    v[2, 1] = value
    with pytest.raises(NotFiniteError, match="scores hold NaN or infinite values"):
        make_loss(kind, mode=mode, kernels=KERNELS)(u, v, values=items(7))


@pytest.mark.parametrize("loss", [conditional_loss, joint_loss])
def test_pairs_need_as_many_of_each(loss):
    u, v = embeddings()
    with pytest.raises(ValueError, match=r"shape \(7, 3\) and those of v \(6, 3\)"):
        loss(u, v[:6])
    with pytest.raises(ValueError, match="shape"):
        loss(u[0], v[0])


@given(
    batch=st.integers(2, 12),
    scale=st.floats(0.01, 100),
    exclude_positive=st.booleans(),
    seed=st.integers(0, 2**32 - 1),
)
@settings(deadline=None)
def test_an_mmd_loss_is_a_squared_distance_in_the_space_of_the_kernel(batch, scale, exclude_positive, seed):
    """The quadratic kernel has a feature map in closed form: its space is spanned by products of coordinates."""
    u, v = embeddings(batch, scale=scale, seed=seed)
    values = items(batch, seed)
    extended = [torch.cat([part.new_ones(batch, 1), part], 1) for part in values]
    in_u, in_v = (torch.einsum("ia,ib->iab", part, part).flatten(1) for part in extended)
    s = u @ v.T
    if exclude_positive:
        s = s.masked_fill(torch.eye(batch, dtype=torch.bool), -math.inf)
    loss = {"values": values, "kernels": (polynomial_kernel(2),) * 2, "exclude_positive": exclude_positive}
    for weights, points, matrix in (((2, 0), in_u, s.T), ((0, 2), in_v, s)):
        constant = points.square().sum(1).mean() / 2
        distance = (points - torch.softmax(matrix, 1) @ points).square().sum(1).mean() / 2
        found = conditional_mmd_loss(u, v, weights=weights, **loss)[0] + constant
        assert found >= -1e-10 * constant
        assert found.item() == pytest.approx(distance.item(), rel=1e-9, abs=1e-10 * constant.item())
    data = torch.einsum("ia,ib->ab", in_u, in_v) / batch
    model = torch.einsum("ij,ia,jb->ab", torch.softmax(s.flatten(), 0).view_as(s), in_u, in_v)
    found = joint_mmd_loss(u, v, **loss)[0] + data.square().sum()
    expected, size = (data - model).square().sum().item(), (data.square().sum() + model.square().sum()).item()
    assert found.item() == pytest.approx(expected, rel=1e-9, abs=1e-10 * size)


def test_only_the_u_statistic_rewards_collapse_onto_one_neighbour():
    """Correlated numbers: the exact model against one that puts all weight on the item nearest to its mean."""
    generator = torch.Generator().manual_seed(0)
    noise, u = torch.randn(2, 400, 1, generator=generator, dtype=torch.float64)
    r, one = 0.6, torch.ones_like(u)
    v = r * u + math.sqrt(1 - r**2) * noise
    exact = torch.cat([u, one], 1), torch.cat([r * v, -((r * v) ** 2) / 2], 1) / (1 - r**2)
    collapsed = torch.cat([r * u, one], 1), 1e9 * torch.cat([v, -(v**2) / 2], 1)
    loss = {"values": (u, v), "kernels": (gaussian_kernel(1.0),) * 2, "weights": (0.0, 2.0)}
    gains = {
        statistic: conditional_mmd_loss(*exact, statistic=statistic, **loss)[0]
        - conditional_mmd_loss(*collapsed, statistic=statistic, **loss)[0]
        for statistic in ("u", "v")
    }
    # E k(v, v') = (1 + 2 s)^(-1/2) for v and v' of the exact model, (1 + s)^(-1/2) for v and its mean, s = 1 - r^2
    to_mean, within = (1 + 1 - r**2) ** -0.5, (1 + 2 * (1 - r**2)) ** -0.5
    assert gains["u"].item() == pytest.approx(to_mean - within / 2, abs=0.03)
    assert gains["v"].item() == pytest.approx(to_mean - within / 2 - 0.5, abs=0.03)
    assert gains["v"] < 0 < gains["u"]


def test_the_joint_mmd_loss_is_smallest_at_the_true_tilting():
    """Two correlated labels: the density of the joint law is a tilting of the atoms, and no other is better."""
    generator = torch.Generator().manual_seed(0)
    joint = torch.tensor([[0.4, 0.1], [0.1, 0.4]], dtype=torch.float64)
    pairs = torch.multinomial(joint.flatten(), 400, replacement=True, generator=generator)
    u, v = torch.eye(2, dtype=torch.float64)[pairs // 2], torch.eye(2, dtype=torch.float64)[pairs % 2]
    kernels = gaussian_kernel(1.0), gaussian_kernel(1.0)
    losses = {
        strength: joint_mmd_loss(strength * u, v, values=(u, v), kernels=kernels)[0].item()
        for strength in (0.0, 0.7, math.log(4), 2.2, 4.0)
    }
    assert min(losses, key=losses.get) == math.log(4)


HALF = {torch.float32: 2e-5, torch.bfloat16: 0.01, torch.float16: 0.002}  # relative error of a gradient in this dtype


def autocast(dtype):
    """Return a context of autocast on every device that there is, or of nothing."""
    stack = contextlib.ExitStack()
    if dtype is not None:
        for device in ("cpu", "cuda") if torch.cuda.is_available() else ("cpu",):
            stack.enter_context(torch.autocast(device, dtype))
    return stack


def rounded(dtype, batch=6):
    """Return features, values and a temperature as a dtype holds them."""
    return [part.to(dtype) for part in (*embeddings(batch), *items(batch), torch.tensor(0.3))]


@cache
def loss_by_formula(kind, dtype):
    """Return the loss of rounded features, and its gradients by them and the temperature, in double precision."""
    u, v, *values, temperature = (part.double() for part in rounded(dtype))
    grams = {f"kernel_{m}": kernel(part, part) for m, kernel, part in zip("uv", KERNELS, values, strict=True)}
    return value_and_gradients(lambda u, v, t: reference.loss(kind, u @ v.T / t, **grams), u, v, temperature)


@pytest.mark.parametrize("kind", NAMES)
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("dtype", HALF, ids=str)
@pytest.mark.parametrize("low", [None, torch.bfloat16, torch.float16], ids=str)
def test_a_loss_is_one_number_inside_and_outside_autocast(kind, mode, dtype, low):
    expected = loss_by_formula(kind, dtype)
    *features, x, y, temperature = rounded(dtype)
    leaves = [part.requires_grad_() for part in (*features, temperature)]
    with patch.dict(scores.TILE_ROWS, cpu=4), patch.dict(mmd.BLOCK_ELEMENTS, cpu=24), autocast(low):
        value = make_loss(kind, mode=mode, kernels=KERNELS)(*leaves, values=(x, y))[0]
        gradients = torch.autograd.grad(value, leaves, retain_graph=True)
        again = torch.autograd.grad(value, leaves)
    assert value.dtype == torch.float32
    assert value.item() == pytest.approx(expected[0].item(), rel=1e-5)
    for found, same, leaf, truth in zip(gradients, again, leaves, expected[1:], strict=True):
        assert found.dtype == leaf.dtype
        assert torch.equal(found, same)
        assert torch.linalg.norm(found.double() - truth) < HALF[dtype] * torch.linalg.norm(truth)


@pytest.mark.parametrize("low", [torch.bfloat16, torch.float16], ids=str)
def test_all_mathematics_is_the_same_inside_autocast(low):
    u, v = (part.float() for part in embeddings(9))
    queries, values = u[:4], v[:, :2]
    atoms = Atoms(v, torch.linspace(-1, 1, 9), values)
    pairs = {"values": (u, values), "kernels": KERNELS[:1] * 2}
    calls = [
        *(lambda t=t: log_tilting(u, v, t, 0.3) for t in TILTINGS),
        *(lambda t=t: feature_maps(u, v, t)[0] for t in TILTINGS),
        *(lambda k=k: k(u, v) for k in KERNELS),
        *(lambda m=m: Conditional(u, 0.1, v[:, 0]).__getattribute__(m)(queries) for m in ("weights", "log_density")),
        lambda: Conditional(u, 0.1).mean(queries, values),
        lambda: Conditional(u, 0.1).variance(queries, values),
        lambda: Conditional(u, 0.1).effective_sample_size(queries),
        lambda: atoms.log_normaliser(queries),
        *(lambda m=m: torch.stack(normalisers(u, v, OneWorker(), m)) for m in MODES),
        lambda: conditional_loss(u, v, 0.3, atoms_v=atoms)[0],
        lambda: joint_loss(u, v, 0.3, atoms_u=atoms)[0],
        lambda: conditional_mmd_loss(u, v, 0.3, atoms_v=atoms, **pairs)[0],
    ]
    for call in calls:
        u.requires_grad_(False)
        expected = call()
        for needs_gradient in (False, True):
            u.requires_grad_(needs_gradient)
            with autocast(low):
                found = call()
            assert torch.equal(found.detach(), expected)


def test_feature_maps_of_half_precision_are_in_single_precision():
    for dtype in (torch.bfloat16, torch.float16):
        u, v = (part.to(dtype) for part in embeddings())
        for tilting in TILTINGS:
            expected = feature_maps(u.float(), v.float(), tilting)
            assert all(torch.equal(a, b) for a, b in zip(feature_maps(u, v, tilting), expected, strict=True))


@pytest.mark.parametrize("kind", NAMES)
def test_features_of_different_or_integer_dtypes_are_refused(kind):
    u, v = embeddings()
    loss = make_loss(kind, kernels=KERNELS)
    for pair in ((u, v.float()), (u.long(), v.long())):
        with pytest.raises(ValueError, match="they need one floating-point dtype"):
            loss(*pair, values=items(7))


@pytest.mark.parametrize("low", [None, torch.bfloat16], ids=["", "autocast"])
@pytest.mark.parametrize("kind", KINDS, ids=str)
@pytest.mark.parametrize("mode", ["plain", "tiled", "one_sided"])
@pytest.mark.parametrize("shared", [False, True], ids=["", "shared"])
def test_second_derivatives_are_those_of_the_formula(kind, mode, shared, low):
    """Derivatives of a product with the gradient, by features that come of one tensor where they are shared."""
    name, weights, statistic = kind
    options = {"statistic": statistic, "exclude_positive": weights == (0.5, 1.5)}
    u, v = embeddings(4)
    values = items(4)
    grams = {f"kernel_{m}": kernel(part, part) for m, kernel, part in zip("uv", KERNELS, values, strict=True)}
    loss = make_loss(name, weights or (1.0, 1.0), kernels=KERNELS, mode=mode, **options)
    directions = [torch.cos(torch.arange(part.numel(), dtype=part.dtype)).view_as(part) for part in (u, v)]

    def product(function, u, v, log_temperature):
        v = u + v.sin() if shared else v
        value = function(u, v, log_temperature.exp())
        found = torch.autograd.grad(value, (u, v, log_temperature), create_graph=True)
        return (found[0] * directions[0]).sum() + (found[1] * directions[1]).sum() - 2 * found[2] + value.square()

    def theirs(u, v, temperature):
        s = u @ v.T / temperature
        return reference.loss(name, s, weights=weights or (1.0, 1.0), **grams, **options)

    def ours(u, v, temperature):
        return loss(u, v, temperature, values=values)[0]

    inputs = u, v, torch.tensor(-0.3, dtype=torch.float64)
    expected = value_and_gradients(lambda *given: product(theirs, *given), *inputs)
    with patch.dict(scores.TILE_ROWS, cpu=3), patch.dict(mmd.BLOCK_ELEMENTS, cpu=12), autocast(low):
        found = value_and_gradients(lambda *given: product(ours, *given), *inputs)
    for part, truth in zip(found, expected, strict=True):
        torch.testing.assert_close(part, truth, rtol=1e-10, atol=1e-10)
