"""The mean gradient: that of gradients which are gathered and added by hand, bit for bit, however they arrive."""

from unittest.mock import patch

import numpy as np
import pytest
import torch
import torch.distributed as dist
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.utils.checkpoint import checkpoint

from pcl.train import averaging
from pcl.train.averaging import GradientAverage, bucketed
from pcl.train.collectives import make_workers
from pcl.workers import OneWorker
from tests.processes import run_workers

SMALLEST = 64  # bytes: so that a small network has several buckets


class Network(nn.Module):
    """Two dtypes, a convolution in another memory format, a layer that only some workers use and one that none does."""

    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(2, 4, 2).to(memory_format=torch.channels_last)
        self.middle = nn.Linear(16, 8).double()
        self.frozen = nn.Linear(8, 8).double().requires_grad_(False)
        self.sometimes = nn.Linear(8, 8).double()
        self.never = nn.Linear(8, 8)
        self.last = nn.Linear(8, 3)

    def forward(self, x, sometimes):
        hidden = self.frozen(torch.tanh(self.middle(self.first(x).flatten(1).double())))
        return self.last((self.sometimes(hidden) if sometimes else hidden).float())


def make_network():
    torch.manual_seed(0)
    return Network()


def batch(rank, step):
    return torch.randn(5, 2, 3, 3, generator=torch.Generator().manual_seed(10 * step + rank))


def losses(network, rank, step):
    """Return the terms of a worker's loss, each with a backward pass of its own."""
    terms = [network(part, sometimes=rank == 0).square().sum() for part in batch(rank, step).split([2, 3])]
    return [term + network.sometimes.weight[0].float().sum() * 0 if rank == 0 else term for term in terms]


def mean_by_hand(network, workers):
    """Return the mean of gradients: those of all workers one by one, added in the order of the ranks."""
    means = {}
    for name, p in network.named_parameters():
        own = torch.full((1 + p.numel(),), 0.0, dtype=torch.float64)
        if p.grad is not None:
            own = torch.cat([torch.ones(1, dtype=torch.float64), p.grad.flatten().double()])
        every = [torch.empty_like(own) for _ in range(workers.num_workers)]
        dist.all_gather(every, own)
        if any(part[0] > 0 for part in every):
            means[name] = (sum(part[1:] for part in every) / workers.num_workers).view(p.shape)
    return means


def averaged(network, workers, step, begin):
    average = GradientAverage(network.parameters(), workers)
    found, complete = [], [*network.frozen.parameters(), *network.never.parameters()]
    for i in (step, step + 1):  # its buffers are used again
        network.zero_grad()
        first, last = losses(network, workers.worker_rank, i)
        first.backward()
        if begin:
            average.begin(complete)
        last.backward()
        flag = average.finish(flag=workers.worker_rank == 1 and i == step + 1)
        gradients = {name: p.grad.clone() for name, p in network.named_parameters() if p.grad is not None}
        found.append((gradients, flag))
    return found


def by_hand(network, workers, step):
    network.zero_grad()
    for term in losses(network, workers.worker_rank, step):
        term.backward()
    return mean_by_hand(network, workers)


def started_before_the_end(workers):
    """Return how many sums had been started when the gradient reached the input of each layer, last layer first."""
    layers, started = nn.Sequential(*(nn.Linear(8, 8) for _ in range(6))), []
    average = GradientAverage(layers.parameters(), workers)
    x = torch.ones(1, 8)
    with patch.object(dist, "all_reduce", side_effect=dist.all_reduce) as sums:
        for layer in layers:
            x = layer(x)
            x.register_hook(lambda _: started.append(sums.call_count))
        average.begin()
        x.sum().backward()
        average.finish()
        return started, sums.call_count, len(bucketed(list(layers.parameters())))


def gradient_in_two_parts(workers):
    layer = nn.Linear(2, 2)
    average = GradientAverage(layer.parameters(), workers)
    x = torch.ones(1, 2, requires_grad=True)
    total = sum(checkpoint(layer, x * i, use_reentrant=True).sum() for i in (1, 2))
    average.begin()
    try:
        total.backward()
    except RuntimeError as error:
        return str(error)
    return ""


