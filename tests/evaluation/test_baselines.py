"""What needs no learning beside what is learned: of Gaussian pairs, a nonlinear relation, images, texts, labels."""

import numpy as np
import pytest
import torch
from torch import nn

from pcl.data.manifest import ArrayInfo
from pcl.data.source import Source
from pcl.encoders.basic import OneHot
from pcl.evaluation import baselines
from pcl.evaluation.baselines import baselines_of
from pcl.evaluation.drawing import by_form
from pcl.evaluation.evaluate import evaluate
from pcl.evaluation.retrieval import identity_of, retrieval_ranks
from pcl.evaluation.splits import EvaluationOptions, Splits, read_arrays
from pcl.gaussian import GaussianProcessPair, optimal_encoders
from pcl.losses import conditional_loss
from pcl.model import PairModel
from pcl.tilting import Temperature
from tests.shards import build_shards

NUMBERS = ("numbers", "numbers")


class Pairs(Source):
    """Arrays in memory, of which the last are the test split."""

    split_rule = "the last are for tests"

    def __init__(self, u, v, num_test, statistics=("component", "component")):
        self.values, self.num_test = {"u": u, "v": v}, num_test
        self.statistics_of = dict(zip("uv", statistics, strict=True))

    @property
    def arrays(self):
        return {
            name: ArrayInfo(str(values.dtype), values.shape[1:], "1", name, statistics=self.statistics_of[name])
            for name, values in self.values.items()
        }

    def provenance(self):
        return {"name": "pairs"}

    def num_pairs(self, split):
        num_train = len(self.values["u"]) - self.num_test
        return num_train if split == "train" else self.num_test

    def pairs(self, split, start, stop):
        first = 0 if split == "train" else self.num_pairs("train")
        return {name: values[first + start : first + stop] for name, values in self.values.items()}


class Fixed(nn.Module):
    """A linear encoder."""

    def __init__(self, matrix):
        super().__init__()
        self.matrix = nn.Parameter(matrix.float())

    def forward(self, items):
        return items.flatten(1).float() @ self.matrix.T


def pair_model(encoder_u, encoder_v, tilting="inner_product"):
    return PairModel(encoder_u, encoder_v, tilting, Temperature(1.0, learned=False, minimum=0.1, maximum=10.0)).eval()


def evaluated(root, source, model, forms=NUMBERS, **options):
    manifest = build_shards(root, source, 2, 100)
    chosen = EvaluationOptions(recall_at=[1, 5], **options)

    def drawings(splits):
        return by_form(forms[0], splits.items[0]), by_form(forms[1], splits.items[1])

    return evaluate(model, root, manifest, "test", chosen, drawings, None, forms)


def splits_of(root, source):
    manifest = build_shards(root, source, 1, 100)
    kept = torch.arange(manifest.num_pairs("test"))
    arrays = read_arrays(root, manifest, "test", {"u": kept, "v": kept})
    return Splits(root, manifest, "test", arrays, (torch.zeros(0), torch.zeros(0)), EvaluationOptions())


def rows(result):
    return {row[0]: [float(cell) for cell in row[1:]] for row in result.tables[0][1:]}


def test_on_gaussian_pairs_nothing_that_is_linear_is_better(tmp_path):
    """The encoders of the law itself stand in for a training that could not be bettered."""
    process = GaussianProcessPair()
    u, v = (x.astype(np.float32) for x in process.sample(3000, np.random.default_rng(0)))
    g, h = optimal_encoders(process.law(), 5)
    result = evaluated(tmp_path, Pairs(u, v, 1000), pair_model(Fixed(g), Fixed(h)))
    for direction in ("v_given_u", "u_given_v"):
        learned, linear = (result.metrics[f"{name}{direction}_recall@5"] for name in ("", "linear_"))
        assert linear > learned > 0.05  # chance is a tenth of that
        assert f"raw_{direction}_recall@1" not in result.metrics


def nonlinear_pairs(num=5000):
    """Return u (N, 20) and v (N, 7): what v knows of u are products and even functions of a few directions."""
    generator = np.random.default_rng(0)
    u = generator.standard_normal((num, 20))
    z = u @ generator.standard_normal((20, 8)) / np.sqrt(20)
    noise = 0.1 * generator.standard_normal((num, 7))
    return u.astype(np.float32), (np.abs(z[:, :7]) + z[:, :7] * z[:, 1:] + noise).astype(np.float32)


