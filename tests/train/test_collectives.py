"""Collectives on real processes: W workers give the loss and the gradients of one process, to 1e-12."""

import warnings
from contextlib import ExitStack
from functools import cache
from unittest.mock import patch

import numpy as np
import pytest
import torch
import torch.distributed as dist
from torch import nn

from pcl import mmd, scores
from pcl.kernels import gaussian_kernel, polynomial_kernel
from pcl.logistic import logistic_loss
from pcl.losses import conditional_loss
from pcl.model import PairModel
from pcl.objective import LOSSES as ALL_KINDS
from pcl.objective import make_loss
from pcl.tilting import TILTINGS, Temperature
from pcl.train.averaging import GradientAverage
from pcl.train.collectives import GroupWorkers, broadcast_state, make_workers, mean_over_workers
from pcl.workers import OneWorker
from tests import reference
from tests.processes import run_workers

WEIGHTS = [(1.0, 1.0), (2.0, 0.0), (0.0, 2.0), (0.5, 1.5)]
LOSS_KINDS = {name: kind for name, kind in ALL_KINDS.items() if not kind.arrays}  # of feature maps
LOSSES = [(kind, w, "v") for kind in ("conditional", "conditional_mmd") for w in WEIGHTS]
LOSSES += [("joint", (1.0, 1.0), "v"), ("joint_mmd", (1.0, 1.0), "v")]
LOSSES += [("conditional_mmd", (0.5, 1.5), "u"), ("joint_mmd", (1.0, 1.0), "u"), ("logistic", (1.0, 1.0), "v")]
CASES = [
    (kind, weights, statistic, tilting, mode, exclude_positive)
    for kind, weights, statistic in LOSSES
    for tilting in TILTINGS
    for mode in ("plain", "tiled", "one_sided")
    for exclude_positive in (False, True)
]
SECOND = [(kind, mode) for kind in LOSS_KINDS for mode in ("plain", "tiled", "one_sided")]
WRONG_CASE = ("conditional", (1.0, 1.0), "v", "cosine", "plain", False)
GLOBAL_BATCH = 8
KERNELS = gaussian_kernel(1.5), polynomial_kernel(2)
TILE = 3  # divides neither the local nor the global batch


class DetachedWorkers(GroupWorkers):
    """A wrong gather: the rows of the other workers carry no gradient."""

    def gather(self, rows):
        gathered = [torch.empty_like(rows) for _ in range(self.num_workers)]
        dist.all_gather(gathered, rows.detach())
        gathered[self.worker_rank] = rows
        return torch.cat(gathered)


class AveragingWorkers(GroupWorkers):
    """A wrong gather: its backward takes the mean over workers instead of the sum."""

    def gather(self, rows):
        gathered = super().gather(rows)
        return gathered.detach() + (gathered - gathered.detach()) / self.num_workers


def make_model(tilting, seed=0, has_bias=False):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        encoders = [nn.Sequential(nn.Linear(n, 8), nn.Tanh(), nn.Linear(8, 4)) for n in (3, 5)]
    temperature = Temperature(0.5, learned=True, minimum=0.01, maximum=10.0)
    model = PairModel(*encoders, tilting, temperature, has_bias).double()
    if model.bias is not None:
        model.bias.data.fill_(0.3)
    return model


def make_batch():
    generator = torch.Generator().manual_seed(1)
    return tuple(torch.randn(GLOBAL_BATCH, n, generator=generator, dtype=torch.float64) for n in (3, 5))


def loss_and_gradients(case, workers):
    kind, weights, statistic, tilting, mode, exclude_positive = case
    model = make_model(tilting, has_bias=LOSS_KINDS[kind].has_bias)
    u, v = (part.chunk(workers.num_workers)[workers.worker_rank] for part in make_batch())
    options = {"statistic": statistic, "exclude_positive": exclude_positive, "mode": mode}
    loss = make_loss(kind, weights, kernels=KERNELS, **options)
    with patch.dict(scores.TILE_ROWS, cpu=TILE), patch.dict(mmd.BLOCK_ELEMENTS, cpu=TILE * GLOBAL_BATCH):
        value, diagnostics = loss(*model(u, v), model.temperature(), workers=workers, values=(u, v), **model.for_loss)
        value.backward()
    GradientAverage(model.parameters(), workers).finish()
    return mean_over_workers(diagnostics, workers), {name: p.grad for name, p in model.named_parameters()}


@cache
def expected_loss_and_gradients(kind, weights, statistic, tilting, exclude_positive):
    """Evaluate the formula in one process on whole matrices."""
    model = make_model(tilting, has_bias=LOSS_KINDS[kind].has_bias)
    u, v = make_batch()
    s = reference.scores(model.encode_u(u), model.encode_v(v), tilting, model.temperature())
    grams = {"kernel_u": KERNELS[0](u, u), "kernel_v": KERNELS[1](v, v)}
    options = {"statistic": statistic, "exclude_positive": exclude_positive}
    value = reference.loss(kind, s, weights=weights, **grams, **options, **model.for_loss)
    value.backward()
    return value.item(), {name: p.grad for name, p in model.named_parameters()}


