"""Plugins: what a file registers works everywhere, and no name in a stored file leads to one."""

import os
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import pcl
from pcl.config.identity import data_identity, experiment
from pcl.config.load import load_config, resolved_yaml
from pcl.data.shards import build_all
from pcl.data.source import SourceContext
from pcl.encoders.registry import ENCODERS
from pcl.errors import BadInputError
from pcl.objective import make_loss
from pcl.plugins.loading import Plugin, load_plugins, loaded, run_plugins
from pcl.problems.problem import PROBLEMS
from pcl.storage.place import place
from pcl.train.checkpoint import checkpoint_content, save_checkpoint
from pcl.train.parts import make_source
from pcl.train.session import Session
from pcl.workers import OneWorker
from tests.registries import plugin_modules

MINE = Path(__file__).with_name("mine.py")
RUN = """
name: spiral
plugins: [mine.py]
data:
  source: spiral
  shards: {folder}/shards
  num_shards: 8
  spiral: {{num_pairs: 320}}
model:
  embedding_dim: 4
  encoder_u: wide
  settings_u: {{width: 8}}
  encoder_v: wide
train:
  epochs: 2
  global_batch: 32
  learning_rate: 0.01
"""


@pytest.fixture
def run_file(tmp_path):
    shutil.copy(MINE, tmp_path / "mine.py")
    (tmp_path / "run.yaml").write_text(RUN.format(folder=tmp_path))
    return tmp_path / "run.yaml"


def written(folder, text, name="mine.py"):
    path = folder / name
    path.write_text(text)
    return path


def line_of(paths):
    with pytest.raises(BadInputError) as caught:
        load_plugins(paths)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def built(run_file, *overrides):
    config = load_config(run_file, [f"storage={run_file.parent}/runs", *overrides])
    source = make_source(config)
    build_all(Path(config.data.shards), source, data_identity(config), 8, config.data.record_pairs)
    return config


def test_a_run_file_names_an_encoder_its_settings_and_pairs_of_a_plugin(run_file):
    config = built(run_file, "model.settings_v.width=5", "model.settings_v.scale=2")
    assert config.model.settings_u == {"width": 8, "scale": 1.0}
    assert config.model.settings_v == {"width": 5, "scale": 2.0}
    session = Session(config, torch.device("cpu"))
    shapes = [tuple(p.shape) for p in session.state.model.encoder_v.parameters()]
    assert shapes == [(5, 2), (5,), (4, 5), (4,)]
    before = [p.detach().clone() for p in session.state.model.parameters()]
    session.train(lambda step, scalars: None, lambda state, scalars: None)
    assert session.state.step == 2 * (288 // 32)
    assert any(not torch.equal(a, b) for a, b in zip(before, session.state.model.parameters(), strict=True))


def test_a_loss_of_a_plugin_is_the_one_that_it_computes(run_file):
    config = load_config(run_file, ["loss.kind=margin", "loss.settings.by=0.25"])
    assert config.loss.settings == {"by": 0.25}
    u, v = torch.randn(5, 3, dtype=torch.float64), torch.randn(5, 3, dtype=torch.float64)
    value, diagnostics = make_loss("margin", settings=config.loss.settings)(u, v, 2.0, workers=OneWorker(), values=None)
    by_hand = np.mean([[max(0, 0.25 + (u[i] @ v[j] - u[i] @ v[i]).item() / 2) for j in range(5)] for i in range(5)])
    assert value.item() == pytest.approx(by_hand, abs=1e-12)
    assert diagnostics["loss"].item() == value.item()


def test_the_plugin_is_part_of_the_experiment_and_of_the_shards_that_it_makes(run_file):
    config = load_config(run_file)
    one, shards = experiment(config), data_identity(config)
    assert one["plugins.mine"] == shards["plugin"] == loaded(config.plugins)[0].sha256
    run_file.with_name("mine.py").write_text(MINE.read_text() + "\n# a thought\n")
    again = load_config(run_file)
    assert experiment(again)["plugins.mine"] != one["plugins.mine"]
    assert data_identity(again)["plugin"] != shards["plugin"]
    assert "plugin" not in data_identity(load_config(run_file, ["data.source=gaussian_process"]))


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (
            ["model.settings_u.widht=3"],
            "model.settings_u.widht: model.encoder_u=wide has no such setting: it has width",
        ),
        (["model.settings_u.width=many"], "model.settings_u.width=many: it must be an integer"),
        (["model.settings_u=3"], "model.settings_u=3: it must be a mapping"),
        (["model.encoder_u=linear", "model.settings_u.width=3"], "model.encoder_u=linear has no settings here"),
        (["model.encoder_u=narrow"], "model.encoder_u=narrow: choose one of"),
        (["loss.settings.by=1"], "loss.kind=conditional has no settings here"),
        (["plugins=[other.py]"], "other.py does not exist"),
        (["plugins=[run.yaml]"], "is no Python file"),
        (["plugins=[]"], "data.spiral"),
        (["plugins=[]"], "of your own need the file that registers it, plugins=[that_plugin.py]"),
    ],
)
def test_what_does_not_fit_is_told_in_a_line(run_file, overrides, said, monkeypatch):
    monkeypatch.chdir(run_file.parent)
    with pytest.raises(BadInputError) as caught:
        load_config(run_file, overrides)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_settings_of_another_encoder_are_not_inherited(run_file):
    assert load_config(run_file, ["model.encoder_u=linear"]).model.settings_u == {}
    assert load_config(run_file, ["model.encoder_u=wide"]).model.settings_u["width"] == 8
    config = load_config(run_file, ["model.settings_u={width: 3, scale: 0.5}"])
    assert config.model.settings_u == {"width": 3, "scale": 0.5}


