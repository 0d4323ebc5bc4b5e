"""Fine-tuning judged: the probe is scikit-learn's, training from nothing learns, tables and notes say what is so."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from pcl.data.manifest import load_manifest
from pcl.encoders.build import build_model
from pcl.evaluation.finetuning import FineTuned, FineTuning, LabelledItems, fine_tuned, linear_probe
from pcl.evaluation.finetuning_report import finetuning_evaluation
from pcl.evaluation.from_nothing import Recipe, from_nothing
from pcl.evaluation.seen import num_seen
from pcl.evaluation.splits import read_arrays
from pcl.finetuning import zeros

K, E = 3, 4
LINEAR = {"kind": "linear", "shape": [6], "dtype": "float32"}
SPEC = {
    "embedding_dim": E,
    "encoder_u": LINEAR,
    "encoder_v": {"kind": "linear", "shape": [2], "dtype": "float32"},
    "tilting": "cosine",
    "temperature": {"initial": 0.2, "learned": False, "minimum": 0.1, "maximum": 1.0},
    "dtype": "float32",
}


def clusters(number, seed):
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, K, (number,), generator=generator)
    centres = 3 * torch.randn(K, 6, generator=torch.Generator().manual_seed(9))
    return centres[labels] + torch.randn(number, 6, generator=generator), labels


def test_the_probe_is_the_logistic_regression_of_scikit_learn():
    embeddings, labels = clusters(60, 0)
    found = linear_probe(embeddings, labels, 0.5, K)(embeddings).exp()
    scaled = embeddings.double().numpy() / np.sqrt(np.mean(embeddings.double().numpy() ** 2))
    wanted = LogisticRegression(C=2.0, tol=1e-8, max_iter=2000).fit(scaled, labels).predict_proba(scaled)
    np.testing.assert_allclose(found, wanted, atol=1e-3)


def test_a_label_that_the_probe_has_not_seen_gets_no_probability():
    embeddings, labels = clusters(60, 0)
    seen = labels != 1
    found = linear_probe(embeddings[seen], labels[seen], 1.0, K)(embeddings).exp()
    assert found.shape == (60, K)
    assert found[:, 1].max() < 1e-9
    torch.testing.assert_close(found.sum(1), torch.ones(60).double(), atol=1e-6, rtol=0)


def test_training_from_nothing_learns_and_depends_on_its_seed_alone():
    (items, labels), (new, of_new) = clusters(120, 0), clusters(200, 1)
    recipe = Recipe(steps=60, learning_rate=0.02, batch=32)
    found = from_nothing(SPEC, items, labels, K, recipe, seed=5)(new)
    assert (found.argmax(1) == of_new).double().mean() > 0.9
    torch.manual_seed(77)
    torch.testing.assert_close(from_nothing(SPEC, items, labels, K, recipe, seed=5)(new), found, atol=0, rtol=0)
    assert not torch.equal(from_nothing(SPEC, items, labels, K, recipe, seed=6)(new), found)


def labelled(atoms=None, log_prior=None):
    items, labels = dict(train=clusters(300, 0), test=clusters(200, 1)), {}
    for split, (_, of) in items.items():
        labels[split] = of
    return LabelledItems(["a", "b", "c"], labels, lambda split, rows: items[split][0][rows], atoms, log_prior)


def test_zero_shot_is_the_conditional_of_the_model_and_fine_tuning_begins_there():
    model = build_model(SPEC, 1).eval().requires_grad_(False)
    atoms, prior = torch.eye(3)[:, :2] + 0.5, torch.tensor([0.2, 0.3, 0.5]).log()
    given = labelled(atoms, prior)
    how = FineTuning(per_label=[2], seeds=[0], recipe=None)
    found = fine_tuned(model, SPEC, given, how)
    items, labels = clusters(200, 1)
    wanted = model.conditional("v_given_u", atoms, prior).log_weights(model.features_u(items))
    assert found.zero_shot["accuracy"] == pytest.approx((wanted.argmax(1) == labels).double().mean().item())
    nll = torch.nn.functional.nll_loss(wanted, labels).item()
    assert found.zero_shot["negative_log_likelihood"] == pytest.approx(nll, rel=1e-5)
    assert found.scores.keys() == {"fine-tuned", "linear probe"}
    assert found.num_labelled == {2: 6}
    assert fine_tuned(model, SPEC, labelled(), how).zero_shot is None


def test_only_the_items_that_are_drawn_are_read():
    read = []

    def reading(split, rows):
        read.append((split, len(rows)))
        return clusters(300 if split == "train" else 200, 0 if split == "train" else 1)[0][rows]

    given = labelled()
    given = LabelledItems(given.names, given.labels, reading)
    model = build_model(SPEC, 1).eval().requires_grad_(False)
    fine_tuned(model, SPEC, given, FineTuning(per_label=[1, 2], seeds=[0], recipe=None, max_test=50))
    assert read == [("train", 6), ("test", 50)], "the smaller draw is part of the larger one"


def found_with(**accuracies):
    scores = {
        name.replace("_", " ").replace("fine tuned", "fine-tuned"): {
            number: [{"accuracy": one, "negative_log_likelihood": 1 - one} for one in values]
            for number, values in by_number.items()
        }
        for name, by_number in accuracies.items()
    }
    kept = zeros(torch.arange(K), K, E, 1.0)
    zero_shot = {"accuracy": 0.6, "negative_log_likelihood": 0.4}
    return FineTuned(scores, zero_shot, kept, 1.0, 200, {1: 3, 0: 300})


def test_the_report_has_means_spread_and_where_fine_tuning_loses():
    found = found_with(fine_tuned={1: [0.5, 0.7], 0: [0.8, 0.8]}, linear_probe={1: [0.4, 0.4], 0: [0.95, 0.95]})
    given = labelled()
    result = finetuning_evaluation(found, given)
    assert result.metrics["fine_tuned_accuracy@1"] == pytest.approx(0.6)
    assert result.metrics["fine_tuned_accuracy_std@1"] == pytest.approx(np.std([0.5, 0.7], ddof=1))
    assert result.metrics["linear_probe_negative_log_likelihood@all"] == pytest.approx(0.05)
    assert result.metrics["zero_shot_accuracy"] == 0.6
    common = given.labels["train"].bincount().argmax()
    assert result.metrics["most_frequent_accuracy"] == pytest.approx(
        float((given.labels["test"] == common).double().mean())
    )
    assert result.tables[0][0] == ["accuracy of 200", "1 a class", "all labels"]
    assert result.tables[0][1] == ["fine-tuned", "0.6000 ± 0.1414", "0.8000 ± 0.0000"]
    assert result.tables[0][3] == ["zero-shot", "0.6000", "0.6000"]
    assert result.notes == [
        "Fine-tuning loses: with all labels its accuracy is 0.8000, and 0.9500 by linear probe.",
    ]
    axis = result.figures["finetuning.png"].axes[0]
    assert [text.get_text() for text in axis.get_xticklabels()] == ["1", "all (100)"]
    assert [line.get_label() for line in axis.lines][:2] == ["fine-tuned", "linear probe"]


def test_items_that_the_encoder_has_seen_are_counted(make_shards):
    root, manifest = make_shards()
    manifest = load_manifest(root)
    train = read_arrays(root, manifest, "train", {"u": torch.arange(160)})["u"]
    test = read_arrays(root, manifest, "test", {"u": torch.arange(40)})["u"]
    assert num_seen(test, root, manifest) == 0
    assert num_seen(torch.cat([test[:5], train[7:9], train[150:]]), root, manifest) == 12


def test_a_start_that_knows_nothing_of_the_labels_is_told_with_the_remedy():
    found = found_with(fine_tuned={1: [0.5], 0: [0.9]})
    found.zero_shot = {"accuracy": 0.1, "negative_log_likelihood": 4.0}
    (note,) = finetuning_evaluation(found, labelled()).notes
    assert note.startswith("The model does not know these labels: zero-shot has an accuracy of 0.1000, who always says")
    assert note.endswith("finetune.are_v=false starts from zero instead.")
