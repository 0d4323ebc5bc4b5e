"""The page of an evaluation: whole, self-contained, safe, and of the same numbers as the rest."""

import base64
import json
from html.parser import HTMLParser

import pytest
from matplotlib.figure import Figure

from pcl.evaluation.record import save_evaluation
from pcl.evaluation.report import REPORT, Card, report
from pcl.evaluation.result import Evaluation

VOID = {"meta", "img", "br"}


class Page(HTMLParser):
    """What a page holds: tags that are closed in their order, texts by tag, attributes, and rows of tables."""

    def __init__(self, text):
        super().__init__()
        self.open, self.texts, self.attributes, self.tables = [], {}, [], []
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attributes):
        self.attributes += [(tag, *attribute) for attribute in attributes]
        if tag not in VOID:
            self.open.append(tag)
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("td", "th"):
            self.tables[-1][-1].append("")

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] in ("td", "th"):
            self.tables[-1][-1][-1] += data
        elif self.open:
            self.texts.setdefault(self.open[-1], []).append(data.strip())


def result():
    found = Evaluation({"v_given_u_recall@5": 0.123456789, "own": 3.0}, notes=["Learning loses: here."])
    found.tables.append([["retrieval", "R@5"], ["v given u", "0.1235"]])
    found.details.append([["component", "p-value"], ["0", "0.5"]])
    found.figures["calibration.png"] = Figure(figsize=(1, 1))
    found.figures["own_figure.png"] = Figure(figsize=(1, 2))
    found.captions["own_figure.png"] = "What mine shows."
    return found


CARD = Card("mnist, checkpoint_00000400", ["Of digits."], ["Few pairs."], {"The model": [["", "value"], ["tau", "1"]]})


def test_a_page_holds_what_was_found(tmp_path):
    folder = save_evaluation(result(), tmp_path / "mnist", "checkpoint_00000400", {"step": 400}, card=CARD)
    page = Page((folder / REPORT).read_text())
    assert page.texts["h1"] == page.texts["title"] == [CARD.title]
    warnings = [text for text in page.texts["p"] if text]
    assert {"Of digits.", "Few pairs.", "Learning loses: here."} <= set(warnings)
    assert page.tables[:2] == [
        [["retrieval", "R@5"], ["v given u", "0.1235"]],
        [["component", "p-value"], ["0", "0.5"]],
    ]
    metrics = {row[0]: row[1:] for row in page.tables[2]}
    recorded = json.loads((folder / "metrics.json").read_text())
    assert float(metrics["v_given_u_recall@5"][0]) == pytest.approx(recorded["v_given_u_recall@5"], rel=1e-5)
    assert "rank of at most 5" in metrics["v_given_u_recall@5"][1]
    assert page.tables[3] == [["", "value"], ["tau", "1"]]
    sources = [value for tag, name, value in page.attributes if (tag, name) == ("img", "src")]
    pictures = [base64.b64decode(source.removeprefix("data:image/png;base64,")) for source in sources]
    assert pictures == [(folder / name).read_bytes() for name in ("calibration.png", "own_figure.png")]
    assert [text for text in page.texts["figcaption"] if text][1:] == ["What mine shows."]
    assert "uniform" in page.texts["figcaption"][0]


def test_a_page_needs_nothing_else_and_runs_nothing(tmp_path):
    folder = save_evaluation(result(), tmp_path / "mnist", "checkpoint_00000400", {"step": 400}, card=CARD)
    page = Page((folder / REPORT).read_text())
    assert not {tag for tag, *_ in page.attributes} & {"script", "link", "iframe", "object"}
    assert not [name for _, name, _ in page.attributes if name.startswith("on") or name == "href"]
    assert all(value.startswith("data:image/png;base64,") for _, name, value in page.attributes if name == "src")


def test_what_others_wrote_stays_text():
    hostile = '<script>alert("x")</script>\x1b]0;title\x07'
    found = Evaluation({hostile: 1.0}, tables=[[[hostile, "1"], [hostile, hostile]]], notes=[hostile])
    text = report(found, Card(hostile, [hostile], [hostile], {hostile: [[hostile], [hostile]]}), {})
    assert "<script" not in text
    assert "\x1b" not in text
    assert Page(text).tables[0][1][0].startswith("<script>alert(")


def test_the_page_of_an_earlier_evaluation_is_replaced(tmp_path):
    for number in (1, 2):
        found = Evaluation({"count": float(number)}, notes=[f"note {number}"])
        folder = save_evaluation(found, tmp_path / "a", "checkpoint_00000001", {"step": 1})
        page = Page((folder / REPORT).read_text())
        assert page.texts["h1"] == ["a, checkpoint_00000001"]
        assert [text for text in page.texts["p"] if text.startswith("note")] == [f"note {number}"]