def sent_bytes(loss, workers, mode, embedding_dim, local_batch):
    """Return the bytes that this worker sends in one forward and backward pass, by the rings of the collectives."""
    sent, share = 0, (workers.num_workers - 1) / workers.num_workers

    def watched(function, rings):
        def call(*tensors, **options):
            nonlocal sent
            part = max((t for t in tensors if isinstance(t, torch.Tensor | list)), key=_num_bytes)
            sent += rings * share * _num_bytes(part)
            return function(*tensors, **options)

        return call

    u, v = (torch.randn(local_batch, embedding_dim, requires_grad=True) for _ in range(2))
    rings = {"all_gather_single": 1, "reduce_scatter_single": 1, "all_reduce": 2}
    if not hasattr(dist, "all_gather_single"):  # torch < 2.13
        rings = {"all_gather_into_tensor": 1, "reduce_scatter_tensor": 1, "all_reduce": 2}
    with ExitStack() as stack:
        for name, number in rings.items():
            stack.enter_context(patch.object(dist, name, watched(getattr(dist, name), number)))
        loss(u, v, mode=mode, workers=workers)[0].backward()
    return sent


def _num_bytes(part):
    return sum(t.numel() * t.element_size() for t in (part if isinstance(part, list) else [part]))


def collectives(workers):
    r = workers.worker_rank
    rows = [torch.arange(6.0).view(2, 3) + 10 * r, torch.tensor([r, -r]), torch.full((1, 2, 2), float(r))]
    leaf = torch.ones(2, 3, requires_grad=True)
    factors = torch.arange(workers.num_workers * 6.0).view(-1, 3)
    (workers.gather(leaf) * factors * (r + 1)).sum().backward()  # worker r weighs the sum by r + 1

    single, double, frozen = (nn.Parameter(torch.zeros(2, dtype=t)) for t in (torch.float32, torch.float64, None))
    single.grad, double.grad = torch.tensor([1.0, r]), torch.tensor([r, 1 + 2.0**-40], dtype=torch.float64)
    GradientAverage([single, frozen, double], workers).finish()

    model = make_model("cosine", seed=r)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    broadcast_state(model, workers)
    return {
        "type": type(workers).__name__,
        "position": (workers.worker_rank, workers.num_workers),
        "gathered": [workers.gather(part) for part in rows],
        "leaf": leaf.grad,
        "averaged": [single.grad, double.grad, frozen.grad],
        "before": before,
        "after": model.state_dict(),
        "means": mean_over_workers({"rank": torch.tensor(r), "float": torch.tensor([2.0 * r])}, workers),
    }


def on_worker():
    workers, promised = make_workers(), make_workers(equal_batches=True)
    return {
        "exact": [loss_and_gradients(case, promised) for case in CASES],
        "wrong": [loss_and_gradients(WRONG_CASE, wrong())[1] for wrong in (DetachedWorkers, AveragingWorkers)],
        "collectives": collectives(workers),
        "log_sum_exp": log_sum_exps(workers),
        "sent": {mode: sent_bytes(conditional_loss, promised, mode, 256, 64) for mode in ("tiled", "one_sided")},
        "sent_logistic": [sent_bytes(logistic_loss, promised, mode, 256, 64) for mode in ("plain", "tiled")],
        "second": [second_derivatives(case, workers) for case in SECOND],
        "uneven": [refusal(call, workers) for call in uneven_calls(workers)],
        "alone": warnings_of_losses(workers),
    }


def second_derivatives(case, workers):
    """Return the gradient of the squared norm of the loss's gradient: autograd of all workers gives its own rows."""
    kind, mode = case
    u, v = (part.chunk(workers.num_workers)[workers.worker_rank].requires_grad_() for part in embedded_batch())
    values = tuple(part.chunk(workers.num_workers)[workers.worker_rank] for part in make_batch())
    with patch.dict(scores.TILE_ROWS, cpu=TILE):
        value = make_loss(kind, kernels=KERNELS, mode=mode)(u, v, 0.5, workers=workers, values=values)[0]
        try:
            first = torch.autograd.grad(value, (u, v), create_graph=True)
            return torch.autograd.grad(sum(part.square().sum() for part in first), (u, v))
        except NotImplementedError as error:
            return str(error)


def embedded_batch():
    generator = torch.Generator().manual_seed(2)
    return tuple(torch.randn(GLOBAL_BATCH, 3, generator=generator, dtype=torch.float64) for _ in range(2))


