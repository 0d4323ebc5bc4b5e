"""Frozen encoders: the program does not change, the head learns, and no file is loaded that nobody named."""

import hashlib
import pickle
from pathlib import Path

import pytest
import torch
from torch import nn

import pcl
from pcl.config.load import load_config
from pcl.encoders import ENCODERS, frozen, make_encoder
from pcl.encoders.frozen import Frozen, trust_program
from pcl.errors import BadInputError
from pcl.train.checkpoint import save_checkpoint
from pcl.train.session import Session

ROOT = Path(__file__).resolve().parents[2]


def export(path, network, items, dynamic=True):
    batch = {"dynamic_shapes": ({0: torch.export.Dim("batch")},)} if dynamic else {}
    torch.export.save(torch.export.export(network, (items,), **batch), path)
    return path


@pytest.fixture(scope="module")
def backbone():
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(12, 7), nn.Tanh()).eval()


@pytest.fixture(scope="module")
def program(backbone, tmp_path_factory):
    return export(tmp_path_factory.mktemp("programs") / "backbone.pt2", backbone, torch.zeros(2, 3, 4))


@pytest.fixture(autouse=True)
def nothing_trusted(monkeypatch):
    monkeypatch.setattr(frozen, "_TRUSTED", {})
    frozen._load.cache_clear()


def build(path, **settings):
    pinned = ENCODERS["frozen"].pinned({"program": str(path)})
    return make_encoder("frozen", (3, 4), 5, program=str(path), **pinned, **settings)


def test_features_are_those_of_the_program_and_only_the_head_learns(program, backbone):
    encoder = build(program, mean=5.0, std=2.0)  # the program takes what is stored
    items = torch.randint(0, 5, (6, 3, 4), dtype=torch.uint8)
    optimizer = torch.optim.Adam(encoder.parameters(), lr=0.1)
    for _ in range(3):
        with torch.no_grad():
            features = backbone(items.float())
        last = encoder[-1].head.layers[-1]
        torch.testing.assert_close(encoder(items), features @ last.weight.T + last.bias)
        encoder(items).square().sum().backward()
        optimizer.step()
    assert [tuple(p.shape) for p in encoder.parameters()] == [(5, 7), (5,)]
    assert all(p.grad.abs().sum() > 0 for p in encoder.parameters())


def test_items_that_are_features_are_standardised_and_need_no_program():
    encoder = make_encoder("frozen", (4,), 3, mean=1.0, std=2.0, widths=[6])
    items = torch.randn(5, 4)
    torch.testing.assert_close(encoder(items), encoder[1].head((items - 1) / 2))
    assert ENCODERS["frozen"].pinned({"program": None}) == {}


def test_no_program_is_loaded_that_nobody_named(program, monkeypatch):
    sha256 = hashlib.sha256(program.read_bytes()).hexdigest()
    monkeypatch.setattr(torch.export, "load", lambda *_: pytest.fail("it was loaded"))
    for named in (sha256, "", "z" * 64):
        with pytest.raises(BadInputError, match=r"needs the exported program .*backbone.pt2 with SHA-256"):
            Frozen((3, 4), 5, program=str(program), sha256=named)


def test_an_encoder_that_a_task_is_sent_finds_its_program(program, monkeypatch):
    encoder, items = build(program), torch.ones(2, 3, 4)
    expected, sent = encoder(items), pickle.dumps(encoder)
    monkeypatch.setattr(frozen, "_TRUSTED", {})
    frozen._load.cache_clear()
    assert torch.equal(pickle.loads(sent)(items), expected)


def test_a_program_that_is_trusted_is_found_wherever_its_file_lies(program, tmp_path):
    moved = tmp_path / "elsewhere.pt2"
    moved.write_bytes(program.read_bytes())
    sha256 = trust_program(moved)
    assert Frozen((3, 4), 5, program="/gone/backbone.pt2", sha256=sha256)(torch.zeros(2, 3, 4)).shape == (2, 5)


def test_weights_are_not_put_upon_another_program(program, tmp_path):
    torch.manual_seed(1)
    other = export(tmp_path / "other.pt2", nn.Sequential(nn.Flatten(), nn.Linear(12, 7)).eval(), torch.zeros(2, 3, 4))
    weights = build(program).state_dict()
    build(program).load_state_dict(weights)
    with pytest.raises(BadInputError, match="were trained upon the exported program with SHA-256"):
        build(other).load_state_dict(weights)


