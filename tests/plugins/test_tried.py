"""Mistakes in an encoder of one's own: a line before a training starts, and nothing is left of it."""

import numpy as np
import pytest
import torch

import pcl
from pcl.encoders.build import build_model
from pcl.errors import BadInputError, DamagedDataError
from pcl.objective import make_loss
from pcl.plugins.loading import load_plugins
from pcl.train.tried import tried_model, try_loss
from tests.plugins.test_plugins import (
    built,
    run_file,  # noqa: F401 - a fixture
    written,
)
from tests.typed import finish, start

ENCODER = """import torch
from torch import nn
import pcl

@pcl.encoder("own")
class Own(nn.Module):
    def __init__(self, {arguments}):
        super().__init__()
        self.layer = nn.Linear({layer})

    def forward(self, {taken}):
        return {returned}
"""
RIGHT = {
    "arguments": "shape, embedding_dim",
    "layer": "shape[0], embedding_dim",
    "taken": "x",
    "returned": "self.layer(x)",
}
SHAPES = "RuntimeError: mat1 and mat2 shapes cannot be multiplied (2x2 and 7x4)"
MISTAKES = [  # what differs from what is right, the line of the file, and what is said of it
    ({"layer": "7, embedding_dim"}, 12, f"fails on items (2, 2) of torch.float32, in {{}}, line 12: {SHAPES}"),
    ({"layer": "shape[0], 5"}, 11, "maps items (2, 2) of torch.float32 to (2, 5) of torch.float32, in"),
    ({"returned": "self.layer(x)[0]"}, 11, "maps items (2, 2) of torch.float32 to (4,) of torch.float32"),
    ({"returned": "self.layer(x)[:1]"}, 11, "maps items (2, 2) of torch.float32 to (1, 4) of torch.float32"),
    ({"returned": "self.layer(x).long()"}, 11, "maps items (2, 2) of torch.float32 to (2, 4) of torch.int64"),
    ({"returned": "(self.layer(x), x)"}, 11, "maps items (2, 2) of torch.float32 to a tuple"),
    ({"returned": "None"}, 11, "maps items (2, 2) of torch.float32 to a NoneType"),
    ({"taken": "x, y"}, 11, "fails on items (2, 2) of torch.float32, in {}, line 11: TypeError: "),
    ({"returned": "self.absent(x)"}, 12, "line 12: AttributeError: 'Own' object has no attribute 'absent'"),
    ({"arguments": "shape", "layer": "2, 4"}, 7, "cannot be built, in {}, line 7: TypeError: "),
    ({"layer": "shape, embedding_dim"}, 9, "cannot be built, in {}, line 9: TypeError: "),
    ({"layer": "1 / 0"}, 9, "cannot be built, in {}, line 9: ZeroDivisionError: division by zero"),
    ({"layer": "{}['x']"}, 9, "cannot be built, in {}, line 9: KeyError: 'x'"),
]
RULE = "the constructor gets shape=(2,), embedding_dim=4 and settings by name, and forward maps items (n, 2) to "


def pairs():
    values = np.random.default_rng(0).normal(size=(64, 2))
    return values, values[:, ::-1].copy()


def fit(path, **given):
    return pcl.fit(*pairs(), embedding_dim=4, epochs=1, batch=8, show=False, plugins=path, **given)


@pytest.mark.parametrize("side", ["encoder_u", "encoder_v"])
@pytest.mark.parametrize(("wrong", "line", "said"), MISTAKES)
def test_a_mistake_is_a_line_that_names_the_side_the_shape_and_the_line_of_the_file(tmp_path, wrong, line, said, side):
    path = written(tmp_path, ENCODER.format(**RIGHT | wrong))
    with pytest.raises(BadInputError) as caught:
        fit(path, **{side: "own"})
    message = str(caught.value)
    assert message.startswith(f"{side}=own "), message
    for part in (said.replace("{}", str(path), 1), f"{path}, line {line}: ", RULE):
        assert part in message
    assert "\n" not in message


