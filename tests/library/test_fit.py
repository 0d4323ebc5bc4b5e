"""pcl.fit: the same training as a job's, judged by what is known of the pairs."""

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import pcl
from pcl.config.identity import data_identity
from pcl.config.load import load_config
from pcl.data.shards import build_all
from pcl.errors import BadInputError
from pcl.library.arguments import KEY
from pcl.library.fit import fit
from pcl.train.parts import make_source
from pcl.train.session import Session

RUN = """
name: same
data:
  source: arrays
  seed: 3
  shards: {folder}/shards
  arrays: {{u: {folder}/u.npy, v: {folder}/v.npy}}
model: {{embedding_dim: 5, encoder_u: mlp, encoder_v: linear, settings_u: {{widths: [16]}}}}
train: {{epochs: 3, global_batch: 64, learning_rate: 0.01, weight_decay: 0.1}}
seed: 3
"""


PLUGIN = """
import torch, pcl

@pcl.encoder("thirds")
class Thirds(torch.nn.Module):
    def __init__(self, shape, embedding_dim):
        super().__init__()
        self.out = torch.nn.Linear(3, embedding_dim)

    def forward(self, x):
        return self.out(x / 3)
"""


def pairs(number=640, seed=0):
    generator = np.random.default_rng(seed)
    v = generator.normal(size=(number, 2))
    u = np.tanh(v @ [[1.0, 0.5, -1.0], [0.0, 2.0, 1.0]]) + 0.1 * generator.normal(size=(number, 3))
    return u, v


def test_it_trains_as_the_jobs_do_to_the_bit(tmp_path):
    u, v = pairs()
    np.save(tmp_path / "u.npy", u)
    np.save(tmp_path / "v.npy", v)
    (tmp_path / "run.yaml").write_text(RUN.format(folder=tmp_path))
    config = load_config(tmp_path / "run.yaml")
    source = make_source(config)
    build_all(Path(config.data.shards), source, data_identity(config), config.data.num_shards, config.data.record_pairs)
    session = Session(config, torch.device("cpu"))
    session.train(lambda step, scalars: None, lambda state, scalars: None)
    chosen = {"encoder_v": "linear", "settings_u": {"widths": [16]}, "options": {"train.weight_decay": 0.1}}
    model = fit(u, v, embedding_dim=5, epochs=3, batch=64, learning_rate=0.01, seed=3, show=False, **chosen)
    for name, value in session.state.model.state_dict().items():
        assert torch.equal(model.state_dict()[name], value), name


def test_the_learned_conditional_finds_what_is_known():
    """E[u|v] is tanh of a linear map: the learned conditional mean leaves much less of unseen u than a linear one."""
    u, v = pairs(4000)
    model = fit(u, v, embedding_dim=16, epochs=30, seed=1, show=False)
    new_u, new_v = pairs(300, seed=1)
    conditional = model.conditional("u_given_v", u)
    mean = conditional.mean(model.features_v(new_v), u)
    assert isinstance(mean, np.ndarray)
    left = np.square(mean - new_u).mean() / new_u.var()
    linear = np.square(new_v @ np.linalg.lstsq(v, u, rcond=None)[0] - new_u).mean() / new_u.var()
    assert left < 0.5 * linear, (left, linear)


def test_tensors_images_labels_and_groups():
    generator = np.random.default_rng(0)
    labels = np.repeat(np.arange(4), 40)
    images = (60 * labels[:, None, None] + generator.integers(0, 30, (160, 8, 8))).astype(np.uint8)
    model = fit(
        torch.from_numpy(images), labels, form_u="image", form_v="labels", encoder_v="one_hot", embedding_dim=4,
        batch=32, epochs=2, groups=np.arange(160) // 2, show=False,
    )  # fmt: skip
    assert model.conditional("v_given_u", np.arange(4)).weights(model.features_u(images)).shape == (160, 4)


def test_a_model_is_saved_and_loaded(tmp_path):
    u, v = pairs(320)
    model = fit(u, v, epochs=1, batch=32, show=False)
    model.save(tmp_path / "model")
    again = pcl.load(tmp_path / "model")
    np.testing.assert_array_equal(again.encode_u(u), model.encode_u(u))
    assert sorted(path.name for path in (tmp_path / "model").iterdir()) == ["model.json", "model.safetensors"]