def network(num_components):
    layers = [nn.Linear(num_components, 128), nn.GELU(), nn.Linear(128, 128), nn.GELU(), nn.Linear(128, 16)]
    return nn.Sequential(*layers)


@pytest.mark.long
def test_learning_finds_what_a_linear_map_cannot(tmp_path):
    u, v = nonlinear_pairs()
    torch.manual_seed(0)
    model = pair_model(
        *(
            nn.Sequential(nn.Linear(n, 128), nn.GELU(), nn.Linear(128, 128), nn.GELU(), nn.Linear(128, 16))
            for n in (20, 7)
        ),
        "squared_distance",
    )
    optimiser = torch.optim.Adam(model.parameters(), 3e-3)
    train = torch.from_numpy(u[:4000]), torch.from_numpy(v[:4000])
    generator = torch.Generator().manual_seed(0)
    for _ in range(300):
        kept = torch.randint(0, 4000, (256,), generator=generator)
        loss = conditional_loss(model.features_u(train[0][kept]), model.features_v(train[1][kept]))[0]
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    result = evaluated(tmp_path, Pairs(u, v, 1000), model)
    for direction in ("v_given_u", "u_given_v"):
        learned, linear = (result.metrics[f"{name}{direction}_recall@5"] for name in ("", "linear_"))
        assert learned > 3 * linear
    assert not result.notes


def test_the_table_says_where_learning_loses_and_what_chance_is(tmp_path):
    generator = np.random.default_rng(0)
    u = generator.standard_normal((400, 6)).astype(np.float32)
    v = (u + 0.2 * generator.standard_normal((400, 6))).astype(np.float32)
    learned = pair_model(Fixed(torch.zeros(3, 6)), Fixed(torch.zeros(3, 6)))
    result = evaluated(tmp_path, Pairs(u, v, 100), learned)
    names = ["", ", linear optimum", ", raw numbers", ", chance"]
    assert [*rows(result)] == [f"{d} given {q}{name}" for d, q in ("vu", "uv") for name in names]
    assert rows(result)["v given u, chance"] == [0.01, 0.05, 50]
    assert len(result.notes) == 4
    assert result.notes[0].startswith("Learning loses: R@1 of v given u is 0.0")
    assert result.notes[0].endswith("by what needs no learning (linear optimum).")
    plain = evaluated(tmp_path / "plain", Pairs(u, v, 100), learned, baselines=False)
    assert [*rows(plain)] == ["v given u", "u given v"]
    assert rows(plain).items() <= rows(result).items()
    assert plain.metrics.items() <= result.metrics.items()
    assert not plain.notes


def test_raw_pixels_are_cosines_without_the_mean_of_training(tmp_path):
    generator = np.random.default_rng(0)
    u = generator.integers(0, 200, (60, 3, 8, 8)).astype(np.uint8)
    v = (u + generator.integers(0, 50, u.shape)).astype(np.uint8)
    splits = splits_of(tmp_path, Pairs(u, v, 20, ("scalar", "scalar")))
    found = baselines_of(splits, ("image", "image"), 4)
    assert found.titles["raw"] == "raw pixels"
    x, y = (items[40:].reshape(20, -1) - items[:40].reshape(40, -1).mean(0) for items in (u, v))
    expected = (x @ y.T) / np.linalg.norm(x, axis=1)[:, None] / np.linalg.norm(y, axis=1)
    np.testing.assert_allclose(found.features["raw"][0] @ found.features["raw"][1].T, expected, atol=1e-5)


def test_principal_components_and_blocks_change_nothing_where_they_hold_all(tmp_path, monkeypatch):
    generator = np.random.default_rng(0)
    z = generator.standard_normal((90, 3))
    u, v = (z @ generator.standard_normal((3, n)) + generator.standard_normal((90, n)) for n in (100, 30))
    source = Pairs(u.astype(np.float32), v.astype(np.float32), 30)
    splits = splits_of(tmp_path, source)
    direct = baselines_of(splits, NUMBERS, 3).features["linear"]
    monkeypatch.setattr(baselines, "MOST_DIRECT", 20)
    monkeypatch.setattr(baselines, "BLOCK_BYTES", 10_000)
    through = baselines_of(splits, NUMBERS, 3).features["linear"]
    torch.testing.assert_close(through[0] @ through[1].T, direct[0] @ direct[1].T, rtol=1e-4, atol=1e-5)


