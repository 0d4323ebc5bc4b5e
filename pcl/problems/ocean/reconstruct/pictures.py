"""Pictures of a reconstruction: maps over time, tracks, an animation, and how scores of left out drifters look.

Shapes: T times, H latitudes, W longitudes.
"""

__all__ = ["animation", "maps_figure", "scores_figure", "tracks_figure"]

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from pcl.problems.ocean.evaluation.background import land_patch, paint
from pcl.problems.ocean.reconstruct.estimate import LITTLE, Maps
from pcl.problems.ocean.reconstruct.leave_out import METHODS, OURS, Judged
from pcl.problems.ocean.reconstruct.tracks import Tracks

COAST, TRACK, WATER = "#5b5446", "#e8432e", "#eef4f8"
VEIL = 0.6  # of white over what measurements tell little of
FINE = 24  # parts of a cell in the line of the coast
MOST_ROWS, MOST_NAMED = 4, 12
ARROWS, FEW_ARROWS = 14, 5  # along a side, and along a small part of it of which measurements tell
FRAMES_PER_S = 4
TITLES = ("mean of the currents", "spread", "a member: one way it may have been")


def maps_figure(maps: Maps, tracks: Tracks) -> Figure:
    """Draw mean, spread and a member at some times, with the tracks around each; land is painted where it is known."""
    times = np.unique(np.linspace(0, len(maps.grid.time_s) - 1, MOST_ROWS + 2)[1:-1].round().astype(int))
    height = _aspect(maps) * 3.6 + 0.5
    figure = Figure(figsize=(12.6, height * len(times) + 0.7), layout="constrained")
    rows = figure.subplots(len(times), 3, squeeze=False)
    fast, wide = _limits(maps)
    for axes, time in zip(rows, times, strict=True):
        velocities = (maps.mean[:, time].numpy(), None, maps.members[0][:, time].numpy())
        for number, (axis, velocity) in enumerate(zip(axes, velocities, strict=True)):
            _base(axis, maps)
            shown = _spread(axis, maps, time, wide) if velocity is None else _currents(axis, maps, velocity, fast, time)
            _tracks_around(axis, maps, tracks, time)
            if number < 2:
                bar = figure.colorbar(shown, ax=axis, pad=0.02, aspect=18, extend="max")
                bar.set_label("m s$^{-1}$", fontsize=8)
                bar.ax.tick_params(labelsize=7)
        axes[0].set_ylabel(_date(maps.grid.time_s[time]), fontsize=9)
    for axis, title in zip(rows[0], TITLES, strict=True):
        axis.set_title(title, fontsize=10, fontweight="bold")
    _legend(figure, maps)
    return figure


def tracks_figure(maps: Maps, tracks: Tracks) -> Figure:
    """Draw the tracks that were kept, each with a dot where it begins."""
    figure = Figure(figsize=(7.6, 7.0 * _aspect(maps) + 0.8), layout="constrained")
    axis = figure.subplots()
    _base(axis, maps)
    axis.patch.set(hatch="", facecolor=WATER)
    fixes = tracks.fixes
    for number, (name, part) in enumerate(tracks.parts.items()):
        east, north = _track(tracks, part, maps)
        colour = f"C{number % 10}"
        label = name if number < MOST_NAMED else None
        axis.plot(east, north, color=colour, lw=1.0, label=label, zorder=3)
        axis.plot(east[:1], north[:1], "o", color=colour, ms=5, mec="white", zorder=4)
    axis.legend(fontsize=8, frameon=False, loc="best", title="drifter", title_fontsize=8)
    first, last = _date(fixes.time_s.min()), _date(fixes.time_s.max())
    axis.set_title(f"tracks that were kept, {first} to {last}", fontsize=10)
    return figure


def animation(maps: Maps, tracks: Tracks) -> bytes:
    """Return a GIF of the mean of the currents, and its spread, with the drifters that are under way."""
    from matplotlib.animation import FuncAnimation, PillowWriter

    figure = Figure(figsize=(9.6, 4.4 * _aspect(maps) + 0.9), layout="constrained")
    axes = figure.subplots(1, 2)
    fast, wide = _limits(maps)
    bars: list[Any] = []

    def draw(time: int) -> Sequence[Any]:
        for axis, title in zip(axes, TITLES, strict=False):
            axis.clear()
            _base(axis, maps)
            axis.set_title(title, fontsize=9)
        shown = (_currents(axes[0], maps, maps.mean[:, time].numpy(), fast, time), _spread(axes[1], maps, time, wide))
        if not bars:
            for axis, one in zip(axes, shown, strict=True):
                bars.append(figure.colorbar(one, ax=axis, pad=0.02, aspect=22, extend="max", label="m s$^{-1}$"))
        for axis in axes:
            _tracks_around(axis, maps, tracks, time)
        figure.suptitle(_date(maps.grid.time_s[time]), fontsize=10)
        return shown

    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "animation.gif"
        moving = FuncAnimation(figure, draw, frames=len(maps.grid.time_s), init_func=lambda: ())
        moving.save(file, writer=PillowWriter(fps=FRAMES_PER_S), dpi=80)
        return file.read_bytes()


