"""Runs side by side: which differ in their seed only, what else differs between them, and their numbers with spread."""

__all__ = [
    "SECONDS",
    "Compared",
    "Group",
    "Spread",
    "common_metrics",
    "differing_keys",
    "groups_of",
    "metrics_table",
    "shown",
    "training_seconds",
]

import itertools
import math
import re
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from pcl.evaluation.result import Table
from pcl.storage.curves import Curve
from pcl.storage.place import Place

SEED, SECONDS = "seed", "training_seconds"
IMPORTANT = (  # what people look for first, in this order; patterns of whole names
    *(rf"label_{name}" for name in ("accuracy", "negative_log_likelihood", "calibration_error")),
    *(
        rf"given_label_{name}"
        for name in ("effective_sample_size", "right_share", "drawn_right_share", "drawn_distinct")
    ),
    r"[uv]_given_[uv]_recall@1",
    r"[uv]_given_[uv]_(log_density|negative_log_likelihood|log_score)",
    r"(learned_)?[uv]_given_[uv]_relative_error",
    r"(learned_)?[uv]_given_[uv]_(effective_sample_size|coverage_90|calibration_dispersion)",
    r"fields?_.*(rmse|crps|spread_skill).*",
    SECONDS,
)
MOST_IMPORTANT = 16
MOST_COLUMNS = 6  # of groups: more of them are rows
DIGITS, DIGITS_OF_SPREAD = 4, 2


@dataclass(frozen=True)
class Compared:
    """A run as it is compared.

    Attributes:
        name: of the run.
        place: its folder.
        experiment: all that it is a function of, flat, with the same keys for all runs.
        checkpoint: that its latest evaluation judged.
        metrics: of that evaluation.
        curves: of its training, by tag.
    """

    name: str
    place: Place
    experiment: Mapping[str, Any]
    checkpoint: str
    metrics: Mapping[str, float]
    curves: Mapping[str, Curve]

    @property
    def seed(self) -> Any:
        """The seed of its training."""
        return self.experiment.get(SEED)


@dataclass(frozen=True)
class Group:
    """Runs that differ in their seed only."""

    label: str
    runs: Sequence[Compared]

    @property
    def experiment(self) -> Mapping[str, Any]:
        """All that they are a function of, with the seed of the first."""
        return self.runs[0].experiment

    def has(self, metric: str) -> bool:
        """Return whether all of them have a metric."""
        return all(metric in run.metrics for run in self.runs)

    def spread(self, metric: str) -> "Spread":
        """Return the mean and the spread of a metric that all of them have."""
        return spread_of([run.metrics[metric] for run in self.runs])


class Spread(NamedTuple):
    """Mean of a number over runs, their standard deviation (None of one run), and how many they are."""

    mean: float
    deviation: float | None
    number: int

    @property
    def standard_error(self) -> float:
        """Standard error of the mean, 0 where it is not known."""
        return 0.0 if self.deviation is None else self.deviation / math.sqrt(self.number)


def spread_of(values: Sequence[float]) -> Spread:
    """Return the mean of values and their standard deviation, of n - 1 degrees of freedom.

    Example:
        >>> spread_of([1.0, 2.0, 3.0]), spread_of([4.0]).deviation
        (Spread(mean=2.0, deviation=1.0, number=3), None)
    """
    deviation = statistics.stdev(values) if len(values) > 1 else None
    return Spread(statistics.fmean(values), deviation, len(values))


def shown(spread: Spread) -> str:
    """Return a mean with its spread as text.

    Example:
        >>> shown(Spread(1033.26, 12.3456, 3)), shown(Spread(0.990712, 0.000412, 3)), shown(Spread(5.0, None, 1))
        ('1033 ± 12', '0.9907 ± 0.00041', '5')
    """
    mean = f"{spread.mean:.{DIGITS}g}" if abs(spread.mean) < 10**DIGITS else f"{spread.mean:,.0f}"
    if spread.deviation is None:
        return mean
    large = spread.deviation >= 10**DIGITS_OF_SPREAD
    return f"{mean} ± {f'{spread.deviation:,.0f}' if large else f'{spread.deviation:.{DIGITS_OF_SPREAD}g}'}"


