"""Potentials of every kind of encoder: one more component, learned, zero, shared, kept, and the same on all workers."""

import copy
from pathlib import Path

import numpy as np
import pytest
import torch

import pcl
from pcl.config.load import load_config
from pcl.encoders import make_encoder
from pcl.encoders.build import build_model
from pcl.encoders.potential import POTENTIALS, potentials_of
from pcl.errors import BadInputError
from pcl.gaussian import GaussianPair
from pcl.objective import make_loss
from pcl.train.checkpoint import checkpoint_content, save_checkpoint
from pcl.train.loop import Optimisation, TrainingState, make_optimizer, train_step
from pcl.train.parts import model_spec
from pcl.workers import OneWorker
from tests.processes import run_workers

ROOT = Path(__file__).resolve().parents[2]
LAW = {"num_modes": 4, "num_positions": 50}
KINDS = [  # kind, shape, E, options, the names of the parameters that the potential has of its own
    ("linear", (3, 4), 5, {}, ["potential.map.weight"]),
    ("identity", (6,), 6, {}, ["potential.map.weight"]),
    ("one_hot", (), 10, {}, ["potential"]),
    ("linear_inverse", (50, 2), 8, {"noise": 0.1, "time_step": 0.002, "law": LAW}, ["potential.map.weight"]),
    ("mlp", (3, 4), 5, {"widths": [8]}, []),
    ("convnet", (3, 20, 20), 5, {"width": 4}, []),
    ("lenet", (28, 28), 10, {}, []),
    ("text", (16,), 5, {}, []),
    ("text", (16,), 5, {"architecture": "transformer", "width": 8, "num_heads": 2}, []),
    ("frozen", (12,), 5, {}, []),
]
IDS = [f"{kind}-{options.get('architecture', '')}" for kind, _, _, options, _ in KINDS]


def items(shape):
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 10, (4, *shape), dtype=torch.uint8, generator=generator)


def encoder_of(kind, shape, dim, options, potential):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return make_encoder(kind, shape, dim, potential=potential, **options)


@pytest.mark.parametrize(("kind", "shape", "dim", "options", "own"), KINDS, ids=IDS)
def test_a_potential_is_one_more_component(kind, shape, dim, options, own):
    without, learned, zero = (encoder_of(kind, shape, dim, options, one) for one in (None, *POTENTIALS))
    embedding = without(items(shape))
    assert embedding.shape == (4, dim)
    assert learned(items(shape)).shape == (4, dim + 1)
    expected = torch.cat([embedding, torch.zeros(4, 1, dtype=embedding.dtype)], 1)
    assert torch.equal(zero(items(shape)), expected)
    assert list(zero.state_dict()) == list(without.state_dict())
    added = [name.split(".", 1)[1] for name in set(learned.state_dict()) - set(without.state_dict())]
    assert added == own
    if own:  # the embedding has weights of its own, the same ones
        torch.testing.assert_close(learned(items(shape))[:, :-1], embedding)
    assert learned.items == zero.items == without.items
    learned(items(shape))[:, -1].sum().backward()
    assert all(p.grad is not None for name, p in learned.named_parameters() if "potential" in name)


def test_the_potential_of_labels_is_a_number_for_each_and_that_of_a_vector_a_square():
    labels = make_encoder("one_hot", (), 3, potential="learned")
    with torch.no_grad():
        labels[-1].potential.copy_(torch.tensor([[0.5], [-1.0], [2.0]]))
    expected = torch.tensor([[0.0, 0.0, 1.0, 2.0], [1.0, 0.0, 0.0, 0.5]])
    assert torch.equal(labels(torch.tensor([2, 0])), expected)
    vector = make_encoder("identity", (2,), 2, mean=1.0, std=2.0, potential="learned")
    x = torch.tensor([[3.0, -5.0], [1.0, 1.0]])
    standard = (x - 1) / 2
    expected = -(standard @ vector[-1].potential.map.weight.T).square().sum(1) / 2
    torch.testing.assert_close(vector(x), torch.cat([standard, expected[:, None]], 1))


def test_a_square_is_exact_under_autocast():
    encoder = make_encoder("identity", (64,), 64, potential="learned")
    with torch.no_grad():
        encoder[-1].potential.map.weight.copy_(torch.eye(64))
    x = torch.full((1, 64), 1 + 2**-6)  # eight bits are enough for it, not for its square
    with torch.autocast("cpu", torch.bfloat16):
        found = encoder(x)
    assert found[0, -1].item() == -32 * (1 + 2**-6) ** 2


def test_one_sided_losses_have_the_potential_of_what_they_predict():
    for kind in ("conditional", "conditional_mmd"):
        assert potentials_of(kind, (2, 0)) == ("learned", "zero")
        assert potentials_of(kind, (0, 2)) == ("zero", "learned")
        assert potentials_of(kind, (1.9, 0.1)) == ("learned", "learned")
        assert potentials_of(kind, (2, 0), share=True) == ("learned", "learned")
    for kind in ("joint", "joint_mmd"):
        assert potentials_of(kind, (2, 0)) == ("learned", "learned")


def test_a_specification_names_potentials_where_the_tilting_has_them(make_shards):
    root, manifest = make_shards()

    def spec(*keys):
        return model_spec(load_config(ROOT / "configs" / "gaussian.yaml", (f"data.shards={root}", *keys)), manifest)

    plain, potentials = spec(), spec("model.tilting=potentials")
    assert "potential" not in plain["encoder_u"]
    assert potentials["encoder_u"] == plain["encoder_u"] | {"potential": "learned"}
    one_sided = spec("model.tilting=potentials", "loss.weight_u_given_v=0", "loss.weight_v_given_u=2")
    assert [one_sided[f"encoder_{name}"]["potential"] for name in "uv"] == ["zero", "learned"]
    model = build_model(one_sided)
    u = torch.randn(7, 12)
    assert not model.encode_u(u)[:, -1].any()
    assert model.encode_u(u).shape == (7, 6)
    assert model.features_u(u).shape == (7, 7)