def scores_figure(judged: Judged) -> Figure:
    """Draw the errors on drifters that were left out, and where their velocities lie in what was said of them."""
    figure = Figure(figsize=(11.5, 3.6), layout="constrained")
    bars, places = figure.subplots(1, 2, width_ratios=(1.3, 1))
    rows = np.arange(len(METHODS))[::-1]
    for shift, key, alpha in ((0.19, "rmse_m_s", 1.0), (-0.19, "crps_m_s", 0.45)):
        values = [judged.scores(method)[key] for method in METHODS]
        bars.barh(rows + shift, values, 0.36, color=[f"C{i}" for i in range(len(METHODS))], alpha=alpha)
        for row, value in zip(rows, values, strict=True):
            bars.text(value, row + shift, f" {value:.3f}", va="center", fontsize=8)
    bars.set_yticks(rows, METHODS, fontsize=8)
    bars.set(xlabel="RMSE (full) and CRPS (pale), m s$^{-1}$")
    bars.margins(x=0.12)
    bars.set_title("velocities of drifters that were left out", fontsize=10)
    for number, method in enumerate(METHODS):
        counts, edges = np.histogram(judged.place[method].flatten().numpy(), bins=10, range=(0, 1))
        share = counts / max(counts.sum(), 1) * len(counts)
        places.stairs(share, edges, color=f"C{number}", lw=2.2 if method == OURS else 1.2, label=method)
    places.axhline(1, color="0.3", ls=":", lw=1)
    places.set(xlabel="where the truth lies in what was said of it", ylabel="frequency over uniform", xlim=(0, 1))
    places.set_ylim(bottom=0)
    places.set_title("reliability (flat: reliable; high ends: too sure)", fontsize=10)
    places.legend(fontsize=7, frameon=False)
    for axis in (bars, places):
        axis.spines[["top", "right"]].set_visible(False)
        axis.tick_params(labelsize=8)
    return figure


def _aspect(maps: Maps) -> float:
    """Return the height of a map over its width, within limits that a page can have."""
    latitude, longitude = maps.grid.latitude, maps.grid.longitude
    cosine = np.cos(np.deg2rad(latitude.mean()))
    return float(np.clip(np.ptp(latitude) / (np.ptp(longitude) * cosine), 0.35, 1.6))


def _limits(maps: Maps) -> tuple[float, float]:
    """Return the ends of the scales of speeds and of spreads, m/s."""
    speed, spread = (np.sqrt((field.numpy() ** 2).sum(0)) for field in (maps.mean, maps.std))
    return float(np.nanquantile(speed, 0.995)) or 1.0, float(np.nanmax(spread)) or 1.0


def _base(axis: Any, maps: Maps) -> None:
    """Paint land with its coast, and label axes in degrees."""
    x, y = maps.grid.longitude, maps.grid.latitude
    paint(axis, maps.wet, x, y)
    if not maps.wet.all():
        fine = np.kron(maps.wet.numpy(), np.ones((FINE, FINE)))  # the coast follows the edges of the cells
        grids = [one[0] + (one[1] - one[0]) * ((np.arange(FINE * len(one)) + 0.5) / FINE - 0.5) for one in (x, y)]
        axis.contour(*grids, fine, levels=[0.5], colors=COAST, linewidths=1.0, zorder=4)
    for grid, limit in ((x, axis.set_xlim), (y, axis.set_ylim)):
        half = (grid[1] - grid[0]) / 2
        limit(grid[0] - half, grid[-1] + half)
    axis.set_aspect(1 / np.cos(np.deg2rad(y.mean())))
    axis.locator_params(nbins=4)
    axis.xaxis.set_major_formatter(lambda value, _: _degrees((value + 180) % 360 - 180, "EW"))
    axis.yaxis.set_major_formatter(lambda value, _: _degrees(value, "NS"))
    axis.tick_params(labelsize=7, length=2)


def _degrees(value: float, letters: str) -> str:
    return f"{abs(round(value, 6)):g}°{letters[0] if value > 0 else letters[1] if value < 0 else ''}"


