"""The plug-in Gaussian with a ridge: against scikit-learn, known laws, densities, and matrices inverted as they are."""

import numpy as np
import pytest
import torch
from gaussian.naive import random_pair
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.cross_decomposition import CCA

from pcl.gaussian import optimal_encoders, plug_in
from pcl.gaussian.regularised import Moments, principal_basis, regularised_plug_in

NO_RIDGE = (0.0, 0.0)


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def related(num, n, m, seed=0, shared=3):
    """Return pairs of which a few directions are shared."""
    z = normal(num, shared, seed=seed)
    u = z @ normal(shared, n, seed=seed + 1) + normal(num, n, seed=seed + 2)
    return u, z @ normal(shared, m, seed=seed + 3) + normal(num, m, seed=seed + 4)


def fitted(u, v, rank, **options):
    return regularised_plug_in(Moments.of(u, v), rank, **options)


def scores(found, u, v):
    return found.features_u(u) @ found.features_v(v).T


def naive(u, v, rank, ridges):
    """Return the log density ratios of all pairs by inverse square roots of whole covariances."""
    means = u.mean(0), v.mean(0)
    u, v = u - means[0], v - means[1]
    roots = []
    for part, ridge in ((u, ridges[0]), (v, ridges[1])):
        values, vectors = np.linalg.eigh((part.T @ part / len(part)).numpy() + ridge * np.eye(part.shape[1]))
        roots.append(vectors @ np.diag(values**-0.5) @ vectors.T)
    left, sigma, right = np.linalg.svd(roots[0] @ (u.T @ v / len(u)).numpy() @ roots[1])
    x, y, s = u.numpy() @ roots[0] @ left[:, :rank], v.numpy() @ roots[1] @ right[:rank].T, sigma[:rank]
    quadratic = s**2 * (x[:, None] ** 2 + y[None] ** 2) / 2
    terms = (s * x[:, None] * y[None] - quadratic) / (1 - s**2) - np.log(1 - s**2) / 2
    return torch.from_numpy(terms.sum(-1))


def test_without_a_ridge_it_is_the_canonical_correlation_analysis_of_scikit_learn():
    u, v = related(400, 6, 4)
    found = fitted(u, v, 3, ridges=NO_RIDGE)
    x, y = CCA(3, scale=False, max_iter=5000, tol=1e-12).fit_transform(u.numpy(), v.numpy())
    for i in range(3):
        assert found.correlations[i].item() == pytest.approx(np.corrcoef(x[:, i], y[:, i])[0, 1], abs=1e-6)
        mine = found.variates[0](u)[:, i].numpy()
        assert abs(np.corrcoef(mine, x[:, i])[0, 1]) == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("loss", ["conditional", "joint"])
@pytest.mark.parametrize("tilting", ["inner_product", "squared_distance"])
def test_encoders_are_those_of_the_plug_in_estimator(loss, tilting):
    u, v = related(300, 5, 4)
    g, h = fitted(u, v, 2, ridges=NO_RIDGE).encoders(loss, tilting)
    scale = (299 / 300) ** 0.5  # the estimator divides by N - 1
    expected = optimal_encoders(plug_in(scale * u, scale * v), 2, loss, tilting)
    torch.testing.assert_close(g.T @ h, expected[0].T @ expected[1], rtol=1e-9, atol=1e-11)
    if tilting == "squared_distance":
        torch.testing.assert_close(g.T @ g, expected[0].T @ expected[0], rtol=1e-9, atol=1e-11)


def test_many_pairs_give_the_encoders_of_the_law():
    law = random_pair(4, 3)
    g, h = fitted(*law.sample(400_000, torch.Generator().manual_seed(0)), 2).encoders()
    exact = optimal_encoders(law, 2)
    product, expected = g.T @ h, exact[0].T @ exact[1]
    assert (product - expected).norm() < 0.02 * expected.norm()