def test_of_many_pairs_some_are_read_and_the_table_says_so(tmp_path, monkeypatch):
    u, v = (np.arange(240.0).reshape(120, 2) ** n for n in (1, 2))
    monkeypatch.setattr(baselines, "MOST_PAIRS", 25)
    splits = splits_of(tmp_path, Pairs(u, v, 20))
    found = baselines_of(splits, NUMBERS, 2)
    assert found.notes == ("The linear optimum is that of 25 of 100 training pairs.",)
    train, _ = baselines._training_pairs(splits)
    np.testing.assert_array_equal(train, u[:100:4])


def test_labels_have_their_linear_discriminant(tmp_path):
    """The posterior of classes with one covariance, by densities; rank K - 1 is all there is."""
    generator = np.random.default_rng(0)
    centres = generator.standard_normal((3, 5))
    v = generator.choice(3, 4400, p=[0.2, 0.3, 0.5]).astype(np.uint8)
    u = (centres[v] + generator.standard_normal((4400, 5)) * [1, 1, 2, 1, 0.5]).astype(np.float32)
    model = pair_model(Fixed(torch.zeros(3, 5)), OneHot((), 3))
    result = evaluated(tmp_path, Pairs(u, v, 400, ("component", "counts")), model, ("numbers", "labels"))
    train = u[:4000].astype(float), v[:4000]
    means = np.stack([train[0][train[1] == k].mean(0) for k in range(3)])
    within = np.cov((train[0] - means[train[1]]).T, bias=True)
    difference = u[4000:, None] - means
    logits = -np.einsum("nki,ij,nkj->nk", difference, np.linalg.inv(within), difference) / 2
    logits += np.log(np.bincount(train[1]) / 4000)
    truth = v[4000:]
    log_likelihood = torch.from_numpy(logits).log_softmax(1).gather(1, torch.from_numpy(truth).long()[:, None])
    accuracy = (logits.argmax(1) == truth).mean()
    assert result.metrics["linear_label_accuracy"] == pytest.approx(accuracy, abs=0.005)
    found = result.metrics["linear_label_negative_log_likelihood"]
    assert found == pytest.approx(-log_likelihood.mean().item(), abs=0.01)
    table = next(table for table in result.tables if table[0][0] == "label given u")
    assert [row[0] for row in table[1:]] == ["learned conditional", "linear discriminant"]
    assert "v given u (3 distinct candidates)" in rows(result)
    assert any("accuracy of labels given u" in note for note in result.notes)


def test_texts_in_two_codes_find_each_other(tmp_path):
    """Words are written in other letters: no letter is shared, and a linear map of n-grams tells which is which."""
    generator = np.random.default_rng(0)
    words = [bytes(generator.integers(97, 107, 5).tolist()) for _ in range(30)]
    texts = [b" ".join(generator.choice(words, 3)) for _ in range(600)]
    other = [bytes(letter + 10 if letter > 32 else letter for letter in text[::-1]) for text in texts]
    u, v = (np.stack([np.frombuffer(t.ljust(24, b"\0"), np.uint8) for t in part]) for part in (texts, other))
    splits = splits_of(tmp_path, Pairs(u, v, 100, ("none", "none")))
    found = baselines_of(splits, ("text", "text"), 64)
    assert [*found.features] == ["linear"]
    features, ids = found.features["linear"], [identity_of(items) for items in splits.items]
    assert (retrieval_ranks(*features, *ids) == 1).double().mean() > 0.9


@pytest.mark.parametrize("split", ["train", "test"])
def test_missing_values_and_constants_have_no_linear_optimum(tmp_path, split):
    u, v = (np.random.default_rng(i).standard_normal((50, 4)).astype(np.float32) for i in (0, 1))
    v[0 if split == "train" else -1, 2] = np.nan
    source = Pairs(u, v, 20, ("component", "none"))
    found = baselines_of(splits_of(tmp_path, source), NUMBERS, 2)
    assert found.notes == ("No linear optimum stands beside what is learned: values of v are missing.",)
    assert not found.features
    constant = Pairs(u, np.ones_like(v), 20, ("component", "none"))
    found = baselines_of(splits_of(tmp_path / "constant", constant), NUMBERS, 2)
    assert "v never varies" in found.notes[0]
