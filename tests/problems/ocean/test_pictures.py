"""Pictures of currents and drifters: land, missing water and dots are explained, and tracks lie on their partner."""

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure

from pcl.problems.ocean.pictures import currents, tracks

NUM = 8


def random(*shape, seed=0):
    return torch.randn(NUM, *shape, generator=torch.Generator().manual_seed(seed))


def drawn(drawing, shown=(0, 3, 5)):
    """Return the axes on which some items have been drawn."""
    axes = Figure().subplots(1, len(shown), squeeze=False)[0]
    drawing.draw(axes, torch.tensor(shown))
    return axes


@pytest.mark.parametrize("land", [False, True])
@pytest.mark.parametrize("missing", [False, True])
def test_land_and_missing_water_are_explained_where_there_are_any(land, missing):
    windows, wet = random(2, 3, 8, 8), torch.ones(NUM, 3, 8, 8, dtype=torch.bool)
    wet[:, :, :2, :2] = not land
    windows[:, :, :, :2, :2] = torch.nan if land else 0.5
    windows[0, 0, 1, 5, 5] = torch.nan if missing else 0.5
    captions = currents(windows, wet).captions
    assert captions[0] == "arrows and colour: direction and speed in the middle of the window"
    assert ("brown: land" in captions) == land
    assert ("hatched: water without a value" in captions) == missing
    assert len(captions) == 1 + land + missing


def test_currents_are_the_speed_in_the_middle_on_one_scale_over_their_own_land():
    windows, wet = random(2, 3, 8, 8), torch.ones(NUM, 3, 8, 8, dtype=torch.bool)
    wet[3, :, :2, :2] = False
    windows[3, :, :, :2, :2] = torch.nan
    axes = drawn(currents(windows, wet))
    speed = np.hypot(*windows[:, :, 1].movedim(1, 0).numpy())
    for axis, i in zip(axes, (0, 3, 5), strict=True):
        (image,) = axis.images
        np.testing.assert_allclose(image.get_array(), speed[i], rtol=1e-6)
        assert image.get_clim() == (0, pytest.approx(np.nanmax(speed[[0, 3, 5]]), rel=1e-6))
    assert [len(axis.collections) for axis in axes] == [1, 2, 1]  # the arrows, and land where there is some
    np.testing.assert_array_equal(axes[1].collections[0].get_array().mask, wet[3, 1])


def test_tracks_of_another_turn_lie_on_their_partner():
    items = random(5, 9, 4).double()
    moved = items.clone()
    moved[1::2, :, :, 0] += 360
    one, other = ([line.get_xydata() for axis in drawn(tracks(part)) for line in axis.lines] for part in (items, moved))
    for line, moved_line in zip(one, other, strict=True):
        np.testing.assert_allclose(line, moved_line, atol=1e-9)
    np.testing.assert_array_equal(one[0], items[0, 0, :, :2])  # degrees east, degrees north
    assert "dot: where a drifter was released" in tracks(items).captions[0]


def test_drifters_that_are_missing_are_drawn_as_far_as_they_are_known():
    items = random(1, 3, 4).masked_fill(torch.tensor([False, True, True])[:, None], torch.nan)
    assert all(len(axis.lines) for axis in drawn(tracks(items)))