def test_a_resolved_configuration_is_one_again(run_file, tmp_path):
    config = load_config(run_file, ["model.settings_v.scale=0.1"])
    copy = tmp_path / "copy.yaml"
    copy.write_text(resolved_yaml(config))
    assert load_config(copy) == config


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("x = (", "mine.py, line 1: SyntaxError"),
        ("import nothing_of_this_name", "line 1: ModuleNotFoundError: No module named 'nothing_of_this_name'"),
        ("\n\n1 / 0", "line 3: ZeroDivisionError: division by zero"),
        ("import pcl\n@pcl.encoder('linear')\nclass A:\n  def __init__(self, shape, embedding_dim): ...", "two kinds"),
        (
            "import pcl\n@pcl.encoder('a')\nclass A:\n  def __init__(self, shape, embedding_dim, w): ...",
            "argument w of",
        ),
        ("import pcl\n@pcl.encoder('a')\nclass A:\n  def __init__(self, s, e, mean: float = 0.): ...", "rename it"),
        ("import pcl\n@pcl.loss('joint')\ndef f(u, v, tau, *, workers): ...", "two kinds of losses are named 'joint'"),
        ("import pcl\n@pcl.problem('mnist')\ndef f(): ...", "two kinds of pairs are named 'mnist'"),
    ],
)
def test_a_plugin_that_cannot_be_run_is_told_in_a_line_with_its_line(tmp_path, text, said):
    assert said in line_of([written(tmp_path, text)])
    assert not plugin_modules()


def test_files_that_are_no_plugins(tmp_path):
    assert "does not exist" in line_of([tmp_path / "absent.py"])
    assert "is no Python file" in line_of([written(tmp_path, "", "mine.txt")])
    (tmp_path / "binary.py").write_bytes(b"\xff\xfe\x00")
    assert "it is not UTF-8" in line_of([tmp_path / "binary.py"])
    (tmp_path / "other").mkdir()
    assert "two plugins are named mine" in line_of([written(tmp_path, ""), written(tmp_path / "other", "", "mine.py")])


def test_a_plugin_is_run_once_and_again_when_it_has_changed(tmp_path):
    path = written(tmp_path, MINE.read_text())
    load_plugins([path])
    first = ENCODERS["wide"].build
    load_plugins([path])
    assert ENCODERS["wide"].build is first
    path.write_text(MINE.read_text().replace("width: int = 16", "width: int = 17"))
    load_plugins([path])
    assert ENCODERS["wide"].settings().width == 17


