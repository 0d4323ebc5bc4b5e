"""Draws from the conditional on a reference set, by blocks of references: their law, their memory, their seeds."""

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare, kstest

from pcl.choice import gumbel
from pcl.conditional import Conditional
from pcl.encoders.build import build_model
from tests.modest import modest

pytestmark = pytest.mark.long

BLOCK = "pcl.references.BLOCK_REFERENCES"


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def problem(num_references, num_queries=3, dim=2, seed=0, scale=1.0):
    """Return features of references and queries, float64, and a log prior that leaves a third of the references out."""
    generator = seeded(seed)
    sizes = (num_references, dim), (num_queries, dim), (num_references,)
    references, queries, log_prior = (torch.randn(size, generator=generator, dtype=torch.float64) for size in sizes)
    left_out = torch.arange(num_references) % 3 == 1
    left_out[num_references // 4 : num_references // 2] = num_references > 8
    return scale * references, queries, log_prior.masked_fill(left_out, -math.inf)


def weights_of(references, queries, log_prior, temperature=1.0):
    """Return w^(1/T), normalised, by numpy, (Q, N)."""
    logs = (queries.numpy() @ references.numpy().T + log_prior.numpy()) / temperature
    weights = np.exp(logs - logs.max(1, keepdims=True))
    return weights / weights.sum(1, keepdims=True)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
@pytest.mark.parametrize("block", [3, 1000])
def test_draws_with_replacement_have_the_tempered_law(temperature, block, monkeypatch):
    monkeypatch.setattr(BLOCK, block)
    given = problem(12)
    drawn = Conditional(given[0], 1.0, given[2]).draw(given[1], 20_000, seeded(1), temperature=temperature)
    for counts, weights in zip(
        (np.bincount(row, minlength=12) for row in drawn), weights_of(*given, temperature), strict=True
    ):
        there = weights > 0
        assert counts[~there].sum() == 0
        assert chisquare(counts[there], 20_000 * weights[there]).pvalue > 1e-3


@pytest.mark.parametrize(("temperature", "block"), [(1.0, 1000), (2.0, 2)])
def test_draws_without_replacement_are_successive(temperature, block, monkeypatch):
    """Ordered pairs of four references: P(i, j) = w_i w_j / (1 - w_i)."""
    monkeypatch.setattr(BLOCK, block)
    references, number = torch.tensor([[0.0], [1.0], [-1.0], [0.5], [7.0]]), 3000
    prior = torch.tensor([0.0, 0.0, 0.0, 0.0, -math.inf])
    queries = torch.ones(number, 1)
    drawn = Conditional(references, 1.0, prior).draw(queries, 2, seeded(3), replacement=False, temperature=temperature)
    (weights,) = weights_of(references.double(), queries[:1].double(), prior.double(), temperature)
    pairs = [*itertools.permutations(range(4), 2)]
    expected = np.array([weights[i] * weights[j] / (1 - weights[i]) for i, j in pairs])
    counts = np.array([((drawn[:, 0] == i) & (drawn[:, 1] == j)).sum() for i, j in pairs])
    assert counts.sum() == number
    assert chisquare(counts, number * expected).pvalue > 1e-3


def test_all_references_are_drawn_without_replacement_once():
    references, queries, log_prior = problem(100)
    conditional, there = Conditional(references, 0.01, log_prior), (log_prior > -math.inf).nonzero()[:, 0]
    drawn = conditional.draw(queries, len(there), seeded(), replacement=False)
    assert all(torch.equal(row.sort().values, there) for row in drawn)


def test_gumbel_noise_has_its_law():
    assert kstest(gumbel(100_000, seeded(5), torch.device("cpu")).numpy(), "gumbel_r").pvalue > 1e-3


@pytest.mark.parametrize("replacement", [True, False])
@pytest.mark.parametrize("temperature", [0.7, 1.0])
def test_one_seed_gives_the_same_draws_whatever_the_block(replacement, temperature, monkeypatch):
    references, queries, log_prior = problem(1000, 5)
    conditional = Conditional(references.float(), 1.0, log_prior)

    def draws(block):
        monkeypatch.setattr(BLOCK, block)
        options = {"replacement": replacement, "temperature": temperature}
        return conditional.draw(queries, 50, seeded(9), **options)

    whole = draws(1000)
    if replacement:
        monkeypatch.setattr("pcl.references.BLOCK_SCORES", 2000)
        assert torch.equal(draws(1000), whole)
    for block in (999, 250, 64, 7):
        assert torch.equal(draws(block), whole)


@given(
    st.integers(1, 60), st.integers(1, 5), st.sampled_from([0.1, 1.0, 30.0]), st.integers(1, 70), st.integers(0, 999)
)
@settings(deadline=None, max_examples=40)
def test_what_is_said_by_blocks_is_what_is_said_at_once(num_references, num_queries, scale, block, seed):
    references, queries, log_prior = problem(num_references, num_queries, seed=seed, scale=scale)
    weights = weights_of(references, queries, log_prior)
    values = np.random.default_rng(seed).normal(5, 1, (num_references, 2))
    there = int((log_prior > -math.inf).sum())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(BLOCK, block)
        patch.setattr("pcl.references.BLOCK_SCORES", 2 * block)
        found = Conditional(references, 1.0, log_prior)
        np.testing.assert_allclose(found.effective_sample_size(queries), 1 / (weights**2).sum(1), rtol=1e-9)
        np.testing.assert_allclose(found.mean(queries, values), weights @ values, rtol=1e-9)
        spread = weights @ values**2 - (weights @ values) ** 2
        np.testing.assert_allclose(found.variance(queries, values), spread, rtol=1e-7, atol=1e-9)
        np.testing.assert_array_equal(found.mode(queries), weights.argmax(1))
        indices, largest = found.best(queries, there)
        np.testing.assert_array_equal(indices, np.argsort(-weights, 1, kind="stable")[:, :there])
        np.testing.assert_allclose(largest, -np.sort(-weights, 1)[:, :there], rtol=1e-9)
        np.testing.assert_allclose(found.weights_of(queries, indices), largest, rtol=1e-9)
        flat = found.weights_of(queries, indices, temperature=2.0)
        np.testing.assert_allclose(
            flat, np.take_along_axis(weights_of(references, queries, log_prior, 2.0), indices.numpy(), 1)
        )
        tempered = (weights_of(references, queries, log_prior, 2.0) ** 2).sum(1)
        np.testing.assert_allclose(found.effective_sample_size(queries, temperature=2.0), 1 / tempered, rtol=1e-9)


NUM_MANY = 2**22


@pytest.fixture(scope="module")
def many():
    """A conditional on 2^22 references, a query, and its weights in float64."""
    features = torch.randn(NUM_MANY, 4, generator=seeded(7))
    query = torch.tensor([[1.0, -0.5, 0.25, 0.0]])
    logs = features.numpy().astype(np.float64) @ query[0].double().numpy()
    weights = np.exp(logs - logs.max())
    return Conditional(features, 1.0), query, weights / weights.sum()


@pytest.mark.parametrize("replacement", [True, False])
def test_draws_from_four_million_references_have_the_right_law(many, replacement):
    """By place, and by size of the weight; of draws without replacement the share taken is too small to be seen."""
    conditional, query, weights = many
    number = 100_000 if replacement else 8000
    drawn = conditional.draw(query, number, seeded(11), replacement=replacement)[0].numpy()
    bins = 64 * np.arange(NUM_MANY) // NUM_MANY
    sizes = np.searchsorted(np.quantile(weights, np.linspace(0, 1, 17)[1:-1]), weights)
    for group in (bins, sizes):
        expected = np.bincount(group, weights) * number
        assert chisquare(np.bincount(group[drawn], minlength=len(expected)), expected).pvalue > 1e-3
    assert replacement or len(set(drawn.tolist())) == number
    np.testing.assert_allclose(conditional.weights_of(query, drawn[None])[0], weights[drawn], rtol=1e-5)


def test_many_queries_of_four_million_references_take_little_memory(many):
    """32 queries: their weights in double precision would be 1.1 GB, in single 0.5 GB."""
    conditional, query, _ = many
    queries = query + 0.1 * torch.randn(32, 4, generator=seeded(2))
    conditional.draw(query, 1, seeded())  # libraries take their memory at first use
    with modest(most_bytes=350_000_000, most_s=30):
        conditional.draw(queries, 100, seeded())
        conditional.best(queries, 10)
        conditional.effective_sample_size(queries)
    with modest(most_bytes=350_000_000, most_s=30):
        conditional.draw(queries[:1], 100, seeded(), replacement=False)


def test_arrays_of_numpy_are_answered_with_arrays():
    references, queries, _ = problem(9)
    found = Conditional(references.numpy(), 1.0)
    indices, weights = found.best(queries.numpy(), 4)
    assert isinstance(indices, np.ndarray)
    assert isinstance(weights, np.ndarray)
    drawn = found.draw(queries.numpy(), 4, seeded(), replacement=False)
    assert isinstance(found.weights_of(queries.numpy(), drawn), np.ndarray)


def test_references_that_lie_on_disk_are_read_a_block_at_a_time(tmp_path, monkeypatch):
    linear = {"kind": "linear", "shape": [1000]}
    tau = {"initial": 1.0, "learned": False, "minimum": 0.1, "maximum": 10.0}
    spec = {"embedding_dim": 2, "encoder_u": linear, "encoder_v": linear, "tilting": "cosine", "temperature": tau}
    model = build_model(spec | {"dtype": "float32"})
    items = np.random.default_rng(0).normal(size=(9000, 1000)).astype(np.float32)
    np.save(tmp_path / "u.npy", items)
    np.save(tmp_path / "short.npy", items[:2, :5])
    sizes, checked = [], model._checked

    def watched(name, encoder, part):
        sizes.append(len(part))
        return checked(name, encoder, part)

    monkeypatch.setattr(model, "_checked", watched)
    found = model.conditional("u_given_v", np.load(tmp_path / "u.npy", mmap_mode="r"))
    assert max(sizes) * items[0].nbytes <= 4_000_000
    assert torch.equal(found.features, model.conditional("u_given_v", items).features)
    short = np.load(tmp_path / "short.npy", mmap_mode="r")
    with pytest.raises(ValueError, match=r"u of shape \(2, 5\): needed is \(N, 1000\)"):
        model.conditional("u_given_v", short)


def test_weights_are_formed_where_it_is_asked():
    found = Conditional(torch.ones(3, 2), 1.0, device="meta")
    assert (found.features.device.type, found.log_prior.device.type) == ("meta", "meta")


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda c, q: c.draw(q, 0, seeded()), "num_samples=0: draw at least one"),
        (lambda c, q: c.draw(q, 4, seeded(), replacement=False), "num_samples=4: 3 references have a weight"),
        (lambda c, q: c.draw(q, 0, seeded(), replacement=False), "num_samples=0: 3 references have a weight"),
        (lambda c, q: c.draw(q, 1, seeded(), temperature=0.0), "temperature 0: "),
        (lambda c, q: c.draw(q, 1, seeded(), temperature=math.nan), "temperature nan: "),
        (lambda c, q: c.best(q, 4), "num_best=4: 3 references have a weight, choose 1 to as many"),
        (
            lambda c, q: c.weights_of(q, torch.zeros(3, dtype=torch.long)),
            r"indices of shape \(3,\): needed is \(1, n\)",
        ),
    ],
)
def test_what_cannot_be_drawn_is_refused(call, message):
    conditional = Conditional(torch.eye(4), 1.0, torch.tensor([0.0, 0.0, -math.inf, 0.0]))
    with pytest.raises(ValueError, match=message):
        call(conditional, torch.ones(1, 4))
