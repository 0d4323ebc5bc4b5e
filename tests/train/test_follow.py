"""What people see of a training: lines on how far it is, whatever lies in the file that says so."""

import json
import threading

import pytest

from pcl.train.follow import follow


def shown(path, capsys, heard=()):
    """Follow for one look, without a terminal; return the lines."""
    over = threading.Event()
    over.set()
    follow(path, 200, over, lambda: list(heard))
    return capsys.readouterr().out.splitlines()


def test_the_step_is_shown_with_its_loss_and_speed(tmp_path, capsys):
    path = tmp_path / "progress.json"
    assert shown(path, capsys) == []
    path.write_text(json.dumps({"num_steps": 200, "step": 100}))
    assert shown(path, capsys) == []
    path.write_text(json.dumps({"num_steps": 200, "step": 100, "loss": -1.25, "pairs_per_second": 12_345.6, "x": [1]}))
    assert shown(path, capsys) == ["step 100 of 200: loss -1.2500, 12,346 pairs/s"]


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b"\xff",
        b"[" * 100_000,
        b'{"loss": 1.0}',
        b'{"step": "x", "loss": 1.0}',
        b'{"step": -5, "loss": 1.0}',
        b'{"step": 1e30, "loss": 1.0}',
        b'{"step": 3, "loss": "1"}',
        b'{"step": 3, "loss": NaN}',
        b'{"step": 3, "loss": 1.0, "pairs_per_second": null}',
        b'{"step": ' + b"9" * 5000 + b"}",
    ],
    ids=lambda content: content[:30].decode("latin-1"),
)
def test_a_damaged_file_shows_nothing_and_ends_nothing(tmp_path, capsys, content):
    path = tmp_path / "progress.json"
    path.write_bytes(content)
    assert shown(path, capsys) == []


def test_a_folder_in_the_place_of_the_file_ends_nothing(tmp_path, capsys):
    (tmp_path / "progress.json").mkdir()
    assert shown(tmp_path / "progress.json", capsys) == []


def test_lines_of_workers_are_shown_without_their_escape_sequences(tmp_path, capsys):
    lines = shown(tmp_path / "progress.json", capsys, ["worker 1 died", "\x1b]0;title\x07bäse"])
    assert lines == ["worker 1 died", "\\x1b]0;title\\x07bäse"]