def test_a_file_that_changed_after_it_was_named_is_refused(program, tmp_path):
    path = tmp_path / "backbone.pt2"
    path.write_bytes(program.read_bytes())
    sha256 = trust_program(path)
    path.write_bytes(b"another")
    with pytest.raises(BadInputError, match="has changed since it was named"):
        Frozen((3, 4), 5, sha256=sha256)


def test_double_precision_is_that_of_the_head(program):
    torch.set_default_dtype(torch.float64)
    try:
        encoder = build(program)
        assert encoder(torch.zeros(2, 3, 4)).dtype == torch.float64
    finally:
        torch.set_default_dtype(torch.float32)


class Transposed(nn.Module):
    """Give something else than features of each item."""

    def forward(self, x):
        return x.transpose(0, 1)


ITEMS = torch.zeros(2, 3, 4)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: path.write_bytes(b"junk"), "is no exported program of one tensor"),
        (lambda path: export(path, nn.Flatten().eval(), ITEMS, dynamic=False), "any number of items"),
        (lambda path: export(path, nn.Flatten().eval(), torch.zeros(2, 5)), r"items of shape \(3, 4\)"),
        (lambda path: export(path, nn.BatchNorm1d(3), ITEMS), "changes as it runs"),
        (lambda path: export(path, nn.Dropout(), ITEMS), "draws random numbers"),
        (lambda path: export(path, Transposed(), ITEMS), "no features for each item"),
        (lambda path: None, "cannot be read"),
    ],
)
def test_what_is_no_program_of_such_items_is_refused_in_a_line(make, message, tmp_path):
    make(tmp_path / "p.pt2")
    with pytest.raises(BadInputError, match=message) as refused:
        build(tmp_path / "p.pt2")
    assert "\n" not in str(refused.value)


@pytest.fixture(scope="module")
def shards(make_shards):
    root, _ = make_shards(num_train=160, num_test=40)
    return root


def session(shards, path, resume_from=None):
    sizes = ("num_train=160", "num_test=40", "num_modes=20")
    overrides = [f"data.shards={shards}", "data.num_shards=8", "data.record_pairs=5"]
    overrides += [f"data.gaussian_process.{item}" for item in sizes]
    overrides += ["train.epochs=2", "train.global_batch=80", "train.checkpoint_every=1"]
    overrides += ["model.encoder_u=frozen", f"model.settings_u.program={path}", "model.encoder_v=frozen"]
    config = load_config(ROOT / "configs" / "gaussian.yaml", overrides)
    return Session(config, torch.device("cpu"), resume_from)


def test_a_run_file_names_a_program_and_whoever_loads_the_model_names_it_again(shards, tmp_path):
    path = export(tmp_path / "backbone.pt2", nn.Linear(12, 7).eval(), torch.zeros(2, 12))
    one, contents = session(shards, path), {}
    one.run(tmp_path, lambda step, scalars, content: contents.setdefault(step, content))
    for step, content in contents.items():
        save_checkpoint(tmp_path / f"checkpoint_{step:08d}", content)
    again = session(shards, path, tmp_path / "checkpoint_00000001")
    again.run(tmp_path, lambda *_: None)
    for name, value in one.state.model.state_dict().items():
        assert torch.equal(again.state.model.state_dict()[name], value)

    frozen._TRUSTED.clear()
    with pytest.raises(BadInputError, match=r"needs the exported program .*backbone.pt2 with SHA-256 .*trust_program"):
        pcl.load(tmp_path / "checkpoint_00000004")
    plugin = tmp_path / "mine.py"
    plugin.write_text(f"from pcl.encoders.frozen import trust_program\ntrust_program({str(path)!r})\n")
    loaded = pcl.load(tmp_path / "checkpoint_00000004", plugins=[plugin])
    u = torch.randn(3, 12)
    torch.testing.assert_close(loaded.encode_u(u), one.state.model.encode_u(u))

    export(path, nn.Linear(12, 7).eval(), torch.zeros(2, 12))  # another one in its place
    with pytest.raises(BadInputError, match="were trained upon the exported program with SHA-256"):
        session(shards, path, tmp_path / "checkpoint_00000001")
