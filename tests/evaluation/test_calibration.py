"""Calibration where theory knows the answer: closed forms of coverage and dispersion, scipy, and rules stated above."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from pcl.encoders.build import build_model
from pcl.evaluation.calibration import Calibration, calibrate, calibration_ranks, gaussian_samples
from pcl.evaluation.calibration_figure import _binomial_band, calibration_figure
from pcl.gaussian import AffineMap, GaussianPair, model_conditional, optimal_encoders

LEVELS = (0.2, 0.5, 0.9, 0.99)
ONE_SIDED = ("squared_distance", (2, 0))
INNER = ("inner_product", (1, 1))


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def random_pair():
    """Return a random law of u in three and v in two components; its canonical correlations are .78 and .44."""
    factor = torch.randn(5, 9, generator=seeded(8), dtype=torch.float64)
    joint = factor @ factor.T / 9
    return GaussianPair(joint[:3, :3], joint[:3, 3:], joint[3:, 3:])


def learned(pair, optimum, direction, embedding_dim=2):
    """Return the Gaussian conditional of the closed-form encoders."""
    tilting, weights = optimum
    encoders = optimal_encoders(pair, embedding_dim, "conditional", tilting, weights)
    g, h = (AffineMap(matrix, torch.zeros(embedding_dim, dtype=torch.float64)) for matrix in encoders)
    if direction == "u_given_v":
        return model_conditional(g, h, pair.c_uu, tilting)
    return model_conditional(h, g, pair.c_vv, tilting)


def known_ratio(pair, mean, covariance, direction):
    """Return the standard deviation of truth minus learned mean over the learned one, of every component."""
    truth, truth_covariance = pair.conditional(direction)
    difference = truth.matrix - mean.matrix
    conditioning = pair.c_vv if direction == "u_given_v" else pair.c_uu
    error = truth_covariance + difference @ conditioning @ difference.T
    return (error.diagonal() / covariance.diagonal()).sqrt().numpy()


def known_coverage(ratio):
    return np.stack([2 * stats.norm.cdf(stats.norm.ppf((1 + level) / 2) / ratio) - 1 for level in LEVELS])


def known_dispersion(ratio):
    """Var Phi(a Z) = arcsin(a^2 / (1 + a^2)) / 2 pi, over the variance 1/12 of the uniform law."""
    return np.sqrt(6 / np.pi * np.arcsin(ratio**2 / (1 + ratio**2)))


def exact_calibration(pair, optimum, direction, embedding_dim=2, num_pairs=2000):
    """Calibrate the closed form by exact draws; return it with the ratio that theory knows."""
    mean, covariance = learned(pair, optimum, direction, embedding_dim)
    u, v = pair.sample(num_pairs, seeded(1))
    truths, conditioning = (u, v) if direction == "u_given_v" else (v, u)
    samples = gaussian_samples(mean, covariance, conditioning, 399, seeded(2))
    calibration = Calibration(calibration_ranks(samples, truths, seeded(3)), 399)
    return calibration, known_ratio(pair, mean, covariance, direction)


@pytest.mark.parametrize(
    ("optimum", "direction", "embedding_dim", "verdict"),
    [
        (ONE_SIDED, "u_given_v", 2, "exact"),
        (("squared_distance", (0, 2)), "v_given_u", 2, "exact"),
        (ONE_SIDED, "u_given_v", 1, "exact"),  # the law of u given one canonical coordinate of v: not sharp
        (INNER, "u_given_v", 2, "wide"),
        (INNER, "v_given_u", 2, "wide"),
        (ONE_SIDED, "v_given_u", 2, "narrow"),
    ],
)
def test_gaussian_conditionals_are_as_calibrated_as_theory_says(optimum, direction, embedding_dim, verdict):
    calibration, ratio = exact_calibration(random_pair(), optimum, direction, embedding_dim)
    coverage, error = calibration.coverage(LEVELS)
    assert (np.abs(coverage - known_coverage(ratio)) < 4 * error).all()
    np.testing.assert_allclose(calibration.dispersion, known_dispersion(ratio), atol=0.04)
    if verdict == "exact":
        np.testing.assert_allclose(ratio, 1, rtol=1e-10)
        assert calibration.p_value > 1e-3
    else:
        assert calibration.p_value < 1e-6
        assert ((ratio < 1) if verdict == "wide" else (ratio > 1)).all()
        assert (calibration.dispersion.mean() < 0.95) == (verdict == "wide")
        assert (calibration.dispersion.mean() > 1.05) == (verdict == "narrow")


def test_a_shifted_conditional_is_not_calibrated():
    pair = random_pair()
    mean, covariance = pair.conditional("u_given_v")
    u, v = pair.sample(1000, seeded(1))
    shift = AffineMap(mean.matrix, 0.5 * covariance.diagonal().sqrt())
    ranks = calibration_ranks(gaussian_samples(shift, covariance, v, 99, seeded(2)), u, seeded(3))
    assert Calibration(ranks, 99).p_value < 1e-6
    assert (ranks.double().mean(0) < 40).all()


def test_gaussian_draws_have_the_moments_asked_for():
    pair = random_pair()
    mean, covariance = pair.conditional("u_given_v")
    mean = AffineMap(mean.matrix, torch.tensor([1.0, -2.0, 3.0]).double())
    conditioning = pair.sample(3, seeded(1))[1]
    samples = gaussian_samples(mean, covariance, conditioning, 100_000, seeded(2))
    torch.testing.assert_close(samples.mean(1), mean(conditioning), atol=0.02, rtol=0)
    for draws in samples:
        torch.testing.assert_close(torch.cov(draws.T), covariance, atol=0.02, rtol=0)


# ---- reference sets


def linear_model(g, h, tilting, dtype="float64"):
    encoders = {f"encoder_{k}": {"kind": "linear", "shape": [x.shape[1]]} for k, x in (("u", g), ("v", h))}
    tau = {"initial": 1.0, "learned": False, "minimum": 0.1, "maximum": 10.0}
    model = build_model(encoders | {"embedding_dim": len(g), "tilting": tilting, "temperature": tau, "dtype": dtype})
    with torch.no_grad():
        model.encoder_u[1].map.weight.copy_(g)
        model.encoder_v[1].map.weight.copy_(h)
    return model


def closed_form_model(pair, optimum, dtype="float64"):
    return linear_model(*optimal_encoders(pair, 2, "conditional", *optimum), optimum[0], dtype)


@pytest.mark.parametrize(
    ("optimum", "direction", "is_calibrated"),
    [(ONE_SIDED, "u_given_v", True), (INNER, "u_given_v", False), (ONE_SIDED, "v_given_u", False)],
)
def test_a_large_reference_set_agrees_with_exact_draws(optimum, direction, is_calibrated):
    pair, side = random_pair(), "uv".index(direction[0])
    references = pair.sample(20_000, seeded(7))[side].float()
    model = closed_form_model(pair, optimum, "float32")
    exact, ratio = exact_calibration(pair, optimum, direction)
    pairs = [part.float() for part in pair.sample(2000, seeded(1))]  # the same
    found = calibrate(model, direction, *pairs, references, 399, seeded(9))
    (coverage, error), (exact_coverage, _) = found.coverage(LEVELS), exact.coverage(LEVELS)
    assert (np.abs(coverage - known_coverage(ratio)) < 4 * error).all()
    assert ((coverage - exact_coverage).abs() < 2 * error).all()
    torch.testing.assert_close(found.dispersion, exact.dispersion, atol=0.03, rtol=0)
    assert (found.p_value > 1e-3) if is_calibrated else (found.p_value < 1e-6)


def small_problem(num_pairs=40, num_references=60):
    pair = random_pair()
    return (
        closed_form_model(pair, ONE_SIDED),
        *pair.sample(num_pairs, seeded(1)),
        *pair.sample(num_references, seeded(2)),
    )


@pytest.mark.parametrize("direction", ["u_given_v", "v_given_u"])
@pytest.mark.parametrize("block_pairs", [7, 40, 1000])
def test_draws_are_those_of_the_conditional_block_by_block(direction, block_pairs):
    model, u, v, *references = small_problem()
    is_u = direction == "u_given_v"
    items, truths = references[not is_u], u if is_u else v
    found = calibrate(model, direction, u, v, items, 20, seeded(3), block_pairs)
    conditional, generator, expected = model.conditional(direction, items), seeded(3), []
    for start in range(0, 40, block_pairs):
        rows = slice(start, start + block_pairs)
        features = model.features_v(v[rows]) if is_u else model.features_u(u[rows])
        samples = items[conditional.sample(features, 20, generator)]
        expected.append(calibration_ranks(samples, truths[rows], generator))
    assert torch.equal(found.ranks, torch.cat(expected))
    assert not found.ranks.requires_grad


def test_memory_is_that_of_a_block(monkeypatch):
    model, u, v, references, _ = small_problem()
    sizes = []
    features_v = model.features_v
    monkeypatch.setattr(model, "features_v", lambda block: sizes.append(len(block)) or features_v(block))
    calibrate(model, "u_given_v", u, v, references, 9, seeded(), block_pairs=16)
    assert sizes == [16, 16, 8]


def test_projections_take_the_place_of_components():
    model, u, v, references, _ = small_problem()
    projections = torch.randn(3, 2, generator=seeded(5), dtype=torch.float64)

    def run(**settings):
        return calibrate(model, "u_given_v", u, v, references, 9, seeded(), **settings).ranks

    assert torch.equal(run(projections=torch.eye(3).double()), run())
    columns = torch.cat([torch.eye(3).double(), -torch.eye(3).double()], 1)
    ranks = run(projections=columns)
    assert torch.equal(ranks[:, 3:], 9 - ranks[:, :3])  # order is reversed, and there are no ties here
    drawn = references[model.conditional("u_given_v", references).sample(model.features_v(v), 9, seeded())]
    expected = [[int((d @ p < t @ p).sum()) for p in projections.T] for d, t in zip(drawn, u, strict=True)]
    assert run(projections=projections).tolist() == expected


def test_random_directions_of_a_calibrated_conditional_are_calibrated():
    pair = random_pair()
    directions = torch.nn.functional.normalize(torch.randn(3, 5, generator=seeded(5)), dim=0)
    pairs, references = pair.sample(500, seeded(8)), pair.sample(10_000, seeded(7))[0]
    for optimum, is_calibrated in ((ONE_SIDED, True), (INNER, False)):
        model = closed_form_model(pair, optimum)
        found = calibrate(model, "u_given_v", *pairs, references, 99, seeded(9), projections=directions)
        assert found.ranks.shape == (500, 5)
        assert (found.p_value > 1e-3) == is_calibrated


def test_items_of_any_shape_are_flattened():
    linear = {"kind": "linear", "shape": [2, 2]}
    tau = {"initial": 1.0, "learned": False, "minimum": 0.1, "maximum": 10.0}
    spec = {"embedding_dim": 2, "encoder_u": linear, "encoder_v": linear, "tilting": "cosine", "temperature": tau}
    model = build_model(spec | {"dtype": "float32"})
    images = torch.randint(256, (50, 2, 2), generator=seeded(), dtype=torch.uint8)
    assert calibrate(model, "v_given_u", images[:9], images[:9], images[9:], 5, seeded()).ranks.shape == (9, 4)


def test_labels_are_calibrated_where_their_frequency_is_known():
    """The truths are drawn from softmax(s + log prior): five atoms, ties everywhere."""
    prior = torch.tensor([0.4, 0.3, 0.15, 0.1, 0.05])
    tau = {"initial": 1.0, "learned": False, "minimum": 0.1, "maximum": 10.0}
    encoders = {"encoder_u": {"kind": "linear", "shape": [3]}, "encoder_v": {"kind": "one_hot", "shape": []}}
    spec = encoders | {"embedding_dim": 5, "tilting": "inner_product", "temperature": tau, "dtype": "float32"}
    model = build_model(spec)
    u = 3 * torch.randn(2000, 3, generator=seeded())
    with torch.no_grad():
        logits = model.log_tilting(u, torch.arange(5)) + prior.log()
    v = torch.multinomial(logits.softmax(1), 1, generator=seeded(1))[:, 0].to(torch.uint8)
    settings = {"references": torch.arange(5), "num_draws": 49, "generator": seeded(2)}
    assert calibrate(model, "v_given_u", u, v, log_prior=prior.log(), **settings).p_value > 1e-3
    assert calibrate(model, "v_given_u", u, v, **settings).p_value < 1e-6


def test_truths_among_their_own_references_hide_that_a_conditional_is_too_narrow():
    """A reference set this small is too narrow by itself: few of its members have weight."""
    correlation = torch.tensor([[0.95, 0.0], [0.0, 0.5], [0.0, 0.0]])
    pair = GaussianPair(torch.eye(3), correlation, torch.eye(2))
    model = closed_form_model(pair, ONE_SIDED)
    dispersions = []
    for seed in range(6):
        u, v = pair.sample(100, seeded(100 + seed))
        for references in (pair.sample(100, seeded(200 + seed))[0], u):
            found = calibrate(model, "u_given_v", u, v, references, 99, seeded(3))
            dispersions.append(found.dispersion.mean().item())
    honest, leaking = np.reshape(dispersions, (6, 2)).T
    assert (leaking < honest).all()
    assert leaking.mean() < 1 < honest.mean() - 0.02


# ---- ranks


@given(st.integers(1, 8), st.integers(1, 12), st.integers(1, 3), st.integers(1, 6), st.integers(0, 2**32 - 1))
@settings(deadline=None)
def test_ranks_count_the_draws_below_and_do_not_see_monotone_maps(num_pairs, num_draws, dim, num_values, seed):
    """Whole numbers, so that ties are exact and the maps strict in floating point."""
    values = torch.randint(num_values, (num_pairs, num_draws + 1, dim), generator=seeded(seed)).double()
    samples, truths = values[:, 1:], values[:, 0]
    ranks = calibration_ranks(samples, truths, seeded(seed))
    below, equal = (samples < truths[:, None]).sum(1), (samples == truths[:, None]).sum(1)
    assert ((below <= ranks) & (ranks <= below + equal)).all()
    for monotone in (torch.exp, torch.atan, lambda x: x**3 - 7, lambda x: x.long(), lambda x: x.float()):
        assert torch.equal(ranks, calibration_ranks(monotone(samples), monotone(truths), seeded(seed)))


@pytest.mark.parametrize("num_values", [1, 2, 5, 10**6])
def test_ties_do_not_bias(num_values):
    values = torch.randint(num_values, (20_000, 10, 1), generator=seeded(1))
    ranks = calibration_ranks(values[:, 1:], values[:, 0], seeded(2))[:, 0]
    assert stats.chisquare(np.bincount(ranks, minlength=10)).pvalue > 1e-3
    assert Calibration(ranks[:, None], 9).p_value > 1e-3


# ---- numbers


def uniform_ranks(num_pairs, num_draws, dim, seed=0):
    return Calibration(torch.randint(num_draws + 1, (num_pairs, dim), generator=seeded(seed)), num_draws)


@pytest.mark.parametrize(("num_pairs", "num_draws"), [(50, 3), (200, 99), (1000, 999)])
def test_p_values_bound_those_of_scipy_closely(num_pairs, num_draws):
    calibration = uniform_ranks(num_pairs, num_draws, 100)
    differences, p_values = calibration.ecdf_difference.numpy(), calibration.p_values.tolist()
    ranks, uniform = np.arange(num_draws + 1), stats.randint(0, num_draws + 1).cdf(np.arange(num_draws + 1))
    for column, difference, found in zip(calibration.ranks.numpy().T, differences.T, p_values, strict=True):
        empirical = stats.ecdf(column).cdf.evaluate(ranks)
        np.testing.assert_allclose(difference, empirical - uniform, atol=1e-12)
        expected = stats.kstwo.sf(np.abs(empirical - uniform).max(), num_pairs)
        assert found >= expected - 1e-12
        assert expected > 0.1 or found < 1.5 * expected


@pytest.mark.parametrize(("num_pairs", "num_draws"), [(20, 9), (300, 99), (300, 999)])
def test_uniform_ranks_are_seldom_refused(num_pairs, num_draws):
    p_values = uniform_ranks(num_pairs, num_draws, 3000).p_values
    for level in (0.01, 0.05, 0.2):
        refused = (p_values <= level).double().mean().item()
        assert refused < level + 3 * math.sqrt(level / 3000)
        assert num_draws < 99 or refused > 0.5 * level


def test_components_are_combined_by_bonferroni_and_the_band_agrees():
    for seed in range(30):
        calibration = Calibration(torch.randint(18, (150, 4), generator=seeded(seed)) + seed % 3, 19)
        assert calibration.p_value == min(1.0, 4 * min(calibration.p_values.tolist()))
        for level in (0.5, 0.9, 0.99):
            leaves = bool((calibration.ecdf_difference.abs() > calibration.band(level)).any())
            assert leaves == (calibration.p_value < 1 - level)


@given(st.integers(1, 200), st.floats(0.01, 0.99))
@settings(deadline=None)
def test_equal_counts_of_all_ranks_cover_every_level_exactly(num_draws, level):
    calibration = Calibration(torch.arange(num_draws + 1)[:, None], num_draws)
    assert calibration.coverage([level])[0].item() == pytest.approx(level, abs=1e-12)
    assert calibration.dispersion.item() == pytest.approx(1)
    assert calibration.ecdf_difference.abs().max() < 1e-12


def test_coverage_counts_ranks_between_the_quantiles():
    calibration = uniform_ranks(500, 99, 2)
    coverage, error = calibration.coverage([0.9, 0.5])
    for row, (low, high) in zip(coverage, [(5, 95), (25, 75)], strict=True):
        inside = (calibration.ranks >= low) & (calibration.ranks < high)
        torch.testing.assert_close(row, inside.double().mean(0))
    torch.testing.assert_close(error, (coverage * (1 - coverage) / 500).sqrt(), rtol=0.01, atol=0)
    everything, error = Calibration(torch.full((100, 1), 50), 99).coverage([0.9])
    assert everything.item() == 1
    assert 0.005 < error.item() < 0.01


def test_metrics_are_means_over_components():
    calibration = uniform_ranks(300, 19, 3)
    metrics = calibration.metrics("v_given_u")
    assert metrics == {
        "v_given_u_coverage_50": calibration.coverage([0.5])[0].mean().item(),
        "v_given_u_coverage_90": calibration.coverage([0.9])[0].mean().item(),
        "v_given_u_calibration_p_value": calibration.p_value,
        "v_given_u_calibration_dispersion": calibration.dispersion.mean().item(),
    }
    assert all(type(value) is float for value in metrics.values())


# ---- refusals


def spoiled(values, number):
    values = values.clone()
    values.flatten()[-1] = number
    return values


@pytest.mark.parametrize(
    ("samples", "truths", "message"),
    [
        (torch.zeros(4, 9), torch.zeros(4, 2), r"samples of shape \(4, 9\) and truths of shape \(4, 2\).*\(Q, L, d\)"),
        (torch.zeros(4, 9, 2), torch.zeros(3, 2), r"must be \(Q, L, d\) and \(Q, d\)"),
        (torch.zeros(4, 9, 2), torch.zeros(4, 3), r"must be \(Q, L, d\) and \(Q, d\)"),
        (torch.zeros(0, 9, 2), torch.zeros(0, 2), "at least one pair, one draw and one component"),
        (torch.zeros(4, 0, 2), torch.zeros(4, 2), "at least one pair, one draw and one component"),
        (torch.zeros(4, 9, 0), torch.zeros(4, 0), "at least one pair, one draw and one component"),
        (spoiled(torch.zeros(4, 9, 2), math.nan), torch.zeros(4, 2), "samples hold values that are not finite"),
        (torch.zeros(4, 9, 2), spoiled(torch.zeros(4, 2), math.inf), "truths hold values that are not finite"),
    ],
)
def test_values_without_ranks_are_refused(samples, truths, message):
    with pytest.raises(ValueError, match=message):
        calibration_ranks(samples, truths, seeded())


@pytest.mark.parametrize(
    ("ranks", "num_draws", "message"),
    [
        (torch.zeros(3, 1).long(), 0, "num_draws is 0: at least 1"),
        (torch.zeros(3).long(), 9, r"torch.int64 of shape \(3,\)"),
        (torch.zeros(0, 1).long(), 9, "at least one pair"),
        (torch.zeros(3, 1), 9, "torch.float32.*must be integers"),
        (torch.tensor([[3], [10]]), 9, r"from 3 to 10: among 9 draws"),
        (torch.tensor([[-1], [9]]), 9, "from -1 to 9"),
    ],
)
def test_impossible_ranks_are_refused(ranks, num_draws, message):
    with pytest.raises(ValueError, match=message):
        Calibration(ranks, num_draws)


@pytest.mark.parametrize("level", [0, 1, 90, -0.1, math.nan])
def test_levels_are_probabilities(level):
    with pytest.raises(ValueError, match=r"lies in \(0, 1\)"):
        uniform_ranks(9, 9, 1).coverage([0.5, level])


@pytest.mark.parametrize(
    ("covariance", "conditioning", "num_draws", "message"),
    [
        (torch.eye(3), torch.zeros(4, 2), 0, "num_draws is 0"),
        (torch.eye(2), torch.zeros(4, 2), 5, r"must be \(3, 3\) and \(Q, 2\)"),
        (torch.eye(3), torch.zeros(4, 3), 5, r"conditioning of shape \(4, 3\)"),
        (torch.eye(3), torch.zeros(2), 5, r"conditioning of shape \(2,\)"),
        (torch.diag(torch.tensor([1.0, 1.0, -1.0])), torch.zeros(4, 2), 5, "not positive definite"),
        (spoiled(torch.eye(3), math.nan), torch.zeros(4, 2), 5, "not positive definite"),
    ],
)
def test_impossible_gaussians_are_refused(covariance, conditioning, num_draws, message):
    mean = AffineMap(torch.zeros(3, 2).double(), torch.zeros(3).double())
    with pytest.raises(ValueError, match=message):
        gaussian_samples(mean, covariance, conditioning, num_draws, seeded())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"direction": "u_to_v"}, "direction 'u_to_v' is not known"),
        ({"u": torch.zeros(3, 3).double()}, "3 u and 40 v"),
        ({"u": torch.zeros(0, 3).double(), "v": torch.zeros(0, 2).double()}, "0 u and 0 v.*at least one"),
        ({"references": torch.zeros(9, 2).double()}, r"for u_given_v they must be items of u, of shape \(N, 3\)"),
        ({"references": torch.zeros(0, 3).double()}, "the reference set is empty"),
        ({"references": spoiled(torch.zeros(9, 3).double(), math.nan)}, "references are not finite"),
        ({"u": spoiled(torch.zeros(40, 3).double(), math.nan)}, "truths hold"),
        ({"v": spoiled(torch.zeros(40, 2).double(), math.nan)}, "v are not finite"),
        ({"num_draws": 0}, "num_draws is 0"),
        ({"block_pairs": 0}, "block_pairs is 0"),
        ({"projections": torch.zeros(2, 1)}, r"projections have shape \(2, 1\).*must be \(3, k\)"),
        ({"projections": torch.zeros(3)}, r"projections have shape \(3,\)"),
        ({"projections": torch.zeros(3, 0)}, "one component"),
        ({"log_prior": torch.zeros(2)}, r"log_prior of shape \(2,\): needed is \(60,\)"),
    ],
)
def test_impossible_calibrations_are_refused(change, message):
    model, u, v, references, _ = small_problem()
    settings = {"direction": "u_given_v", "u": u, "v": v, "references": references, "num_draws": 9}
    with pytest.raises(ValueError, match=message):
        calibrate(model, **settings | {"generator": seeded()} | change)


def test_the_scores_of_a_diverged_model_are_refused():
    model, u, v, references, _ = small_problem()
    with torch.no_grad():
        model.encoder_u[1].map.weight.fill_(math.nan)
    with pytest.raises(ValueError, match="not finite"):
        calibrate(model, "u_given_v", u, v, references, 9, seeded())


# ---- pictures


@pytest.mark.parametrize(("num_trials", "probability"), [(1, 0.5), (30, 0.05), (2000, 0.05), (100_000, 0.3)])
def test_the_band_of_a_bin_is_that_of_scipy(num_trials, probability):
    expected = stats.binom.ppf([0.005, 0.995], num_trials, probability)
    assert _binomial_band(num_trials, probability).tolist() == expected.tolist()


def test_the_picture_has_a_column_for_each_conditional(tmp_path):
    results = {"one": uniform_ranks(200, 99, 1), "few draws": uniform_ranks(30, 4, 2), "many": uniform_ranks(90, 25, 9)}
    figure = calibration_figure(results)
    figure.savefig(tmp_path / "calibration.png")
    assert (tmp_path / "calibration.png").stat().st_size > 10_000
    top, bottom = figure.axes[:3], figure.axes[3:]
    assert [axis.get_title().splitlines()[0] for axis in top] == list(results)
    assert [len(axis.lines) for axis in bottom] == [2, 3, 5]  # a curve a component, four at most, and the zero
    for axis, calibration in zip(top, results.values(), strict=True):
        heights, edges, _ = axis.patches[0].get_data()
        assert (heights * np.diff(edges)).sum() == pytest.approx(1)
        assert len(heights) == min(20, calibration.num_draws + 1)


def test_the_curve_drawn_first_is_that_of_the_smallest_p_value():
    calibration = Calibration(torch.stack([torch.arange(100), torch.arange(100) // 2], 1), 99)
    axis = calibration_figure({"two": calibration}).axes[1]
    assert [line.get_label() for line in axis.lines[:2]] == ["component 1, p = 3.9e-22", "component 0, p = 1"]
    np.testing.assert_allclose(axis.lines[0].get_ydata()[1:], calibration.ecdf_difference[:, 1])


def test_a_picture_of_nothing_is_refused():
    with pytest.raises(ValueError, match="at least one"):
        calibration_figure({})
