"""u given a label: how many items carry the conditional, whether they have the label, and what is drawn from it.

A conditional may name labels well and yet draw the same few items again and again: a loss that never compares items
given a label (v_given_u alone) leaves their weights free (arXiv:2505.24134, figure 12).

Shapes: N items, K labels, F features, n draws.
"""

__all__ = ["GivenLabels", "add_given_labels", "chosen_label", "given_label", "given_labels"]

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from pcl.conditional import Conditional
from pcl.errors import BadInputError
from pcl.evaluation.drawing import Drawing
from pcl.evaluation.draws import Drawn, draws_figure, row_of_draws
from pcl.evaluation.result import Evaluation
from pcl.evaluation.splits import Splits
from pcl.model import PairModel

NUM_DRAWS, SEED = 16, 0
MOST_LABELS = 30  # that have rows and metrics of their own
OF_THE_PAPER = 7
COLUMNS = {
    "effective_sample_size": ("effective sample size", ".1f"),
    "right_share": ("right label", ".4f"),
    "drawn_right_share": (f"right of {NUM_DRAWS} draws", ".4f"),
    "drawn_distinct": (f"distinct of {NUM_DRAWS}", ".1f"),
    "expected_distinct": ("distinct, expected", ".2f"),
}


@dataclass(frozen=True)
class GivenLabels:
    """u given each of K labels, carried by the items of a split.

    Attributes:
        counts: items that have the label, shape (K,).
        effective_sample_size: of the weights, shape (K,).
        right_share: sum of the weights of the items that have the label: the share of right draws that is expected.
        drawn_right_share: the share of right ones among the draws.
        drawn_distinct: different items among the draws.
        expected_distinct: the number of them that is expected.
    """

    counts: Tensor
    effective_sample_size: Tensor
    right_share: Tensor
    drawn_right_share: Tensor
    drawn_distinct: Tensor
    expected_distinct: Tensor


def given_labels(conditional: Conditional, queries: Tensor, labels: Tensor, seed: int = SEED) -> GivenLabels:
    r"""Judge the conditional of items given each label; of weights w, n draws with replacement hold, on average,

    .. math:: \sum_i 1 - (1 - w_i)^n

    different items.

    Args:
        conditional: carried by the items.
        queries: features of the labels 0 .. K - 1, shape (K, F).
        labels: of the items, shape (N,).
        seed: of the draws.

    Example:
        >>> found = given_labels(Conditional(torch.eye(2), 1.0), torch.tensor([[99.0, 0.0]]), torch.tensor([0, 1]))
        >>> found.right_share, found.drawn_distinct
        (tensor([1.], dtype=torch.float64), tensor([1.], dtype=torch.float64))
    """  # noqa: D415 - the sentence goes on after its formula
    draws = conditional.draw(queries, NUM_DRAWS, torch.Generator().manual_seed(seed))
    columns: dict[str, list[float]] = {name: [] for name in COLUMNS}
    for label, drawn in enumerate(draws):
        weights = conditional.weights(queries[label : label + 1])[0].double()
        columns["effective_sample_size"].append(float(1 / weights.square().sum()))
        columns["right_share"].append(float(weights[labels == label].sum()))
        columns["drawn_right_share"].append(float((labels[drawn] == label).double().mean()))
        columns["drawn_distinct"].append(float(len(drawn.unique())))
        columns["expected_distinct"].append(float(-torch.expm1(NUM_DRAWS * torch.log1p(-weights.clamp(max=1.0))).sum()))
    counts = torch.bincount(labels.long(), minlength=len(queries))
    return GivenLabels(counts, **{name: torch.tensor(one, dtype=torch.float64) for name, one in columns.items()})


def given_label(
    model: PairModel, features_u: Tensor, label: int, num_draws: int = NUM_DRAWS, seed: int = SEED
) -> Drawn:
    """Return draws of items given a label.

    Args:
        model: with its encoders.
        features_u: feature maps of the items, shape (N, F).
        label: that is given.
        num_draws: n.
        seed: of the draws.
    """
    conditional, query = Conditional(features_u, model.temperature()), model.features_v(torch.tensor([label]))
    indices = conditional.draw(query, num_draws, torch.Generator().manual_seed(seed))
    size = conditional.effective_sample_size(query).item()
    return Drawn(indices[0], conditional.weights_of(query, indices)[0], size)


def chosen_label(statistics: Mapping[str, Any], asked: int | None) -> int | None:
    """Return the label whose draws are shown; None where v are no labels.

    Args:
        statistics: of v, in the manifest.
        asked: by a key; None: 7, as in the paper, where there are more, else the last.

    Raises:
        BadInputError: there is no such label.

    Example:
        >>> chosen_label({"counts": [5] * 10}, None), chosen_label({"counts": [5, 5]}, None)
        (7, 1)
    """
    number = len(statistics.get("counts", ()))
    if asked is None:
        return (OF_THE_PAPER if number > OF_THE_PAPER else number - 1) if number else None
    if not number:
        raise BadInputError(f"evaluation.label={asked}: v are no labels here, leave it out")
    if not 0 <= asked < number:
        raise BadInputError(f"evaluation.label={asked}: the labels are 0 to {number - 1}")
    return asked


def add_given_labels(result: Evaluation, model: PairModel, splits: Splits, drawing: Drawing) -> None:
    """Add to an evaluation what u given each label is, and a picture of draws given one.

    Args:
        result: to add to.
        model: with its encoders.
        splits: the pairs that are judged, whose u carry the conditional.
        drawing: of u.
    """
    statistics, labels = splits.manifest.statistics["v"], splits.arrays["v"].long()
    number = len(statistics["counts"])
    queries = model.features_v(torch.arange(number))
    found = given_labels(Conditional(splits.features[0], model.temperature()), queries, labels)
    result.tables.append(_table(found, len(labels)))
    result.metrics |= _metrics(found)
    label = chosen_label(statistics, splits.options.label)
    if label is not None:
        row = row_of_draws("", drawing, given_label(model, splits.features[0], label), labels, label)
        title = f"{NUM_DRAWS} draws of u given label {label}, from {len(labels):,} items"
        result.figures["given_label.png"] = draws_figure([row], title, ["w: weight of the item"])


def _rows(found: GivenLabels) -> list[int]:
    """Return the labels that have rows and metrics of their own: those that items have, if they are not many."""
    there = found.counts.nonzero()[:, 0].tolist()
    return there if len(there) <= MOST_LABELS else []


def _metrics(found: GivenLabels) -> dict[str, float]:
    there = found.counts > 0
    columns = {name: getattr(found, name) for name in COLUMNS}
    means = {f"given_label_{name}": float(column[there].mean()) for name, column in columns.items()}
    return means | {
        f"given_label_{label}_{name}": float(column[label])
        for label in _rows(found)
        for name, column in columns.items()
    }


def _table(found: GivenLabels, num_items: int) -> list[list[str]]:
    there, columns = found.counts > 0, {name: getattr(found, name) for name in COLUMNS}
    table = [[f"u given label, carried by {num_items:,} items", "items", *(title for title, _ in COLUMNS.values())]]
    for label in _rows(found):
        cells = (format(float(columns[name][label]), form) for name, (_, form) in COLUMNS.items())
        table.append([f"label {label}", str(int(found.counts[label])), *cells])
    means = (format(float(columns[name][there].mean()), form) for name, (_, form) in COLUMNS.items())
    count = f"{float(found.counts[there].double().mean()):.0f}"
    return [*table, [f"mean of {int(there.sum())} labels", count, *means]]
