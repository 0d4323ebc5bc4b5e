"""The page of a reconstruction: whether to trust it, the maps, what was left out and why, and how it was made."""

__all__ = ["Results", "page_of", "summary"]

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pcl.evaluation.page import Picture, Section, page
from pcl.evaluation.result import Table
from pcl.problems.ocean.fixes.fixes import Left
from pcl.problems.ocean.reconstruct.estimate import LITTLE, Maps
from pcl.problems.ocean.reconstruct.leave_out import CLIMATOLOGY, INTERPOLATION, METHODS, OURS, Judged
from pcl.problems.ocean.reconstruct.model import Model
from pcl.problems.ocean.reconstruct.tracks import Tracks

LIMITS = (
    "Distrust what is far from tracks: the scores are of places where drifters go, near other drifters. Outside the "
    "dashed line of the maps of spread tracks tell next to nothing.",
    "A drifter is not the water: what wind, waves and a lost drogue do to all drifters alike is in these currents, and "
    "in no score.",
)
FEW = 5  # drifters: with fewer, scores are of one situation
HEAD = ["drifters left out", "RMSE, m/s", "CRPS, m/s", "within the 50 % interval", "within the 90 % interval"]
HONEST = {50: (40, 60), 90: (83, 96)}  # % within an interval that is called honest


@dataclass(frozen=True, eq=False)
class Results:
    """All that is told.

    Attributes:
        files: of the tracks.
        tracks: read, cleaned and cut into pieces.
        model: of the estimate.
        maps: the estimate.
        judged: its scores; None: it was not judged.
        prior: what the prior is, a sentence.
        notes: what else should be known.
    """

    files: Sequence[Path]
    tracks: Tracks
    model: Model
    maps: Maps
    judged: Judged | None
    prior: str
    notes: Sequence[str]


def summary(results: Results) -> list[str]:
    """Return what is printed: what was kept, the scores, and whether the estimate is worth more than others."""
    tracks = results.tracks
    kept = f"{len(tracks.fixes):,} of {tracks.number:,} fixes kept, of {len(tracks.names)} drifters"
    velocities = f"{_counted(tracks)} over {tracks.piece_hours:g} hours or more"
    left = [f"  left out {one.number:,}: {one.reason} ({_named(one.drifters)})" for one in _merged(tracks.fixes.left)]
    return [f"{kept}: {velocities}", *left, *verdict(results), told(results)]


def verdict(results: Results) -> list[str]:
    """Return whether the estimate is better than others on drifters that it did not know, and whether its spread is."""
    judged = results.judged
    if judged is None:
        return ["nothing says whether to trust these maps: they were not judged on drifters that were left out"]
    own = judged.scores(OURS)
    lines = []
    for other in (INTERPOLATION, CLIMATOLOGY):
        apart, theirs = judged.against(other), judged.scores(other)["crps_m_s"]
        change = f"CRPS {own['crps_m_s']:.4f} against {theirs:.4f} m/s"
        if apart.is_less:
            lines.append(f"better than {other} on drifters that were left out: {change}")
        elif apart.is_more:
            lines.append(
                f"WORSE than {other} on drifters that were left out, beyond chance: {change}; use that instead"
            )
        else:
            way = "better" if apart.value < 0 else "worse"
            lines.append(f"{way} than {other} on drifters that were left out, but it may be chance: {change}")
    inside = {p: 100 * own[f"coverage_{p}"] for p in HONEST}
    lines.append(
        f"spread {spread_word(inside)}: {inside[50]:.0f} % of velocities in the interval of 50 %, "
        f"{inside[90]:.0f} % in that of 90 %"
    )
    if len(judged.names) < FEW:
        lines.append(f"distrust these scores: they are of {len(judged.names)} drifters, that is of one situation")
    return lines


def spread_word(inside: Mapping[int, float]) -> str:
    """Return what the shares of truths in intervals say of the spread.

    Args:
        inside: % of the truths in the intervals of 50 and of 90 %.

    Example:
        >>> spread_word({50: 52, 90: 89}), spread_word({50: 70, 90: 90}), spread_word({50: 30, 90: 98})
        ('honest', 'too wide in the middle', 'too narrow in the middle and too wide at the ends')
    """
    ways = {
        p: "too narrow" if inside[p] < low else "too wide" if inside[p] > high else ""
        for p, (low, high) in HONEST.items()
    }
    if ways[50] == ways[90]:
        return ways[50] or "honest"
    places = {50: "in the middle", 90: "at the ends"}
    return " and ".join(f"{way} {places[p]}" for p, way in ways.items() if way)


def told(results: Results) -> str:
    """Return how much of the map is more than climatology."""
    share = 100 * results.maps.share_told
    falls = "the climatology of the archive" if results.model.prior.climatology else "no current, with the usual spread"
    return (
        f"drifters tell more than {100 * LITTLE:.0f} % of the variance in {share:.0f} % of the map and its times; "
        f"elsewhere it is {falls}"
    )


