"""What the evaluation of Gaussian process pairs adds: the gap to the theory, and a picture of conditional means."""

__all__ = ["add_theory_gap", "conditional_means_figure"]

import numpy as np
from matplotlib.figure import Figure
from torch import Tensor

from pcl.errors import BadInputError
from pcl.evaluation.result import Evaluation
from pcl.evaluation.splits import Splits
from pcl.gaussian import DIRECTIONS, GaussianProcessPair, plug_in, relative_error
from pcl.model import PairModel
from pcl.problems.gaussian_process.theory_gap import (
    ConditionalMeans,
    closed_form_means,
    learned_means,
    pair_means,
    reference_errors,
)
from pcl.tilting import embeddings_of

NUM_QUERIES = 1000  # of a conditional that has no closed form


def add_theory_gap(result: Evaluation, model: PairModel, splits: Splits) -> None:
    """Compare conditional means with the exact ones, beside the plug-in estimator and the closed form.

    Raises:
        BadInputError: the law, or its estimate from so few pairs, has no inverse.
    """
    process, train = GaussianProcessPair(**splits.source["process"]), splits.read("train")
    try:
        law, estimate = process.law(), plug_in(train["u"], train["v"])
    except ValueError as error:
        raise BadInputError(f"the theory gap cannot be computed: {error}") from error
    means = {"exact": pair_means(law), "plug-in": pair_means(estimate)}
    learned = learned_means(model, law)
    if learned is not None:
        means["learned"] = learned
        loss, weights = splits.options.loss, splits.options.weights
        dim = embeddings_of(splits.features[0], model.tilting).shape[1]
        if loss in ("conditional", "joint"):  # the optimum of an MMD loss is known only by minimisation
            means["closed form"] = closed_form_means(law, dim, loss, model.tilting, weights)
    errors = {
        name: {direction: relative_error(maps[direction], law, direction) for direction in DIRECTIONS}
        for name, maps in means.items()
    }
    if learned is None:
        queries = (part[:NUM_QUERIES] for part in splits.items)
        errors["learned"] = reference_errors(model, law, train["u"], train["v"], *queries)
    by = "learned" if learned is not None else "learned, on the training pairs as references"
    _add_table(result, errors, by, len(train["u"]))
    if learned is not None:
        points = np.asarray(process.points)
        result.figures["conditional_means.png"] = conditional_means_figure(means, *splits.items, points)


def _add_table(result: Evaluation, errors: dict[str, dict[str, float]], by: str, num_train: int) -> None:
    table = [["relative squared error of the conditional mean", "E[u|v]", "E[v|u]"]]
    notes = {
        "learned": by,
        "plug-in": f"plug-in estimator, same {num_train:,} pairs",
        "closed form": "closed form, population optimum",
    }
    for name in (name for name in notes if name in errors):
        key = name.replace(" ", "_").replace("-", "_")
        result.metrics |= {f"{key}_relative_error_{d}": error for d, error in errors[name].items()}
        table.append([notes[name], *(f"{errors[name][d]:.5f}" for d in DIRECTIONS)])
    result.tables.append(table)


def conditional_means_figure(means: dict[str, ConditionalMeans], u: Tensor, v: Tensor, points: np.ndarray) -> Figure:
    """Draw E[u|v] of three pairs over the points of the process, and all of E[v|u] against the exact answer.

    Args:
        means: conditional means by name; ``exact`` is the reference.
        u: test values, shape (N, n).
        v: test coefficients, shape (N, m).
        points: positions of the components of u, shape (n,).
    """
    figure = Figure(figsize=(12, 3.4), layout="constrained")
    axes = figure.subplots(1, 4)
    styles = {"exact": ("k-", 1.5, 4), "learned": ("C0o", 1.0, 6), "plug-in": ("C1x", 1.0, 6)}
    for i, axis in enumerate(axes[: min(3, len(u))]):
        axis.plot(points, u[i], color="0.75", marker=".", lw=1, label="observed u")
        for name, (style, width, size) in styles.items():
            axis.plot(points, means[name]["u_given_v"](v[i : i + 1].double())[0], style, lw=width, ms=size, label=name)
        axis.set(title=f"E[u | v], test pair {i}", xlabel="x")
    axes[0].legend(fontsize=8)
    exact = means["exact"]["v_given_u"](u[:500].double()).flatten()
    for name, colour, marker in (("plug-in", "C1", "x"), ("learned", "C0", ".")):
        error = means[name]["v_given_u"](u[:500].double()).flatten() - exact
        axes[3].plot(exact, error, colour + marker, ms=3, alpha=0.5, label=name)
    axes[3].axhline(0, color="k", lw=1)
    axes[3].set(title="E[v | u]: estimate - exact", xlabel="exact")
    axes[3].legend(fontsize=8)
    return figure
