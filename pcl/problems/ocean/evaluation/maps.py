"""Maps of estimated currents beside the true ones, and pictures of their scores.

Shapes: D drifters, P positions, H x W grid points.
"""

__all__ = ["MapRow", "maps_figure", "scores_figure"]

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from torch import Tensor

from pcl.problems.ocean.evaluation.background import land_patch, missing_patch, paint
from pcl.problems.ocean.evaluation.member_drift import WITHIN_KM

COAST, TRACK = "#5b5446", "#e8432e"
FINE = 8  # parts of a cell in the line of the coast


@dataclass(frozen=True)
class MapRow:
    """One moment of one window.

    Attributes:
        truth: m/s, shape (2, H, W), NaN on land and where water has no value.
        mean: likewise.
        std: likewise.
        wet: where there is water, shape (H, W).
        latitude: degrees north, shape (H,).
        longitude: degrees east, shape (W,).
        tracks: degrees east and north, shape (D, P, 2), NaN where missing.
        title: of the row.
    """

    truth: Tensor
    mean: Tensor
    std: Tensor
    wet: Tensor
    latitude: Tensor
    longitude: Tensor
    tracks: Tensor
    title: str


def maps_figure(rows: Sequence[MapRow]) -> Figure:
    """Draw, for every row, the truth with the drifters, the posterior mean, its spread and its error.

    Land is painted from the mask; water without a value, which cannot be told from the currents, is hatched.
    """
    figure = Figure(figsize=(12.4, 3.1 * len(rows) + 0.6), layout="constrained")
    grid = figure.subplots(len(rows), 4, squeeze=False)
    titles = ("truth, and the drifters", "posterior mean", "posterior spread", "error of the mean")
    for axis, title in zip(grid[0], titles, strict=True):
        axis.set_title(title, fontsize=11, fontweight="bold", pad=8)
    for axes, row in zip(grid, rows, strict=True):
        _draw_row(figure, axes, row)
    figure.legend(handles=_legend(rows), loc="outside lower center", ncols=3, fontsize=9, frameon=False)
    return figure


def _legend(rows: Sequence[MapRow]) -> list[Any]:
    track = Line2D([], [], color=TRACK, lw=1.6, marker="o", ms=5, mec="white", mew=0.9)
    track.set_label("track of a drifter; the dot marks its release")
    entries: list[Any] = [track]
    if not all(bool(row.wet.all()) for row in rows):
        entries.append(land_patch())
    if any(bool((row.truth.isnan().any(0) & row.wet).any()) for row in rows):
        entries.append(missing_patch())
    return entries


def _draw_row(figure: Figure, axes: Any, row: MapRow) -> None:
    speed, estimated = _magnitude(row.truth), _magnitude(row.mean)
    spread, error = _magnitude(row.std), _magnitude(row.mean - row.truth)
    fast = float(np.nanquantile(np.stack([speed, estimated]), 0.99))
    wrong = float(np.nanquantile(np.stack([spread, error]), 0.99))
    currents = {"cmap": "viridis", "vmin": 0, "vmax": fast}
    doubts = {"cmap": "magma_r", "vmin": 0, "vmax": wrong}
    panels = (
        (speed, row.truth, currents),
        (estimated, row.mean, currents),
        (spread, None, doubts),
        (error, None, doubts),
    )
    shown = []
    for axis, (values, arrows, style) in zip(axes, panels, strict=True):
        _draw_map(axis, row)
        shown.append(axis.pcolormesh(row.longitude, row.latitude, values, shading="nearest", zorder=1, **style))
        if arrows is not None:
            _draw_arrows(axis, row, arrows, fast)
    _draw_tracks(axes[0], row)
    for i, label in ((1, "speed, m s$^{-1}$"), (3, "m s$^{-1}$")):
        bar = figure.colorbar(shown[i], ax=axes[i - 1 : i + 1].tolist(), pad=0.015, aspect=18, extend="max")
        bar.set_label(label, fontsize=9)
        bar.ax.tick_params(labelsize=8)
        bar.outline.set_visible(False)
    axes[0].set_ylabel(row.title, fontsize=9)


