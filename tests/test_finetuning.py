"""Fine-tuning as a convex problem: scikit-learn's optimum, autograd's gradient, and the model's own conditional."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression

from pcl.encoders.build import build_model
from pcl.finetuning import LabelConditional, chosen_strength, drawn, fine_tune, folds_of, untuned, zeros
from pcl.tilting import TILTINGS, embeddings_of

K, E = 4, 3


def labelled(number=80, seed=0, shift=1.0):
    """Return embeddings and labels that no line tells apart."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(number) % K
    centres = shift * torch.randn(K, E, generator=generator)
    return 5 * (centres[labels] + torch.randn(number, E, generator=generator)).double(), labels


def a_start(temperature=0.7, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return LabelConditional(
        torch.randn(K, E, generator=generator).double(), torch.randn(K, generator=generator).double(), temperature
    )


def columns_of(embeddings):
    scale = embeddings.square().mean().sqrt()
    return torch.cat([embeddings / scale, torch.ones(len(embeddings), 1)], 1).numpy(), scale


@pytest.mark.parametrize("strength", [10.0, 1.0, 1e-2])
def test_from_zero_it_is_the_logistic_regression_of_scikit_learn(strength):
    embeddings, labels = labelled()
    nothing = LabelConditional(torch.zeros(K, E).double(), torch.zeros(K).double(), 0.5)
    tuned = fine_tune(embeddings, labels, nothing, strength)
    columns, scale = columns_of(embeddings)
    probe = LogisticRegression(C=1 / strength, fit_intercept=False, tol=1e-10, max_iter=10_000).fit(columns, labels)
    np.testing.assert_allclose(tuned.weights * scale / 0.5, probe.coef_[:, :E], atol=2e-6)
    np.testing.assert_allclose(tuned.log_prior, probe.coef_[:, E], atol=2e-6)
    np.testing.assert_allclose(tuned(embeddings).exp(), probe.predict_proba(columns), atol=1e-6)


def test_without_a_ridge_it_is_the_maximum_likelihood_from_wherever_it_starts():
    embeddings, labels = labelled()
    columns, _ = columns_of(embeddings)
    probe = LogisticRegression(C=np.inf, fit_intercept=False, tol=1e-10, max_iter=10_000).fit(columns, labels)
    for seed in (1, 2):
        tuned = fine_tune(embeddings, labels, a_start(seed=seed), 0.0)
        np.testing.assert_allclose(tuned(embeddings).exp(), probe.predict_proba(columns), atol=1e-5)


@pytest.mark.parametrize("strength", [3.0, 0.1])
def test_autograd_finds_no_way_down(strength):
    """The loss as the paper writes it, and the ridge towards the start, differentiated by G and F."""
    embeddings, labels = labelled()
    start = a_start()
    tuned = fine_tune(embeddings, labels, start, strength)
    weights, log_prior = (part.clone().requires_grad_() for part in (tuned.weights, tuned.log_prior))
    scores = torch.stack([embeddings @ weights[k] / start.temperature + log_prior[k] for k in range(K)], 1)
    loss = -(scores[torch.arange(len(labels)), labels] - scores.exp().sum(1).log()).sum()
    of_weights = (embeddings**2).mean() / start.temperature**2 * ((weights - start.weights) ** 2).sum()
    value = loss + strength / 2 * (of_weights + ((log_prior - start.log_prior) ** 2).sum())
    gradients = torch.autograd.grad(value, (weights, log_prior))
    assert max(gradient.abs().max() for gradient in gradients) < 1e-5, gradients
    assert value < loss_at_start(embeddings, labels, start)


def loss_at_start(embeddings, labels, start):
    return -start(embeddings).gather(1, labels[:, None]).sum()


def test_a_strong_ridge_keeps_the_start():
    embeddings, labels = labelled()
    start = a_start()
    tuned = fine_tune(embeddings, labels, start, 1e9)
    torch.testing.assert_close(tuned.weights, start.weights, atol=1e-6, rtol=0)
    torch.testing.assert_close(tuned.log_prior, start.log_prior, atol=1e-6, rtol=0)


@settings(max_examples=15, deadline=None)
@given(st.floats(1e-3, 1e3), st.integers(0, 1000), st.sampled_from([0.1, 1.0, 10.0]))
def test_units_and_axes_of_the_embedding_do_not_matter(unit, seed, strength):
    embeddings, labels = labelled(40, seed)
    rotation, _ = torch.linalg.qr(torch.randn(E, E, generator=torch.Generator().manual_seed(seed)).double())
    start = a_start(seed=seed)
    other = LabelConditional(start.weights @ rotation / unit, start.log_prior + 3.0, start.temperature)
    turned = unit * embeddings @ rotation
    one, two = fine_tune(embeddings, labels, start, strength), fine_tune(turned, labels, other, strength)
    torch.testing.assert_close(one(embeddings), two(turned), atol=1e-5, rtol=1e-5)


def test_what_is_no_labelled_data_is_refused():
    embeddings, labels = labelled()
    for wrong, found in ((labels[:5], "80 items and 5 labels"), (labels + 1, "labels from 1 to 4"), (labels - 1, "-1")):
        with pytest.raises(ValueError, match=found):
            fine_tune(embeddings, wrong, a_start())
    with pytest.raises(ValueError, match="strength -1"):
        fine_tune(embeddings, labels, a_start(), -1.0)


@pytest.mark.parametrize("tilting", TILTINGS)
def test_untuned_it_is_the_label_conditional_of_the_model(tilting):
    """Whatever the tilting, a linear classifier of the embedding has the weights of the model's own conditional."""
    linear = {"kind": "linear", "shape": [6], "dtype": "float64"}
    potential = {"potential": "learned"} if tilting == "potentials" else {}
    temperature = {"initial": 0.3, "learned": False, "minimum": 0.1, "maximum": 10.0}
    spec = {"embedding_dim": E, "encoder_u": linear | potential, "encoder_v": linear | potential, "tilting": tilting}
    model = build_model(spec | {"temperature": temperature, "dtype": "float64"}, seed=2).requires_grad_(False)
    u, v = torch.randn(9, 6).double(), torch.randn(K, 6).double()
    prior = torch.tensor([0.1, 0.2, 0.3, 0.4]).double().log()
    features_u = model.features_u(u)
    labels = untuned(model.features_v(v), tilting, float(model.temperature()), prior)
    wanted = model.conditional("v_given_u", v, prior).log_weights(features_u)
    torch.testing.assert_close(labels(embeddings_of(features_u, tilting)), wanted, atol=1e-9, rtol=1e-9)


def test_knowing_nothing_gives_the_frequencies():
    labels = torch.tensor([0, 0, 0, 1, 2, 3])
    found = zeros(labels, K, E, 0.1)(torch.randn(2, E)).exp()
    torch.testing.assert_close(found, torch.tensor([[0.5, 1 / 6, 1 / 6, 1 / 6]] * 2).double(), atol=1e-7, rtol=0)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(-1, 3), min_size=30, max_size=80), st.integers(0, 100))
