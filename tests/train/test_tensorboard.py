"""What TensorBoard shows of a training: curves, hyperparameters across runs, and storage that refuses."""

import json
import os

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams.hparams_plugin import HParamsPlugin
from tensorboard.plugins.text.text_plugin import TextPlugin

from pcl.storage.events import EventFile, scalars
from pcl.storage.place import place
from pcl.train.tensorboard import Journal, PatientWriter
from tests.s3 import SLOW_DOWN, s3_server
from tests.train.board import Board

REQUEST = {"startIndex": 0, "sliceSize": 10, "allowedStatuses": ["STATUS_UNKNOWN"]}


def points(folder, tag="train/loss"):
    return [(event.step, event.value) for event in EventAccumulator(str(folder)).Reload().Scalars(tag)]


def test_names_with_a_section_keep_it(tmp_path):
    journal = Journal(tmp_path, 0, 20, {"seed": 0})
    journal.log(10, {"loss": 0.5, "time/data_ms": 2.0})
    tags = EventAccumulator(str(tmp_path)).Reload().Tags()["scalars"]
    assert sorted(tags) == ["time/data_ms", "train/loss"]
    assert json.loads((tmp_path / "progress.json").read_text()) == {
        "step": 10,
        "num_steps": 20,
        "loss": 0.5,
        "time/data_ms": 2.0,
    }


def test_a_running_tensorboard_follows_a_resume(tmp_path):
    first = Journal(tmp_path / "run", 0, 50, {})
    for step in (10, 20, 30):
        first.log(step, {"loss": float(step)})
    board = Board(tmp_path)
    assert board.curve("run", "train/loss") == [(10, 10), (20, 20), (30, 30)]
    second = Journal(tmp_path / "run", 15, 50, {})
    for step in (20, 40):
        second.log(step, {"loss": -float(step)})
    expected = [(10, 10), (20, -20), (40, -40)]
    assert board.reload().curve("run", "train/loss") == expected
    assert Board(tmp_path).curve("run", "train/loss") == expected


def refuse(folder):
    """Put a file in a folder's place, so that every write fails; return what mends it."""
    aside = folder.with_name("aside")
    folder.rename(aside)
    folder.write_text("in the way")

    def mend():
        folder.unlink()
        aside.rename(folder)

    return mend


def test_storage_that_refuses_costs_points_and_one_line(tmp_path, capsys):
    journal = Journal(tmp_path / "run", 0, 100, {"seed": 0})
    journal.log(10, {"loss": 1.0})
    mend = refuse(tmp_path / "run")
    for step in (20, 30):
        journal.log(step, {"loss": 2.0})
    mend()
    for step in (40, 50):
        journal.log(step, {"loss": 3.0})
    assert points(tmp_path / "run") == [(10, 1.0), (40, 3.0), (50, 3.0)]
    errors = capsys.readouterr().err
    assert errors.startswith("TensorBoard lacks points: storage refuses (")
    assert errors.count("\n") == 1


def test_half_a_record_does_not_hide_what_follows(tmp_path, monkeypatch):
    writer = PatientWriter(tmp_path)
    writer.draw(1, {"x": 1.0})

    def half(self, events):
        with self.path.open("ab") as file:
            file.write(b"\x18\x00\x00\x00")
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(EventFile, "append", half)
        writer.draw(2, {"x": 2.0})
    writer.draw(3, {"x": 3.0})
    assert points(tmp_path, "x") == [(1, 1.0), (3, 3.0)]


def test_a_journal_begins_though_storage_refuses(tmp_path, capsys):
    (tmp_path / "run").write_text("in the way")
    journal = Journal(tmp_path / "run", 5, 100, {"seed": 3})
    (tmp_path / "run").unlink()
    journal.log(10, {"loss": 1.0})
    assert points(tmp_path / "run") == [(10, 1.0)]
    found = Board(tmp_path).ask(HParamsPlugin, "/experiment", request="{}")
    assert [info["name"] for info in found["hparamInfos"]] == ["seed"]
    assert "storage refuses" in capsys.readouterr().err


