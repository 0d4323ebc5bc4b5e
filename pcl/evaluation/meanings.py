"""What every number and picture of an evaluation means, by its name: for TensorBoard and for the page of a model."""

__all__ = ["caption_of", "meaning_of"]

import re

from pcl.evaluation.told import own_meaning
from pcl.storage.events import Meaning

BESIDE = {
    "": "",
    "linear_": " by the linear optimum of the training pairs, which needs no learning",
    "raw_": " by the stored values themselves, which needs no learning",
    "chance_": " by candidates in random order",
    "oracle_": " by an encoder that knows the physics",
    "label_": " of labels given u",
    "linear_label_": " of labels given u by the linear discriminant, which needs no learning",
    "zero_shot_": " by the model as it was trained",
    "fine_tuned_": " by the fine-tuned classifier",
    "linear_probe_": " by a logistic regression on the same embeddings",
    "from_nothing_": " by the same encoder, trained on these labels alone",
    "most_frequent_": " by who always says the most frequent label",
    "learned_": "",
    "plug_in_": " of the plug-in estimator, the empirical covariance of the same pairs",
    "closed_form_": " of the population optimum of this loss, in closed form",
}
OF_FEW = re.compile(r"((?:fine_tuned|linear_probe|from_nothing)_.+?)(_std)?@(\d+|all)")
GIVEN_LABEL = re.compile(r"given_label_(?:(\d+)_)?(.+)")
OF_DRAWS = {
    "effective_sample_size": "Number of items that share the weight of u given {label}: few are too few.",
    "right_share": "Weight of the items that have the label, in u given {label}: 1 is perfect.",
    "drawn_right_share": "Share of draws that have the label, of u given {label}: 1 is perfect.",
    "drawn_distinct": "Number of different items among draws of u given {label}: few are too few.",
    "expected_distinct": "Number of different items that is expected among draws of u given {label}.",
}
NUMBERS = {
    "num_pairs": "Number of pairs that were judged.",
    r"recall@(\d+)": "Share of queries whose partner has a rank of at most {0}{beside}: 1 is perfect.",
    "median_rank": "Median rank of the partner among all candidates{beside}: 1 is perfect.",
    "accuracy": "Share of right labels{beside}.",
    "negative_log_likelihood": "Mean negative log probability of the true label{beside}, nats: 0 is perfect.",
    "calibration_error": "Mean distance between probability and share of right labels{beside}: 0 is calibrated.",
    "relative_error": "Squared error of the conditional mean over its mean square{beside}: 0 is exact.",
    "coverage_(50|90)": "Share of truths inside the central {0} % interval of the learned conditional: {0} % is right.",
    "calibration_p_value": "p-value of uniform ranks of the truth among draws: small where intervals are wrong.",
    "calibration_dispersion": "Spread of the ranks over that of uniform ones: below 1 too wide, above 1 too narrow.",
    "relative_width": "Mean spread of the learned conditional over that of all items: 1 is as wide as the marginal.",
    "log_density": (
        "Mean log density of held-out partners with respect to their marginal{beside}, nats: 0 where nothing is known, "
        "at best the mutual information."
    ),
    "effective_sample_size": "Median number of items that share the weight of a conditional{beside}: few are too few.",
}
PICTURES = {
    "retrieved": "Queries of the judged pairs, and the best candidates of each; the true partner has a frame.",
    "given_label": "Items that are drawn from the learned conditional given a label.",
    "finetuning": (
        "Accuracy of the test items against the labels a class that are learned from: the mean over draws of these "
        "labels, bands from the worst to the best draw."
    ),
    "labels": "Images that every label retrieves, and how often labels of a given probability are right.",
    "calibration": (
        "Ranks of the truths among draws from the learned conditionals, which are uniform where these are right: above "
        "the density of one component's, below distribution functions less that of uniform ranks. A hill tells of too "
        "wide a conditional, a valley of too narrow a one."
    ),
    "conditional_means": "Learned conditional means beside the exact ones.",
    "lagrangian": "Flows, and what is known of them from the path of one particle in each.",
    "fields": "True currents with the drifters, the mean of the posterior, its spread and its error.",
    "field_scores": "Errors of the posterior mean, separation of drifters, and ranks of the truth among the members.",
}


def _spoken(name: str) -> str:
    return name.replace("_given_", " given ").replace("_", " ")


def meaning_of(name: str) -> Meaning:
    """Title of a metric and a sentence that says what it is.

    Example:
        >>> meaning_of("v_given_u_recall@5").title
        'v given u: recall@5'
        >>> meaning_of("v_given_u_recall@5").text
        'Share of queries whose partner has a rank of at most 5: 1 is perfect.'
    """
    if found := re.fullmatch("(.+)_(low|high)", name):
        title, end = meaning_of(found[1]).title, "Lower" if found[2] == "low" else "Upper"
        return Meaning(f"{title}, {end.lower()} end", f"{end} end of its 95 % interval.")
    if found := OF_FEW.fullmatch(name):
        return _of_few(*found.groups(default=""))
    if (found := GIVEN_LABEL.fullmatch(name)) and found[2] in OF_DRAWS:
        label, text = f"label {found[1]}" if found[1] else "a label", OF_DRAWS[found[2]]
        return Meaning(f"given {label}: {_spoken(found[2])}", text.format(label=label + ", a mean" * (not found[1])))
    title = name
    if found := re.search(r"(u_given_v|v_given_u)_?", name):
        name = name.replace(found[0], "").removesuffix("_")
        title = f"{_spoken(found[1])}: {name}"
    for prefix in sorted(BESIDE, key=len, reverse=True):
        rest = name.removeprefix(prefix)
        for pattern, text in NUMBERS.items() if name.startswith(prefix) else ():
            if match := re.fullmatch(pattern, rest):
                return Meaning(_spoken(title), text.format(*match.groups(), beside=BESIDE[prefix]))
    return Meaning(_spoken(title), own_meaning(name))


def _of_few(name: str, std: str, number: str) -> Meaning:
    """Return the meaning of what is learned from so many labels a class: a mean over draws of them, or its spread."""
    known, labels = meaning_of(name), "all labels" if number == "all" else f"{number} a class"
    what = "Standard deviation over draws of" if std else "Mean over draws of"
    text = f"{what} {known.text[0].lower()}{known.text[1:]}"
    return Meaning(f"{known.title} with {labels}{', standard deviation' * bool(std)}", text)


def caption_of(figure: str) -> str:
    """Sentence on what a figure shows, by the name of its file; its title where nothing is known of it.

    Example:
        >>> caption_of("conditional_means.png"), caption_of("own_picture.png")
        ('Learned conditional means beside the exact ones.', 'own picture')
    """
    stem = figure.partition(".")[0]
    return PICTURES.get(stem, _spoken(stem))
