"""Perceptrons: layers against products of matrices, and what they refuse."""

import math

import numpy as np
import pytest
import torch

from pcl.encoders import make_encoder
from pcl.encoders.mlp import MLP
from pcl.errors import BadInputError

FORMULAS = {
    "relu": lambda x: np.maximum(x, 0),
    "gelu": lambda x: x * (1 + np.vectorize(math.erf)(x / math.sqrt(2))) / 2,
    "silu": lambda x: x / (1 + np.exp(-x)),
    "tanh": np.tanh,
}


@pytest.fixture
def double_precision():
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.mark.usefixtures("double_precision")
@pytest.mark.parametrize("activation", FORMULAS)
@pytest.mark.parametrize("norm", ["none", "layer"])
def test_it_is_products_of_matrices(activation, norm):
    network = MLP((2, 3), 4, widths=[5, 5], activation=activation, norm=norm, residual=True).requires_grad_(False)
    maps = [module for module in network.modules() if isinstance(module, torch.nn.Linear)]
    x = np.random.default_rng(0).normal(size=(7, 2, 3))
    h = x.reshape(7, 6)
    for number, layer in enumerate(maps[:-1]):
        z = h @ layer.weight.numpy().T + layer.bias.numpy()
        if norm == "layer":
            z = (z - z.mean(1, keepdims=True)) / np.sqrt(z.var(1, keepdims=True) + 1e-5)
        h = FORMULAS[activation](z) + (h if number == 1 else 0)  # 6 numbers go into the first layer, 5 come out
    wanted = h @ maps[-1].weight.numpy().T + maps[-1].bias.numpy()
    np.testing.assert_allclose(network(torch.from_numpy(x)), wanted, rtol=1e-12, atol=1e-12)


def test_its_parameters_are_counted_by_hand():
    network = MLP((3, 4), 5, widths=[8, 6], norm="layer")
    assert sum(p.numel() for p in network.parameters()) == 12 * 8 + 8 + 2 * 8 + 8 * 6 + 6 + 2 * 6 + 6 * 5 + 5


def test_without_hidden_layers_it_is_a_linear_map_with_a_bias():
    assert sum(p.numel() for p in MLP((7,), 5, widths=[]).parameters()) == 7 * 5 + 5


@pytest.mark.parametrize("shape", [(), (1,), (5,), (2, 3, 1)])
def test_a_gradient_reaches_every_parameter(shape):
    encoder = make_encoder("mlp", shape, 3, widths=[6, 6], norm="layer", residual=True, activation="tanh")
    embedding = encoder(torch.randn(4, *shape, generator=torch.Generator().manual_seed(0)))
    embedding.square().sum().backward()
    assert embedding.shape == (4, 3)
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in encoder.parameters())


def test_dropout_is_of_training_alone():
    network, x = MLP((4,), 3, widths=[50], dropout=0.5), torch.ones(2, 4)
    assert not torch.equal(network(x), network(x))
    assert torch.equal(network.eval()(x), network(x))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"widths": [4, 0]}, r"widths=\[4, 0\]: 0 must be at least 1"),
        ({"widths": [10**7]}, "at most 1,000,000"),
        ({"activation": "elu"}, "the mlp encoder: activation=elu: choose one of relu, gelu, silu, tanh"),
        ({"norm": "batch"}, "norm=batch: choose one of none, layer"),
        ({"dropout": 1.0}, "dropout=1.0: it must be at most 0.99"),
        ({"dropout": -0.1}, "dropout=-0.1: it must be at least 0"),
    ],
)
def test_impossible_settings_are_refused(settings, message):
    with pytest.raises(BadInputError, match=message):
        MLP((3,), 2, **settings)
