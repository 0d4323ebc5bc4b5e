"""The oracle beside the learned encoder: its ranks against brute force, the table and the figure."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from pcl.conditional import Conditional
from pcl.evaluation.result import Evaluation
from pcl.evaluation.splits import EvaluationOptions, Splits
from pcl.problems.streamfunction.evaluation import (
    LearnedMeans,
    add_flows,
    flows_figure,
    learned_means,
    oracle_features,
)
from pcl.problems.streamfunction.law import StreamfunctionLaw
from pcl.problems.streamfunction.linear_inverse import oracle

LAW = StreamfunctionLaw(num_modes=6, num_positions=101)
SOURCE = {
    "law": {"num_modes": 6, "num_positions": 101},
    "time_step": LAW.time_step,
}
TRAIN = torch.from_numpy(LAW.sample(40, np.random.default_rng(1))).float()


@pytest.fixture(scope="module")
def pairs():
    u = torch.from_numpy(LAW.sample(30, np.random.default_rng(0)))
    return u.float(), LAW.paths(u, 4).float()


def test_the_oracle_finds_the_flow_of_a_path_and_blocks_do_not_matter(pairs):
    u, v = pairs
    features_u, features_v = oracle_features(SOURCE, u, v, 7)
    wanted = torch.cosine_similarity((u / torch.from_numpy(LAW.standard_deviations))[:, None], oracle(SOURCE)(v), dim=2)
    torch.testing.assert_close((features_u @ features_v.T).double(), wanted, rtol=1e-3, atol=1e-3)
    assert (wanted.argmax(0) == torch.arange(30)).double().mean() > 0.9


def test_the_table_holds_learned_oracle_and_their_ratio(pairs, monkeypatch):
    known = oracle_features(SOURCE, *pairs, 16)
    scores = known[0] @ known[1].T
    ranks = {"v_given_u": (scores >= scores.diag()[:, None]).sum(1), "u_given_v": (scores >= scores.diag()).sum(0)}
    learned = {"v_given_u": 0.25, "u_given_v": 0.5}
    result = Evaluation()
    for name, value in learned.items():
        result.metrics |= {f"{name}_recall@1": value, f"{name}_median_rank": 3.0}
    options = EvaluationOptions(recall_at=[1], block_pairs=16)
    manifest = SimpleNamespace(source=SOURCE)
    splits = Splits(Path(), manifest, "test", dict(zip("uv", pairs, strict=True)), known, options)
    monkeypatch.setattr(Splits, "read", lambda self, split, names: {"train": {"u": TRAIN}}[split])
    carrier = Conditional(oracle_features(SOURCE, TRAIN, pairs[1], 9)[0], 0.1)
    model = SimpleNamespace(conditional=lambda direction, flows: carrier, encoder_v=torch.nn.Identity())
    add_flows(result, model, splits)
    (table,) = result.tables
    assert [row[0] for row in table[1:4]] == ["v given u, learned", "v given u, oracle", "v given u, learned / oracle"]
    for rows, (name, found) in zip((table[1:4], table[4:]), ranks.items(), strict=True):
        recall = (found == 1).double().mean().item()
        assert result.metrics[f"oracle_{name}_recall@1"] == pytest.approx(recall)
        assert [row[1] for row in rows] == [f"{x:.4f}" for x in (learned[name], recall, learned[name] / recall)]
    assert set(result.figures) == {"lagrangian.png"}


def test_the_learned_mean_is_carried_by_other_flows(pairs, monkeypatch):
    features = oracle_features(SOURCE, *pairs, 16)
    of_train = oracle_features(SOURCE, TRAIN, pairs[1], 16)[0]
    monkeypatch.setattr(Splits, "read", lambda self, split, names: {"train": {"u": TRAIN}}[split])
    model = SimpleNamespace(conditional=lambda direction, flows: {"u_given_v": Conditional(of_train, 0.1)}[direction])
    splits = Splits(Path(), None, "test", dict(zip("uv", pairs, strict=True)), features, EvaluationOptions())
    found = learned_means(model, splits)
    weights = torch.softmax(features[1][:3].double() @ of_train.double().T / 0.1, 1)
    torch.testing.assert_close(found.means.double(), weights @ TRAIN.double(), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(found.effective_sample_size.double(), 1 / weights.square().sum(1), rtol=1e-4, atol=0)
    assert found.references == "40 training flows"


def test_the_figure_shows_three_pairs_with_their_flows(pairs, tmp_path):
    learned = LearnedMeans(pairs[0][3:6], torch.tensor([1.0, 2.5, 30.0]), "40 training flows")
    figure = flows_figure(SOURCE, pairs, oracle_features(SOURCE, *pairs, 16), learned)
    assert len(figure.axes) == 12
    assert figure.axes[6].get_title() == "learned posterior mean\n(effective sample size 2.5)"
    assert figure.axes[7].get_title().startswith("the oracle's posterior mean")
    assert figure.axes[0].get_title() == "flow 0 and its path"
    assert "rank 1)" in figure.axes[1].get_title()
    solved = flows_figure(SOURCE, pairs, oracle_features(SOURCE, *pairs, 16), learned, pairs[0][:3].double())
    assert solved.axes[6].get_title() == "learned posterior mean\n(solved for, under the learned law)"
    assert "carry" not in solved.get_suptitle()
    figure.savefig(tmp_path / "flows.png")
