"""The page on one's own pairs: every block of it runs, in this process, on small data."""

import builtins
import re
import shlex
from contextlib import redirect_stderr, redirect_stdout
from functools import partial
from io import StringIO
from pathlib import Path
from textwrap import dedent

import numpy as np
import pytest
import torch

import pcl
from pcl.commands.ending import finish
from pcl.commands.main import _choose
from pcl.config.identity import data_identity
from pcl.config.load import load_config, resolved_yaml
from pcl.data.shards import build_all
from pcl.encoders.registry import ENCODERS
from pcl.plugins import loading
from pcl.problems.problem import PROBLEMS
from pcl.storage.place import place
from pcl.train import runs
from pcl.train.checkpoint import checkpoint_content, checkpoint_name, save_checkpoint
from pcl.train.parts import full_experiment, make_source, prepare
from pcl.train.session import Session
from tests.docs.page import PAGE, ROOT, Block, blocks, let_timm_be_imported, write_data

QUICK = ("train.epochs=1", "train.global_batch=64", "evaluation.num_examples=1")
HOME = "/home/me"


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Give a folder with the data of the page, in which commands are typed."""
    write_data(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(runs, "_git", lambda *_: "")
    return tmp_path


def typed(line):
    """Return the exit code of a command and what it prints, both streams in one."""
    output = StringIO()
    with redirect_stdout(output), redirect_stderr(output):
        try:
            finish(partial(_choose, "pcl", shlex.split(line, comments=True)[1:]))
        except SystemExit as end:
            return end.code, output.getvalue()
    return 0, output.getvalue()


def write_shards(arguments):
    """Write shards as the job does, without Ray."""
    config = load_config(*arguments)
    data = config.data
    build_all(Path(data.shards), make_source(config), data_identity(config), data.num_shards, data.record_pairs)


def train(arguments):
    """Train as the job does, without Ray; one epoch of small batches."""
    path, overrides = arguments
    config = load_config(path, [*overrides, *QUICK])
    _, loader = prepare(config, 1)
    run = place(config.storage) / config.name
    runs.claim(run, full_experiment(config), resolved_yaml(config))
    session = Session(config, torch.device("cpu"))
    session.train(lambda step, scalars: None, lambda state, scalars: None)
    content = checkpoint_content(session.state, session.spec, session.experiment_hash)
    save_checkpoint(run / checkpoint_name(loader.steps_per_epoch), content)


IN_PROCESS = {"shards": write_shards, "train": train}


def run_line(line):
    """Run a line of a shell; scripts of docs/examples have tests of their own."""
    program, *words = shlex.split(line, comments=True)
    if program != "pcl":
        script = next(word for word in words if word.endswith(".py"))
        assert program in ("python", "torchrun")
        assert (ROOT / script).is_file()
    elif words[0] in IN_PROCESS and "--dry-run" not in words:
        IN_PROCESS[words[0]]((words[1], words[2:]))
    else:
        code, output = typed(line)
        assert code == 0, output


def run_block(block, folder, space):
    if block.file:
        (folder / block.file).write_text(block.text)
        if block.language == "yaml":
            load_config(block.file)
    elif block.language == "python":
        exec(compile(block.text, f"own_pairs.md:{block.line}", "exec"), space)
    elif block.language == "sh":
        for line in block.text.splitlines():
            run_line(line)
    elif block.language == "console":
        see_mistakes(block.text, folder)
    else:
        assert block.language == "text"


def see_mistakes(text, folder):
    """Compare what commands say with what the page says that they do."""
    loading._LOADED.clear()
    PROBLEMS.pop("spirals")  # a process in which no plugin was named
    shown = re.findall(r"^\$ (.*)\n((?:(?!\$ ).*\n)+)", text, re.M)
    assert len(shown) == text.count("$ ")
    for line, said in shown:
        quick = " ".join(QUICK) if line.startswith("pcl train") else ""  # as the run was trained
        code, output = typed(f"{line} {quick}")
        assert code == 2, line
        assert output.replace(str(folder), HOME) == said


@pytest.mark.long
def test_every_block_of_the_page_runs(folder):
    let_timm_be_imported()
    space = {"__name__": "page"}
    for block in blocks(PAGE):
        try:
            run_block(block, folder, space)
        except BaseException as error:
            error.add_note(f"docs/own_pairs.md, the block at line {block.line}")
            raise
    assert space["mean"].shape == (5, 20)
    assert space["draws"].shape == (5, 100, 20)
    assert isinstance(space["mean"], type(space["u"]))
    assert space["tower_u"].weight.grad is not None


@pytest.mark.long
def test_the_run_file_of_labels_is_that_of_a_whole_run(folder):
    (block,) = (one for one in blocks(PAGE) if one.file == "labels.yaml")
    run_block(block, folder, {})
    for line in ("pcl shards labels.yaml", "pcl train labels.yaml"):
        run_line(line)
    code, output = typed("pcl evaluate runs/labels")
    assert code == 0, output
    assert "calibration error" in output


def test_the_plugin_of_timm_fetches_weights_where_a_model_is_made_and_not_where_a_file_is_checked(folder, monkeypatch):
    let_timm_be_imported()
    import timm

    asked = []
    make = timm.create_model

    def without_weights(model, pretrained, **settings):
        asked.append(pretrained)
        return make("test_convnext", pretrained=False, **settings)

    monkeypatch.setattr(timm, "create_model", without_weights)
    (block,) = (one for one in blocks(PAGE) if one.file == "backbone.py")
    run_block(block, folder, {})
    loading.load_plugins(["backbone.py"])
    network = ENCODERS["timm"].build((3, 64, 64), 8)
    assert network(torch.zeros(2, 3, 64, 64)).shape == (2, 8)
    with torch.device("meta"):
        ENCODERS["timm"].build((64, 64), 8, pretrained=True)
    assert asked == [True, False]


def python_of_the_readme():
    """Return the blocks of Python of the README, which are indented, by their first lines."""
    found = re.findall(r"(?:^ {4}.*\n)+", (ROOT / "README.md").read_text(), re.M)
    return [dedent(block) for block in found if block.lstrip().startswith(("import ", "from "))]


def test_python_of_the_readme_runs(folder, mnist_root):
    (folder / "data").mkdir()
    (folder / "data" / "mnist").symlink_to(mnist_root)
    images, labels = np.random.default_rng(0).integers(0, 256, (200, 28, 28), np.uint8), np.arange(200) % 10
    chosen = {"encoder_u": "lenet", "encoder_v": "one_hot", "form_v": "labels", "embedding_dim": 10}
    pcl.fit(images, labels, epochs=1, show=False, **chosen).save("runs/mnist")
    eye = torch.eye(3)
    features = {f"features_{name}": torch.randn(8, 4, requires_grad=True) for name in "uv"}
    space = {"pcl": pcl, "c_uu": eye, "c_uv": eye / 2, "c_vv": eye, "temperature": 1.0, **features}
    texts = python_of_the_readme()
    assert len(texts) == 4
    for text in texts:
        exec(compile(text, "README.md", "exec"), space)
    assert space["images"].shape == (10_000, 28, 28)
    assert space["features_u"].grad is not None


def test_blocks_are_of_languages_that_are_run_and_files_have_one_name():
    found = blocks(PAGE)
    assert {block.language for block in found} == {"python", "yaml", "sh", "console", "text"}
    assert PAGE.count("\n```") == 2 * len(found)
    files = [block.file for block in found if block.file]
    assert len(files) == len(set(files))


def test_a_block_that_fails_is_noticed(folder):
    for text, language in (("raise RuntimeError", "python"), ("pcl evaluate nothing.yaml", "sh")):
        with pytest.raises((RuntimeError, AssertionError)):
            run_block(Block(language, text, 1), folder, {"__builtins__": builtins})
