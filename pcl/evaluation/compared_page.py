"""The page of a comparison: what differs, numbers with spread, pictures and words; a part for each kind of pairs."""

__all__ = ["PAIRS", "Part", "keys_table", "parts_of", "warnings_of"]

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from pcl.errors import BadInputError, DamagedDataError
from pcl.evaluation.claims import claims
from pcl.evaluation.compared import Compared, Group, common_metrics, metrics_table
from pcl.evaluation.compared_figures import curves_figure, metrics_figure
from pcl.evaluation.compared_labels import FIGURES, label_table, per_label_table
from pcl.evaluation.page import Picture, Section, png_of
from pcl.evaluation.result import Table

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PAIRS, SOURCE = "manifest_sha256", "data.source"
SPREAD = (
    "Mean over the seeds of a group ± standard deviation (n - 1 degrees of freedom), of the latest evaluation of every "
    "run. A difference smaller than about two standard deviations may be one of the seeds."
)
LabelFigures = Callable[[Sequence[Group]], Mapping[str, "Figure"]]


@dataclass
class Part:
    """What is said of groups of runs that were trained and judged on the same pairs.

    Attributes:
        name: of the pairs, empty where all runs have the same.
        groups: of runs.
        table: of their numbers.
        sentences: on what they say.
        sections: of the page.
        pictures: by file name.
        warnings: what a reader should know before the numbers.
    """

    name: str
    groups: Sequence[Group]
    table: Table = field(default_factory=list)
    sentences: list[str] = field(default_factory=list)
    sections: list[Section] = field(default_factory=list)
    pictures: dict[str, Picture] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)

    def picture(self, name: str, figure: "Figure", caption: str) -> Picture:
        """Keep a picture, and return it."""
        file = f"{self.name}-{name}" if self.name else name
        self.pictures[file] = Picture(png_of(figure), caption)
        return self.pictures[file]

    def title(self, text: str) -> str:
        """Return the title of a section of this part."""
        return f"{text}: {self.name}" if self.name else text


def parts_of(groups: Sequence[Group], label_figures: LabelFigures) -> list[Part]:
    """Return what is to be said of groups, those with the same pairs together.

    Args:
        groups: of runs.
        label_figures: draws groups whose v are labels; what it refuses is left out, with a warning.

    Raises:
        BadInputError: runs with the same pairs have no number in common.
    """
    by_pairs: dict[Any, list[Group]] = {}
    for group in groups:
        by_pairs.setdefault(group.experiment.get(PAIRS), []).append(group)
    sources = [str(some[0].experiment.get(SOURCE)) for some in by_pairs.values()]
    parts = []
    for number, (source, some) in enumerate(zip(sources, by_pairs.values(), strict=True)):
        name = source if sources.count(source) == 1 else f"{source}_{sources[:number].count(source) + 1}"
        parts.append(_part(Part(name if len(sources) > 1 else "", some), label_figures))
    return parts


def _part(part: Part, label_figures: LabelFigures) -> Part:
    first, others = common_metrics(run for group in part.groups for run in group.runs)
    if not first + others:
        raise BadInputError("the latest evaluations of these runs have no number in common: they cannot be compared")
    part.table = metrics_table(part.groups, first or others)
    figure = metrics_figure(part.groups, first or others)
    dots = part.picture("metrics.png", figure, "Every run a dot, the mean of a group a bar.")
    part.sections.append(Section(part.title("Numbers"), [SPREAD], [part.table], [dots]))
    if all(group.has("label_accuracy") for group in part.groups):
        _add_labels(part, label_figures)
    if (curves := curves_figure(part.groups)) is not None:
        drawn = part.picture("curves.png", curves, "Curves of the trainings, a colour a group, a line a seed.")
        part.sections.append(Section(part.title("Training"), pictures=[drawn]))
    if first and others:
        whole = metrics_table(part.groups, others)
        part.sections.append(Section(part.title("All other numbers"), tables=[whole], is_folded=True))
    return part


def _add_labels(part: Part, label_figures: LabelFigures) -> None:
    tables, shown = [label_table(part.groups), per_label_table(part.groups)], []
    try:
        shown = [part.picture(name, one, FIGURES[name]) for name, one in label_figures(part.groups).items()]
    except (BadInputError, DamagedDataError) as error:
        part.warnings.append(f"Pictures of labels are left out: {error}.")
    part.sentences += claims(part.groups)
    tables = [table for table in tables if len(table) > 1]
    part.sections.append(Section(part.title("Labels"), part.sentences, tables, shown))


def warnings_of(groups: Sequence[Group]) -> Iterator[str]:
    """Yield what a reader should know before the numbers."""
    if any(len(group.runs) == 1 for group in groups):
        yield "A group of one run has no spread: a difference from it may be one of the seeds."
    runs: list[Compared] = [run for group in groups for run in group.runs]
    steps = {name: sorted({run.checkpoint for run in group.runs}) for name, group in ((g.label, g) for g in groups)}
    if len({run.checkpoint for run in runs}) > 1:
        told = "; ".join(f"{label}: {', '.join(found)}" for label, found in list(steps.items())[:10])
        yield f"The evaluations are of different steps ({told})."


def keys_table(groups: Sequence[Group], differing: Mapping[str, Sequence[Any]]) -> Table:
    """Return the keys that differ, a row each, or a row a group where the groups are many."""
    cells = {key: ["-" if value is None else str(value) for value in values] for key, values in differing.items()}
    if len(groups) <= len(differing) or len(groups) <= 6:
        return [["key", *(group.label for group in groups)], *([key, *values] for key, values in cells.items())]
    rows = zip(*cells.values(), strict=True)
    return [["group", *cells], *([group.label, *row] for group, row in zip(groups, rows, strict=True))]
