"""v's features gathered while u is encoded: the bits of a step that gathers them afterwards."""

from unittest.mock import patch

import numpy as np
import pytest
import torch
import torch.distributed as dist
from torch import nn

from pcl import scores
from pcl.model import PairModel
from pcl.objective import make_loss
from pcl.tilting import TILTINGS, Temperature
from pcl.train.ahead import GATHER_V_ALONE, gathers_ahead
from pcl.train.averaging import GradientAverage
from pcl.train.collectives import make_workers
from pcl.train.loop import Optimisation, TrainingState, make_optimizer, train_step
from tests.processes import run_workers

CASES = [(kind, tilting) for kind in GATHER_V_ALONE for tilting in TILTINGS]
GATHER = "all_gather_single" if hasattr(dist, "all_gather_single") else "all_gather_into_tensor"
SUM = "reduce_scatter_single" if hasattr(dist, "reduce_scatter_single") else "reduce_scatter_tensor"


def make_model(tilting, has_bias=False, dropout=0.0):
    torch.manual_seed(0)
    encoders = nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Dropout(dropout), nn.Linear(8, 5)), nn.Linear(4, 5)
    return PairModel(*encoders, tilting, Temperature(0.5, learned=True, minimum=0.01, maximum=10.0), has_bias)


def batch(workers, step):
    generator = torch.Generator().manual_seed(10 * step + workers.worker_rank)
    return tuple(torch.randn(16, n, generator=generator) for n in (3, 4))


def trained(case, v_first, workers, watch=lambda *_: None):
    """Return weights and losses of a few steps."""
    kind, tilting = case
    model = make_model(tilting, has_bias=kind == "logistic", dropout=0.2)
    optimisation = Optimisation(num_steps=3, learning_rate=0.1, gradient_clip=1.0, v_first=v_first)
    state, loss = TrainingState(model, make_optimizer(model, optimisation)), make_loss(kind, mode="one_sided")
    watch(model)
    with patch.dict(scores.TILE_ROWS, cpu=7):
        losses = [train_step(state, batch(workers, i), loss, optimisation, workers)["loss"] for i in range(3)]
    return [*model.parameters(), torch.stack(losses)]


def order(workers):
    """Return what happens in the last step, in its order."""
    found = []

    def watch(model):
        for name, encoder in (("u", model.encoder_u), ("v", model.encoder_v)):
            encoder.register_forward_hook(lambda *_, name=name: found.append(name))
            last = next(encoder.parameters())
            last.register_post_accumulate_grad_hook(lambda _, name=name: found.append(f"gradient of {name}"))

    def noted(name):
        original = getattr(dist, name)
        return patch.object(dist, name, lambda *a, **k: found.append(name) or original(*a, **k))

    with noted(GATHER), noted(SUM), patch.object(GradientAverage, "begin", lambda *_: None):
        trained(("joint", "cosine"), True, workers, watch)
    return found[-6:]


def on_worker():
    workers = make_workers(equal_batches=True)
    return {
        "bits": [[trained(case, v_first, workers) for v_first in (False, True)] for case in CASES],
        "order": order(workers),
    }


@pytest.fixture(scope="module")
def workers():
    return run_workers(on_worker, 2)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_the_bits_are_those_of_a_gather_afterwards(workers, case):
    for worker in workers:
        afterwards, ahead = worker["bits"][CASES.index(case)]
        for found, expected in zip(ahead, afterwards, strict=True):
            np.testing.assert_array_equal(found, expected)


def test_u_is_encoded_in_both_passes_while_v_travels(workers):
    for worker in workers:
        assert worker["order"] == ["v", GATHER, "u", SUM, "gradient of u", "gradient of v"]


def test_only_where_no_bit_changes():
    rule = ("joint", "one_sided", 4, 2)
    model = make_model("cosine", dropout=0.2)
    assert gathers_ahead(model, *rule)  # u drops, which v first does not change
    assert not gathers_ahead(model, "joint", "tiled", 4, 2)
    assert not gathers_ahead(model, "joint_mmd", "one_sided", 4, 2)
    assert not gathers_ahead(model, "joint", "one_sided", 4, 1)
    shared = PairModel(nn.Linear(3, 2), nn.Linear(3, 2), "cosine", model.temperature)
    shared.encoder_v = shared.encoder_u
    assert not gathers_ahead(shared, *rule)
    model.encoder_v = nn.Sequential(model.encoder_v, nn.Dropout(0.1))
    assert not gathers_ahead(model, *rule)

    class OfSomebody(nn.Linear):
        pass

    model.encoder_v = OfSomebody(4, 5)
    assert not gathers_ahead(model, *rule)
