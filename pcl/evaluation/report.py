"""The page of an evaluation, which is the card of the model too: one HTML file that needs nothing else."""

__all__ = ["REPORT", "Card", "report"]

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from pcl.evaluation.meanings import caption_of, meaning_of
from pcl.evaluation.page import Picture, Section, page
from pcl.evaluation.result import Evaluation, Table

REPORT = "report.html"
INDEPENDENT = (
    "Intervals and p-values hold for independent pairs: where neighbours in time or space are alike, they promise too "
    "much."
)
CONDITIONALS = (
    "u given v is the learned conditional of u, carried by reference items of u that are weighted by how well they fit "
    "v; v given u is the other one. Retrieval takes the items of the judged pairs as candidates."
)


@dataclass(frozen=True)
class Card:
    """What a page says of a model beside its evaluation.

    Attributes:
        title: of the page.
        about: sentences on what was evaluated.
        warnings: sentences on what to distrust.
        facts: tables by title: of the model, its configuration, where it comes from; the first row of each is a head.
        numbers: what is to be known of the tables.
        closer: likewise, of those for who looks closer.
    """

    title: str
    about: Sequence[str] = ()
    warnings: Sequence[str] = ()
    facts: Mapping[str, Table] = field(default_factory=dict)
    numbers: str = CONDITIONALS
    closer: str = INDEPENDENT


def report(result: Evaluation, card: Card, pictures: Mapping[str, bytes]) -> str:
    """Return the page of an evaluation.

    Args:
        result: of the evaluation.
        card: of the model.
        pictures: the figures as PNG files, by file name.

    Example:
        >>> text = report(Evaluation({"count": 3.0}, notes=["Learning loses."]), Card("mnist"), {})
        >>> "<h1>mnist</h1>" in text, "Learning loses." in text, "https://" in text
        (True, True, False)
    """
    shown = [Picture(png, result.captions.get(name) or caption_of(name)) for name, png in pictures.items()]
    sections = [
        Section("Numbers", [card.numbers], result.tables),
        Section("Pictures", pictures=shown),
        Section("A closer look", [card.closer], [*result.details, _metrics(result.metrics)], is_folded=True),
        *(Section(title, tables=[table]) for title, table in card.facts.items()),
    ]
    kept = [one for one in sections if one.tables or one.pictures]
    return page(card.title, card.about, kept, [*card.warnings, *result.notes])


def _metrics(metrics: Mapping[str, float]) -> Table:
    """Return every metric with what it means."""
    rows = [[name, f"{value:.6g}", meaning_of(name).text] for name, value in metrics.items()]
    return [["metric", "value", "what it is"], *rows]
