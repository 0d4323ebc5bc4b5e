"""Blocks that compute their activations again: the same bits, and less that is kept."""

import copy

import pytest
import torch

from pcl.encoders import make_encoder
from pcl.encoders.build import build_model
from pcl.encoders.recompute import blocks_of, recompute_blocks

DROPPING = {"dropout": 0.3}
ENCODERS = {
    "mlp": ({"kind": "mlp", "shape": (6,), "widths": [16, 16, 16], **DROPPING}, 3),
    "convnet": ({"kind": "convnet", "shape": (3, 20, 20), "width": 8, "blocks": 2, **DROPPING}, 4),
    "text": ({"kind": "text", "shape": (9,), "architecture": "transformer", "depth": 4, "width": 16, **DROPPING}, 4),
}


def kept_and_gradients(encoder, items, bf16=False):
    """Return the bytes that a forward pass keeps for the backward pass, and the gradients."""
    kept = {}

    def pack(tensor):
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    torch.manual_seed(0)
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            embedding = encoder(items)
        held = sum(kept.values())
        embedding.float().square().sum().backward()
    return held, [parameter.grad.clone() for parameter in encoder.parameters()]


@pytest.mark.parametrize("bf16", [False, True])
@pytest.mark.parametrize("name", ENCODERS)
def test_the_bits_are_the_same_with_dropout_and_less_is_kept(name, bf16):
    options, number = ENCODERS[name]
    torch.manual_seed(1)
    plain = make_encoder(embedding_dim=4, **options)
    again = copy.deepcopy(plain)
    assert recompute_blocks(again) == number
    assert list(again.state_dict()) == list(plain.state_dict())
    items = torch.randint(1, 200, (32, *options["shape"])).byte()
    (held, expected), (kept, found) = (kept_and_gradients(one, items, bf16) for one in (plain, again))
    assert all(map(torch.equal, found, expected))
    assert kept < 0.6 * held


def test_without_a_graph_nothing_is_different():
    options, _ = ENCODERS["text"]
    encoder = make_encoder(embedding_dim=4, **options).eval()
    items = torch.randint(1, 200, (5, 9)).byte()
    with torch.no_grad():
        expected = encoder(items)
        recompute_blocks(encoder)
        assert torch.equal(encoder(items), expected)


def test_a_network_of_both_modalities_counts_once():
    side = {"kind": "mlp", "shape": [6], "widths": [8, 8]}
    temperature = {"initial": 1.0, "learned": False, "minimum": 0.1, "maximum": 10.0}
    spec = {"embedding_dim": 2, "encoder_u": side, "encoder_v": side, "tilting": "cosine", "temperature": temperature}
    model = build_model({**spec, "dtype": "float32", "share": True})
    assert recompute_blocks(model) == 2


@pytest.mark.parametrize("kind", ["one_hot", "linear", "identity"])
def test_encoders_of_one_layer_have_little_to_recompute(kind):
    assert len(blocks_of(make_encoder(kind, () if kind == "one_hot" else (3,), 3))) <= 1
