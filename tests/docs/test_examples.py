"""Scripts and the notebook of docs/examples run, on fewer pairs, and what they print is so."""

import json
import math

import numpy as np
import pytest
from sklearn.linear_model import LinearRegression

from tests.docs.page import EXAMPLES, example

NOTEBOOK = EXAMPLES / "conditional.ipynb"
MOST_BYTES = 50_000


@pytest.fixture(scope="module")
def arrays():
    return example("fit_arrays")


@pytest.mark.long
def test_learned_lies_between_linear_and_exact(arrays, capsys):
    errors = arrays.main(num_pairs=1600, epochs=15)
    mean, linear, learned, exact = errors.values()
    assert exact < learned < 0.7 * linear < linear < mean
    assert exact > arrays.NOISE  # of u, which nobody can predict
    assert capsys.readouterr().out.count("\n") == len(errors)


def test_the_linear_prediction_is_that_of_another_package(arrays):
    u, v, _ = arrays.make_pairs(50)
    np.testing.assert_allclose(arrays.linear(v, u, v[:5] + 1), LinearRegression().fit(v, u).predict(v[:5] + 1))


def test_the_exact_mean_is_that_of_many_draws_from_the_law(arrays):
    """Draws of places, weighted by how likely they make v, are another way to the mean."""
    _, v, _ = arrays.make_pairs(3, seed=5)
    gauges, beacons = arrays.without_noise(np.random.default_rng(1).uniform(-1, 1, (400_000, 2)))
    log_weights = -((v[:, None] - beacons) ** 2).sum(-1) / (2 * arrays.NOISE**2)
    weights = np.exp(log_weights - log_weights.max(1, keepdims=True))
    np.testing.assert_allclose(arrays.exact(v), weights @ gauges / weights.sum(1, keepdims=True), atol=0.01)


def test_a_loop_of_ones_own_learns(capsys):
    last = example("own_loop").main(steps=40, size=64)
    assert -math.log(64) < last < -0.3  # 0 is a model that tells nothing apart
    assert f"step 40: loss {last:.6f}" in capsys.readouterr().out


def test_the_notebook_runs_and_its_conditional_is_drawn(monkeypatch):
    monkeypatch.syspath_prepend(str(EXAMPLES))
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot

    content = json.loads(NOTEBOOK.read_text())
    code = "\n".join("".join(cell["source"]) for cell in content["cells"] if cell["cell_type"] == "code")
    for whole, part in (("make_pairs(5000)", "make_pairs(400)"), ("epochs=30", "epochs=2")):
        assert code.count(whole) == 1
        code = code.replace(whole, part)
    space = {}
    exec(compile(code, NOTEBOOK.name, "exec"), space)
    pyplot.close(space["figure"])
    assert space["drawn"].shape == (3, 200)
    assert space["mean"].shape == space["spread"].shape == (3, 2)
    inside = np.abs(space["mean"]) <= 1
    assert inside.all()


def test_the_notebook_is_small_and_tells_nothing_of_who_ran_it():
    text = NOTEBOOK.read_text()
    content = json.loads(text)
    assert len(text) < MOST_BYTES
    assert set(content["metadata"]) == {"kernelspec", "language_info"}
    assert all(cell["metadata"] == {} for cell in content["cells"])
