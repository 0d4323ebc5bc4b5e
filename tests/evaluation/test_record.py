"""What an evaluation leaves: the mark last, curves right in any order, and embeddings that the projector finds."""

import json
import os
from itertools import permutations
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr
from matplotlib.figure import Figure
from PIL import Image
from tensorboard.backend.event_processing.event_file_loader import LegacyEventFileLoader
from tensorboard.plugins.projector.projector_plugin import ProjectorPlugin

import pcl.evaluation.record as record
from pcl.evaluation.drawing import images, numbers, paths, vectors
from pcl.evaluation.embeddings import Embeddings, choose_embeddings
from pcl.evaluation.record import save_evaluation
from pcl.evaluation.result import Evaluation
from pcl.storage.events import EventFile, scalars
from pcl.storage.place import names, place
from pcl.storage.stored import sealed
from pcl.train.tensorboard import MEANINGS, Journal
from tests.s3 import s3_server
from tests.train.board import Board

RUN, BOARD = "a", "a/evaluations"


def result(value, *, figure=False, embeddings=None):
    found = Evaluation(metrics={"recall": value, "count": 3.0}, embeddings=embeddings)
    if figure:
        found.figures["picture.png"] = Figure(figsize=(1, 2))
    return found


def save(storage, step, value=None, part="", **options):
    value = step / 1000 if value is None else value
    about = {"step": step, "checkpoint": f"checkpoint_{step:08d}", "experiment": "abc", "max_pairs": 0}
    return save_evaluation(result(value, **options), storage / RUN, about["checkpoint"], about, part)


def curve(steps):
    return [(step, step / 1000) for step in steps]


@pytest.mark.parametrize("order", [*permutations((10, 20, 30)), (40, 30, 20, 10), (20, 40, 10, 30)], ids=str)
def test_curves_are_in_the_order_of_steps_whatever_the_order_of_evaluations(tmp_path, order):
    boards = []
    for done, step in enumerate(order, 1):
        save(tmp_path, step)
        boards.append(Board(tmp_path))
        for board in boards:  # those that run since, and one that starts now
            assert board.reload().curve(BOARD, "eval/recall") == curve(sorted(order[:done]))


def test_a_file_of_curves_holds_no_more_figures_than_tensorboard_shows(tmp_path):
    steps = range(10, 130, 10)
    for step in reversed(steps):  # as the head does them: each writes the points of all that are newer
        save(tmp_path, step, figure=True)
    file = sorted((tmp_path / BOARD).glob("events*"))[-1]
    events = [value for event in LegacyEventFileLoader(str(file)).Load() for value in event.summary.value]
    assert [value.tag for value in events].count("eval/recall") == len(steps)
    assert [value.tag for value in events].count("eval/picture") == record.MOST_FIGURES == 10
    assert sum(value.metadata.display_name != "" for value in events if value.tag == "eval/recall") == 1
    assert Board(tmp_path).reload().curve(BOARD, "eval/recall") == curve(steps)


def test_a_second_evaluation_replaces_the_first(tmp_path):
    for step in (10, 20, 30):
        save(tmp_path, step, figure=True)
    board = Board(tmp_path)
    assert board.image_steps(BOARD, "eval/picture") == [10, 20, 30]
    folder = save(tmp_path, 20, value=0.5)
    assert sorted(path.name for path in folder.iterdir()) == ["metrics.json", "report.html"]
    for shown in (board.reload(), Board(tmp_path)):
        assert shown.curve(BOARD, "eval/recall") == [(10, 0.01), (20, 0.5), (30, 0.03)]
        assert shown.image_steps(BOARD, "eval/picture")[-1] == 30
    content = json.loads((folder / "metrics.json").read_text())
    assert sealed(content) == content
    assert content == {
        "sha256": content["sha256"],
        "step": 20,
        "checkpoint": "checkpoint_00000020",
        "experiment": "abc",
        "max_pairs": 0,
        "recall": 0.5,
        "count": 3.0,
    }


def test_parts_have_folders_and_curves_of_their_own(tmp_path):
    save(tmp_path, 10)
    folder = save(tmp_path, 10, value=0.9, part="train_first")
    save(tmp_path, 20)
    assert folder == tmp_path / RUN / "evaluations" / "checkpoint_00000010" / "train_first"
    board = Board(tmp_path)
    assert board.curve(BOARD, "eval/recall") == curve([10, 20])
    assert board.curve(BOARD, "eval_train_first/recall") == [(10, 0.9)]


