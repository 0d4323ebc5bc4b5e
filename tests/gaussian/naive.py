"""Population losses straight from the textbook: inverses and log-determinants in the coordinates of the data."""

import torch

from pcl.gaussian import GaussianPair

LOSSES = ("conditional", "joint")
TILTINGS = ("inner_product", "squared_distance")


def random_pair(n, m, seed=0):
    factor = torch.randn(n + m, n + m, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    covariance = factor @ factor.T / (n + m) + 0.05 * torch.eye(n + m, dtype=torch.float64)
    return GaussianPair(covariance[:n, :n], covariance[:n, n:], covariance[n:, n:])


def random_encoders(pair, rank, seed=0, size=0.8):
    """Return encoders of that spectral norm where the marginals are white: the model is proper if it is below 1."""
    generator = torch.Generator().manual_seed(seed)
    encoders = []
    for covariance in (pair.c_uu, pair.c_vv):
        white = torch.randn(rank, len(covariance), generator=generator, dtype=torch.float64)
        root = torch.linalg.cholesky(covariance)
        encoders.append(size * white / torch.linalg.matrix_norm(white, 2) @ root.inverse())
    return encoders


def divergence(mean_map, covariance, truth_map, truth_covariance, conditioning):
    """Return E KL(N(truth_map y, truth_covariance) || N(mean_map y, covariance)) over y ~ N(0, conditioning)."""
    difference = mean_map - truth_map
    spread = truth_covariance + difference @ conditioning @ difference.T
    trace = torch.linalg.solve(covariance, spread).trace()
    return (trace - len(covariance) + torch.logdet(covariance) - torch.logdet(truth_covariance)) / 2


def potential_precisions(g, h, tilting, potentials):
    """Return Q'Q and R'R."""
    tied = {"inner_product": (0 * g, 0 * h), "squared_distance": (g, h)}
    return [root.T @ root for root in tied.get(tilting, potentials)]


def conditional_divergence(g, h, pair, tilting, weights=(1.0, 1.0), potentials=()):
    total, added = 0.0, potential_precisions(g, h, tilting, potentials)
    for weight, a, b, own, cross, given, extra in (
        (weights[0], g, h, pair.c_uu, pair.c_uv, pair.c_vv, added[0]),
        (weights[1], h, g, pair.c_vv, pair.c_uv.T, pair.c_uu, added[1]),
    ):
        regression = cross @ torch.linalg.inv(given)
        precision = torch.linalg.inv(own) + extra
        covariance = torch.linalg.inv(precision)
        kl = divergence(covariance @ a.T @ b, covariance, regression, own - regression @ cross.T, given)
        total = total + weight / 2 * kl
    return total


def joint_precision(g, h, pair, tilting, potentials=()):
    added = potential_precisions(g, h, tilting, potentials)
    precisions = [torch.linalg.inv(c) + extra for c, extra in zip((pair.c_uu, pair.c_vv), added, strict=True)]
    return torch.cat([torch.cat([precisions[0], -g.T @ h], 1), torch.cat([-h.T @ g, precisions[1]], 1)])


def joint_divergence(g, h, pair, tilting, potentials=()):
    nothing = torch.zeros_like(pair.covariance)
    covariance = torch.linalg.inv(joint_precision(g, h, pair, tilting, potentials))
    return divergence(nothing, covariance, nothing, pair.covariance, nothing)


def population_divergence(g, h, pair, loss, tilting, weights, potentials=()):
    if loss == "joint":
        return joint_divergence(g, h, pair, tilting, potentials)
    return conditional_divergence(g, h, pair, tilting, weights, potentials)