def test_progress_and_the_loss_of_validation_are_shown(capsys):
    u, v = pairs(320)
    fit(u, v, epochs=2, batch=32)
    shown = capsys.readouterr().err
    assert re.fullmatch(r"(epoch [12]/2: loss -?\d\.\d{4}, of validation -?\d\.\d{4}\n){2}", shown)
    fit(u, v, epochs=25, batch=32)
    assert [line.split(":")[0] for line in capsys.readouterr().err.splitlines()] == [
        f"epoch {epoch}/25" for epoch in (3, 6, 9, 12, 15, 18, 21, 24, 25)
    ]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"batch": 20}, "batch=20: it must be a multiple of 8"),
        ({"device": "mps"}, "device=mps cannot be used here"),
        ({"encoder_u": "mpl"}, "text, frozen, lenet, or for special kinds of pairs learned_inverse"),
        ({"settings_u": {"width": 3}}, "no such setting: it has widths"),
        ({"options": {"train.wieght_decay": 1}}, "the nearest is train.weight_decay"),
        ({"loss": "contrast"}, "of your own needs the file that registers it, plugins=['that_plugin.py']"),
        ({"learning_rate": -1}, "learning_rate=-1"),
        ({"validation": 0.001}, "another split, validation or gap"),
        ({"options": {"train": {"weight_dekay": 1}}}, "the nearest is train.weight_decay"),
        ({"options": {"train": {"epochs": 2}}}, "options give train.epochs, which epochs of fit says"),
        ({"options": {"train.global_batch": 8}}, "options give train.global_batch, which batch of fit says"),
        ({"options": {"model": {"settings_u": {"widths": [8]}}}}, "which settings_u of fit says"),
        ({"options": {"data": {"arrays": {"u": "u.npy"}}}}, "options give data.arrays.u"),
        ({"options": {"name": "mine"}}, "options give name, which fit itself sets"),
        ({"options": {"train.epochs": 2, "train": {"epochs": 2}}}, "options give train.epochs twice"),
        ({"options": {"train.validation_fraction": 0.001}}, "choose a smaller batch"),
        ({"missing": "leave"}, "missing=leave: choose one of refuse, mask"),
        ({"encoder_u": torch.nn.Linear(3, 5)}, "encoder_u of type Linear: needed is a name; register a class"),
        ({"loss": print}, '@pcl.loss("mine") and give loss="mine"'),
        ({"u": np.where(np.arange(640)[:, None] == 7, np.nan, np.ones((640, 3)))}, "out with missing='mask'"),
        ({"v": np.zeros((5, 2))}, "640"),
        ({"v": np.array(["a"] * 640)}, "v"),
        ({"u": np.full((640, 2), np.nan)}, "NaN"),
    ],
)
def test_mistakes_end_in_a_sentence(change, said):
    u, v = pairs()
    with pytest.raises(BadInputError) as caught:
        fit(**({"u": u, "v": v, "show": False, "epochs": 1} | change))
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith("options give") or not KEY.search(str(caught.value))


def test_options_are_the_same_nested_or_not_and_pairs_with_nan_are_left_out():
    u, v = pairs(320)
    u[7] = np.nan
    of = {"epochs": 2, "batch": 32, "show": False, "missing": "mask"}
    nested, plain = (
        fit(u, v, options=options, **of).state_dict()
        for options in ({"train": {"weight_decay": 0.1}}, {"train.weight_decay": 0.1})
    )
    assert all(torch.equal(nested[name], value) for name, value in plain.items())
    without = fit(np.nan_to_num(u), v, **of | {"missing": "refuse"}).state_dict()
    assert any(not torch.equal(without[name], value) for name, value in plain.items())


def test_one_plugin_may_be_given_as_a_text(tmp_path):
    (tmp_path / "mine.py").write_text(PLUGIN)
    u, v = pairs(320)
    fit(u, v, epochs=1, batch=32, encoder_u="thirds", plugins=str(tmp_path / "mine.py"), show=False).save(
        tmp_path / "model"
    )
    for plugins in (str(tmp_path / "mine.py"), tmp_path / "mine.py", [tmp_path / "mine.py"]):
        assert pcl.load(tmp_path / "model", plugins=plugins).encode_u(u[:2]).shape == (2, 16)


@pytest.mark.process
def test_five_lines_in_a_fresh_process(tmp_path):
    code = """
import numpy as np, pcl
v = np.random.default_rng(0).normal(size=(400, 2)); u = np.sin(v @ np.ones((2, 3)))
model = pcl.fit(u, v, epochs=2)
conditional = model.conditional("u_given_v", u)
print(conditional.mean(model.features_v(v[:1]), u).shape)
"""
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, check=True)
    assert found.stdout == "(1, 3)\n"
    assert not [*tmp_path.iterdir()]
