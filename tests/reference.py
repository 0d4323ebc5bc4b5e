"""Losses as their formulas say, on whole matrices in float64: what every other way of computing them must equal."""

import itertools

import torch


def scores(u, v, tilting, temperature):
    """Return s(u_i, v_j) of embeddings, (B, B)."""
    if tilting == "cosine":
        u, v = u / u.norm(dim=1, keepdim=True), v / v.norm(dim=1, keepdim=True)
    if tilting == "squared_distance":
        return -(u[:, None] - v[None]).square().sum(-1) / (2 * temperature)
    if tilting == "potentials":
        return (torch.einsum("ie,je->ij", u[:, :-1], v[:, :-1]) + u[:, -1:] + v[None, :, -1]) / temperature
    return torch.einsum("ie,je->ij", u, v) / temperature


def off_diagonal(matrix):
    """Return the matrix without its diagonal, one row shorter along each column, (B, B - 1)."""
    size = len(matrix)
    return matrix[~torch.eye(size, dtype=torch.bool)].view(size, size - 1)


def directions(s, exclude_positive=False):
    """Return the one-sided losses u_given_v and v_given_u in their density form."""
    if exclude_positive:
        return [-(s.diagonal() - off_diagonal(m).exp().mean(1).log()).mean() for m in (s.T, s)]
    return [-(s.diagonal() - s.exp().mean(axis).log()).mean() for axis in (0, 1)]


def conditional(s, weights=(1.0, 1.0), exclude_positive=False):
    u_given_v, v_given_u = directions(s, exclude_positive)
    return weights[0] / 2 * u_given_v + weights[1] / 2 * v_given_u


def joint(s, exclude_positive=False):
    return -s.diagonal().mean() + (off_diagonal(s) if exclude_positive else s).exp().mean().log()


def one_mmd(densities, kernel, statistic="v", exclude_positive=False):
    """Return the loss of the conditional of x given y: densities rho(x_j | y_i), (B, B); the means are loops."""
    size = len(densities)
    triples = [
        (i, j, k)
        for i, j, k in itertools.product(range(size), repeat=3)
        if not (statistic == "u" and j == k) and not (exclude_positive and i in (j, k))
    ]
    distinct = statistic == "u" or exclude_positive
    pairs = [(i, j) for i, j in itertools.product(range(size), repeat=2) if not (distinct and i == j)]
    inner = torch.stack([kernel[j, k] * densities[i, j] * densities[i, k] for i, j, k in triples]).mean()
    cross = torch.stack([kernel[i, j] * densities[i, j] for i, j in pairs]).mean()
    return inner / 2 - cross


def conditional_mmd(s, kernel_u, kernel_v, weights=(1.0, 1.0), statistic="v", exclude_positive=False):
    total = 0.0
    for weight, matrix, kernel in ((weights[0], s.T, kernel_u), (weights[1], s, kernel_v)):
        normaliser = (off_diagonal(matrix) if exclude_positive else matrix).exp().mean(1, keepdim=True)
        if weight:
            total = total + weight / 2 * one_mmd(matrix.exp() / normaliser, kernel, statistic, exclude_positive)
    return total


def joint_mmd(s, kernel_u, kernel_v, statistic="v", exclude_positive=False):
    size = len(s)
    densities = s.exp() / (off_diagonal(s) if exclude_positive else s).exp().mean()
    drawn = [(i, j) for i, j in itertools.product(range(size), repeat=2) if not (exclude_positive and i == j)]
    inner = [
        kernel_u[i, k] * kernel_v[j, m] * densities[i, j] * densities[k, m]
        for (i, j), (k, m) in itertools.product(drawn, repeat=2)
        if statistic == "v" or (i != k and j != m)
    ]
    cross = [
        kernel_u[i, k] * kernel_v[j, k] * densities[i, j]
        for i, j in drawn
        for k in range(size)
        if statistic == "v" or k not in (i, j)
    ]
    return torch.stack(inner).mean() - 2 * torch.stack(cross).mean()


def logistic(s, bias=0.0, num_negatives=0.0):
    """Return the cross entropy of a classifier that sees each positive once and nu negatives for it."""
    size, cross_entropy = len(s), torch.nn.functional.binary_cross_entropy_with_logits
    weight = num_negatives or size - 1
    logits = s + bias - torch.tensor(weight, dtype=s.dtype).log()
    positives, negatives = logits.diagonal(), off_diagonal(logits)
    of_positives = cross_entropy(positives, torch.ones_like(positives))
    return of_positives + weight * cross_entropy(negatives, torch.zeros_like(negatives))


def loss(kind, s, *, weights=(1.0, 1.0), kernel_u=None, kernel_v=None, statistic="v", exclude_positive=False, **own):
    """Return a loss by name."""
    if kind == "logistic":
        return logistic(s, **own)
    if kind == "conditional":
        return conditional(s, weights, exclude_positive)
    if kind == "joint":
        return joint(s, exclude_positive)
    if kind == "conditional_mmd":
        return conditional_mmd(s, kernel_u, kernel_v, weights, statistic, exclude_positive)
    return joint_mmd(s, kernel_u, kernel_v, statistic, exclude_positive)


def value_and_gradients(function, *inputs):
    """Return the value and its gradient by every input."""
    leaves = [part.detach().clone().requires_grad_() for part in inputs]
    value = function(*leaves)
    return [value.detach(), *torch.autograd.grad(value, leaves, allow_unused=True, materialize_grads=True)]