def _magnitude(velocity: Tensor) -> np.ndarray:
    magnitude: np.ndarray = velocity.norm(dim=0).numpy()
    return magnitude


def _draw_map(axis: Any, row: MapRow) -> None:
    """Draw land, the coast between dry and wet points, and axes in degrees."""
    paint(axis, row.wet, row.longitude, row.latitude)
    if not row.wet.all():
        fine = np.kron(row.wet.numpy(), np.ones((FINE, FINE)))  # the coast follows the edges of the cells
        x, y = (_fine(grid) for grid in (row.longitude, row.latitude))
        axis.contour(x, y, fine, levels=[0.5], colors=COAST, linewidths=1.2, zorder=4)
    margin = [float(grid[1] - grid[0]) / 2 for grid in (row.longitude, row.latitude)]
    axis.set_xlim(float(row.longitude[0]) - margin[0], float(row.longitude[-1]) + margin[0])
    axis.set_ylim(float(row.latitude[0]) - margin[1], float(row.latitude[-1]) + margin[1])
    axis.set_aspect(1 / np.cos(np.deg2rad(float(row.latitude.mean()))))
    axis.locator_params(nbins=4)
    axis.xaxis.set_major_formatter(lambda x, _: _degrees((x + 180) % 360 - 180, "E", "W"))
    axis.yaxis.set_major_formatter(lambda y, _: _degrees(y, "N", "S"))
    axis.tick_params(labelsize=8, length=2)
    for spine in axis.spines.values():
        spine.set(color="0.4", linewidth=0.6)


def _fine(grid: Tensor) -> np.ndarray:
    places = (np.arange(FINE * len(grid)) + 0.5) / FINE - 0.5  # in cells from the first point
    return float(grid[0]) + float(grid[1] - grid[0]) * places


def _degrees(value: float, positive: str, negative: str) -> str:
    return f"{abs(value):g}°{positive if value > 0 else negative if value < 0 else ''}"


def _draw_arrows(axis: Any, row: MapRow, velocity: Tensor, fast: float) -> None:
    some = slice(None, None, max(1, round(len(row.latitude) / 9)))
    east, north = velocity[:, some, some].numpy()
    axis.quiver(
        row.longitude[some],
        row.latitude[some],
        east,
        north,
        color="white",
        scale=fast * 9,
        width=0.008,
        pivot="mid",
        alpha=0.9,
        zorder=3,
    )


def _draw_tracks(axis: Any, row: MapRow) -> None:
    """Draw the tracks that cross the tile, with a point where each drifter was released."""
    for track in row.tracks.numpy():
        axis.plot(track[:, 0], track[:, 1], color="white", lw=3.0, zorder=5, solid_capstyle="round")
        axis.plot(track[:, 0], track[:, 1], color=TRACK, lw=1.6, zorder=6, solid_capstyle="round")
        axis.plot(*track[0], "o", color=TRACK, ms=5, mec="white", mew=0.9, zorder=7)