SPEC = {
    "embedding_dim": 3,
    "encoder_u": {"kind": "mlp", "shape": [6], "widths": [8], "potential": "learned"},
    "encoder_v": {"kind": "linear", "shape": [6], "potential": "zero"},
    "tilting": "potentials",
    "temperature": {"initial": 0.5, "learned": True, "minimum": 0.01, "maximum": 10.0},
    "dtype": "float64",
}
OPTIMISATION = Optimisation(num_steps=10, learning_rate=0.01, weight_decay=0.1)


def test_one_network_has_one_potential():
    spec = SPEC | {"encoder_v": SPEC["encoder_u"] | {"mean": 2.0}, "share": True}
    model = build_model(spec)
    assert model.encoder_u[-1] is model.encoder_v[-1]
    x = torch.randn(5, 6, dtype=torch.float64)
    torch.testing.assert_close(model.encode_v(x), model.encode_u(x - 2))
    assert model.encode_u(x).shape == (5, 4)
    with pytest.raises(BadInputError, match="the potential of encoder_u is learned, that of encoder_v zero"):
        build_model(spec | {"encoder_v": SPEC["encoder_u"] | {"potential": "zero"}})


@pytest.mark.parametrize("kind", ["mlp", "linear", "identity", "one_hot"])
@pytest.mark.parametrize("potential", POTENTIALS)
def test_a_checkpoint_is_loaded(kind, potential, tmp_path):
    shape, dtype = ([], "uint8") if kind == "one_hot" else ([3], "float32")
    encoder = {"kind": kind, "shape": shape, "dtype": dtype, "potential": potential}
    spec = SPEC | {"encoder_u": encoder}
    model = build_model(spec, seed=1)
    state = TrainingState(model, make_optimizer(model, OPTIMISATION), step=1)
    save_checkpoint(tmp_path / "checkpoint_00000001", checkpoint_content(state, spec, "hash"))
    loaded = pcl.load(tmp_path)
    u = torch.arange(3) if kind == "one_hot" else torch.randn(4, 3)
    assert torch.equal(loaded.encode_u(u), model.encode_u(u).detach())
    wrong = copy.deepcopy(spec)
    wrong["encoder_u"]["potential"] = "cubic"
    save_checkpoint(tmp_path / "wrong", checkpoint_content(state, wrong, "hash"))
    with pytest.raises(BadInputError, match="the potential 'cubic' is not known; choose one of learned, zero"):
        pcl.load(tmp_path / "wrong")


def trained(workers):
    model = build_model(SPEC, seed=1)
    state = TrainingState(model, make_optimizer(model, OPTIMISATION))
    own = slice(workers.worker_rank * 16 // workers.num_workers, (workers.worker_rank + 1) * 16 // workers.num_workers)
    while state.step < OPTIMISATION.num_steps:
        generator = torch.Generator().manual_seed(state.step)
        u, v = (torch.randn(16, 6, generator=generator, dtype=torch.float64)[own] for _ in "uv")
        train_step(state, (u, v), make_loss("conditional", (2.0, 0.0)), OPTIMISATION, workers)
    u, v = torch.randn(2, 20, 6, generator=torch.Generator().manual_seed(-1), dtype=torch.float64)
    return model.conditional("u_given_v", u).weights(model.features_v(v))


def on_workers():
    from pcl.train.collectives import make_workers

    return trained(make_workers())


def test_the_number_of_workers_changes_no_conditional():
    """Weights may differ where no loss sees them: a constant cancels from every conditional."""
    alone = trained(OneWorker())
    for found in run_workers(on_workers, 2):
        torch.testing.assert_close(torch.from_numpy(found), alone, rtol=1e-9, atol=1e-12)


def variances(tilting):
    """Return the variances of u given v and of v given u of a fitted model, of a pair whose own are .36."""
    pair = GaussianPair(torch.eye(1), torch.full((1, 1), 0.8), torch.eye(1))
    u, v = (part.float().numpy() for part in pair.sample(4000, torch.Generator().manual_seed(0)))
    model = pcl.fit(
        u, v, embedding_dim=1, encoder_u="linear", encoder_v="linear", tilting=tilting, epochs=12, batch=512,
        learning_rate=0.1, show=False,
    )  # fmt: skip
    typical = np.full((1, 1), 0.5, np.float32)
    of_u = model.conditional("u_given_v", u).variance(model.features_v(typical), u)
    return of_u.item(), model.conditional("v_given_u", v).variance(model.features_u(typical), v).item()


def test_fitted_potentials_have_the_covariance_of_both_conditionals_and_inner_products_that_of_the_prior():
    assert variances("potentials") == pytest.approx((0.36, 0.36), abs=0.04)
    assert min(variances("inner_product")) > 0.8


def test_an_encoder_of_a_plugin_learns_its_potential_untold():
    generator = np.random.default_rng(0)
    u = generator.normal(size=(160, 3))
    model = pcl.fit(
        u, u[:, :2], embedding_dim=4, encoder_u="wide", encoder_v="linear", tilting="potentials", epochs=1, batch=32,
        plugins=[ROOT / "tests" / "plugins" / "mine.py"], show=False,
    )  # fmt: skip
    assert model.encode_u(u).shape == (160, 5)
    assert model.encoder_u[-1].layers[-1].out_features == 5
