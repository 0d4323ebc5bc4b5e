"""Residual networks of images: sizes, a block against its formula, and what they refuse."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pcl.encoders import make_encoder
from pcl.encoders.convnet import ConvNet, ResidualBlock
from pcl.errors import BadInputError

SHAPES = [(2, 1), (5, 3), (28, 28), (3, 32, 32), (3, 37, 20), (1, 8, 65), (4, 7, 1)]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("pool", ["flatten", "mean"])
def test_an_image_of_any_size_has_an_embedding_and_every_parameter_a_gradient(shape, pool):
    encoder = make_encoder("convnet", shape, 6, width=4, pool=pool, scale_factor=1 / 255)
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (3, *shape), dtype=torch.uint8, generator=generator)
    embedding = encoder(images)
    assert embedding.shape == (3, 6)
    torch.testing.assert_close(encoder(images[1:2]), embedding[1:2], rtol=1e-4, atol=1e-5)
    assert encoder(images[:0]).shape == (0, 6)
    weights = torch.randn(3, 6, generator=generator)
    (embedding * weights).sum().backward()
    assert all(p.grad is not None for p in encoder.parameters())
    if min(shape[-2:]) > 4:
        assert all(p.grad.abs().sum() > 0 for p in encoder.parameters())


@given(st.integers(1, 300), st.integers(2, 300))
@settings(deadline=None, max_examples=40)
def test_the_last_stage_has_about_four_rows_and_columns(height, width):
    with torch.device("meta"):
        found = ConvNet((1, height, width), 2, width=1, blocks=0).stages(torch.zeros(1, 1, height, width)).shape[2:]
    for size, last in zip((height, width), found, strict=True):
        assert min(size, 3) <= last <= 6, (size, last)


def test_its_parameters_are_counted_by_hand():
    found = sum(p.numel() for p in ConvNet((3, 32, 32), 10, width=8, blocks=1).parameters())
    convolutions = sum(9 * a * b + b for a, b in ((3, 8), (8, 16), (16, 32)))
    blocks = sum(2 * (9 * c * c + c) + 4 * c for c in (8, 16, 32))
    assert found == convolutions + blocks + 2 * 32 + 32 * 16 * 10 + 10


def test_a_block_is_its_formula():
    block, generator = ResidualBlock(8).double().requires_grad_(False), np.random.default_rng(0)
    x = generator.normal(size=(2, 8, 5, 4))
    h = x
    for number in (2, 5):
        mean, var = (f(h, axis=(2, 3), keepdims=True) for f in (np.mean, np.var))  # eight groups of one channel
        h = (h - mean) / np.sqrt(var + 1e-5)
        h = h / (1 + np.exp(-h))
        layer = block.layers[number]
        padded = np.pad(h, ((0, 0), (0, 0), (1, 1), (1, 1)))
        windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(2, 3))
        h = np.einsum("bchwij,dcij->bdhw", windows, layer.weight.numpy()) + layer.bias.numpy()[:, None, None]
    np.testing.assert_allclose(block(torch.from_numpy(x)), x + h, rtol=1e-10, atol=1e-10)


def test_no_image_depends_on_those_beside_it():
    network = ConvNet((3, 16, 16), 5, width=8).double()
    images = torch.randn(4, 3, 16, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    whole = network(images)
    torch.testing.assert_close(torch.cat([network(part) for part in images.split(1)]), whole, rtol=1e-10, atol=1e-12)


def test_flattened_places_tell_where_and_a_mean_does_not_after_one_stage():
    image = torch.zeros(1, 4, 4)
    image[0, 1, 1] = 1.0
    turned = image.rot90(2, (1, 2))
    for pool, differs in (("flatten", True), ("mean", False)):
        network = ConvNet((4, 4), 3, width=4, blocks=0, pool=pool)
        with torch.no_grad():
            network.stages[0].weight.zero_()[:, :, 1, 1] = 1.0
        assert torch.allclose(network(image), network(turned), atol=1e-6) != differs


@pytest.mark.parametrize(
    ("shape", "settings", "message"),
    [
        ((12,), {}, r"takes images .* not items of shape \(12,\): choose mlp"),
        ((), {}, "takes images"),
        ((5, 1, 1), {}, "takes images .* of two places or more"),
        ((1, 2, 3, 4), {}, "takes images"),
        ((8, 8), {"width": 0}, "the convnet encoder: width=0: it must be at least 1"),
        ((8, 8), {"blocks": -1}, "blocks=-1: it must be at least 0"),
        ((8, 8), {"blocks": 101}, "blocks=101: it must be at most 100"),
        ((8, 8), {"pool": "max"}, "pool=max: choose one of flatten, mean"),
        ((8, 8), {"dropout": 1.0}, "dropout=1.0: it must be at most 0.99"),
    ],
)
def test_what_does_not_fit_is_refused(shape, settings, message):
    with pytest.raises(BadInputError, match=message):
        ConvNet(shape, 4, **settings)
