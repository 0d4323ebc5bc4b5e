"""A whole evaluation in this process: real digits, and Gaussian pairs with and without a closed form."""

import pytest
import torch

from pcl.config.load import load_config
from pcl.data.loader import iterate_split
from pcl.encoders.build import build_model
from pcl.evaluation.evaluate import evaluate
from pcl.evaluation.meanings import meaning_of
from pcl.evaluation.splits import EvaluationOptions
from pcl.gaussian import GaussianProcessPair, optimal_encoders, relative_error
from pcl.problems.gaussian_process.theory_gap import closed_form_means
from pcl.problems.mnist.source import MnistSource
from pcl.problems.problem import problem
from pcl.train.parts import model_spec
from tests.shards import build_shards
from tests.train.test_session import ROOT

SETTINGS = {"loss": "conditional", "recall_at": [1, 5], "block_pairs": 64}


def evaluated(kind, model, root, manifest, **settings):
    """Evaluate on the test split with what a kind of pairs adds."""
    chosen = problem(kind)
    options = EvaluationOptions(**SETTINGS | settings)
    return evaluate(model, root, manifest, "test", options, chosen.drawings, chosen.evaluate)


class FewDigits(MnistSource):
    """The first pairs of each split."""

    def num_pairs(self, split):
        return {"train": 400, "test": 200}[split]


def test_digits_have_labels_retrieval_and_a_figure(mnist_root, tmp_path):
    source = FewDigits(mnist_root)
    manifest = build_shards(tmp_path, source, 2, 100)
    overrides = (f"data.shards={tmp_path}", f"data.root={mnist_root}")
    config = load_config(ROOT / "configs" / "mnist.yaml", overrides)
    model = build_model(model_spec(config, manifest)).eval()
    result = evaluated("mnist", model, tmp_path, manifest, weights=(0, 2))
    u = torch.tensor(source.images["test"][:200])
    labels = torch.tensor(source.labels["test"][:200]).long()
    prior = torch.bincount(torch.tensor(source.labels["train"][:400]).long()) / 400
    with torch.no_grad():
        log_probabilities = torch.log_softmax(model.log_tilting(u, torch.arange(10)) + prior.log(), 1)
    accuracy = (log_probabilities.argmax(1) == labels).double().mean().item()
    nll = torch.nn.functional.nll_loss(log_probabilities, labels).item()
    assert result.metrics["label_accuracy"] == pytest.approx(accuracy)
    assert result.metrics["label_negative_log_likelihood"] == pytest.approx(nll, rel=1e-5)
    assert not [name for name in result.metrics if not meaning_of(name).text], "a stranger is told what each is"
    seven = meaning_of("given_label_7_right_share")
    assert seven.title == "given label 7: right share"
    assert seven.text == "Weight of the items that have the label, in u given label 7: 1 is perfect."
    assert set(result.figures) == {"labels.png", "given_label.png"}
    few = evaluated("mnist", model, tmp_path, manifest, max_pairs=3, num_examples=2, num_embeddings=2)
    assert 0 <= few.metrics["v_given_u_recall@1"] <= 1
    assert few.metrics["num_pairs"] == 3
    assert few.metrics["chance_u_given_v_median_rank"] == 2  # metrics can be read without the table
    assert set(few.figures) == {"labels.png", "given_label.png", "retrieved.png"}
    numbers = [str(label) for label in labels[:2].tolist()]
    head, *rows = few.embeddings.metadata
    assert (head[0], head[-1]) == ("modality", "label")
    assert [(row[0], row[-1]) for row in rows] == [(name, number) for name in "uv" for number in numbers]
    with torch.no_grad():
        torch.testing.assert_close(
            few.embeddings.points, torch.cat([model.encode_u(u[:2]), model.encode_v(labels[:2])])
        )
    torch.testing.assert_close(few.embeddings.images[:2], u[:2] / u[:2].max())


@pytest.mark.parametrize(
    ("loss", "tilting", "weights", "rows"),
    [
        ("conditional", "inner_product", (1, 1), {"learned", "plug_in", "closed_form"}),
        ("conditional", "squared_distance", (0.5, 1.5), {"learned", "plug_in", "closed_form"}),
        ("joint", "squared_distance", (1, 1), {"learned", "plug_in", "closed_form"}),
        ("conditional", "potentials", (2, 0), {"learned", "plug_in", "closed_form"}),
        ("conditional_mmd", "inner_product", (1, 1), {"learned", "plug_in"}),
        ("conditional", "cosine", (1, 1), {"learned", "plug_in"}),
    ],
)
def test_gaussian_pairs_are_compared_with_what_is_known(make_shards, loss, tilting, weights, rows):
    root, manifest = make_shards(num_train=160, num_test=40)
    config = load_config(ROOT / "configs" / "gaussian.yaml", (f"data.shards={root}", f"model.tilting={tilting}"))
    model = build_model(model_spec(config, manifest)).eval()
    settings = {"loss": loss, "weights": weights, "max_pairs": 2, "num_embeddings": 2}
    result = evaluated("gaussian_process", model, root, manifest, **settings)
    u, v = (part[:2] for part in next(iterate_split(root, manifest, "test")))
    with torch.no_grad():
        points = torch.cat([model.encode_u(u), model.encode_v(v)])[:, :5]  # without potentials
    if tilting == "cosine":
        points = torch.nn.functional.normalize(points)
    torch.testing.assert_close(result.embeddings.points, points)
    assert not [name for name in result.metrics if not meaning_of(name).text], "a stranger is told what each is"
    names = {key.split("_relative_error_")[0] for key in result.metrics if "_relative_error_" in key}
    assert names == rows
    assert 0 < result.metrics["plug_in_relative_error_v_given_u"] < 1
    assert result.metrics["learned_relative_error_v_given_u"] > 0


@pytest.mark.parametrize(("weights", "direction"), [((2, 0), "u_given_v"), ((0, 2), "v_given_u")])
def test_the_one_sided_squared_distance_is_exact_in_its_direction(weights, direction):
    law = GaussianProcessPair().law()
    means = closed_form_means(law, 5, "conditional", "squared_distance", weights)
    assert relative_error(means[direction], law, direction) < 1e-20
    g, h = optimal_encoders(law, 5, "conditional", "squared_distance", weights)
    target, prior = (g, law.c_uu) if direction == "u_given_v" else (h, law.c_vv)
    covariance = torch.linalg.inv(target.T @ target + torch.linalg.inv(prior))
    torch.testing.assert_close(covariance, law.conditional(direction)[1], rtol=1e-9, atol=1e-12)