def test_draws_are_balanced_and_larger_ones_hold_smaller_ones(some, seed):
    labels = torch.tensor([*some, *range(4), *range(4), *range(4)])
    before = set()
    for number in (1, 2, 3):
        found = drawn(labels, number, torch.Generator().manual_seed(seed))
        assert torch.bincount(labels[found]).tolist() == [number] * 4
        assert found.tolist() == sorted(set(found.tolist()))
        assert before <= set(found.tolist())
        before = set(found.tolist())
    everything = drawn(labels, 0, torch.Generator())
    assert everything.tolist() == [i for i, label in enumerate(labels.tolist()) if label >= 0]


def test_a_draw_that_is_larger_than_a_label_is_refused():
    with pytest.raises(ValueError, match="label 1 has 2 items, fewer than 3"):
        drawn(torch.tensor([0, 0, 0, 1, 1]), 3, torch.Generator())


def test_every_item_is_drawn_as_often():
    labels, counts = torch.tensor([0] * 5 + [1] * 10), torch.zeros(15)
    for seed in range(600):
        counts[drawn(labels, 2, torch.Generator().manual_seed(seed))] += 1
    wanted = torch.tensor([600 * 2 / 5] * 5 + [600 * 2 / 10] * 10)
    assert ((counts - wanted) ** 2 / wanted).sum() < 36  # chi-square, 13 degrees of freedom: 0.999


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(0, 3), min_size=4, max_size=60), st.integers(0, 100))
def test_folds_divide_the_items_and_every_fold_has_every_label(some, seed):
    labels = torch.tensor(some)
    folds = folds_of(labels, torch.Generator().manual_seed(seed))
    counts = torch.bincount(labels)
    least = int(counts[counts > 0].min())
    assert len(folds) == (0 if least == 1 else min(5, least))
    if folds:
        assert torch.stack(folds).sum(0).tolist() == [1] * len(labels)
        for fold in folds:
            share = torch.bincount(labels[fold], minlength=len(counts))
            assert ((share - counts / len(folds)).abs() < 1).all()


def test_the_strength_is_that_of_the_least_loss_of_what_is_left_out():
    embeddings, labels = labelled(60)
    folds = folds_of(labels, torch.Generator().manual_seed(0))
    start = a_start()
    lost = {}
    for strength in (1e4, 1.0, 1e-4):
        total = 0.0
        for fold in folds:
            tuned = fine_tune(embeddings[~fold], labels[~fold], start, strength)
            total += loss_at_start(embeddings[fold], labels[fold], tuned)
        lost[strength] = float(total)
    found = chosen_strength(lambda z, y, s: fine_tune(z, y, start, s), embeddings, labels, folds, [1e4, 1.0, 1e-4])
    assert found == min(lost, key=lost.get)
    assert chosen_strength(lambda z, y, s: start, embeddings, labels, []) == 1.0
