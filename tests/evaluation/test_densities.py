"""Held-out densities and effective sample sizes against softmaxes of whole matrices, and against Gaussian pairs."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pcl.evaluation.densities import density_metrics


@given(
    number=st.integers(1, 30),
    dim=st.integers(1, 4),
    scale=st.sampled_from([0.01, 1.0, 30.0]),
    seed=st.integers(0, 2**32 - 1),
)
@settings(deadline=None)
def test_they_are_those_of_the_softmax(number, dim, scale, seed):
    generator = torch.Generator().manual_seed(seed)
    u, v = scale * torch.randn(2, number, dim, generator=generator, dtype=torch.float64)
    weights = torch.softmax(u @ v.T, 1)
    found = density_metrics(u, v)
    expected = torch.log_softmax(u @ v.T, 1).diagonal().mean().item() + math.log(number)
    assert found["log_density"] == pytest.approx(expected, rel=1e-9, abs=1e-9)
    size = (1 / weights.square().sum(1)).quantile(0.5).item()
    assert found["effective_sample_size"] == pytest.approx(size, rel=1e-9)
    assert found["log_density"] <= math.log(number) + 1e-9


@pytest.mark.long
def test_the_true_tilting_of_gaussian_pairs_has_their_mutual_information():
    generator = torch.Generator().manual_seed(0)
    u, noise = torch.randn(2, 20_000, generator=generator, dtype=torch.float64)
    r = 0.8
    v = r * u + math.sqrt(1 - r**2) * noise
    features_u = torch.stack([r * u, -((r * u) ** 2) / 2, torch.ones_like(u)], 1) / (1 - r**2)
    features_v = torch.stack([v, torch.ones_like(v), -((r * v) ** 2) / 2], 1)
    for pair in ((features_u, features_v), (features_v, features_u)):
        found = density_metrics(pair[0].float(), pair[1].float())
        assert found["log_density"] == pytest.approx(-math.log(1 - r**2) / 2, abs=0.02)
