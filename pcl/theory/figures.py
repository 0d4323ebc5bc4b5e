"""Pictures of the theory check, each with a caption."""

__all__ = ["Picture", "draw"]

import re
from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from pcl.evaluation.calibration import Calibration
from pcl.evaluation.calibration_figure import calibration_figure
from pcl.gaussian import DIRECTIONS, GaussianPair
from pcl.theory.cells import Cell
from pcl.theory.plan import TILTINGS, Result
from pcl.theory.plane import (
    PLANE,
    PlanarModel,
    cosine_conditional,
    cosine_joint,
    normal_density,
    pair_density,
    planar_model,
)
from pcl.theory.ranks import NUM_DRAWS
from pcl.theory.verdicts import Results, loss_title, pick, title

GRID = torch.linspace(-4, 4, 400, dtype=torch.float64)  # even: no point at 0, where the sign has a jump
GIVEN = 1.0
STYLES = {"truth": "k-", "closed form": "C0-", "trained": "C1--"}
SERIES = {"ours": ("our recipe", "C0o-"), "paper": ("the paper's recipe", "C3s-")}


class Picture(NamedTuple):
    """A figure: the experiment it belongs to, its file name and what it shows."""

    experiment: str
    name: str
    figure: Figure
    caption: str


def draw(law: GaussianPair, results: Results) -> list[Picture]:
    """Draw everything that the results allow.

    Args:
        law: of the Gaussian process that the results are about.
        results: tasks with what they returned.
    """
    return [picture for function in PICTURES for picture in function(law, results)]


def _densities(law: GaussianPair, results: Results) -> Iterator[Picture]:
    models = [(cell, found) for cell, found in pick(results, "plane")]
    names = {
        ("conditional", "inner_product"): (
            "figure_2_inner_product_conditional",
            "means exact, variances those of the prior",
        ),
        ("conditional", "squared_distance"): ("figure_3_squared_distance_one_sided", "u given v exact, v given u not"),
        ("joint", "inner_product"): (
            "figure_4_inner_product_joint",
            "conditionals less exact, marginals nearer to the truth",
        ),
    }
    for cell, found in models:
        name, what = names[cell.loss, cell.tilting]
        laws = {
            "closed form": planar_model(found["best_encoders"], cell.tilting),
            "trained": planar_model(found["learned_encoders"], cell.tilting),
        }
        caption = f"{title(cell)}: {what}. Truth, the model of the best encoders, and of encoders trained on samples."
        yield Picture("plane", f"{name}.png", _four_densities(laws), caption)


def _four_densities(laws: dict[str, PlanarModel]) -> Figure:
    figure = Figure(figsize=(12, 3), layout="constrained")
    pairs = {"truth": PLANE} | {name: model.joint for name, model in laws.items()}
    for axis, what in zip(figure.subplots(1, 4), ("u | v = 1", "v | u = 1", "u", "v"), strict=True):
        for name, pair in pairs.items():
            mean, variance = _moments(pair, what)
            axis.plot(GRID, normal_density(GRID, mean, variance), STYLES[name], label=name)
        axis.set(title=f"density of {what}", xlabel=what[0])
    figure.axes[0].legend(fontsize=8)
    return figure


def _moments(pair: GaussianPair, what: str) -> tuple[float, float]:
    """Return mean and variance of a conditional at 1, or of a marginal."""
    if "|" not in what:
        return 0.0, (pair.c_uu if what == "u" else pair.c_vv).item()
    mean, covariance = pair.conditional("u_given_v" if what[0] == "u" else "v_given_u")
    return mean.matrix.item() * GIVEN, covariance.item()


def _joint_densities(law: GaussianPair, results: Results) -> Iterator[Picture]:
    densities = {"truth": pair_density(PLANE, GRID)}
    for cell, found in pick(results, "plane"):
        model = planar_model(found["learned_encoders"], cell.tilting)
        densities[f"{loss_title(cell)}\n{cell.tilting.replace('_', ' ')}"] = pair_density(model.joint, GRID)
    if len(densities) > 1:
        yield Picture(
            "plane",
            "figure_5_joint_densities.png",
            _contours(densities),
            "Joint densities, the models trained on samples.",
        )


