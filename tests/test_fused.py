"""Log-sum-exps by fused attention against tiles in float64: what a GPU would compute, unfused on the CPU."""

import math
from types import SimpleNamespace
from unittest.mock import patch

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.attention import flex_attention

from pcl import fused, scores
from pcl.kernels import gaussian_kernel, polynomial_kernel
from pcl.objective import make_loss
from pcl.scores import negative_log_sum_exps
from pcl.tilting import TILTINGS, feature_maps
from tests import reference
from tests.reference import value_and_gradients

WEIGHTS = [(1.0, 1.0), (2.0, 0.0), (0.0, 2.0), (0.5, 1.5)]
KINDS = [("conditional", weights) for weights in WEIGHTS] + [("joint", (1.0, 1.0)), ("conditional_mmd", (0.5, 1.5))]
KERNELS = gaussian_kernel(1.5), polynomial_kernel(2)


@pytest.fixture(autouse=True, scope="module")
def _untraced():
    """Attention calls its operator at once; otherwise it has dynamo trace that for every shape, in half a second."""
    with patch.object(flex_attention, "_FLEX_ATTENTION_DISABLE_COMPILE_DEBUG", True):
        yield


@pytest.fixture
def forced():
    with patch.object(scores, "is_quicker", lambda *_: True), patch.object(scores, "has_kernel", lambda *_: True):
        yield


def problem(num_queries, num_candidates, dim, scale=1.0, seed=0):
    generator = torch.Generator().manual_seed(seed)
    queries = scale * torch.randn(num_queries, dim, generator=generator, dtype=torch.float64)
    return queries, torch.randn(num_candidates, dim, generator=generator, dtype=torch.float64)


def sums_and_gradients(queries, candidates, first, shares, **how):
    """Return both log-sum-exps, the effective negatives, and the gradients of a weighted sum of the former."""
    leaves = [part.clone().requires_grad_() for part in (queries, candidates)]
    rows, columns, effective = negative_log_sum_exps(*leaves, first, **how)
    assert not effective.requires_grad
    value = (shares[0] * rows).sum() + (shares[1] * columns).sum()
    return rows.detach(), columns.detach(), effective, *torch.autograd.grad(value, leaves)


def assert_same(found, expected, scale=1.0):
    for part, truth in zip(found, expected, strict=True):
        torch.testing.assert_close(part, truth, rtol=1e-12, atol=1e-12 * max(1.0, scale))


@given(
    num_queries=st.integers(2, 9),
    more=st.integers(0, 9),
    first=st.integers(0, 9),
    dim=st.sampled_from([1, 3, 16, 20]),
    scale=st.sampled_from([0.1, 1.0, 10.0]),
    least=st.sampled_from([-1.0, 0.0, 0.5]),
    seed=st.integers(0, 2**32 - 1),
)
@settings(deadline=None, max_examples=40)
def test_fused_sums_and_gradients_are_those_of_tiles(num_queries, more, first, dim, scale, least, seed):
    """Also where shares are zero, or negative: those have no logarithm, and take tiles."""
    queries, candidates = problem(num_queries, num_queries + more, dim, scale, seed)
    shares = [torch.linspace(least, 2, len(part), dtype=torch.float64) for part in (queries, candidates)]
    arguments = queries, candidates, min(first, more), shares
    found, expected = (sums_and_gradients(*arguments, fused=is_fused) for is_fused in (True, False))
    assert_same(found, expected, scale**2)


def test_tiles_are_taken_only_for_negative_shares():
    arguments = *problem(4, 6, 3), 1
    shares = torch.tensor([0.0, 0.5, 1.0, 2.0]).double(), torch.linspace(0, 1, 6).double()
    with patch.object(scores, "_tiled_gradients", side_effect=AssertionError):
        sums_and_gradients(*arguments, shares, fused=True)
        with pytest.raises(AssertionError):
            sums_and_gradients(*arguments, (-shares[0], shares[1]), fused=True)


@pytest.mark.parametrize("output", [0, 1])
def test_one_of_the_two_sums_can_be_used_alone(output):
    leaves = [part.requires_grad_() for part in problem(4, 6, 3)]
    found, expected = (
        torch.autograd.grad(negative_log_sum_exps(*leaves, 1, fused=is_fused)[output].sum(), leaves)
        for is_fused in (True, False)
    )
    assert_same(found, expected)
    rows, columns, _ = negative_log_sum_exps(*leaves, 1, with_columns=False, fused=True)
    assert columns.shape == (0,)
    assert_same(torch.autograd.grad(rows.sum(), leaves), torch.autograd.grad(dense(*leaves, 1)[0].sum(), leaves))


def dense(queries, candidates, first):
    matrix = (queries @ candidates.T).clone()
    matrix.diagonal(first).fill_(-math.inf)
    return torch.logsumexp(matrix, 1), torch.logsumexp(matrix, 0)


def test_the_second_derivative_is_that_of_the_whole_matrix():
    leaves = [part.requires_grad_() for part in problem(3, 5, 2)]
    assert torch.autograd.gradgradcheck(lambda q, c: negative_log_sum_exps(q, c, 1, fused=True)[:2], leaves)


def test_queries_and_candidates_without_a_negative_have_the_lowest_number_and_no_gradient():
    one, four = problem(1, 4, 3)
    lowest = torch.finfo(torch.float64).min
    shares = torch.ones(1).double(), torch.ones(4).double()
    alone = sums_and_gradients(one, four[:1], 0, (shares[0], shares[0]), fused=True)
    assert alone[0].item() == alone[1].item() == lowest
    assert alone[2].item() == 0
    assert not any(part.any() for part in alone[3:])
    found, expected = (sums_and_gradients(one, four, 2, shares, fused=is_fused) for is_fused in (True, False))
    assert found[1][2] == lowest
    assert_same(found, expected)


