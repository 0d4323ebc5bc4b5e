"""Compiled encoders: the same gradients to rounding, the same names, or one line that says why not."""

import pytest
import torch

from pcl.encoders import make_encoder
from pcl.encoders.build import build_model
from pcl.encoders.compiled import compiled
from pcl.encoders.frozen import trust_program
from pcl.encoders.recompute import recompute_blocks
from pcl.errors import BadInputError
from pcl.objective import make_loss
from pcl.train.averaging import GradientAverage
from pcl.train.clock import Clock
from pcl.train.gradient import Step
from pcl.workers import OneWorker

CPU = torch.device("cpu")
SPEC = {
    "embedding_dim": 4,
    "encoder_u": {"kind": "mlp", "shape": [6], "widths": [8], "dropout": 0.4},
    "encoder_v": {"kind": "one_hot", "shape": []},
    "tilting": "cosine",
    "temperature": {"initial": 0.5, "learned": True, "minimum": 0.1, "maximum": 9.0},
    "dtype": "float64",
}


def gradients(is_compiled, chunk_pairs, recompute=False):
    model = build_model(SPEC, seed=0)
    names = list(model.state_dict())
    if recompute:
        recompute_blocks(model)
    both = (compiled(model.encoder_u, CPU), compiled(model.encoder_v, CPU)) if is_compiled else None
    step = Step(model, 3, make_loss("conditional"), OneWorker(), Clock(), encoders=both, chunk_pairs=chunk_pairs)
    batch = torch.randn(12, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64), torch.arange(12) % 4
    step.backward(batch, GradientAverage(model.parameters(), OneWorker()).begin)
    assert list(model.state_dict()) == names
    return [parameter.grad for parameter in model.parameters()]


def check_gradients(chunk_pairs, recompute):
    for found, expected in zip(gradients(True, chunk_pairs, recompute), gradients(False, chunk_pairs), strict=True):
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)


@pytest.mark.slow
@pytest.mark.process
@pytest.mark.parametrize("recompute", [False, True])
@pytest.mark.parametrize("chunk_pairs", [0, 5])
def test_gradients_are_those_without_to_rounding_with_the_same_dropout(chunk_pairs, recompute):
    check_gradients(chunk_pairs, recompute)


@pytest.fixture
def traced(monkeypatch):
    """What is compiled is traced and differentiated, and runs without kernels of its own."""
    original = torch.compile

    def traced(function, *, dynamic, options=None):
        return original(function, dynamic=dynamic, backend="aot_eager")

    monkeypatch.setattr(torch, "compile", traced)


@pytest.mark.long
@pytest.mark.parametrize("recompute", [False, True])
def test_gradients_of_what_is_traced(traced, recompute):
    check_gradients(5, recompute)


@pytest.mark.long
def test_an_exported_program_runs_as_it_is(traced, tmp_path):
    items, batch = torch.randn(5, 6), torch.export.Dim("batch")
    program = torch.export.export(torch.nn.Linear(6, 8).eval(), (items,), dynamic_shapes=({0: batch},))
    torch.export.save(program, tmp_path / "program.pt2")
    encoder = make_encoder("frozen", (6,), 4, sha256=trust_program(tmp_path / "program.pt2"), widths=[8])
    expected = encoder(items)
    torch.testing.assert_close(compiled(encoder, CPU)(items), expected)


@pytest.mark.long
def test_an_encoder_that_cannot_be_compiled_is_named_in_a_line(monkeypatch):
    def broken(graph, inputs):
        raise RuntimeError("no kernel for this\nand more")

    original = torch.compile
    monkeypatch.setattr(torch, "compile", lambda function, **_: original(function, backend=broken))
    monkeypatch.setattr(
        "pcl.encoders.compiled._check", lambda device: original(torch.sin, backend="eager")(torch.ones(1))
    )
    with pytest.raises(
        BadInputError, match=r"^train.compile=true: torch.compile does not take .*no kernel.*: leave it out$"
    ):
        compiled(torch.nn.Linear(2, 2), CPU)(torch.ones(1, 2))


def test_a_machine_on_which_nothing_compiles_is_told_what_it_lacks(monkeypatch):
    def refuse(*_, **__):
        raise RuntimeError("No working C++ compiler found\n\nSet TORCHDYNAMO_VERBOSE=1")

    monkeypatch.setattr(torch, "compile", refuse)
    line = r"^train.compile=true: torch.compile does not work here \(No working C\+\+ compiler found\): install a C\+\+"
    with pytest.raises(BadInputError, match=line):
        compiled(torch.nn.Linear(2, 2), CPU)
    one_hot = torch.nn.Identity()
    assert compiled(one_hot, CPU) is one_hot  # nothing to compile, nothing to refuse