def _contours(densities: dict[str, Tensor]) -> Figure:
    figure = Figure(figsize=(3.1 * len(densities), 3.2), layout="constrained")
    levels = torch.linspace(0.01, 0.14, 8)
    for axis, (name, density) in zip(figure.subplots(1, len(densities), sharey=True), densities.items(), strict=True):
        axis.contour(GRID, GRID, density.T, levels=levels)
        axis.set(title=name, xlabel="u", aspect="equal", xlim=(-3.5, 3.5), ylim=(-3.5, 3.5))
        axis.title.set_fontsize(10)
    figure.axes[0].set_ylabel("v")
    return figure


def _cosine(law: GaussianPair, results: Results) -> Iterator[Picture]:
    for _, found in pick(results, "cosine"):
        figure = Figure(figsize=(9, 3.4), layout="constrained")
        left, middle, right = figure.subplots(1, 3)
        strengths = {"closed form": found["best_strength"], "trained": found["learned_strength"]}
        mean, variance = _moments(PLANE, "u | v")
        left.plot(GRID, normal_density(GRID, mean, variance), STYLES["truth"], label="truth")
        for name, strength in strengths.items():
            left.plot(GRID, cosine_conditional(PLANE, strength, GRID, GIVEN), STYLES[name], label=name)
        left.set(title="density of u | v = 1", xlabel="u")
        left.legend(fontsize=8)
        for axis, name, density in (
            (middle, "truth", pair_density(PLANE, GRID)),
            (right, "trained", cosine_joint(PLANE, found["learned_strength"], GRID)),
        ):
            axis.pcolormesh(GRID, GRID, density.T, vmin=0, vmax=0.15)
            axis.set(title=f"joint density, {name}", xlabel="u", ylabel="v", aspect="equal")
        caption = "Cosine tilting: linear encoders of a number see its sign only, so the density jumps at zero."
        yield Picture("cosine", "figure_6_cosine.png", figure, caption)


def _optima(law: GaussianPair, results: Results) -> Iterator[Picture]:
    panels: dict[str, list[tuple[Cell, Result]]] = {}
    for cell, found in pick(results, "optima"):
        panels.setdefault(loss_title(cell), []).append((cell, found))
    if not panels:
        return
    figure = Figure(figsize=(12, 6.2), layout="constrained")
    axes = figure.subplots(2, 4, sharex=True).flatten()
    for axis in axes[len(panels) :]:
        axis.set_axis_off()
    for axis, (name, cells) in zip(axes, sorted(panels.items()), strict=False):
        for i, tilting in enumerate(TILTINGS):
            chosen = [(c.embedding_dim, r) for c, r in cells if c.tilting == tilting]
            ranks, label = [rank for rank, _ in chosen], tilting.replace("_", " ")
            axis.plot(ranks, [r["best_loss"] for _, r in chosen], f"C{i}-", label=f"{label}, best")
            axis.plot(
                ranks, [r["learned_loss"] for _, r in chosen], f"C{i}o", mfc="none", ms=8, label=f"{label}, trained"
            )
        axis.set(title=name, ylim=(0, None), xticks=sorted({c.embedding_dim for c, _ in cells}))
    axes[0].legend(fontsize=8)
    figure.supxlabel("rank")
    figure.supylabel("population loss, 0 is perfect")
    caption = (
        "Every loss and tilting by rank: encoders trained on samples (circles) and the best ones of that rank (lines)."
    )
    yield Picture("optima", "optima.png", figure, caption)


