"""Collectives on real processes: W workers give the loss and the gradients of one process, to 1e-12."""

import numpy as np
import pytest
import torch
import torch.distributed as dist
from torch import nn

from pcl.losses import OneWorker, make_loss
from pcl.model import PairModel
from pcl.tilting import TILTINGS, Temperature
from pcl.train.gather import AllGather, average_gradients, broadcast_state, make_gather, mean_over_workers
from tests.processes import run_workers

LOSSES = [("conditional", w) for w in ((1.0, 1.0), (2.0, 0.0), (0.0, 2.0), (0.5, 1.5))] + [("joint", (1.0, 1.0))]
CASES = [(kind, weights, tilting) for kind, weights in LOSSES for tilting in TILTINGS]
WRONG_CASE = ("conditional", (1.0, 1.0), "cosine")
GLOBAL_BATCH = 24


class DetachedGather(AllGather):
    """A wrong gather: the rows of the other workers carry no gradient."""

    def __call__(self, rows):
        gathered = [torch.empty_like(rows) for _ in range(self.num_workers)]
        dist.all_gather(gathered, rows.detach())
        gathered[self.worker_rank] = rows
        return torch.cat(gathered)


class AveragingGather(AllGather):
    """A wrong gather: its backward takes the mean over workers instead of the sum."""

    def __call__(self, rows):
        gathered = super().__call__(rows)
        return gathered.detach() + (gathered - gathered.detach()) / self.num_workers


def make_model(tilting, seed=0):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        encoders = [nn.Sequential(nn.Linear(n, 8), nn.Tanh(), nn.Linear(8, 4)) for n in (3, 5)]
    temperature = Temperature(0.5, learned=True, minimum=0.01, maximum=10.0)
    return PairModel(*encoders, tilting, temperature).double()


def make_batch():
    generator = torch.Generator().manual_seed(1)
    return tuple(torch.randn(GLOBAL_BATCH, n, generator=generator, dtype=torch.float64) for n in (3, 5))


def loss_and_gradients(case, gather):
    kind, weights, tilting = case
    model = make_model(tilting)
    u, v = (part.chunk(gather.num_workers)[gather.worker_rank] for part in make_batch())
    loss, diagnostics = make_loss(kind, weights)(*model(u, v), model.temperature(), gather=gather)
    loss.backward()
    average_gradients(model.parameters(), gather)
    return mean_over_workers(diagnostics, gather), {name: p.grad for name, p in model.named_parameters()}


def collectives(gather):
    r = gather.worker_rank
    rows = [torch.arange(6.0).view(2, 3) + 10 * r, torch.tensor([r, -r]), torch.full((1, 2, 2), float(r))]
    leaf = torch.ones(2, 3, requires_grad=True)
    factors = torch.arange(gather.num_workers * 6.0).view(-1, 3)
    (gather(leaf) * factors * (r + 1)).sum().backward()  # worker r weighs the sum by r + 1

    single, double, frozen = (nn.Parameter(torch.zeros(2, dtype=t)) for t in (torch.float32, torch.float64, None))
    single.grad, double.grad = torch.tensor([1.0, r]), torch.tensor([r, 1 + 2.0**-40], dtype=torch.float64)
    average_gradients([single, frozen, double], gather)

    model = make_model("cosine", seed=r)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    broadcast_state(model, gather)
    return {
        "type": type(gather).__name__,
        "position": (gather.worker_rank, gather.num_workers),
        "gathered": [gather(part) for part in rows],
        "leaf": leaf.grad,
        "averaged": [single.grad, double.grad, frozen.grad],
        "before": before,
        "after": model.state_dict(),
        "means": mean_over_workers({"rank": torch.tensor(r), "float": torch.tensor([2.0 * r])}, gather),
    }


def on_worker():
    gather = make_gather()
    return {
        "exact": [loss_and_gradients(case, gather) for case in CASES],
        "wrong": [loss_and_gradients(WRONG_CASE, wrong())[1] for wrong in (DetachedGather, AveragingGather)],
        "collectives": collectives(gather),
    }


def fail_on_worker_1():
    if dist.get_rank() == 1:
        raise KeyError("only here")
    dist.barrier()


