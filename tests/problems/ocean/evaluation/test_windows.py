"""Windows are read as stored, each field once; tiles go on over the seam; windows of hours have scales of their own."""

import numpy as np
import pytest
import torch

from pcl.data.loader import iterate_split
from pcl.evaluation.splits import read_arrays
from pcl.problems.ocean.evaluation.windows import Geometry, read_archive
from tests.problems.ocean.evaluation.ocean_pairs import HOUR_S, MadePairs, read_windows, write_pairs

NAMES = ("u", "v", "wet", "origin")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Two tiles, three releases of each field, in records that cut them apart."""
    root = tmp_path_factory.mktemp("made")
    source = MadePairs({"train": 51, "test": 12}, ((0, 0), (4, 8)), num_releases=3, holes=0.05)
    return root, write_pairs(source, root, record_pairs=7), source


def equal(a, b):
    return torch.equal(a.double().nan_to_num(9e9), b.double().nan_to_num(9e9))


def test_a_split_is_read_as_it_was_stored(made):
    root, manifest, source = made
    stored = source.pairs("train", 0, 51)
    found = read_windows(root, manifest, "train")
    for name in NAMES:
        assert equal(getattr(found, name), torch.from_numpy(stored[name])), name
    assert found.wet.dtype == torch.bool


def test_each_field_is_kept_once_with_its_first_release(made):
    root, manifest, source = made
    stored, found = source.pairs("train", 0, 51), read_windows(root, manifest, "train", unique=True)
    for name in NAMES:
        assert equal(getattr(found, name), torch.from_numpy(stored[name][::3])), name
    assert found.tile_numbers == [0, 4_000_008]


def test_an_archive_has_the_drifters_of_its_examples_only(made):
    root, manifest, source = made
    stored, archive = source.pairs("train", 0, 51), read_archive(root, manifest, 4)
    assert archive.examples.tolist() == [0, 5, 10, 16]
    assert equal(archive.u[:], torch.from_numpy(stored["u"][::3]))
    assert equal(archive.v, torch.from_numpy(stored["v"][::3][[0, 5, 10, 16]]))
    assert equal(archive.origin, torch.from_numpy(stored["origin"][::3]))
    assert len(read_archive(root, manifest, 100).v) == len(archive) == 17


def test_arrays_of_chosen_pairs_stop_where_the_last_is(made, monkeypatch):
    root, manifest, source = made
    seen = []

    def counting(*arguments):
        for record in iterate_split(*arguments):
            seen.append(len(record[0]))
            yield record

    monkeypatch.setattr("pcl.evaluation.splits.iterate_split", counting)
    kept = {"v": torch.tensor([3, 8]), "origin": torch.tensor([], dtype=torch.long)}
    found = read_arrays(root, manifest, "train", kept)
    assert equal(found["v"], torch.from_numpy(source.pairs("train", 0, 9)["v"][[3, 8]]))
    assert found["origin"].shape == (0, 6)
    assert seen == [7, 7]


@pytest.mark.parametrize("first", [0.0, -180.0, 20.0])
def test_tiles_go_on_over_the_seam_of_a_grid_around_the_globe(first):
    longitude = (first + 10.0 * np.arange(36)).tolist()
    grid = {"latitude": (10.0 * np.arange(12)).tolist(), "longitude": longitude, "periodic": True}
    grid["cell_degrees"] = [10.0, 10.0]
    geometry = Geometry.of(MadePairs({}, grid=grid).provenance())
    for column in range(36):
        latitude, found = geometry.axes(torch.tensor([0.0, 0, 0, 3, column, 0]))
        assert latitude.tolist() == [30.0 + 10 * i for i in range(8)]
        wanted = []
        for index in range(column, column + 8):
            wanted.append(longitude[index] if index < 36 else longitude[index - 36] + 360)
        assert found.tolist() == wanted
        assert (found.diff() == 10).all()


def geometry_of(interval_s, steps, record_s):
    return Geometry.of(MadePairs({}, steps=steps, interval_s=interval_s, record_s=record_s).provenance())


@pytest.mark.parametrize(
    ("interval_h", "steps", "scale_h"),
    [(24, 8, 24), (24, 4, 24), (24, 31, 24), (120, 3, 24), (1, 8, 1), (3, 57, 24), (1, 25, 24 / 7), (6, 5, 6)],
)
def test_the_scale_is_a_day_and_less_in_windows_of_hours(interval_h, steps, scale_h):
    geometry = geometry_of(interval_h * HOUR_S, steps, HOUR_S)
    assert geometry.scale_s == pytest.approx(scale_h * HOUR_S)
    assert geometry.duration_s == (steps - 1) * interval_h * HOUR_S
