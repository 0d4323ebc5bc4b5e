"""The Python interface takes what people have: lists, tables, seeds, raw items; what it cannot take has a remedy."""

import re

import numpy as np
import pandas as pd
import pytest
import torch
import xarray as xr

import pcl
from pcl.choice import draw
from pcl.encoders.build import build_model
from pcl.errors import BadInputError
from pcl.evaluation.calibration import calibration_ranks
from pcl.evaluation.drawing import images
from pcl.gaussian.pair import GaussianPair

U, V = np.random.default_rng(0).normal(size=(12, 3)), np.random.default_rng(1).normal(size=(12, 5))
LINEAR = {"kind": "linear", "mean": 0.0, "std": 1.0}
SPEC = {
    "embedding_dim": 3,
    "encoder_u": LINEAR | {"shape": [3]},
    "encoder_v": LINEAR | {"shape": [5]},
    "tilting": "inner_product",
    "temperature": {"initial": 1.0, "learned": False, "minimum": 0.1, "maximum": 10.0},
    "dtype": "float64",
}


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return build_model(SPEC)


@pytest.mark.parametrize(
    "kind", [np.asarray, lambda x: x.tolist(), pd.DataFrame, lambda x: xr.DataArray(x, dims=("time", "k"))]
)
def test_all_but_tensors_are_answered_with_arrays(model, kind):
    expected = model.features_v(torch.from_numpy(V))
    assert isinstance(expected, torch.Tensor)
    found = model.features_v(kind(V))
    np.testing.assert_array_equal(found, expected.detach())
    assert isinstance(found, np.ndarray)
    conditional = model.conditional("u_given_v", kind(U))
    for answer in (
        conditional.weights(found.tolist()),
        conditional.given(kind(V)),
        model.log_tilting(kind(U), kind(V)),
    ):
        assert isinstance(answer, np.ndarray)
    assert isinstance(conditional.weights(torch.from_numpy(found)), torch.Tensor)


@pytest.mark.parametrize(("direction", "items"), [("u_given_v", V), ("v_given_u", U)])
def test_a_conditional_knows_what_is_given(model, direction, items):
    conditional = model.conditional(direction, U if direction == "u_given_v" else V)
    features = (model.features_v if direction == "u_given_v" else model.features_u)(items)
    np.testing.assert_array_equal(conditional.given(items), features)
    with pytest.raises(ValueError, match="needed is"):  # the other modality, which features would not tell
        conditional.given(U if items is V else V)


def test_raw_items_are_sent_to_the_encoder(model):
    conditional = model.conditional("u_given_v", U)
    with pytest.raises(ValueError, match=re.escape("encode items first, with conditional.given(items)")):
        conditional.weights(V)
    with pytest.raises(ValueError, match="no encoder is known here"):
        pcl.Conditional(torch.eye(3), 1.0).given(V)


def test_a_single_one_is_proposed_only_where_the_rest_fits(model):
    conditional = model.conditional("u_given_v", U)
    for found, says in (((3,), True), ((4,), False), ((5,), False)):
        with pytest.raises(ValueError, match="needed is") as caught:
            conditional.weights(np.zeros(found))
        assert ("x[None]" in str(caught.value)) == says
    with pytest.raises(ValueError, match=re.escape("x[None]")):
        model.features_v(V[0])
    with pytest.raises(ValueError, match="reshape or choose"):
        model.features_v(U[0])


def drawers(model):
    conditional, queries = model.conditional("u_given_v", U), torch.eye(3, dtype=torch.float64)
    pair = GaussianPair(torch.eye(2).double(), 0.5 * torch.eye(2).double(), torch.eye(2).double())
    return {
        "sample": lambda generator: conditional.sample(queries, 5, generator),
        "draw": lambda generator: conditional.draw(queries, 5, generator, replacement=False),
        "weights": lambda generator: draw(torch.ones(2, 9), 5, generator),
        "pair": lambda generator: pair.sample(5, generator)[0],
        "ranks": lambda generator: calibration_ranks(torch.zeros(4, 9, 2), torch.zeros(4, 2), generator),
    }


@pytest.mark.parametrize("name", ["sample", "draw", "weights", "pair", "ranks"])
def test_a_seed_is_as_good_as_its_generator(model, name):
    drawer = drawers(model)[name]
    for seed in (0, np.int64(7)):
        assert torch.equal(drawer(seed), drawer(torch.Generator().manual_seed(int(seed))))
    for wrong in (np.random.default_rng(0), None, 0.5, True):
        with pytest.raises(ValueError, match="give a seed such as 0, or"):
            drawer(wrong)


def test_images_of_floats_are_drawn_without_a_word(caplog):
    from matplotlib.figure import Figure

    for scale in range(3, 13):  # in single precision the largest may exceed what it is in double precision
        items = scale / 10 * torch.rand(3, 3, 4, 4, generator=torch.Generator().manual_seed(scale)).double()
        figure = Figure()
        images(items).draw(figure.subplots(1, 3), torch.arange(3))
        figure.canvas.draw()
    assert "Clipping" not in caplog.text


def test_what_does_not_exist_is_said_to_be_so(tmp_path):
    from pcl.config.load import load_config

    with pytest.raises(BadInputError, match="does not exist: give a run, a checkpoint, or the folder of a model"):
        pcl.load(tmp_path / "nothing")
    with pytest.raises(BadInputError, match="does not exist: a run's folder is there once it is trained"):
        load_config(tmp_path / "runs" / "n3")
    with pytest.raises(BadInputError, match="does not exist: give a run file"):
        load_config(tmp_path / "run.yaml")