def test_large_scores_of_single_precision_overflow_nothing():
    queries, candidates = (part.float() for part in problem(20, 20, 4))
    queries *= 1e4 / (queries @ candidates.T).abs().max()
    shares = torch.rand(2, 20, generator=torch.Generator().manual_seed(0))
    found = sums_and_gradients(queries, candidates, 0, shares, fused=True)
    expected = sums_and_gradients(queries.double(), candidates.double(), 0, shares.double(), fused=False)
    assert expected[0].max() > 1e3
    for part, truth in zip(found, expected, strict=True):
        torch.testing.assert_close(part.double(), truth, rtol=1e-4, atol=1e-3 * truth.abs().max().item())


@pytest.mark.usefixtures("forced")
@pytest.mark.parametrize("exclude_positive", [False, True], ids=["", "negatives"])
@pytest.mark.parametrize("kind", KINDS, ids=str)
@pytest.mark.parametrize("tilting", TILTINGS)
def test_losses_and_their_gradients_are_those_of_the_formula(kind, tilting, exclude_positive):
    """Of both modes that are not plain, and with the weight of a direction or of none."""
    name, weights = kind
    u, v = problem(6, 6, 3)
    values = problem(6, 6, 2, seed=1)
    grams = {f"kernel_{m}": kernel(x, x) for m, kernel, x in zip("uv", KERNELS, values, strict=True)}

    def formula(u, v, log_temperature):
        s = reference.scores(u, v, tilting, log_temperature.exp())
        return reference.loss(name, s, weights=weights, exclude_positive=exclude_positive, **grams)

    log_temperature = torch.tensor(-0.3, dtype=torch.float64)
    expected = value_and_gradients(formula, u, v, log_temperature)
    for mode in ("tiled", "one_sided"):
        loss = make_loss(name, weights, kernels=KERNELS, mode=mode, exclude_positive=exclude_positive)

        def ours(u, v, log_temperature, loss=loss):
            return loss(*feature_maps(u, v, tilting), log_temperature.exp(), values=values)[0]

        assert_same(value_and_gradients(ours, u, v, log_temperature), expected)


@pytest.mark.parametrize("num_workers", [2, 4])
def test_the_rows_of_all_workers_make_the_columns_of_the_batch(num_workers):
    queries, candidates = problem(8, 8, 3)
    parts = [
        negative_log_sum_exps(part, candidates, r * len(part), fused=True)
        for r, part in enumerate(queries.chunk(num_workers))
    ]
    rows, columns = dense(queries, candidates, 0)
    torch.testing.assert_close(torch.cat([part[0] for part in parts]), rows, rtol=1e-12, atol=1e-12)
    over_workers = torch.logsumexp(torch.stack([part[1] for part in parts]), 0)
    torch.testing.assert_close(over_workers, columns, rtol=1e-12, atol=1e-12)


@pytest.fixture
def precision():
    """Set the precision of products in single precision, and put it back."""
    before = torch.get_float32_matmul_precision()
    yield torch.set_float32_matmul_precision
    torch.set_float32_matmul_precision(before)


@pytest.mark.parametrize(
    ("device", "dtype", "shape", "of_products", "is_chosen"),
    [
        ("cuda", torch.float32, (8192, 64), "highest", True),
        ("cuda", torch.float32, (8192, 65), "highest", False),
        ("cuda", torch.float32, (8192, 256), "high", True),
        ("cuda", torch.float32, (8191, 64), "highest", False),
        ("cuda", torch.float64, (8192, 64), "highest", False),
        ("cpu", torch.float32, (8192, 64), "highest", False),
    ],
)
def test_it_is_chosen_by_device_dtype_and_sizes(precision, device, dtype, shape, of_products, is_chosen):
    class Rows(SimpleNamespace):
        def __len__(self):
            return self.shape[0]

    precision(of_products)
    rows = Rows(device=torch.device(device), dtype=dtype, shape=shape)
    assert fused.is_quicker(rows, rows) == is_chosen


def test_a_kernel_is_tried_before_it_is_trusted(monkeypatch):
    queries = torch.zeros(1, 5, dtype=torch.float64)
    fused._is_tried.cache_clear()
    assert fused.has_kernel(queries)
    for broken in (lambda *_: 1 / 0, lambda *_: lambda *given: fused._sums(*given[:3]) + 1):
        fused._is_tried.cache_clear()
        with monkeypatch.context() as patched:
            patched.setattr(fused, "_form", broken)
            assert not fused.has_kernel(queries)
    fused._is_tried.cache_clear()


@pytest.mark.long
def test_one_graph_serves_every_number_of_rows():
    """What is compiled on a GPU can be traced, offsets and all, and is traced once."""
    graphs = []

    def count(graph, _):
        graphs.append(graph)
        return graph.forward

    torch.compiler.reset()
    with (
        patch.object(flex_attention, "_FLEX_ATTENTION_DISABLE_COMPILE_DEBUG", False),
        patch.object(
            fused, "_form", lambda function, _: torch.compile(function, backend=count, dynamic=True, fullgraph=True)
        ),
    ):
        for sizes in ((130, 150, 3, 7), (140, 140, 3, 0), (256, 1000, 3, 500)):
            *shape, first = sizes
            queries, candidates = problem(*shape)
            shares = torch.ones(len(queries)).double(), torch.ones(len(candidates)).double()
            arguments = queries, candidates, first, shares
            found, expected = (sums_and_gradients(*arguments, fused=is_fused) for is_fused in (True, False))
            assert_same(found, expected)
    assert len(graphs) == 2  # log-sum-exps, and sums with weights
