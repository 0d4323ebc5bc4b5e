"""Which velocities of tracks count."""

import numpy as np
import pandas as pd
import pytest

from pcl.errors import BadInputError
from pcl.problems.ocean.reconstruct.settings import TrackSettings
from pcl.problems.ocean.reconstruct.tracks import tracks_of

SPEED = 0.2  # m/s, northward


def straight(path, num_drifters, days, every_h):
    """Drifters side by side on a steady current."""
    hours = np.arange(0, 24 * days, every_h)
    name, hour = (one.ravel() for one in np.meshgrid(np.arange(num_drifters), hours, indexing="ij"))
    columns = {"id": name, "time": 1_680_000_000 + (3600 * hour).astype(int), "lat": 50 + SPEED * 3600 * hour / 111_120}
    pd.DataFrame(columns | {"lon": 10 + 0.05 * name}).to_csv(path, index=False)
    return path


def test_velocities_of_many_drifters_are_some_and_not_long_ones(tmp_path):
    """A mean over two weeks says little of a current: 30 drifters of 20 days have 600 days for 100 velocities."""
    tracks = tracks_of([straight(tmp_path / "a.csv", 30, 20, 6)], TrackSettings(), None, None, None, most_pieces=100)
    assert tracks.piece_hours == 24
    assert tracks.pieces.duration_s.max() <= 30 * 3600
    assert len(tracks.pieces) == 100
    assert tracks.num_pieces == 30 * 19
    assert len(tracks.names) == 30
    np.testing.assert_allclose(tracks.pieces.velocity, [[0, SPEED]] * 100, atol=1e-6)


def test_fixes_that_come_once_a_month_are_no_velocities(tmp_path):
    file = straight(tmp_path / "a.csv", 3, 200, 24 * 30)
    with pytest.raises(BadInputError, match=r"within 168 hours: give tracks\.gap_hours"):
        tracks_of([file], TrackSettings(), None, None, None)
    assert len(tracks_of([file], TrackSettings(gap_hours=1000), None, None, None).pieces) == 18


def test_fixes_that_were_sent_twice_change_nothing(tmp_path):
    """Every one again half a second later: the usual interval is still six hours."""
    file = straight(tmp_path / "a.csv", 3, 10, 6)
    once = tracks_of([file], TrackSettings(), None, None, None)
    table = pd.read_csv(file)
    pd.concat([table, table.assign(time=table.time + 0.5)]).to_csv(file, index=False)
    twice = tracks_of([file], TrackSettings(), None, None, None)
    assert (twice.piece_hours, twice.gap_hours) == (once.piece_hours, once.gap_hours) == (1, 18)
    np.testing.assert_allclose(twice.pieces.velocity, once.pieces.velocity, rtol=1e-4, atol=1e-9)


def test_parts_are_the_tracks(tmp_path):
    tracks = tracks_of([straight(tmp_path / "a.csv", 3, 2, 1)], TrackSettings(), None, None, None)
    assert [*tracks.parts] == ["0", "1", "2"]
    for name, part in tracks.parts.items():
        np.testing.assert_array_equal(np.flatnonzero(tracks.fixes.name == name), np.arange(part.start, part.stop))