def on_worker():
    workers = make_workers()
    with patch.object(averaging, "SMALLEST", SMALLEST):
        network = make_network()
        expected = [by_hand(network, workers, step) for step in (0, 1)]
        return {
            "expected": expected,
            "found": {begin: averaged(network, workers, 0, begin) for begin in (False, True)},
            "again": averaged(make_network(), workers, 0, True),
            "strides": network.first.weight.grad.stride() == network.first.weight.stride() != (8, 4, 2, 1),
            "started": started_before_the_end(workers),
            "parts": gradient_in_two_parts(workers),
        }


@pytest.fixture(scope="module", params=[2, 3])
def workers(request):
    return run_workers(on_worker, request.param)


@pytest.mark.parametrize("begin", [False, True], ids=["after", "during"])
def test_the_mean_is_that_of_gradients_added_by_hand(workers, begin):
    for worker in workers:
        for (found, _), expected in zip(worker["found"][begin], worker["expected"], strict=True):
            assert found.keys() == expected.keys()  # "never" has none, "sometimes" has that of worker 0, everywhere
            assert {"sometimes.weight", "last.bias"} < found.keys()
            for name, gradient in found.items():
                rtol = 1e-13 if gradient.dtype == np.float64 else 1e-6
                np.testing.assert_allclose(gradient, expected[name], rtol=rtol, atol=rtol, err_msg=name)


def test_every_worker_has_the_same_bits_every_time(workers):
    reference = workers[0]["found"][False]
    for worker in workers:
        for repeated in (*worker["found"].values(), worker["again"]):
            for (found, _), (expected, _) in zip(repeated, reference, strict=True):
                for name, gradient in found.items():
                    np.testing.assert_array_equal(gradient, expected[name], err_msg=name)


def test_a_flag_of_one_worker_reaches_all(workers):
    for worker in workers:
        assert [[bool(flag) for _, flag in found] for found in worker["found"].values()] == [[False, True]] * 2


def test_gradients_keep_the_memory_format_of_their_parameters(workers):
    assert all(worker["strides"] for worker in workers)


def test_sums_start_while_the_backward_pass_goes_on(workers):
    for worker in workers:
        started, total, num_buckets = worker["started"]
        assert total == num_buckets == 6
        assert started == [0, 1, 2, 3, 4, 5]  # a bucket is a layer


def test_a_gradient_that_comes_in_two_parts_is_refused(workers):
    assert all("checkpoint activations with use_reentrant=False" in worker["parts"] for worker in workers)


def test_one_worker_keeps_its_gradients():
    layer = nn.Linear(2, 1)
    average = GradientAverage(layer.parameters(), OneWorker())
    average.begin()
    layer(torch.ones(1, 2)).sum().backward()
    before = layer.weight.grad
    assert not average.finish()
    assert layer.weight.grad is before
    assert average.finish(flag=True)


@given(
    st.lists(st.tuples(st.integers(1, 300), st.sampled_from([torch.float32, torch.float64, torch.bfloat16]))),
    st.integers(1, 4000),
)
def test_buckets_hold_every_parameter_once_in_its_own_dtype(sizes, smallest):
    parameters = [nn.Parameter(torch.zeros(n, dtype=dtype)) for n, dtype in sizes]
    place = {p: i for i, p in enumerate(reversed(parameters))}
    with patch.object(averaging, "SMALLEST", smallest):
        buckets = bucketed(parameters)
    assert sorted(place[p] for bucket in buckets for p in bucket) == list(range(len(parameters)))
    assert all(len({p.dtype for p in bucket}) == 1 for bucket in buckets)
    last = [place[bucket[-1]] for bucket in buckets]
    assert last == sorted(last)
    largest = max(smallest, sum(p.nbytes for p in parameters) // averaging.PARTS)
    assert all(sum(p.nbytes for p in bucket[:-1]) < largest for bucket in buckets)
