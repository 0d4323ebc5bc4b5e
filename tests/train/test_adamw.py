"""AdamW without torch's compiler: the bits of torch's own, and a process that trains never imports the compiler."""

import sys

import pytest
import torch

from pcl.train.adamw import AdamW
from tests.processes import run_workers


def steps_of(kind):
    """Return parameters and state after steps in two groups, with the state taken out and put back in between."""
    choice = torch.Generator().manual_seed(0)
    parameters = [torch.nn.Parameter(torch.randn(shape, generator=choice)) for shape in ((3, 4), (4,), ())]
    groups = [{"params": parameters[:1], "weight_decay": 0.1}, {"params": parameters[1:], "weight_decay": 0.0}]
    optimizer = kind(groups, lr=0.01)
    for step in range(6):
        optimizer.zero_grad(set_to_none=True)
        assert [one.grad for one in parameters] == [None] * 3
        ((parameters[0] ** 3).sum() + (parameters[1] ** 2).sum() * parameters[2]).backward()
        optimizer.step()
        if step == 2:
            state, optimizer = optimizer.state_dict(), kind(groups, lr=1.0)
            optimizer.load_state_dict(state)
    assert not any(one.grad_fn for one in parameters)
    return parameters, optimizer.state_dict()


def test_it_has_the_bits_and_the_state_of_torch_s():
    (ours, state), (theirs, wanted) = steps_of(AdamW), steps_of(torch.optim.AdamW)
    assert all(torch.equal(one, other) for one, other in zip(ours, theirs, strict=True))
    assert state["param_groups"] == wanted["param_groups"]
    assert state["state"].keys() == wanted["state"].keys()
    for one, other in zip(state["state"].values(), wanted["state"].values(), strict=True):
        assert all(torch.equal(one[key], other[key]) for key in wanted["state"][0])


def compilers():
    steps_of(AdamW)
    ours = "torch._dynamo" in sys.modules
    steps_of(torch.optim.AdamW)
    return ours, "torch._dynamo" in sys.modules


@pytest.mark.process
def test_it_does_not_import_the_compiler():
    assert run_workers(compilers, 1) == [(False, True)]
