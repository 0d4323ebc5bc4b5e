"""pcl finetune on small runs trained in this process: its numbers, its labels from everywhere, and what it refuses."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

import pcl
from pcl.commands import finetune
from pcl.config.identity import data_identity
from pcl.config.load import load_config, resolved_yaml
from pcl.data.manifest import load_manifest
from pcl.data.shards import build_all
from pcl.errors import BadInputError
from pcl.evaluation.evaluate import evaluate
from pcl.evaluation.splits import EvaluationOptions, read_arrays
from pcl.problems.problem import problem
from pcl.storage.place import place
from pcl.train.checkpoint import checkpoint_content, checkpoint_name, save_checkpoint
from pcl.train.parts import full_experiment, make_source
from pcl.train.runs import claim
from pcl.train.session import Session

pytestmark = pytest.mark.long

N, K = 480, 3
RUN = """
name: mine
storage: {folder}/runs
data:
  source: arrays
  shards: {folder}/shards
  num_shards: 8
  arrays: {{u: {folder}/u.npy, v: {folder}/v.npy, form_v: {form}, test_fraction: 0.25}}
model: {{embedding_dim: 3, encoder_u: mlp, encoder_v: {encoder}, settings_u: {{widths: [16]}}}}
train: {{epochs: 12, global_batch: 64, learning_rate: 0.02}}
"""
CHEAP = ("finetune.seeds=[0]", "finetune.steps=0")


def shards_of(config):
    source = make_source(config)
    build_all(Path(config.data.shards), source, data_identity(config), config.data.num_shards, config.data.record_pairs)
    return source


def trained(folder, form="labels", encoder="one_hot"):
    """Train the run of a folder, and return its own folder."""
    (folder / "run.yaml").write_text(RUN.format(folder=folder, form=form, encoder=encoder))
    config = load_config(folder / "run.yaml")
    shards_of(config)
    run = place(config.storage) / config.name
    claim(run, full_experiment(config), resolved_yaml(config))
    session = Session(config, torch.device("cpu"))
    session.train(lambda step, scalars: None, lambda state, scalars: None)
    content = checkpoint_content(session.state, session.spec, session.experiment_hash)
    save_checkpoint(run / checkpoint_name(session.state.step), content)
    return run


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with clusters of u, their number as v, and other labels of them."""
    folder, generator = tmp_path_factory.mktemp("finetune"), np.random.default_rng(0)
    v = np.arange(N) % K
    centres = 3 * generator.normal(size=(K, 6))
    u = centres[v] + generator.normal(size=(N, 6))
    np.save(folder / "u.npy", u)
    np.save(folder / "v.npy", v)
    np.save(folder / "first.npy", np.where(v == 0, "is first", "is not"))
    np.save(folder / "same.npy", np.full(N, 3))
    new = np.arange(90) % K
    np.save(folder / "new_u.npy", centres[new] + generator.normal(size=(90, 6)))
    np.save(folder / "new_v.npy", new + 7)
    trained(folder)
    return folder


@pytest.fixture
def run(folder):
    return folder / "runs" / "mine"


def finetuned(*arguments):
    finetune.command("pcl finetune", [*map(str, arguments)])


def metrics(run, name):
    return json.loads((run / "finetuned" / name / "metrics.json").read_text())


def test_own_labels_beside_zero_shot_probe_and_nothing(run, folder, capsys):
    keys = ("finetune.per_label=[1, 5, 0]", "finetune.seeds=[0, 1]", "finetune.steps=30")
    finetuned(run, *keys)
    found, output = metrics(run, "own"), capsys.readouterr().out
    config, manifest = load_config(run), load_manifest(folder / "shards")
    model = pcl.load(run)
    kind, options = problem("arrays"), EvaluationOptions(baselines=False)
    judged = evaluate(model, folder / "shards", manifest, "test", options, kind.drawings, forms=kind.forms(manifest))
    assert found["zero_shot_accuracy"] == judged.metrics["label_accuracy"]
    likelihood = judged.metrics["label_negative_log_likelihood"]
    assert found["zero_shot_negative_log_likelihood"] == pytest.approx(likelihood, rel=1e-5)
    assert found["num_test"] == 120
    assert found["checkpoint"] == checkpoint_name(config.train.epochs * 5)
    for name in ("fine_tuned", "linear_probe"):
        assert found[f"{name}_accuracy@all"] > 0.9
        assert found[f"{name}_accuracy_std@all"] == 0
    assert found["from_nothing_accuracy@all"] > found["from_nothing_accuracy@1"]
    assert [len(found["scores"][name]["5"]) for name in ("fine-tuned", "linear probe", "from nothing")] == [2, 2, 2]
    mean = np.mean([one["accuracy"] for one in found["scores"]["fine-tuned"]["5"]])
    assert found["fine_tuned_accuracy@5"] == pytest.approx(mean)
    assert "fine-tuning: 6 of 6 draws" in output
    assert "The encoder was trained on these labels of all 360 training pairs" in output
    assert (run / "finetuned" / "own" / "finetuning.png").stat().st_size > 10_000
    page = (run / "finetuned" / "own" / "report.html").read_text()
    assert page.count("data:image/png;base64,") == 1
    assert "https://" not in page
    for text in (
        f"<td>{found['fine_tuned_accuracy@5']:.6g}</td><td>Mean over draws of share of right labels by",
        "The encoder was trained on these labels of all 360 training pairs",
        "Few test items: a share of 120 has a standard error of up to 0.046.",
        f"<td>2</td><td>{manifest.statistics['v']['counts'][2]}</td>",
        f"<td>experiment_hash</td><td>{found['experiment_hash']}</td>",
    ):
        assert text in page


