"""A legend: inside of its figure and readable, however many models there are and however long their names."""

import pytest
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb

from pcl.evaluation.ambiguous import ambiguous_figure
from pcl.evaluation.compared import Group
from pcl.evaluation.compared_figures import curves_figure
from pcl.evaluation.drawing import numbers
from pcl.evaluation.legend import colours
from pcl.storage.curves import Curve

NAMES = [f"{kind}-{loss}-{tilting}" for kind in "ab" for loss in range(3) for tilting in ("cosine", "squared_distance")]


class Run:
    """A run of which nothing is known but a curve."""

    def __init__(self, value):
        self.curves = {"train/loss": Curve([1, 2], [value, value + 1])}


def of_probabilities(names):
    drawing = numbers(torch.arange(3.0))
    return ambiguous_figure(drawing, torch.arange(3), torch.arange(3), {name: torch.zeros(3, 4) for name in names})


def of_curves(names):
    return curves_figure([Group(name, [Run(float(place))]) for place, name in enumerate(names)])


@pytest.mark.parametrize("figure_of", [of_probabilities, of_curves])
@pytest.mark.parametrize("names", [NAMES[:2], NAMES, [name * 3 for name in NAMES * 2]], ids=["few", "many", "long"])
def test_it_lies_within_its_figure_and_has_every_name(figure_of, names):
    names = list(dict.fromkeys(f"{place}{name}" for place, name in enumerate(names)))
    figure = figure_of(names)
    FigureCanvasAgg(figure).draw()
    (legend,) = figure.legends
    box, whole = legend.get_window_extent(), figure.bbox
    assert whole.x0 <= box.x0
    assert box.x1 <= whole.x1
    assert whole.y0 <= box.y0
    assert box.y1 <= whole.y1
    assert [text.get_text() for text in legend.get_texts()] == names
    assert all(axis.bbox.height > 30 for axis in figure.axes if axis.axison)


@pytest.mark.parametrize("number", [1, 10, 11, 24])
def test_no_two_models_have_the_same_colour(number):
    assert len({to_rgb(colour) for colour in colours(number)}) == number