def scores_figure(
    scores: Mapping[str, Mapping[str, float]],
    times: Tensor,
    separation_km: Mapping[str, Tensor],
    places: Mapping[str, Tensor],
    forecasts: Mapping[str, tuple[Tensor, Tensor, Tensor]],
    unit: str = "days",
) -> Figure:
    """Draw errors by method, the separation of drifters by lead time, and how reliable laws and forecasts are.

    Args:
        scores: by method, with ``rmse_m_s`` and ``crps_m_s``.
        times: after the release, shape (P,).
        separation_km: by method, shape (P,).
        places: of the truth in its law, how often in each of some bins, by method, shape (bins,).
        forecasts: by method, of bins of forecasts that a drifter is nearby: their mean, how often it was, their number.
        unit: of the times.
    """
    figure = Figure(figsize=(16.5, 3.9), layout="constrained")
    bars, lines, histogram, curve = figure.subplots(1, 4, width_ratios=(1.2, 1, 1, 1))
    colours = {name: f"C{i}" for i, name in enumerate(scores)}
    _draw_bars(bars, scores, colours)
    _draw_separations(lines, times, separation_km, colours, unit)
    _draw_places(histogram, places, colours)
    _draw_forecasts(curve, forecasts, colours)
    for axis in (bars, lines, histogram, curve):
        axis.spines[["top", "right"]].set_visible(False)
        axis.tick_params(labelsize=8)
    return figure


def _draw_separations(
    lines: Any, times: Tensor, separation_km: Mapping[str, Tensor], colours: Mapping[str, str], unit: str
) -> None:
    for name, distance in separation_km.items():
        lines.plot(times, distance, color=colours[name], lw=2.4 if name == next(iter(colours)) else 1.4, label=name)
    lines.set(xlabel=f"{unit} after the release", ylabel="mean separation, km", xlim=(0, float(times[-1])))
    lines.set_ylim(bottom=0)
    lines.set_title("drifters in the estimate and in the truth", fontsize=10)
    lines.legend(fontsize=8, frameon=False)


def _draw_places(histogram: Any, places: Mapping[str, Tensor], colours: Mapping[str, str]) -> None:
    for name, counts in places.items():
        share = counts.double() / counts.sum() * len(counts)
        histogram.stairs(share, np.linspace(0, 1, len(counts) + 1), color=colours[name], lw=1.6, label=name)
    histogram.axhline(1, color="0.3", ls=":", lw=1)
    histogram.set(xlabel="relative rank of the truth in the law of its point", ylabel="frequency over uniform")
    histogram.set(xlim=(0, 1), ylim=(0, None))
    histogram.set_title("reliability of the laws (flat: reliable)", fontsize=10)
    histogram.legend(fontsize=8, frameon=False)


def _draw_forecasts(
    curve: Any, forecasts: Mapping[str, tuple[Tensor, Tensor, Tensor]], colours: Mapping[str, str]
) -> None:
    for name, (expected, happened, number) in forecasts.items():
        size = 6 + 60 * (number / number.sum()).numpy()
        curve.plot(expected, happened, color=colours[name], lw=1.2, label=name)
        curve.scatter(expected, happened, s=size, color=colours[name])
    curve.plot([0, 1], [0, 1], color="0.3", ls=":", lw=1)
    curve.set(
        xlabel=f"probability of a drifter within {WITHIN_KM:g} km", ylabel="how often it was", xlim=(0, 1), ylim=(0, 1)
    )
    curve.set_title("drift of the members (diagonal: reliable)", fontsize=10)
    if forecasts:
        curve.legend(fontsize=8, frameon=False)


def _draw_bars(axis: Any, scores: Mapping[str, Mapping[str, float]], colours: Mapping[str, str]) -> None:
    names = list(scores)
    place = np.arange(len(names))[::-1]
    errors, crps = ([scores[name][key] for name in names] for key in ("rmse_m_s", "crps_m_s"))
    axis.barh(place + 0.19, errors, 0.36, color=[colours[name] for name in names])
    axis.barh(place - 0.19, crps, 0.36, color=[colours[name] for name in names], alpha=0.45)
    for y, values in ((0.19, errors), (-0.19, crps)):
        for at, value in zip(place, values, strict=True):
            axis.text(value, at + y, f" {value:.3f}", va="center", fontsize=8)
    axis.set_yticks(place, names)
    axis.set(xlabel="RMSE (full) and CRPS (pale), m s$^{-1}$", xlim=(0, 1.15 * max(errors)))
    axis.set_title("error of the held-out fields", fontsize=10)
