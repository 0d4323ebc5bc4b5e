"""Exported models: opened elsewhere, without run, shards or this package, they give the same numbers and draws."""

import io
import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import pcl
from pcl.commands import export
from pcl.config.load import load_config, resolved_yaml
from pcl.encoders import make_encoder, registry
from pcl.encoders.program import program_of, random_items
from pcl.errors import BadInputError
from pcl.evaluation.record import save_evaluation
from pcl.evaluation.result import Evaluation
from pcl.library.exported import export_model
from pcl.plugins import loading
from pcl.train.checkpoint import checkpoint_content, save_checkpoint
from pcl.train.parts import full_experiment
from pcl.train.runs import claim
from pcl.train.session import Session

GAUSSIAN = Path(__file__).resolve().parents[2] / "configs" / "gaussian.yaml"
FILES = ["README.md", "encoder_u.pt2", "encoder_v.pt2", "model.json", "model.safetensors"]
ABOUT = {"record_s": 3600.0, "window_time_s": [0.0, 86400.0], "cell_degrees": [0.25, 0.25], "height": 16, "width": 16}


@pytest.fixture(scope="module")
def labelled():
    """A model of images and labels, and its items."""
    generator = np.random.default_rng(0)
    labels = np.repeat(np.arange(4), [70, 50, 30, 10]).astype(np.uint8)
    images = (60 * labels[:, None, None] + generator.integers(0, 30, (160, 8, 8))).astype(np.uint8)
    order = generator.permutation(160)
    images, labels = images[order], labels[order]
    kinds = {"form_u": "image", "form_v": "labels", "encoder_u": "convnet", "encoder_v": "one_hot"}
    small = {"settings_u": {"width": 4}, "embedding_dim": 4, "batch": 32, "epochs": 1}
    return pcl.fit(images, labels, **kinds, **small, show=False), images, labels


def in_a_process(code, folder, *arguments):
    """Run code in a new process elsewhere that knows of no storage, and return what it prints."""
    environment = {key: os.environ[key] for key in ("PATH", "HOME", "OMP_NUM_THREADS") if key in os.environ}
    found = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code, *map(str, arguments)],
        cwd=folder, env=environment, capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    assert found.returncode == 0, found.stderr
    return found.stdout


OPENED = """
import sys, numpy as np, torch, pcl
folder, items = sys.argv[1:]
model, found = pcl.load(folder), np.load(items)
u_given_v = model.conditional("u_given_v", found["u"])
features = model.features_v(torch.from_numpy(found["v"]))
draws = u_given_v.sample(features, 20, torch.Generator().manual_seed(7))
labels = model.conditional("v_given_u", range(4), model.log_prior("v")).weights(model.features_u(found["u"]))
np.savez(items.replace("items", "found"), draws=draws.numpy(), u=model.encode_u(found["u"]), labels=labels)
assert not any(name.startswith(("ray", "torch._dynamo")) for name in sys.modules)
"""
WITHOUT_PCL = """
import sys
sys.modules["pcl"] = None
import json, numpy as np, torch
from safetensors.numpy import load_file
folder, items = sys.argv[1:]
found = {name: torch.from_numpy(array) for name, array in np.load(items).items()}
encoders = {name: torch.export.load(f"{folder}/encoder_{name}.pt2").module() for name in "uv"}
about = json.load(open(f"{folder}/model.json"))
g, h = (encoders[name](found[name]) for name in "uv")
assert about["tilting"] == "inner_product" and about["u"]["dtype"] == "uint8"
np.save(items.replace("items.npz", "scores.npy"), (g @ h.T / about["temperature"]).numpy())
"""


@pytest.mark.process
def test_a_copy_opens_in_a_new_process_elsewhere_with_the_same_weights_and_draws(labelled, tmp_path):
    model, images, labels = labelled
    export_model(model, tmp_path / "first", say=print)
    assert sorted(path.name for path in (tmp_path / "first").iterdir()) == FILES
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    shutil.move(tmp_path / "first", elsewhere / "copy")
    np.savez(elsewhere / "items.npz", u=images, v=labels[:9])
    in_a_process(OPENED, elsewhere, "copy", "items.npz")
    found = np.load(elsewhere / "found.npz")
    features = model.features_v(torch.from_numpy(labels[:9]))
    wanted = model.conditional("u_given_v", images).sample(features, 20, torch.Generator().manual_seed(7))
    np.testing.assert_array_equal(found["draws"], wanted)
    np.testing.assert_array_equal(found["u"], model.encode_u(images))
    # by hand: softmax of the scores and the log frequencies among the training pairs
    counts = np.array(model.about.v.counts)
    scores = model.log_tilting(images, np.arange(4, dtype=np.uint8)).astype(np.float64) + np.log(counts / counts.sum())
    weights = np.exp(scores - scores.max(1, keepdims=True))
    np.testing.assert_allclose(found["labels"], weights / weights.sum(1, keepdims=True), rtol=1e-4, atol=1e-6)
    in_a_process(WITHOUT_PCL, elsewhere, "copy", "items.npz")
    np.testing.assert_allclose(
        np.load(elsewhere / "scores.npy"), model.log_tilting(images, labels[:9]), rtol=1e-5, atol=1e-6
    )


