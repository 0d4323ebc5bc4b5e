"""The mathematics on a GPU against float64 on the CPU: losses in many tiles, fused, in half precision."""

import importlib
import math
from unittest.mock import patch

import pytest
import torch

from pcl import mmd, scores
from pcl.benchmark.gpu import PARTS
from pcl.benchmark.parts import Bench
from pcl.conditional import Conditional
from pcl.fused import has_kernel
from pcl.kernels import gaussian_kernel
from pcl.losses import NotFiniteError, conditional_loss
from pcl.objective import make_loss
from pcl.scores import MODES, negative_log_sum_exps
from pcl.tilting import feature_maps
from tests.reference import value_and_gradients

pytestmark = pytest.mark.gpu
KERNELS = (gaussian_kernel(1.5),) * 2
KINDS = "conditional", "joint", "conditional_mmd", "joint_mmd", "logistic"


def drawn(*shapes):
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(*shape, generator=generator, dtype=torch.float64) for shape in shapes]


def assert_near(found, expected, relative=1e-10):
    for part, truth in zip(found, expected, strict=True):
        assert torch.linalg.norm(part.cpu().double() - truth) <= relative * (1e-3 + torch.linalg.norm(truth))


@pytest.mark.parametrize("name", ["losses", "nccl", "bf16", "fused"])
def test_what_the_script_promises_is_kept(device, name):
    part = next(part for part in PARTS if part.name == name)
    rows = [*getattr(importlib.import_module(part.module), name)(Bench(device))]
    assert rows
    assert not [row for row in rows if row.is_right is False]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("mode", ["tiled", "one_sided"])
def test_losses_in_many_tiles_are_those_of_whole_matrices_on_the_cpu(device, kind, mode):
    u, v, *values = drawn((50, 6), (50, 6), (50, 3), (50, 2))

    def loss(u, v, mode=mode):
        given = tuple(part.to(u.device) for part in values)
        return make_loss(kind, (0.5, 1.5), mode=mode, kernels=KERNELS)(u, v, 0.7, values=given)[0]

    with patch.dict(scores.TILE_ROWS, cuda=16, cpu=16), patch.dict(mmd.BLOCK_ELEMENTS, cuda=400, cpu=400):
        found = value_and_gradients(loss, u.to(device), v.to(device))
    assert_near(found, value_and_gradients(lambda u, v: loss(u, v, "plain"), u, v))


def sums(queries, candidates, first, shares, *, fused):
    leaves = [part.detach().clone().requires_grad_() for part in (queries, candidates)]
    rows, columns, effective = negative_log_sum_exps(*leaves, first, fused=fused)
    value = (shares[0].to(rows) * rows).sum() + (shares[1].to(rows) * columns).sum()
    return [rows.detach(), columns.detach(), effective, *torch.autograd.grad(value, leaves)]


@pytest.mark.parametrize("num_features", [3, 16, 50, 64])
@pytest.mark.parametrize(("sizes", "first"), [((256, 256), 0), ((300, 700), 350), ((1000, 1000), 0), ((40, 90), 50)])
@pytest.mark.parametrize("least", [-1.0, 0.0])
def test_fused_sums_and_gradients_are_those_of_tiles(device, num_features, sizes, first, least):
    queries, candidates = drawn(*((size, num_features) for size in sizes))
    shares = [torch.linspace(least, 2, size, dtype=torch.float64) for size in sizes]
    single = [part.float().to(device) for part in (queries / num_features**0.5, candidates)]
    assert has_kernel(single[0]), "no kernel can be compiled here: tiles are taken in place of fused attention"
    found = sums(*single, first, shares, fused=True)
    assert_near(found, sums(*(part.cpu().double() for part in single), first, shares, fused=False), 1e-5)


def test_fused_sums_of_a_single_row_and_of_large_scores(device):
    queries, candidates = (part.float().to(device) for part in drawn((200, 16), (200, 16)))
    queries *= 1e4 / (queries @ candidates.T).abs().max()
    shares = torch.ones(200), torch.ones(200)
    found = sums(queries, candidates, 0, shares, fused=True)
    assert all(torch.isfinite(part).all() for part in found)
    assert_near(found, sums(queries.cpu().double(), candidates.cpu().double(), 0, shares, fused=False), 1e-2)
    alone = sums(queries[:1], candidates[:1], 0, (torch.ones(1), torch.ones(1)), fused=True)
    assert alone[0].item() == alone[1].item() == torch.finfo(torch.float32).min
    assert not any(part.any() for part in alone[2:])


@pytest.mark.parametrize("fused", [False, True])
def test_second_derivatives_exist(device, fused):
    leaves = [part.to(device).requires_grad_() for part in drawn((4, 16), (6, 16))]
    if fused:
        leaves = [part.detach().float().requires_grad_() for part in leaves]
        value = sum(part.sum() for part in negative_log_sum_exps(*leaves, 1, fused=True)[:2])
        once = torch.autograd.grad(value, leaves, create_graph=True)
        assert all(torch.isfinite(part).all() for part in torch.autograd.grad(once[0].square().sum(), leaves))
    else:
        assert torch.autograd.gradgradcheck(lambda q, c: negative_log_sum_exps(q, c, 1)[:2], leaves)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_scores_that_are_not_numbers_are_refused(device, mode, value):
    u, v = (part.to(device) for part in drawn((9, 3), (9, 3)))
    v[2, 1] = value
    with pytest.raises(NotFiniteError):
        conditional_loss(u, v, mode=mode)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("kind", KINDS)
def test_a_loss_is_one_number_inside_and_outside_autocast(device, kind, dtype):
    u, v, *values = (part.to(device, dtype) for part in drawn((12, 5), (12, 5), (12, 3), (12, 2)))
    found = []
    for is_within in (False, True):
        with torch.autocast(device.type, torch.bfloat16, enabled=is_within):
            loss = make_loss(kind, kernels=KERNELS)
            found.append(value_and_gradients(lambda u, v, loss=loss: loss(u, v, values=tuple(values))[0], u, v))
    assert found[0][0].dtype == torch.float32
    assert found[0][1].dtype == dtype
    assert all(torch.equal(*pair) for pair in zip(*found, strict=True))


def test_embeddings_too_short_for_a_direction_pass_no_gradient(device):
    u, v = drawn((3, 4), (3, 4))
    u[1] = 1e-9

    def total(u, v):
        return (torch.stack(feature_maps(u, v, "cosine")) * torch.arange(4.0, device=u.device)).sum()

    found = value_and_gradients(total, u.to(device), v.to(device))
    assert not found[1][1].any()
    assert_near(found, value_and_gradients(total, u, v))


def test_conditionals_answer_as_on_the_cpu(device):
    references, queries, values = drawn((500, 8), (7, 8), (500, 2))
    here, there = Conditional(references, 0.7), Conditional(references, 0.7, device=device)
    for method in ("weights", "log_density", "mode", "effective_sample_size"):
        found = getattr(there, method)(queries.to(device))
        torch.testing.assert_close(found.cpu(), getattr(here, method)(queries), rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(
        there.mean(queries.to(device), values).cpu(), here.mean(queries, values), rtol=1e-10, atol=1e-12
    )
