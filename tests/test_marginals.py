"""A modality that a Gaussian carries: its normaliser against draws, quadrature and autograd, and what is learned."""

import math

import pytest
import torch

from pcl.encoders.build import build_model
from pcl.losses import conditional_loss
from pcl.marginals import GaussianModality
from pcl.scores import Atoms

TILTINGS = ("inner_product", "squared_distance", "potentials")
BOTH = [(tilting, name) for tilting in TILTINGS for name in "uv"]


def model_of(tilting, name, shape=(2,), embedding_dim=2, temperature=0.7, dtype="float64"):
    """Return a model of linear encoders; the potential of the modality that is carried is zero."""
    linear = {"kind": "linear", "shape": list(shape)}
    sides = {side: linear | ({"potential": "zero" if side == name else "learned"}) for side in "uv"}
    sides = sides if tilting == "potentials" else dict.fromkeys("uv", linear)
    bounds = {"initial": temperature, "learned": True, "minimum": 0.01, "maximum": 100.0}
    model = build_model(
        {"embedding_dim": embedding_dim, "encoder_u": sides["u"], "encoder_v": sides["v"], "tilting": tilting}
        | {"temperature": bounds, "dtype": dtype},
        seed=1,
    )
    with torch.no_grad():  # a potential begins at zero
        for parameter in model.parameters():
            if parameter.ndim and not parameter.any():
                parameter.add_(0.3)
    return model


def loss_of(model, name, u, v, argument):
    """Return the one direction of the loss whose normaliser is over a modality, and its gradient in all parameters."""
    weights = (2.0, 0.0) if name == "u" else (0.0, 2.0)
    value, _ = conditional_loss(*model(u, v), model.temperature(), weights=weights, **dict([argument]))
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    gradients = torch.autograd.grad(value, parameters, allow_unused=True)
    return value.item(), [gradient for gradient in gradients if gradient is not None]


@pytest.mark.parametrize(("tilting", "name"), BOTH)
def test_a_million_draws_have_the_same_loss_and_gradient(tilting, name):
    generator = torch.Generator().manual_seed(0)
    u, v = (torch.randn(16, 2, generator=generator, dtype=torch.float64) for _ in "uv")
    mean, root = torch.tensor([0.4, -0.3]).double(), torch.tensor([[0.6, 0.2], [0.0, 0.5]]).double()
    draws = mean + torch.randn(1_000_000, 2, generator=generator, dtype=torch.float64) @ root
    model = model_of(tilting, name)
    features = (model.features_u if name == "u" else model.features_v)(draws)
    value, gradients = loss_of(
        model, name, u, v, (f"atoms_{name}", Atoms(features, torch.zeros(len(draws), dtype=torch.float64)))
    )
    exact, exactly = loss_of(model, name, u, v, GaussianModality(name, mean, root).given(model))
    assert exact == pytest.approx(value, abs=3e-3)
    for one, other in zip(exactly, gradients, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=8e-3)


@pytest.mark.parametrize(("tilting", "name"), BOTH)
def test_it_is_the_integral_over_one_number(tilting, name):
    model, mean, deviation = model_of(tilting, name, shape=(), embedding_dim=3), 0.7, 1.3
    grid = torch.linspace(-20, 20, 100_001, dtype=torch.float64)
    other = torch.tensor([0.9, -0.4], dtype=torch.float64)
    prior = -(((grid - mean) / deviation) ** 2) / 2 - math.log(deviation * math.sqrt(2 * math.pi))
    scores = model.log_tilting(*((grid, other) if name == "u" else (other, grid)))
    scores = scores.T if name == "u" else scores
    integral = torch.trapezoid((scores + prior).exp(), grid).log()
    one = GaussianModality(name, torch.tensor(mean).double(), torch.tensor([deviation]).double())
    carried = one.given(model)[1]
    queries = (model.features_v if name == "u" else model.features_u)(other) / model.temperature()
    torch.testing.assert_close(carried.log_normaliser(queries), integral, rtol=0, atol=1e-6)


