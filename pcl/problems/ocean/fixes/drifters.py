"""Which drifter a fix is of: names that files share, copies under another name, files that name none.

Shapes: n fixes.
"""

__all__ = ["named_apart", "of_several", "parting", "without_copies"]

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from pcl.errors import BadInputError, printable
from pcl.problems.ocean.fixes.fixes import Fixes
from pcl.problems.ocean.fixes.motion import metres_apart

FASTEST_M_S, NEAR_M = 3.0, 200.0  # from one fix to the next, but for errors of positions
MOST = 0.5  # of what two files, or two drifters, share
SEVERAL = 0.25  # of the steps of one drifter are faster at most: spikes, and boats
FARTHER = 2.0  # are steps of what mixes drifters than those of one
DECIMALS = 4  # of degrees that copies of a fix agree to: they may have been cut


def named_apart(parts: Sequence[Fixes], paths: Sequence[Path]) -> list[Fixes]:
    """Return fixes of files, where a name that is of two drifters says its file too.

    It is of two if most steps from a fix of one file to the next one of another are too fast for a drifter.

    Args:
        parts: the fixes of every file.
        paths: of the files.

    Example:
        >>> one = Fixes(np.array(["1", "1"]), np.array([0.0, 600.0]), np.array([54.0, 54.0]), np.zeros(2))
        >>> other = replace(one, latitude=one.latitude + 1)
        >>> [part.names for part in named_apart([one, other], [Path("a.csv"), Path("b.csv")])]
        [['1 (a)'], ['1 (b)']]
    """
    if len(parts) < 2 or not _share_names(parts):
        return [*parts]
    name, time_s, latitude, longitude = (
        np.concatenate([getattr(part, key) for part in parts]) for key in ("name", "time_s", "latitude", "longitude")
    )
    file = np.repeat(np.arange(len(parts)), [len(part) for part in parts])
    order = np.lexsort((file, time_s, name))
    fixes, file = Fixes(name, time_s, latitude, longitude)[order], file[order]
    changes = np.flatnonzero((fixes.name[1:] == fixes.name[:-1]) & (file[1:] != file[:-1]))
    of, fast = fixes.name[changes], _too_fast(fixes, changes)
    twice = [one for one in np.unique(of) if fast[of == one].mean() > MOST]
    labels = _labels(paths)
    return [_renamed(part, twice, label) for part, label in zip(parts, labels, strict=True)]


def without_copies(fixes: Fixes) -> Fixes:
    """Leave out drifters whose fixes are, for the most part, those of another one: it has two names.

    Args:
        fixes: sorted by drifter and time, each once.
    """
    places = [np.round(one, DECIMALS) for one in (fixes.longitude % 360, fixes.latitude)]
    order = np.lexsort((*places, np.round(fixes.time_s)))  # stable: the first name comes first
    keys = np.stack([np.round(fixes.time_s), *places])[:, order]
    again = np.zeros(len(fixes), bool)
    again[order[1:]] = (keys[:, 1:] == keys[:, :-1]).all(0)
    _, drifter = np.unique(fixes.name, return_inverse=True)
    share = np.bincount(drifter, again) / np.maximum(np.bincount(drifter), 1)
    return fixes.only(~(again & (share > MOST)[drifter]), "there under the name of another drifter too")


def of_several(fixes: Fixes) -> bool:
    """Return whether fixes that are said to be of one drifter cannot be: many are too far from the one before."""
    found = fixes[_have_places(fixes)]
    found = found[np.lexsort((found.time_s, found.name))]
    steps = np.flatnonzero(found.name[1:] == found.name[:-1])
    return len(steps) > 0 and bool(_too_fast(found, steps).mean() > SEVERAL)


