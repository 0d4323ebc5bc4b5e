"""pcl draw on small runs: what it writes against the same draws in Python, what may be given, and what it refuses."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import pcl
from pcl.commands import draw
from pcl.config.identity import data_identity, experiment_hash
from pcl.config.load import load_config, resolved_yaml
from pcl.data.manifest import load_manifest, manifest_sha256
from pcl.data.shards import build_all
from pcl.encoders.build import build_model
from pcl.errors import BadInputError
from pcl.evaluation.splits import read_arrays
from pcl.storage.place import place
from pcl.train.checkpoint import checkpoint_name, content_of, save_checkpoint
from pcl.train.parts import full_experiment, load_shards, make_source, model_spec
from pcl.train.runs import claim

pytestmark = pytest.mark.long

N, K = 200, 3
RUN = """
name: {name}
storage: {folder}/runs
data:
  source: arrays
  shards: {folder}/shards_{name}
  num_shards: 4
  record_pairs: 17
  arrays: {{u: {folder}/{u}.npy, v: {folder}/{v}.npy, form_u: {form_u}, form_v: {form_v}, test_fraction: 0.25}}
model: {{embedding_dim: 3, encoder_u: {encoder_u}, encoder_v: {encoder_v}}}
train: {{epochs: 1, global_batch: 8, learning_rate: 0.02, num_lanes: 2}}
"""
WORDS = ["red", "green", "a very long blue text", "größer"]


def made(folder, name, **kinds):
    """Make a run of first weights, a checkpoint for each of two seeds, and return its folder."""
    (folder / f"{name}.yaml").write_text(RUN.format(folder=folder, name=name, **kinds))
    config = load_config(folder / f"{name}.yaml")
    build_all(Path(config.data.shards), make_source(config), data_identity(config), 4, config.data.record_pairs)
    spec = model_spec(config, load_shards(config))
    run = place(config.storage) / config.name
    claim(run, full_experiment(config), resolved_yaml(config))
    for step in (1, 2):
        model, nothing = build_model(spec, step), {"state": {}, "param_groups": []}
        save_checkpoint(run / checkpoint_name(step), content_of(model, nothing, step, spec, ""))
    return run


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder, generator = tmp_path_factory.mktemp("draw"), np.random.default_rng(0)
    np.save(folder / "numbers.npy", 3 * generator.normal(size=(N, 4)))
    np.save(folder / "labels.npy", np.arange(N) % K)
    np.save(folder / "images.npy", generator.integers(0, 256, (N, 8, 8), np.uint8))
    texts = np.char.encode(np.array(WORDS)[np.arange(N) % len(WORDS)], "utf-8")
    np.save(folder / "texts.npy", texts)
    form = {"u": "numbers", "form_u": "numbers", "encoder_u": "mlp"}
    made(folder, "labels", v="labels", form_v="labels", encoder_v="one_hot", **form)
    made(folder, "texts", u="images", v="texts", form_u="image", form_v="text", encoder_u="convnet", encoder_v="text")
    made(folder, "same", v="numbers", form_v="numbers", encoder_v="mlp", **form)
    return folder


@pytest.fixture
def run(folder):
    return folder / "runs" / "labels"


def drawn(*arguments):
    draw.command("pcl draw", [*map(str, arguments)])


def written(folder):
    with np.load(folder / "draws.npz") as arrays:
        return dict(arrays), json.loads((folder / "draws.json").read_text())


def split_of(folder, name, split="test"):
    root = folder / f"shards_{name}"
    manifest = load_manifest(root)
    return read_arrays(root, manifest, split, dict.fromkeys("uv", torch.arange(manifest.num_pairs(split))))


def test_draws_given_a_label_are_those_of_python(run, folder, tmp_path, capsys):
    keys = ("draw.num=9", "draw.seed=5", "draw.temperature=2")
    drawn(run, "given.label=1", *keys, f"draw.to={tmp_path / 'here'}")
    arrays, about = written(tmp_path / "here")
    model, items = pcl.load(run), split_of(folder, "labels")["u"]
    conditional, query = model.conditional("u_given_v", items), model.features_v(torch.tensor([1]))
    indices = conditional.draw(query, 9, torch.Generator().manual_seed(5), temperature=2.0)[0]
    np.testing.assert_array_equal(arrays["indices"], indices)
    np.testing.assert_array_equal(arrays["items"], items[indices])
    logs = conditional.log_weights(query).double() / 2
    np.testing.assert_allclose(arrays["weights"], logs.softmax(1)[0, indices], rtol=1e-4)
    size = 1 / logs.softmax(1).square().sum().item()
    assert arrays["effective_sample_size"] == pytest.approx(size, rel=1e-4)
    assert arrays["given"].tolist() == [1]
    wanted = {
        "run": "labels",
        "checkpoint": checkpoint_name(2),
        "direction": "u_given_v",
        "given": {"label": 1},
        "seed": 5,
        "temperature": 2.0,
        "num_distinct": len(set(indices.tolist())),
        "references": f"{len(items)} items of the test split",
        "experiment": experiment_hash(full_experiment(load_config(run))),
        "manifest_sha256": manifest_sha256(folder / "shards_labels"),
    }
    assert wanted.items() <= about.items()
    with Image.open(tmp_path / "here" / "draws.png") as picture:
        assert picture.width > 300
    assert "u given label 1, by 50 items of the test split: 9 drawn, " in capsys.readouterr().out
    drawn(run, "given.label=1", *keys, f"draw.to={tmp_path / 'again'}")
    assert (tmp_path / "again" / "draws.png").read_bytes() == (tmp_path / "here" / "draws.png").read_bytes()
    assert (tmp_path / "again" / "draws.json").read_bytes() == (tmp_path / "here" / "draws.json").read_bytes()


def test_draws_of_a_checkpoint_lie_in_its_run_and_take_the_place_of_earlier_ones(run):
    target = run / "draws" / checkpoint_name(1) / "u_given_v-label-2"
    keys = ("given.label=2", "draw.checkpoint=1", "draw.references=train", "draw.num=150")
    drawn(run, *keys, "draw.replacement=false")
    arrays, _ = written(target)
    assert len(set(arrays["indices"].tolist())) == 150
    drawn(run, *keys, "draw.best=true")
    arrays, about = written(target)
    model, items = pcl.load(run / checkpoint_name(1)), split_of(run.parents[1], "labels", "train")["u"]
    weights = model.conditional("u_given_v", items).weights(model.features_v(torch.tensor([2])))[0]
    np.testing.assert_allclose(arrays["weights"], weights.sort(descending=True).values, rtol=1e-4)
    assert (about["best"], about["num_distinct"]) == (True, 150)


def test_labels_are_drawn_by_their_frequency_in_training(run, folder, tmp_path):
    drawn(run, "given.item=7", "draw.direction=v_given_u", "draw.num=500", f"draw.to={tmp_path / 'to'}")
    arrays, about = written(tmp_path / "to")
    model, pairs = pcl.load(run), split_of(folder, "labels")
    counts = torch.bincount(split_of(folder, "labels", "train")["v"].long()).double()
    scores = model.log_tilting(pairs["u"][7:8], torch.arange(K))[0].double()
    weights = (scores + counts.log()).softmax(0)
    np.testing.assert_allclose(arrays["weights"], weights[arrays["indices"]], rtol=1e-4)
    np.testing.assert_array_equal(arrays["items"], arrays["indices"])
    shares = np.bincount(arrays["indices"], minlength=K) / 500
    np.testing.assert_allclose(shares, weights, atol=0.1)
    assert about["references"] == "3 labels"


ROW = "given.row=3"


@pytest.mark.parametrize("keys", [("numbers.npy", ROW), ("one.npy",), ("all.npz:x", ROW)])
def test_an_item_of_a_file_is_given(run, folder, tmp_path, keys):
    numbers = np.load(folder / "numbers.npy")
    np.save(folder / "one.npy", numbers[3])
    np.savez(folder / "all.npz", x=numbers, y=numbers[:2])
    drawn(run, f"given.file={folder}/{keys[0]}", *keys[1:], f"draw.to={tmp_path / 'to'}")
    arrays, about = written(tmp_path / "to")
    np.testing.assert_array_equal(arrays["given"], numbers[3:4])
    assert about["direction"] == "v_given_u"


def test_images_and_texts_are_given_as_shards_hold_them(folder, tmp_path):
    run, images = folder / "runs" / "texts", np.load(folder / "images.npy")
    Image.fromarray(images[5]).save(tmp_path / "image.png")
    drawn(run, f"given.file={tmp_path / 'image.png'}", f"draw.to={tmp_path / 'of_image'}")
    arrays, about = written(tmp_path / "of_image")
    np.testing.assert_array_equal(arrays["given"], images[5:6])
    assert (about["direction"], arrays["items"].shape) == ("v_given_u", (16, 21))
    for text in WORDS:
        drawn(run, f"given.text={text}", "draw.num=2", f"draw.to={tmp_path / text}")
        assert bytes(written(tmp_path / text)[0]["given"][0]).rstrip(b"\0").decode() == text


def test_what_fits_both_needs_a_direction(folder, tmp_path):
    run, keys = folder / "runs" / "same", (f"given.file={folder}/numbers.npy", "given.row=0")
    with pytest.raises(BadInputError, match="both u and v of this run are of shape"):
        drawn(run, *keys)
    drawn(run, *keys, "draw.direction=v_given_u", f"draw.to={tmp_path / 'to'}")
    assert written(tmp_path / "to")[1]["direction"] == "v_given_u"


REFUSED = [
    ("labels", (), "nothing is given: give one of given.label=7"),
    ("labels", ("given.label=0", "given.text=a"), "given.label and given.text: give one of"),
    ("labels", ("given.label=3",), "given.label=3: the labels of this run are 0 to 2"),
    ("labels", ("given.label=-1",), "given.label=-1: it must be at least 0"),
    ("labels", ("given.label=0", "draw.direction=v_given_u"), "u is given, which is numbers, float64.4., not labels"),
    ("texts", ("given.label=0",), "neither u nor v of this run are labels: u is image, uint8.8, 8. and v is text"),
    ("labels", ("given.text=red",), "neither u nor v of this run are texts"),
    ("labels", ("given.item=50",), "given.item=50: the test split has 50 pairs"),
    ("labels", ("given.row=1",), "nothing is given"),
    ("labels", ("given.label=1", "given.row=1"), "given.row=1: it is a row of given.file"),
    ("labels", ("given.file={f}/none.npy",), "none.npy does not exist"),
    ("labels", ("given.file={f}/none.png",), "there is no such file"),
    ("labels", ("given.file={f}/numbers.npy",), "has 200 rows: give given.row"),
    ("labels", ("given.file={f}/numbers.npy", "given.row=200"), "has 200 rows and no row 200"),
    ("labels", ("given.file={f}/wide.npy", "given.row=0"), r"neither u nor v of this run are of shape \(5,\)"),
    ("labels", ("given.file={f}/nan.npy",), "nan.npy, given as u: u are not finite"),
    ("texts", ("given.file={f}/floats.npy",), "given as u: u of dtype float64: needed is uint8, as stored"),
    ("texts", ("given.file={f}/texts.yaml",), "is of no kind that is read"),
    ("texts", ("given.file={f}/bad.png",), "is no image, or a damaged one"),
    ("labels", ("given.label=1", "draw.num=51", "draw.best=true"), "there are 50 items of the test split"),
    ("labels", ("given.label=1", "draw.num=51", "draw.replacement=false"), "there are 50 items of the test split"),
    ("labels", ("given.label=1", "draw.num=0"), "draw.num=0: it must be at least 1"),
    ("labels", ("given.label=1", "draw.temperature=0"), "draw.temperature=0.0: it must be more than 0"),
    ("labels", ("given.label=1", "draw.checkpoint=9"), "draw.checkpoint=9: .* holds checkpoint_00000001, "),
    ("labels", ("given.label=1", "draw.device=nowhere"), "draw.device=nowhere: it is not here"),
    ("labels", ("given.label=1", "draw.to={f}"), "it holds something else than draws"),
]


@pytest.mark.parametrize(("name", "keys", "message"), REFUSED)
def test_what_cannot_be_given_is_refused_before_anything_is_written(folder, tmp_path, name, keys, message):
    np.save(folder / "wide.npy", np.zeros((2, 5)))
    np.save(folder / "nan.npy", np.full(4, np.nan))
    np.save(folder / "floats.npy", np.zeros((8, 8)))
    (folder / "bad.png").write_bytes(b"no image")
    to = () if any(key.startswith("draw.to") for key in keys) else (f"draw.to={tmp_path / 'to'}",)
    with pytest.raises(BadInputError, match=message):
        drawn(folder / "runs" / name, *(key.format(f=folder) for key in keys), *to)
    assert not (tmp_path / "to").exists()