def groups_of(runs: Sequence[Compared]) -> list[Group]:
    """Return runs in groups that differ in their seed only, in the order of the first of each."""
    found: dict[str, list[Compared]] = {}
    for run in runs:
        identity = {key: value for key, value in run.experiment.items() if key != SEED}
        found.setdefault(repr(sorted(identity.items(), key=lambda item: item[0])), []).append(run)
    members = [sorted(some, key=lambda run: (str(type(run.seed)), run.seed)) for some in found.values()]
    labels = _labels([_name_of(some) for some in members])
    return [Group(label, some) for label, some in zip(labels, members, strict=True)]


def _name_of(runs: Sequence[Compared]) -> str:
    """Return the name that runs share: without their seeds."""
    stems = {run.name.removesuffix(f"-{run.seed}") for run in runs}
    if len(stems) == 1:
        return stems.pop()
    return _beginning([run.name for run in runs]).rstrip("-_. 0123456789") or runs[0].name


def _beginning(names: Sequence[str]) -> str:
    """Return the characters with which all names begin."""
    equal = itertools.takewhile(lambda letters: len(set(letters)) == 1, zip(*names, strict=False))
    return "".join(letters[0] for letters in equal)


def _labels(names: Sequence[str]) -> list[str]:
    """Return names without what all of them begin with, up to a dash; a number after those that are equal.

    Example:
        >>> _labels(["mnist-one", "mnist-two"]), _labels(["mnist", "mnist_small"]), _labels(["a", "a"])
        (['one', 'two'], ['mnist', 'mnist_small'], ['a (1)', 'a (2)'])
    """
    shared = len(names[0]) if len(names) == 1 else _beginning(names).rfind("-") + 1
    short = [name[shared:] or name for name in names]
    twice = {name for name in short if short.count(name) > 1}
    counts = dict.fromkeys(twice, 0)
    labels = []
    for name in short:
        if name in twice:
            counts[name] += 1
        labels.append(f"{name} ({counts[name]})" if name in twice else name)
    return labels


def differing_keys(groups: Sequence[Group]) -> dict[str, list[Any]]:
    """Return the keys in which groups differ, with the value of each."""
    values = {key: [group.experiment.get(key) for group in groups] for key in groups[0].experiment if key != SEED}
    return {key: found for key, found in values.items() if any(value != found[0] for value in found)}


def training_seconds(curves: Mapping[str, Curve], global_batch: int) -> float | None:
    """Return the seconds that the steps of a training took, by the speed that it recorded; None where it did not."""
    pace, before, seconds = curves.get("train/pairs_per_second"), 0, 0.0
    if pace is None or not pace.steps:
        return None
    for step, speed in zip(pace.steps, pace.values, strict=True):
        seconds += (step - before) * global_batch / max(speed, 1e-9)
        before = step
    return seconds


def common_metrics(runs: Iterable[Compared]) -> tuple[list[str], list[str]]:
    """Return the metrics that all runs have, as those that people look for first, and the others."""
    runs = list(runs)
    common = [name for name in runs[0].metrics if all(name in run.metrics for run in runs)]
    found = [name for pattern in IMPORTANT for name in common if re.fullmatch(pattern, name)]
    first = list(dict.fromkeys(found))[:MOST_IMPORTANT]
    return first, sorted(name for name in common if name not in first)


def metrics_table(groups: Sequence[Group], metrics: Sequence[str]) -> Table:
    """Return means and spreads as a table, whose rows are the metrics where the groups are few."""
    heads = [f"{group.label} ({len(group.runs)} seeds)" if len(group.runs) > 1 else group.label for group in groups]
    cells = [[shown(group.spread(metric)) for group in groups] for metric in metrics]
    if len(groups) <= MOST_COLUMNS:
        return [["metric", *heads], *([metric, *row] for metric, row in zip(metrics, cells, strict=True))]
    columns = zip(*cells, strict=True)
    return [["run", *metrics], *([head, *column] for head, column in zip(heads, columns, strict=True))]
