"""Encoders of texts: n-grams against a loop, attention against its formula, padding that changes nothing."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pcl.encoders import make_encoder
from pcl.encoders.text import MULTIPLIER, PRIME, ngram_buckets, text
from pcl.errors import BadInputError

SMALL = {
    "ngrams": {"architecture": "ngrams", "width": 8, "buckets": 50, "widths": [6]},
    "transformer": {"architecture": "transformer", "width": 8, "num_heads": 2, "depth": 2},
}


@pytest.fixture(autouse=True)
def double_precision():
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def padded(texts, length):
    rows = np.zeros((len(texts), length), np.uint8)
    for row, one in zip(rows, texts, strict=True):
        row[: len(one)] = list(one)
    return torch.from_numpy(rows)


def buckets_by_loop(one, longest, buckets):
    found = []
    for n in range(1, longest + 1):
        for start in range(len(one) - n + 1):
            code = n
            for value in one[start : start + n]:
                code = (code * MULTIPLIER + value + 1) % PRIME
            found.append(1 + code % buckets)
    return found


@given(st.lists(st.binary(max_size=9).map(lambda b: b.replace(b"\0", b"x")), min_size=1, max_size=4), st.integers(1, 5))
@settings(deadline=None, max_examples=50)
def test_n_grams_are_those_of_a_loop(texts, longest):
    found = ngram_buckets(padded(texts, 9), longest, 37)
    for row, one in zip(found.tolist(), texts, strict=True):
        assert sorted(b for b in row if b) == sorted(buckets_by_loop(one, longest, 37))


def test_few_n_grams_share_a_bucket():
    codes = [buckets_by_loop([a, b], 2, 2**40)[-1] for a in range(1, 256) for b in range(1, 256)]
    assert len(set(codes)) == len(codes)
    spread = np.bincount([code % 4096 for code in codes], minlength=4096)
    assert spread.max() < 50  # 16 of each are expected


def test_a_bag_is_the_mean_of_its_vectors():
    encoder = text((12,), 3, **SMALL["ngrams"]).requires_grad_(False)
    texts = [b"a dog", b"x", b"aaaaaaaaaaaa", b""]
    vectors = encoder.vectors.weight.numpy()
    for one, found in zip(texts, encoder(padded(texts, 12)), strict=True):
        buckets = buckets_by_loop(one, 3, 50)
        mean = vectors[buckets].mean(0) if buckets else np.zeros(8)
        h = (mean - mean.mean()) / np.sqrt(mean.var() + 1e-5)
        hidden, last = encoder.head.layers
        z = torch.nn.functional.gelu(torch.from_numpy(hidden.layers[0].weight.numpy() @ h) + hidden.layers[0].bias)
        np.testing.assert_allclose(found, last.weight @ z + last.bias, rtol=1e-10, atol=1e-12)


def softmax(scores):
    exponentials = np.exp(scores - scores.max(-1, keepdims=True))
    return exponentials / exponentials.sum(-1, keepdims=True)


def test_a_transformer_is_its_formula():
    encoder = text((7,), 3, **SMALL["transformer"]).requires_grad_(False)
    one = [0, *b"dog"]

    def norm(layer, x):
        x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-5)
        return x * layer.weight.numpy() + layer.bias.numpy()

    def linear(layer, x):
        return x @ layer.weight.numpy().T + layer.bias.numpy()

    places = [[np.sin, np.cos][i % 2](np.arange(4) * 1e4 ** (-(i // 2) * 2 / 8)) for i in range(8)]
    x = encoder.vectors.weight.numpy()[one] + np.stack(places, 1)
    for block in encoder.blocks:
        q, k, v = (
            part.reshape(4, 2, 4) for part in np.split(linear(block.queries_keys_values, norm(block.norm, x)), 3, 1)
        )
        weights = softmax(np.einsum("ihd,jhd->hij", q, k) / 2)
        x = x + linear(block.out, np.einsum("hij,jhd->ihd", weights, v).reshape(4, 8))
        inner = linear(block.layers[0], norm(block.norm_after, x))
        x = x + linear(block.layers[2], torch.nn.functional.gelu(torch.from_numpy(inner)).numpy())
    wanted = linear(encoder.project, norm(encoder.norm, x).mean(0))
    np.testing.assert_allclose(encoder(padded([b"dog"], 7))[0], wanted, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("architecture", SMALL)
@given(texts=st.lists(st.binary(max_size=6), min_size=1, max_size=4), more=st.integers(0, 9))
@settings(deadline=None, max_examples=25)
def test_neither_padding_nor_the_texts_beside_it_change_an_embedding(architecture, texts, more):
    texts = [one.replace(b"\0", b"x") for one in texts]
    encoder = text((6,), 3, **SMALL[architecture])
    whole = encoder(padded(texts, 6 + more))
    assert torch.isfinite(whole).all()
    for one, embedding in zip(texts, whole, strict=True):
        alone = encoder(padded([one], max(1, len(one))))[0]
        torch.testing.assert_close(embedding, alone, rtol=1e-10, atol=1e-11)
    order = list(range(len(texts)))[::-1]
    torch.testing.assert_close(encoder(padded([texts[i] for i in order], 6)), whole[order], rtol=1e-10, atol=1e-11)


@pytest.mark.parametrize("architecture", SMALL)
def test_a_text_of_nothing_but_padding_has_finite_embeddings_and_gradients(architecture):
    encoder = text((5,), 3, **SMALL[architecture])
    embedding = encoder(torch.zeros(2, 5, dtype=torch.uint8))
    embedding.square().sum().backward()
    assert torch.isfinite(embedding).all()
    assert all(torch.isfinite(p.grad).all() for p in encoder.parameters())


@pytest.mark.parametrize("architecture", SMALL)
@pytest.mark.parametrize("dtype", [torch.uint8, torch.int32, torch.int64])
def test_integers_of_any_dtype_go_in_as_they_are_and_gradients_reach_all(architecture, dtype):
    encoder = make_encoder("text", (9,), 4, mean=3.0, std=2.0, dtype="uint8", **SMALL[architecture])
    texts = padded([b"a dog", b"two cats"], 9).to(dtype)
    embedding = encoder(texts)
    torch.testing.assert_close(embedding, encoder(texts.to(torch.uint8)), rtol=0, atol=0)
    (embedding * torch.arange(8.0).view(2, 4)).sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in encoder.parameters())
    assert encoder(texts[:0]).shape == (0, 4)


@pytest.mark.parametrize("architecture", SMALL)
def test_a_model_takes_texts_as_they_are_stored(architecture):
    items = make_encoder("text", (9,), 4, dtype="uint8", **SMALL[architecture]).items
    assert items.checked("v", padded([b"a dog"], 9)).dtype == torch.uint8
    with pytest.raises(ValueError, match="v of dtype float64: needed is uint8, as stored; round and convert"):
        items.checked("v", np.zeros((1, 9)))
    with pytest.raises(ValueError, match=r"v of shape \(1, 8\): needed is \(N, 9\)"):
        items.checked("v", padded([b"a dog"], 8))


def test_parameters_are_counted_by_hand():
    bag = text((9,), 4, architecture="ngrams", width=8, buckets=50, widths=[6])
    assert sum(p.numel() for p in bag.parameters()) == 51 * 8 + 16 + 8 * 6 + 6 + 6 * 4 + 4
    transformer = text((9,), 4, architecture="transformer", width=8, num_heads=2, depth=1, vocabulary=100)
    block = 2 * 16 + 3 * (64 + 8) + 64 + 8 + 8 * 32 + 32 + 32 * 8 + 8
    assert sum(p.numel() for p in transformer.parameters()) == 800 + block + 16 + 8 * 4 + 4


def test_word_order_matters_to_long_n_grams_and_to_the_transformer():
    texts = padded([b"dog bites man", b"man bites dog"], 13)
    for architecture in SMALL:
        one, other = text((13,), 3, **SMALL[architecture])(texts)
        assert not torch.allclose(one, other)
    one, other = text((13,), 3, **SMALL["ngrams"] | {"longest": 1})(texts)
    torch.testing.assert_close(one, other)


@pytest.mark.parametrize(
    ("shape", "settings", "message"),
    [
        ((), {}, r"takes texts of integers \(length,\), not items of shape \(\)"),
        ((3, 4), {}, "takes texts"),
        ((9,), {"architecture": "lstm"}, "the text encoder: architecture=lstm: choose one of ngrams, transformer"),
        ((9,), {"width": 0}, "width=0: it must be at least 1"),
        ((9,), {"longest": 0}, "longest=0: it must be at least 1"),
        ((9,), {"longest": 17}, "longest=17: it must be at most 16"),
        ((9,), {"buckets": 0}, "buckets=0: it must be at least 1"),
        ((9,), {"vocabulary": 1}, "vocabulary=1: it must be at least 2"),
        ((9,), {"depth": -1}, "depth=-1: it must be at least 0"),
        ((9,), {"num_heads": 0}, "num_heads=0: it must be at least 1"),
        ((9,), {"dropout": 1.0}, "dropout=1.0: it must be at most 0.99"),
        ((9,), {"widths": [0]}, r"widths=\[0\]: 0 must be at least 1"),
        ((9,), {"architecture": "transformer", "width": 8, "num_heads": 3}, "num_heads=3 must divide width=8"),
    ],
)
def test_what_does_not_fit_is_refused(shape, settings, message):
    with pytest.raises(BadInputError, match=message):
        text(shape, 4, **settings)


@pytest.mark.parametrize("token", [-1, 100])
def test_a_token_beyond_the_vocabulary_is_named(token):
    encoder = text((3,), 4, architecture="transformer", width=8, num_heads=2, vocabulary=100)
    with pytest.raises(BadInputError, match=rf"token {token} and the vocabulary of the text encoder is 100"):
        encoder(torch.tensor([[1, 2, token]]))