def test_the_frequencies_are_those_of_the_training_pairs(labelled):
    model, _, labels = labelled
    counts = np.array(model.about.v.counts)
    assert counts.sum() == 144
    assert (counts <= np.bincount(labels)).all()
    assert (model.about.u.form, model.about.v.form, model.about.u.counts) == ("image", "labels", [])


ENCODERS = {
    "linear": ({"kind": "linear", "shape": [2, 3], "mean": [[1.0, 2, 3]] * 2, "std": 4.0}, "float32"),
    "labels": ({"kind": "one_hot", "shape": [], "dtype": "uint8"}, "uint8"),
    "mlp with potential": ({"kind": "mlp", "shape": [5], "widths": [8], "potential": "learned"}, "float32"),
    "tokens": (
        {"kind": "text", "shape": [9], "dtype": "uint16", "architecture": "transformer", "vocabulary": 70, "width": 8},
        "uint16",
    ),
    "field with missing values": ({"kind": "field", "shape": [2, 3, 16, 16], "width": 4, "depth": 1}, "float32"),
    "drifters": ({"kind": "drifter_set", "shape": [3, 7, 4], "width": 4, "depth": 1, "drifters": ABOUT}, "float32"),
}


@pytest.mark.parametrize("kind", ENCODERS)
def test_programs_of_encoders_give_their_embeddings_for_batches_of_any_size(kind):
    spec, dtype = ENCODERS[kind]
    encoder = make_encoder(embedding_dim=8, **spec).eval().requires_grad_(False)
    program = program_of(encoder, encoder.items)
    assert program.dtype == dtype
    module = torch.export.load(io.BytesIO(program.content)).module()
    for number in (1, 3, 7, 40):
        items = random_items(encoder, encoder.items, number, torch.Generator().manual_seed(number))
        assert encoder.items.checked("items", items) is not None
        wanted = encoder(items)
        assert wanted.isfinite().all()
        torch.testing.assert_close(module(items), wanted, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_random_items_are_standard_once_they_are_standardised(dtype):
    encoder = make_encoder("linear", (3,), 2, dtype=dtype, scale_factor=0.1, mean=[5.0, -70, 0.5], std=[2.0, 0.1, 30])
    items = random_items(encoder, encoder.items, 4000, torch.Generator().manual_seed(0))
    assert items.dtype == getattr(torch, dtype)
    assert (encoder[0](items).mean(0).abs() < 0.1).all()
    torch.testing.assert_close(encoder[0](items).std(0), torch.ones(3), rtol=0, atol=0.05)


# runs


@pytest.fixture(scope="module")
def shards(make_shards):
    root, _ = make_shards(num_train=400, num_test=40, num_shards=8, record_pairs=25)
    return root


@pytest.fixture
def config(shards, tmp_path):
    """A run with two checkpoints, made without Ray."""
    sizes = ("num_train=400", "num_test=40", "num_modes=20")
    data = (f"data.shards={shards}", "data.num_shards=8", "data.record_pairs=25", f"storage={tmp_path / 'runs'}")
    settings = ("train.global_batch=40", "train.epochs=1", "name=mine")
    found = load_config(GAUSSIAN, (*data, *(f"data.gaussian_process.{one}" for one in sizes), *settings))
    run = tmp_path / "runs" / "mine"
    claim(run, full_experiment(found), resolved_yaml(found))
    session = Session(found, torch.device("cpu"))
    for step in (0, 10):
        if step:
            session.train(lambda step, scalars: None, lambda state, scalars: None)
        content = checkpoint_content(session.state, session.spec, session.experiment_hash)
        save_checkpoint(run / f"checkpoint_{step:08d}", content)
    return found


def exported(config, **keys):
    export.main(replace(config, export=replace(config.export, **keys)))


def test_a_run_is_exported_with_what_it_is_of(config, tmp_path, capsys):
    run = tmp_path / "runs" / "mine"
    save_evaluation(Evaluation({"recall": 0.25}), run, "checkpoint_00000000", {"step": 0, "split": "test"})
    save_evaluation(Evaluation({"recall": 0.75}), run, "checkpoint_00000010", {"step": 10, "split": "test"})
    exported(config, to=str(tmp_path / "out"))
    model, about = pcl.load(tmp_path / "out"), json.loads((tmp_path / "out" / "model.json").read_text())
    for name, value in pcl.load(run).state_dict().items():
        assert torch.equal(model.state_dict()[name], value)
    provenance = json.loads((run / "provenance.json").read_text())
    assert about["provenance"]["manifest_sha256"] == provenance["experiment"]["manifest_sha256"]
    assert about["provenance"]["checkpoint"] == "checkpoint_00000010"
    assert about["u"]["form"] == "numbers"
    assert about["programs"]["u"]["largest_difference"] == 0.0
    card = (tmp_path / "out" / "README.md").read_text()
    assert "| `recall` | 0.75 |" in card
    assert "0.25" not in card
    lines = capsys.readouterr().out.splitlines()
    assert lines[-2:] == [f"exported: {tmp_path / 'out'}", f"load it: pcl.load({str(tmp_path / 'out')!r})"]
    exported(config, checkpoint="0")
    assert (run / "exported" / "checkpoint_00000000" / "model.json").is_file()


def test_the_card_knows_an_evaluation_of_a_part_of_the_pairs(config, tmp_path):
    run, of = tmp_path / "runs" / "mine", {"step": 10, "split": "test", "max_pairs": 2000}
    found = Evaluation({"recall": 0.5, "num_pairs": 2000.0})
    save_evaluation(found, run, "checkpoint_00000010", of, "test_first")
    save_evaluation(Evaluation({"recall": 0.25}), run, "checkpoint_00000000", {"step": 0, "split": "test"})
    exported(config, to=str(tmp_path / "out"))
    card = (tmp_path / "out" / "README.md").read_text()
    assert "The evaluation of the exported checkpoint, on 2,000 pairs of its test split." in card
    assert "| `recall` | 0.5 |" in card


def test_without_the_shards_it_says_what_is_left_out(config, tmp_path, capsys):
    exported(replace(config, data=replace(config.data, shards=str(tmp_path / "gone"))), to=str(tmp_path / "out"))
    assert "forms and frequencies of labels are left out" in capsys.readouterr().out
    assert pcl.load(tmp_path / "out").about.u.form == ""


def test_what_an_export_left_that_was_cut_off_is_written_again(config, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "encoder_u.pt2").write_bytes(b"half")
    exported(config, to=str(tmp_path / "out"))
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == FILES
    with pytest.raises(BadInputError, match=r"out holds README\.md: .* empty or not there"):
        exported(config, to=str(tmp_path / "out"))


def test_mistakes_end_in_one_line_and_write_nothing(config, tmp_path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.tex").write_text("do not touch")
    (tmp_path / "file").write_text("do not touch")
    for keys, said in (
        ({"to": str(tmp_path / "full")}, r"full holds thesis\.tex: an export needs a folder that is empty"),
        ({"to": str(tmp_path / "file")}, "file is a file: an export needs a folder"),
        ({"to": str(tmp_path / "out"), "checkpoint": "7"}, r"export\.checkpoint=7: .* holds checkpoint_00000000, "),
    ):
        with pytest.raises(BadInputError, match=said):
            exported(config, **keys)
    with pytest.raises(BadInputError, match=r"nothing holds no checkpoint: train first"):
        exported(replace(config, name="nothing"))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "full", "runs"]
    assert [path.name for path in (tmp_path / "full").iterdir()] == ["thesis.tex"]


PLUGIN = """
import torch, pcl

@pcl.encoder("rounds")
class Rounds(torch.nn.Module):
    def __init__(self, shape, embedding_dim, *, most: int = 3):
        super().__init__()
        self.map, self.most = torch.nn.Linear(shape[0], embedding_dim), most

    def forward(self, x):
        y = self.map(x)
        for _ in range(min(self.most, int(y.abs().max().item()))):
            y = y / 2
        return y
"""


@pytest.fixture
def plugin(tmp_path):
    (tmp_path / "mine.py").write_text(PLUGIN)
    return tmp_path / "mine.py"


def test_an_encoder_that_cannot_be_exported_is_left_out_and_the_plugin_is_named(plugin, tmp_path):
    u = np.random.default_rng(0).normal(size=(320, 3)).astype(np.float32)
    given = {"encoder_u": "rounds", "settings_v": {"widths": [8]}, "plugins": [plugin], "epochs": 1, "batch": 32}
    model, lines = pcl.fit(u, u[:, :2], **given, show=False), []
    assert list(model.about.plugins) == ["mine"]
    export_model(model, tmp_path / "out", say=lines.append)
    assert lines[0].startswith("encoder_u.pt2 is left out: torch.export cannot export it (")
    assert all("\n" not in line and len(line) < 300 for line in lines)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [name for name in FILES if "_u" not in name]
    card = (tmp_path / "out" / "README.md").read_text()
    assert "**It needs the plugin `mine.py`**" in card
    assert "pcl.load(\"this/folder\", plugins=['mine.py'])" in card
    registry.ENCODERS.pop("rounds")
    loading._LOADED.clear()
    with pytest.raises(BadInputError, match=r"'rounds' is not known.*plugins=\['mine\.py'\]"):
        pcl.load(tmp_path / "out")
    again = pcl.load(tmp_path / "out", plugins=[plugin])
    np.testing.assert_array_equal(again.encode_u(u), model.encode_u(u))
    plugin.write_text(PLUGIN.replace("y / 2", "y / 3"))
    with pytest.warns(UserWarning, match="the plugin mine is not what"):
        pcl.load(tmp_path / "out", plugins=[plugin])