def test_what_is_right_is_not_refused_and_has_the_bits_of_a_model_that_was_not_tried(tmp_path):
    counting = "super().__init__(); self.register_buffer('seen', torch.rand(()))"
    text = ENCODER.format(**RIGHT | {"returned": "self.seen.add_(torch.rand(())) * 0 + self.layer(x)"})
    load_plugins(written(tmp_path, text.replace("super().__init__()", counting)))
    for tilting, share in (("cosine", False), ("potentials", False), ("potentials", True)):
        side = {"kind": "own", "shape": [2]}
        tau = {"initial": 1.0, "learned": False, "minimum": 0.1, "maximum": 10.0}
        spec = {"embedding_dim": 4, "encoder_u": side, "encoder_v": side, "tilting": tilting, "temperature": tau}
        spec |= {"dtype": "float64", "share": share}
        generator = torch.get_rng_state()
        tried, plain = tried_model(spec, 3), build_model(spec, 3)
        assert torch.equal(generator, torch.get_rng_state())
        assert tried.training
        assert all(map(torch.equal, tried.state_dict().values(), plain.state_dict().values()))


def test_one_with_a_zero_potential_is_tried_without_it(tmp_path):
    load_plugins(written(tmp_path, ENCODER.format(**RIGHT)))
    options = {"options": {"loss.weight_u_given_v": 2.0, "loss.weight_v_given_u": 0.0}}
    assert fit((), encoder_u="own", encoder_v="own", tilting="potentials", **options).encode_u(pairs()[0]).shape == (
        64,
        5,
    )


def test_labels_come_as_they_are_stored(tmp_path):
    load_plugins(
        written(
            tmp_path,
            ENCODER.format(**RIGHT | {"layer": "1, 1", "returned": "self.rows[x.long()]"})
            .replace("super().__init__()", "super().__init__(); self.rows = nn.Parameter(torch.ones(3, embedding_dim))")
            .replace("class Own(nn.Module):", "class Own(nn.Module):\n    integer_input = True"),
        )
    )
    u, labels = pairs()[0], np.arange(64) % 3
    pcl.fit(u, labels, form_v="labels", encoder_v="own", embedding_dim=4, epochs=1, batch=8, show=False)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"layer": "1 / 0"}, "line 9: ZeroDivisionError: division by zero"),
        ({"layer": "absent"}, "line 9: NameError: name 'absent' is not defined"),
        ({"layer": "shape, embedding_dim"}, "line 9: TypeError: "),
    ],
)
def test_a_model_is_not_called_damaged_where_its_plugin_has_changed(tmp_path, wrong, said):
    path = written(tmp_path, ENCODER.format(**RIGHT))
    fit(path, encoder_u="own").save(tmp_path / "model")
    path.write_text(ENCODER.format(**RIGHT | wrong))
    with pytest.raises(BadInputError) as caught:
        pcl.load(tmp_path / "model", plugins=path)
    message = str(caught.value)
    assert f"model.encoder_u=own cannot be built, in {path}, {said}" in message, message
    assert message.endswith("or name the plugin as it was when the model was made")
    path.write_text(ENCODER.format(**RIGHT))
    pcl.load(tmp_path / "model", plugins=path)


def test_an_encoder_that_has_grown_says_what_older_models_are_without(tmp_path):
    path = written(tmp_path, ENCODER.format(**RIGHT))
    before = fit(path, encoder_u="own")
    before.save(tmp_path / "model")
    grown = ENCODER.format(**RIGHT | {"returned": "self.layer(x) + self.shift"})
    grown = grown.replace(
        "super().__init__()", "super().__init__(); self.shift = nn.Parameter(torch.ones(embedding_dim))"
    )
    path.write_text(grown)
    with pytest.raises(DamagedDataError, match="shift is missing"):
        pcl.load(tmp_path / "model", plugins=path)
    path.write_text(
        grown + "\n    @property\n    def of_older_records(self):\n        return {'shift': torch.zeros(4)}\n"
    )
    with pytest.warns(UserWarning, match="is not what"):
        after = pcl.load(tmp_path / "model", plugins=path)
    u, _ = pairs()
    np.testing.assert_array_equal(after.encode_u(u), before.encode_u(u))


