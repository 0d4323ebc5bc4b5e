"""Arrays as a run file and a command line name them: their places, their mistakes, what a build will take."""

from pathlib import Path

import numpy as np
import pytest

from pcl.commands.shards import main
from pcl.config.identity import data_identity
from pcl.config.load import load_config
from pcl.errors import BadInputError

RUN = """
name: mine
data: {source: arrays, shards: shards, num_shards: 2}
model: {embedding_dim: 2, encoder_u: linear, encoder_v: linear}
train: {epochs: 1, global_batch: 8, learning_rate: 0.1}
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder in which the command is given."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.yaml").write_text(RUN)
    np.savez(tmp_path / "p.npz", u=np.arange(120.0).reshape(40, 3), v=np.full(40, 2.0))
    return tmp_path


def configured(*overrides: str):
    return load_config("mine.yaml", ["data.arrays.u=p.npz:u", "data.arrays.v=p.npz:v", *overrides])


def test_an_array_of_a_file_is_found_from_anywhere(folder):
    settings = configured("data.arrays.groups=t.csv:a b,*").data.sections["arrays"]
    assert settings.u == f"{folder.resolve()}/p.npz:u"
    assert settings.groups == f"{folder.resolve()}/t.csv:a b,*"
    assert settings.given is None


def test_where_files_lie_is_no_part_of_the_identity(folder):
    (folder / "p.npz").rename(folder / "q.npz")
    moved = configured("data.arrays.u=q.npz:u", "data.arrays.v=q.npz:v")
    assert data_identity(configured()) == data_identity(moved)
    assert data_identity(configured("data.arrays.form_u=text")) != data_identity(moved)


def test_a_dry_run_says_what_a_build_takes_and_what_never_varies(folder, capsys):
    main(configured("build.dry_run=true"))
    printed = capsys.readouterr().out
    assert "train: 36 pairs in 2 shards" in printed
    assert "v never varies in the training split: left unscaled" in printed
    assert not (folder / "shards").exists()


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("data.arrays.u=gone.npz:u", "gone.npz does not exist"),
        ("data.arrays.u=p.npz:w", "has no array w: the nearest is"),
        ("data.arrays.u=null", "data.arrays: u is not given"),
        ("data.arrays.split=group", "split=group needs groups"),
        ("data.arrays.form_v=labels", "labels are integers"),
        ("data.arrays.form_v=label", "data.arrays.form_v=label: choose one of numbers, image, labels, text"),
        ("data.arrays.u=ftp://host/u.npy", "give a folder that every node sees, or s3://bucket/prefix"),
        ("data.num_shards=30", "fewer than data.num_shards=30"),
    ],
)
def test_a_mistake_is_a_line_and_nothing_is_written(folder, override, message):
    before = sorted(folder.rglob("*"))
    with pytest.raises(BadInputError) as caught:
        main(configured(override))
    assert message in str(caught.value)
    assert str(caught.value).isprintable()
    assert sorted(folder.rglob("*")) == before
