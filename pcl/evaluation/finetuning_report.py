"""What is told of a fine-tuning: metrics by name, tables, a figure, and a sentence where another way is better."""

__all__ = ["finetuning_evaluation"]

import math
from collections.abc import Iterator, Sequence
from statistics import fmean, stdev
from typing import TYPE_CHECKING

from pcl.evaluation.finetuning import FineTuned, LabelledItems
from pcl.evaluation.result import Evaluation, Table

if TYPE_CHECKING:
    from matplotlib.figure import Figure

NOISE = 2.0  # standard errors
METRICS = {"accuracy": "accuracy", "negative_log_likelihood": "negative log-likelihood"}
FINE_TUNED = "fine-tuned"


def finetuning_evaluation(found: FineTuned, given: LabelledItems) -> Evaluation:
    """Return metrics, tables, the figure and notes of a fine-tuning that was judged.

    Metrics are means over seeds, such as ``fine_tuned_accuracy@10`` with 10 labels a class and ``@all`` with all, and
    standard deviations over seeds, ``fine_tuned_accuracy_std@10``.

    Args:
        found: what was found.
        given: the labelled items.
    """
    result, common = Evaluation(), _most_frequent(given, found.num_test)
    result.metrics["most_frequent_accuracy"] = common
    for metric in METRICS:
        if found.zero_shot is not None:
            result.metrics[f"zero_shot_{metric}"] = found.zero_shot[metric]
        for method, by_number in found.scores.items():
            name = f"{method.replace('-', '_').replace(' ', '_')}_{metric}"
            for number in by_number:
                values = _values(found, method, number, metric)
                result.metrics[f"{name}@{number or 'all'}"] = fmean(values)
                if len(values) > 1:
                    result.metrics[f"{name}_std@{number or 'all'}"] = stdev(values)
    result.tables = [_table(found, metric, common) for metric in METRICS]
    result.figures["finetuning.png"] = _figure(found, len(given.names), common)
    result.notes = [*_behind(found)]
    if found.zero_shot is not None and found.zero_shot["accuracy"] <= common:
        result.notes.append(
            f"The model does not know these labels: zero-shot has an accuracy of {found.zero_shot['accuracy']:.4f}, "
            f"who always says the most frequent label {common:.4f}. finetune.are_v=false starts from zero instead."
        )
    return result


def _values(found: FineTuned, method: str, number: int, metric: str) -> list[float]:
    """Return a metric with so many labels a class, one for each seed."""
    return [one[metric] for one in found.scores[method][number]]


def _most_frequent(given: LabelledItems, num_test: int) -> float:
    """Return the accuracy of whoever always says the label that is most frequent in training."""
    train, test = (given.labels[split][given.labels[split] >= 0] for split in ("train", "test"))
    return float((test[:num_test] == train.bincount().argmax()).double().mean())


def _table(found: FineTuned, metric: str, common: float) -> Table:
    """Return a metric by method and number of labels: the mean over seeds, and the standard deviation."""
    numbers = [*found.num_labelled]
    columns = [f"{number} a class" if number else "all labels" for number in numbers]
    rows = [[f"{METRICS[metric]} of {found.num_test:,}", *columns]]
    rows += [[method, *(_cell(_values(found, method, n, metric)) for n in numbers)] for method in found.scores]
    if found.zero_shot is not None:
        rows.append(["zero-shot", *[_cell([found.zero_shot[metric]])] * len(numbers)])
    if metric == "accuracy":
        rows.append(["most frequent label", *[_cell([common])] * len(numbers)])
    return rows


def _cell(values: Sequence[float]) -> str:
    return f"{fmean(values):.4f}" + (f" ± {stdev(values):.4f}" if len(values) > 1 else "")


def _behind(found: FineTuned) -> Iterator[str]:
    """Yield a sentence for each other method and number of labels at which fine-tuning is behind by more than noise."""
    for number in found.num_labelled:
        tuned = _values(found, FINE_TUNED, number, "accuracy")
        others = {name: _values(found, name, number, "accuracy") for name in found.scores if name != FINE_TUNED}
        if found.zero_shot is not None:
            others["zero-shot"] = [found.zero_shot["accuracy"]] * len(tuned)
        for method, other in others.items():
            if fmean(other) - fmean(tuned) > NOISE * _error(tuned, other, found.num_test):
                labels = "all labels" if not number else f"{number} label{'s' if number > 1 else ''} a class"
                yield (
                    f"Fine-tuning loses: with {labels} its accuracy is {fmean(tuned):.4f}, and {fmean(other):.4f} by "
                    f"{method}."
                )


def _error(tuned: Sequence[float], other: Sequence[float], num_test: int) -> float:
    """Return the standard error of a difference of accuracies: of the draws, and of the test items."""
    of_draws = stdev(b - a for a, b in zip(tuned, other, strict=True)) ** 2 / len(tuned) if len(tuned) > 1 else 0.0
    of_items = sum(p * (1 - p) for p in (fmean(tuned), fmean(other))) / num_test
    return math.sqrt(of_draws + of_items)


def _figure(found: FineTuned, num_labels: int, common: float) -> "Figure":
    """Draw the accuracy of every method against the labels a class: mean, and the range over seeds."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4.6), layout="constrained")
    axis = figure.subplots()
    places = {number: size / num_labels for number, size in found.num_labelled.items()}
    numbers = sorted(places, key=lambda number: places[number])
    x = [places[number] for number in numbers]
    for colour, method in enumerate(found.scores):
        values = [_values(found, method, number, "accuracy") for number in numbers]
        axis.plot(x, [fmean(of) for of in values], "o-", ms=4, color=f"C{colour}", label=method)
        axis.fill_between(x, [*map(min, values)], [*map(max, values)], color=f"C{colour}", alpha=0.2, lw=0)
    if found.zero_shot is not None:
        axis.axhline(found.zero_shot["accuracy"], color="k", ls="--", lw=1.2, label="zero-shot: as it was trained")
    axis.axhline(common, color="0.5", ls=":", lw=1.2, label="most frequent label")
    axis.set(xscale="log", xlabel="labels a class", ylabel=f"accuracy of {found.num_test:,} test items")
    axis.set_xticks(x, [str(number) if number else f"all ({places[number]:,.0f})" for number in numbers])
    axis.minorticks_off()
    num_seeds = len(found.scores[FINE_TUNED][numbers[0]])
    title = f"{num_labels} labels: mean of {num_seeds} draws, bands from the worst to the best"
    axis.set_title(title if num_seeds > 1 else f"{num_labels} labels, one draw", fontsize=10)
    axis.legend(fontsize=8)
    axis.grid(alpha=0.3)
    return figure
