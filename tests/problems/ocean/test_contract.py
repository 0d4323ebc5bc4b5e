"""What a manifest says of ocean pairs is written as it is read, old manifests are read, damaged ones end in a line."""

import copy
import json

import pytest
import torch

from pcl.errors import DamagedDataError
from pcl.problems.ocean.contract import ArchiveFacts, Origin, Position, arrays_of_pairs, read_facts, written
from pcl.problems.ocean.evaluation.windows import Geometry
from pcl.problems.ocean.field import DrifterSet

SOURCE = {  # as version 1 of the manifest holds it
    "name": "ocean",
    "calendar": "standard",
    "licence": "none",
    "time": {"first_s": 9.5e8, "interval_s": 86400.0, "last_s": 9.6e8, "steps": 116},
    "grid": {
        "cell_degrees": [0.25, 0.5],
        "latitude": [30.0, 30.25, 30.5],
        "longitude": [-20.0, -19.5, -19.0, -18.5],
        "periodic": True,
    },
    "drifters": {
        "cell_degrees": [0.25, 0.5],
        "duration_s": 172800.0,
        "height": 2,
        "land": "freeze",
        "metres_per_degree": 111120.0,
        "noise_m": 0.0,
        "num_drifters": 3,
        "record_s": 21600.0,
        "step_s": 3600.0,
        "width": 2,
        "window_time_s": [0.0, 86400.0, 172800.0],
    },
}


def changed(where, value):
    """Return the source with another value, or without it where that is None."""
    source = copy.deepcopy(SOURCE)
    *outer, last = where.split(".")
    holder = source
    for part in outer:
        holder = holder[part]
    if value is None:
        del holder[last]
    else:
        holder[last] = value
    return source


@pytest.mark.parametrize("source", [SOURCE, changed("grid.periodic", None)])
def test_facts_are_written_as_they_were_read(source):
    facts = written(read_facts(source, ArchiveFacts))
    assert json.dumps(facts, sort_keys=True) == json.dumps(
        {name: source[name] for name in ("calendar", "time", "grid", "drifters")}, sort_keys=True
    )


def test_a_manifest_needs_only_what_readers_use():
    needed = ("record_s", "window_time_s", "cell_degrees", "height", "width")
    source = changed("time", None) | {"drifters": {name: SOURCE["drifters"][name] for name in needed}}
    geometry = Geometry.of(source)
    assert geometry.axes(torch.tensor([0.0, 0, 0, 1, 3, 0]))[1].tolist() == [-18.5, 340.0]
    assert geometry.duration_s == 172800


@pytest.mark.parametrize(
    ("where", "value", "rule"),
    [
        ("calendar", None, "calendar: field required"),
        ("grid.latitude", [30.0, "31"], "grid.latitude.1: input should be a valid number"),
        ("grid.longitude", [30.0, 29.0], "longitude does not increase"),
        ("grid.latitude", [30.0, float("nan")], "grid.latitude.1: input should be a finite number"),
        ("drifters.window_time_s", [0.0, 0.0], "window_time_s does not increase"),
        ("drifters.window_time_s", [], "drifters.window_time_s: tuple should have at least 1 item"),
        ("drifters.cell_degrees", [0.25], "drifters.cell_degrees"),
        ("drifters.record_s", 0.0, "drifters.record_s: input should be greater than 0"),
        ("drifters.height", 2.5, "drifters.height: input should be a valid integer"),
        ("drifters", [1], "drifters"),
    ],
)
def test_damaged_facts_end_in_one_line(where, value, rule, tmp_path):
    with pytest.raises(DamagedDataError) as error:
        Geometry.of(changed(where, value), tmp_path / "manifest.json")
    (line,) = str(error.value).splitlines()
    assert line.startswith(f"{tmp_path / 'manifest.json'} cannot be read (")
    assert rule in line
    assert line.endswith("write the shards again")


def test_an_encoder_refuses_damaged_facts_in_one_line():
    drifters = changed("drifters.width", -1)["drifters"]
    with pytest.raises(DamagedDataError, match="width: input should be greater than or equal to 1"):
        DrifterSet((3, 9, 4), 4, width=4, depth=1, drifters=drifters)


def test_components_have_the_order_in_which_they_are_stored():
    infos = arrays_of_pairs(3, 9, 4, 8, has_gaps=False)
    assert {name: info.shape for name, info in infos.items()} == {
        "u": (2, 4, 8, 8),
        "wet": (4, 8, 8),
        "v": (3, 9, 4),
        "origin": (6,),
    }
    origin, position = Origin.of(torch.arange(6)), Position.of(torch.arange(4))
    assert [int(part) for part in (origin.release_s, origin.longitude, origin.latitude)] == [0, 1, 2]
    assert [int(part) for part in (origin.row, origin.column, origin.first_step)] == [3, 4, 5]
    assert [int(part) for part in (position.east, position.north, position.latitude, position.aground)] == [0, 1, 2, 3]
