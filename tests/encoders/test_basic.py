"""Encoders: shapes, standardisation against numpy, and what each refuses."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pcl.encoders import Identity, Linear, OneHot, Standardise, make_encoder
from pcl.errors import BadInputError
from pcl.problems.mnist.lenet import LeNet


@pytest.fixture
def double_precision():
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.mark.parametrize(
    ("kind", "shape", "dim"),
    [
        ("linear", (12,), 5),
        ("linear", (3, 4), 5),
        ("linear", (), 2),
        ("lenet", (28, 28), 10),
        ("one_hot", (), 10),
        ("identity", (6,), 6),
        ("identity", (2, 3), 6),
        ("identity", (), 1),
    ],
)
def test_an_encoder_makes_embeddings_of_any_batch(kind, shape, dim):
    encoder = make_encoder(kind, shape, dim)
    stored = torch.randint(0, 10, (4, *shape), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    embedding = encoder(stored)
    assert embedding.shape == (4, dim)
    assert embedding.dtype == torch.float32
    torch.testing.assert_close(encoder(stored[1:2]), embedding[1:2], rtol=1e-5, atol=1e-6)
    assert encoder(stored[:0]).shape == (0, dim)


@pytest.mark.usefixtures("double_precision")
@pytest.mark.parametrize("kind", ["linear", "lenet", "one_hot", "identity"])
def test_an_encoder_built_in_double_precision_stays_there(kind):
    shape, dim = {"linear": ((3,), 2), "lenet": ((28, 28), 10), "one_hot": ((), 10), "identity": ((3,), 3)}[kind]
    encoder = make_encoder(kind, shape, dim)
    assert encoder(torch.ones(2, *shape, dtype=torch.float32)).dtype == torch.float64
    assert {t.dtype for t in [*encoder.parameters(), *encoder.buffers()]} == {torch.float64}


@pytest.mark.usefixtures("double_precision")
@given(st.integers(1, 5), st.floats(1e-3, 1e3), st.integers(0, 2**32 - 1))
@settings(deadline=None, max_examples=30)
def test_standardise_is_that_of_numpy(dim, scale_factor, seed):
    generator = np.random.default_rng(seed)
    stored = generator.integers(-100, 100, (7, dim)).astype(np.int16)
    physical = stored.astype(np.float64) * scale_factor
    mean, std = physical.mean(0), physical.std(0)
    found = Standardise(scale_factor, mean.tolist(), std.tolist())(torch.from_numpy(stored))
    np.testing.assert_allclose(found, (physical - mean) / np.where(std > 0, std, 1), rtol=1e-10, atol=1e-10)


def test_a_component_that_does_not_vary_is_only_centred():
    standardise = Standardise(2.0, mean=[10.0, 3.0], std=[0.0, 0.5])
    torch.testing.assert_close(standardise(torch.tensor([[5.0, 2.0], [6.0, 2.0]])), torch.tensor([[0.0, 2], [2, 2]]))
    assert Standardise(mean=4.0, std=0.0)(torch.tensor([5])).tolist() == [1.0]


def test_images_of_bytes_are_scaled_before_they_are_standardised():
    images = torch.arange(256, dtype=torch.uint8).view(1, 16, 16)
    expected = (np.arange(256.0).reshape(1, 16, 16) / 255 - 0.1307) / 0.3081
    found = Standardise(1 / 255, 0.1307, 0.3081)(images)
    assert found.dtype == torch.float32
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_standardisation_is_saved_with_the_encoder():
    saved = make_encoder("linear", (2,), 3, scale_factor=0.5, mean=[1.0, 2.0], std=[3.0, 4.0])
    other = make_encoder("linear", (2,), 3, mean=[0.0, 0.0], std=[1.0, 1.0])
    other.load_state_dict(saved.state_dict())
    x = torch.tensor([[1.0, -7.0]])
    assert torch.equal(saved(x), other(x))
    assert not any(name.endswith(("scale", "shift")) for name, _ in saved.named_parameters())


def test_the_linear_encoder_is_a_matrix_without_bias():
    encoder = Linear((2, 3), 4)
    (matrix,) = encoder.parameters()
    x = torch.randn(5, 2, 3, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(encoder(x), torch.einsum("ei,bi->be", matrix, x.reshape(5, 6)))


def test_make_encoder_standardises_before_the_network():
    encoder = make_encoder("identity", (2,), 2, scale_factor=0.5, mean=[1.0, 2.0], std=[2.0, 4.0])
    torch.testing.assert_close(encoder(torch.tensor([[4.0, 12.0]])), torch.tensor([[0.5, 1.0]]))
    labels = make_encoder("one_hot", (), 3, mean=1.0, std=2.0)  # labels are no quantity
    assert labels(torch.tensor([1])).tolist() == [[0.0, 1.0, 0.0]]


def test_one_hot_rows_are_those_of_the_identity_and_nothing_is_learned():
    encoder = OneHot((), 4)
    for dtype in (torch.uint8, torch.int64, torch.float32):
        assert torch.equal(encoder(torch.tensor([2, 0, 3], dtype=dtype)), torch.eye(4)[[2, 0, 3]])
    assert not list(encoder.parameters())
    assert not encoder.state_dict()


@pytest.mark.parametrize("label", [-1, 4])
def test_a_label_outside_the_range_is_refused(label):
    with pytest.raises((IndexError, ValueError)):
        OneHot((), 4)(torch.tensor([0, label]))


def test_lenet_has_the_layers_of_lenet_5():
    assert sum(p.numel() for p in LeNet((28, 28), 10).parameters()) == 61_706  # 156 + 2,416 + 48,120 + 10,164 + 850


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: LeNet((32, 32), 10), r"28 x 28 images, not items of shape \(32, 32\)"),
        (lambda: LeNet((1, 28, 28), 10), "28 x 28 images"),
        (lambda: OneHot((1,), 10), "one label per pair"),
        (lambda: Identity((5,), 4), "keeps 5 numbers but model.embedding_dim is 4"),
        (lambda: Identity((), 2), "keeps 1 numbers"),
        (lambda: make_encoder("resnet", (28, 28), 10), "'resnet' is not known; choose one of linear, one_hot"),
    ],
)
def test_an_encoder_that_does_not_fit_is_refused(make, message):
    with pytest.raises(BadInputError, match=message):
        make()


def test_a_model_takes_truths_as_they_are_stored():
    encoder = make_encoder("linear", (3,), 2, dtype="bool")
    truths = np.array([[True, False, True]])
    assert encoder.items.checked("u", truths).tolist() == [[1, 0, 1]]
    torch.testing.assert_close(encoder(torch.from_numpy(truths)), encoder(encoder.items.checked("u", truths)))
    with pytest.raises(ValueError, match="u of dtype float64: needed is bool, as stored"):
        encoder.items.checked("u", truths + 0.0)
    with pytest.raises(ValueError, match="u with a value of 2: needed is bool, as stored, 0 to 1"):
        encoder.items.checked("u", truths * 2)
