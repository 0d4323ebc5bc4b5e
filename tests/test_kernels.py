"""Kernels against scikit-learn, in any shape of items, and the median heuristic against its definition."""

import itertools

import numpy as np
import pytest
import torch
from sklearn.metrics.pairwise import polynomial_kernel as sklearn_polynomial
from sklearn.metrics.pairwise import rbf_kernel

from pcl.kernels import gaussian_kernel, median_bandwidth, on_features, polynomial_kernel
from pcl.objective import make_kernel


def items(num=6, seed=0, shift=0.0):
    return torch.randn(num, 2, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) + shift


@pytest.mark.parametrize("shift", [0.0, 1e4])
def test_the_gaussian_kernel_is_that_of_scikit_learn(shift):
    x, y = items(shift=shift), items(4, 1, shift)
    expected = rbf_kernel((x - shift).flatten(1), (y - shift).flatten(1), gamma=1 / (2 * 1.7**2))
    np.testing.assert_allclose(gaussian_kernel(1.7)(x, y), expected, rtol=1e-9)


def test_the_polynomial_kernel_is_that_of_scikit_learn():
    x, y = items(), items(4, 1)
    expected = sklearn_polynomial(x.flatten(1), y.flatten(1), degree=3, gamma=1 / 2.0**2, coef0=0.5)
    np.testing.assert_allclose(polynomial_kernel(3, offset=0.5, scale=2.0)(x, y), expected, rtol=1e-12)


def test_a_kernel_may_act_on_a_feature_map():
    x, y = items(), items(4, 1)
    found = on_features(gaussian_kernel(1.0), torch.sin)(x, y)
    np.testing.assert_allclose(found, gaussian_kernel(1.0)(x.sin(), y.sin()))


def test_the_median_heuristic_is_the_median_distance():
    x = items(7)
    distances = [torch.linalg.vector_norm(a - b).item() for a, b in itertools.combinations(x, 2)]
    assert median_bandwidth(x) == pytest.approx(sorted(distances)[len(distances) // 2])
    ordered = torch.cat([torch.zeros(500, 1), torch.linspace(0, 1, 1500)[:, None]])
    assert median_bandwidth(ordered) == pytest.approx(torch.pdist(ordered).median().item(), rel=0.1)
    assert median_bandwidth(ordered) == median_bandwidth(ordered)
    chosen = make_kernel("gaussian", x)
    np.testing.assert_allclose(chosen(x, x), gaussian_kernel(median_bandwidth(x))(x, x))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: gaussian_kernel(0.0), "bandwidth 0.0: it must be positive"),
        (lambda: median_bandwidth(items(1)), "1 items: a median distance needs at least two"),
        (lambda: make_kernel("gaussian", torch.ones(5, 2)), "items that are all equal"),
        (lambda: polynomial_kernel(0), "degree 0"),
        (lambda: polynomial_kernel(2, offset=-1.0), "offset -1.0"),
        (lambda: make_kernel("laplace", items()), "kernel 'laplace' is not known; choose one of gaussian, polynomial"),
    ],
)
def test_what_makes_no_kernel_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()
