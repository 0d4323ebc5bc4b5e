"""What numbers mean, of single kinds of pairs too, and that TensorBoard is told."""

import itertools

import pytest

from pcl.evaluation.meanings import meaning_of
from pcl.problems.ocean.evaluation.tables import AFTER, BEFORE, DRIFT, WHOLE, key_of
from tests.told import unexplained

METHODS = ("posterior", "posterior mode", "frozen prior", "climatology", "random analog", "nearest-track analog")


@pytest.mark.parametrize("method", [*METHODS, "optimal interpolation"])
def test_every_score_of_every_method_is_told(method):
    """Those of the tables, of any lead time, with intervals."""
    scores = [metric for metric, _, _ in (*BEFORE, *AFTER, *WHOLE)]
    drift = ["separation_km", *(metric for metric, _, _ in DRIFT)]
    scores += [f"{score}_{lead}" for score, lead in itertools.product(drift, ("day_1", "day_7", "hour_12"))]
    scores += [f"{score}_m_s_less_optimal_interpolation{end}" for score in ("rmse", "crps") for end in ("", "_low")]
    assert not unexplained(f"field_{key_of(method)}_{score}" for score in scores)


def test_a_number_is_told_with_its_unit():
    text = meaning_of("field_posterior_separation_km_hour_1").metadata("scalars").summary_description
    assert (
        text
        == "Mean distance, km, of true drifters from those in the mean current of the learned posterior, after 1 hour."
    )
    assert "m/s" in meaning_of("field_climatology_crps_m_s").text
    assert "windows of its tile" in meaning_of("v_given_u_within_tile_recall@5").text
    assert unexplained(["field_posterior_something", "field_nobody_rmse_m_s"]) == [
        "field_posterior_something",
        "field_nobody_rmse_m_s",
    ]
