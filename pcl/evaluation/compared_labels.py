"""Runs side by side where v are labels: the same doubtful items, and draws given the same label.

The pictures are those of arXiv:2505.24134, figures 11 and 12.
"""

__all__ = ["FIGURES", "label_figures", "label_table", "per_label_table"]

import re
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import torch

from pcl.data.manifest import Manifest
from pcl.evaluation.ambiguous import ambiguous_figure, most_ambiguous
from pcl.evaluation.blocks import encoded
from pcl.evaluation.compared import Group, shown
from pcl.evaluation.drawing import Drawing
from pcl.evaluation.draws import draws_figure, row_of_draws
from pcl.evaluation.given_labels import NUM_DRAWS, chosen_label, given_label
from pcl.evaluation.labels import label_log_probabilities
from pcl.evaluation.result import Table
from pcl.evaluation.splits import EvaluationOptions, Splits, read_arrays
from pcl.model import PairModel
from pcl.storage.place import Place

if TYPE_CHECKING:
    from matplotlib.figure import Figure

NUM_AMBIGUOUS = 8
FIGURES = {
    "ambiguous.png": (
        f"Label probabilities of the same {NUM_AMBIGUOUS} items, those with the smallest margin between the two most "
        "probable labels as a mean over all runs; of several seeds the first is shown (the paper's figure 11)."
    ),
    "draws.png": f"{NUM_DRAWS} draws of u given one label; framed: drawn before (the paper's figure 12).",
}
WITH_INTERVAL = {
    "label_accuracy": "accuracy",
    "label_negative_log_likelihood": "negative log-likelihood",
    "label_calibration_error": "calibration error",
}
OF_DRAWS = {
    "given_label_effective_sample_size": "effective sample size",
    "given_label_right_share": "right label",
    "given_label_drawn_right_share": f"right of {NUM_DRAWS} draws",
    "given_label_drawn_distinct": f"distinct of {NUM_DRAWS}",
}


@torch.no_grad()
def label_figures(
    models: Mapping[str, PairModel],
    chosen: Mapping[str, str],
    root: Place,
    manifest: Manifest,
    split: str,
    options: EvaluationOptions,
    drawings: Callable[[Splits], tuple[Drawing, Drawing]],
) -> dict[str, "Figure"]:
    """Draw what models say of the same doubtful items, and draws of u given one label, by file name.

    Args:
        models: of all runs, by name: the doubtful items are theirs together.
        chosen: the runs that are shown, by label.
        root: folder of the shards.
        manifest: its manifest.
        split: that is judged.
        options: of the evaluation.
        drawings: how u and v are drawn.

    Raises:
        DamagedDataError: a shard differs from its manifest.
    """
    pairs = torch.arange(min(manifest.num_pairs(split), options.max_pairs or manifest.num_pairs(split)))
    arrays = read_arrays(root, manifest, split, dict.fromkeys(manifest.arrays, pairs))
    u, labels = arrays["u"], arrays["v"].long()
    features = {name: encoded(model.features_u, u, options.block_pairs, u[:1].nbytes) for name, model in models.items()}
    predicted = {name: label_log_probabilities(model, manifest, features[name]) for name, model in models.items()}
    first = features[next(iter(features))]
    drawing = drawings(Splits(root, manifest, split, arrays, (first, first), options))[0]
    items = most_ambiguous([*predicted.values()], NUM_AMBIGUOUS)
    label = chosen_label(manifest.statistics["v"], options.label)
    assert label is not None
    rows = [
        row_of_draws(title, drawing, given_label(models[name], features[name], label), labels, label)
        for title, name in chosen.items()
    ]
    title = f"{NUM_DRAWS} draws of u given label {label}, from {len(labels):,} items"
    of_chosen = {title: predicted[name] for title, name in chosen.items()}
    return {
        "ambiguous.png": ambiguous_figure(drawing, items, labels, of_chosen),
        "draws.png": draws_figure(rows, title, ["w: weight of the item"]),
    }


def label_table(groups: Sequence[Group]) -> Table:
    """Return what is known of labels given u, with 95 % intervals over items, and of u given a label."""
    known = [name for name in (*WITH_INTERVAL, *OF_DRAWS) if all(group.has(name) for group in groups)]
    titles = WITH_INTERVAL | OF_DRAWS
    return [
        ["run", *(titles[name] + (", 95 %" if name in WITH_INTERVAL else "") for name in known)],
        *([group.label, *(_cell(group, name) for name in known)] for group in groups),
    ]


def _cell(group: Group, name: str) -> str:
    text = shown(group.spread(name))
    if name in WITH_INTERVAL and group.has(f"{name}_low"):
        low, high = (group.spread(f"{name}_{end}").mean for end in ("low", "high"))
        text += f" ({low:.4f} to {high:.4f})"
    return text


def per_label_table(groups: Sequence[Group], of: str = "effective_sample_size") -> Table:
    """Return a number of u given each label, a row a label; without rows where runs have none or too many labels."""
    found = [name for name in groups[0].runs[0].metrics if re.fullmatch(rf"given_label_\d+_{of}", name)]
    names = [name for name in found if all(group.has(name) for group in groups)]
    head = [f"{of.replace('_', ' ')} given", *(group.label for group in groups)]
    rows = [[f"label {name.split('_')[2]}", *(shown(group.spread(name)) for group in groups)] for name in names]
    return [head, *rows]