def test_the_same_command_gives_the_same_numbers(run):
    found = []
    for _ in range(2):
        finetuned(run, "finetune.per_label=[1]", "finetune.seeds=[0, 1]", "finetune.steps=30", "finetune.name=same")
        found.append(metrics(run, "same"))
    assert found[0] == found[1]


def test_the_classifier_that_is_kept_is_the_one_that_was_judged(run, folder):
    finetuned(run, "finetune.per_label=[2, 0]", *CHEAP)
    classifier, found = pcl.Classifier.load(run / "finetuned" / "own"), metrics(run, "own")
    items = read_arrays(
        folder / "shards", load_manifest(folder / "shards"), "test", dict.fromkeys("uv", torch.arange(120))
    )
    probabilities = classifier.probabilities(items["u"])
    assert classifier.names == [0, 1, 2]
    assert (probabilities.argmax(1) == items["v"]).double().mean() == pytest.approx(found["fine_tuned_accuracy@all"])
    nll = -probabilities.log().gather(1, items["v"].long()[:, None]).mean()
    assert nll == pytest.approx(found["fine_tuned_negative_log_likelihood@all"])


def test_other_labels_are_aligned_with_the_rows_of_the_array(run, folder, capsys):
    finetuned(run, f"finetune.labels={folder / 'first.npy'}", "finetune.per_label=[0]", *CHEAP)
    found = metrics(run, "first")
    assert found["names"] == ["is first", "is not"]
    assert found["fine_tuned_accuracy@all"] > 0.95
    assert "zero_shot_accuracy" not in found
    assert len(found["labels_sha256"]) == 64
    generator = np.random.default_rng(1)
    np.save(folder / "noise.npy", generator.permutation(np.load(folder / "first.npy")))
    finetuned(run, f"finetune.labels={folder / 'noise.npy'}", "finetune.per_label=[0]", *CHEAP)
    assert metrics(run, "noise")["fine_tuned_accuracy@all"] < 0.8
    capsys.readouterr()


def test_labels_of_other_items(run, folder):
    given = (f"finetune.u={folder / 'new_u.npy'}", f"finetune.labels={folder / 'new_v.npy'}", "finetune.name=others")
    finetuned(run, *given, "finetune.per_label=[5]", *CHEAP)
    found = metrics(run, "others")
    assert (found["names"], found["num_test"]) == ([7, 8, 9], 18)
    assert found["fine_tuned_accuracy@5"] > 0.8
    assert len(found["u_sha256"]) == 64