def _sweep(field: str, number: int, label: str, reference: str) -> Callable[[GaussianPair, Results], Iterator[Picture]]:
    """Draw the errors of both conditional means over a field, beside those of a reference."""

    def function(law: GaussianPair, results: Results) -> Iterator[Picture]:
        if not pick(results, field):
            return
        figure = Figure(figsize=(9, 3.6), layout="constrained")
        for axis, direction in zip(figure.subplots(1, 2), DIRECTIONS, strict=True):
            for series, (name, style) in SERIES.items():
                curve = pick(results, field, series)
                axis.plot(*_curve(curve, field, f"learned_error_{direction}"), style, label=name)
            curve = pick(results, field, "ours")
            axis.plot(*_curve(curve, field, f"{reference}_error_{direction}"), "k:", label=REFERENCES[reference])
            _name_axes(axis, direction, label, [getattr(cell, field) for cell, _ in curve])
        figure.axes[0].legend(fontsize=8)
        caption = f"Relative squared error of both conditional means over the {label}, two-sided loss, inner product."
        yield Picture(field, f"figure_{number}_{field}.png", figure, caption)

    return function


REFERENCES = {"best": "best encoders of the rank", "plug_in": "plug-in estimator, same pairs"}


def _curve(curve: list[tuple[Cell, Result]], field: str, key: str) -> tuple[list[int], list[float]]:
    shown = [(getattr(cell, field), found[key]) for cell, found in curve if found[key] > 1e-12]  # not where it is zero
    return [x for x, _ in shown], [y for _, y in shown]


def _name_axes(axis: Axes, direction: str, label: str, values: list[int]) -> None:
    axis.set(title=f"E[{direction.replace('_given_', ' | ')}]", ylabel="relative squared error", yscale="log")
    axis.set(xlabel=label, xscale="log" if values[-1] > 2 * values[0] + 10 else "linear")
    axis.minorticks_off()
    axis.set_xticks(values, [f"{value:,}" for value in values])


def _negatives(law: GaussianPair, results: Results) -> Iterator[Picture]:
    if not pick(results, "negatives"):
        return
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    for axis, direction in zip(figure.subplots(1, 2), DIRECTIONS, strict=True):
        for series, (name, style) in {
            "own": ("two workers, each its own B/2 pairs", "C3s-"),
            "gathered": ("two workers that gather, or one: B pairs", "C0o-"),
        }.items():
            curve = pick(results, "negatives", series)
            axis.plot(*_curve(curve, "global_batch", f"learned_error_{direction}"), style, label=name)
        axis.plot(*_curve(curve, "global_batch", f"plug_in_error_{direction}"), "k:", label=REFERENCES["plug_in"])
        _name_axes(axis, direction, "global batch B", [cell.global_batch for cell, _ in curve])
    figure.axes[0].legend(fontsize=8)
    pairs = pick(results, "negatives")[0][0].num_pairs
    caption = (
        f"The bias of few negatives, apart from the noise of few samples ({pairs:,} pairs, converged): "
        "gathering moves the curve by a factor of two in B."
    )
    yield Picture("negatives", "figure_9_gathered_negatives.png", figure, caption)


def _calibration(law: GaussianPair, results: Results) -> Iterator[Picture]:
    losses: dict[str, list[tuple[Cell, Result]]] = {}
    for cell, found in pick(results, "calibration"):
        losses.setdefault(loss_title(cell), []).append((cell, found))
    for loss, cells in losses.items():
        for direction in DIRECTIONS:
            words = direction.replace("_", " ")
            columns = {
                f"{loss}\n{cell.tilting.replace('_', ' ')}, {words}": Calibration(
                    torch.tensor(found[f"learned_{direction}"]["ranks"]), NUM_DRAWS
                )
                for cell, found in cells
            }
            caption = f"Ranks of the truth among draws of the trained conditional of {words}: flat where it is exact."
            name = f"calibration_{re.sub('[^a-z0-9]+', '_', loss).strip('_')}_{direction}.png"
            yield Picture("calibration", name, calibration_figure(columns), caption)


PICTURES = (
    _densities,
    _joint_densities,
    _cosine,
    _optima,
    _sweep("embedding_dim", 8, "embedding dimension E", "best"),
    _sweep("global_batch", 9, "global batch B", "plug_in"),
    _negatives,
    _sweep("num_pairs", 10, "number of pairs N", "plug_in"),
    _calibration,
)