def page_of(results: Results, pictures: Sequence[Picture], moving: Picture) -> str:
    """Return the page.

    Args:
        results: all that is told.
        pictures: of scores, where there are any, maps and tracks, in this order.
        moving: the animation.
    """
    *scores, maps, tracks = pictures
    sections = [
        Section("Whether to trust it", [*verdict(results), *LIMITS], _score_tables(results.judged), scores),
        Section("Maps", [told(results)], pictures=[maps, moving]),
        Section("Tracks", _about_tracks(results.tracks), _track_tables(results.tracks), [tracks]),
        Section("How it was made", [results.prior, *_made(results)], [_kernel_table(results.model)]),
    ]
    first, last = (np.datetime64(round(t), "s") for t in results.maps.grid.time_s[[0, -1]])
    names = ", ".join(path.name for path in results.files)
    about = [f"Surface currents from the drifters of {names}, {first} to {last} UTC.", results.prior]
    return page("Currents from drifters", about, sections, results.notes)


def _score_tables(judged: Judged | None) -> list[Table]:
    if judged is None:
        return []
    rows = [[method, *_row(judged.scores(method))] for method in METHODS]
    head = ["drifter left out", "velocities", *HEAD[1:], "RMSE of optimal interpolation", "of climatology"]
    each: Table = [head]
    for number, name in enumerate(judged.names):
        of = judged.drifter == number
        if bool(of.any()):
            others = [f"{judged.scores(one, of)['rmse_m_s']:.3f}" for one in (INTERPOLATION, CLIMATOLOGY)]
            each.append([name, str(int(of.sum())), *_row(judged.scores(OURS, of)), *others])
    return [[HEAD, *rows], each]


def _row(scores: dict[str, float]) -> list[str]:
    errors = [f"{scores[key]:.4f}" for key in ("rmse_m_s", "crps_m_s")]
    return [*errors, *(f"{100 * scores[f'coverage_{p}']:.0f} %" for p in HONEST)]


def _counted(tracks: Tracks) -> str:
    """Return how many velocities there are, and how many of them count."""
    if len(tracks.pieces) == tracks.num_pieces:
        return f"{tracks.num_pieces:,} velocities"
    return f"{len(tracks.pieces):,} of {tracks.num_pieces:,} velocities, evenly along the tracks,"


def _about_tracks(tracks: Tracks) -> list[str]:
    return [
        f"{tracks.number:,} fixes were read and {len(tracks.fixes):,} kept. A velocity is the displacement over "
        f"{tracks.piece_hours:g} hours or more; over {tracks.gap_hours:g} hours without a fix is a gap. There are "
        f"{_counted(tracks).rstrip(',')}."
    ]


def _track_tables(tracks: Tracks) -> list[Table]:
    left: Table = [["left out because", "fixes", "drifters"]]
    left += [[one.reason, f"{one.number:,}", _named(one.drifters)] for one in _merged(tracks.fixes.left)]
    counts = Counter(tracks.pieces.name.tolist())
    kept: Table = [["drifter kept", "fixes", "velocities", "first", "last"]]
    for name in tracks.names:
        times = tracks.fixes.time_s[tracks.parts[name]]
        ends = [str(np.datetime64(round(t), "s")).replace("T", " ")[:16] for t in (times.min(), times.max())]
        kept.append([name, f"{len(times):,}", f"{counts[name]:,}", *ends])
    return [left, kept] if len(left) > 1 else [kept]


def _merged(left: Sequence[Left]) -> list[Left]:
    """Return what was left out, each reason once."""
    reasons = dict.fromkeys(one.reason for one in left)
    found = []
    for reason in reasons:
        own = [one for one in left if one.reason == reason]
        names = sorted({name for one in own for name in one.drifters})
        found.append(Left(sum(one.number for one in own), reason, tuple(names)))
    return found


def _named(drifters: Sequence[str], most: int = 8) -> str:
    some = ", ".join(name or "no name" for name in drifters[:most])
    return some + (f" and {len(drifters) - most:,} more" if len(drifters) > most else "")


def _made(results: Results) -> list[str]:
    model, scales = results.model, results.model.scales
    lines = []
    if model.fitted is not None:
        what = (
            "factors of lengths, times and amplitude, and the error of drifters, were"
            if model.is_generic
            else "the error of drifters was"
        )
        lines.append(
            f"To fit the tracks, {what} chosen by the likelihood of the velocities, for a drifter that is left out "
            f"without it: an error of {100 * model.fitted.noise_m_s:.1f} cm/s of each component is added."
        )
    lines.append(
        "Optimal interpolation has one streamfunction, with the scales under which all tracks are most likely, those "
        f"left out too: {scales.length_km:g} km, {scales.time_days:g} days, noise {scales.noise:g} of the variance."
    )
    return lines


def _kernel_table(model: Model) -> Table:
    prior = model.fitted.prior if model.fitted else model.prior
    kernel = prior.kernel
    rows: Table = [["component of the prior", "km east", "km north", "days", "standard deviation over the usual one"]]
    for number, kind in enumerate(kernel.kinds):
        lengths = kernel.log_lengths[number].exp().tolist()
        days, scale = kernel.log_days[number].exp().item(), kernel.log_scales[number].exp().item()
        rows.append([kind, *(f"{length:.3g}" for length in lengths), f"{days:.3g}", f"{scale:.2f}"])
    return rows
