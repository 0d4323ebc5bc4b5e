"""The law of a point against scipy, quadrature and autograd."""

import math

import numpy as np
import pytest
import torch
from scipy import integrate, stats

from pcl.problems.ocean.evaluation.field_scores import gaussian_crps
from pcl.problems.ocean.evaluation.point_law import PointLaw, how_to_read

NUS = [2.2, 3.0, 5.5, 40.0, 1e5, math.inf]
TRUTH = torch.tensor([-9.0, -1.0, 0.2, 0.3, 2.5], dtype=torch.float64)
MEAN, STD = torch.tensor([0.2], dtype=torch.float64), torch.tensor([0.7], dtype=torch.float64)


def reference(nu):
    """The same law by scipy, which has its scale in place of its standard deviation."""
    return stats.norm(0.2, 0.7) if math.isinf(nu) else stats.t(nu, 0.2, 0.7 * math.sqrt((nu - 2) / nu))


@pytest.mark.parametrize("nu", NUS)
def test_it_is_the_law_of_that_mean_and_standard_deviation(nu):
    law, known = PointLaw(MEAN, STD, nu), reference(nu)
    assert known.std() == pytest.approx(0.7)
    np.testing.assert_allclose(law.place(TRUTH), known.cdf(TRUTH), rtol=1e-6, atol=1e-30)
    np.testing.assert_allclose(law.log_density(TRUTH), known.logpdf(TRUTH), rtol=1e-9, atol=1e-9)
    for share in (0.5, 0.9):
        assert law.interval(share) * 0.7 == pytest.approx(known.interval(share)[1] - 0.2)


@pytest.mark.parametrize("nu", NUS)
def test_its_score_is_the_integral(nu):
    known, found = reference(nu), PointLaw(MEAN, STD, nu).crps(TRUTH)
    for truth, score in zip(TRUTH.tolist(), found.tolist(), strict=True):
        below, _ = integrate.quad(lambda x: known.cdf(x) ** 2, -np.inf, truth, epsabs=1e-10)
        above, _ = integrate.quad(lambda x: known.sf(x) ** 2, truth, np.inf, epsabs=1e-10)
        assert score == pytest.approx(below + above, rel=1e-6)


def test_many_degrees_are_the_normal_law():
    near, normal = PointLaw(MEAN, STD, 9e5), PointLaw(MEAN, STD)
    torch.testing.assert_close(near.crps(TRUTH), gaussian_crps(MEAN, STD, TRUTH), rtol=1e-4, atol=0)
    torch.testing.assert_close(near.place(TRUTH[1:]), normal.place(TRUTH[1:]), rtol=1e-5, atol=0)
    assert not near.is_normal
    assert normal.is_normal


def test_its_density_can_be_differentiated():
    inputs = [part.clone().requires_grad_() for part in (MEAN, STD, torch.tensor(4.0, dtype=torch.float64))]
    assert torch.autograd.gradcheck(lambda *parts: PointLaw(*parts).log_density(TRUTH), inputs)


def test_what_is_missing_stays_missing():
    truth = torch.tensor([torch.nan, 0.1], dtype=torch.float64)
    for nu in (5.0, math.inf):
        law = PointLaw(MEAN, STD, nu)
        assert law.place(truth).isnan().tolist() == law.crps(truth).isnan().tolist() == [True, False]


def test_a_file_says_how_intervals_follow():
    assert "Student's of 5 degrees of freedom: 50 % within 0.56 standard" in how_to_read(5.0)
    assert "90 % within 1.56; members are of the covariance alone" in how_to_read(5.0)