def test_hyperparameters_of_all_runs_and_their_last_metrics(tmp_path):
    runs = {"a": {"seed": 0, "loss.kind": "joint", "start": [0.5], "depth": None}, "b": {"seed": 1, "learned": True}}
    for name, experiment in runs.items():
        journal = Journal(tmp_path / name, 0, 10, experiment)
        journal.log(5, {"loss": 9.0})
        journal.log(10, {"loss": 1.0 + experiment["seed"]})
        EventFile(tmp_path / name / "evaluations", lambda: [scalars({"eval/recall": 0.25}, 10)])
    board = Board(tmp_path)
    assert sorted(board.multiplexer.Runs()) == ["a", "a/evaluations", "b", "b/evaluations"]
    metrics = [{"group": "", "tag": "train/loss"}, {"group": "evaluations", "tag": "eval/recall"}]
    found = board.ask(HParamsPlugin, "/experiment", request="{}")
    assert {info["name"] for info in found["hparamInfos"]} >= {"seed", "loss.kind", "learned"}
    assert all({"name": metric} in [{"name": info["name"]} for info in found["metricInfos"]] for metric in metrics)
    request = REQUEST | {"colParams": [{"metric": metric} for metric in metrics]}
    groups = board.ask(HParamsPlugin, "/session_groups", request=json.dumps(request))["sessionGroups"]
    shown = {group["name"]: group for group in groups}
    for name, experiment in runs.items():
        group = shown[name]
        assert group["hparams"]["seed"] == experiment["seed"]
        values = {value["name"]["tag"]: value["value"] for value in group["metricValues"]}
        assert values == {"train/loss": 1.0 + experiment["seed"], "eval/recall": 0.25}


def test_a_table_is_shown_as_text(tmp_path):
    writer = PatientWriter(tmp_path / "head")
    writer.draw(1, {"head/done": 2.0}, [["work", "state"], ["a", "done"]])
    board = Board(tmp_path)
    assert board.curve("head", "head/done") == [(1, 2.0)]
    (tag,) = board.multiplexer.PluginRunToTagToContent(TextPlugin.plugin_name)["head"]
    (event,) = board.multiplexer.Tensors("head", tag)
    assert b"| a | done |" in event.tensor_proto.string_val[0]


def test_event_files_are_numbered_above_those_of_other_writers(tmp_path):
    (tmp_path / "events.out.tfevents.1700000000.host.7.0").touch()
    names = [EventFile(tmp_path, list).path.name for _ in range(2)]
    assert names == ["events.out.tfevents.1700000001.pcl", "events.out.tfevents.1700000002.pcl"]
    assert names == sorted(names)


def test_a_number_that_another_took_is_left_to_it_and_the_events_are_asked_for_again(tmp_path):
    asked = []

    def events():
        asked.append(len(list(tmp_path.iterdir())))
        if len(asked) == 1:
            EventFile(tmp_path, list)  # another process, quicker
        return [scalars({"x": float(len(asked))}, 1)]

    assert EventFile(tmp_path, events).path.name.endswith("0000000002.pcl")
    assert asked == [0, 1]
    assert points(tmp_path, "x") == [(1, 2.0)]


@pytest.fixture(scope="module")
def s3():
    with s3_server() as server:
        yield server


def test_curves_in_s3_are_whole_and_survive_a_refusal(s3, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("pcl.storage.events.LONG_BYTES", 300)
    run = place(f"{s3.address}/{tmp_path.name}-{os.urandom(4).hex()}")
    journal = Journal(run, 0, 100, {"seed": 0})
    for step in range(1, 21):
        s3.refusal = SLOW_DOWN if step in (7, 8) else None
        journal.log(step, {"loss": float(step)})
    files = sorted(path.name for path in run.iterdir() if path.name.startswith("events"))
    assert len(files) > 3  # none much longer than that
    for name in files:
        (tmp_path / name).write_bytes((run / name).read_bytes())
    assert [step for step, _ in points(tmp_path)] == [step for step in range(1, 21) if step not in (7, 8)]
    assert capsys.readouterr().err.count("\n") == 1
