"""What is left out of fixes, and why."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pcl.errors import BadInputError
from pcl.problems.ocean.fixes.cleaning import Box, Rules, cleaned
from pcl.problems.ocean.fixes.fixes import Fixes, Left, joined
from pcl.problems.ocean.fixes.reading import read_fixes


def track(name="a", number=20, step_s=600.0, speed_m_s=0.5):
    north = np.arange(number) * step_s * speed_m_s / 111_120
    return Fixes(np.full(number, name), np.arange(number) * step_s, 54 + north, np.full(number, 10.0))


def shifted(fixes, degrees):
    return Fixes(fixes.name, fixes.time_s, fixes.latitude, fixes.longitude + degrees)


def with_places(fixes, index, latitude):
    places = fixes.latitude.copy()
    places[index] = latitude
    return Fixes(fixes.name, fixes.time_s, places, fixes.longitude)


@pytest.mark.parametrize("bad", [[7], [0], [19], [0, 1], [7, 8, 9], [3, 9, 15], [17, 18, 19]])
def test_spikes_excursions_and_bad_ends_go_and_nothing_else(bad):
    found = cleaned(with_places(track(), bad, 55.0), Rules())
    assert found.left[0].number == len(bad)
    assert "faster than 3 m/s" in found.left[0].reason
    np.testing.assert_array_equal(found.time_s, np.delete(np.arange(20) * 600.0, bad))


def ridden(legs):
    """Places of a drifter every ten minutes, of legs (fixes, m/s north)."""
    speeds = np.concatenate([np.full(number, speed) for number, speed in legs])
    latitude = 54 + np.r_[0.0, np.cumsum(speeds)[:-1]] * 600 / 111_120
    return Fixes(np.full(len(speeds), "a"), np.arange(len(speeds)) * 600.0, latitude, np.full(len(speeds), 10.0))


@pytest.mark.parametrize("is_reversed", [False, True])
@pytest.mark.parametrize(
    "ride",
    [
        [(20, 5.0)],
        [(6, 5.0), (3, 0.1), (6, -5.0), (4, 1.0)],  # it stops, and turns back
        [(6, 5.0), (3, 2.5), (6, 5.0), (60, 0.3)],  # and lies there: what a chord of 3 m/s would reach
        [(6, 5.0), (6, -5.0), (3, 0.2)],
        [(8, 5.0), (40, 0.0), (8, 5.0), (2, 0.3)],
    ],
)
def test_nothing_of_a_ride_on_a_boat_is_a_current(ride, is_reversed):
    fixes = ridden([(100, 0.4), *ride])
    if is_reversed:  # of the ride that brings a drifter out
        fixes = Fixes(fixes.name, fixes.time_s, fixes.latitude[::-1].copy(), fixes.longitude)
    found = cleaned(fixes, Rules(still_s=1e9))
    kept = np.searchsorted(fixes.time_s, found.time_s)
    first, last = (len(fixes) - 101, len(fixes)) if is_reversed else (0, 101)  # where the ride begins is of the drift
    assert first <= kept.min()
    assert kept.max() < last
    assert sum(left.number for left in found.left) == len(fixes) - len(found)


def test_a_track_goes_on_after_a_burst_of_bad_places():
    fixes = track(number=100)
    generator = np.random.default_rng(0)
    latitude = fixes.latitude.copy()
    latitude[30:40] += generator.uniform(0.2, 0.5, 10) * generator.choice([-1, 1], 10)
    found = cleaned(Fixes(fixes.name, fixes.time_s, latitude, fixes.longitude), Rules())
    np.testing.assert_array_equal(found.time_s, np.delete(fixes.time_s, slice(30, 40)))


def test_the_errors_of_positions_are_no_spikes():
    fixes = track(step_s=5.0)
    noisy = with_places(fixes, slice(None), fixes.latitude + np.resize([0, 40], 20) / 111_120)
    assert not cleaned(noisy, Rules()).left
    assert cleaned(noisy, Rules(position_error_m=0.0)).left


@settings(deadline=None)
@given(st.permutations(range(20)), st.sampled_from([-720.0, -360.0, 0.0, 360.0]), st.integers(1, 19))
def test_order_turns_and_copies_change_nothing(order, turn, copies):
    fixes = track()
    index = np.array([*order, *order[:copies]])
    again = fixes[index]
    again = Fixes(again.name, again.time_s, again.latitude, again.longitude + turn)
    found = cleaned(again, Rules())
    np.testing.assert_array_equal(found.time_s, fixes.time_s)
    np.testing.assert_array_equal(found.latitude, fixes.latitude)
    assert found.left[0].number == copies


def test_a_box_may_span_the_date_line():
    box = Box(-20.0, 20.0, 170.0, -170.0)
    longitude = np.array([175.0, -175.0, 185.0, 0.0, 169.0])
    np.testing.assert_array_equal(box.holds(np.zeros(5), longitude), [True, True, True, False, False])
    np.testing.assert_allclose(box.turned(longitude), [175.0, 185.0, 185.0, 0.0, 169.0])
    with pytest.raises(BadInputError, match="the southern below the northern"):
        Box(10.0, 0.0, 0.0, 5.0)


def test_every_reason_is_counted():
    fixes = track(number=30)
    latitude, longitude, time = fixes.latitude.copy(), fixes.longitude.copy(), fixes.time_s.copy()
    latitude[0], longitude[1], time[2] = np.nan, 900.0, np.nan
    latitude[3] = longitude[3] = 0.0
    name = fixes.name.copy()
    name[4], name[5] = "lone", ""
    found = cleaned(Fixes(name, time, latitude, longitude), Rules(Box(50, 60, 0, 20), first_s=3600.0, last_s=16_000.0))
    assert {left.reason: left.number for left in found.left} == {
        "no time, no place or no drifter": 3,
        "no place on the Earth": 1,
        "latitude and longitude zero, which receivers give that have no fix": 1,
        "before the time": 1,
        "after the time": 3,
    }
    with pytest.raises(BadInputError, match=r"none of 30 fixes is left \(.*30: outside the box\)"):
        cleaned(fixes, Rules(Box(-60, -50, 0, 20)))


def test_drifters_that_stay_where_they_are_are_ashore():
    """The first hours drift, then it lies there; a slow one of few fixes does not count."""
    fixes = track(number=60)
    ashore = with_places(fixes, slice(20, None), fixes.latitude[20] + np.resize([0, 1e-4], 40))
    found = cleaned(ashore, Rules())
    assert [(left.number, left.reason) for left in found.left] == [
        (40, "within 50 m for 6 hours or more: aground, ashore or moored")
    ]
    assert not cleaned(ashore, Rules(still_s=6 * 3600 + 1801.0)).left
    assert not cleaned(track(number=3, step_s=21_600.0, speed_m_s=0.001), Rules()).left


def test_what_follows_on_lying_ashore_up_to_the_end_is_a_recovery():
    def ashore(number):
        fixes = track(number=number)
        return with_places(fixes, slice(None), fixes.latitude[np.r_[0:5, [5] * 50, 5 : number - 50]])

    found = cleaned(ashore(60), Rules())
    assert [left.number for left in found.left] == [51, 4]
    assert found.left[1].reason == "carried away after that, to the end of the track"
    assert len(cleaned(ashore(400), Rules()).left) == 1  # it floats again, for more than a day


def test_drifters_of_another_sea_are_left_out_unless_a_box_is_given():
    near = [shifted(track(name), 0.01 * number) for number, name in enumerate("abc")]
    far = Fixes(np.full(20, "far"), near[0].time_s, near[0].latitude - 20, near[0].longitude)
    both = joined([*near, far])
    found = cleaned(both, Rules())
    assert found.names == ["a", "b", "c"]
    assert found.left == (Left(20, "further than 500 km from most drifters", ("far",)),)
    assert cleaned(both, Rules(Box(0, 60, 0, 20))).names == ["a", "b", "c", "far"]
    chain = [shifted(one, 4 * i) for i, one in enumerate([*near, far])]
    ocean = joined([*chain[:3], Fixes(far.name, far.time_s, near[0].latitude, near[0].longitude + 350)])
    assert len(cleaned(ocean, Rules()).names) == 4  # 350 is 10 west, two steps from the first


def test_places_on_land_are_left_out():
    fixes = track(number=20)
    found = cleaned(fixes, Rules(is_land=lambda latitude, longitude: latitude > fixes.latitude[15]))
    assert found.left == (Left(4, "on land", ("a",)),)


def test_exchanged_positions_are_told():
    fixes = track()
    exchanged = Fixes(fixes.name, fixes.time_s, fixes.longitude, fixes.latitude)
    with pytest.raises(BadInputError, match="exchanged"):
        cleaned(exchanged, Rules(Box(50, 60, 0, 20)))
    far = Fixes(fixes.name, fixes.time_s, np.full(20, 140.0), np.full(20, -40.0))
    with pytest.raises(BadInputError, match="exchanged"):
        cleaned(far, Rules())


def test_real_drifters(data_root):
    """Six drifters, one with a single fix, one in another sea; they were carried back by boat on 24 April."""
    fixes = read_fixes([data_root / "drifters" / "baltic_2023_raw.csv"], {})
    found = cleaned(fixes, Rules(Box(53.5, 55.5, 9.0, 13.0)))
    assert found.names == ["298", "299", "300", "301", "302", "303"]
    reasons = {left.reason: left for left in found.left}
    assert reasons["outside the box"].drifters == ("297",)
    assert reasons["outside the box"].number == 15
    assert reasons["there again, or another place at the same time"].number == 7001
    assert reasons["the only fix of a drifter"].drifters == ("290",)
    assert len(found) + sum(left.number for left in found.left) == 19_513