LOSS = """import torch
import pcl

@pcl.loss("own_loss")
def own_loss(features_u, features_v, {arguments}):
    scores = features_u @ features_v.T / temperature
    return {returned}
"""
RIGHT_LOSS = {"arguments": "temperature, *, by: float = 1.0", "returned": "(by + scores).relu().mean()"}
LOSS_MISTAKES = [  # what differs from what is right, and what is said of it with the line
    ({"returned": "scores.diagonal() @ features_u[:3]"}, "fails, in {}, line 7: RuntimeError: "),
    ({"returned": "by * absent"}, "fails, in {}, line 7: NameError: name 'absent' is not defined"),
    ({"returned": "scores"}, "returns (8, 8) of torch.float32, in {}, line 4: "),
    ({"returned": "None"}, "returns a NoneType, in {}, line 4: "),
    ({"returned": "scores.argmax()"}, "returns () of torch.int64, in {}, line 4: "),
    ({"returned": "scores.detach().mean()"}, "returns a number that does not hang on the features by torch, in {}"),
    (
        {"returned": "scores.mean(), 'told'"},
        "fails, in {}, line 4: AttributeError: 'str' object has no attribute 'items'",
    ),
    ({"returned": "(scores.mean(), 1, 2)"}, "fails, in {}, line 4: ValueError: too many values to unpack"),
]


@pytest.mark.parametrize(("wrong", "said"), LOSS_MISTAKES)
def test_a_mistake_in_a_loss_is_a_line_with_its_place_and_the_rule(tmp_path, wrong, said):
    path = written(tmp_path, LOSS.format(**RIGHT_LOSS | wrong))
    with pytest.raises(BadInputError) as caught:
        fit(path, loss="own_loss")
    message = str(caught.value)
    assert said.replace("{}", str(path)) in message, message
    assert "gets this worker's features of u and of v, (8, 4) each, the temperature, workers= and its" in message
    assert "\n" not in message


def test_a_loss_that_is_right_is_tried_without_a_trace_and_may_tell_numbers(tmp_path):
    returned = "(by + scores + 0 * torch.rand(())).relu().mean(), {'largest': scores.max(), 'pairs': len(scores)}"
    path = written(tmp_path, LOSS.format(**RIGHT_LOSS | {"returned": returned}))
    generator = torch.get_rng_state()
    load_plugins(path)
    spec = {"embedding_dim": 4, "tilting": "potentials", "temperature": {"initial": 0.5}, "dtype": "float64"}
    try_loss("own_loss", make_loss("own_loss", settings={"by": 2.0}), spec, 5)
    assert torch.equal(generator, torch.get_rng_state())
    features = torch.ones(2, 3, 4)
    _, told = make_loss("own_loss")(*features, 1.0)
    assert (told["largest"].item(), told["pairs"].item()) == (4.0, 3)


@pytest.mark.process
@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("wrong", [{"layer": "7, embedding_dim"}, {"arguments": "shape", "layer": "2, 4"}])
def test_pcl_train_leaves_no_folder_and_goes_on_once_the_plugin_is_mended(run_file, wrong, workers):  # noqa: F811
    folder = run_file.parent
    text = run_file.read_text().replace("[mine.py]", "[mine.py, own.py]").replace("encoder_v: wide", "encoder_v: own")
    run_file.write_text(text)
    path = written(folder, ENCODER.format(**RIGHT), "own.py")
    built(run_file)
    path.write_text(ENCODER.format(**RIGHT | wrong))
    given = ("train", f"storage={folder}/runs", f"workers.num_workers={workers}")
    code, output, errors = finish(start(*given, config=str(run_file)))
    assert (code, errors.count("\n")) == (2, 1), errors
    assert f"in {path}, line " in errors
    assert "training" not in output
    assert not (folder / "runs").exists()
    if workers == 1:
        path.write_text(ENCODER.format(**RIGHT))
        code, output, errors = finish(start(*given, config=str(run_file)))
        assert code == 0, errors