def uneven_calls(workers):
    """Return calls in which worker 1 has rows that the others do not have."""
    odd = workers.worker_rank == 1
    short, narrow, empty = torch.randn(3 - odd, 4), torch.randn(3, 4 - odd), torch.randn(3 * (not odd), 4)
    calls = [lambda part=part: workers.gather(part) for part in (short, narrow, empty, short.to(torch.int8))]
    calls.append(lambda: workers.gather(torch.zeros(3, dtype=torch.float64 if odd else torch.float32)))
    for mode in ("plain", "tiled", "one_sided", "auto"):
        for kind in ("conditional", "joint", "conditional_mmd", "logistic"):
            loss = make_loss(kind, mode=mode, kernels=KERNELS)
            for part in (short, empty, narrow):
                calls.append(lambda loss=loss, x=part: loss(x, x, workers=workers, values=(x, x)))
    long = torch.randn(2000 if odd else 2, 2)  # one holds its scores, the other would not
    return [*calls, lambda: conditional_loss(long, long, workers=workers)]


def refusal(call, workers):
    try:
        call()
    except ValueError as error:
        dist.barrier()
        return str(error)
    return ""


def warnings_of_losses(workers):
    """Return the warnings, at any time and place, of losses that are told of no workers; and their values."""
    u, v = (part.chunk(workers.num_workers)[workers.worker_rank] for part in embedded_batch())
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        told = conditional_loss(u, v, workers=workers)[0], conditional_loss(u, v, workers=OneWorker())[0]
        before = len(caught)
        untold = [conditional_loss(u, v)[0]]
        untold += [make_loss(kind, kernels=KERNELS)(u, v, values=(u, v))[0] for kind in LOSS_KINDS for _ in range(2)]
    return before, [str(w.message) for w in caught], [w.filename for w in caught], [*told, untold[0]]


def log_sum_exps(workers):
    values = torch.tensor([0.5, -900.0, torch.finfo(torch.float64).min, 2.0], dtype=torch.float64)
    values = (values + torch.tensor([1.0, 3.0, 0.0, 0.0]) * workers.worker_rank).requires_grad_()
    total = workers.log_sum_exp(values)
    (total * torch.arange(4.0) * (workers.worker_rank + 1)).sum().backward()
    return total, values.grad


def fail_on_worker_1():
    if dist.get_rank() == 1:
        raise KeyError("only here")
    dist.barrier()


@pytest.fixture(scope="module", params=[2, 4])
def workers(request):
    return run_workers(on_worker, request.param)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_loss_and_every_gradient_are_those_of_the_formula(workers, case):
    expected, gradients = expected_loss_and_gradients(*case[:4], case[5])
    assert all(gradient.abs().max() > 1e-6 for name, gradient in gradients.items() if not name.endswith("2.bias"))
    for worker in workers:
        diagnostics, found = worker["exact"][CASES.index(case)]
        assert diagnostics["loss"] == pytest.approx(expected, rel=1e-12, abs=1e-12)
        assert found.keys() == gradients.keys()
        for name, gradient in gradients.items():
            np.testing.assert_allclose(found[name], gradient, rtol=1e-12, atol=1e-12, err_msg=name)


@pytest.mark.parametrize("kind", ["conditional", "joint", "conditional_mmd", "joint_mmd", "logistic"])
def test_diagnostics_do_not_depend_on_workers_and_mode(workers, kind):
    cases = [case for case in CASES if case[0] == kind and case[1:4] == ((1.0, 1.0), "v", "cosine") and not case[5]]
    expected = loss_and_gradients(cases[0], OneWorker())[0]
    for case in cases:
        for worker in workers:
            assert worker["exact"][CASES.index(case)][0] == pytest.approx(expected, rel=1e-12, abs=1e-12)


def test_the_log_sum_exp_over_workers_and_its_gradient(workers):
    num_workers = len(workers)
    base = np.array([0.5, -900.0, np.finfo(float).min, 2.0])
    every = base + np.array([1.0, 3.0, 0.0, 0.0]) * np.arange(num_workers)[:, None]
    expected = np.logaddexp.reduce(every)
    factors = np.arange(4.0) * sum(range(1, num_workers + 1))
    for rank, worker in enumerate(workers):
        total, gradient = worker["log_sum_exp"]
        np.testing.assert_allclose(total, expected, rtol=1e-14)
        softmax = np.exp(every - expected)[rank]
        known = [0, 1, 3]  # the lowest number has lost the digits of its share
        np.testing.assert_allclose(gradient[known], (factors * softmax)[known], rtol=1e-13)


