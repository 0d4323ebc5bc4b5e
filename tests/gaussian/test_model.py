"""The law that linear encoders imply, against quadrature, its precision, and what theory says of its marginals."""

import numpy as np
import pytest
import torch
from gaussian.naive import TILTINGS, joint_precision, random_encoders, random_pair
from scipy.linalg import sqrtm

from pcl.gaussian import (
    AffineMap,
    GaussianPair,
    ImproperModelError,
    model_conditional,
    model_joint,
    optimal_encoders,
)


@pytest.mark.parametrize("tilting", TILTINGS)
def test_model_conditionals_are_those_of_quadrature(tilting):
    """In one dimension of u the tilted density is integrated on a grid, offsets included."""
    generator = torch.Generator().manual_seed(0)
    g, g_0, h, h_0 = (0.7 * torch.randn(s, generator=generator, dtype=torch.float64) for s in ((2, 1), 2, (2, 3), 2))
    mean, covariance = model_conditional(
        AffineMap(g, g_0), AffineMap(h, h_0), torch.tensor([[1.3]], dtype=torch.float64), tilting
    )
    u = np.linspace(-15, 15, 20_001)
    for v in torch.randn(5, 3, generator=generator, dtype=torch.float64):
        z_u, z_v = u[:, None] * g[:, 0].numpy() + g_0.numpy(), (h @ v + h_0).numpy()
        score = z_u @ z_v if tilting == "inner_product" else -((z_u - z_v) ** 2).sum(1) / 2
        density = np.exp(score - u**2 / (2 * 1.3))
        density /= density.sum()
        assert mean(v[None]).item() == pytest.approx(density @ u, rel=1e-9, abs=1e-9)
        assert covariance.item() == pytest.approx(density @ (u - density @ u) ** 2, rel=1e-9)


def test_the_cosine_tilting_has_no_gaussian_conditional():
    one = AffineMap(torch.eye(1).double(), torch.zeros(1).double())
    with pytest.raises(ValueError, match="tilting 'cosine' has no closed form here"):
        model_conditional(one, one, torch.eye(1).double(), "cosine")


@pytest.mark.parametrize("tilting", TILTINGS)
@pytest.mark.parametrize(("n", "m", "rank"), [(1, 1, 1), (4, 3, 2), (2, 5, 4)])
def test_the_joint_model_has_the_precision_of_the_paper_and_the_model_conditionals(tilting, n, m, rank):
    pair = random_pair(n, m)
    g, h = random_encoders(pair, rank)
    model = model_joint(pair, g, h, tilting)
    np.testing.assert_allclose(
        model.covariance, torch.linalg.inv(joint_precision(g, h, pair, tilting)), rtol=1e-10, atol=1e-12
    )
    g, h = (AffineMap(e, torch.zeros(rank, dtype=torch.float64)) for e in (g, h))
    for direction, maps, prior in (("u_given_v", (g, h), pair.c_uu), ("v_given_u", (h, g), pair.c_vv)):
        mean, covariance = model_conditional(*maps, prior, tilting)
        expected, expected_covariance = model.conditional(direction)
        np.testing.assert_allclose(mean.matrix, expected.matrix, rtol=1e-9, atol=1e-11)
        np.testing.assert_allclose(covariance, expected_covariance, rtol=1e-9, atol=1e-11)


def test_a_model_of_infinite_mass_is_refused():
    pair = random_pair(4, 3)
    g, h = random_encoders(pair, 2, size=0.8)
    product = torch.linalg.matrix_norm(pair.root_u.T @ g.T @ h @ pair.root_v, 2)
    assert model_joint(pair, g, 0.999 * h / product, "inner_product").covariance.isfinite().all()
    for size, smallest in ((1, "[-0-9.e]+"), (1.5, "-5.00e-01")):
        with pytest.raises(ImproperModelError, match=f"smallest eigenvalue of its precision is {smallest}.*shrink"):
            model_joint(pair, g, size * h / product, "inner_product")
    assert model_joint(pair, 100 * g, 100 * h, "squared_distance").covariance.isfinite().all()


def test_what_does_not_act_on_the_pair_is_refused():
    pair = random_pair(4, 3)
    with pytest.raises(ValueError, match=r"encoders of shapes \(2, 3\) and \(2, 4\): \(E, 4\) and \(E, 3\)"):
        model_joint(pair, torch.zeros(2, 3), torch.zeros(2, 4), "inner_product")
    with pytest.raises(ValueError, match="tilting 'cosine' has no closed form here"):
        model_joint(pair, torch.zeros(2, 4), torch.zeros(2, 3), "cosine")


@pytest.mark.parametrize(("n", "m"), [(4, 3), (2, 5)])
def test_the_marginals_of_the_model_are_those_of_the_paper(n, m):
    """Corollary 5.7, with the complement of the canonical directions, which no encoder touches."""
    for seed in range(3):
        pair = random_pair(n, m, seed)
        roots = [sqrtm(c.numpy()).real for c in (pair.c_uu, pair.c_vv)]
        cross = np.linalg.solve(roots[0], pair.c_uv.numpy()) @ np.linalg.inv(roots[1])
        left, sigma, _ = np.linalg.svd(cross, full_matrices=False)
        errors = []
        for loss, product in (("conditional", sigma), ("joint", (np.sqrt(1 + 4 * sigma**2) - 1) / (2 * sigma))):
            model = model_joint(pair, *optimal_encoders(pair, min(n, m), loss), "inner_product")
            white = np.eye(n) + (left * (1 / (1 - product**2) - 1)) @ left.T
            np.testing.assert_allclose(model.c_uu, roots[0] @ white @ roots[0], rtol=1e-9, atol=1e-11)
            errors.append(np.linalg.norm(model.c_uu - pair.c_uu, 2))
        assert errors[1] < errors[0]


@pytest.mark.parametrize("correlation", [0.05, 0.5, 0.99])
def test_the_joint_optimum_of_squared_distances_has_the_law_of_the_difference_alone(correlation):
    """Of a white pair x - y is as in the data, and x + y as if x and y were independent."""
    pair = GaussianPair(torch.eye(1), correlation * torch.eye(1, dtype=torch.float64), torch.eye(1))
    model = model_joint(pair, *optimal_encoders(pair, 1, "joint", "squared_distance"), "squared_distance")
    for sign, variance in ((-1, 2 - 2 * correlation), (1, 2)):
        found = model.c_uu + model.c_vv + 2 * sign * model.c_uv
        assert found.item() == pytest.approx(variance, rel=1e-12)
