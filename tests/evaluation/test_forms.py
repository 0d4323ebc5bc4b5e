"""Items as vectors: n-grams counted in dictionaries, pixels averaged in loops, labels, units."""

import math
from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pcl.data.manifest import ArrayInfo
from pcl.evaluation import forms
from pcl.evaluation.forms import Vectors


def text_rule(length=40, dtype="uint8"):
    return Vectors("text", ArrayInfo(dtype, (length,), "1", "", statistics="none"), {})


def stored(sentences, length=40):
    rows = [np.frombuffer(text.encode().ljust(length, b"\0"), np.uint8) for text in sentences]
    return torch.from_numpy(np.stack(rows))


def counted(symbols, sizes):
    """Return the n-grams of a sequence, log(1 + count) each, of length 1."""
    counts = Counter(tuple(symbols[i : i + n]) for n in sizes for i in range(len(symbols) - n + 1))
    logs = {gram: math.log1p(count) for gram, count in counts.items()}
    length = math.sqrt(sum(value**2 for value in logs.values())) or 1.0
    return {gram: value / length for gram, value in logs.items()}


def product(one, other):
    return sum(value * other.get(gram, 0.0) for gram, value in one.items())


def test_texts_are_compared_by_the_n_grams_that_they_share(monkeypatch):
    monkeypatch.setattr(forms, "NUM_BUCKETS", 2**16)  # in which those of a few texts do not meet
    sentences = ["green heart", "Green Hearts", "heart, green", "aaaa", "grüner Baum"]
    found = text_rule()(stored(sentences))
    grams = [counted(f" {text} ".lower().replace("Ü", "ü").encode(), (2, 3, 4)) for text in sentences]
    for i, one in enumerate(grams):
        for j, other in enumerate(grams):
            assert (found[i] @ found[j]).item() == pytest.approx(product(one, other), abs=1e-5)
    assert found[0] @ found[1] > found[0] @ found[2] > found[0] @ found[3]


def test_tokens_are_compared_alone_and_in_twos(monkeypatch):
    monkeypatch.setattr(forms, "NUM_BUCKETS", 2**16)
    items = torch.tensor([[5, 900, 5, 0], [900, 5, 0, 0], [7, 0, 0, 0], [0, 0, 0, 0]], dtype=torch.int32)
    found = text_rule(4, "int32")(items)
    grams = [counted([token for token in row if token], (1, 2)) for row in items.tolist()]
    expected = [[product(one, other) for other in grams] for one in grams]
    torch.testing.assert_close(found @ found.T, torch.tensor(expected), atol=1e-5, rtol=0)


@pytest.mark.long
@given(st.lists(st.text(max_size=10).filter(lambda text: "\0" not in text), min_size=1, max_size=5))
@settings(deadline=None, max_examples=30)
def test_the_length_of_storage_and_the_neighbours_do_not_matter(sentences):
    short, long = text_rule(40)(stored(sentences)), text_rule(70)(stored(sentences, 70))
    torch.testing.assert_close(short, long)
    torch.testing.assert_close(short.norm(dim=1), torch.ones(len(short)))
    torch.testing.assert_close(short[-1:], text_rule()(stored(sentences[-1:])))


@pytest.mark.parametrize("shape", [(130, 70), (3, 130, 70), (2, 8, 9)])
def test_large_images_are_averaged_over_squares(shape):
    rule = Vectors("image", ArrayInfo("uint8", shape, "1", "", statistics="scalar"), {})
    items = torch.randint(0, 256, (2, *shape), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    square = 3 if shape[-2] == 130 else 1
    *_, height, width = shape
    rows = [slice(i, i + square) for i in range(0, height, square)]
    columns = [slice(i, i + square) for i in range(0, width, square)]
    expected = [[items[..., r, c].double().mean((-2, -1)) for c in columns] for r in rows]
    expected = torch.stack([torch.stack(row, -1) for row in expected], -2).flatten(1)
    found = rule(items)
    torch.testing.assert_close(found.double(), expected, rtol=1e-6, atol=1e-4)
    assert rule.num_components == found.shape[1] == expected.shape[1]


def test_numbers_are_in_units_of_their_standard_deviation_where_it_is_known():
    info = ArrayInfo("int16", (3,), "m", "", scale_factor=0.5)
    rule = Vectors("numbers", info, {"mean": [0, 0, 0], "std": [1.0, 4.0, 0.0]})
    torch.testing.assert_close(rule(torch.tensor([[4, 8, 9]], dtype=torch.int16)), torch.tensor([[2.0, 1.0, 0.0]]))
    plain = Vectors("numbers", ArrayInfo("float64", (), "m", "", statistics="none"), {})
    assert plain(torch.tensor([4.0, 8.0])).tolist() == [[4], [8]]
    assert plain.num_components == 1


def test_labels_are_unit_vectors_where_their_number_is_known():
    rule = Vectors("labels", ArrayInfo("uint8", (), "1", "", statistics="counts"), {"counts": [3, 0, 1]})
    assert rule(torch.tensor([2, 0], dtype=torch.uint8)).tolist() == [[0, 0, 1], [1, 0, 0]]
    assert rule.are_labels
    assert not Vectors("labels", ArrayInfo("int64", (), "1", "", statistics="scalar"), {"mean": 0, "std": 1}).are_labels
