"""One network for both modalities: what is shared, trained, kept and resumed."""

import copy

import pytest
import torch

import pcl
from pcl.encoders.build import build_model
from pcl.errors import BadInputError
from pcl.objective import make_loss
from pcl.train.checkpoint import checkpoint_content, load_checkpoint, restore, save_checkpoint
from pcl.train.loop import Optimisation, TrainingState, make_optimizer, train_step
from pcl.workers import OneWorker
from tests.processes import run_workers

MLP = {"kind": "mlp", "shape": [6], "widths": [8]}
TEXT = {"kind": "text", "shape": [6], "dtype": "uint8", "architecture": "transformer", "width": 8, "num_heads": 2}
OPTIMISATION = Optimisation(num_steps=20, learning_rate=0.01, weight_decay=0.1, gradient_clip=1.0)


def spec(one=MLP, **of_v):
    return {
        "embedding_dim": 4,
        "encoder_u": one,
        "encoder_v": one | of_v,
        "tilting": "cosine",
        "temperature": {"initial": 0.5, "learned": True, "minimum": 0.01, "maximum": 10.0},
        "dtype": "float64",
        "share": True,
    }


SPECS = {"mlp": spec(mean=3.0, std=2.0, scale_factor=0.5), "text": spec(TEXT)}


def begin(chosen):
    model = build_model(chosen, seed=1)
    return TrainingState(model, make_optimizer(model, OPTIMISATION))


def steps(state, up_to, workers=None):
    workers = workers or OneWorker()
    own = slice(workers.worker_rank * 16 // workers.num_workers, (workers.worker_rank + 1) * 16 // workers.num_workers)
    while state.step < up_to:
        generator = torch.Generator().manual_seed(state.step)
        u, v = (torch.randint(0, 9, (16, 6), generator=generator, dtype=torch.uint8)[own] for _ in "uv")
        train_step(state, (u, v), make_loss("conditional"), OPTIMISATION, workers)
    return state


def equal(one, other):
    return all(torch.equal(value, other.state_dict()[name]) for name, value in one.state_dict().items())


@pytest.mark.parametrize("kind", SPECS)
def test_both_encoders_have_one_network_and_their_own_entrance(kind):
    model = build_model(SPECS[kind])
    assert model.encoder_u[-1] is model.encoder_v[-1]
    assert model.encoder_u.items == model.encoder_v.items or kind == "mlp"
    x = torch.randint(0, 9, (3, 6), dtype=torch.uint8)
    if kind == "mlp":
        torch.testing.assert_close(model.encoder_v(x), model.encoder_u((x * 0.5 - 3) / 2))
        assert model.encoder_v.items.scale_factor == 0.5
    else:
        assert torch.equal(model.encoder_v(x), model.encoder_u(x))
    alone = build_model({**SPECS[kind], "share": False})
    assert len(list(alone.parameters())) - 1 == 2 * (len(list(model.parameters())) - 1)


def test_every_parameter_is_optimised_once_by_the_gradient_of_both_sides():
    state = begin(SPECS["mlp"])
    held = [p for group in state.optimizer.param_groups for p in group["params"]]
    assert len(held) == len({id(p) for p in held}) == 5
    twins = build_model({**SPECS["mlp"], "share": False})
    twins.load_state_dict(state.model.state_dict())  # equal, but two
    u, v = torch.randn(2, 8, 6, dtype=torch.float64).unbind()
    for model in (state.model, twins):
        loss, _ = make_loss("joint")(*model(u, v), model.temperature())
        loss.backward()
    for name, parameter in state.model.encoder_u[-1].named_parameters():
        both = [dict(side[-1].named_parameters())[name].grad for side in (twins.encoder_u, twins.encoder_v)]
        torch.testing.assert_close(parameter.grad, sum(both))


@pytest.mark.parametrize("kind", SPECS)
def test_a_training_goes_on_from_a_checkpoint_to_the_same_bits(kind, tmp_path):
    state = steps(begin(SPECS[kind]), 10)
    before = copy.deepcopy(state.model)
    directory = tmp_path / "checkpoint_00000010"
    save_checkpoint(directory, checkpoint_content(state, SPECS[kind], "the experiment"))
    again = begin(SPECS[kind])
    restore(again, directory, "the experiment", OPTIMISATION.num_steps)
    assert again.model.encoder_u[-1] is again.model.encoder_v[-1]
    assert equal(steps(again, 20).model, steps(state, 20).model)
    assert not equal(again.model, before)
    loaded = pcl.load(directory)
    assert loaded.encoder_u[-1] is loaded.encoder_v[-1]
    assert equal(loaded, before)
    assert load_checkpoint(directory)["spec"]["share"] is True


def on_workers():
    from pcl.train.collectives import make_workers

    return steps(begin(SPECS["mlp"]), 10, make_workers()).model.state_dict()


def test_the_number_of_workers_changes_nothing():
    alone = steps(begin(SPECS["mlp"]), 10).model.state_dict()
    for found in run_workers(on_workers, 2):
        for name, value in alone.items():
            torch.testing.assert_close(torch.from_numpy(found[name]), value, rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("of_v", "message"),
    [
        ({"kind": "linear"}, "the kind of encoder_u is mlp, that of encoder_v linear"),
        ({"shape": [7]}, r"the shape of encoder_u is \[6\], that of encoder_v \[7\]"),
        ({"widths": [9]}, r"the widths of encoder_u is \[8\], that of encoder_v \[9\]"),
        ({"activation": "relu"}, "the activation of encoder_u is None, that of encoder_v relu"),
    ],
)
def test_encoders_that_differ_share_no_network(of_v, message):
    with pytest.raises(BadInputError, match=f"model.share=true and {message}: one network"):
        build_model(spec(**of_v))
