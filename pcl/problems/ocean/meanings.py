"""What the numbers of an evaluation of the ocean mean."""

__all__ = ["meaning"]

import re

METHODS = {
    "posterior_mode": "the most likely window of the archive given the drifters",
    "posterior": "the learned posterior",
    "frozen_prior": "the frozen prior",
    "climatology": "climatology",
    "random_analog": "a random window of the archive",
    "nearest_track_analog": "the window of the archive with the nearest tracks",
    "optimal_interpolation": "optimal interpolation",
}
SCORES = {  # of a method, {by}; of drift after {lead}
    "rmse_m_s": "Root mean square error of the currents by {by}, m/s, by area: less is better.",
    "crps_m_s": "Continuous ranked probability score of the currents by {by}, m/s: less is better.",
    "nrmse_score": "One less RMSE over the root mean square of the true currents, by {by}: 1 is perfect.",
    "explained_variance": "Share of the variance of the true currents that {by} explains: 1 is perfect.",
    "spread_skill": "Spread over error of {by}: 1 is honest, less is too sure, more too unsure.",
    "coverage_(50|90)": "Share of true currents within the central {0} % of {by}: {0} % is right.",
    "effective_sample_size": "Number of windows of the archive that share the weight of {by}: few are too few.",
    "resolution_km": "Shortest wavelength, km, whose variance {by} gets more than half right: less is better.",
    "liu_weisberg": "Skill of drift of Liu and Weisberg by {by}: 1 is perfect, 0 is none.",
    "separation_km_{lead}": "Mean distance, km, of true drifters from those in the mean current of {by}, after {lead}.",
    "energy_m_s": "Energy score of the members of {by} as whole fields, m/s: less is better.",
    "variogram_m_s": "Variogram score of order one half of the members of {by}, m/s: less is better.",
    "within_25_km_{lead}": "Share of drifters within 25 km of where the mean of {by} takes them, after {lead}.",
    "within_25_km_expected_{lead}": "That share as the members of {by} expect it, after {lead}: equal is honest.",
    "brier_{lead}": "Brier score of the probability by {by} that a drifter is within 25 km after {lead}: 0 is perfect.",
    "reliability_{lead}": "Part of the Brier score of {by} after {lead} that calibration would save: 0 is calibrated.",
    "region_90_{lead}": "Share of true ends in the region of 90 % of the members of {by} after {lead}: .9 is right.",
    "(rmse|crps)_m_s_less_optimal_interpolation": (
        "{0} of {by} less that of optimal interpolation, m/s: below zero it is better; its interval is of blocks of "
        "time."
    ),
    "length_km": "Length scale of {by}, km.",
    "time_days": "Time scale of {by}, days.",
    "noise": "Variance of the error of a measured velocity over that of the currents, of {by}.",
}
LEAD = r"(?P<unit>day|hour)_(?P<number>\d+)"
COMPONENT = r"prior_(streamfunction|potential)_(\d+)_"
PRIOR = {
    COMPONENT + "length_(east|north)_km": "Learned length {2} of {0} {1} of the prior, km.",
    COMPONENT + "days": "Learned time scale of {0} {1} of the prior, days.",
    COMPONENT + "variance": "Learned variance of {0} {1} of the prior over the local one, without unit.",
    "prior_noise_variance": "Learned variance of the error of a measured velocity over the local one, without unit.",
    "prior_exponent": "Learned exponent of the local standard deviation in the amplitude of the prior.",
    "prior_degrees_of_freedom": "Learned degrees of freedom of the energy of a window: more hold it more constant.",
    "prior_inflation": "Learned factor of the posterior's variances.",
    "prior_unresolved_variance": "Learned variance that a point has beside that of the covariance, over the local one.",
    "prior_point_degrees_of_freedom": "Learned degrees of freedom of the law of a point: fewer have heavier tails.",
}
WITHIN = {
    r"within_tile_recall@(\d+)": (
        "Share of queries whose partner has a rank of at most {0} among the windows of its tile: 1 is perfect."
    ),
    "within_tile_median_rank": "Median rank of the partner among the windows of its tile: 1 is perfect.",
}


def meaning(name: str) -> str:
    """Return a sentence on a metric, empty where it is none of the ocean's.

    Example:
        >>> meaning("field_climatology_separation_km_day_7")
        'Mean distance, km, of true drifters from those in the mean current of climatology, after 7 days.'
    """
    for method, by in METHODS.items():
        if name.startswith(f"field_{method}_"):
            return _of_method(name.removeprefix(f"field_{method}_"), by)
    for pattern, text in {**PRIOR, **WITHIN}.items():
        if found := re.fullmatch(pattern, name):
            return text.format(*found.groups())
    return ""


def _of_method(score: str, by: str) -> str:
    for pattern, text in SCORES.items():
        if found := re.fullmatch(pattern.replace("{lead}", LEAD), score):
            said = found.groupdict()
            lead = f"{said['number']} {said['unit']}{'s' * (said['number'] != '1')}" if said else ""
            return text.format(*(group.upper() for group in found.groups()), by=by, lead=lead)
    return ""