def test_tensorboard_shows_a_run_and_its_evaluations_by_short_names_and_says_what_curves_mean(tmp_path):
    Journal(tmp_path / RUN, 0, 100, {}).log(10, {"loss": 0.5, "own": 1.0})
    save(tmp_path, 10, figure=True)
    save(tmp_path, 10, value=0.9, part="train_first")
    board = Board(tmp_path).multiplexer
    assert sorted(board.Runs()) == [RUN, BOARD]

    def told(run, tag):
        metadata = board.SummaryMetadata(run, tag)
        return metadata.display_name, metadata.summary_description

    assert told(RUN, "train/loss") == ("loss", MEANINGS["train/loss"].text)
    assert told(RUN, "train/own") == ("train/own", "")
    assert told(BOARD, "eval/recall") == ("recall", "")
    assert told(BOARD, "eval/picture") == ("picture", "picture")


def test_the_curves_of_a_run_of_an_earlier_version_go_on_where_they_lie(tmp_path):
    training, evaluations = tmp_path / RUN / "tensorboard", tmp_path / RUN / "tensorboard" / "evaluation"
    EventFile(training, lambda: [scalars({"train/loss": 0.01}, 10)])
    EventFile(evaluations, lambda: [scalars({"eval/recall": 0.01}, 10)])
    Journal(tmp_path / RUN, 10, 100, {}).log(20, {"loss": 0.02})
    save(tmp_path, 20)
    board = Board(tmp_path)
    assert sorted(board.multiplexer.Runs()) == ["a/tensorboard", "a/tensorboard/evaluation"]
    assert board.curve("a/tensorboard", "train/loss") == board.curve("a/tensorboard/evaluation", "eval/recall")
    assert board.curve("a/tensorboard", "train/loss") == [(10, 0.01), (20, 0.02)]


def test_training_and_evaluations_do_not_hide_each_other(tmp_path):
    journal = Journal(tmp_path / RUN, 0, 100, {"seed": 0})
    board = Board(tmp_path)
    for step in (10, 20, 30):
        journal.log(step, {"loss": step / 1000})
        save(tmp_path, step)
        assert board.reload().curve("a", "train/loss") == curve(range(10, step + 1, 10))
        assert board.curve(BOARD, "eval/recall") == curve(range(10, step + 1, 10))


@pytest.mark.parametrize("refused", range(6))
def test_storage_that_refuses_leaves_the_earlier_evaluation_as_it_was(tmp_path, monkeypatch, refused):
    """Whichever write is the first to be refused, before files are put in place."""
    found = {step: result(0.5, figure=True) for step in (1, 2)}
    for one in found.values():
        one.datasets["field.nc"] = xr.Dataset({"x": ("t", np.arange(3.0))})
    found[2].figures["other.png"] = Figure(figsize=(1, 1))
    about, run = {"step": 10, "split": "test"}, tmp_path / RUN
    folder = save_evaluation(found[1], run, "checkpoint_00000010", about)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert sorted(before) == ["field.nc", "metrics.json", "picture.png", "report.html"]
    left, real = [refused], record.write_bytes

    def write(path, content):
        if left[0] == 0:
            raise OSError(28, "No space left on device", str(path))
        left[0] -= 1
        real(path, content)

    with monkeypatch.context() as patch:
        patch.setattr(record, "write_bytes", write)
        patch.setattr("pcl.storage.stored.write_bytes", write)
        patch.setattr("pcl.storage.events.write_bytes", write)
        patch.setattr("pcl.storage.events._create", lambda path, content: write(path, content) or True)
        with pytest.raises(OSError, match="No space"):
            save_evaluation(found[2], run, "checkpoint_00000010", about)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    save_evaluation(found[2], run, "checkpoint_00000010", about)
    after = sorted(path.name for path in folder.iterdir())
    assert after == ["field.nc", "metrics.json", "other.png", "picture.png", "report.html"]


def test_the_mark_is_put_in_place_last(tmp_path, monkeypatch):
    save(tmp_path, 10, value=0.5, figure=True)
    folder = tmp_path / RUN / "evaluations" / "checkpoint_00000010"
    moved, real = [], Path.replace

    def replace(self, target):
        if self.parent.name == ".draft":
            assert json.loads((folder / "metrics.json").read_text())["recall"] == 0.5
            moved.append(self.name)
        return real(self, target)

    monkeypatch.setattr(Path, "replace", replace)
    save(tmp_path, 10, value=0.25, figure=True)
    assert moved == ["picture.png", "report.html", "metrics.json"]
    assert json.loads((folder / "metrics.json").read_text())["recall"] == 0.25


