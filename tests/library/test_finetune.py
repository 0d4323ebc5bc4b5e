"""pcl.finetune and its classifier: the optimum of the module, kept and read again, and what is refused."""

import json

import numpy as np
import pytest
import torch

import pcl
from pcl.errors import BadInputError, DamagedDataError
from pcl.finetuning import fine_tune, zeros
from pcl.tilting import embeddings_of

K = 3


@pytest.fixture(scope="module")
def pairs():
    generator = np.random.default_rng(0)
    v = np.arange(240) % K
    u = 3 * np.eye(K)[v] + generator.normal(size=(240, K))
    return u, v


@pytest.fixture(scope="module")
def model(pairs):
    chosen = {"encoder_v": "one_hot", "form_v": "labels", "settings_u": {"widths": [8]}, "tilting": "squared_distance"}
    return pcl.fit(*pairs, embedding_dim=K, epochs=8, batch=48, learning_rate=0.02, show=False, **chosen)


def test_it_is_the_optimum_of_the_module_on_embeddings_of_the_model(model, pairs):
    u, v = pairs
    names = np.array(["one", "three", "two"])
    classifier = pcl.finetune(model, u[:60], names[v[:60]], strength=2.0)
    assert classifier.names == ["one", "three", "two"]
    labels = torch.as_tensor(v)
    embeddings = embeddings_of(torch.as_tensor(model.features_u(u)), "squared_distance")
    wanted = fine_tune(embeddings[:60], labels[:60], zeros(labels[:60], K, K, 1.0), 2.0)
    np.testing.assert_allclose(classifier.log_probabilities(u), wanted(embeddings), atol=1e-9)
    assert classifier.predict(u).tolist() == names[wanted(embeddings).argmax(1)].tolist()
    assert isinstance(classifier.probabilities(torch.as_tensor(u)), torch.Tensor)
    assert isinstance(classifier.probabilities(u), np.ndarray)
    np.testing.assert_allclose(classifier.probabilities(u).sum(1), 1, atol=1e-9)


def test_from_the_embeddings_of_labels_a_strong_ridge_keeps_the_conditional_of_the_model(model, pairs):
    u, v = pairs
    prior = np.log([0.5, 0.25, 0.25])
    classifier = pcl.finetune(model, u[:9], v[:9], label_items=np.arange(K), log_prior=prior, strength=1e9)
    wanted = model.conditional("v_given_u", np.arange(K), prior).log_weights(model.features_u(u))
    np.testing.assert_allclose(classifier.log_probabilities(u), wanted, atol=1e-5)


def test_cross_validation_chooses_when_nobody_does_and_labels_may_be_false_and_true(model, pairs):
    u, v = pairs
    classifier = pcl.finetune(model, torch.as_tensor(u[:60]), torch.as_tensor(v[:60] == 2))
    assert classifier.names == [0, 1]
    assert (classifier.predict(u) == (v == 2)).mean() > 0.9


def test_a_classifier_that_is_kept_is_the_same(model, pairs, tmp_path):
    u, v = pairs
    for name, labels in (("texts", np.array(["a", "b", "c"])[v]), ("numbers", v + 5)):
        classifier = pcl.finetune(model, u[:30], labels[:30], strength=1.0)
        classifier.save(tmp_path / name)
        again = pcl.Classifier.load(tmp_path / name)
        assert again.names == classifier.names
        np.testing.assert_array_equal(again.log_probabilities(u), classifier.log_probabilities(u))
        with pytest.raises(BadInputError, match="holds a model already"):
            classifier.save(tmp_path / name)
    assert not [path for path in (tmp_path / "texts").iterdir() if path.suffix in (".pkl", ".pickle")]


def test_what_is_no_classifier_is_refused(model, pairs, tmp_path):
    u, v = pairs
    with pytest.raises(BadInputError, match="holds no classifier"):
        pcl.Classifier.load(tmp_path)
    for name in ("changed", "other", "gone"):
        pcl.finetune(model, u[:30], v[:30], strength=1.0).save(tmp_path / name)
    text = (tmp_path / "changed" / "classifier.json").read_text()
    (tmp_path / "changed" / "classifier.json").write_text(text.replace('"temperature": 1.0', '"temperature": 2.0'))
    with pytest.raises(DamagedDataError, match="differs from its own checksum"):
        pcl.Classifier.load(tmp_path / "changed")
    pcl.finetune(model, u[:30], v[:30] // 2, strength=1.0).save(tmp_path / "two")
    (tmp_path / "two" / "classifier.safetensors").replace(tmp_path / "other" / "classifier.safetensors")
    with pytest.raises(DamagedDataError, match=r"classifier\.safetensors is not that of classifier\.json"):
        pcl.Classifier.load(tmp_path / "other")
    (tmp_path / "gone" / "classifier.safetensors").unlink()
    with pytest.raises(DamagedDataError, match=r"classifier\.safetensors is not that of"):
        pcl.Classifier.load(tmp_path / "gone")
    assert json.loads((tmp_path / "gone" / "classifier.json").read_text())["names"] == [0, 1, 2]


def test_bad_arguments_are_refused_in_a_line(model, pairs):
    u, v = pairs
    with pytest.raises(BadInputError, match="240 items u and 9 labels"):
        pcl.finetune(model, u, v[:9])
    with pytest.raises(BadInputError, match=r"labels of shape \(240,\) and type float64"):
        pcl.finetune(model, u, v / 2)
    with pytest.raises(BadInputError, match="at least two different ones"):
        pcl.finetune(model, u, 0 * v)
    with pytest.raises(BadInputError, match="label_items has 2 rows and there are 3 labels"):
        pcl.finetune(model, u, v, label_items=np.arange(2))
    with pytest.raises(BadInputError, match="log_prior has 4 rows and there are 3 labels"):
        pcl.finetune(model, u, v, log_prior=np.zeros(4))
    with pytest.raises(ValueError, match=r"u of shape \(240, 2\): needed is \(N, 3\)"):
        pcl.finetune(model, u[:, :2], v)
