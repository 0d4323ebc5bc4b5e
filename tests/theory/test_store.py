"""Finished tasks: a file that is not what was written is no result, and the task is done again."""

import json
import math

import pytest

from pcl.gaussian.process import GaussianProcessPair
from pcl.storage.stored import sealed
from pcl.theory.cells import Cell
from pcl.theory.plan import Task
from pcl.theory.store import Store

TASK = Task("minimum", Cell())
RESULT = {"value": 0.25, "curve": [1.0, 2.0, math.inf], "name": "a", "nested": {"steps": 3}}


@pytest.fixture
def store(tmp_path):
    store = Store(tmp_path, GaussianProcessPair(num_modes=20))
    store.save(TASK, RESULT)
    return store


def test_a_result_is_what_was_saved(store):
    assert store.load(TASK) == RESULT
    assert store.pending([TASK]) == []
    store.save(TASK, {"value": math.nan})
    assert math.isnan(store.load(TASK)["value"])


DAMAGES = {
    "empty": lambda text: "",
    "half": lambda text: text[: len(text) // 2],
    "another digit": lambda text: text.replace("0.25", "0.26"),
    "no checksum": lambda text: json.dumps({key: value for key, value in json.loads(text).items() if key != "sha256"}),
    "nested": lambda text: "[" * 100_000,
    "nested values": lambda text: '{"result":' * 100_000,
    "another kind": lambda text: json.dumps(sealed({"task": {}, "result": [1.0]})),
    "long number": lambda text: '{"result": {"value": ' + "9" * 10_000 + "}}",
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_result_is_none(store, damage):
    path = store.path(TASK)
    path.write_text(DAMAGES[damage](path.read_text()))
    assert store.load(TASK) is None
    assert store.pending([TASK]) == [TASK]


def test_a_folder_in_the_place_of_a_result_is_none(store):
    path = store.path(TASK)
    path.unlink()
    path.mkdir()
    assert store.load(TASK) is None