def test_the_one_sided_gather_sends_half(workers):
    num_workers, size, dim = len(workers), 64 * len(workers), 256
    share = 4 * size * (num_workers - 1) / num_workers  # bytes of a float32 vector of the global batch on a ring
    for worker in workers:
        assert worker["sent"]["tiled"] == 4 * dim * share  # two modalities, gathered and reduce-scattered
        assert worker["sent"]["one_sided"] == (2 * dim + 6) * share  # one; three all-reduces of column vectors
        assert worker["sent"]["one_sided"] / worker["sent"]["tiled"] < 0.506
        assert worker["sent_logistic"] == [2 * dim * share] * 2  # a sum over all scores needs no vectors of columns


@pytest.mark.parametrize("case", SECOND, ids=str)
def test_second_derivatives_are_those_of_the_formula_or_refused(workers, case):
    kind, mode = case
    found = [worker["second"][SECOND.index(case)] for worker in workers]
    if kind.endswith("mmd") and mode != "plain":
        assert all("second derivatives of an MMD loss over several workers" in part for part in found)
        assert all("choose mode='plain'" in part for part in found)
        return
    u, v = (part.requires_grad_() for part in embedded_batch())
    grams = {f"kernel_{m}": kernel(part, part) for m, kernel, part in zip("uv", KERNELS, make_batch(), strict=True)}
    value = reference.loss(kind, u @ v.T / 0.5, **grams)
    first = torch.autograd.grad(value, (u, v), create_graph=True)
    expected = torch.autograd.grad(sum(part.square().sum() for part in first), (u, v))
    num_workers = len(workers)
    for own, truth in zip(zip(*found, strict=True), expected, strict=True):
        # each worker's gradient is of W L, so the norms squared and their gradients have a factor W^2
        np.testing.assert_allclose(np.concatenate(own), num_workers**2 * truth, rtol=1e-9, atol=1e-9)


def test_uneven_batches_are_refused_on_every_worker_before_they_are_gathered(workers):
    for worker in workers:
        assert len(worker["uneven"]) == 54
        for message in worker["uneven"]:
            assert message.startswith("workers have different rows (")
            assert message.endswith("drop the last batch of an epoch if it is smaller")
    assert "3 x 4 of 4 bytes, 2 x 4 of 4 bytes" in workers[0]["uneven"][0]


def test_equal_batches_that_are_promised_cost_no_collective():
    assert OneWorker().num_rows(torch.zeros(3, 2)) == 3
    with patch.object(dist, "get_rank", lambda: 0), patch.object(dist, "get_world_size", lambda: 2):
        assert GroupWorkers(equal_batches=True).num_rows(torch.zeros(3, 2)) == 6


def test_a_loss_that_is_not_told_of_the_others_warns_once(workers):
    values = []
    for worker in workers:
        before, messages, files, found = worker["alone"]
        assert before == 0
        assert len(messages) == 1
        assert f"a loss without workers= in a group of {len(workers)} processes" in messages[0]
        assert "workers=pcl.train.collectives.make_workers()" in messages[0]
        assert "workers=pcl.workers.OneWorker()" in messages[0]
        assert files[0].endswith("test_collectives.py")
        assert found[1] == found[2] != found[0]
        values.append(found[2])
    assert len(set(map(float, values))) == len(workers)


@pytest.mark.parametrize("wrong", [0, 1], ids=["detached", "averaging"])
def test_a_gather_whose_backward_does_not_sum_is_seen(workers, wrong):
    _, gradients = expected_loss_and_gradients(*WRONG_CASE[:4], WRONG_CASE[5])
    truth = np.concatenate([gradient.flatten() for gradient in gradients.values()])
    found = np.concatenate([workers[0]["wrong"][wrong][name].flatten() for name in gradients])
    assert np.linalg.norm(found - truth) > 0.01 * np.linalg.norm(truth)


def test_rows_are_gathered_in_the_order_of_the_ranks(workers):
    num_workers = len(workers)
    blocks = [np.arange(6.0).reshape(2, 3) + 10 * r for r in range(num_workers)]
    for rank, worker in enumerate(workers):
        found = worker["collectives"]
        assert found["type"] == "GroupWorkers"
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
    workers = make_workers()
    assert isinstance(workers, OneWorker)
    found = collectives(workers)
    torch.testing.assert_close(found["gathered"][0], torch.arange(6.0).view(2, 3), rtol=0, atol=0)
    torch.testing.assert_close(found["averaged"][0], torch.tensor([1.0, 0.0]), rtol=0, atol=0)
    assert found["means"] == {"rank": 0.0, "float": 0.0}
    assert all(torch.equal(found["after"][name], value) for name, value in found["before"].items())


def test_the_gather_of_a_group_needs_a_group():
    with pytest.raises((RuntimeError, ValueError), match="process group"):
        GroupWorkers()


def test_the_error_of_a_worker_reaches_this_process():
    with pytest.raises(KeyError, match="only here") as caught:
        run_workers(fail_on_worker_1, 2)
    assert "in fail_on_worker_1" in "".join(caught.value.__notes__)
