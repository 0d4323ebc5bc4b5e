"""Velocities between fixes, against a motion that is known."""

import numpy as np
import pytest

from pcl.problems.ocean.fixes.cleaning import Rules, cleaned
from pcl.problems.ocean.fixes.fixes import Fixes
from pcl.problems.ocean.fixes.pieces import pieces_of
from pcl.problems.ocean.sphere import METRES_PER_DEGREE


def straight(time_s, velocity=(0.4, -0.2), latitude=60.0, longitude=179.99, name="a"):
    time_s = np.asarray(time_s, float)
    north = latitude + velocity[1] * time_s / METRES_PER_DEGREE
    east = longitude + velocity[0] * time_s / METRES_PER_DEGREE / np.cos(np.deg2rad(latitude))
    return Fixes(np.full(len(time_s), name), time_s, north, (east + 180) % 360 - 180)


def test_a_steady_motion_is_found_at_any_sampling_across_the_date_line():
    rng = np.random.default_rng(0)
    fixes = straight(np.cumsum(rng.uniform(60, 900, 200)))
    found = pieces_of(fixes, every_s=3600, longest_s=7200)
    assert len(found) > 15
    np.testing.assert_allclose(found.velocity, [[0.4, -0.2]] * len(found), rtol=0.02)
    assert found.duration_s.min() >= 3600
    assert found.duration_s.max() < 3600 + 900
    assert np.all(np.diff(found.time_s) >= 3600 - 1e-6)
    assert ((fixes.longitude < 0).any(), (fixes.longitude > 0).any()) == (True, True)


def test_gaps_and_other_drifters_are_not_crossed():
    one = straight([0, 600, 1200, 20_000, 20_600])
    two = straight([100, 700], name="b", latitude=50.0)
    fixes = Fixes(
        *(np.concatenate([getattr(one, key), getattr(two, key)]) for key in ("name", "time_s", "latitude", "longitude"))
    )
    found = pieces_of(fixes, every_s=600, longest_s=3600)
    assert found.name.tolist() == ["a", "a", "a", "b"]
    assert found.time_s.tolist() == [300.0, 900.0, 20_300.0, 400.0]


def test_errors_are_those_of_many_draws():
    """The variance that is stated is that of velocities of noisy positions around the true one."""
    rng, time_s = np.random.default_rng(1), np.arange(0, 20_001 * 1800, 1800.0)
    fixes = straight(time_s, velocity=(0.0, 0.0), longitude=10.0)
    noise = rng.normal(0, 30.0, (2, len(time_s))) / METRES_PER_DEGREE
    east = fixes.longitude + noise[0] / np.cos(np.deg2rad(60.0))
    noisy = Fixes(fixes.name, fixes.time_s, fixes.latitude + noise[1], east)
    found = pieces_of(noisy, every_s=1800, longest_s=7200, position_error_m=30.0, unresolved_m_s=0.0)
    assert found.velocity.var(0) == pytest.approx(found.variance[:1].repeat(2), rel=0.04)


def test_nothing_gives_nothing():
    lonely = straight([0.0])
    assert len(pieces_of(lonely, every_s=600, longest_s=3600)) == 0


def test_whatever_the_order_of_rows(data_root):
    from pcl.problems.ocean.fixes.reading import read_fixes

    fixes = read_fixes([data_root / "drifters" / "baltic_2023_raw.csv"], {})
    order = np.random.default_rng(2).permutation(len(fixes))
    turned = fixes[order]
    turned = Fixes(turned.name, turned.time_s, turned.latitude, turned.longitude + 360)
    one, other = (pieces_of(cleaned(part, Rules()), every_s=3600, longest_s=10_800) for part in (fixes, turned))
    assert len(one) > 500
    np.testing.assert_array_equal(one.time_s, other.time_s)
    np.testing.assert_allclose(one.velocity, other.velocity, atol=1e-9)
    assert np.percentile(np.abs(one.velocity), 95) < 1.0
    assert np.abs(one.velocity).max() < 3.0