@pytest.mark.long
@pytest.mark.parametrize("tilting", ["inner_product", "squared_distance"])
def test_on_gaussian_pairs_the_optimum_is_the_truth(tilting):
    """The loss is a log-likelihood: its optimum is the regression of u on v, and the covariance that it leaves."""
    generator = torch.Generator().manual_seed(0)
    v = torch.randn(3000, 2, generator=generator, dtype=torch.float64)
    u = v @ torch.tensor([[0.9, -0.3, 0.2], [0.1, 0.8, 0.4]], dtype=torch.float64)
    u = u + 0.6 * torch.randn(3000, 3, generator=generator, dtype=torch.float64)
    u, v = u - u.mean(0), v - v.mean(0)
    covariance = u.T @ u / len(u)
    regression = torch.linalg.lstsq(v, u).solution.T
    left = (u - v @ regression.T).T @ (u - v @ regression.T) / len(u)

    linear = {"kind": "linear", "potential": None}
    model = build_model(
        {"embedding_dim": 3, "tilting": tilting, "dtype": "float64"}
        | {"encoder_u": linear | {"shape": [3]}, "encoder_v": linear | {"shape": [2]}}
        | {"temperature": {"initial": 1.0, "learned": False, "minimum": 0.1, "maximum": 10.0}},
        seed=0,
    )
    modality = GaussianModality("u", torch.zeros(3).double(), torch.linalg.cholesky(covariance).T)
    optimizer = torch.optim.LBFGS(
        model.parameters(), max_iter=500, line_search_fn="strong_wolfe", tolerance_grad=1e-10, tolerance_change=1e-14
    )

    def closure():
        optimizer.zero_grad()
        value, _ = conditional_loss(*model(u, v), weights=(2.0, 0.0), **dict([modality.given(model)]))
        value.backward()
        return value

    optimizer.step(closure)
    g, h = model.encoder_u[-1].map.weight, model.encoder_v[-1].map.weight
    g, h = (part.detach() * side[0].scale for part, side in ((g, model.encoder_u), (h, model.encoder_v)))
    precision = torch.linalg.inv(covariance) + (g.T @ g if tilting == "squared_distance" else 0)
    torch.testing.assert_close(torch.linalg.solve(precision, g.T @ h), regression, rtol=0, atol=1e-5)
    if tilting == "squared_distance":
        torch.testing.assert_close(torch.linalg.inv(precision), left, rtol=0, atol=1e-5)


def test_a_mean_far_from_zero_costs_no_digits_that_matter():
    exact, single = (model_of("squared_distance", "u", dtype=dtype) for dtype in ("float64", "float32"))
    single.load_state_dict(exact.state_dict())
    mean, root = torch.tensor([300.0, -200.0]).double(), torch.eye(2).double() / 2
    of_exact, of_single = (GaussianModality("u", mean, root).given(model)[1] for model in (exact, single))
    torch.testing.assert_close(of_single.covariance_z.double(), of_exact.covariance_z, rtol=1e-3, atol=1e-4)


@pytest.mark.long
def test_it_does_not_saturate_where_a_batch_does():
    """A posterior that is sharp in 8 numbers, learned from batches of 64: 18 nats are known, log 64 are 4."""
    generator = torch.Generator().manual_seed(0)
    v = torch.randn(2000, 8, generator=generator, dtype=torch.float64)
    u = v + 0.1 * torch.randn(2000, 8, generator=generator, dtype=torch.float64)
    covariance, spread = torch.cov(u.T), {}
    modality = GaussianModality("u", u.mean(0), torch.linalg.cholesky(covariance).T)
    for known in ((), (modality,)):
        model = model_of("squared_distance", "u", shape=(8,), embedding_dim=8, temperature=1.0)
        optimizer = torch.optim.Adam(model.parameters(), lr=0.05)
        for step in range(400):
            optimizer.param_groups[0]["lr"] = 0.05 * (1 - step / 400)
            batch = torch.randint(len(u), (64,), generator=generator)
            atoms = dict(one.given(model) for one in known)
            features = model(u[batch], v[batch])
            value, _ = conditional_loss(*features, model.temperature(), weights=(2.0, 0.0), **atoms)
            optimizer.zero_grad()
            value.backward()
            optimizer.step()
        g = model.encoder_u(torch.eye(8).double()) - model.encoder_u(torch.zeros(8, 8).double())
        precision = torch.linalg.inv(covariance) + g @ g.T / model.temperature()
        spread[len(known)] = torch.linalg.inv(precision).diagonal().sqrt().mean().item()
    assert spread[1] == pytest.approx(0.1, abs=0.01)
    assert spread[0] > 0.15