def parting(fixes: Fixes, candidates: Mapping[str, np.ndarray], where: str) -> str:
    """Return the column that names drifters: the first, unless another one parts what it mixes.

    A column mixes drifters if fixes that are next to each other in time are farther apart than in another one, or if a
    drifter cannot go from the one to the other: a project, a type, numbers that begin anew with every drifter.

    Args:
        fixes: of a table.
        candidates: names by column, the most usual column first.
        where: the file, for messages.

    Raises:
        BadInputError: columns part fixes in ways that cannot both be of drifters, and their motion does not tell which.

    Example:
        >>> fixes = Fixes(np.full(4, "a"), np.arange(4.0) * 3600, np.array([54.0, 55, 54, 55]), np.zeros(4))
        >>> parting(fixes, {"id": np.array(["x"] * 4), "buoy": np.array(["A", "B", "A", "B"])}, "a.csv")
        'buoy'
    """
    best, *others = candidates
    known = _have_places(fixes)
    if not others or not known.any():
        return best
    columns = {name: replace(fixes, name=names)[known & (names != "")] for name, names in candidates.items()}
    for other in others:
        one, two = candidates[best], candidates[other]
        both = known & (one != "") & (two != "")
        if not len(_steps(columns[best])) and len(_steps(columns[other])):
            best = other  # numbers of rows, of which some are there twice
            continue
        if _refines(one[both], two[both]) or len(_steps(columns[other])) < MOST * known.sum():
            continue  # pieces of its tracks at worst, or both the same; or numbers of messages
        mixed = [
            _jump(columns[name], apart[known & (names != "")])
            or _step_m(columns[name]) > FARTHER * _step_m(columns[instead])
            for name, instead, names, apart in ((best, other, one, two), (other, best, two, one))
        ]
        if all(mixed):
            _refuse_both(columns[best], two[known & (one != "")], (best, other), where)
        elif mixed[0]:
            best = other
        elif not mixed[1] and not _refines(two[both], one[both]):
            raise BadInputError(
                printable(
                    f"{where} may name its drifters by {best} or by {other}, which part fixes differently: say which, "
                    f"tracks.drifter={best} or tracks.drifter={other}"
                )
            )
    return best


def _have_places(fixes: Fixes) -> np.ndarray:
    """Return which fixes have a time and a place, which zero and zero is not."""
    away = (fixes.latitude != 0) | (fixes.longitude != 0)
    known: np.ndarray = np.isfinite(fixes.time_s) & (np.abs(fixes.latitude) <= 90) & np.isfinite(fixes.longitude) & away
    return known


def _refuse_both(fixes: Fixes, other: np.ndarray, names: tuple[str, str], where: str) -> None:
    """Refuse two columns of which each mixes what the other one parts, unless that is spikes of the first alone."""
    pairs = replace(fixes, name=np.char.add(np.char.add(fixes.name, "\t"), other))
    if _step_m(fixes) > FARTHER * _step_m(pairs):
        raise BadInputError(
            printable(
                f"{where} names drifters neither by {names[0]} nor by {names[1]} alone: write both into one column, "
                "and name it with tracks.drifter=NAME"
            )
        )


def _refines(one: np.ndarray, other: np.ndarray) -> bool:
    """Return whether all fixes of a name of one column have the same name in the other one."""
    return len({*zip(one.tolist(), other.tolist(), strict=True)}) == len({*one.tolist()})


def _jump(fixes: Fixes, other: np.ndarray) -> bool:
    """Return whether most steps of a drifter at which another name changes are too fast for it."""
    order = np.lexsort((fixes.time_s, fixes.name))
    fixes, other = fixes[order], other[order]
    steps = np.flatnonzero((fixes.name[1:] == fixes.name[:-1]) & (other[1:] != other[:-1]))
    return len(steps) > 0 and bool(_too_fast(fixes, steps).mean() > MOST)


def _step_m(fixes: Fixes) -> float:
    """Return how far most drifters go from one fix to the next, the median, metres; infinite where none has a next."""
    fixes = fixes[np.lexsort((fixes.time_s, fixes.name))]
    steps = _steps(fixes)
    return float(np.median(metres_apart(fixes, steps, steps + 1))) if len(steps) else np.inf


def _steps(fixes: Fixes) -> np.ndarray:
    """Return from which fixes, once sorted by drifter and time, the same drifter goes on to a later one."""
    order = np.lexsort((fixes.time_s, fixes.name))
    name, time_s = fixes.name[order], fixes.time_s[order]
    return np.flatnonzero((name[1:] == name[:-1]) & (np.diff(time_s) > 0))


def _share_names(parts: Sequence[Fixes]) -> bool:
    counts = Counter(name for part in parts for name in part.names)
    return any(number > 1 for number in counts.values())


def _too_fast(fixes: Fixes, steps: np.ndarray) -> np.ndarray:
    """Return which steps from a fix to the next are too fast for a drifter."""
    reach = FASTEST_M_S * (fixes.time_s[steps + 1] - fixes.time_s[steps]) + NEAR_M
    found: np.ndarray = metres_apart(fixes, steps, steps + 1) > reach
    return found


def _labels(paths: Sequence[Path]) -> list[str]:
    """Return a name of every file that no other has."""
    for known in ([path.stem for path in paths], [f"{path.parent.name}/{path.stem}" for path in paths]):
        if len({*known}) == len(known):
            return known
    return [f"file {i + 1}" for i in range(len(paths))]


def _renamed(part: Fixes, names: Sequence[str], label: str) -> Fixes:
    if not len(names):
        return part
    said = np.char.add(np.char.add(part.name, " ("), f"{label})")
    return replace(part, name=np.where(np.isin(part.name, names), said, part.name))