def test_a_draft_that_a_killed_process_left_is_replaced(tmp_path):
    draft = tmp_path / RUN / "evaluations" / "checkpoint_00000010" / ".draft"
    draft.mkdir(parents=True)
    (draft / "old.png").write_bytes(b"half")
    (draft / "metrics.json").write_bytes(b"{")
    folder = save(tmp_path, 10)
    assert sorted(path.name for path in folder.iterdir()) == ["metrics.json", "report.html"]


DAMAGES = {
    "half": lambda content: content[: len(content) // 2],
    "digit": lambda content: content.replace(b"0.01", b"0.02"),
    "nested": lambda content: b"[" * 100_000,
    "step a text": lambda content: json.dumps(sealed(json.loads(content) | {"step": "x"})).encode(),
    "step large": lambda content: json.dumps(sealed(json.loads(content) | {"step": 1e30})).encode(),
    "step another": lambda content: json.dumps(sealed(json.loads(content) | {"step": 11})).encode(),
    "no step": lambda content: b"{}",
    "a title": lambda content: b'{"step": 10, "\\u001b]0;title": []}',
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_metrics_are_left_out_and_said_to_be_so(tmp_path, capsys, damage):
    for step in (10, 20):
        save(tmp_path, step)
    path = tmp_path / RUN / "evaluations" / "checkpoint_00000010" / "metrics.json"
    path.write_bytes(DAMAGES[damage](path.read_bytes()))
    capsys.readouterr()
    save(tmp_path, 30)
    (line,) = capsys.readouterr().err.splitlines()
    assert line.isprintable()
    assert "checkpoint_00000010" in line
    assert Board(tmp_path).curve(BOARD, "eval/recall")[-2:] == curve([20, 30])
    save(tmp_path, 5)  # every later point follows anew, but for that of the damaged one
    assert Board(tmp_path).curve(BOARD, "eval/recall") == curve([5, 20, 30])
    save(tmp_path, 10)
    assert Board(tmp_path).curve(BOARD, "eval/recall") == curve([5, 10, 20, 30])


def test_metrics_without_a_checksum_are_read(tmp_path):
    save(tmp_path, 20)
    path = tmp_path / RUN / "evaluations" / "checkpoint_00000020" / "metrics.json"
    path.write_text(json.dumps({"step": 20, "recall": 0.75}))
    save(tmp_path, 10)
    assert Board(tmp_path).curve(BOARD, "eval/recall") == [(10, 0.01), (20, 0.75)]


@pytest.mark.parametrize("content", [b"", b"no picture", b"\x89PNG\r\n\x1a\n"])
def test_a_damaged_figure_of_another_evaluation_is_left_out(tmp_path, content):
    save(tmp_path, 20, figure=True)
    (tmp_path / RUN / "evaluations" / "checkpoint_00000020" / "picture.png").write_bytes(content)
    save(tmp_path, 10, figure=True)
    assert Board(tmp_path).image_steps(BOARD, "eval/picture") == [10]


def test_datasets_and_figures_are_written_whole(tmp_path):
    found = result(0.5, figure=True)
    found.datasets["field.nc"] = xr.Dataset({"x": ("t", np.arange(3.0))}, attrs={"checkpoint": "c"})
    folder = save_evaluation(found, tmp_path / RUN, "checkpoint_00000010", {"step": 10})
    assert sorted(path.name for path in folder.iterdir()) == ["field.nc", "metrics.json", "picture.png", "report.html"]
    with xr.open_dataset(folder / "field.nc") as again:
        assert again.x.values.tolist() == [0, 1, 2]
    with Image.open(folder / "picture.png") as picture:
        assert picture.size == (120, 240)
    (event,) = Board(tmp_path).multiplexer.Tensors(BOARD, "eval/picture")
    width, height, png, *_ = event.tensor_proto.string_val
    assert (width, height) == (b"120", b"240")
    assert png == (folder / "picture.png").read_bytes()


def save_at(storage, step, barrier):
    barrier.wait()
    save(storage, step)


def test_evaluations_that_end_at_the_same_moment_keep_each_others_points(tmp_path):
    context = get_context("fork")  # a process of its own takes seconds to import
    steps = (40, 10, 30, 20)
    barrier = context.Barrier(len(steps))
    processes = [context.Process(target=save_at, args=(tmp_path, step, barrier), daemon=True) for step in steps]
    for process in processes:
        process.start()
    for process in processes:
        process.join(120)
    assert [process.exitcode for process in processes] == [0] * len(steps)
    assert Board(tmp_path).curve(BOARD, "eval/recall") == curve(sorted(steps))
    assert len(list((tmp_path / BOARD).glob("events.*"))) == len(steps)


@pytest.fixture(scope="module")
def s3():
    with s3_server() as server:
        yield server


def test_an_evaluation_in_s3_is_the_same(s3, tmp_path):
    storage = place(f"{s3.address}/{tmp_path.name}-{os.urandom(4).hex()}")
    items, embeddings = digits()
    for step in (20, 10, 20):
        folder = save(
            storage,
            step,
            figure=True,
            embeddings=chosen_of(items, embeddings),
        )
        assert names(folder) == ["metrics.json", "picture.png", "report.html"]
    copied = tmp_path / BOARD
    copied.mkdir(parents=True)
    for name in (name for name in names(storage / BOARD) if "." in name):
        (copied / name).write_bytes((storage / BOARD / name).read_bytes())
    board = Board(tmp_path)
    assert board.curve(BOARD, "eval/recall") == curve([10, 20])
    assert board.ask(ProjectorPlugin, "/info", run=BOARD)["embeddings"][0]["tensorName"] == "step 20"


# the projector


def digits(num=6):
    """Images and labels, of which some are equal, and embeddings that are their numbers."""
    labels = torch.arange(num) % 3
    images = torch.zeros(num, 4, 5, dtype=torch.uint8)
    images[torch.arange(num), labels, labels] = 200
    images[:, 3, 4] = torch.arange(num, dtype=torch.uint8)
    embeddings = [torch.stack([torch.arange(num) + offset, labels], 1).double() for offset in (0, 100)]
    return (images, labels), tuple(embeddings)


def chosen_of(items, embeddings):
    return choose_embeddings(items, embeddings, 4, (images(items[0]), numbers(items[1])), labels=True)


def test_the_projector_finds_the_embeddings_of_the_last_evaluation(tmp_path):
    items, embeddings = digits()
    chosen = chosen_of(items, embeddings)
    save(tmp_path, 20, embeddings=chosen)
    board = Board(tmp_path)
    assert board.ask(ProjectorPlugin, "/runs") == [BOARD]
    (info,) = board.ask(ProjectorPlugin, "/info", run=BOARD)["embeddings"]
    assert info["tensorName"] == "step 20"
    assert info["tensorShape"] == [7, 2]
    assert info["sprite"]["singleImageDim"] == [5, 4]
    asked = {"run": BOARD, "name": info["tensorName"]}
    points = np.frombuffer(board.ask(ProjectorPlugin, "/tensor", **asked), np.float32).reshape(7, 2)
    np.testing.assert_array_equal(points, [[0, 0], [1, 1], [2, 2], [3, 0], [100, 0], [101, 1], [102, 2]])
    rows = [line.split("\t") for line in board.ask(ProjectorPlugin, "/metadata", **asked).decode().splitlines()]
    expected = [["u", f"{i}", f"{i % 3}"] for i in range(4)] + [["v", f"{i}", f"{i}"] for i in range(3)]
    assert rows == [["modality", "pair", "label"], *expected]
    (tmp_path / "sprite.png").write_bytes(board.ask(ProjectorPlugin, "/sprite_image", **asked))
    with Image.open(tmp_path / "sprite.png") as picture:
        sprite = np.asarray(picture)
    assert sprite.shape == (3 * 4, 3 * 5)
    first = 255 - 255 * (items[0][:4] / 200).numpy()  # three in the first row, one in the second
    for i in range(4):
        row, column = divmod(i, 3)
        np.testing.assert_allclose(sprite[4 * row : 4 * row + 4, 5 * column : 5 * column + 5], first[i], atol=1)

    save(tmp_path, 10, embeddings=Embeddings(torch.zeros(2, 2), [["modality", "pair"], ["u", "0"], ["v", "0"]]))
    (info,) = Board(tmp_path).ask(ProjectorPlugin, "/info", run=BOARD)["embeddings"]
    assert info["tensorName"] == "step 20", "an evaluation of an earlier step is not the last"

    save(tmp_path, 30, embeddings=Embeddings(torch.ones(2, 2), [["modality", "pair"], ["u", "0"], ["v", "0"]]))
    (info,) = board.ask(ProjectorPlugin, "/info", run=BOARD)["embeddings"]
    assert (info["tensorName"], info["tensorShape"], "sprite" in info) == ("step 30", [2, 2], False)


def test_embeddings_without_images_or_labels():
    u, v = torch.randn(5, 3), torch.randn(5, 7, 2)
    chosen = choose_embeddings((u, v), (u, v[:, :3, 0]), 2, (vectors(u), paths(v)))
    assert chosen.metadata == [["modality", "pair"], ["u", "0"], ["u", "1"], ["v", "0"], ["v", "1"]]
    assert chosen.images is None
    torch.testing.assert_close(chosen.points, torch.cat([u[:2], v[:2, :3, 0]]))