def test_scores_are_log_density_ratios_of_the_law():
    law = random_pair(3, 2)
    u, v = law.sample(200, torch.Generator().manual_seed(1))
    moments = Moments(10**9, (torch.zeros(3).double(), torch.zeros(2).double()), law.c_uu, law.c_uv, law.c_vv)
    found = regularised_plug_in(moments, 2, NO_RIDGE)
    log_density = torch.distributions.MultivariateNormal
    both = log_density(torch.zeros(5).double(), law.covariance).log_prob(torch.cat([u, v], 1))
    alone = [log_density(torch.zeros(len(c)).double(), c).log_prob(x) for c, x in ((law.c_uu, u), (law.c_vv, v))]
    torch.testing.assert_close(scores(found, u, v).diagonal(), both - alone[0] - alone[1], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(("num", "n", "m"), [(12, 30, 25), (12, 30, 3), (60, 8, 40), (60, 8, 5)])
def test_the_coordinates_of_the_pairs_are_enough(num, n, m):
    """In the span of fewer pairs than components the answer is that of whole covariances."""
    u, v = related(num, n, m)
    u[:, 2] = 7.0  # never varies
    v[:, 1] = v[:, 0]
    bases = principal_basis(u), principal_basis(v)
    assert bases[0].shape[1] == min(num - 1, n - 1)
    torch.testing.assert_close(bases[0].T @ bases[0], torch.eye(bases[0].shape[1]).double(), atol=1e-9, rtol=0)
    ridges = [float(x.var(0, correction=0).sum()) / num for x in (u, v)]
    expected = naive(u, v, 2, ridges)
    inside = regularised_plug_in(Moments.of(u @ bases[0], v @ bases[1]), 2, bases=bases)
    torch.testing.assert_close(scores(inside, u, v), expected, rtol=1e-6, atol=1e-8)
    torch.testing.assert_close(scores(fitted(u, v, 2), u, v), expected, rtol=1e-6, atol=1e-8)
    assert (inside.variates[0].matrix.shape, inside.variates[1].matrix.shape) == ((2, n), (2, m))


@given(st.integers(0, 1000))
@settings(deadline=None, max_examples=25)
def test_without_a_ridge_coordinates_do_not_matter(seed):
    u, v = related(60, 4, 3, seed)
    change, shift = normal(4, 4, seed=seed + 10) + 3 * torch.eye(4).double(), normal(4, seed=seed + 11)
    if torch.linalg.cond(change) > 1e3:
        return
    expected = scores(fitted(u, v, 2, ridges=NO_RIDGE), u, v)
    moved = u @ change.T + shift
    torch.testing.assert_close(scores(fitted(moved, v, 2, ridges=NO_RIDGE), moved, v), expected, rtol=1e-6, atol=1e-8)


@given(st.permutations(range(5)), st.permutations(range(20)))
@settings(deadline=None, max_examples=25)
def test_orders_units_and_copies_do_not_matter(components, pairs):
    """The same scores come from another order, another unit of all components, and components that are told twice."""
    u, v = related(20, 5, 4)
    expected = scores(fitted(u, v, 2), u, v)
    torch.testing.assert_close(scores(fitted(u[pairs], v[pairs], 2), u, v), expected, rtol=1e-8, atol=1e-9)
    for changed in (u[:, components], 1000 * u, torch.cat([u, u], 1), torch.cat([u, torch.ones(20, 3)], 1)):
        torch.testing.assert_close(scores(fitted(changed, v, 2), changed, v), expected, rtol=1e-6, atol=1e-8)


@given(st.lists(st.integers(1, 9), min_size=1, max_size=6))
@settings(deadline=None, max_examples=25)
def test_moments_of_blocks_are_those_of_all(lengths):
    u, v = related(sum(lengths), 4, 3)
    u += 1e4
    first, *others = [Moments.of(*pair) for pair in zip(u.split(lengths), v.split(lengths), strict=True)]
    for other in others:
        first = first + other
    whole = Moments.of(u, v)
    assert first.num_pairs == whole.num_pairs
    for name in ("c_uu", "c_uv", "c_vv"):
        torch.testing.assert_close(getattr(first, name), getattr(whole, name), rtol=1e-8, atol=1e-8)
    torch.testing.assert_close(first.means, whole.means)


def test_the_ridge_is_near_the_best_on_pairs_that_are_not_seen():
    """Retrieval among pairs of the same law, with the module's ridge and with a hundred times less or more."""
    u, v = related(60, 50, 40)
    new = related(60 + 500, 50, 40)
    new = new[0][60:], new[1][60:]

    def gain(factor):
        ridges = [factor * float(x.var(0, correction=0).sum()) / len(u) for x in (u, v)]
        table = scores(fitted(u, v, 3, ridges=ridges), *new)
        ranks = (table >= table.diagonal()[:, None]).sum(1).double()
        return -ranks.log().mean().item()

    assert gain(1.0) > max(gain(0.01), gain(100.0)) + 0.1


def test_what_has_no_answer_is_refused():
    u, v = related(20, 3, 2)
    with pytest.raises(ValueError, match="v never varies"):
        fitted(u, torch.ones(20, 2), 1)
    with pytest.raises(ValueError, match="1 up to rounding: give a ridge"):
        fitted(u, u[:, :2], 1, ridges=NO_RIDGE)
    with pytest.raises(ValueError, match="20 u and 19 v"):
        Moments.of(u, v[1:])
    assert fitted(u, u, 3).correlations[0] < 1
    assert len(fitted(u, v, 64).correlations) == 2