def test_shards_of_other_labels_and_of_those_of_the_run(run, folder, capsys):
    np.save(folder / "pairs.npy", np.load(folder / "v.npy") // 2)
    keys = (f"data.shards={folder / 'halves'}", f"data.arrays.v={folder / 'pairs.npy'}")
    shards_of(load_config(folder / "run.yaml", keys))
    finetuned(run, f"finetune.shards={folder / 'halves'}", "finetune.per_label=[0]", *CHEAP)
    found = metrics(run, "halves")
    assert found["names"] == [0, 1]
    assert "zero_shot_accuracy" not in found
    assert found["fine_tuned_accuracy@all"] > 0.9
    finetuned(run, f"finetune.shards={folder / 'shards'}", "finetune.per_label=[1]", "finetune.are_v=true", *CHEAP)
    assert metrics(run, "shards")["zero_shot_accuracy"] > 0.9
    assert "of 120 test items" not in capsys.readouterr().out, "the encoder was not trained on them"


@pytest.fixture(scope="module")
def captioned(tmp_path_factory):
    """A folder with a run of items and captions."""
    folder, generator = tmp_path_factory.mktemp("captioned"), np.random.default_rng(0)
    kinds = np.arange(N) % K
    np.save(folder / "u.npy", 4 * np.eye(K)[kinds] + generator.normal(size=(N, K)))
    np.save(folder / "v.npy", np.array(["a circle", "a square", "the line"])[kinds].astype("S8"))
    trained(folder, "text", "text")
    return folder


def test_texts_that_the_run_understands_have_a_zero_shot(captioned):
    """Fine-tuned to the distinct captions of other shards: g_v of a text is the start."""
    run = captioned / "runs" / "mine"
    with pytest.raises(BadInputError, match=r"v of the run are no labels but of the form text: give finetune\.labels"):
        finetuned(run, *CHEAP)
    keys = (f"finetune.shards={captioned / 'shards'}", "finetune.per_label=[1, 2]")
    finetuned(run, *keys, *CHEAP)
    found = metrics(run, "shards")
    assert found["names"] == ["a circle", "a square", "the line"]
    assert found["zero_shot_accuracy"] > 0.9
    assert found["fine_tuned_accuracy@1"] > 0.9
    finetuned(run, *keys, "finetune.are_v=false", "finetune.without=[a circle]", "finetune.name=two", *CHEAP)
    assert metrics(run, "two")["names"] == ["a square", "the line"]
    assert "zero_shot_accuracy" not in metrics(run, "two")


KEYS = ("finetune.per_label=[1]", *CHEAP)
REFUSED = {
    "finetune.per_label=[1, 200]": r"the label \d has \d+ items in training and finetune.per_label=.1, 200. asks",
    "finetune.per_label=[]": r"finetune.per_label=\[\]: give different whole numbers, each from 0",
    "finetune.per_label=[5, 5]": "give different whole numbers",
    "finetune.seeds=[-1]": "finetune.seeds=.-1.: give different whole numbers, each from 0",
    "finetune.name=a/b": "finetune.name='a/b': it names a folder",
    "finetune.without=[4]": "finetune.without=4: there is no such label, the nearest is 2",
    "finetune.without=[0, 1]": "1 of the labels 0, 1, 2 is left: at least 2 can be told apart",
    "finetune.u={folder}/new_u.npy": "finetune.u has no labels: give finetune.labels",
    "finetune.labels={folder}/new_v.npy": r"finetune.labels has 90 labels and there are 480 rows of data.arrays.u",
    "finetune.labels={folder}/u.npy": r"it holds float64 of shape \(480, 6\), and labels are whole numbers or texts",
    "finetune.labels={folder}/none.npy": "none.npy does not exist",
    "finetune.labels={folder}/same.npy": "every item has the label 3: give labels of at least 2 kinds",
    "finetune.shards={folder}/none": "manifest.json does not exist: write the shards first",
    "finetune.checkpoint=7": "finetune.checkpoint=7|holds checkpoint_00000060",
}


@pytest.mark.parametrize("key", REFUSED)
def test_bad_input_is_refused_in_a_line_before_anything_is_learned(key, run, folder, monkeypatch):
    monkeypatch.setattr(finetune, "fine_tuned", lambda *_: pytest.fail("something is learned"))
    before = {path: path.stat().st_mtime_ns for path in run.rglob("*")}
    with pytest.raises(BadInputError, match=REFUSED[key]) as error:
        finetuned(run, key.format(folder=folder))
    assert "\n" not in str(error.value)
    assert {path: path.stat().st_mtime_ns for path in run.rglob("*")} == before


def test_a_run_that_cannot_be_written_to_is_refused_before_anything_is_learned(run, monkeypatch, tmp_path):
    monkeypatch.setattr(finetune, "fine_tuned", lambda *_: pytest.fail("something is learned"))
    monkeypatch.setattr(finetune, "folder_of", lambda *_: tmp_path / "file" / "finetuned")
    (tmp_path / "file").write_text("what is no folder")
    with pytest.raises(BadInputError, match=r"file/finetuned cannot be written to \("):
        finetuned(run, "finetune.per_label=[1]")


def test_what_does_not_fit_the_run_is_refused(run, folder, tmp_path):
    np.save(tmp_path / "wide.npy", np.zeros((90, 7)))
    labels = f"finetune.labels={folder / 'new_v.npy'}"
    with pytest.raises(BadInputError, match=r"float64 of shape \(7,\), and the encoder of u of the run takes float64"):
        finetuned(run, f"finetune.u={tmp_path / 'wide.npy'}", labels)
    with pytest.raises(BadInputError, match=r"finetune.u has 480 rows and finetune.labels 90"):
        finetuned(run, f"finetune.u={folder / 'u.npy'}", labels)
    with pytest.raises(BadInputError, match=r"there is a label 9, and v of the run are labels 0 to 2"):
        finetuned(run, f"finetune.u={folder / 'new_u.npy'}", labels, "finetune.are_v=true")
    with pytest.raises(BadInputError, match=r"finetune.shards hold u and labels"):
        finetuned(run, f"finetune.shards={folder / 'shards'}", labels)
    with pytest.raises(BadInputError, match="holds no checkpoint: train first"):
        finetuned(folder / "run.yaml", "name=never")
    np.save(tmp_path / "few.npy", np.arange(90) // 89)
    with pytest.raises(BadInputError, match=r"the label 1 has [01] items in training"):
        finetuned(run, f"finetune.u={folder / 'new_u.npy'}", f"finetune.labels={tmp_path / 'few.npy'}")


def test_items_with_missing_values_are_refused(run, folder, tmp_path):
    u = np.load(folder / "new_u.npy")
    u[:, 3] = np.nan
    np.save(tmp_path / "holes.npy", u)
    with pytest.raises(BadInputError, match=r"holes.npy holds NaN or infinite numbers: leave those rows"):
        finetuned(run, f"finetune.u={tmp_path / 'holes.npy'}", f"finetune.labels={folder / 'new_v.npy'}", *KEYS)
