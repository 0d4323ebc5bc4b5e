"""Forecasts of drift of laws that are known: right ones are calibrated, narrow ones are found out."""

import math

import pytest
import torch

from pcl.problems.ocean.evaluation.member_drift import MemberDrift, inside_region


def normal(*shape, seed):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def forecast(spread, seed=0, members=19, latitude=60.0):
    """Ends that are normal about a guess, 30 km east and 15 km north: at 60 N a degree east is 55.56 km."""
    scale = torch.tensor([30 / 55.56, 15 / 111.12]).double()
    guess = normal(40, 25, 1, 2, seed=seed)
    ends = guess[:, None] + spread * scale * normal(40, members, 25, 1, 2, seed=seed + 1)
    true = guess + scale * normal(40, 25, 1, 2, seed=seed + 2)
    drift = MemberDrift(1)
    drift.add(ends, guess, true, torch.full((40,), latitude).double())
    return drift


def test_members_of_the_law_of_the_truth_are_reliable():
    found = forecast(1.0).scores(0)
    assert found["region_90"] == pytest.approx(0.9, abs=0.025)
    assert found["within_25_km"] == pytest.approx(found["within_25_km_expected"], abs=0.035)
    assert found["reliability"] < 0.02


def test_members_that_are_too_sure_are_found_out():
    found = forecast(0.5).scores(0)
    assert found["region_90"] < 0.6
    assert found["within_25_km"] < found["within_25_km_expected"] - 0.1
    assert found["brier"] > forecast(1.0).scores(0)["brier"]


def test_counts_are_those_of_a_loop():
    generator = torch.Generator().manual_seed(3)
    ends, guess, true = (
        torch.rand(shape, generator=generator).double() for shape in ((3, 6, 4, 2, 2), (3, 4, 2, 2), (3, 4, 2, 2))
    )
    true[1, 2, 1] = torch.nan
    latitude = torch.tensor([0.0, 30.0, -60.0]).double()
    drift = MemberDrift(2)
    drift.add(ends, guess, true, latitude)
    for lead, number in ((0, 12), (1, 11)):
        found, squares, happened, expected = drift.scores(lead), 0.0, 0, 0.0
        for q in range(3):
            for d in range(4):
                if not torch.isfinite(true[q, d, lead]).all():
                    continue
                km = [111.12 * math.cos(math.radians(float(latitude[q]))), 111.12]

                def near(place, at=guess[q, d, lead], km=km):
                    return math.hypot(*((place - at).numpy() * km)) <= 25

                share = sum(near(ends[q, k, d, lead]) for k in range(6)) / 6
                squares += (share - near(true[q, d, lead])) ** 2
                happened, expected = happened + near(true[q, d, lead]), expected + share
        assert found["brier"] == pytest.approx(squares / number)
        assert found["within_25_km"] == pytest.approx(happened / number)
        assert found["within_25_km_expected"] == pytest.approx(expected / number)
        assert drift.curve(lead)[2].sum() == number


@pytest.mark.parametrize("members", [9, 20, 50])
@pytest.mark.parametrize("law", ["normal", "skewed"])
def test_nine_of_ten_are_inside_whatever_the_law_and_the_number_of_members(members, law):
    values = normal(20_000, members + 1, 2, seed=5)
    values = values if law == "normal" else values.exp()
    found = inside_region(values[:, 1:], values[:, 0])
    assert float(found.mean()) == pytest.approx(0.9, abs=0.01)


def test_drifters_that_all_stay_are_inside_as_often_as_others():
    same = torch.zeros(5, 20, 2).double()
    assert inside_region(same, same[:, 0]).tolist() == pytest.approx([0.9] * 5)


def test_nothing_has_no_score():
    assert all(math.isnan(value) for value in MemberDrift(1).scores(0).values())