def test_a_cell_of_a_notebook_may_be_run_again_but_names_stay_whose_they_are():
    def cell():
        @pcl.encoder("cell")
        class Cell(nn.Module):
            def __init__(self, shape, embedding_dim, depth: int = 1): ...

    cell()
    cell()

    with pytest.raises(BadInputError, match="two kinds of encoders are named 'cell'"):

        @pcl.encoder("cell")
        class Other(nn.Module):
            def __init__(self, shape, embedding_dim): ...


def test_a_plugin_reaches_a_process_that_does_not_see_its_file():
    run_plugins([Plugin("/nowhere/mine.py", MINE.read_text())])
    source = PROBLEMS["spiral"].source(PROBLEMS["spiral"].settings(), SourceContext(seed=1))
    assert source.num_pairs("train") + source.num_pairs("test") == 400


def saved(run_file, folder):
    config = built(run_file)
    session = Session(config, torch.device("cpu"))
    session.train(lambda step, scalars: None, lambda state, scalars: None)
    save_checkpoint(place(str(folder)), checkpoint_content(session.state, session.spec, session.experiment_hash))
    return session


def test_a_model_is_loaded_with_the_plugins_that_the_caller_names(run_file, tmp_path):
    session = saved(run_file, tmp_path / "model")
    items = torch.randn(3, 2)
    wanted = session.state.model.eval().encode_u(items)
    for registry in (ENCODERS, PROBLEMS):
        registry.pop("wide", None), registry.pop("spiral", None)
    with pytest.raises(BadInputError) as caught:
        pcl.load(tmp_path / "model")
    assert "the encoder 'wide' is not known" in str(caught.value)
    assert "plugins=[file]" in str(caught.value)
    assert "delete" not in str(caught.value)
    from pcl.plugins import loading

    loading._LOADED.clear()
    model = pcl.load(tmp_path / "model", plugins=[run_file.with_name("mine.py")])
    torch.testing.assert_close(model.encode_u(items), wanted, rtol=0, atol=0)
    model.save(tmp_path / "kept")
    torch.testing.assert_close(pcl.load(tmp_path / "kept").encode_u(items), wanted, rtol=0, atol=0)
    with pytest.raises(BadInputError, match="holds a model already"):
        model.save(tmp_path / "kept")


@pytest.mark.parametrize("kind", ["os.system", "os", "tests.plugins.mine", "mine.py", "/etc/passwd", "pcl.plugins"])
def test_a_hostile_checkpoint_imports_nothing(run_file, tmp_path, kind, monkeypatch):
    session = saved(run_file, tmp_path / "model")
    spec = dict(session.spec) | {"encoder_u": session.spec["encoder_u"] | {"kind": kind, "width": "echo hacked"}}
    save_checkpoint(place(str(tmp_path / "hostile")), checkpoint_content(session.state, spec, "x"))
    pcl.load(tmp_path / "model")  # imports what loading takes
    before = set(sys.modules)
    monkeypatch.setattr(os, "system", lambda *a: pytest.fail("it was called"))
    with pytest.raises(BadInputError, match="is not known"):
        pcl.load(tmp_path / "hostile")
    assert set(sys.modules) == before


def test_the_plugins_of_a_stored_run_file_are_not_run(run_file, tmp_path, monkeypatch):
    marker = tmp_path / "was_run"
    folder = tmp_path / "runs" / "spiral"
    folder.mkdir(parents=True)
    config = load_config(run_file, [f"storage={tmp_path}/runs"])
    written(tmp_path, f"open({str(marker)!r}, 'w')", "evil.py")
    stored = resolved_yaml(config).replace("mine.py", "evil.py")
    assert "evil.py" in stored
    (folder / "config.yaml").write_text(stored)
    (folder / "provenance.json").write_text("{}")
    for path in (folder, folder / "config.yaml"):
        loaded_config = load_config(path, [f"plugins=[{run_file.with_name('mine.py')}]"])
        assert loaded_config.model.encoder_u == "wide"
        with pytest.raises(BadInputError):
            pcl.load(path)
    assert not marker.exists()