@pytest.fixture(scope="module", params=[2, 4])
def workers(request):
    return run_workers(on_worker, request.param)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_loss_and_every_gradient_equal_those_of_one_process(workers, case):
    expected, gradients = loss_and_gradients(case, OneWorker())
    assert all(gradient.abs().max() > 1e-6 for name, gradient in gradients.items() if not name.endswith("2.bias"))
    for worker in workers:
        diagnostics, found = worker["exact"][CASES.index(case)]
        assert diagnostics == pytest.approx(expected, rel=1e-12, abs=1e-12)
        assert found.keys() == gradients.keys()
        for name, gradient in gradients.items():
            np.testing.assert_allclose(found[name], gradient, rtol=1e-12, atol=1e-12, err_msg=name)


@pytest.mark.parametrize("wrong", [0, 1], ids=["detached", "averaging"])
def test_a_gather_whose_backward_does_not_sum_is_seen(workers, wrong):
    _, gradients = loss_and_gradients(WRONG_CASE, OneWorker())
    truth = np.concatenate([gradient.flatten() for gradient in gradients.values()])
    found = np.concatenate([workers[0]["wrong"][wrong][name].flatten() for name in gradients])
    assert np.linalg.norm(found - truth) > 0.01 * np.linalg.norm(truth)


def test_rows_are_gathered_in_the_order_of_the_ranks(workers):
    num_workers = len(workers)
    blocks = [np.arange(6.0).reshape(2, 3) + 10 * r for r in range(num_workers)]
    for rank, worker in enumerate(workers):
        found = worker["collectives"]
        assert found["type"] == "AllGather"
        assert found["position"] == (rank, num_workers)
        matrix, integers, cube = found["gathered"]
        np.testing.assert_array_equal(matrix, np.concatenate(blocks))
        np.testing.assert_array_equal(integers, [sign * r for r in range(num_workers) for sign in (1, -1)])
        np.testing.assert_array_equal(cube[:, 1, 1], range(num_workers))


def test_the_backward_of_the_gather_sums_over_workers(workers):
    num_workers = len(workers)
    factors = np.arange(num_workers * 6.0).reshape(num_workers, 2, 3) * sum(range(1, num_workers + 1))
    for rank, worker in enumerate(workers):
        np.testing.assert_array_equal(worker["collectives"]["leaf"], factors[rank])


def test_gradients_are_averaged_in_their_own_dtype(workers):
    mean_rank = (len(workers) - 1) / 2
    for worker in workers:
        single, double, frozen = worker["collectives"]["averaged"]
        assert (single.dtype, double.dtype, frozen) == (np.float32, np.float64, None)
        np.testing.assert_array_equal(single, [1, mean_rank])
        np.testing.assert_array_equal(double, [mean_rank, 1 + 2.0**-40])


def test_every_worker_gets_the_state_of_worker_0(workers):
    states = [worker["collectives"] for worker in workers]
    for found in states:
        assert found["after"].keys() == states[0]["before"].keys()
        for name, value in states[0]["before"].items():
            np.testing.assert_array_equal(found["after"][name], value, err_msg=name)
    assert not np.array_equal(states[0]["before"]["encoder_u.0.weight"], states[1]["before"]["encoder_u.0.weight"])


def test_scalars_are_means_over_workers(workers):
    mean_rank = (len(workers) - 1) / 2
    assert all(w["collectives"]["means"] == {"rank": mean_rank, "float": 2 * mean_rank} for w in workers)


def test_one_process_without_a_group_changes_nothing():
    gather = make_gather()
    assert isinstance(gather, OneWorker)
    found = collectives(gather)
    torch.testing.assert_close(found["gathered"][0], torch.arange(6.0).view(2, 3), rtol=0, atol=0)
    torch.testing.assert_close(found["averaged"][0], torch.tensor([1.0, 0.0]), rtol=0, atol=0)
    assert found["means"] == {"rank": 0.0, "float": 0.0}
    assert all(torch.equal(found["after"][name], value) for name, value in found["before"].items())


def test_the_gather_of_a_group_needs_a_group():
    with pytest.raises((RuntimeError, ValueError), match="process group"):
        AllGather()


def test_the_error_of_a_worker_reaches_this_process():
    with pytest.raises(KeyError, match="only here") as caught:
        run_workers(fail_on_worker_1, 2)
    assert "in fail_on_worker_1" in "".join(caught.value.__notes__)