def _currents(axis: Any, maps: Maps, velocity: np.ndarray, fast: float, time: int) -> Any:
    """Draw speeds and arrows, under a veil where measurements tell little."""
    from matplotlib.colors import ListedColormap

    x, y = maps.grid.longitude, maps.grid.latitude
    shown = axis.pcolormesh(x, y, np.hypot(*velocity), shading="nearest", cmap="viridis", vmin=0, vmax=fast, zorder=1)
    little = maps.explained[time].numpy() < LITTLE
    veil = np.ma.masked_where(~little, np.zeros(little.shape))
    axis.pcolormesh(x, y, veil, shading="nearest", cmap=ListedColormap(["white"]), alpha=VEIL, lw=0, zorder=2)
    every = _every(~little)
    some = slice(None, None, every)
    east, north = np.where(little, np.nan, velocity)[:, some, some]
    axis.quiver(
        x[some], y[some], east, north, color="white", scale=fast * len(x) / every, width=0.005, pivot="mid", zorder=3
    )
    return shown


def _every(told: np.ndarray) -> int:
    """Return of how many points one has an arrow: what measurements tell of has enough, however small it is."""
    rows, columns = np.flatnonzero(told.any(1)), np.flatnonzero(told.any(0))
    extent, side = max((np.ptp(one) + 1 for one in (rows, columns) if len(one)), default=1), max(told.shape)
    return max(1, round(side / ARROWS if extent > side / 2 else extent / FEW_ARROWS))


def _spread(axis: Any, maps: Maps, time: int, wide: float) -> Any:
    """Draw the spread, and the line beyond which measurements tell little."""
    x, y = maps.grid.longitude, maps.grid.latitude
    spread = np.sqrt((maps.std[:, time].numpy() ** 2).sum(0))
    shown = axis.pcolormesh(x, y, spread, shading="nearest", cmap="YlOrBr", vmin=0, vmax=wide, zorder=1)
    told = np.nan_to_num(maps.explained[time].numpy(), nan=1.0)  # no line along the land
    if told.min() < LITTLE < told.max():
        axis.contour(x, y, told, levels=[LITTLE], colors="black", linestyles="--", linewidths=0.9, zorder=3)
    return shown


def _track(tracks: Tracks, part: slice, maps: Maps) -> tuple[np.ndarray, np.ndarray]:
    """Return longitudes, on the turn of the map, and latitudes of a track, NaN in its gaps."""
    fixes, middle = tracks.fixes, maps.grid.centre[1]
    east = middle + (fixes.longitude[part] - middle + 180) % 360 - 180
    gaps = np.flatnonzero(np.diff(fixes.time_s[part]) > tracks.gap_hours * 3600) + 1
    return np.insert(east, gaps, np.nan), np.insert(fixes.latitude[part], gaps, np.nan)


def _tracks_around(axis: Any, maps: Maps, tracks: Tracks, time: int) -> None:
    """Draw where drifters were in the time around a map, with a dot where each was last."""
    times, fixes = maps.grid.time_s, tracks.fixes
    reach = float(np.diff(times).mean()) if len(times) > 1 else np.inf
    for part in tracks.parts.values():
        ends = np.searchsorted(fixes.time_s[part], times[time] + np.array([-reach, reach]))
        if ends[0] == ends[1]:
            continue
        east, north = _track(tracks, slice(part.start + ends[0], part.start + ends[1]), maps)
        axis.plot(east, north, color="white", lw=2.4, zorder=5)
        axis.plot(east, north, color=TRACK, lw=1.3, zorder=6)
        axis.plot(east[-1:], north[-1:], "o", color=TRACK, ms=4, mec="white", mew=0.7, zorder=7)


def _date(time_s: float) -> str:
    return str(np.datetime64(round(time_s), "s")).replace("T", " ")[:16] + " UTC"


def _legend(figure: Figure, maps: Maps) -> None:
    from matplotlib.lines import Line2D

    entries: list[Any] = [Line2D([], [], color=TRACK, lw=1.4, marker="o", ms=4, label="drifters around that time")]
    told = maps.explained.nan_to_num(1.0)
    if bool((told < LITTLE).any()) and bool((told > LITTLE).any()):
        label = "beyond it, and pale: tracks tell less than a tenth"
        entries.append(Line2D([], [], color="black", ls="--", lw=0.9, label=label))
    if not bool(maps.wet.all()):
        entries.append(land_patch())
    figure.legend(handles=entries, loc="outside lower center", ncols=3, fontsize=8, frameon=False)
