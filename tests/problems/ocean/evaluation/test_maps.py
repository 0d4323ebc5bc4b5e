"""Maps: land from the mask, missing water apart from it, and what the marks mean."""

import numpy as np
import pytest
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgba

from pcl.problems.ocean.evaluation.background import LAND
from pcl.problems.ocean.evaluation.maps import MapRow, maps_figure, scores_figure


def row(*, land=True, missing=True):
    generator = torch.Generator().manual_seed(0)
    truth, mean, std = torch.randn(3, 2, 8, 8, generator=generator, dtype=torch.float64)
    wet = torch.ones(8, 8, dtype=torch.bool)
    wet[:, :2] = not land
    for field in (truth, mean, std):
        field[:, ~wet] = torch.nan
    if missing:
        truth[0, 3:5, 4:6] = torch.nan
    axis = 0.25 * torch.arange(8, dtype=torch.float64)
    return MapRow(truth, mean, std.abs(), wet, axis, 179 + axis, torch.rand(3, 5, 2, generator=generator), "title")


def colours(figure, axis):
    """Return the pixels of an axis's cells, by the colour in their middle."""
    figure.canvas.draw()
    pixels = np.asarray(figure.canvas.buffer_rgba())
    found = np.empty((8, 8, 3))
    for i in range(8):
        for j in range(8):
            x, y = axis.transData.transform((179 + 0.25 * j, 0.25 * i))
            patch = pixels[-round(y) - 4 : -round(y) + 4, round(x) - 4 : round(x) + 4, :3]
            found[i, j] = np.median(patch.reshape(-1, 3), 0) / 255
    return found


@pytest.mark.long
def test_land_is_painted_and_missing_water_is_not_land():
    figure = maps_figure([row()])
    FigureCanvasAgg(figure)
    estimate, error = (figure.axes[i] for i in (2, 3))
    found = colours(figure, error)
    np.testing.assert_allclose(found[:, :2], np.broadcast_to(to_rgba(LAND)[:3], (8, 2, 3)), atol=0.02)
    assert found[3:5, 4:6].min() > 0.95  # white between the lines
    assert error.patch.get_hatch()
    spread = colours(figure, estimate)
    assert (np.abs(spread[3:5, 4:6] - 1).max(-1) > 0.05).all()  # the estimate has a value there


@pytest.mark.parametrize(("land", "missing"), [(True, True), (True, False), (False, False), (False, True)])
def test_the_legend_explains_what_is_there(land, missing):
    (legend,) = maps_figure([row(land=land, missing=missing), row(land=land, missing=missing)]).legends
    texts = [text.get_text() for text in legend.get_texts()]
    assert texts[0] == "track of a drifter; the dot marks its release"
    assert texts[1:] == ["land"] * land + ["water without a value"] * missing


def test_the_axis_of_separations_is_in_its_unit():
    scores = {"posterior": {"rmse_m_s": 0.1, "crps_m_s": 0.05}}
    lines = torch.linspace(0, 7, 5)
    for unit in ("days", "hours"):
        forecasts = {"posterior": (torch.ones(2),) * 3}
        figure = scores_figure(scores, lines, {"posterior": lines}, {"posterior": torch.ones(4)}, forecasts, unit)
        assert figure.axes[1].get_xlabel() == f"{unit} after the release"
        np.testing.assert_array_equal(figure.axes[1].lines[0].get_xdata(), lines)
